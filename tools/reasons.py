"""Why tune again: what has changed since the last run, by recorded facts alone.

A session costs an hour of a machine, so a schedule looks for a reason first. Everything here is a pure function of two
records, the one of the last run and the one of now: no clock, no file, no network. What cannot be told is no reason,
and a sentence says why it cannot.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from pydantic import Field

from tools.contracts import Contract

HOURS_PER_WEEK = 168
MIN_HOURS = 24
"""Hours that are compared at least: fewer are one rush, or one night."""
LATEST_HOURS = 48
"""Hours that are compared at most, the latest: a change has to last for longer than a day, and is seen in two."""
MIN_LEVEL_CHANGE = 0.2
"""Smallest change of the level that counts, as a share: an autoscaler takes less than this in its stride."""
MIN_SHAPE_DISTANCE = 0.25
"""Smallest Kolmogorov-Smirnov distance between the shapes that counts: a quarter of the hours lie elsewhere."""
MIN_SHAPE_MOVE = 0.1
"""How far the hours must have moved on average, as a share of the mean rate: the distance above sees only the order,
and would tell 100 rps from 101 on a service that is always the same."""
SIGNIFICANCE = 0.01
"""Hours next to each other resemble each other, so p-values are flattered: they are asked for beside a minimum effect,
never in its place."""
SLO_AGAIN_S = 72_000.0
"""An SLO that was missed before the last run too is no news; the next night it is worth another look. Less than a day:
from one nightly look to the next it is a second less than 24 hours now and then."""
AHEAD_S = 86_400.0
"""Evidence that is dated later than now by more than this was written under a clock that was wrong."""
_CODE = ".py"
_NAMED = 4
"""Changes that a sentence names one by one."""

Kind: TypeAlias = Literal[
    "first", "spec", "workload", "traffic_level", "traffic_shape", "slo", "versions", "hardware", "age"
]


class Reason(Contract):
    """One reason to tune again."""

    kind: Kind
    text: str
    """A sentence for people."""


class Facts(Contract):
    """What a recommendation rests on, as it was at one moment."""

    at_s: float
    """Unix time."""
    spec: str
    """Digest of the spec, as it is read."""
    files: dict[str, str] = Field(default_factory=dict)
    """Digests of the model, the data and the code that the spec names, by path."""
    hardware: str
    """Digest of the machine."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the libraries that decide how fast a model runs."""
    hourly_rps: tuple[tuple[int, float], ...] = ()
    """(hours since 1970, mean rate), ascending: hours that were seen nearly whole. None without a Prometheus."""
    p99_ms: float | None = None
    """Of the service lately; None where nobody knows."""
    slo_ms: float | None = None
    unknown: tuple[str, ...] = ()
    """What could not be read, in sentences."""


class Judgement(Contract):
    """Whether to tune again."""

    reasons: tuple[Reason, ...]
    """None: nothing has changed that matters."""
    notes: tuple[str, ...] = ()
    """What was looked at and is no reason, and what could not be looked at, in sentences."""
    known: Facts
    """What to remember if a session is run now: the facts, with the hours before a change of level at the new level.
    Else the same change would be found again when other hours of the week come."""


class _Pairs(NamedTuple):
    """The same hours of the week, in the last run's profile and since."""

    before: list[float]
    since: list[float]


def judge(last: Facts | None, now: Facts, *, max_age_s: float) -> Judgement:
    """Compare now with the last run that came to a verdict.

    Args:
        last: what that run rested on; None if there was none.
        now: the same, as it is now.
        max_age_s: evidence older than this is renewed whatever else is true.
    """
    if last is None:
        reason = Reason(kind="first", text="There is no recommendation yet.")
        return Judgement(reasons=(reason,), notes=now.unknown, known=now)
    traffic, note = _traffic(last, now)
    reasons = (*_inputs(last, now), *traffic, *_slo(last, now), *_surroundings(last, now), *_age(last, now, max_age_s))
    moved = any(reason.kind == "traffic_level" for reason in traffic)
    known = _remembered(last, now, moved=moved)
    return Judgement(reasons=reasons, notes=(*now.unknown, *([note] if note else [])), known=known)


def _inputs(last: Facts, now: Facts) -> Iterator[Reason]:
    if last.spec != now.spec:
        yield Reason(kind="spec", text="The spec says something else.")
    changed = _differences(last.files, now.files)
    code = [name for name in changed if name.endswith(_CODE)]
    other = [name for name in changed if not name.endswith(_CODE)]
    parts = [("The model's or the data's code changed", code), ("Model or data changed", other)]
    said = [f"{what}: {_named(names)}." for what, names in parts if names]
    if said:
        yield Reason(kind="workload", text=" ".join(said))


def _surroundings(last: Facts, now: Facts) -> Iterator[Reason]:
    changed = _differences(last.versions, now.versions)
    if changed:
        moves = [f"{n} {last.versions.get(n, 'absent')} to {now.versions.get(n, 'absent')}" for n in changed]
        yield Reason(kind="versions", text=f"Libraries changed: {_named(moves)}.")
    if last.hardware != now.hardware:
        yield Reason(kind="hardware", text="This is another machine, or it has other cores, memory or accelerators.")


def _age(last: Facts, now: Facts, max_age_s: float) -> Iterator[Reason]:
    age_s = now.at_s - last.at_s
    if age_s < -AHEAD_S:
        text = (
            f"The evidence is dated {-age_s / 86_400:.1f} days ahead: the clock was set back, and its age is unknown."
        )
        yield Reason(kind="age", text=text)
    if age_s > max_age_s:
        text = f"The evidence is {age_s / 86_400:.1f} days old, and good for {max_age_s / 86_400:g}."
        yield Reason(kind="age", text=text)


def _slo(last: Facts, now: Facts) -> Iterator[Reason]:
    if not _misses(now):
        return
    if _misses(last) and last.slo_ms == now.slo_ms and now.at_s - last.at_s < SLO_AGAIN_S:
        return
    yield Reason(kind="slo", text=f"The p99 was {now.p99_ms:.0f} ms lately, and {now.slo_ms:g} ms are promised.")


def _misses(facts: Facts) -> bool:
    return facts.p99_ms is not None and facts.slo_ms is not None and facts.p99_ms > facts.slo_ms


def _traffic(last: Facts, now: Facts) -> tuple[list[Reason], str | None]:
    """Return what changed about the traffic since the last run, or a sentence on why that cannot be told.

    The latest hours are held against the same hours of the week before, so that a Sunday is compared with a Sunday.
    The level is a Wilcoxon signed-rank test of these pairs (`scipy.stats.wilcoxon`), with a minimum effect. The shape
    is a two-sample Kolmogorov-Smirnov test (`scipy.stats.ks_2samp`) of the rates over their mean, likewise. A day that
    is only shifted has the same rates, needs as many replicas, and is no change here.
    """
    if not now.hourly_rps:
        return [], None
    if not last.hourly_rps:
        return [], "The traffic cannot be compared: at the last run there was none on record."
    pairs = _pairs(last, now)
    if len(pairs.since) < MIN_HOURS:
        return [], f"The traffic is not judged: {len(pairs.since)} hours can be compared, and {MIN_HOURS} are needed."
    before, since = statistics.fmean(pairs.before), statistics.fmean(pairs.since)
    if before <= 0 or since <= 0:
        if before == since:
            return [], None
        return [Reason(kind="traffic_level", text=f"The mean rate went from {before:.3g} to {since:.3g} rps.")], None
    found = [*_level(pairs), *_shape(pairs, before, since)]
    level = f"its level is {_ratio(pairs):.2f} times what it was, over {len(pairs.since)} hours"
    return found, None if found else f"No change of the traffic that counts: {level}."


def _level(pairs: _Pairs) -> Iterator[Reason]:
    """Yield a reason if the median ratio of the same hours left the band, and that is not by chance."""
    from scipy.stats import wilcoxon

    ratio = _ratio(pairs)
    effect = abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf
    if effect <= math.log1p(MIN_LEVEL_CHANGE):
        return
    differences = [since - before for before, since in zip(pairs.before, pairs.since, strict=True)]
    if float(wilcoxon(differences, method="asymptotic").pvalue) < SIGNIFICANCE:
        text = f"The traffic's level is {ratio:.2f} times what it was, over {len(pairs.since)} hours."
        yield Reason(kind="traffic_level", text=text)


def _ratio(pairs: _Pairs) -> float:
    """Return the median over the hours of the rate since over the rate before."""
    both = zip(pairs.before, pairs.since, strict=True)
    return statistics.median(since / before if before > 0 else math.inf for before, since in both if before + since > 0)


def _shape(pairs: _Pairs, before: float, since: float) -> Iterator[Reason]:
    """Yield a reason if the rates over their mean are spread otherwise: flatter, or with higher peaks."""
    from scipy.stats import ks_2samp

    # The exact method falls back to the asymptotic one, with a warning, on some ties; from 24 points on both agree.
    shapes = [rps / before for rps in pairs.before], [rps / since for rps in pairs.since]
    move = statistics.fmean(abs(b - a) for a, b in zip(*map(sorted, shapes), strict=True))
    if move < MIN_SHAPE_MOVE:
        return
    result = ks_2samp(*shapes, method="asymp")
    distance = float(result.statistic)
    if distance >= MIN_SHAPE_DISTANCE and float(result.pvalue) < SIGNIFICANCE:
        is_now, was = max(pairs.since) / since, max(pairs.before) / before
        peaks = f"its busiest hour is {is_now:.1f} times the mean, and was {was:.1f}"
        yield Reason(kind="traffic_shape", text=f"The traffic's shape changed (distance {distance:.2f}): {peaks}.")


def _pairs(last: Facts, now: Facts) -> _Pairs:
    by_place = {hour % HOURS_PER_WEEK: rps for hour, rps in last.hourly_rps}
    newest = last.hourly_rps[-1][0]
    fresh = [(hour % HOURS_PER_WEEK, rps) for hour, rps in now.hourly_rps if hour > newest]
    common = [(by_place[place], rps) for place, rps in fresh if place in by_place][-LATEST_HOURS:]
    return _Pairs([before for before, _ in common], [since for _, since in common])


def _remembered(last: Facts, now: Facts, *, moved: bool) -> Facts:
    """Return the facts with what the last run remembered of hours that both saw; at the new level if that moved."""
    before = dict(last.hourly_rps)
    hourly = [(hour, before.get(hour, rps)) for hour, rps in now.hourly_rps]
    ratio = _ratio(_pairs(last, now)) if moved else 1.0
    if ratio < math.inf:
        newest = last.hourly_rps[-1][0] if last.hourly_rps else 0
        first = max(newest + 1, now.hourly_rps[-1][0] - LATEST_HOURS + 1) if now.hourly_rps else 0
        hourly = [(hour, rps if hour >= first else rps * ratio) for hour, rps in hourly]
    return now.model_copy(update={"hourly_rps": tuple(hourly)})


def _differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _named(items: list[str]) -> str:
    rest = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + rest
