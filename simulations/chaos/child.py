"""`infertune` with quick measurements, and with the graph's nodes in reach of `hook`.

`python -m simulations.chaos.child` takes the arguments of `infertune`. The environment variable
`CHAOS_CHILD` holds `Settings` as JSON.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import agent.cli
import agent.graph
import agent.loading
import agent.policy
import agent.session
import nodes.report
import tools.executors
import tools.inquiry
import tools.limits
import tools.runtimes
import tools.worker
from tools.contracts import Availability, Hardware, Unstable
from tools.outcomes import is_lasting
from tools.result import MlflowRef

SETTINGS = "CHAOS_CHILD"
LIMITS = {
    "screen_point_s": 0.3,
    "sweep_point_s": 0.3,
    "comparison_rounds": 4,
    "comparison_block_s": 0.02,
}
"""Behaviour is looked at here, and no figure."""
BATCH_SIZES = (1, 4)
NODES = (*agent.graph.EXPERIMENTS, "profiler", "planner", "scaling_recommendation", "report")


class Settings(NamedTuple):
    """How a session is made quick.

    Attributes:
        runtimes: that may be used.
        light: whether the workload needs no PyTorch in its workers, whose import takes seconds.
        mlflow: whether the session is recorded in MLflow, which takes seconds too; else MLflow is said to be away.
        file_kb: no file may grow larger, as a quota or `ulimit -f` has it.
    """

    runtimes: tuple[str, ...]
    light: bool = True
    mlflow: bool = False
    file_kb: int | None = None


@contextlib.contextmanager
def quick(settings: Settings) -> Iterator[None]:
    """Make this process's sessions quick, and its replays ask what those asked.

    What noise made unstable counts as an answer: no later session asks again, so that it measures nothing at all.
    """

    def available(hardware: Hardware) -> dict[str, Availability]:
        found = tools.runtimes.availabilities(hardware)
        off = {"available": False, "reason": "switched off"}
        return {name: a if name in settings.runtimes else a.model_copy(update=off) for name, a in found.items()}

    def away(_folder: object, tracking_uri: str, _machine: object) -> MlflowRef:
        return MlflowRef(tracking_uri=tracking_uri, run_id=None, note="MLflow is away.")

    with contextlib.ExitStack() as patches:

        def patch(where: object, name: str, value: object) -> None:
            patches.enter_context(mock.patch.object(where, name, value))

        patch(agent.session, "availabilities", available)
        patch(agent.loading, "BenchLimits", functools.partial(tools.limits.BenchLimits, **LIMITS))
        patch(agent.policy, "BATCH_SIZES", BATCH_SIZES)
        patch(tools.inquiry, "is_lasting", lambda outcome: isinstance(outcome, Unstable) or is_lasting(outcome))
        if settings.light:
            patch(tools.executors, "TORCH_MODULES", tools.worker.LIGHT_MODULES)
        if not settings.mlflow:
            patch(nodes.report, "mirror", away)
        yield


def _report_nodes() -> None:
    """Have every node of the graph tell the hook when it begins and when it is done."""
    hook = getattr(sys.modules.get("sitecustomize"), "hook", None)
    if hook is None:
        return
    for name in NODES:
        setattr(agent.graph, name, _reporting(getattr(agent.graph, name), hook))


def _reporting(node: Callable[..., Any], hook: Any) -> Callable[..., Any]:
    @functools.wraps(node)
    def reporting(*arguments: Any, **options: Any) -> Any:
        with hook.around("node", node.__name__):
            return node(*arguments, **options)

    return reporting


if __name__ == "__main__":
    given = Settings(**json.loads(os.environ[SETTINGS]))
    _report_nodes()
    if given.file_kb is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.file_kb * 1000, resource.RLIM_INFINITY))
    with quick(given):
        agent.cli.main()
