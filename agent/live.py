"""A running session in the terminal: a live view, and its plain twin for logs and pipes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from tools.observer import Observer, Silent
from tools.report import format as fmt

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderResult

REFRESH_PER_SECOND = 2
"""Measurements run on the same cores: the view has to cost next to nothing."""

HINT = "Ctrl-C stops and keeps the best so far"

_KEPT = 64
_LONG_S = 30.0
_SHORTEST_DETAIL = 8
"""With fewer columns than this, nothing is said about what runs beside its name."""
_OUTCOME_STYLES = {"measured": "green", "finished": "green", "unstable": "yellow", "cached": "dim green"}


def observer_for(console: Console, *, workload: str, silent: bool = False) -> Observer:
    """Return the view that fits the console: live on a terminal, plain lines elsewhere, or none.

    Args:
        console: where to show it.
        workload: name of the workload.
        silent: show nothing, because standard output is for a machine.
    """
    if silent:
        return Silent()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console, workload=workload)
    return PlainLog(console)


def describe(message: dict[str, Any]) -> str:
    """Return what a task's event says, in words: `epoch 2 of 6, loss 0.3`, `calibrating`, `batch 8, p50 3.90 ms`."""
    if "stage" in message:
        return _text(message["stage"])
    details = {k: v for k, v in message.items() if k not in ("event", "epochs")}
    parts = []
    for name, value in details.items():
        if not isinstance(value, str | int | float | bool | None):
            continue
        if name == "epoch" and "epochs" in message:
            parts.append(f"epoch {_text(value)} of {_text(message['epochs'])}")
        elif name == "batch_size":
            parts.append(f"batch {_text(value)}")
        else:
            parts.append(f"{fmt.label(name)} {fmt.quantity(name, value)}")
    return ", ".join(parts) or _text(message.get("event", ""))


@dataclass(frozen=True)
class _Finished:
    what: str
    outcome: str
    headline: str
    seconds: float


@dataclass(frozen=True, eq=False)
class _Running:
    what: str
    detail: str
    since: float
    expected_s: float | None


class PlainLog:
    """One line for each thing that finished or was found, as it happens, and for the start of what takes long."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: `console` to print on; `clock` in seconds, for the time at the start of each line."""
        self._console = console
        self._clock = clock
        self._began = clock()

    def __enter__(self) -> Self:
        self._began = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def about(self, *, objective: str, budget_s: float) -> None:
        """Print what was asked for."""
        self._line(f"{objective}; time budget {fmt.seconds(budget_s)}")

    def started(self, what: str, *, detail: str = "", expected_s: float | None = None) -> None:
        """Say what takes long, so that a quiet log is no riddle."""
        if expected_s is not None and expected_s >= _LONG_S:
            about = f"{what} ({detail})" if detail else what
            self._line(f"{about}: started, takes about {fmt.seconds(expected_s)}")

    def event(self, message: dict[str, Any]) -> None:
        """Show nothing: a log is read later."""

    def finished(self, what: str, *, outcome: str, headline: str, seconds: float) -> None:
        """Print what finished."""
        outcome = outcome.replace("_", " ")
        self._line(f"{what}: {outcome}{', ' if headline else ''}{headline} ({fmt.seconds(seconds)})")

    def finding(self, sentence: str) -> None:
        """Print what was found."""
        self._line(sentence)

    def budget(self, elapsed_s: float, limit_s: float) -> None:
        """Show nothing: each line has its time."""

    def _line(self, text: str) -> None:
        stamp = f"[{self._clock() - self._began:7.1f} s] "
        self._console.print(stamp + fmt.clean(text), soft_wrap=True, markup=False, highlight=False, emoji=False)


class LiveView:
    """What runs now, what came out of the last trials, what was found, and how much time is left.

    It never grows beyond the terminal, and redraws by itself, at most `REFRESH_PER_SECOND` times a second.
    """

    def __init__(
        self,
        console: Console,
        *,
        workload: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: as in `observer_for`; `clock` in seconds."""
        self._workload = fmt.clean(workload)
        self._objective = ""
        self._clock = clock
        self._began = clock()
        self._limit_s: float | None = None
        self._budget_seen = (0.0, self._began)
        self._running: list[_Running] = []
        self._doing = ""
        self._finished: deque[_Finished] = deque(maxlen=_KEPT)
        self._count = 0
        self._findings: deque[str] = deque(maxlen=_KEPT)
        self._over = False
        self._lock = threading.Lock()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=console,
            get_renderable=lambda: self,
            refresh_per_second=REFRESH_PER_SECOND,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._began = self._clock()
        self._budget_seen = (0.0, self._began)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
        self._live.stop()

    def about(self, *, objective: str, budget_s: float) -> None:
        """Put the objective into the header, and start the countdown: what was trained before does not count."""
        with self._lock:
            self._objective = fmt.clean(objective)
            self._limit_s = budget_s
            self._budget_seen = (0.0, self._clock())

    def started(self, what: str, *, detail: str = "", expected_s: float | None = None) -> None:
        """Show what runs now. What ran before is shown again when this has finished: a trial builds first."""
        with self._lock:
            self._running.append(_Running(fmt.clean(what), fmt.clean(detail), self._clock(), expected_s))
            self._doing = ""

    def event(self, message: dict[str, Any]) -> None:
        """Show what the running task is doing."""
        with self._lock:
            self._doing = describe(message)

    def finished(self, what: str, *, outcome: str, headline: str, seconds: float) -> None:
        """Add to the list of what finished."""
        with self._lock:
            self._finished.append(_Finished(fmt.clean(what), outcome, fmt.clean(headline), seconds))
            self._count += 1
            ended = next((r for r in reversed(self._running) if r.what == fmt.clean(what)), None)
            if ended is not None:
                self._running.remove(ended)
                self._doing = ""

    def finding(self, sentence: str) -> None:
        """Add to the list of findings."""
        with self._lock:
            self._findings.append(fmt.clean(sentence))

    def budget(self, elapsed_s: float, limit_s: float) -> None:
        """Show how much time is left, from here on by the clock."""
        with self._lock:
            self._budget_seen = (elapsed_s, self._clock())
            self._limit_s = limit_s

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            lines = self._lines(options.max_width, console.size.height - 1)
        for line in lines:
            line.truncate(options.max_width, overflow="ellipsis")
            line.no_wrap = True
            yield line

    def _lines(self, width: int, height: int) -> list[Text]:
        """Compose at most `height` lines; the lists get what the fixed lines leave over."""
        head = [Text.assemble((self._workload, "bold"), ("  " + self._objective, "dim"))]
        now = [] if self._over else [Text(), *self._current(width)]
        foot = [] if self._over else [Text(), self._footer()]
        room = height - len(head) - len(now) - len(foot)
        findings_room = max(min(len(self._findings), (room - 4) // 3), 0)
        trials_room = max(room - 2 - (findings_room + 2 if findings_room else 0), 0)
        body: list[Text] = []
        if self._finished and trials_room:
            body += [Text(), self._heading("Finished", self._count, min(trials_room, len(self._finished)))]
            shown = list(self._finished)[-trials_room:]
            longest = max(len(f.what) for f in shown) + 2
            body += [self._row(f, width, min(longest, width // 2)) for f in shown]
        if findings_room:
            body += [Text(), Text("Found", style="bold")]
            body += [Text("  " + sentence) for sentence in list(self._findings)[-findings_room:]]
        return [*head, *now, *body, *foot][: max(height, 1)]

    def _heading(self, title: str, total: int, shown: int) -> Text:
        more = f"  the last {shown} of {total}" if total > shown else ""
        return Text.assemble((title, "bold"), (more, "dim"))

    def _current(self, width: int) -> list[Text]:
        if not self._running:
            return [Text("  between trials", style="dim"), Text()]
        running = self._running[-1]
        spinner = self._spinner.render(self._clock())
        elapsed = fmt.seconds(self._clock() - running.since)
        if running.expected_s is not None:
            elapsed += f" of about {fmt.seconds(running.expected_s)}"
        name = fmt.squeeze(running.what, width - len(elapsed) - 4)
        first = Text.assemble(spinner if isinstance(spinner, Text) else "", " ", (name, "bold cyan"))
        outer = self._running[-2].what if len(self._running) > 1 else ""
        detail = running.detail or (f"for {outer}" if outer else "")
        room = width - len(elapsed) - first.cell_len - 4
        if detail and room > _SHORTEST_DETAIL:
            first.append("  " + fmt.squeeze(detail, room), style="dim")
        first.truncate(max(width - len(elapsed) - 2, 1), overflow="ellipsis", pad=True)
        first.append("  " + elapsed, style="cyan")
        return [first, Text("  " + self._doing, style="dim")]

    def _row(self, finished: _Finished, width: int, name_width: int) -> Text:
        took = fmt.seconds(finished.seconds).rjust(12)
        outcome = finished.outcome.replace("_", " ")
        name = Text("  " + fmt.squeeze(finished.what, name_width - 2))
        name.truncate(name_width, overflow="ellipsis", pad=True)
        style = _OUTCOME_STYLES.get(finished.outcome, "red")
        shown = finished.headline if finished.outcome == "measured" and finished.headline else ""
        middle = Text(shown) if shown else Text.assemble((outcome, style), "  ", (finished.headline, "dim"))
        middle.truncate(max(width - name_width - len(took) - 2, 1), overflow="ellipsis", pad=True)
        return Text.assemble(name, "  ", middle, (took, "dim"))

    def _footer(self) -> Text:
        if self._limit_s is None:
            return Text(f"{fmt.seconds(self._clock() - self._began)}   {HINT}", style="dim")
        elapsed_s, seen = self._budget_seen
        left_s = max(self._limit_s - elapsed_s - (self._clock() - seen), 0.0)
        return Text.assemble(f"{fmt.seconds(left_s)} left", (f" of {fmt.seconds(self._limit_s)}   {HINT}", "dim"))


def _text(value: Any) -> str:
    return fmt.clean(str(value))
