"""Mirror a finished session to MLflow, once: runs, decisions, files, the chosen model, and a trace of how it went.

The journal and `result.json` come first and are the record; this is a copy for people and tools that look at MLflow.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tools.errors import StorageError
from tools.result import MlflowRef, SessionResult, TrialSummary
from tools.tracking import facts
from tools.tracking.decisions import write_decisions
from tools.tracking.errors import public_uri, tracking_errors
from tools.tracking.model import RegisteredModel, load_example, log_model, register_model
from tools.tracking.store import delete_stale_runs, experiment_id, find_complete_run, open_store, silence_mlflow
from tools.tracking.traces import write_session_trace

_SESSION_FILES = ("report.html", "journal.jsonl")


def record(
    result: SessionResult,
    *,
    session_dir: Path,
    tracking_uri: str,
    example: Path | Mapping[str, Any],
    experiment: str | None = None,
) -> MlflowRef:
    """Write the session to MLflow, unless this very result is there already.

    A recording that was interrupted, or that shows an earlier result of the same session, is deleted and done anew.
    MLflow's settings are process-wide and its import takes a second: call this in a process of its own, see
    `tools.tracking.record_task`.

    Args:
        result: what to mirror.
        session_dir: `<home>/sessions/<id>`, with `report.html` and `journal.jsonl` where they exist.
        tracking_uri: of the store; see `tools.tracking.default_tracking_uri`.
        example: one batch of inputs, see `tools.tracking.model.load_example`; the model's signature comes from it.
        experiment: default `infertune/<workload>`.

    Raises:
        TrackingError: the store cannot be reached or refuses.
        WorkloadError: the example is no example.
        StorageError: `session_dir` is not there.
    """
    inputs = load_example(example)
    silence_mlflow()
    with _one_at_a_time(session_dir), tracking_errors(tracking_uri):
        client = open_store(tracking_uri)
        where = experiment_id(
            client,
            experiment or f"infertune/{result.workload}",
            tracking_uri=tracking_uri,
            home=session_dir.resolve().parents[1],
        )
        found = find_complete_run(client, where, session=result.session, result_digest=facts.result_digest(result))
        recording = _Recording(client, where, result, session_dir, tracking_uri)
        if found is not None:
            return recording.complete(found)
        delete_stale_runs(client, where, session=result.session)
        return recording.write(inputs)


class _Recording:
    """One recording under way."""

    def __init__(
        self, client: Any, experiment: str, result: SessionResult, session_dir: Path, tracking_uri: str
    ) -> None:
        self._client = client
        self._experiment = experiment
        self._result = result
        self._session_dir = session_dir
        self._tracking_uri = tracking_uri
        self._start = facts.milliseconds(result.created)

    def write(self, inputs: dict[str, np.ndarray]) -> MlflowRef:
        """Write everything; the tag that says so comes last."""
        result = self._result
        run = self._create_run(facts.session_tags(result))
        run_id = run.info.run_id
        self._log(run_id, facts.session_params(result), {})
        for trial in result.trials:
            self._write_trial(trial, run_id)
        model, note = self._write_model(inputs, run)
        # The metrics come after the model: so MLflow can tell that they are the model's.
        self._log(run_id, {}, facts.session_metrics(result), model_id=model.model_id if model else None)
        closing = _closing_tags(model, note)
        reference = _reference(self._tracking_uri, run_id, closing)
        self._write_files(run_id, reference)
        closing |= self._write_trace(run_id)
        self._end_run(run_id, "FINISHED", result.seconds.total)
        for key, value in closing.items():
            self._client.set_tag(run_id, key, value)
        self._client.set_tag(run_id, facts.COMPLETE_TAG, "true")
        return reference

    def complete(self, run: Any) -> MlflowRef:
        """Return where the record is; give it the trace that it lacks, if the store could not take it then."""
        run_id = run.info.run_id
        if facts.TRACE_TAG not in run.data.tags:
            for key, value in self._write_trace(run_id).items():
                self._client.set_tag(run_id, key, value)
        return _reference(self._tracking_uri, run_id, run.data.tags)

    def _write_trace(self, run_id: str) -> facts.Texts:
        """Write how the session went, as the run's trace; return the tag that says so, none where there is no trace."""
        from mlflow.exceptions import MlflowException

        try:
            identity = write_session_trace(
                self._result, self._session_dir, self._tracking_uri, experiment=self._experiment, run_id=run_id
            )
        except (MlflowException, NotImplementedError) as error:
            # A server that knows no traces yet. One that is away refuses what comes next, too, and that is said.
            return {facts.TRACE_NOTE_TAG: f"{type(error).__name__}: {public_uri(' '.join(str(error).split()))[:300]}"}
        return {facts.TRACE_TAG: identity}

    def _write_trial(self, trial: TrialSummary, parent: str) -> None:
        run_id = self._create_run(facts.trial_tags(trial, parent)).info.run_id
        self._log(run_id, facts.trial_params(trial), facts.trial_metrics(trial))
        self._end_run(run_id, "FINISHED" if trial.points else "FAILED", trial.seconds)

    def _write_model(self, inputs: dict[str, np.ndarray], run: Any) -> tuple[RegisteredModel | None, str | None]:
        """Return the registered model, or why there is none."""
        best = self._result.best
        if best is None:
            return None, "no configuration was measured, so there is no model"
        try:
            info = log_model(self._client, run, self._result, best, inputs)
        except Exception as error:  # noqa: BLE001  loaders of many libraries run here; the decisions are worth recording without
            return None, f"the model could not be logged ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        return register_model(self._client, info, run, self._result, best), None

    def _write_files(self, run_id: str, reference: MlflowRef) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_decisions(self._result.decisions, folder)
            complete = self._result.model_copy(update={"mlflow": reference})
            (folder / "result.json").write_text(complete.model_dump_json(indent=1))
            for file in self._existing_files():
                shutil.copyfile(file, folder / file.name)
            self._client.log_artifacts(run_id, str(folder))

    def _existing_files(self) -> list[Path]:
        files = [self._session_dir / name for name in _SESSION_FILES]
        scaling = self._result.scaling
        if scaling is not None:
            files += [Path(path) for path in (scaling.hpa_yaml, scaling.hpa_diff_path) if path is not None]
        return [file for file in files if file.is_file()]

    def _create_run(self, tags: facts.Texts) -> Any:
        return self._client.create_run(self._experiment, start_time=self._start, tags=tags)

    def _end_run(self, run_id: str, status: str, seconds: float) -> None:
        """End a run so that its duration in MLflow is what it cost, not what writing it down took."""
        self._client.set_terminated(run_id, status, end_time=self._start + round(seconds * 1000))

    def _log(self, run_id: str, params: facts.Texts, metrics: facts.Metrics, *, model_id: str | None = None) -> None:
        from mlflow.entities import Metric, Param

        self._client.log_batch(
            run_id,
            metrics=[
                Metric(key, value, self._start, 0, model_id=model_id, run_id=run_id) for key, value in metrics.items()
            ],
            params=[Param(key, value) for key, value in params.items()],
        )


def _closing_tags(model: RegisteredModel | None, note: str | None) -> facts.Texts:
    tags: facts.Texts = {}
    if model is not None:
        tags |= {facts.MODEL_NAME_TAG: model.name, facts.MODEL_VERSION_TAG: model.version}
    if note is not None:
        tags[facts.NOTE_TAG] = note
    return tags


def _reference(tracking_uri: str, run_id: str, tags: Mapping[str, str]) -> MlflowRef:
    return MlflowRef(
        tracking_uri=public_uri(tracking_uri),
        run_id=run_id,
        model_name=tags.get(facts.MODEL_NAME_TAG),
        model_version=tags.get(facts.MODEL_VERSION_TAG),
        note=tags.get(facts.NOTE_TAG),
    )


@contextlib.contextmanager
def _one_at_a_time(session_dir: Path) -> Iterator[None]:
    """Let only one process record a session: looking a run up and creating it are two steps."""
    try:
        fd = os.open(session_dir / ".recording.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(f"cannot be used ({error.strerror or error}).", where=str(session_dir)) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
