"""`tuning.yaml` as a whole, and reading it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from tools.contracts import Contract
from tools.errors import SpecError
from tools.spec.parts import SpecPart
from tools.spec.scaling import ClusterSpec, HpaFileSpec, ScalingSpec, TrafficSpec
from tools.spec.search import SearchSpec
from tools.spec.workload import WorkloadSpec


class Objective(SpecPart):
    """What to minimize, and the promises that must hold meanwhile."""

    minimize: Literal["cost", "latency", "size"] = Field("cost", description="cost per 1,000 requests, p50, or size")
    p99_ms: float | None = Field(None, gt=0, description="latency SLO: the slowest 1 % may take at most this long")
    max_accuracy_drop: float = Field(
        0.01, ge=0, description="in the metric's unit, against the model as given: 0.01 is one point of top1"
    )
    max_memory_mb: float | None = Field(None, gt=0, description="peak resident memory of a replica")
    max_size_mb: float | None = Field(None, gt=0, description="size of the artifact on disk")


class HardwareSpec(SpecPart):
    """What the machine costs."""

    price_per_hour_usd: float = Field(gt=0, description="price of one replica's machine (or its share of it) per hour")
    name: str | None = Field(None, description="what you call this machine, e.g. the instance type")
    threads: int | None = Field(None, ge=1, description="CPU threads of a replica; default: all this machine offers")


class BudgetSpec(SpecPart):
    """What the session itself may cost."""

    time_s: float = Field(900.0, gt=0, description="stop proposing new trials when this is nearly used up")
    trial_s: float = Field(300.0, gt=0, description="kill a single trial after this long")
    trial_memory_mb: float | None = Field(
        None, gt=0, description="kill a single trial that takes more memory than this; default: 80 % of the machine's"
    )
    tolerate_noise: bool = Field(
        default=False,
        description="keep what was timed while other processes took the CPUs: wider intervals in place of UNSTABLE",
    )


class TuningSpec(SpecPart):
    """The whole of `tuning.yaml`."""

    version: Literal[1] = 1
    workload: WorkloadSpec
    objective: Objective = Objective()
    hardware: HardwareSpec
    traffic: TrafficSpec | None = None
    hpa: HpaFileSpec | None = None
    scaling: ScalingSpec = ScalingSpec()
    cluster: ClusterSpec | None = None
    budget: BudgetSpec = BudgetSpec()
    search: SearchSpec = SearchSpec()
    seed: int = 0


def load_spec(path: Path) -> TuningSpec:
    """Read and validate a spec; file references come back absolute.

    Raises:
        SpecError: the file is missing, is no YAML, or a field is unknown, ill-typed or out of bounds.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            "no such file.", where=str(path), fix="`infertune init` writes a commented spec to start from."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read ({error}).", where=str(path)) from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"is not valid YAML: {_one_line(error)}", where=str(path)) from None
    if not isinstance(raw, dict):
        raise SpecError("must be a mapping with at least `workload` and `hardware`.", where=str(path))
    try:
        return TuningSpec.model_validate(raw, context={"base": path.resolve().parent})
    except ValidationError as error:
        raise SpecError(describe_validation_error(error, TuningSpec), where=str(path)) from None


def describe_validation_error(error: ValidationError, model: type[Contract]) -> str:
    """Turn pydantic's errors into sentences that name the field and, for a typo, the likely one."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or "the top level"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            names = _fields_at(model, item["loc"][:-1])
            close = difflib.get_close_matches(str(item["loc"][-1]), names, n=1)
            message = "unknown field." + (f" Did you mean `{close[0]}`?" if close else f" Known: {', '.join(names)}.")
        elif item["type"] == "missing":
            message = "is missing."
        elif item["type"] != "value_error":
            message = f"{message} (found {item['input']!r})."
        lines.append(f"{where}: {message}")
    return "; ".join(lines)


def _fields_at(model: type[Contract], location: tuple[Any, ...]) -> list[str]:
    """Names of the fields that the model at `location` below `model` knows."""
    current: type[Contract] = model
    for part in location:
        field = current.model_fields.get(str(part))
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        below = [c for c in candidates if isinstance(c, type) and issubclass(c, Contract)]
        if not below:
            return []
        current = below[0]
    return sorted(current.model_fields)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def spec_schema() -> dict[str, Any]:
    """Return the JSON schema of `tuning.yaml`, for editors."""
    schema = TuningSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "infertune tuning spec", **schema}
