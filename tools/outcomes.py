"""What became of a trial: turned from a worker's answer into an outcome, and from an outcome into words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pydantic import TypeAdapter

from tools.contracts import (
    AdviceResult,
    BatchPoint,
    BuildResult,
    ComparisonResult,
    EdgeCaseResult,
    Evidence,
    Failed,
    JsonScalar,
    Measured,
    Outcome,
    ProfileResult,
    Result,
    ScalingResult,
    TrialResult,
    Unstable,
    WordingResult,
)
from tools.report import format as fmt
from tools.worker import Returned, TaskOutcome

_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
_OF_THE_DAY = frozenset({"StorageError", "OSError", "PermissionError", "FileNotFoundError", "ConnectionError"})
"""Failures that say something about the machine's state, and nothing about the candidate."""


def is_lasting(outcome: Outcome) -> bool:
    """Whether an outcome answers for later sessions too: noise, time-outs and kills may differ on a quieter day."""
    match outcome:
        case Measured():
            return True
        case Failed(kind=kind):
            return kind not in _OF_THE_DAY
        case _:
            return False


def trial_result(evidence: Evidence | None) -> TrialResult | None:
    """Return what a trial or a sweep measured, or None when it did not get that far."""
    match evidence:
        case Evidence(outcome=Measured(result=TrialResult() as result) | Unstable(result=TrialResult() as result)):
            return result
    return None


def describe(evidence: Evidence) -> str:
    """Return one line about an outcome, for a person."""
    match evidence.outcome:
        case Measured(result=result):
            return _found(result)
        case Unstable(result=result, reason=why):
            return f"{_found(result)}, but no telling: {why}"
        case outcome:
            return reason(outcome)


def _found(result: Result) -> str:
    match result:
        case TrialResult(points=points, accuracy=accuracy, given_up=given_up):
            last = points[-1]
            p50, rate = fmt.ms(last.latency_ms.p50.value), fmt.rate(last.throughput_rps.value)
            text = f"batch {last.batch_size}: p50 {p50}, {rate}"
            if accuracy is not None:
                text += f", {fmt.accuracy(accuracy.value.value, accuracy.metric)}"
            return text if given_up is None else f"{text}; given up: {given_up}"
        case BuildResult(artifact=artifact, facts=facts):
            return ", ".join([artifact.format.value, fmt.mb(artifact.size_mb), *_told(facts)])
        case ComparisonResult(p50=p50_ratio, throughput=throughput):
            return f"p50 {fmt.ratio(p50_ratio)}, throughput {fmt.ratio(throughput)}"
        case EdgeCaseResult(cases=cases):
            return f"{sum(case.passed for case in cases)} of {len(cases)} passed"
        case _:
            return _concluded(result)


def _concluded(result: ProfileResult | ScalingResult | AdviceResult | WordingResult) -> str:
    """Return what is no measurement of a candidate, in a line."""
    match result:
        case ProfileResult(operators=operators):
            slowest = max(operators, key=lambda kind: operators[kind])
            return f"{slowest} takes {operators[slowest]:.0%}"
        case ScalingResult(recommendation=recommendation):
            chosen, effort = recommendation.chosen, recommendation.effort
            tried = f"of {effort.settings} settings"
            return f"none {tried} keeps every promise" if chosen is None else f"{chosen.name}, the cheapest {tried}"
        case AdviceResult(options=options, order=order):
            return ", then ".join(options[place] for place in order[:3]) or "nothing of what is left"
        case WordingResult(text=text):
            return f"{len(text.split())} words"


def _told(facts: Mapping[str, JsonScalar]) -> Iterator[str]:
    """Yield the facts of a build that fit into a line."""
    shown: dict[str, Callable[[float], str]] = {
        "flops": fmt.mflop,
        "epochs": lambda n: f"{n:.0f} epoch{'' if n == 1 else 's'}",
        "agreement": lambda share: f"agreement {fmt.percent(share)}",
        "layers_float": lambda n: f"{n:.0f} layer{'' if n == 1 else 's'} in float",
    }
    for name, show in shown.items():
        value = facts.get(name)
        if isinstance(value, int | float):
            yield show(value)


def reason(outcome: Outcome) -> str:
    """Return why an outcome is not a measurement, as a sentence; empty for one that is."""
    match outcome.outcome:
        case "measured":
            return ""
        case "failed":
            return f"failed while {outcome.stage}: {outcome.reason}"
        case "timed_out":
            silent = " without a sign of life" if outcome.silent else ""
            return f"killed after {outcome.limit_s:.0f} s{silent} while {outcome.stage}"
        case "out_of_memory":
            cap = "" if outcome.limit_mb is None else f" (it may take {outcome.limit_mb:,.0f} MB)"
            return f"ran out of memory{cap} while {outcome.stage}"
        case "crashed":
            return f"crashed ({outcome.signal}) while {outcome.stage}"
        case _:
            return outcome.reason


def from_task(outcome: TaskOutcome) -> Outcome:
    """Return what a worker's answer means for a trial: on a machine too noisy to tell, it is unstable.

    Raises:
        pydantic.ValidationError: a task returned something else than a result, which is a bug.
    """
    if not isinstance(outcome, Returned):
        return outcome
    result = _RESULT.validate_python(outcome.value)
    match result:
        case TrialResult(points=(BatchPoint(stable=False, batch_size=size, unstable_because=because), *_)):
            return Unstable(result=result, reason=f"at batch {size}, {because or 'the median did not settle'}")
        case ComparisonResult(stable=False, rounds=kept, disturbed_rounds=lost):
            return Unstable(result=result, reason=f"the machine was disturbed in {lost} of {kept + lost} rounds")
        case _:
            return Measured(result=result)
