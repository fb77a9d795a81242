"""Where tasks run: in workers on this machine, or in workers that Ray places on a cluster.

Isolation, time and memory caps are the workers' own in both cases; Ray only starts them elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.contracts import Hardware
from tools.errors import UnavailableError
from tools.machine import TaskRunner
from tools.observer import Observer
from tools.worker import LIGHT_MODULES, TORCH_MODULES, Worker

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Workers:
    """What a `tools.machine.Machine` is made from.

    Args:
        torch: has imported torch.
        light: has not.
        builders: for transforms and training, which may run at the same time. None where it is one after the other.
    """

    torch: TaskRunner
    light: TaskRunner
    builders: Sequence[TaskRunner] = ()


@contextlib.contextmanager
def open_workers(
    executor: str,
    logs: Path,
    *,
    memory_limit_mb: float | None,
    home: Path,
    hardware: Hardware,
    versions: Mapping[str, str],
    observer: Observer,
    ray_address: str | None = None,
) -> Iterator[Workers]:
    """Open a session's workers, and end them and all they started.

    Args:
        executor: one of `EXECUTORS`.
        logs: where the output of tasks goes.
        memory_limit_mb: what a task may have, in MB (10^6 bytes).
        home: the home directory, which all workers must share.
        hardware: the machine that the session's numbers hold for: where it is another, nothing is timed.
        versions: of the libraries that matter, as the session has them: where they differ, nothing runs.
        observer: is told of nodes that are left out.
        ray_address: of a running cluster, `host:port` or `auto`; None for `$RAY_ADDRESS`, or a Ray of one's own on
            this machine. Only with the executor `ray`.

    Raises:
        UnavailableError: there is no such executor, Ray is not installed or not reached, or no node of it will do.
    """
    if executor == "ray":
        from tools.executors.ray_cluster import open_ray_workers

        with open_ray_workers(
            logs,
            memory_limit_mb=memory_limit_mb,
            home=home,
            hardware=hardware,
            versions=versions,
            observer=observer,
            address=ray_address,
        ) as workers:
            yield workers
        return
    if executor not in EXECUTORS:
        raise UnavailableError(f"there is no executor {executor!r}.", fix=f"Known: {', '.join(EXECUTORS)}.")
    if ray_address is not None:
        raise UnavailableError("a Ray address is of no use to the local executor.", fix="Add --executor ray.")
    with (
        Worker(TORCH_MODULES, logs, memory_limit_mb=memory_limit_mb) as torch_worker,
        Worker(LIGHT_MODULES, logs, memory_limit_mb=memory_limit_mb) as light_worker,
    ):
        yield Workers(torch_worker, light_worker)
