"""What a session would have answered, had it been asked for something else: from its evidence alone. Pure.

Nothing is extrapolated: a batch size that was not measured has no numbers. What is not known, and could change the
answer, is named, with what it would take to know it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from tools.contracts import Contract, Interval, Verdict
from tools.doubts import Check, Proposed, checks
from tools.errors import SpecError
from tools.result import Configuration, Margin, Ratio, ScalingSummary, Seconds
from tools.scaling.recommend import recommend
from tools.selection import Configured, final_choice
from tools.spec import HardwareSpec, Objective, TrafficSpec, TuningSpec, describe_validation_error
from tools.summary import summarize
from tools.traffic import Trace
from tools.view import SessionView

NO_LIMIT = "none"
"""The word that removes a constraint."""
_NO_TIME = Seconds(total=0.0, trials=0.0, overhead=0.0)


class Answer(Contract):
    """What evidence answers to one objective at one price."""

    objective: Objective
    price_per_hour_usd: float
    verdict: Verdict
    summary: str
    best: Configuration | None
    """What keeps every promise, or, when nothing does, what comes closest."""
    why: str
    ratio: Ratio | None
    """Against the model as given, timed in turn; None when they were not."""
    margins: tuple[Margin, ...]
    scaling: ScalingSummary | None
    """None without traffic, or when nothing keeps every promise."""


class WhatIf(Contract):
    """The answer to a changed question, beside the session's own."""

    session: str
    metric: str
    changed: dict[str, str]
    """What was changed, by its place in the spec, as it would be written there."""
    now: Answer
    then: Answer
    same: bool
    """Whether recipe and batch size are those of the session."""
    checks: tuple[Check, ...]
    """What could change the answer; empty when everything that it rests on was measured."""
    notes: tuple[str, ...]


def changed_spec(spec: TuningSpec, changes: Mapping[str, str]) -> TuningSpec:
    """Return a spec with some of its values replaced.

    Args:
        spec: of the session.
        changes: a value, as text, for each of: a field of the objective, `price_per_hour_usd`, `rate_rps`. For a
            constraint of the objective that may be absent, `none` removes it.

    Raises:
        SpecError: a value is out of bounds or of the wrong type.
    """
    objective = {name: _value(name, text) for name, text in changes.items() if name in Objective.model_fields}
    hardware = {name: text for name, text in changes.items() if name in HardwareSpec.model_fields}
    traffic = {name: text for name, text in changes.items() if name in TrafficSpec.model_fields}
    return spec.model_copy(
        update={
            "objective": _validated(Objective, {**spec.objective.model_dump(), **objective}),
            "hardware": _validated(HardwareSpec, {**spec.hardware.model_dump(), **hardware}),
            "traffic": _validated(TrafficSpec, traffic) if traffic else spec.traffic,
        }
    )


def what_if(
    view: SessionView,
    spec: TuningSpec,
    *,
    session: str,
    traces: tuple[Trace | None, Trace | None],
    policy: Callable[[SessionView], Proposed | None],
) -> WhatIf:
    """Answer a changed question from what a session measured.

    Args:
        view: all that the session knows.
        spec: the changed spec.
        session: its id.
        traces: the traffic of the session's own spec and of the changed one.
        policy: returns the next experiment that it would ask for; None when it wants none.
    """
    changed = SessionView(
        spec=spec,
        workload=view.workload,
        hardware=view.hardware,
        availability=view.availability,
        evidence=view.evidence,
    )
    then, now = answer(view, traces[0]), answer(changed, traces[1])
    chosen, _ = final_choice(changed)
    return WhatIf(
        session=session,
        metric=view.workload.metric,
        changed=_differences(view.spec, spec),
        now=now,
        then=then,
        same=_identity(now) == _identity(then),
        checks=tuple(checks(changed, chosen, policy(changed))),
        notes=tuple(_notes(changed, chosen)),
    )


def answer(view: SessionView, trace: Trace | None) -> Answer:
    """Return what the evidence of a view answers to its spec."""
    chosen, why = final_choice(view)
    result = summarize(
        view, session="", created="", versions={}, decisions=(), scaling=None, seconds=_NO_TIME, files={}
    )
    return Answer(
        objective=view.spec.objective,
        price_per_hour_usd=view.spec.hardware.price_per_hour_usd,
        verdict=result.verdict,
        summary=result.summary,
        best=result.best,
        why=why,
        ratio=result.ratio,
        margins=result.margins,
        scaling=None if chosen is None or trace is None else _scaling(view.spec, chosen, trace),
    )


def _scaling(spec: TuningSpec, chosen: Configured, trace: Trace) -> ScalingSummary:
    return recommend(
        trace=trace,
        capacity=chosen.point.throughput_rps,
        p99_ms=chosen.point.latency_ms.p99.value,
        slo_ms=spec.objective.p99_ms,
        price_per_hour_usd=spec.hardware.price_per_hour_usd,
    )


def figure_of(answer: Answer) -> tuple[str, Interval] | None:
    """Return the name of what the objective of an answer minimizes, and its value: usd per 1,000 requests, ms or MB."""
    best = answer.best
    if best is None:
        return None
    match answer.objective.minimize:
        case "cost":
            return "cost_per_1000_usd", best.intervals["cost_per_1000_usd"]
        case "latency":
            return "p50_ms", best.latency_ms.p50
        case "size":
            return "size_mb", Interval(value=best.size_mb, low=best.size_mb, high=best.size_mb, n=1)


def _value(name: str, text: str) -> str | None:
    """Return a value for the objective: None where a limit that may be absent is to be removed."""
    return None if text == NO_LIMIT and Objective.model_fields[name].default is None else text


def _validated(model: type[Any], values: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SpecError(describe_validation_error(error, model), where="what-if") from None


def _differences(before: TuningSpec, after: TuningSpec) -> dict[str, str]:
    """Return what to write where in the spec."""
    found = {}
    for part in ("objective", "hardware", "traffic"):
        was, is_now = getattr(before, part), getattr(after, part)
        for name in type(is_now).model_fields if is_now is not None else ():
            old, new = getattr(was, name, None), getattr(is_now, name)
            if old != new:
                shown = f"{new:.12g}" if isinstance(new, float) else f"{new}"
                found[f"{part}.{name}"] = NO_LIMIT if new is None else shown
    return found


def _identity(answer: Answer) -> tuple[Any, ...] | None:
    return None if answer.best is None else (answer.best.definition, answer.best.batch_size)


def _notes(view: SessionView, chosen: Configured | None) -> list[str]:
    """Say where the measurements end, if the answer lies at their end."""
    if chosen is None or view.workload.source.fixed_batch is not None or view.spec.objective.minimize != "cost":
        return []
    sizes = chosen.tried.points
    if len(sizes) == 1:
        return [f"No other batch size of {chosen.tried.name} was measured."]
    if chosen.point.batch_size == max(sizes):
        return [f"No batch size of {chosen.tried.name} above {chosen.point.batch_size} was measured."]
    return []
