"""`infertune schedule run` waits until something is due, looks, and waits again; `tick` looks once at one spec.

Only one of them works on a home at a time.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.scheduling.facts import gather
from agent.scheduling.metrics import serving
from agent.scheduling.processes import COMMAND, Processes
from agent.scheduling.store import Entry, Run, ScheduleStore
from agent.scheduling.ticks import Ticker
from agent.scheduling.timetable import Timetable, open_timetable
from tools.contracts import digest_of
from tools.errors import SpecError
from tools.lock import held
from tools.notify import Courier, send_for
from tools.outbox import OUTBOX, Outbox

LOCK = "schedule.lock"
LONGEST_SLEEP_S = 300.0
"""Sleeps are measured by a clock that sees neither a wall clock that is set nor a laptop that was closed."""
PATIENCE_S = 60.0
"""How long a process that looks only once goes on trying a webhook that is down; the next one tries again."""
_SOMETHING = 4096


class Wakeups:
    """Waits for signals, for another process that changed the schedule, and for time to pass. Use `wakeups`."""

    def __init__(self, signals: socket.socket, calls: socket.socket) -> None:
        self._signals = signals
        self._calls = calls
        self.stopping = False
        """Whether SIGINT or SIGTERM came."""

    def wait(self, timeout_s: float, fd: int | None = None) -> bool:
        """Wait until `fd` can be read, and return whether it can; less long when asked to stop or called."""
        watched: list[int | socket.socket] = [self._signals, self._calls, *([] if fd is None else [fd])]
        ready = select.select(watched, [], [], max(timeout_s, 0.0))[0]
        if self._signals in ready:
            numbers = self._signals.recv(_SOMETHING)
            self.stopping |= bool({signal.SIGINT, signal.SIGTERM}.intersection(numbers))
        if self._calls in ready:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._calls.recv(_SOMETHING)
        return fd in ready


@contextlib.contextmanager
def wakeups(home: Path) -> Iterator[Wakeups]:
    """Listen for signals and calls; must be entered in the main thread."""
    with contextlib.ExitStack() as stack:
        reading, writing = (stack.enter_context(end) for end in socket.socketpair())
        reading.settimeout(0)
        writing.settimeout(0)
        calls = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        calls.settimeout(0)
        calls.bind(_address(home))
        before_fd = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        stack.callback(signal.set_wakeup_fd, before_fd)
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        yield Wakeups(reading, calls)


def call(home: Path) -> None:
    """Tell the schedule that runs on this home, if one does, to look again: its entries changed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        caller.settimeout(0)
        with contextlib.suppress(OSError):
            caller.sendto(b"!", _address(home))


def run(
    home: Path,
    *,
    once: bool,
    metrics_port: int | None,
    say: Callable[[str], None],
    command: Sequence[str] = COMMAND,
) -> None:
    """Run the schedule until SIGINT or SIGTERM; a run that is under way is then stopped, to be taken up later.

    Args:
        home: the home directory.
        once: deal with what is due now, send what is to be sent (for a minute, if need be), and return.
        metrics_port: where `/metrics` is served on loopback; None for nowhere, 0 for a free port.
        say: is told what happens, in sentences.
        command: stands for `infertune`.

    Raises:
        BusyError: another process runs this schedule.
        StorageError: the schedule cannot be used.
        UnavailableError: the port is taken.
    """
    with _working(home, command) as hands, contextlib.ExitStack() as stack:
        port = stack.enter_context(serving(home, hands.store, hands.outbox, metrics_port))
        if port is not None:
            say(f"Metrics: http://127.0.0.1:{port}/metrics")
        if once:
            hands.ticker(say).tick()
            hands.send()
            return
        courier = stack.enter_context(Courier(hands.outbox, failed=say))

        def told(sentence: str) -> None:
            courier.wake()
            say(sentence)

        ticker, pause = hands.ticker(told), hands.pause
        while not pause.stopping and ticker.tick():
            next_s = ticker.next_s()
            pause.wait(LONGEST_SLEEP_S if next_s is None else min(next_s - time.time(), LONGEST_SLEEP_S))


def look_once(home: Path, entry: Entry, *, say: Callable[[str], None], command: Sequence[str] = COMMAND) -> Run:
    """Look at one entry now, run it if there is a reason, and tell; for a timetable elsewhere, such as a CronJob.

    A run that was interrupted is taken up instead.

    Args:
        home: the home directory.
        entry: has no cron line.
        say: is told what happens, in sentences.
        command: stands for `infertune`.

    Returns:
        What became of it; its state is `begun` if somebody asked to stop.

    Raises:
        BusyError: a schedule works on this home.
        SpecError: the home has this entry on a schedule of its own.
        StorageError: the schedule cannot be used.
    """
    with _working(home, command) as hands:
        there = hands.store.entries().get(entry.id)
        if there is not None and there.cron is not None:
            raise SpecError(
                f"is on the schedule of this home already ({there.cron} {there.timezone}).",
                where=entry.target,
                fix=f"Run that: infertune schedule run --once; or take it off: infertune schedule remove {entry.id}",
            )
        hands.store.put([entry])
        hands.ticker(say).tick_one(entry)
        hands.send()
        latest = hands.store.latest(entry.id)
        assert latest is not None, "each look is on record"
        return latest


@dataclass(frozen=True)
class _Hands:
    """What a process needs to work on a schedule."""

    home: Path
    store: ScheduleStore
    outbox: Outbox
    timetable: Timetable
    pause: Wakeups
    command: Sequence[str]

    def ticker(self, say: Callable[[str], None]) -> Ticker:
        """Return what looks at entries, by the clock of this machine."""
        return Ticker(
            self.home,
            store=self.store,
            timetable=self.timetable,
            outbox=self.outbox,
            runs=Processes(self.home, self.pause, command=self.command),
            look=gather,
            clock=time.time,
            say=say,
        )

    def send(self) -> None:
        """Send what is to be sent; a webhook that is down is waited for, but not for long."""
        until = time.monotonic() + PATIENCE_S

        def wait(for_s: float) -> bool:
            left_s = until - time.monotonic()
            if for_s > left_s or self.pause.stopping:
                return False
            self.pause.wait(for_s)
            return not self.pause.stopping

        send_for(self.outbox, wait)


@contextlib.contextmanager
def _working(home: Path, command: Sequence[str]) -> Iterator[_Hands]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(held(home / LOCK, busy="a schedule runs on this home already."))
        store, outbox = ScheduleStore(home), Outbox(home / OUTBOX)
        timetable = stack.enter_context(open_timetable(home))
        pause = stack.enter_context(wakeups(home))
        yield _Hands(home, store, outbox, timetable, pause, command)


def _address(home: Path) -> str:
    """Return a name in Linux's abstract namespace: no file is left behind, and no path is too long."""
    return f"\0infertune-schedule-{digest_of(str(home))}"
