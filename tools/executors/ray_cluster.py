"""A cluster of machines, reached through Ray: connecting, choosing nodes, and leaving nothing behind.

What is timed runs on a node that is the machine of the session, and nowhere else: on the main process's own, where
that belongs to the cluster. Transforms and training run on any node that shares the home directory and has the same
libraries. Written from https://docs.ray.io/en/latest/ray-core/ and seen with Ray 2.60.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tools.artifacts import write_file
from tools.contracts import Hardware
from tools.errors import UnavailableError
from tools.executors import Workers
from tools.executors.ray_host import Host, Surroundings
from tools.executors.ray_worker import Node, RayWorker
from tools.observer import Observer
from tools.worker import LIGHT_MODULES, TORCH_MODULES
from tools.worker.supervisor import REPOSITORY_ROOT

REACH_S = 5.0
"""A cluster whose port does not answer for so long is not there."""

CPUS_A_BUILD = 2
"""CPUs of a node for each transform or training that runs there: most of a transform's time is one thread's."""
OBJECT_STORE_BYTES = 100_000_000
"""Nearly the least that Ray takes: what passes through it is JSON; artifacts go through the home directory."""

_OWN_RAY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # where it is off, Ray listens to this machine alone
    "RAY_USAGE_STATS_ENABLED": "0",  # it would call home
    "RAY_worker_niceness": "0",  # it would let everything else on the machine go before a trial
    "RAY_memory_monitor_refresh_ms": "0",  # workers keep the memory caps, and can say which trial broke one
}


@contextlib.contextmanager
def open_ray_workers(
    logs: Path,
    *,
    memory_limit_mb: float | None,
    home: Path,
    hardware: Hardware,
    versions: Mapping[str, str],
    observer: Observer,
    address: str | None = None,
) -> Iterator[Workers]:
    """Open a session's workers on a Ray cluster; see `tools.executors.open_workers`.

    Raises:
        UnavailableError: Ray is not installed or not reached, or none of its nodes will do.
    """
    surroundings = Surroundings(environment=dict(os.environ), folder=str(Path.cwd()))
    token, content = home / f".token-{secrets.token_hex(4)}", secrets.token_hex(8)
    workers: list[RayWorker] = []

    def hire(
        nodes: Sequence[Node], preload: Sequence[str], folder: Path, unfit: Callable[[Any], str | None]
    ) -> RayWorker:
        def start(node: Node) -> Any:
            return _start_host(node, surroundings, preload, folder, memory_limit_mb)

        workers.append(RayWorker(nodes, start, str(token), unfit))
        return workers[-1]

    def unfit(seen: Any) -> str | None:
        return unfit_to_build(seen, content, versions, home)

    def unfit_to_measure(seen: Any) -> str | None:
        return unfit(seen) or unfit_to_time(seen, hardware)

    with _connected(address, hardware.cores):
        write_file(token, content)
        try:
            nodes = _nodes()
            torch_worker = hire(nodes, TORCH_MODULES, logs, unfit_to_measure)
            fit = torch_worker.settle()
            assert fit is not None, "nobody can cancel it before it is handed out"
            light_worker = hire(nodes, LIGHT_MODULES, logs, unfit_to_measure)
            builders = _builders(nodes, fit, observer, lambda at, name: hire(at, TORCH_MODULES, logs / name, unfit))
            yield Workers(torch_worker, light_worker, builders)
        finally:
            token.unlink(missing_ok=True)
            for worker in workers:
                worker.close()


def _builders(
    nodes: Sequence[Node], fit: Node, observer: Observer, hire: Callable[[Sequence[Node], str], RayWorker]
) -> tuple[RayWorker, ...]:
    """Hire as many builders as the cluster has room for. A node that will not do is left out, and that is said.

    One worker settles on each node now; where that fails, there will be no others. One whose node is lost later goes
    to another node.

    Args:
        nodes: of the cluster.
        fit: the one of them that has been looked at.
        observer: is told of those that are left out.
        hire: returns a worker for the first of some nodes, with a name for its logs.
    """

    def settle(worker: RayWorker) -> bool:
        try:
            worker.settle()
        except UnavailableError as error:
            observer.finding(f"Left out of the cluster: {error}")
            return False
        return True

    usable, found = [fit], []
    with ThreadPoolExecutor(len(nodes)) as pool:
        first = {node: hire((node,), f"builder-{node.id[:8]}") for node in nodes if node != fit}
        for (node, worker), settled in zip(first.items(), pool.map(settle, first.values()), strict=True):
            if settled:
                usable.append(node)
                found.append(worker)
    for node in usable:
        places = max(node.cpus // CPUS_A_BUILD, 1) - (node in first)
        found += [hire((node,), f"builder-{node.id[:8]}-{place}") for place in range(places)]
    for worker in found:
        worker.nodes = (*worker.nodes, *(node for node in usable if node not in worker.nodes))
    return tuple(found)


@contextlib.contextmanager
def _connected(address: str | None, cores: int) -> Iterator[None]:
    """Connect to a running cluster, or start a Ray on this machine that nobody else can reach.

    Raises:
        UnavailableError: Ray is not installed, or the cluster cannot be reached.
    """
    if find_spec("ray") is None:
        raise UnavailableError(
            "the executor ray needs the Python package ray, which is not installed.", fix="pip install 'infertune[ray]'"
        )
    address = address or os.environ.get("RAY_ADDRESS")
    if address is not None and address.startswith("ray://"):
        raise UnavailableError(
            "a Ray client cannot be used: the main process has to run on a node of the cluster.",
            where=address,
            fix="Start infertune on such a node, with --ray-address auto.",
        )
    _check_reachable(address)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_same_sigterm())
        arguments: dict[str, Any] = {"address": address}
        if address is None:
            stack.enter_context(_environment(_OWN_RAY))
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="infertune-ray-", ignore_cleanup_errors=True)
            )
            arguments = {
                "address": "local",
                "num_cpus": cores,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_temp_dir": folder,
            }
        import ray  # it reads its environment once

        # Ray puts the working directory on its workers' path: a `tools.py` there must not stand in for our package
        with contextlib.chdir(REPOSITORY_ROOT):
            try:
                ray.init(**arguments, log_to_driver=False, logging_level="ERROR", namespace="infertune")
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                raise UnavailableError(
                    f"Ray could not be {'started' if address is None else 'reached'} ({error}).",
                    where=address,
                    fix="`ray status` shows what runs." if address is not None else None,
                ) from error
        stack.callback(ray.shutdown)
        yield


def _check_reachable(address: str | None) -> None:
    """Try a cluster's port before Ray does, which would go on trying for minutes.

    Raises:
        UnavailableError: nothing answers there.
    """
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit():  # `auto`, or what Ray itself will refuse
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise UnavailableError(
            f"Ray could not be reached ({error}).", where=address, fix="`ray status` on a node shows what runs."
        ) from error


def _nodes() -> tuple[Node, ...]:
    """Return the living nodes, the one of this process first and the others by their address."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    found = [
        Node(id=n["NodeID"], name=n["NodeManagerAddress"], cpus=int(n["Resources"].get("CPU", 0)))
        for n in ray.nodes()
        if n["Alive"]
    ]
    return tuple(sorted(found, key=lambda node: (node.id != here, node.name, node.id)))


def _start_host(
    node: Node, surroundings: Surroundings, preload: Sequence[str], logs: Path, memory_limit_mb: float | None
) -> Any:
    """Start a host on a node and return Ray's handle of it; whether that went well, its first task shows.

    It takes none of Ray's CPUs, since it idles between tasks, and what it runs is fenced by infertune.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    host = ray.remote(Host).options(
        num_cpus=0,
        max_concurrency=2,  # `cancel` beside `run`
        max_restarts=0,  # a new one is chosen with a new look at the node
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
    )
    return host.remote(surroundings.model_dump(mode="json"), list(preload), str(logs), memory_limit_mb)


def unfit_to_build(seen: Any, token: str, versions: Mapping[str, str], home: Path) -> str | None:
    """Return why nothing may be built on a node, or None.

    Args:
        seen: what `Host.look` returned there.
        token: what it should have found in the token file.
        versions: of the libraries that matter, as the session has them.
        home: the home directory.
    """
    if seen["token"] != token:
        return f"it does not share the home directory {home} (put it on a file system that all nodes see)"
    other = seen["versions"]
    changed = [
        f"{name} is {other.get(name, 'absent')} and not {versions.get(name, 'absent')}"
        for name in sorted(versions.keys() | other.keys())
        if versions.get(name) != other.get(name)
    ]
    return f"its libraries differ: {', '.join(changed)}" if changed else None


def unfit_to_time(seen: Any, hardware: Hardware) -> str | None:
    """Return why nothing may be timed on a node, or None.

    Args:
        seen: what `Host.look` returned there.
        hardware: the machine that the session's numbers hold for.
    """
    other = Hardware.model_validate(seen["hardware"])
    if other.digest != hardware.digest:
        changed = [
            f"{name} is {getattr(other, name)} and not {getattr(hardware, name)}"
            for name in Hardware.model_fields
            if getattr(other, name) != getattr(hardware, name)
        ]
        return f"it is not the machine that the session is about: {', '.join(changed)}"
    if seen["niceness"] > os.getpriority(os.PRIO_PROCESS, 0):
        return "its processes yield to all others (start it with RAY_worker_niceness=0 in the environment)"
    return None


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that Ray starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _same_sigterm() -> Iterator[None]:
    """Put the handler of SIGTERM back, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
