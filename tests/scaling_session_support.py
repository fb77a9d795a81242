"""Sessions whose spec names a cluster: one that offers a plan, made once and put back as it was before each test.

Use the fixtures by `from scaling_session_support import ...`. As a program, `python scaling_session_support.py AT
ARGS...` is `infertune ARGS...` in which nobody waits for a clock, and which is killed at a step that `AT` names.
"""

import contextlib
import copy
import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from cluster_support import NAME, NAMESPACE, hpa_manifest
from quick_cli import quicken
from session_support import Commands, write_spec

import agent.changes
import agent.contexts
import nodes.changing
import nodes.report
import tools.mirror
from simulations.api_server import ApiServer
from tools.result import MlflowRef, SessionResult

RUNTIMES = ("eager", "onnxruntime")
TRAFFIC = "second,rps\n" + "".join(f"{minute * 60},{100 + minute % 60}\n" for minute in range(60))
HEALTHY = (
    {"type": "AbleToScale", "status": "True", "reason": "ReadyForNewScale", "message": "recommended size matches"},
    {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": "computed from a metric"},
)


def cluster_section(kubeconfig, **changes):
    """The spec's `cluster` for a kubeconfig of the stand-in."""
    return {
        "context": "reader",
        "writer_context": "writer",
        "kubeconfig": str(kubeconfig),
        "namespace": NAMESPACE,
        "hpa": NAME,
        "allow_namespaces": [NAMESPACE],
        "apply": True,
        "bounds": {"min_replicas": 2, "max_replicas": 4},
        "verify_s": 60,
        **changes,
    }


def scaling_spec(folder, cluster, **sections):
    """Write the smallest spec whose session sizes a service, and return its path."""
    (folder / "traffic.csv").write_text(TRAFFIC)
    return write_spec(
        folder,
        **{
            "traffic": {"trace": "traffic.csv"},
            "search": {"only": ["onnxruntime"], "max_trials": 1},
            "budget": {"tolerate_noise": True},
            "scaling": {"metrics": ["rate"]},
            "cluster": cluster,
            **sections,
        },
    )


class Clock:
    """A clock that moves when somebody sleeps, and what happens meanwhile."""

    def __init__(self):
        self.passed_s = 0.0
        self.meanwhile = lambda: None

    def now(self):
        """The time of the world, and what was slept of it."""
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.passed_s)

    def sleep(self, seconds):
        """Let that much time pass at once."""
        self.passed_s += seconds
        self.meanwhile()

    def install(self, patch):
        """Have sessions go by this clock; `patch` is `setattr` or a monkeypatch's."""

        def made(*arguments, make=agent.contexts.make_context, **named):
            return replace(make(*arguments, **named), clock=self.now, sleep=self.sleep)

        patch(agent.contexts, "make_context", made)
        patch(agent.changes, "make_context", made)


class World:
    """A cluster, a spec for it, and the home of one session that offered a plan; each test finds them as at first."""

    def __init__(self, folder, commands):
        self.folder = folder
        self.commands = commands
        self.home = folder / "home"
        self.server = ApiServer(namespace=NAMESPACE, hpa=NAME)
        self.server.start()
        self.server.put_hpa(hpa_manifest(minReplicas=4))
        self.server.set_status(NAMESPACE, NAME, current=4, desired=4, conditions=HEALTHY)
        self.kubeconfig = self.server.kubeconfig(folder / "kubeconfig")
        self._stored = None

    def keep(self):
        """What is there now is what each test begins with."""
        shutil.copytree(self.home, self.folder / "kept")
        self._stored = copy.deepcopy((self.server._hpas._objects, self.server._hpas._version))

    def restore(self):
        """Put everything back."""
        shutil.rmtree(self.home)
        shutil.copytree(self.folder / "kept", self.home)
        hpas = self.server._hpas
        hpas._objects, hpas._version = copy.deepcopy(self._stored)
        self.server.heal()
        self.server.before = None
        self.server.log.clear()

    def spec(self, *, cluster=None, hpa=None, **sections):
        """Write a spec for this cluster beside the first one's, with another HPA in the cluster if one is given."""
        if hpa is not None:
            self.server.put_hpa(hpa)
        return scaling_spec(self.folder, cluster_section(self.kubeconfig, **(cluster or {})), **sections)

    @property
    def session(self):
        """The folder of the latest session."""
        return max((self.home / "sessions").iterdir(), key=lambda folder: folder.name)

    @property
    def result(self):
        """What the latest session says."""
        return SessionResult.model_validate_json((self.session / "result.json").read_bytes())

    @property
    def owned(self):
        """The bounds that the cluster's HPA has now."""
        spec = self.server.hpa(NAMESPACE, NAME)["spec"]
        return spec["minReplicas"], spec["maxReplicas"]

    @property
    def patches(self):
        """How many patches the server has stored."""
        return sum(request.verb == "patch" and request.stored for request in self.server.log)


class _Ears:
    """In place of pytest's `capsys`, which is there for single tests only."""

    def readouterr(self):
        return "", ""


_WORLDS = []


@pytest.fixture(scope="session")
def first_world(tmp_path_factory):
    """A world with a session that offered a plan; made once, however many modules ask."""
    if _WORLDS:
        yield _WORLDS[0]
        return
    with contextlib.ExitStack() as stack:
        commands = Commands()
        stack.callback(commands.close)
        world = World(tmp_path_factory.mktemp("scaling"), commands)
        stack.callback(world.server.stop)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        _install(commands, patch)
        answer = commands.run(_Ears(), patch, "optimize", world.spec(), "--home", world.home, "--output", "json")
        patch.undo()
        assert answer.exit_code == 0
        world.keep()
        _WORLDS.append(world)
        yield world


def _install(commands, patch):
    commands.install(patch)
    patch.setattr(agent.changes, "Worker", commands.worker)
    patch.setenv("COLUMNS", "200")
    quicken(RUNTIMES, patch.setattr)


@pytest.fixture
def world(first_world):
    """The world as it was when its plan had just been offered."""
    first_world.restore()
    return first_world


@pytest.fixture
def clock(monkeypatch):
    """What the sessions of a test go by: nobody waits."""
    clock = Clock()
    clock.install(monkeypatch.setattr)
    return clock


@pytest.fixture
def infertune(world, clock, capsys, monkeypatch):
    """Run a command in this process, in the world's home, with page and record left out: they take seconds."""
    _install(world.commands, monkeypatch)
    monkeypatch.setattr(nodes.report, "render", lambda *_: None)
    for module in (nodes.changing, nodes.report):
        monkeypatch.setattr(module, "mirror", lambda _folder, uri, _machine: MlflowRef(tracking_uri=uri, run_id="none"))

    def run(*arguments):
        home = () if arguments[0] == "doctor" else ("--home", world.home)
        return world.commands.run(capsys, monkeypatch, *arguments, *home)

    return run


@pytest.fixture
def recorded(infertune, monkeypatch):
    """The same command, with the page and the record in MLflow."""
    monkeypatch.setattr(nodes.report, "render", tools.mirror.render)
    for module in (nodes.changing, nodes.report):
        monkeypatch.setattr(module, "mirror", tools.mirror.mirror)
    return infertune


# --- as a program --------------------------------------------------------------------------------------------------


def run_child(world, at, *arguments):
    """Run a command in a process of its own, which is killed at the step `at`; an empty one lets it come to its end."""
    return subprocess.run(
        [sys.executable, __file__, at, *map(str, arguments), "--home", str(world.home)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def _killing(at, patch):
    """Have this process killed before or after it does something: `before HpaClient.patch`, `after ...`."""
    from tools.cluster.client import HpaClient
    from tools.cluster.store import PlanStore

    def around(owner, name, *, kind=None):
        function = getattr(owner, name)
        step = f"{owner.__name__}.{name}" + (f" {kind}" if kind else "")

        def stepping(*args, **named):
            mine = kind is None or kind in args
            if mine and at == f"before {step}":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **named)
            if mine and at == f"after {step}":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        patch(owner, name, stepping)

    around(HpaClient, "patch")
    for kind in ("applying", "applied", "verifying", "verified", "failed"):
        around(PlanStore, "append", kind=kind)


def _main():
    import agent.cli

    at = sys.argv.pop(1)
    _killing(at, setattr)
    Clock().install(setattr)
    quicken(RUNTIMES, setattr)
    agent.cli.main()


if __name__ == "__main__":
    _main()
