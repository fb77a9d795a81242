"""Reading the facts that a reason to tune again is looked for in: files, libraries, the machine, and Prometheus."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.loading import read_spec
from tools.artifacts import digest_file
from tools.contracts import digest_of
from tools.errors import SpecError, StorageError, TrafficError
from tools.reasons import Facts

if TYPE_CHECKING:
    from tools.spec import PrometheusSpec
    from tools.traffic.trace import Trace

HOUR_S = 3600.0
COVERED = 0.9
"""Share of an hour that must have been seen for its mean to stand for it."""
LATELY_S = 3600.0
"""The p99 that is held against the SLO is that of the last hour."""
LATELY_STEP_S = 60.0
_FUNCTION = re.compile(r"(/.+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")


def gather(target: str, now_s: float) -> Facts:
    """Return the facts of a spec as they are now. What Prometheus does not tell is noted, and no reason.

    Raises:
        SpecError: the spec, or a file that it names, cannot be used.
        StorageError: a file of the model or the data cannot be read.
    """
    from tools import plugins
    from tools.hardware import detect, library_versions

    spec = read_spec(target)
    said = spec.model_dump(mode="json")
    source = None if spec.traffic is None else spec.traffic.prometheus
    slo_ms = spec.objective.p99_ms
    unknown: list[str] = []
    hourly: tuple[tuple[int, float], ...] = ()
    p99_ms: float | None = None
    if source is not None:
        hourly = _told(lambda: _hourly_of(source, now_s), unknown, "The traffic") or ()
        p99_ms = _told(lambda: _lately_p99_ms(source, now_s), unknown, "The p99") if slo_ms is not None else None
    return Facts(
        at_s=now_s,
        spec=digest_of(said),
        files=_files({**said, "cluster": None, "traffic": said["traffic"] and {"trace": said["traffic"]["trace"]}}),
        hardware=detect().digest,
        versions={**library_versions(), **plugins.versions()},
        hourly_rps=hourly,
        p99_ms=p99_ms,
        slo_ms=slo_ms,
        unknown=tuple(unknown),
    )


def hourly_means(trace: Trace) -> tuple[tuple[int, float], ...]:
    """Return (hours since 1970, mean rate) of the hours that a trace covers nearly whole; its date must be known."""
    seconds: dict[int, float] = defaultdict(float)
    requests: dict[int, float] = defaultdict(float)
    origin_s = trace.origin_s or 0.0
    for second, rps, duration_s in zip(trace.seconds, trace.rps, trace.durations_s, strict=True):
        begin_s, end_s = origin_s + second, origin_s + second + duration_s
        while begin_s < end_s - 1e-9:
            hour = math.floor(begin_s / HOUR_S)
            part_s = min(end_s, (hour + 1) * HOUR_S) - begin_s
            seconds[hour] += part_s
            requests[hour] += part_s * rps
            begin_s += part_s
    return tuple((h, requests[h] / seconds[h]) for h in sorted(seconds) if seconds[h] >= COVERED * HOUR_S)


def _hourly_of(source: PrometheusSpec, now_s: float) -> tuple[tuple[int, float], ...]:
    from tools.traffic.observed import to_trace
    from tools.traffic.prometheus import read_traffic

    return hourly_means(to_trace(read_traffic(source, end_s=now_s)))


def _lately_p99_ms(source: PrometheusSpec, now_s: float) -> float | None:
    from tools.traffic.prometheus import read_traffic

    lately = source.model_copy(update={"window_s": LATELY_S, "step_s": min(source.step_s, LATELY_STEP_S)})
    p99 = read_traffic(lately, end_s=now_s).p99
    return None if p99 is None else p99.value_ms


def _told(ask: Callable[[], Any], unknown: list[str], what: str) -> Any:
    """Return what Prometheus says; None, and a sentence more, if it does not."""
    try:
        return ask()
    except TrafficError as error:
        unknown.append(f"{what} is not known: {error}")
        return None


def _files(said: dict[str, Any]) -> dict[str, str]:
    """Return the digests of all files that a spec names, of those in folders that it names, and of code they import."""
    found: dict[str, str] = {}
    for text in _texts(said):
        for file in _code(text) if _is_function(text) else _data(Path(text)):
            try:
                found[str(file)] = digest_file(file)[:16]
            except OSError as error:
                raise StorageError(f"cannot be read ({error.strerror}).", where=str(file)) from None
    return found


def _data(path: Path) -> list[Path]:
    """Return the files that a text of the spec names, if it is an absolute path: relative ones are plain words."""
    if not path.is_absolute():
        return []
    if not path.exists():
        raise SpecError("there is no such file.", where=str(path), fix="The spec names it.")
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def _is_function(text: str) -> bool:
    """Whether a text names a function, as `path/to/file.py:function` or `package.module:function`."""
    return _FUNCTION.fullmatch(text) is not None


def _code(reference: str) -> list[Path]:
    """Return the file of a function and those beside it that it imports. Nothing of it is run."""
    from tools.workloads.imports import local_sources

    location = reference.rpartition(":")[0]
    if location.endswith(".py"):
        _data(Path(location))  # must be there
        return local_sources(Path(location), Path(location).parent)
    root = Path.cwd()
    return sorted({file for entry in _module(location, root) for file in local_sources(entry, root)})


def _module(name: str, root: Path) -> list[Path]:
    """Return the files that are run for a module below a folder; none for Python's own, a library's, or a typo."""
    *packages, last = name.split(".")
    place = root.joinpath(*packages, last)
    found = next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)
    if found is None:
        return []
    inits = [root.joinpath(*packages[: depth + 1], "__init__.py") for depth in range(len(packages))]
    return [*filter(Path.is_file, inits), found]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
