"""One turn of the chat as a graph: the model speaks, tools answer, figures are checked. Every step is kept.

`model -> tools -> model` goes round until the model speaks instead of asking; `check` then sends it back once if a
figure in its answer comes from no tool.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from agent.chat.answers import Surroundings
from agent.chat.fenced import identity
from agent.chat.guard import Known, Stream, marked, unverified
from agent.chat.ladder import Message, Rung, request, understood
from agent.chat.model import CHARACTERS_A_TOKEN, Endpoint, EndpointError, Reply, Show, estimate
from agent.chat.plain import clean, plain
from agent.chat.said import Said
from agent.chat.tools import TOOLS, call

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

MOST_ROUNDS = 8
"""Times that tools are asked for in one turn; then the model has to answer."""
MOST_CALLS = 5
"""Calls at once."""
STATE_VERSION = 1

Update: TypeAlias = dict[str, Any]


class ChatState(TypedDict, total=False):
    """A conversation."""

    schema_version: int
    messages: Annotated[list[Message], operator.add]
    tokens_in: Annotated[int, operator.add]
    tokens_out: Annotated[int, operator.add]
    estimated: Annotated[bool, operator.or_]
    """Whether some of the tokens were not counted by the endpoint."""
    rounds: int
    """Times that tools were asked for since the person spoke."""
    asked_again: bool
    """Whether the answer to the person is asked for a second time."""


@dataclass
class Chat:
    """What the nodes work with; not kept."""

    endpoint: Endpoint
    rung: Rung
    surroundings: Surroundings
    thread: str
    show: Show
    """Takes the model's text as it comes."""
    say: Callable[[str], None]
    """Takes a line of ours."""
    limit_tokens: int
    """No request is sent beyond it; of all that the thread took."""
    known: Known = field(default_factory=Known)
    _taken: int = 0

    @property
    def about(self) -> str:
        """What the chat is about, for the model."""
        session = self.surroundings.session
        if session is None:
            return "The chat is about the latest session."
        return f"The chat is about session {identity(session)}."

    def figures(self, messages: list[Message]) -> Known:
        """Return the figures that tools returned in this conversation."""
        for message in messages[self._taken :]:
            if message["role"] == "tool":
                self.known.add(message["content"])
        self._taken = len(messages)
        return self.known


Graph: TypeAlias = "CompiledStateGraph[ChatState, Chat, ChatState, ChatState]"


def build_graph() -> StateGraph[ChatState, Chat]:
    """Return the graph of a turn."""
    graph = StateGraph(ChatState, context_schema=Chat)
    graph.add_node("model", model)
    graph.add_node("tools", tools)
    graph.add_node("check", check)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", _after_model, ["tools", "check", "model", END])
    graph.add_conditional_edges("tools", _after_tools, ["model", END])
    graph.add_conditional_edges("check", _after_check, ["model", END])
    return graph


def model(state: ChatState, runtime: Runtime[Chat]) -> Update:
    """Ask the model, and show what it says as far as its figures are known."""
    chat = runtime.context
    messages = state["messages"]
    again = state.get("asked_again", False)
    last = state.get("rounds", 0) >= MOST_ROUNDS
    sent = request(messages, chat.rung, about=chat.about, last=last)
    needed = estimate(sent["messages"], sent.get("tools", ()))
    if state.get("tokens_in", 0) + state.get("tokens_out", 0) + needed > chat.limit_tokens:
        return _trouble(f"The limit of {chat.limit_tokens:,} tokens is reached: raise it with --max-tokens.")
    stream = Stream(chat.figures(messages), stop=not again)
    said = Said()
    try:
        reply = chat.endpoint.ask(**sent, show=_shown(stream, said, chat))
    except EndpointError as error:
        lost = {"tokens_in": needed, "tokens_out": len(stream.text) // CHARACTERS_A_TOKEN} if stream.text else {}
        return {**_trouble(str(error)), **lost, "estimated": bool(lost)}
    took = {
        "tokens_in": reply.usage.tokens_in,
        "tokens_out": reply.usage.tokens_out,
        "estimated": reply.usage.estimated,
    }
    return {**_answer(reply, chat, stream, said, again=again, last=last), **took}


def tools(state: ChatState, runtime: Runtime[Chat]) -> Update:
    """Run the tools that the model asked for."""
    chat = runtime.context
    asked = state["messages"][-1]["calls"]
    place = len(state["messages"])
    answers: list[Message] = []
    for number, wanted in enumerate(asked[:MOST_CALLS]):
        known = TOOLS.get(wanted["tool"])
        chat.say(f"[{known.title if known else clean(wanted['tool'])[:40]}]")
        # The same when the turn is taken up after a crash, so that nothing is started twice.
        identity = f"{chat.thread}:{place}:{number}"
        content = call(chat.surroundings, wanted["tool"], json.loads(wanted["arguments"]), identity)
        answers.append({"role": "tool", "identity": wanted["identity"], "tool": wanted["tool"], "content": content})
        if chat.rung is Rung.NUMBERS:
            for line in plain(content):
                chat.say(line)
    return {"messages": answers, "rounds": state.get("rounds", 0) + 1}


def check(state: ChatState, runtime: Runtime[Chat]) -> Update:
    """Have an answer that holds unverified figures given once more, with these named."""
    if state.get("asked_again", False):
        return {}  # they are struck out
    text = state["messages"][-1]["content"]
    bad = unverified(text, runtime.context.figures(state["messages"]))
    if not bad:
        return {}
    names = ", ".join(dict.fromkeys(figure.text for figure in bad))
    runtime.context.say(f"[It stated what no tool returned ({clean(names)[:120]}), and is asked again.]")
    told = (
        f"No tool returned these figures in this conversation: {names}. Answer the person again: get each figure from "
        "a tool and quote it as it stands there, or leave it out."
    )
    return {"messages": [{"role": "note", "content": told}], "asked_again": True}


def _shown(stream: Stream, said: Said, chat: Chat) -> Show | None:
    """Return what shows a reply as it comes; None where it is a number, which nobody wants to see."""

    def show(text: str) -> None:
        chat.show(stream.feed(text if chat.rung is Rung.NATIVE else said.feed(text)))

    return None if chat.rung is Rung.NUMBERS else show


def _answer(reply: Reply, chat: Chat, stream: Stream, said: Said, *, again: bool, last: bool) -> Update:
    """Return what is kept of a reply."""
    found = understood(reply, chat.rung) or ((said.text, ()) if said.ended else None)
    if found is None and chat.rung is Rung.NUMBERS:
        return _trouble("The model names no number. Choose yourself:", menu=True)
    if found is None and not again:
        if said.begun:
            chat.show(stream.end())
            chat.say("[That broke off, and is asked again.]")
        told = "That was not one JSON object as described. Answer with one, and nothing else."
        return {"messages": [{"role": "note", "content": told}], "asked_again": True}
    text, calls = found or (reply.text, ())
    if said.begun:
        text = said.text  # what was shown is what is kept, also where the rest is broken JSON
    elif chat.rung is not Rung.NATIVE:
        chat.show(stream.feed(text))
    chat.show(stream.end())
    if calls and last:
        return _trouble("The model keeps asking for tools and answers nothing. Ask it in other words.")
    if not calls and not text.strip():
        return _trouble("The model answered with nothing. Ask it in other words.")
    if again:
        text = marked(text, stream.known)
    # As JSON text: a checkpoint holds neither half a character nor a number of more than 64 bits.
    asked = [{"identity": c.identity, "tool": c.tool, "arguments": json.dumps(c.arguments)} for c in calls]
    return {"messages": [{"role": "assistant", "content": text, "calls": asked}]}


def _trouble(what: str, *, menu: bool = False) -> Update:
    return {"messages": [{"role": "trouble", "content": what, "menu": menu}]}


def _after_model(state: ChatState) -> str:
    latest = state["messages"][-1]
    match latest["role"]:
        case "note":
            return "model"
        case "assistant":
            return "tools" if latest["calls"] else "check"
    return END


def _after_tools(_: ChatState, runtime: Runtime[Chat]) -> str:
    return END if runtime.context.rung is Rung.NUMBERS else "model"


def _after_check(state: ChatState) -> str:
    return "model" if state["messages"][-1]["role"] == "note" else END
