"""A challenge in MLflow: a run nested in that of its session, with the steps as the points of its charts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tools.challenge import Challenge, ChallengeStep, StepOutcome, TargetState
from tools.contracts import digest_of
from tools.errors import StorageError
from tools.report import challenge as rows
from tools.report import format as fmt
from tools.tracking import facts
from tools.tracking.decisions import cell
from tools.tracking.errors import tracking_errors
from tools.tracking.store import find_nested_runs, open_store, silence_mlflow

FILES = ("challenge.json", "challenge.html", "challenge.png")
"""Of the session's folder, that are artifacts of the run, where they exist."""
CHALLENGE_TAG = "infertune.challenge"
"""Digest of the challenge that a run tells of."""
_PARAM_LIMIT = 500
"""Characters of a parameter's value: what every MLflow server since 1.28 stores."""


def record_challenge(session_dir: Path, *, tracking_uri: str, parent: str) -> str:
    """Write the challenge of a recorded session to MLflow, in place of one that was told of this session before.

    MLflow's settings are process-wide and its import takes a second: call this in a process of its own.

    Args:
        session_dir: `<home>/sessions/<id>`, with `challenge.json`.
        tracking_uri: of the store; see `tools.tracking.default_tracking_uri`.
        parent: id of the session's run.

    Returns:
        The id of the challenge's run.

    Raises:
        TrackingError: the store cannot be reached, refuses, or has no such run.
        StorageError: `challenge.json` cannot be read.
    """
    challenge = _read(session_dir / FILES[0])
    silence_mlflow()
    with tracking_errors(tracking_uri, what="the challenge"):
        client = open_store(tracking_uri)
        experiment = client.get_run(parent).info.experiment_id
        digest = digest_of(challenge.model_dump(mode="json"))
        for run in find_nested_runs(client, experiment, parent):
            tags = run.data.tags
            if tags.get(CHALLENGE_TAG) == digest and facts.COMPLETE_TAG in tags:
                return str(run.info.run_id)
            if CHALLENGE_TAG in tags:
                client.delete_run(run.info.run_id)
        tags = challenge_tags(challenge, parent) | {CHALLENGE_TAG: digest}
        run = client.create_run(experiment, start_time=facts.milliseconds(challenge.created), tags=tags)
        _write(client, run.info.run_id, challenge, session_dir)
        return str(run.info.run_id)


def _write(client: Any, run_id: str, challenge: Challenge, folder: Path) -> None:
    from mlflow.entities import Metric, Param

    start_ms = facts.milliseconds(challenge.created)
    metrics = [Metric(key, value, start_ms, 0) for key, value in target_metrics(challenge).items()]
    for place, step in enumerate(stands(challenge)):
        metrics += [Metric(key, value, start_ms, place) for key, value in step_metrics(step).items()]
    client.log_batch(run_id, metrics, [Param(k, v[:_PARAM_LIMIT]) for k, v in challenge_params(challenge).items()])
    with tempfile.TemporaryDirectory() as aside:
        for name in FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, Path(aside) / name)
        client.log_artifacts(run_id, aside)
    client.set_terminated(run_id, "FINISHED", end_time=start_ms + round(challenge.seconds * 1000))
    client.set_tag(run_id, facts.COMPLETE_TAG, "true")  # last: a run without it is a recording that was interrupted


def stands(challenge: Challenge) -> list[ChallengeStep]:
    """Return the steps whose figures the story goes through: the model as given, what was taken, the replicas."""
    kept = (StepOutcome.BASELINE, StepOutcome.TAKEN, StepOutcome.COMPUTED)
    return [step for step in challenge.steps if step.figures is not None and step.outcome in kept]


def challenge_tags(challenge: Challenge, parent: str) -> facts.Texts:
    """Tags of the run. Its name has the gain in throughput, and how many targets are met."""
    met = sum(target.state is TargetState.MET for target in challenge.targets)
    gain = fmt.number(challenge.targets[0].got.value).replace(",", "")
    name = f"challenge {gain}x, {met} of {len(challenge.targets)} targets met"
    return {
        **facts.source_tags(name),
        facts.DESCRIPTION_TAG: _description(challenge),
        "mlflow.parentRunId": parent,
        facts.WORKLOAD_TAG: challenge.workload,
    }


def challenge_params(challenge: Challenge) -> facts.Texts:
    """Parameters of the run: what became of each step, and why."""
    return {
        f"step_{number}_{facts.slug(step.name)}": f"{step.outcome.value}: {step.why}"
        for number, step in enumerate(challenge.steps, start=1)
    }


def target_metrics(challenge: Challenge) -> facts.Metrics:
    """What was asked of the last step: `ratio_throughput`, `ratio_cost_per_request`, `ratio_p99`, `accuracy_drop`."""
    metrics: facts.Metrics = {}
    for target in challenge.targets:
        name = facts.slug(target.name)
        metrics |= facts.interval_metrics(name if target.stretch is None else f"ratio_{name}", target.got)
    return facts.finite(metrics)


def step_metrics(step: ChallengeStep) -> facts.Metrics:
    """One point of each chart."""
    f = step.figures
    assert f is not None
    metrics = {
        **facts.interval_metrics("throughput_req_sec", f.throughput_rps),
        **facts.interval_metrics("latency_p99_ms", f.p99_ms),
        "cost_usd": f.cost_per_1000_usd.value,
        "accuracy": f.accuracy.value,
        "replicas": float(step.replicas),
    }
    if f.p50_ms is not None:
        metrics["latency_p50_ms"] = f.p50_ms.value
    return facts.finite(metrics)


def _description(challenge: Challenge) -> str:
    """Return the story as Markdown: the steps, and what was asked."""
    steps = [
        (row.name, row.outcome, row.recipe, row.batch, row.throughput.text, row.times, row.p99.text, row.cost.text)
        for row in rows.step_rows(challenge)
    ]
    asked = [(row.name, row.wanted, row.got.text, row.state) for row in rows.target_rows(challenge)]
    head = ("step", "outcome", "recipe", "batch", "throughput", "times", "p99", "cost of 1,000")
    return "\n".join(
        (
            fmt.clean(rows.sentence(challenge)),
            "",
            *_table(head, steps),
            "",
            *_table(("target", "wanted", "measured", "state"), asked),
            "",
            "The charts go from step to step, through those that were taken; the page is among the artifacts.",
        )
    )


def _table(head: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(cell(value) for value in line)} |" for line in (head, *body)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _read(path: Path) -> Challenge:
    try:
        return Challenge.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror or error}).", where=str(path)) from None
    except ValidationError:
        raise StorageError("is no challenge of this version.", where=str(path)) from None
