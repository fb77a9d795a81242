"""What is asked of the last step of a challenge, held against what was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tools.challenge import ChallengeStep, Target, TargetState, final_step
from tools.contracts import ComparisonResult, Interval
from tools.report import format as fmt

STRETCH = 3.0
"""So many times a target is its stretch."""
MAX_DROP = 0.01
"""One point of an accuracy; of another metric, this much of its unit."""
_RATIOS = {"throughput": 20.0, "cost per request": 12.5, "p99": 3.3}
"""What is asked, as how many times as good as the model as given."""


def targets(steps: Sequence[ChallengeStep], compared: tuple[str, ComparisonResult] | None) -> tuple[Target, ...]:
    """Return what was asked of the last step, each with what was measured. One replica against one.

    Args:
        steps: the model as given first.
        compared: id and result of timing the two in turn; None where that was not done, or came to nothing.
    """
    baseline, final = steps[0], final_step(steps)
    before, after = baseline.figures, final.figures
    assert before is not None
    assert after is not None
    alone = tuple(dict.fromkeys((*baseline.evidence, *final.evidence)))
    served = quotient(after.throughput_rps, before.throughput_rps)
    cheaper = quotient(before.cost_per_1000_usd, after.cost_per_1000_usd)
    how, evidence = "Measured one after the other, not in turn.", alone
    if compared is not None:
        served = cheaper = compared[1].throughput
        how = f"Timed in turn with the model as given, in {compared[1].processes} processes."
        if not compared[1].stable:
            how += f" The machine was disturbed in {compared[1].disturbed_rounds} rounds: not to be relied on."
        evidence = (compared[0],)
    p99 = quotient(before.p99_ms, after.p99_ms)
    spans = f"Of a call: {fmt.ms(before.p99_ms.value)} at batch {before.batch_size}, {fmt.ms(after.p99_ms.value)} at "
    return (
        _ratio("throughput", served, how, evidence),
        _ratio("cost per request", cheaper, f"{how} One replica at the same price, kept busy.", evidence),
        _ratio("p99", p99, f"{spans}batch {after.batch_size}; measured one after the other.", alone),
        Target(
            name="accuracy drop",
            wanted=MAX_DROP,
            got=after.accuracy_drop,
            how=f"Paired over {after.accuracy_drop.n} held-out items.",
            state=TargetState.MET if after.accuracy_drop.value <= MAX_DROP else TargetState.MISSED,
            evidence=final.evidence,
        ),
    )


def quotient(numerator: Interval, denominator: Interval) -> Interval:
    """Return the ratio of two positive intervals, as wide as it can be: they were not measured in turn."""
    return Interval(
        value=numerator.value / denominator.value,
        low=numerator.low / denominator.high,
        high=numerator.high / denominator.low,
        n=min(numerator.n, denominator.n),
    )


def _ratio(name: str, got: Interval, how: str, evidence: tuple[str, ...]) -> Target:
    wanted = _RATIOS[name]
    return Target(
        name=name,
        wanted=wanted,
        got=got,
        how=how,
        state=_state(got, wanted),
        stretch=wanted * STRETCH,
        stretch_state=_state(got, wanted * STRETCH),
        evidence=evidence,
    )


def _state(got: Interval, wanted: float) -> TargetState:
    if got.low >= wanted:
        return TargetState.MET
    return TargetState.MISSED if got.high < wanted else TargetState.OPEN
