"""The chat without a model: a numbered menu over the same tools, for a person or a pipe.

It goes the way that a person goes: start a session, watch it, see the result, ask why and what if, compare, look at
traffic, scaling and plans, and be told how to approve. What it is about is chosen once, and kept.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from pydantic import ValidationError

from agent.chat.answers import Surroundings
from agent.chat.arguments import Arguments
from agent.chat.follow import follow
from agent.chat.plain import line, plain
from agent.chat.terminal import YES
from agent.chat.tools import TOOLS, call
from agent.sessions import folders
from tools.errors import InfertuneError
from tools.record import RESULT
from tools.report import format as fmt

Read: TypeAlias = Callable[[str], str | None]
Say: TypeAlias = Callable[[str], None]
Keep: TypeAlias = Callable[[str, Mapping[str, str], str], None]
"""Takes what was asked: a tool, its arguments, and what it answered."""

_ORDER = (
    "start_session",
    "watch_session",
    "show_result",
    "explain",
    "what_if",
    "compare_sessions",
    "describe_traffic",
    "show_scaling",
    "show_plans",
    "request_approval",
    "list_sessions",
    "stop_session",
)
"""The tools as the job goes. What can be started is listed where one is."""
_LATEST = 9
"""Sessions that are offered."""
_USUAL = ("p99_ms", "max_accuracy_drop", "price_per_hour_usd")
_MORE = ("max_memory_mb", "max_size_mb", "minimize", "rate_rps")
"""What is seldom changed in a question."""
_LEAVE = ("q", "quit", "exit")


_NONE_YET = f"There are no sessions yet: {_ORDER.index('start_session') + 1} starts one."


class _EndOfInputError(Exception):
    """There are no more lines: the pipe is empty, or the person closed it."""


def number_of(tool: str) -> int:
    """Return a tool's number in the menu."""
    return _ORDER.index(tool) + 1


class Menu:
    """A menu, and what it is about.

    Args:
        at: what the tools work on.
        read: asks with a prompt and returns a line; None at the end of the input.
        say: takes a line.
        keep: takes each question with its answer, for the history.
    """

    def __init__(self, at: Surroundings, read: Read, say: Say, keep: Keep = lambda *_: None) -> None:
        self._at = replace(at, confirm=self._confirm)
        self._read = read
        self._say = say
        self._keep = keep
        self._chosen: str | None = None
        self._steps: Mapping[str, Callable[[], None]] = {
            "start_session": self._start,
            "watch_session": self._watch,
            "explain": self._why,
            "what_if": self._what_if,
            "compare_sessions": self._compare,
            "show_plans": self._plans,
            "request_approval": self._approval,
            "list_sessions": self._sessions,
        }

    def run(self, *, once: bool = False) -> bool:
        """Offer the menu until the person leaves it, or with `once` until one thing was told.

        Returns:
            Whether there is more input.
        """
        self._show()
        try:
            while True:
                chosen = self._ask("number> ").lower()
                if chosen in _LEAVE:
                    return True
                if chosen in ("", "?", "menu", "help"):
                    self._show()
                elif not (chosen.isdecimal() and 1 <= int(chosen[:4]) <= len(_ORDER)):
                    self._say(f"That is no number from 1 to {len(_ORDER)}: an empty line shows them, q leaves.")
                else:
                    self._take(_ORDER[int(chosen) - 1])
                    if once:
                        return True
        except _EndOfInputError:
            return False

    def _show(self) -> None:
        about = self._session()
        self._say(f"About session {about}." if about else _NONE_YET)
        for place, tool in enumerate(_ORDER, 1):
            self._say(f"{place:>3}. {TOOLS[tool].title}")
        self._say("  q. Leave")

    def _take(self, tool: str) -> None:
        def plainly() -> None:
            self._tell(tool, self._about())

        if "session" in TOOLS[tool].arguments.model_fields and self._session() is None:
            self._say(_NONE_YET)
            return
        try:
            self._steps.get(tool, plainly)()
        except KeyboardInterrupt:
            self._say("\nBack in the menu.")

    # --- the steps that ask for something first, or go on after the answer ---

    def _start(self) -> None:
        workloads = list(self._at.workloads())
        workload = self._choose("workload", workloads, default=workloads[0])
        arguments = {"workload": workload, **self._fields("start_session", ("time_budget_s", "max_trials"))}
        answer = self._tell("start_session", arguments)
        session = answer.get("session")
        if session in [folder.name for folder in folders(self._at.home)]:
            self._chosen = session
            watch = number_of("watch_session")
            self._say(f"It runs in the background, also when you leave. {watch} watches it until it ends.")

    def _watch(self) -> None:
        answer = self._tell("watch_session", self._about())
        if answer.get("state") != "running":
            return
        self._say("What it finds from now on; Ctrl-C only stops watching:")
        try:
            follow(self._at.folder(answer["session"]), self._say)
        except InfertuneError as error:
            self._say(str(error))
            return
        self._say(f"It ended. {number_of('show_result')} shows the result.")

    def _why(self) -> None:
        content = self._call("explain", self._about())
        decisions = json.loads(content).get("answer", {}).get("decisions", [])
        if not decisions:
            self._print(content)
            return
        for decision in decisions:
            # `d07` is decision 7.
            number = decision["decision"].removeprefix("d").lstrip("0")
            self._say(f"{number:>5}. {line(decision['question'])} {line(decision['chosen'])}")
        while wanted := self._ask("  number of a decision, for its reason, options and evidence [back]: "):
            identity = f"d{int(wanted[:6]):02}" if wanted.isdecimal() else wanted
            self._tell("explain", {**self._about(), "decision": identity})

    def _what_if(self) -> None:
        self._say("  An empty line leaves a thing as the session had it.")
        changes = self._fields("what_if", _USUAL)
        if self._ask("  also memory, size, what is minimized, the rate? [no]: ").lower() in YES:
            changes |= self._fields("what_if", _MORE)
        self._tell("what_if", {**self._about(), **changes})

    def _compare(self) -> None:
        done = [folder.name for folder in folders(self._at.home) if (folder / RESULT).exists()][-_LATEST:]
        pair = {}
        if len(done) > 2:
            pair["first"] = self._choose("first", done, default=done[-2])
            pair["second"] = self._choose("second", done, default=done[-1], shown=False)
        self._tell("compare_sessions", pair)

    def _plans(self) -> None:
        digest = self._choose_plan()
        self._tell("show_plans", {} if digest is None else {"plan": digest})

    def _approval(self) -> None:
        digest = self._choose_plan("proposed", "approved")
        self._tell("request_approval", {} if digest is None else {"plan": digest})

    def _choose_plan(self, *states: str) -> str | None:
        """Return the plan in one of these states, of several the one that the person chooses; None if there is none."""
        listed = json.loads(self._call("show_plans", {})).get("answer", {}).get("plans", [])
        plans = [plan for plan in listed if not states or plan["state"] in states]
        if len(plans) < 2:
            return plans[0]["plan"] if plans else None
        known = {plan["plan"]: f"{plan['plan']}  {plan['state']}, of session {plan['session']}" for plan in plans}
        return self._choose("plan", list(known), default=plans[-1]["plan"], titles=known)

    def _sessions(self) -> None:
        content = self._call("list_sessions", {})
        sessions = json.loads(content).get("answer", {}).get("sessions", [])[-_LATEST:]
        if not sessions:
            self._print(content)
            return
        titles = {
            told["session"]: line("  ".join(filter(None, map(told.get, ("session", "workload", "state", "verdict")))))
            for told in sessions
        }
        self._chosen = self._choose("session to talk about", list(titles), default=self._session(), titles=titles)

    # --- asking a person, and tools ---

    def _session(self) -> str | None:
        known = folders(self._at.home)
        return self._chosen or self._at.session or (known[-1].name if known else None)

    def _about(self) -> dict[str, str]:
        session = self._session()
        return {} if session is None else {"session": session}

    def _ask(self, prompt: str) -> str:
        answer = self._read(prompt)
        if answer is None:
            raise _EndOfInputError
        return answer.strip()

    def _confirm(self, question: str) -> bool:
        """Ask once more: the person chose it by a number, so an empty line is a yes."""
        return self._ask(f"  {question} [yes]: ").lower() in ("", *YES)

    def _choose(
        self,
        what: str,
        choices: Sequence[str],
        *,
        default: str | None,
        titles: Mapping[str, str] | None = None,
        shown: bool = True,
    ) -> str:
        """Return one of several, by its number or as it is written; an empty line is the default."""
        if shown:
            for place, choice in enumerate(choices, 1):
                self._say(f"  {place}. {choice if titles is None else titles[choice]}")
        while True:
            answer = self._ask(f"  {what} [{default}]: ") or default or ""
            if answer.isdecimal() and 1 <= int(answer[:4]) <= len(choices):
                return choices[int(answer) - 1]
            if answer in choices or answer == default:
                return answer
            self._say(f"  Choose a number from 1 to {len(choices)}.")

    def _fields(self, tool: str, names: Sequence[str]) -> dict[str, str]:
        """Return the arguments that the person gives for a tool, each such that the tool accepts it."""
        model = TOOLS[tool].arguments
        given = {}
        for name in names:
            field = model.model_fields[name]
            usual = "unchanged" if field.default is None and tool == "what_if" else _usual(field.default)
            while True:
                value = self._ask(f"  {fmt.label(name)}: {field.description}{_words(model, name)} [{usual}]: ")
                wrong = _wrong(model, name, value)
                if wrong is None:
                    break
                self._say(f"  {wrong}")
            if value:
                given[name] = value
        return given

    def _call(self, tool: str, arguments: Mapping[str, str]) -> str:
        return call(self._at, tool, dict(arguments), f"menu:{secrets.token_hex(8)}")

    def _tell(self, tool: str, arguments: Mapping[str, str]) -> dict[str, Any]:
        """Run a tool, say and keep what it answers, and return that; empty if it had a problem."""
        content = self._call(tool, arguments)
        self._print(content)
        self._keep(tool, arguments, content)
        answer: dict[str, Any] = json.loads(content).get("answer", {})
        return answer

    def _print(self, content: str) -> None:
        for told in plain(content):
            self._say(told)


def _words(model: type[Arguments], name: str) -> str:
    """Return the words that an argument is one of, to be appended to what it is; empty if it is something else."""
    kinds = model.model_json_schema()["properties"][name].get("anyOf", ())
    words = [word for kind in kinds for word in kind.get("enum", ())]
    return f" ({', '.join(words)})" if words else ""


def _usual(value: float | None) -> str:
    return "no limit" if value is None else f"{value:g}"


def _wrong(model: type[Arguments], name: str, value: str) -> str | None:
    """Say what is wrong with a value, None if nothing is."""
    if not value:
        return None
    try:
        model.model_validate({name: value})  # others that are missing are not this one's fault
    except ValidationError as error:
        problem = next((p for p in error.errors(include_url=False) if name in p["loc"]), None)
        return None if problem is None else f"{problem['msg']}."
    return None
