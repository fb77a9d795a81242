"""The conversation: a line from the person, a turn of the graph, the answer as it comes; or the menu, with no model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.chat.answers import Surroundings
from agent.chat.graph import STATE_VERSION, Chat
from agent.chat.history import opened
from agent.chat.ladder import Rung, probe
from agent.chat.menu import Menu
from agent.chat.model import LONGEST_S, Endpoint, EndpointError, Settings, Usage, storable
from agent.chat.terminal import Terminal
from agent.chat.thread import Thread
from agent.endpoint import BASE_URL, KEY, MODEL, is_base_url
from tools.errors import InfertuneError

LONGEST_LINE = 8_000
"""Characters that a person may say at once."""
_HELP = "Ask in your own words. `menu` shows what there is, `quit` leaves; Ctrl-C stops an answer."


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in USD."""

    tokens_in: float
    tokens_out: float

    def cost_usd(self, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


def read_prices(text: str) -> Prices:
    """Read `IN:OUT`, both in USD per million tokens.

    Raises:
        InfertuneError: it is something else.
    """
    with contextlib.suppress(ValueError, TypeError):
        prices = Prices(*map(float, text.split(":")))
        if all(0 <= price < 1e6 for price in (prices.tokens_in, prices.tokens_out)):
            return prices
    raise InfertuneError(
        "is no pair of prices.", where=f"--price-per-million {text[:40]!r}", fix="Give IN:OUT, such as 0.15:0.60."
    )


def converse(
    at: Surroundings,
    thread: str,
    settings: Settings | None,
    terminal: Terminal,
    *,
    limit_tokens: int,
    prices: Prices | None = None,
) -> None:
    """Hold a conversation until the person leaves.

    Args:
        at: what the tools work on.
        thread: name of the conversation, which goes on where it ended.
        settings: of the endpoint; None for the menu alone.
        terminal: where the person is.
        limit_tokens: that this thread may take in all.
        prices: of tokens, to say what it cost.

    Raises:
        InfertuneError: another chat has the thread open, or the history cannot be used.
    """
    at = replace(at, confirm=terminal.confirm)
    with contextlib.ExitStack() as stack:
        kept = Thread(stack.enter_context(opened(at.home, thread)), thread)
        rung, endpoint = Rung.NONE, None
        took: list[Usage] = []
        if settings is not None:
            endpoint = stack.enter_context(Endpoint(settings))
            try:
                rung, took = probe(endpoint)
            except EndpointError as error:
                terminal.say(f"{error}")
        if endpoint is not None and rung is not Rung.NONE:
            chat = Chat(endpoint, rung, at, thread, terminal.show, terminal.say, limit_tokens)
            _Conversation(kept, chat, terminal, prices, took).hold()
        else:
            if endpoint is not None:
                terminal.say("So there is no model to talk to; here is what there is without one.")
            if kept.questions:
                terminal.say(f"Thread {thread} goes on; questions so far: {kept.questions}.")
            Menu(at, terminal.read, terminal.say, kept.keep).run()


class _Conversation:
    """The turns of one thread."""

    def __init__(self, kept: Thread, chat: Chat, terminal: Terminal, prices: Prices | None, took: list[Usage]) -> None:
        self._kept = kept
        self._chat = chat
        self._terminal = terminal
        self._prices = prices
        self._took = took
        """By trying out what the model can do; counted with the first turn."""
        self._menu = Menu(chat.surroundings, terminal.read, terminal.say, kept.keep)

    def hold(self) -> None:
        """Talk until the person leaves."""
        rung = self._chat.rung
        how = "" if rung is Rung.NATIVE else f" It cannot call tools, so it is asked by way of {rung.value}."
        self._terminal.say(f"Thread {self._chat.thread}, {self._chat.endpoint.settings.place}.{how} {_HELP}")
        if self._kept.was_cut_off:
            self._terminal.say("The last turn was cut off; it goes on.")
            self._turn(None)
        elif self._kept.questions:
            self._terminal.say(f"It goes on where it ended; questions so far: {self._kept.questions}.")
        while True:
            try:
                line = self._terminal.read("you> ")
            except KeyboardInterrupt:
                line = None
            if line is None or line.strip().lower() in ("quit", "exit", "q"):
                self._terminal.say("")
                return
            said = storable(line.strip()[:LONGEST_LINE])
            if said and not (self._menu.run() if said.lower() == "menu" else self._turn(said)):
                return

    def _turn(self, said: str | None) -> bool:
        """Take a turn, or with None the rest of one that was cut off; return whether there is more input."""
        given: Any = None
        if said is not None:
            given = {
                "schema_version": STATE_VERSION,
                "messages": [{"role": "user", "content": said}],
                "rounds": 0,
                "asked_again": False,
                "tokens_in": sum(usage.tokens_in for usage in self._took),
                "tokens_out": sum(usage.tokens_out for usage in self._took),
                "estimated": any(usage.estimated for usage in self._took),
            }
        try:
            self._kept.take_turn(given, self._chat)
            if given is not None:
                self._took = []
        except KeyboardInterrupt:
            self._kept.add({"role": "trouble", "content": "You stopped it.", "menu": False})
        self._terminal.end_line()
        values = self._kept.values
        latest = values["messages"][-1]
        if latest["role"] == "trouble":
            self._terminal.say(latest["content"])
        self._terminal.say(self._tokens(values))
        return self._menu.run(once=True) if latest.get("menu") else True

    def _tokens(self, values: Mapping[str, Any]) -> str:
        """Say what the thread took so far."""
        tokens_in, tokens_out = values.get("tokens_in", 0), values.get("tokens_out", 0)
        about = "about " if values.get("estimated") else ""
        why = ", partly estimated: the endpoint does not count them all" if about else ""
        cost = "" if self._prices is None else f", {about}${self._prices.cost_usd(tokens_in, tokens_out):.4f}"
        return f"[{about}{tokens_in:,} tokens in, {tokens_out:,} out in this thread{cost}{why}]"


def settings_from(
    model: str | None, base_url: str | None, key: str | None, timeout_s: float
) -> tuple[Settings | None, str | None]:
    """Return the settings of an endpoint; or None, and the sentence that says what is missing.

    Raises:
        InfertuneError: the base URL is none.
    """
    if not model or not (base_url or key):
        wanted = MODEL if base_url or key else f"{KEY} or {BASE_URL}, and {MODEL}"
        return None, f"No model is configured (set {wanted}), so here is a menu of what the chat can tell."
    if base_url is not None and not is_base_url(base_url):
        raise InfertuneError("is no URL of an endpoint.", where=BASE_URL, fix="Such as http://localhost:8000/v1")
    return Settings(model, base_url, key or None, timeout_s, longest_s=max(LONGEST_S, timeout_s)), None


def surroundings(home: Path, about: str | None) -> Surroundings:
    """Return what a chat about a session, a workload, or nothing in particular works on.

    Raises:
        InfertuneError: there is nothing of that name.
    """
    from agent.sessions import find, folders
    from tools.workloads.bundled import BUNDLED

    if about is None:
        return Surroundings(home)
    if about in BUNDLED or Path(about).suffix in (".yaml", ".yml"):
        from agent.loading import read_spec

        read_spec(about)
        target = about if about in BUNDLED else str(Path(about).resolve())
        return Surroundings(home, session=_latest_of(folders(home), target), target=target)
    return Surroundings(home, session=find(home, about).name)


def _latest_of(known: list[Path], target: str) -> str | None:
    """Return the latest session that optimized a target."""
    from tools.record import read_record

    for folder in reversed(known):
        try:
            if read_record(folder).started.target == target:
                return folder.name
        except InfertuneError:
            continue
    return None
