"""Specs, and a command line with warm workers, for tests of whole sessions."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import agent.check
import agent.cli
import agent.session
import agent.sync
import tools.executors
from tools.worker import Worker

USER_CODE = Path(__file__).parent / "user_code"
QUICK_CLI = Path(__file__).parent / "quick_cli.py"

HPA = """\
# what runs today
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: classifier
  namespace: vision
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: classifier}
  minReplicas: 2
  maxReplicas: 40
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: 80}
"""
TRAFFIC = "second,rps\n" + "".join(f"{minute * 60},{100 + minute % 60}\n" for minute in range(240))


def write_spec(folder, **changes):
    """Write `tuning.yaml` with the small net of `user_code`; `changes` replace whole sections, None removes one."""
    sections = {
        "workload": {
            "name": "small",
            "model": {"factory": f"{USER_CODE / 'small.py'}:build"},
            "evaluation": {"factory": f"{USER_CODE / 'small.py'}:data"},
        },
        "objective": {"p99_ms": 10_000, "max_accuracy_drop": 0.05},
        "hardware": {"price_per_hour_usd": 0.1, "threads": 1},  # two threads stall each other on a busy machine
        "search": {"max_trials": 6},
        **changes,
    }
    path = folder / "tuning.yaml"
    path.write_text(yaml.safe_dump({name: section for name, section in sections.items() if section is not None}))
    return path


def with_traffic(folder):
    """Write traffic and HPA files, and return the spec's sections for them."""
    (folder / "traffic.csv").write_text(TRAFFIC)
    (folder / "hpa.yaml").write_text(HPA)
    return {"traffic": {"trace": "traffic.csv"}, "hpa": {"file": "hpa.yaml"}}


def names_in(folder):
    """Return the names of everything in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    exit_code: int
    out: str
    err: str


class Commands:
    """Runs `infertune` in this process, on workers that stay warm from one command to the next."""

    def __init__(self) -> None:
        self._warm: dict[tuple[str, ...], Worker] = {}

    @contextlib.contextmanager
    def worker(self, preload, logs: Path, **limits) -> Iterator[Worker]:
        """Stand in for `Worker`: the same process for every session, with that session's logs."""
        worker = self._warm.setdefault(tuple(preload), Worker(preload, logs, **limits))
        worker._logs = logs
        yield worker

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have sessions and checks use the warm workers."""
        monkeypatch.setattr(tools.executors, "Worker", self.worker)
        monkeypatch.setattr(agent.check, "Worker", self.worker)
        monkeypatch.setattr(agent.sync, "Worker", self.worker)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # mlflow sets it for the process
        monkeypatch.setenv(
            "TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "infertune-tests-inductor")
        )  # else a session sets it, for all tests after it

    def run(self, capsys, monkeypatch, *arguments) -> Answer:
        """Run one command and return what it said."""
        monkeypatch.setattr(sys, "argv", ["infertune", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            agent.cli.main()
        out, err = capsys.readouterr()
        return Answer(int(ended.value.code or 0), out, err)

    def close(self) -> None:
        """End the workers."""
        for worker in self._warm.values():
            worker.close()
