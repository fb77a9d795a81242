"""What sessions, decisions and plans hold, as JSON whose numbers are texts: exactly as they may be quoted.

Other people's text (file names, error messages, labels) is fenced: `<data>...</data>`, escaped and short. It is shown
to a model as data, and no figure in it counts as told by a tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from agent.chat.fenced import MOST, SHORT, data, evidence_ids, identity, name, own, sentence, spec_lines
from tools.contracts import BatchPoint, Interval, ScalingOption
from tools.report import format as fmt
from tools.result import Configuration, Margin, ScalingSummary, SessionResult
from tools.whatif import Answer, WhatIf

__all__ = [
    "MOST",
    "SHORT",
    "Facts",
    "compared",
    "data",
    "evidence_ids",
    "identity",
    "name",
    "own",
    "plan_lines",
    "result",
    "scaling",
    "sentence",
    "summary",
    "wondered",
]

Facts: TypeAlias = dict[str, Any]
"""JSON-ready; every number is a text in its unit."""

_DIFF = 60
"""Lines of a diff."""
_PLAN_FACTS = ("Why: ", "Evidence: ", "Expected cost of a day: ", "Watched for ", "Made ")
"""How the lines of a plan begin that hold nobody's names."""


def interval(shown_value: str, found: Interval) -> str:
    """Return a value with the ends of its interval."""
    return f"{shown_value} {fmt.span(found)}"


def configuration(found: Configuration | None, metric: str) -> Facts | None:
    """Return what was measured of one recipe at one batch size."""
    if found is None:
        return None
    latency, drop = found.latency_ms, found.accuracy_drop
    return {
        "recipe": name(found.recipe),
        "runtime": name(found.runtime),
        "batch size": str(found.batch_size),
        "p50 of a batch": interval(fmt.ms(latency.p50.value), latency.p50),
        "p99 of a batch": interval(fmt.ms(latency.p99.value), latency.p99),
        "throughput": interval(fmt.rate(found.throughput_rps), found.intervals["throughput_rps"]),
        "cost per thousand requests": fmt.usd(found.cost_per_1000_usd),
        "accuracy": fmt.accuracy(found.accuracy, metric),
        "accuracy drop": f"{fmt.drop(drop.value, metric)} {fmt.drop_span(drop, metric)}",
        "size": fmt.mb(found.size_mb),
        "memory": fmt.mb(found.memory_mb),
    }


def margin(found: Margin, metric: str) -> Facts:
    """Return one promise, and by how much it is kept or missed."""

    def told(value: float) -> str:
        if found.constraint == "max_accuracy_drop":
            return fmt.drop(value, metric).removeprefix("+")
        return fmt.quantity(found.constraint, value)

    return {
        "promise": fmt.label(found.constraint),
        "limit": told(found.limit),
        "found, upper end": told(found.value),
        "kept" if found.margin >= 0 else "missed": f"by {told(abs(found.margin))}",
    }


def summary(found: SessionResult) -> str:
    """Return a result's sentence; where nothing ran, it repeats an error message."""
    return own(found.summary, _recipes(found)) if found.best is not None else data(found.summary)


def _recipes(found: SessionResult) -> list[str]:
    return [trial.recipe for trial in found.trials]


def result(found: SessionResult) -> Facts:
    """Return a finished session's outcome."""
    ratio = found.ratio
    return {
        "workload": data(found.workload),
        "verdict": found.verdict.value,
        "summary": summary(found),
        "objective": fmt.objective(found.objective, found.metric),
        "price of an hour": fmt.usd(found.price_per_hour_usd),
        "model as given": configuration(found.baseline, found.metric),
        "best": configuration(found.best, found.metric),
        "ratio, above one is better": None
        if ratio is None
        else {"p50, one request": fmt.ratio(ratio.p50), "requests for the money": fmt.ratio(ratio.throughput)},
        "promises": [margin(m, found.metric) for m in found.margins],
        "batch size": None if found.batch is None else own(found.batch.sla_reason, _recipes(found)),
        "candidates": [
            {
                "recipe": name(trial.recipe),
                "outcome": trial.outcome.replace("_", " "),
                "chosen": trial.chosen,
                **({} if trial.reason is None else {"why not measured": data(trial.reason)}),
                **_point(trial.points),
                "evidence": evidence_ids(trial.evidence),
            }
            for trial in found.trials[:MOST]
        ],
        "took": fmt.seconds(found.seconds.total),
        "intervals": "95 % confidence",
    }


def _point(points: tuple[BatchPoint, ...]) -> Facts:
    if not points:
        return {}
    first = min(points, key=lambda point: point.batch_size)
    return {f"p50 at batch {first.batch_size}": fmt.ms(first.latency_ms.p50.value)}


def wondered(found: WhatIf) -> Facts:
    """Return the answer to a changed question beside the session's own."""
    names = [answer.best.recipe for answer in (found.now, found.then) if answer.best is not None]
    return {
        "changed": dict(found.changed),
        "what if": _answer(found.now, found.metric),
        "the session's own answer": _answer(found.then, found.metric),
        "same choice": found.same,
        "to be sure, measure": [
            {"what": own(check.measure, names), "why": own(check.why, names)}
            | ({} if check.seconds is None else {"takes about": fmt.seconds(check.seconds)})
            for check in found.checks[:MOST]
        ],
        "notes": [own(note, names) for note in found.notes],
        "intervals": "95 % confidence",
    }


def _answer(found: Answer, metric: str) -> Facts:
    return {
        "asked": fmt.objective(found.objective, metric),
        "price of an hour": fmt.usd(found.price_per_hour_usd),
        "verdict": found.verdict.value,
        "best": configuration(found.best, metric),
        "promises": [margin(m, metric) for m in found.margins],
        "replicas": None if found.scaling is None else _replicas(found.scaling),
    }


def _replicas(found: ScalingSummary) -> Facts:
    return {
        "for 95 % of the time": str(found.replicas_p95),
        "for the peak": str(found.replicas_peak),
        "cost of a day": fmt.usd(found.daily_cost_usd),
    }


def scaling(found: ScalingSummary) -> Facts:
    """Return how many replicas hold the traffic, and the autoscaler's setting that the twin found."""
    recommendation = found.recommendation
    own = () if recommendation is None else recommendation.notes
    facts: Facts = {
        "in a sentence": sentence(found.sentence),
        "capacity of a replica": interval(fmt.rate(found.capacity_rps.value), found.capacity_rps),
        "planned with": f"{fmt.rate(found.usable_rps)} each",
        "replicas": _replicas(found),
        "minReplicas": str(found.min_replicas),
        "maxReplicas": str(found.max_replicas),
        "the change, as a diff": _diff(found.hpa_diff),
        # Of these some quote Prometheus, and files' names.
        "notes": [data(note) for note in found.notes if note not in own],
        "evidence": evidence_ids(found.evidence),
    }
    if recommendation is not None:
        facts["found by playing the traffic"] = {
            "in a sentence": sentence(recommendation.sentence),
            "SLO": fmt.ms(recommendation.slo_ms),
            "chosen": _setting(recommendation.chosen),
            "today": _setting(recommendation.today),
            "notes": [sentence(note) for note in recommendation.notes],
        }
    return facts


def _diff(text: str) -> list[str]:
    """Return the lines of a diff, without those that only say where: their numbers are nobody's figures."""
    lines = [line for line in text.splitlines() if not line.startswith(("@@", "---", "+++"))]
    return spec_lines(lines[:_DIFF])


def plan_lines(text: str) -> list[str]:
    """Return a plan as a person reads it before saying yes or no; what servers and people named in it is fenced."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("@@", "---", "+++"))]
    return [sentence(line) if line.startswith(_PLAN_FACTS) else spec_lines([line])[0] for line in lines]


def _setting(found: ScalingOption | None) -> Facts | None:
    if found is None:
        return None
    recorded = found.outcomes[0] if found.outcomes else None
    # Today's setting names its metrics as somebody called them.
    facts: Facts = {"setting": data(found.name) if found.is_today else sentence(found.name)}
    if found.rejected is not None:
        facts["rejected because"] = sentence(found.rejected)
    if recorded is not None:
        facts |= {
            "minutes that missed the SLO": f"{recorded.missed_minutes} of {recorded.minutes} minutes",
            "worst p99 of a minute": fmt.ms(recorded.worst_p99_ms),
            "cost": fmt.usd(recorded.cost_usd),
            "changes of the number of replicas": str(recorded.scalings),
            "most replicas": str(recorded.peak_replicas),
        }
    return facts


def compared(first: SessionResult, second: SessionResult) -> Facts:
    """Return two outcomes side by side, fact by fact, and what makes them hard to compare."""
    notes = []
    if first.workload_digest != second.workload_digest:
        notes.append("They are of different workloads.")
    if first.hardware != second.hardware:
        notes.append("They ran on different machines: their times do not compare.")
    if first.objective != second.objective:
        notes.append("They were asked for different things.")
    sides: Mapping[str, SessionResult] = {"first": first, "second": second}
    return {
        **{
            side: {
                "session": identity(found.session),
                "workload": data(found.workload),
                "verdict": found.verdict.value,
                "objective": fmt.objective(found.objective, found.metric),
                "best": configuration(found.best, found.metric),
                "decisions": [identity(decision.id) for decision in found.decisions[-MOST:]],
            }
            for side, found in sides.items()
        },
        "notes": notes,
        "intervals": "95 % confidence",
    }
