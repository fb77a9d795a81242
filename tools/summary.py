"""From what a session knows to its result: baseline against best, ratios, verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tools.contracts import BatchPoint, Decision, Interval, Verdict
from tools.cost import cost_per_1000_usd
from tools.gates import gates
from tools.outcomes import trial_result
from tools.report import format as fmt
from tools.result import (
    BatchRecommendation,
    Configuration,
    Margin,
    Ratio,
    ScalingSummary,
    Seconds,
    SessionResult,
)
from tools.selection import (
    Configured,
    breaches,
    closest,
    configurations,
    final_choice,
    is_baseline,
    margins,
    untold,
    worst_latency_ms,
)
from tools.summary_trials import build_summaries, left_out, trial_summaries
from tools.view import SessionView, Tried


def summarize(
    view: SessionView,
    *,
    session: str,
    created: str,
    versions: dict[str, str],
    decisions: Sequence[Decision],
    scaling: ScalingSummary | None,
    seconds: Seconds,
    files: dict[str, str],
) -> SessionResult:
    """Put together the result of a session from its evidence and decisions."""
    chosen, _ = final_choice(view)
    whole = [t for t in view.ran if t.given_up is None]
    best = chosen or closest(configurations(whole), view.spec.objective)
    fallback = _fallback(view, chosen)
    ratio = _ratio(view, best)
    verdict = _verdict(view, chosen)
    edges = view.edge_cases(best.tried.recipe) if best is not None else None
    kept = margins(best, view.spec.objective) if best is not None else []
    paths = dict(files)
    if best is not None and best.tried.artifact is not None:
        paths["artifact"] = best.tried.artifact.directory
    if fallback is not None and fallback.artifact is not None:
        paths["fallback"] = fallback.artifact.directory
    if view.profile is not None and view.profile.chrome_trace:
        paths["chrome_trace"] = view.profile.chrome_trace
    return SessionResult(
        session=session,
        workload=view.workload.name,
        workload_digest=view.workload.digest,
        created=created,
        verdict=verdict,
        summary=_sentence(verdict=verdict, view=view, best=best, ratio=ratio, kept=kept),
        objective=view.spec.objective,
        metric=view.workload.metric,
        higher_is_better=view.workload.higher_is_better,
        price_per_hour_usd=view.spec.hardware.price_per_hour_usd,
        hardware=view.hardware,
        versions=versions,
        seconds=seconds,
        baseline=_configuration(view, _baseline(view)),
        best=_configuration(view, best),
        ratio=ratio,
        margins=tuple(kept),
        trials=trial_summaries(view, chosen),
        builds=build_summaries(view),
        left_out=left_out(view, decisions),
        decisions=tuple(decisions),
        profile=view.profile,
        batch=_batch(view, best),
        edge_cases=edges[1].cases if edges is not None and edges[1] is not None else (),
        scaling=scaling,
        gates=gates(view, chosen, fallback, scaling),
        notes=(*view.workload.notes, *_disturbances(view)),
        files=dict(paths),
    )


def _disturbances(view: SessionView) -> Iterator[str]:
    """Say what was thrown away because something else used the machine meanwhile."""
    disturbed = [p for t in view.ran for p in t.points.values() if p.disturbed > 0]
    if disturbed:
        most = max(p.disturbed for p in disturbed)
        yield (
            f"{len(disturbed)} of {sum(len(t.points) for t in view.ran)} measurements threw time windows away in which "
            f"something else used the machine, up to {most:.0%} of them."
        )


def _baseline(view: SessionView) -> Configured | None:
    baseline = view.baseline
    return Configured(baseline, baseline.first_point) if baseline is not None and baseline.ran else None


def _configuration(view: SessionView, configured: Configured | None) -> Configuration | None:
    if configured is None:
        return None
    tried, point = configured.tried, configured.point
    assert tried.accuracy is not None
    assert tried.artifact is not None
    cost = cost_per_1000_usd(view.spec.hardware.price_per_hour_usd, point.throughput_rps)
    return Configuration(
        recipe=tried.name,
        definition=tried.recipe,
        runtime=tried.recipe.runtime,
        batch_size=point.batch_size,
        latency_ms=point.latency_ms,
        throughput_rps=point.throughput_rps.value,
        accuracy=tried.accuracy.value.value,
        accuracy_drop=tried.accuracy.drop,
        size_mb=tried.artifact.size_mb,
        memory_mb=point.peak_memory_mb,
        load_ms=_load_ms(view, tried),
        joules_per_request=point.joules_per_request,
        cost_per_1000_usd=cost.value,
        artifact=tried.artifact.directory,
        artifact_ref=tried.artifact,
        intervals={
            "throughput_rps": point.throughput_rps,
            "accuracy": tried.accuracy.value,
            "cost_per_1000_usd": cost,
        },
    )


def _load_ms(view: SessionView, tried: Tried) -> float | None:
    """Return how long loading took in the slowest trial of a recipe: what a start has to reckon with."""
    results = (trial_result(evidence) for evidence in view.evidence if evidence.id in tried.evidence)
    return max((result.load_ms for result in results if result is not None), default=None)


def _ratio(view: SessionView, best: Configured | None) -> Ratio | None:
    """Return the interleaved ratios; all ones when the baseline is the best, None when nothing was compared."""
    if best is None or view.baseline is None:
        return None
    if is_baseline(view, best):
        one = Interval(value=1.0, low=1.0, high=1.0, n=0)
        return Ratio(p50=one, throughput=one, cost=one)
    compared = view.against_baseline(best.tried.recipe, best.point.batch_size)
    if compared is None:
        return None
    return Ratio(p50=compared[1].p50, throughput=compared[1].throughput, cost=compared[1].throughput)


def _verdict(view: SessionView, chosen: Configured | None) -> Verdict:
    if view.stopped:
        return Verdict.INTERRUPTED
    if chosen is None:
        return Verdict.UNSTABLE if _all_noise(view) else Verdict.INFEASIBLE
    return Verdict.MET if untold(view, chosen) is None else Verdict.UNSTABLE


def _all_noise(view: SessionView) -> bool:
    """Whether nothing fits only because of noise: some candidate's p99 itself would fit, its upper end does not."""
    objective = view.spec.objective
    if objective.p99_ms is None:
        return False
    for option in configurations(t for t in view.ran if t.given_up is None):
        p99 = option.point.latency_ms.p99
        typical = worst_latency_ms(option.point) * p99.value / p99.high
        only_latency = all(m.constraint == "p99_ms" for m in margins(option, objective) if m.margin < 0)
        if only_latency and typical <= objective.p99_ms:
            return True
    return False


def _fallback(view: SessionView, chosen: Configured | None) -> Tried | None:
    """Return the fastest float recipe other than the chosen one that keeps the accuracy: the way back."""
    objective = view.spec.objective
    candidates = [
        t
        for t in view.ran
        if t.given_up is None
        and t.recipe.precision.is_float
        and (chosen is None or t.recipe != chosen.tried.recipe)
        and t.accuracy is not None
        and t.accuracy.drop.value <= objective.max_accuracy_drop
    ]
    return min(candidates, key=lambda t: t.first_point.latency_ms.p50.value, default=None)


def _batch(view: SessionView, best: Configured | None) -> BatchRecommendation | None:
    if best is None:
        return None
    points = list(best.tried.points.values())
    slo = view.spec.objective.p99_ms
    fitting = [p for p in points if slo is None or worst_latency_ms(p) <= slo]
    sla = _smallest_within_noise(fitting)
    job = _smallest_within_noise(points)
    assert job is not None
    if slo is None:
        sla_reason = "no SLO is named, so this is the batch of the highest throughput"
    elif sla is None:
        sla_reason = f"no batch size keeps {slo:g} ms"
    else:
        sla_reason = (
            f"highest throughput whose p99 (up to {sla.latency_ms.p99.high:.1f} ms"
            + (", twice over for the wait" if sla.batch_size > 1 else "")
            + f") fits {slo:g} ms"
        )
    return BatchRecommendation(
        sla_batch=None if sla is None else sla.batch_size,
        sla_reason=sla_reason,
        job_batch=job.batch_size,
        job_reason=f"{job.throughput_rps.value:,.0f} requests/s; {_beyond(job, points)}",
    )


def _beyond(job: BatchPoint, points: Sequence[BatchPoint]) -> str:
    """Say what is known of batches larger than the one for jobs."""
    if len(points) == 1:
        return "no other batch size was measured"
    if job.batch_size == max(p.batch_size for p in points):
        return "no larger batch was measured"
    return "larger batches are not faster beyond the noise"


def _smallest_within_noise(points: Sequence[BatchPoint]) -> BatchPoint | None:
    """Return the smallest batch whose throughput the best of these does not beat beyond the noise."""
    if not points:
        return None
    best = max(points, key=lambda p: p.throughput_rps.value)
    ties = [p for p in points if p.throughput_rps.high >= best.throughput_rps.low]
    return min(ties, key=lambda p: p.batch_size)


TELLING = 2.0
"""Highest over lowest end of a ratio's interval, beyond which its middle says nothing."""


def _sentence(
    *,
    verdict: Verdict,
    view: SessionView,
    best: Configured | None,
    ratio: Ratio | None,
    kept: Sequence[Margin],
) -> str:
    if best is None:
        baseline = view.baseline
        cause = f": {baseline.reason}" if baseline is not None and baseline.reason else ""
        return f"Nothing could be measured{cause}."
    gain = _gain(view, best, ratio)
    match verdict:
        case Verdict.MET:
            return f"{best.name} keeps every promise.{gain}"
        case Verdict.INFEASIBLE:
            broken = [f"{m.constraint} by {-m.margin:.4g} {m.unit}" for m in kept if m.margin < 0]
            return f"No candidate keeps every constraint. The closest, {best.name}, misses {' and '.join(broken)}."
        case Verdict.UNSTABLE:
            return f"There is no telling whether {best.name} keeps every promise: {_why_untold(view, best)}."
        case Verdict.INTERRUPTED:
            return f"Interrupted. The best so far is {best.name}.{gain}"


def _why_untold(view: SessionView, best: Configured) -> str:
    if not breaches(best, view.spec.objective):
        return untold(view, best) or "the machine is too noisy"
    p99 = best.point.latency_ms.p99
    return f"its p99 is {fmt.ms(p99.value)} {fmt.span(p99)}, and the SLO lies within what that allows"


def _gain(view: SessionView, best: Configured, ratio: Ratio | None) -> str:
    """Say what was won, and as plainly what was lost: a ratio below 1 is slower."""
    if is_baseline(view, best):
        return " Nothing that was tried beats the model as given beyond the noise." if len(view.tried) > 1 else ""
    assert view.baseline is not None
    before, after = view.baseline.artifact, best.tried.artifact
    parts = []
    if view.spec.objective.minimize == "size" and before is not None and after is not None:
        parts.append(f"{before.size_mb / after.size_mb:.1f}x smaller")
    untold: list[str] = []
    if ratio is not None:
        if best.tried.recipe != view.baseline.recipe:
            text = f"{_times(ratio.p50.value)} at batch {view.low_batch}"
            (parts if _is_told(ratio.p50) else untold).append(text)
        text = f"{ratio.throughput.value:.1f}x the requests for the same money"
        (parts if _is_told(ratio.throughput) else untold).append(text)
    gain = f" {_listed(parts)}, compared with the model as given." if parts else ""
    return f"{gain} By how much it is better, this noise does not tell ({_listed(untold)}?)." if untold else gain


def _is_told(ratio: Interval) -> bool:
    """Whether a ratio is known well enough to be said without its interval: to a factor of `TELLING`."""
    return 0 < ratio.high <= TELLING * ratio.low


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x faster" if ratio >= 1 else f"{1 / ratio:.1f}x slower"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
