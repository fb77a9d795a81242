"""The MLflow store: where it is, how it is opened, and what an earlier attempt left in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tools.artifacts import sync_folder
from tools.sqlite import Database, path_of_uri
from tools.tracking.errors import TrackingError, public_uri
from tools.tracking.facts import COMPLETE_TAG, RESULT_TAG, SESSION_TAG
from tools.tracking.spans import trace_id

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is `python -m tools.tracking`'s answer
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else a uv.lock in the working directory is taken for the model's
    "GIT_PYTHON_REFRESH": "quiet",
    # An absent server is worth half a minute, not MLflow's default of several.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_MAX_RESULTS = 1000
_SQLITE = "sqlite:///"


def default_tracking_uri(home: Path) -> str:
    """Return the tracking URI to use: `MLFLOW_TRACKING_URI`, or the SQLite file in the home directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_tracking_uri(home)


def with_account(recorded: str) -> str:
    """Return a tracking URI with its account, which the journal leaves out: that of the same `MLFLOW_TRACKING_URI`."""
    now = os.environ.get("MLFLOW_TRACKING_URI", "")
    return now if public_uri(now) == recorded else recorded


def local_store(home: Path) -> Path:
    """Return the SQLite store in the home directory."""
    return home.resolve() / "mlflow.db"


def local_tracking_uri(home: Path) -> str:
    """Return its URI."""
    return f"{_SQLITE}{local_store(home)}"


def artifact_root(home: Path) -> Path:
    """Return the folder that artifacts of the local store live in."""
    return home.resolve() / "mlartifacts"


def quiet_environment() -> dict[str, str]:
    """Return the settings that keep MLflow from phoning home, asking git and guessing; the user's own ones win."""
    return {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}


def silence_mlflow() -> None:
    """Apply `quiet_environment` to this process. Has to come before the first import of mlflow."""
    os.environ.update(quiet_environment())


def open_store(tracking_uri: str) -> Any:
    """Return an `MlflowClient` for both tracking and registry.

    MLflow's settings are process-wide, which is one reason why recording has a process of its own.
    """
    import mlflow
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, "connect", _tune_sqlite):
        event.listen(Engine, "connect", _tune_sqlite)
    path = path_of_uri(tracking_uri)
    if path is not None:  # MLflow would try to open a damaged file ten times, for 101 s in all
        Database(path, "MLflow's database", "Move the file away, and a new one is made.").require_readable()
    _make_sqlite_store(tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return mlflow.MlflowClient(tracking_uri, tracking_uri)


def _make_sqlite_store(tracking_uri: str) -> None:
    """Make the tables of a SQLite store that is not there yet aside, and rename the file when they are complete.

    MLflow makes them in dozens of migrations that are no transaction: one that is killed in between leaves a file that
    MLflow can neither use nor mend.
    """
    from mlflow.store.db import utils
    from sqlalchemy import create_engine

    initialize = getattr(utils, "_initialize_tables", None)
    if not tracking_uri.startswith(_SQLITE) or initialize is None:  # another MLflow may do it in another way
        return
    path = Path(tracking_uri.removeprefix(_SQLITE).partition("?")[0])
    if not path.name or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f".{path.name}.lock")):
        if path.exists():  # another process was quicker
            return
        with tempfile.TemporaryDirectory(prefix=".making-", dir=path.parent) as folder:
            aside = Path(folder) / path.name
            engine = create_engine(f"{_SQLITE}{aside}")
            initialize(engine)
            engine.dispose()  # the last connection writes SQLite's log back into the file
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            for left in ("-wal", "-shm"):  # of a store that was deleted without its log: SQLite would apply it to ours
                path.with_name(path.name + left).unlink(missing_ok=True)
            aside.rename(path)
        sync_folder(path.parent)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tune_sqlite(connection: object, _record: object) -> None:
    """Let SQLite sync its log and not every transaction, of which MLflow makes hundreds: seconds on a slow disk.

    The file stays consistent whatever happens; a power failure can lose the last transactions, and with them the tag
    that says that a recording is complete.
    """
    if isinstance(connection, sqlite3.Connection):
        with contextlib.suppress(sqlite3.OperationalError):  # some network file systems cannot; slower, but it works
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")


def experiment_id(client: Any, name: str, *, tracking_uri: str, home: Path) -> str:
    """Return the experiment's id; create it when it does not exist.

    A server decides itself where its artifacts go. A database does not: they go to the home directory then, and
    not to MLflow's default, `./mlruns` in whatever the working directory is.

    Raises:
        TrackingError: a person has deleted the experiment.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        root = None if _is_server(tracking_uri) else (artifact_root(home) / _folder_name(name)).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=root))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process was quicker
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"the MLflow experiment {name!r} has been deleted.",
            where=public_uri(tracking_uri),
            fix=f"Restore it: mlflow experiments restore -x {experiment.experiment_id}",
        )
    return str(experiment.experiment_id)


def find_complete_run(client: Any, experiment: str, *, session: str, result_digest: str) -> Any | None:
    """Return the run that mirrors exactly this result of the session, if there is one."""
    for run in _runs_of(client, experiment, session):
        tags = run.data.tags
        if COMPLETE_TAG in tags and tags.get(RESULT_TAG) == result_digest:
            return run
    return None


def delete_stale_runs(client: Any, experiment: str, *, session: str) -> None:
    """Delete what earlier recordings of the session left: interrupted ones, and ones of an earlier result.

    With each parent go its trace, its nested runs, the model that it logged and the version that it registered.
    """
    for run in _runs_of(client, experiment, session):
        parent = run.info.run_id
        client.delete_traces(experiment, trace_ids=[trace_id(parent)])
        for version in client.search_model_versions(f"run_id = '{parent}'"):
            client.delete_model_version(version.name, version.version)
        for model in client.search_logged_models([experiment], filter_string=f"source_run_id = '{parent}'"):
            client.delete_logged_model(model.model_id)
        for child in find_nested_runs(client, experiment, parent):
            client.delete_run(child.info.run_id)
        client.delete_run(parent)


def find_nested_runs(client: Any, experiment: str, parent: str) -> list[Any]:
    """Return the runs that are nested in a run."""
    return list(client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'", max_results=_MAX_RESULTS))


def _runs_of(client: Any, experiment: str, session: str) -> list[Any]:
    return list(client.search_runs([experiment], f"tags.`{SESSION_TAG}` = '{session}'", max_results=_MAX_RESULTS))


def _is_server(tracking_uri: str) -> bool:
    return urlsplit(tracking_uri).scheme in ("http", "https") or tracking_uri.startswith("databricks")


def _folder_name(experiment: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in experiment)
