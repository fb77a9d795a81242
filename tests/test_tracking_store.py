"""Where the MLflow store is, how it is made, and its pages."""

# a fixture that is imported, and then asked for by name

from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tracking_support import (  # noqa: F401
    WARNINGS,
    no_tracking_uri_from_outside,
)

from tools.tracking import TrackingError, default_tracking_uri, serve_ui, ui_command

pytestmark = WARNINGS


def test_the_environment_wins_over_the_home_directory(tmp_path, monkeypatch):
    assert default_tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert default_tracking_uri(tmp_path) == "http://mlflow:5000"


def test_the_pages_are_served_from_the_home_directory(tmp_path):
    command = ui_command(tmp_path, "127.0.0.1", 5050)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options["--backend-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert options["--artifacts-destination"] == (tmp_path / "mlartifacts").as_uri()
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "5050")


def test_there_are_no_pages_before_there_is_a_store(tmp_path):
    with pytest.raises(TrackingError, match="infertune optimize"):
        serve_ui(tmp_path)


def test_where_sessions_are_recorded_elsewhere_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    with pytest.raises(TrackingError, match="recorded at http://mlflow:5000"):
        serve_ui(tmp_path)


def test_a_taken_port_is_found_beforehand_and_another_suggested(tmp_path):
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TrackingError, match=r"infertune ui --port \d+"):
            serve_ui(tmp_path, port=port)


_KILLED_WHILE_MAKING = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tools.tracking.store import open_store, silence_mlflow
silence_mlflow()
left = int(sys.argv[2])
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "before_cursor_execute", count)
open_store(sys.argv[1])
"""


@pytest.mark.parametrize("statement", [5, 60, 200])
def test_a_store_whose_making_was_killed_is_made_anew(tmp_path, statement):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-c", _KILLED_WHILE_MAKING, uri, str(statement)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False)
    assert done.returncode == -9
    assert not (tmp_path / "mlflow.db").exists()
    from tools.tracking.store import open_store, silence_mlflow

    silence_mlflow()
    client = open_store(uri)
    assert client.get_experiment_by_name("Default") is not None
    assert (tmp_path / "mlflow.db").exists()


def test_the_log_of_a_deleted_store_does_not_damage_the_new_one(tmp_path):
    """Somebody who deletes `mlflow.db` may leave `mlflow.db-wal` behind, which SQLite would apply to the new file."""
    from tools.tracking.store import open_store, silence_mlflow

    silence_mlflow()
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE was (n); INSERT INTO was VALUES (1);")
        log = path.with_name("mlflow.db-wal").read_bytes()
    path.unlink()
    path.with_name("mlflow.db-wal").write_bytes(log)
    open_store(f"sqlite:///{path}").create_experiment("new", artifact_location=tmp_path.as_uri())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'was'").fetchall() == []
