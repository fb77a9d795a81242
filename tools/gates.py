"""The checklist before optimizing, after it, and before deploying: closed with evidence, or open with the reason."""

from __future__ import annotations

from collections.abc import Iterator

from tools.contracts import Gate, ModelFormat, Recommendation
from tools.outcomes import reason
from tools.result import PlanSummary, ScalingSummary
from tools.selection import Configured, is_baseline, unsettled, worst_latency_ms
from tools.view import SessionView, Tried

_SELF_CONTAINED = (ModelFormat.ONNX, ModelFormat.OPENVINO, ModelFormat.TORCHSCRIPT, ModelFormat.PT2)


AUTOSCALER = "autoscaler"


def gates(
    view: SessionView, best: Configured | None, fallback: Tried | None, scaling: ScalingSummary | None = None
) -> tuple[Gate, ...]:
    """Return every gate, in the order a person walks through them.

    Args:
        view: the session.
        best: what would be deployed; None leaves all gates after optimizing open.
        fallback: what would be deployed if the best misbehaves.
        scaling: what was found of replicas and autoscaler.
    """
    return (
        *_before(view),
        *_after(view, best),
        *_deploy(best, fallback),
        autoscaler(scaling),
        *_watched(view.spec.objective.p99_ms),
    )


def autoscaler(scaling: ScalingSummary | None, plan: PlanSummary | None = None) -> Gate:
    """Return the gate of the autoscaler: closed by a setting that keeps every promise, and open once one did not.

    Args:
        scaling: what was found; None where nothing was looked for.
        plan: what became of the change in the cluster; None where none was offered, or nobody answered yet.
    """
    passed, detail = _of_setting(scaling)
    told = "" if plan is None else _of_plan(plan)
    return _gate(
        "before deploying",
        AUTOSCALER,
        passed=passed and (plan is None or plan.state not in _REFUTED),
        detail=f"{detail}; {told}" if told else detail,
        evidence=() if scaling is None else scaling.evidence,
    )


_REFUTED = ("breached", "rolling_back", "rolled_back", "abandoned")
"""States of a plan whose setting did not hold in the cluster, or of which nobody knows any more."""


def _of_setting(scaling: ScalingSummary | None) -> tuple[bool, str]:
    """Return whether there is a setting that keeps every promise, and what there is in a sentence."""
    if scaling is None:
        return False, "no setting was looked for: that takes traffic, and a configuration that keeps every constraint"
    found = scaling.recommendation
    if found is None:
        return False, (
            f"{scaling.min_replicas} to {scaling.max_replicas} replicas follow from the capacity alone: no setting was "
            "played against the traffic, since the spec names no p99_ms or the search failed"
        )
    if found.chosen is None:
        return False, f"no setting keeps every promise in the twin{_shortfalls(found)}"
    recorded = found.chosen.outcomes[0]
    return True, (
        f"{found.chosen.name}: keeps every promise in the twin, with the p99 at most {found.slo_ms:g} ms in "
        f"{recorded.kept_share:.2%} of {recorded.minutes:,} minutes ({found.kept_share:.2%} asked for)"
    )


def _shortfalls(found: Recommendation) -> str:
    """Say by how much the closest setting misses."""
    if found.closest is None:
        return ""
    misses = ", and ".join(shortfall.sentence for shortfall in found.closest.shortfalls)
    return f": the closest, {found.closest.option.name}, {misses}"


def _of_plan(plan: PlanSummary) -> str:
    """Say what became of the change in the cluster."""
    what = f"plan {plan.digest[:12]} for {plan.hpa}"
    if plan.state == "verified":
        return f"{what} was applied, watched, and kept its promises there"
    last = plan.events[-1].why if plan.events else ""
    return f"{what} is {plan.state.replace('_', ' ')}" + (f": {last.rstrip('.')}" if last else "")


def _before(view: SessionView) -> Iterator[Gate]:
    baseline, objective = view.baseline, view.spec.objective
    ran = baseline is not None and baseline.ran
    if baseline is not None and ran:
        latency = baseline.first_point.latency_ms
        detail = (
            f"{baseline.name}: p50 {latency.p50.value:.2f} ms, p95 {latency.p95.value:.2f} ms, "
            f"p99 {latency.p99.value:.2f} ms over {latency.p50.n} calls"
        )
    else:
        detail = "the model as given could not be measured"
        if baseline is not None and baseline.reason:
            detail += f": {baseline.reason}"
    evidence = baseline.evidence if baseline is not None else ()
    yield _gate("before optimizing", "baseline measured", passed=ran, detail=detail, evidence=evidence)
    slo = f"p99 at most {objective.p99_ms:g} ms" if objective.p99_ms else "the spec names no p99_ms: nothing to promise"
    yield _gate("before optimizing", "SLO named", passed=objective.p99_ms is not None, detail=slo)
    yield _gate(
        "before optimizing",
        "accuracy threshold named",
        passed=True,
        detail=f"{view.workload.metric} may drop by at most {objective.max_accuracy_drop:g}",
    )
    hardware = view.hardware
    named = f"{view.spec.hardware.name}, " if view.spec.hardware.name else ""
    yield _gate(
        "before optimizing",
        "hardware named",
        passed=True,
        detail=f"{named}{hardware.cpu}, {hardware.cores} cores, at ${view.spec.hardware.price_per_hour_usd:g} an hour",
    )


def _after(view: SessionView, best: Configured | None) -> Iterator[Gate]:
    stage = "after optimizing"
    if best is None or best.tried.accuracy is None:
        for name in ("accuracy on held-out data", "latency at the SLO", "memory", "throughput", "edge cases"):
            yield _gate(
                stage, name, passed=False, detail="nothing keeps every constraint, so there is nothing to check"
            )
        return
    objective, tried, point = view.spec.objective, best.tried, best.point
    assert tried.accuracy is not None
    drop = tried.accuracy.drop
    sure = drop.n > 1 and drop.high <= objective.max_accuracy_drop
    detail = (
        f"drop {drop.value:+.4f} (95 %: {drop.low:+.4f} to {drop.high:+.4f}, {drop.n} items held out), "
        f"budget {objective.max_accuracy_drop:g}"
    )
    if drop.n <= 1:
        detail += "; the metric gives one number for all items, so there is no telling how sure it is"
    elif not sure:
        detail += "; the interval reaches past the budget: more evaluation items would tell"
    yield _gate(stage, "accuracy on held-out data", passed=sure, detail=detail, evidence=tried.evidence)
    p99 = point.latency_ms.p99
    if objective.p99_ms is None:
        yield _gate(stage, "latency at the SLO", passed=False, detail="the spec names no p99_ms")
    else:
        within = worst_latency_ms(point) <= objective.p99_ms
        detail = (
            f"p99 {p99.value:.2f} ms (up to {p99.high:.2f}) at batch {point.batch_size}, SLO {objective.p99_ms:g} ms"
        )
        if point.batch_size > 1:
            detail += ", twice over for the wait"
        open_question = unsettled(view, best)
        if open_question is not None:
            detail += f"; {open_question}"
        kept = within and open_question is None
        yield _gate(stage, "latency at the SLO", passed=kept, detail=detail, evidence=tried.evidence)
    limit = objective.max_memory_mb
    fits = limit is None or point.peak_memory_mb <= limit
    text = f"{point.peak_memory_mb:.0f} MB at peak" + (f", limit {limit:g} MB" if limit else ", no limit asked for")
    yield _gate(stage, "memory", passed=fits, detail=text, evidence=tried.evidence)
    yield _throughput(view, best)
    edges = view.edge_cases(tried.recipe)
    if edges is None:
        text = "not run: the baseline itself is recommended, or time was up"
        yield _gate(stage, "edge cases", passed=False, detail=text)
    elif edges[1] is None:
        text = f"the run with unusual inputs came to grief: {reason(edges[0].outcome)}"
        yield _gate(stage, "edge cases", passed=False, detail=text, evidence=(edges[0].id,))
    else:
        failed = [c for c in edges[1].cases if not c.passed]
        names = ", ".join(c.name for c in edges[1].cases)
        text = "; ".join(f"{c.name}: {c.detail}" for c in failed) if failed else f"passed: {names}"
        yield _gate(stage, "edge cases", passed=not failed, detail=text, evidence=(edges[0].id,))


def _throughput(view: SessionView, best: Configured) -> Gate:
    rps = best.point.throughput_rps
    text = f"{rps.value:,.0f} requests/s (95 %: {rps.low:,.0f} to {rps.high:,.0f}) at batch {best.point.batch_size}"
    compared = view.against_baseline(best.tried.recipe, best.point.batch_size)
    if compared is None:
        itself = is_baseline(view, best)
        why = "this is the baseline" if itself else "not compared in turn with the baseline"
        return _gate(
            "after optimizing",
            "throughput",
            passed=itself,
            detail=f"{text}; {why}",
            evidence=best.tried.evidence,
        )
    ratio = compared[1].throughput
    return _gate(
        "after optimizing",
        "throughput",
        passed=ratio.low > 1,
        detail=f"{text}; {ratio.value:.1f}x the baseline's (95 %: {ratio.low:.1f} to {ratio.high:.1f}), timed in turn",
        evidence=(compared[0].id,),
    )


def _deploy(best: Configured | None, fallback: Tried | None) -> Iterator[Gate]:
    stage = "before deploying"
    artifact = best.tried.artifact if best is not None else None
    if artifact is None:
        yield _gate(stage, "deployable format", passed=False, detail="there is nothing to deploy")
    else:
        whole = artifact.format in _SELF_CONTAINED
        text = f"{artifact.format.value}, {artifact.size_mb:.1f} MB"
        text += "" if whole else ": weights that need your Python factory to be loaded"
        yield _gate(stage, "deployable format", passed=whole, detail=text)
    yield _gate(
        stage,
        "fallback artifact",
        passed=fallback is not None and fallback.artifact is not None,
        detail=f"{fallback.name}: {fallback.artifact.directory}"
        if fallback is not None and fallback.artifact is not None
        else "no other recipe keeps the accuracy",
        evidence=fallback.evidence if fallback is not None else (),
    )
    swept = best is not None and len(best.tried.points) > 1
    yield _gate(
        stage,
        "batching configured",
        passed=swept,
        detail=f"batch {best.point.batch_size}, from a sweep of {', '.join(map(str, best.tried.points))}"
        if best is not None and swept
        else "no batch sweep was made for this recipe",
        evidence=best.tried.evidence if best is not None else (),
    )


def _watched(slo_ms: float | None) -> Iterator[Gate]:
    """What `infertune manifests` writes for it, and that nobody saw it work."""
    promises = "availability" if slo_ms is None else f"availability and a p99 of {slo_ms:g} ms"
    yield _gate(
        "before deploying",
        "monitoring in place",
        passed=False,
        detail="`infertune manifests` writes a ServiceMonitor and the metrics adapter's rules; nobody has seen them "
        "deployed: check that Prometheus has the metrics of each replica",
    )
    yield _gate(
        "before deploying",
        "alerting in place",
        passed=False,
        detail=f"`infertune manifests` writes a PrometheusRule with burn-rate alerts on {promises}; nobody has seen it "
        "deployed, or an alert arrive",
    )


def _gate(stage: str, name: str, *, passed: bool, detail: str, evidence: tuple[str, ...] = ()) -> Gate:
    return Gate.model_validate({"stage": stage, "name": name, "passed": passed, "detail": detail, "evidence": evidence})
