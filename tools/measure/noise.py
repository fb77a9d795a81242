"""Whether something else was using the machine while a window of time was measured.

A window is judged by what happened beside it, never by its own times, so throwing it away does not flatter the tail.
There are four witnesses, each of which sees what the others do not:

- **waiting**: how long this process's threads stood ready to run and had no CPU (`/proc/self/task/*/schedstat`, in
  nanoseconds). The sharpest: another process of a tenth of one CPU shows.
- **foreign**: CPU time that was not this process's, that stolen by the hypervisor included (`/proc/stat`, in ticks of
  10 ms). It is absolute, so it sees a disturbance that was there from the beginning, and it tells waiting for others
  from a runtime with more threads than CPUs, which waits for itself.
- **throttled**: how long a container's quota kept it from running (`cpu.stat` of its control group).
- **a fixed kernel**, timed before and after: it sees clocks and caches that are slower than in the other windows. It
  does not see a competing process: the scheduler lets a thread that has slept run first, and a kernel of a millisecond
  is over before the turn ends. With one process spinning on the same CPU its median moved by 4 %.

Without `/proc` (macOS) only the kernel is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.hardware import control_groups

WAITING_LIMIT = 0.03
"""Share of the model's CPU time. Quiet windows had up to 0.015; a process of a tenth of one of two CPUs made 0.05."""
FOREIGN_LIMIT = 0.05
"""Share of the model's CPUs, to which one tick is added: 0.09 in a window of 0.25 s."""
FOREIGN_CONFIRMS = 0.02
"""With this much foreign time, waiting was for others: a tick of 10 ms in a window of 0.25 s on two CPUs."""
THROTTLED_LIMIT = 0.05
PROBE_LIMIT = 1.25
"""A kernel slower than this many times the lower quartile of the same measurement's. Under AVX and AMX load the clock
is lower all along, so no other reference is fair."""
TICK_S = 0.01
LOOK_S = 0.25
"""How long one look at an idle process's surroundings takes."""
QUIET_MAX_S = 5.0
"""How long to wait for a quiet machine before measuring on a noisy one."""
PROBE_BYTES = 512 * 1024
PROBE_REPEATS = 5


@dataclass(frozen=True)
class Counters:
    """What the kernel had counted at one moment, in seconds; None where it does not say."""

    clock_s: float
    own_cpu_s: float
    busy_s: float | None = None
    """CPU time of all processes on the CPUs that this one may use, with what the hypervisor stole."""
    waiting_s: Mapping[int, float] | None = None
    """By thread of this process: ready to run, and without a CPU."""
    throttled_s: float | None = None
    """CPU time that the container's quota took away."""


@dataclass(frozen=True)
class Window:
    """The surroundings of one window. Shares are of the CPUs that the model uses, 0 to about 1."""

    seconds: float
    foreign: float | None
    """CPU time of others."""
    crowding: float | None
    """The part of it that the CPUs which the model leaves free could not hold."""
    waiting: float | None
    throttled: float | None
    probe_ms: float
    """The slower of the kernels before and after."""


class NoiseMeter:
    """Watches the windows of one measurement.

    Args:
        threads: CPU threads that the model uses.
        probe: returns the milliseconds of a fixed kernel on as many threads.
        counters: reads the kernel's counters.
        cpus: how many CPUs the counters are about; by default those that this process may use.
        sleep: how to pass the time.
        tolerant: call no window disturbed and wait for nothing, on a machine that is known to be shared.
    """

    def __init__(
        self,
        threads: int,
        *,
        probe: Callable[[], float] | None = None,
        counters: Callable[[], Counters] | None = None,
        cpus: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        tolerant: bool = False,
    ) -> None:
        self._threads = threads
        self._probe = probe or (lambda: kernel_ms(threads))
        self._counters = counters or read_counters
        self._cpus = cpus or len(_allowed_cpus())
        self._sleep = sleep
        self._tolerant = tolerant
        self._windows: list[Window] = []
        self._probes_ms: list[float] = []
        self._before: Counters | None = None

    @property
    def windows(self) -> tuple[Window, ...]:
        """What was watched so far."""
        return tuple(self._windows)

    def begin(self) -> None:
        """A window begins. The kernel has cooled the caches: the first call after this should not count."""
        self._probes_ms.append(self._probe())
        self._before = self._counters()

    def end(self) -> None:
        """The window has ended."""
        assert self._before is not None, "a window ends that never began"
        after = self._counters()
        self._probes_ms.append(self._probe())
        self._windows.append(self._window(self._before, after, max(self._probes_ms[-2:])))
        self._before = None

    def reasons(self) -> list[str | None]:
        """Return for each window why it is disturbed, or None.

        Later windows sharpen the judgement of earlier ones: what a quiet kernel takes is learnt on the way.
        """
        if self._tolerant or not self._windows:
            return [None] * len(self._windows)
        usual_ms = lower_quartile(self._probes_ms)
        return [why_disturbed(window, usual_ms) for window in self._windows]

    def wait_until_quiet(self, max_s: float = QUIET_MAX_S) -> str | None:
        """Sleep until nothing else uses the machine, or the time is up.

        One look takes `LOOK_S`, on a quiet machine too.

        Returns:
            None when it is quiet, else what still disturbs it, as a sentence.
        """
        waited_s = 0.0
        while not self._tolerant:
            before = self._counters()
            self._sleep(LOOK_S)
            reason = why_disturbed(self._window(before, self._counters(), 0.0), usual_ms=0.0)
            waited_s += LOOK_S
            if reason is None or waited_s >= max_s:
                return reason
        return None

    def _window(self, before: Counters, after: Counters, probe_ms: float) -> Window:
        seconds = max(after.clock_s - before.clock_s, 1e-9)
        foreign = _foreign(before, after, seconds * self._threads)
        spare = max(self._cpus / self._threads - 1.0, 0.0)
        return Window(
            seconds=seconds,
            foreign=foreign,
            crowding=None if foreign is None else max(foreign - spare, 0.0),
            waiting=_waiting(before, after, seconds * self._threads),
            throttled=_throttled(before, after, seconds * self._threads),
            probe_ms=probe_ms,
        )


def why_disturbed(window: Window, usual_ms: float) -> str | None:
    """Return what disturbed a window, as a sentence, or None.

    Args:
        window: what was seen.
        usual_ms: what the kernel takes in this measurement when nothing slows it down.
    """
    if window.throttled is not None and window.throttled > THROTTLED_LIMIT:
        return f"the container's CPU quota kept it from running for {window.throttled:.0%} of the time"
    if window.crowding is not None and window.crowding > FOREIGN_LIMIT + TICK_S / window.seconds:
        return f"other processes took {window.crowding:.0%} of the CPU time"
    by_others = window.foreign is None or window.foreign > FOREIGN_CONFIRMS
    if window.waiting is not None and window.waiting > WAITING_LIMIT and by_others:
        return f"its threads waited {window.waiting:.0%} of the time for a CPU that others used"
    if window.probe_ms > PROBE_LIMIT * usual_ms:
        return f"a fixed kernel beside it took {window.probe_ms / usual_ms:.1f} times as long as usual"
    return None


def kernel_ms(threads: int) -> float:
    """Time a fixed kernel on so many threads at once: the slowest thread's median, in milliseconds.

    The kernel is SHA-256 over a buffer that fits in a second-level cache, about 0.3 ms a time. `hashlib` releases the
    interpreter's lock for it.
    """
    buffer = _buffer()
    medians = [0.0] * threads

    def run(index: int) -> None:
        times: list[int] = []
        for _ in range(PROBE_REPEATS):
            before = time.perf_counter_ns()
            hashlib.sha256(buffer)
            times.append(time.perf_counter_ns() - before)
        medians[index] = statistics.median(times) / 1e6

    others = [threading.Thread(target=run, args=(index,)) for index in range(1, threads)]
    for thread in others:
        thread.start()
    run(0)
    for thread in others:
        thread.join()
    return max(medians)


def read_counters(root: Path = Path("/")) -> Counters:
    """Read the kernel's counters; takes a fraction of a millisecond on a few CPUs.

    Args:
        root: where `/proc` and `/sys` are found.
    """
    return Counters(
        busy_s=_busy_s(root),
        waiting_s=_waiting_s(root),
        throttled_s=_throttled_s(root),
        own_cpu_s=time.process_time(),
        clock_s=time.perf_counter(),
    )


def lower_quartile(values: list[float]) -> float:
    """Return the value that a quarter lies at or below, one of those given."""
    return sorted(values)[(len(values) - 1) // 4]


@cache
def _buffer() -> bytes:
    return bytes(PROBE_BYTES)


def _allowed_cpus() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _foreign(before: Counters, after: Counters, cpu_s: float) -> float | None:
    if before.busy_s is None or after.busy_s is None:
        return None
    others_s = (after.busy_s - before.busy_s) - (after.own_cpu_s - before.own_cpu_s)
    return max(others_s, 0.0) / cpu_s


def _waiting(before: Counters, after: Counters, cpu_s: float) -> float | None:
    if before.waiting_s is None or after.waiting_s is None:
        return None
    earlier = before.waiting_s  # a thread that is new began at zero
    return sum(max(waited - earlier.get(thread, 0.0), 0.0) for thread, waited in after.waiting_s.items()) / cpu_s


def _throttled(before: Counters, after: Counters, cpu_s: float) -> float | None:
    if before.throttled_s is None or after.throttled_s is None:
        return None
    return (after.throttled_s - before.throttled_s) / cpu_s


def _busy_s(root: Path) -> float | None:
    """Sum user, nice, system, irq, softirq and steal of the CPUs that this process may use (proc(5), `/proc/stat`)."""
    names = {f"cpu{number}" for number in _allowed_cpus()}
    ticks = 0
    with contextlib.suppress(OSError, ValueError), (root / "proc/stat").open(encoding="ascii") as lines:
        for line in lines:
            name, *rest = line.split(maxsplit=10)
            if not name.startswith("cpu"):
                break  # the CPUs come first; what follows is long
            if name in names:
                user, nice, system, _idle, _iowait, irq, softirq, steal = (int(count) for count in rest[:8])
                ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None  # some sandboxes show zeros only


def _waiting_s(root: Path) -> dict[int, float] | None:
    """Read each thread's second figure in `schedstat`: nanoseconds on a run queue (kernel doc sched-stats)."""
    waiting: dict[int, float] = {}
    with contextlib.suppress(OSError):
        for task in (root / "proc/self/task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end while we read
                waiting[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return waiting or None


def _throttled_s(root: Path) -> float | None:
    """Sum what the quotas of this process's control group, and of all above it, took away."""
    units = {"throttled_usec": 1e-6, "throttled_time": 1e-9}  # version 2, version 1
    found = [
        int(value) * units[key]
        for file in _throttle_files(root)
        for key, _, value in (line.partition(" ") for line in _lines(file))
        if key in units and value.isdigit()
    ]
    return sum(found) if found else None


@cache
def _throttle_files(root: Path) -> tuple[Path, ...]:
    folders = (folder for controller in ("", "cpu") for folder in control_groups(root, controller))
    return tuple(file for folder in folders if (file := folder / "cpu.stat").is_file())


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
