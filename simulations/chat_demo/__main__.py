"""`python -m simulations.chat_demo`: the transcript of a chat that tunes a workload and offers its autoscaler a change.

The chat is that of `infertune chat`, over real HTTP. There is no language model: a script stands in for it, which words
what the tools answered. With `--no-model` the same is done by the menu. What a chat cannot do, a person does in
processes of their own: approve the plan, and have it carried out.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent.chat import background
from agent.chat.loop import converse, settings_from, surroundings
from agent.chat.menu import number_of
from agent.sessions import folders
from simulations.chat_demo.person import MARK, Line, Person
from simulations.chat_demo.place import Size, write_spec
from simulations.chat_demo.place import surroundings as traffic_and_cluster
from simulations.chat_demo.script import ASKED_P99_MS, PRICE_USD, script
from simulations.openai_server import OpenAIServer
from tools.cluster.store import PlanStore
from tools.errors import InfertuneError
from tools.evidence import EVIDENCE, EvidenceStore
from tools.record import RESULT, read_record
from tools.result import SessionResult
from tools.tracking.session import read_result

BY_SCRIPT = (
    "There is no language model here: a script answers in its place, over HTTP, with words of its own and the figures "
    "of the tools."
)
BY_MENU = "There is no language model here, and nothing in its place: the person uses the menu."
WAIT_S = 600.0
"""A session that did not end by then will not."""

Write = Callable[[str], None]


def main() -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-model", action="store_true", help="by the menu, as without a model")
    by_menu: bool = parser.parse_args().no_model
    with tempfile.TemporaryDirectory(prefix="infertune-demo-") as folder:
        try:
            demonstrate(Path(folder), _to_stdout, by_menu=by_menu)
        except InfertuneError as error:
            sys.stderr.write(f"infertune: {error}\n")
            return 2
    return 0


def demonstrate(folder: Path, write: Write, *, by_menu: bool, size: Size | None = None) -> None:
    """Hold the conversation, and write its transcript.

    Args:
        folder: for everything that it leaves; `home` in it may hold evidence already.
        write: takes the transcript's text.
        by_menu: without anything that speaks.
        size: of it all.

    Raises:
        InfertuneError: Prometheus is not installed, or a step ended otherwise than it should.
    """
    write(f"{BY_MENU if by_menu else BY_SCRIPT}\n{MARK} marks what the person typed, # what happens around the chat.\n")
    with contextlib.ExitStack() as stack:
        demo = _Demo(folder, write, size or Size(), stack)
        demo.hold(by_menu=by_menu)


class _Demo:
    """What happens around the chat, and what the person types because of it."""

    def __init__(self, folder: Path, write: Write, size: Size, stack: contextlib.ExitStack) -> None:
        self._home = folder / "home"
        self._home.mkdir(parents=True, exist_ok=True)
        self._spec = folder / "tuning.yaml"
        self._write = write
        self._size = size
        self._stack = stack
        self._evidence = 0
        stack.callback(self._stop_what_runs)

    def hold(self, *, by_menu: bool) -> None:
        """Talk."""
        write_spec(self._spec, self._home, self._size)
        at = surroundings(self._home, str(self._spec))
        url = None
        if not by_menu:
            server = OpenAIServer(script(self._size.time_budget_s, self._size.max_trials))
            url = self._stack.enter_context(server).url
        settings, missing = settings_from(None if by_menu else "scripted", url, None, 60.0)
        person = Person(self._by_menu() if by_menu else self._by_words(), self._write)
        if missing is not None:
            person.terminal.say(missing)
        converse(at, "demo", settings, person.terminal, limit_tokens=10**6)

    # --- what the person types ---

    def _by_words(self) -> Iterator[Line]:
        yield "Please optimize my workload."
        yield "yes"
        yield lambda: self._after(self._wait_a_little, "How far is it?")
        yield lambda: self._after(self._wait, "And how did it end?")
        yield "Why that one?"
        yield lambda: self._after(
            self._count, f"What if p99 had to be {ASKED_P99_MS:g} ms at most, and a replica cost ${PRICE_USD} an hour?"
        )
        yield lambda: self._after(
            self._count_again, self._connect, "Traffic and cluster are in the spec now: go again, please."
        )
        yield "yes"
        yield lambda: self._after(self._wait, "Is the second one any different?")
        yield "What does the traffic look like?"
        yield "And how should it be scaled?"
        yield "Is there a plan to do that?"
        yield "Good. Approve it!"
        yield lambda: self._after(self._approve, "Where does the plan stand now?")
        yield "quit"

    def _by_menu(self) -> Iterator[Line]:
        start = [self._number("start_session"), "", f"{self._size.time_budget_s:g}", str(self._size.max_trials), ""]
        yield from start
        yield self._number("watch_session")
        yield self._number("show_result")
        yield self._number("explain")
        yield self._last_choice
        yield ""
        yield lambda: self._after(self._wait, self._count, self._number("what_if"))
        yield from (f"{ASKED_P99_MS:g}", "", f"{PRICE_USD:g}", "")
        yield lambda: self._after(self._count_again, self._connect, start[0])
        yield from start[1:]
        for tool in ("watch_session", "compare_sessions", "describe_traffic", "show_scaling", "show_plans"):
            yield self._number(tool)
        yield self._number("request_approval")
        yield lambda: self._after(self._wait, self._approve, self._number("show_plans"))
        yield "q"

    @staticmethod
    def _number(tool: str) -> str:
        return str(number_of(tool))

    def _last_choice(self) -> str:
        """Return the number of the last decision that chose a configuration."""
        decided = read_record(folders(self._home)[-1]).decisions
        nodes = ("runtime_evaluation", "batch_tuning", "confirmation")
        return next((d.id.removeprefix("d") for d in reversed(decided) if d.node in nodes), "1")

    # --- what happens around the chat ---

    @staticmethod
    def _after(*steps: Callable[[], None] | str) -> str:
        *first, typed = steps
        for step in first:
            assert not isinstance(step, str), "only the last one is typed"
            step()
        assert isinstance(typed, str), "it is typed"
        return typed

    def _say(self, text: str) -> None:
        self._write(f"# {text}\n")

    def _wait_a_little(self) -> None:
        folder, end = folders(self._home)[-1], time.monotonic() + self._size.time_budget_s
        while time.monotonic() < end and not (read_record(folder).decisions or (folder / RESULT).exists()):
            time.sleep(0.1)

    def _wait(self) -> None:
        """Wait until the session that the chat started has ended, its process included."""
        self._write("\n")
        self._say("The person waits for the session to end.")
        end = time.monotonic() + WAIT_S
        while background.is_running(self._home):
            if time.monotonic() > end:
                raise InfertuneError(f"the session did not end within {WAIT_S:g} s.", where="the demonstration")
            time.sleep(0.1)

    def _count(self) -> None:
        self._evidence = _measurements(self._home)

    def _count_again(self) -> None:
        now = _measurements(self._home)
        ran = "a session runs" if background.is_running(self._home) else "no session runs"
        self._write("\n")
        self._say(f"Measurements in the store before the question: {self._evidence}, after the answer: {now}; {ran}.")

    def _connect(self) -> None:
        measured = self._result()
        if measured.best is None:
            raise InfertuneError(f"the model could not be tuned here: {measured.summary}", where="the demonstration")
        self._stack.enter_context(traffic_and_cluster(self._spec, measured, self._size))
        days = self._size.days
        self._say(f"{days} days of its traffic are in a real Prometheus now; a stand-in for the API server has an HPA.")

    def _result(self) -> SessionResult:
        done = [folder for folder in folders(self._home) if (folder / RESULT).exists()]
        if not done:
            raise InfertuneError("the session has no result.", where="the demonstration")
        return read_result(done[-1] / RESULT)

    def _approve(self) -> None:
        """Do what only a person can: in processes that have nothing to do with the chat."""
        plans = PlanStore(self._home).plans()
        if not plans:
            raise InfertuneError(f"no plan was offered: {' '.join(self._result().notes)}", where="the demonstration")
        self._write("\n")
        self._say("In another terminal, the person:")
        self._run("plan", "approve", plans[-1].digest, "--by", "Ada Demo")
        self._run("plan", "apply", plans[-1].digest)

    def _run(self, *arguments: str) -> None:
        self._say(f"$ infertune {shlex.join(arguments)}")
        command = [sys.executable, "-m", "agent.cli", *arguments, "--home", str(self._home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            self._say(line)
        if done.returncode:
            raise InfertuneError(
                f"`infertune {arguments[0]} {arguments[1]}` ended with {done.returncode}: {done.stderr.strip()[-600:]}",
                where="the demonstration",
            )

    def _stop_what_runs(self) -> None:
        """End a session that still runs, should the demonstration have failed."""
        for folder in folders(self._home):
            background.stop(self._home, folder.name)
        end = time.monotonic() + WAIT_S
        while background.is_running(self._home) and time.monotonic() < end:
            time.sleep(0.1)


def _measurements(home: Path) -> int:
    """Return how many measurements the store has."""
    return len(EvidenceStore(home / EVIDENCE).rows())


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
