"""The decisions as they are read: each experiment with the plan that led to it, what was left out, facts in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tools.contracts import Decision, JsonScalar, Option
from tools.report import format as fmt
from tools.report.rows import answer
from tools.result import SessionResult

_PLANNER = "planner"
_NAMED = 6
"""Of the things that were left out for one reason."""


@dataclass(frozen=True)
class Prospect:
    """Something that was not done, and what was to be expected of it where the search had an expectation."""

    name: str
    reason: str
    gain: str
    """How many times as good as the model as given, within a standard deviation."""
    chance: str
    seconds: str


@dataclass(frozen=True)
class Choice:
    """One decision, with the plan that led to it.

    Attributes:
        decision: what was decided; the planner's own, where no other followed from it.
        chosen: the answer, with a colon if a reason follows.
        reason: that reason, as a sentence.
        planned: what led to the question; empty if nobody planned it.
        tried: the candidates that it was planned to try.
        prospects: what could have been done instead.
    """

    decision: Decision
    chosen: str
    reason: str
    planned: str
    tried: tuple[str, ...]
    prospects: tuple[Prospect, ...]

    @property
    def is_plan(self) -> bool:
        """Whether this is the planner's own."""
        return self.decision.node == _PLANNER


def choices(result: SessionResult) -> tuple[Choice, ...]:
    """Return the decisions in their order, the planner's folded into those of the experiments that they led to."""
    found: list[Choice] = []
    plan: Decision | None = None
    for decision in result.decisions:
        if plan is not None and decision.node != plan.chosen:
            found.append(_plan(plan))
            plan = None
        if decision.node == _PLANNER:
            plan = decision
            continue
        chosen, reason = answer(decision)
        planned = "" if plan is None else fmt.clean(plan.reason)
        found.append(Choice(decision, chosen, reason, planned, _tried(plan), _prospects(plan)))
        plan = None
    return tuple(found if plan is None else [*found, _plan(plan)])


def left_out(result: SessionResult) -> tuple[Prospect, ...]:
    """Return what was not tried in the whole session: the largest expected gain first, then by reason."""
    hopes = [(gain, o) for o in result.left_out if (gain := _number(o.facts.get("expected_gain"))) is not None]
    hopes.sort(key=lambda hope: -hope[0])
    alike: dict[str | None, list[Option]] = {}
    for option in result.left_out:
        if _number(option.facts.get("expected_gain")) is None:
            alike.setdefault(option.rejected_because, []).append(option)
    together = [group[0].model_copy(update={"name": _listed([o.name for o in group])}) for group in alike.values()]
    return tuple(_prospect(option) for option in (*(o for _, o in hopes), *together))


def why_stopped(result: SessionResult) -> str:
    """Return why the planner stopped looking; empty if it did not."""
    plans = [d for d in result.decisions if d.node == _PLANNER]
    return fmt.clean(plans[-1].reason) if plans and plans[-1].chosen == "scaling_recommendation" else ""


def facts(option: Option, metric: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of each fact of an option, as a person reads them."""
    for name, value in option.facts.items():
        if name == "expected_gain":
            yield fmt.label(name), _gain(option)
        elif name == "accuracy_drop" and _number(value) is not None:
            yield fmt.label(name), fmt.drop(_number(value) or 0.0, metric)
        elif name != "sd" or "expected_gain" not in option.facts:
            yield ("p99, upper end" if name == "p99_high_ms" else fmt.label(name)), fmt.quantity(name, value)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return "; ".join(names) if more <= 0 else f"{'; '.join(names[:_NAMED])}; and {more} more"


def _plan(decision: Decision) -> Choice:
    shown = decision.model_copy(update={"chosen": (decision.chosen or "").replace("_", " ") or None})
    chosen, reason = answer(shown)
    return Choice(decision, chosen, reason, "", _tried(decision), _prospects(decision))


def _tried(plan: Decision | None) -> tuple[str, ...]:
    options = () if plan is None else plan.options
    return tuple(fmt.clean(option.name) for option in options if not option.facts and option.rejected_because is None)


def _prospects(plan: Decision | None) -> tuple[Prospect, ...]:
    options = () if plan is None else plan.options
    return tuple(_prospect(option) for option in options if "expected_gain" in option.facts)


def _prospect(option: Option) -> Prospect:
    return Prospect(
        name=option.name,
        reason=fmt.clean(option.rejected_because or ""),
        gain=_gain(option),
        chance=fmt.quantity("chance", option.facts.get("chance")),
        seconds=fmt.quantity("seconds", option.facts.get("seconds")),
    )


def _gain(option: Option) -> str:
    gain, sd = (_number(option.facts.get(name)) for name in ("expected_gain", "sd"))
    if gain is None:
        return fmt.NOTHING
    if sd is None:
        return fmt.gain(gain)
    return f"{fmt.gain(gain)} [{fmt.gain(gain - sd)}, {fmt.gain(gain + sd)}]"


def _number(value: JsonScalar) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
