"""Write the result, the report and the record."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from langgraph.graph import END
from langgraph.runtime import Runtime

from nodes.context import Context, TuningState
from tools.contracts import ArtifactRef, Decision, EvidenceKind
from tools.gates import AUTOSCALER, autoscaler
from tools.inputs import hpa_in_use
from tools.mirror import mirror, render, save, write_example
from tools.outcomes import from_task, reason, trial_result
from tools.record import RESULT
from tools.result import ScalingSummary, Seconds, SessionResult
from tools.scaling.recommended_hpa import write_recommendation
from tools.summary import summarize
from tools.summary_advice import advice_summary
from tools.tracking.session import read_result


def report(state: TuningState, runtime: Runtime[Context]) -> dict[str, Any]:
    """Put `result.json`, the recommended HPA and `report.html` on disk, then mirror the session to MLflow.

    A failing report or an MLflow that is away costs a note in the result, never the result. Where a plan is offered
    this runs twice: before anybody is asked, and when it is known what became of the plan.
    """
    context = runtime.context
    context.observer.started("report")
    started = time.monotonic()
    folder = context.session_dir
    first = not _is_answered(state)
    if first:
        result = _with_advice(_with_whole_artifacts(_result(state, context), context), context)
        write_example(context.bench.workload, folder)
    else:
        result = read_result(folder / RESULT)
    _publish(_with_plan(result, state, context), context, first=first)
    path = str(folder / RESULT)
    context.observer.finished("report", outcome="finished", headline=path, seconds=time.monotonic() - started)
    return {"result": path}


def update_plan(context: Context, digest: str, decision: Decision | None = None) -> None:
    """Bring what a session tells of its plan up to date.

    A person may take a change back long after the session has ended.

    Args:
        context: of the session.
        digest: of its plan.
        decision: what the person decided; already in the journal.

    Raises:
        StorageError: the result cannot be read or written.
    """
    from tools.cluster.store import PlanStore
    from tools.cluster.summary import summarize_plan

    result = read_result(context.session_dir / RESULT)
    known = result.plan
    assert known is not None, "a session whose plan was answered has told of it"
    plan = summarize_plan(PlanStore(context.bench.home), digest, server_diff=known.server_diff, notes=known.notes)
    decisions = result.decisions if decision is None else (*result.decisions, decision)
    _publish(result.model_copy(update={"plan": plan, "decisions": decisions}), context, first=False)


def _publish(result: SessionResult, context: Context, *, first: bool) -> None:
    """Write the result, the page and the record, in this order."""
    folder, machine, journal = context.session_dir, context.bench.machine, context.ledger.journal
    assert machine is not None, "a session that is replayed ends before its report"
    assert journal is not None, "likewise"
    gates = (autoscaler(result.scaling, result.plan) if g.name == AUTOSCALER else g for g in result.gates)
    result = result.model_copy(update={"gates": tuple(gates)})
    save(result, folder)
    journal.append("result", result.model_dump(mode="json"))
    note = render(result, folder, machine)
    if note is not None:
        result = result.model_copy(update={"notes": (*result.notes, note)})
    result = result.model_copy(update={"mlflow": mirror(folder, context.tracking_uri, machine)})
    if first:  # waiting for a person, and watching a change, is no overhead
        result = result.model_copy(update={"seconds": _seconds(context)})
    save(result, folder)
    assert result.mlflow is not None
    if result.mlflow.note is not None:  # the page was rendered before, so that MLflow could keep it
        render(result, folder, machine)
    journal.append("recorded", result.mlflow.model_dump(mode="json"))


def is_planned(state: TuningState) -> str:
    """Return where to go on: to a person, if there is a plan that nobody answered yet; else the session ends."""
    return "approval" if "plan" in state and not _is_answered(state) else END


def _is_answered(state: TuningState) -> bool:
    return any(decision["node"] == "approval" for decision in state.get("decisions", []))


def _with_plan(result: SessionResult, state: TuningState, context: Context) -> SessionResult:
    """Return the result with the plan as it stands now, or with the reasons why there is none."""
    notes = tuple(state.get("plan_notes", []))
    if "plan" not in state:
        return result.model_copy(update={"notes": (*result.notes, *notes)})
    from tools.cluster.store import PlanStore
    from tools.cluster.summary import summarize_plan

    store = PlanStore(context.bench.home)
    plan = summarize_plan(store, state["plan"], server_diff=state.get("server_diff", ""), notes=notes)
    decisions = tuple(Decision.model_validate(d) for d in state.get("decisions", []))
    return result.model_copy(update={"plan": plan, "decisions": decisions})


def _result(state: TuningState, context: Context) -> SessionResult:
    folder = context.session_dir
    return summarize(
        context.view(),
        session=context.session,
        created=context.created,
        versions=context.bench.versions,
        decisions=[Decision.model_validate(d) for d in state.get("decisions", [])],
        scaling=_scaling(state, context),
        seconds=_seconds(context),
        files={
            "result": str(folder / RESULT),
            "report": str(folder / "report.html"),
            "journal": str(folder / "journal.jsonl"),
            "logs": str(folder / "logs"),
        },
    )


def _with_advice(result: SessionResult, context: Context) -> SessionResult:
    """Have the advisor word a summary, and tell what it was asked and what came of that; without one, nothing."""
    advisor = context.advisor
    if advisor is not None and not context.bench.stopped:
        context.bench.advice({"about": "wording"}, lambda: advisor.word(result), headline="the summary, in its words")
    return result.model_copy(
        update={"advice": advice_summary(context.view(), result.decisions, session=context.session)}
    )


def _with_whole_artifacts(result: SessionResult, context: Context) -> SessionResult:
    """Check that what is recommended, and the way back, is on disk as it was measured; make it again where it is not.

    A session that found all its answers in the store has opened neither.
    """
    view, files, notes = context.view(), dict(result.files), list(result.notes)
    best = result.best
    for name in ("artifact", "fallback"):
        measured = [
            e
            for e in view.of_kind(EvidenceKind.TRIAL)
            if (r := trial_result(e)) and r.artifact.directory == files.get(name)
        ]
        if not measured:
            continue
        made = context.bench.artifact_of(measured[0])
        if not isinstance(made, ArtifactRef):
            why = reason(from_task(made))
            notes.append(f"The {name}, {measured[0].recipe.name}, was damaged and cannot be made again: {why}.")
            continue
        files[name] = made.directory
        if name == "artifact" and best is not None:
            best = best.model_copy(update={"artifact": made.directory, "artifact_ref": made})
    return result.model_copy(update={"files": files, "notes": tuple(notes), "best": best})


def _scaling(state: TuningState, context: Context) -> ScalingSummary | None:
    """Write the autoscaler that follows, beside the one in use or into the session's folder."""
    if not state.get("scaling"):
        return None
    return write_recommendation(
        ScalingSummary.model_validate(state["scaling"]),
        workload=context.bench.workload.name,
        hpa_file=Path(context.spec.hpa.file) if context.spec.hpa is not None else None,
        session_folder=context.session_dir,
        in_cluster=None if context.spec.cluster is None else hpa_in_use(context.spec, context.session_dir),
    )


def _seconds(context: Context) -> Seconds:
    total = context.wall_s()
    trials = context.loading_s + context.bench.charged_s
    return Seconds(
        total=total, trials=trials, training=context.training_s, overhead=total - trials - context.training_s
    )
