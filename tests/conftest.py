"""Shared settings of the tests."""

import os
import signal
import sys

import pytest
from hypothesis import settings
from skips_support import pytest_make_collect_report, pytest_runtest_makereport  # noqa: F401  # hooks

# Deterministic, and without deadlines: these machines are shared, and a test must not fail because one was busy.
settings.register_profile("infertune", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("infertune")

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("INFERTUNE_HOME", None)


@pytest.fixture(scope="module")
def commands():
    """A command line on workers that stay warm for a module's tests."""
    from session_support import Commands

    running = Commands()
    yield running
    running.close()


@pytest.fixture(scope="module", autouse=True)
def _nothing_outlives_its_tests():
    """Wait for the processes that a chat leaves behind: sessions, and the writers of its traces."""
    yield
    modules = (sys.modules.get(f"agent.chat.{name}") for name in ("background", "traces"))
    for process in (process for module in modules if module is not None for process in module._STARTED):
        process.wait(timeout=120)


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Have Ctrl-C raise KeyboardInterrupt, whatever started the tests, and whatever a library left behind."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
