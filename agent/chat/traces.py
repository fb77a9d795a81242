"""A chat's turns as traces in MLflow, from its history: written when the person has left, in a process of its own.

The history keeps each step of a turn with the time of its end, what was said, and the tokens that the thread had taken
by then: so each call of the model has its times and its tokens. It does not keep which model answered, nor the rules
that are sent before the conversation; several tools that were called at once share the time of their step.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.chat.history import DATABASE
from tools.errors import InfertuneError, StorageError
from tools.lock import held
from tools.tracking.errors import tracking_errors
from tools.tracking.spans import Trace, TraceSpan, chat_attributes, nanoseconds, said, trace_id, write_trace
from tools.tracking.store import default_tracking_uri, experiment_id, open_store, silence_mlflow

EXPERIMENT = "infertune/chat"
THREAD_TAG = "infertune.thread"
STEP_TAG = "infertune.checkpoint"
"""The last step that a trace tells of: a turn that went on since is written anew."""
_SECRETS = ("OPENAI_API_KEY",)
_STARTED: list[subprocess.Popen[bytes]] = []
"""By this process; they outlive it."""

_Wire: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """The state of a thread when one node of its graph had run."""

    identity: str
    at_ns: int
    begins: bool
    """Whether the person had just spoken, and nothing has run yet."""
    forced: bool
    """Whether it was stopped from outside."""
    messages: tuple[_Wire, ...]
    """All so far; see `agent.chat.ladder.Message`."""
    tokens_in: int
    tokens_out: int
    """Of the thread so far."""
    estimated: bool
    """Whether some of them were not counted by the endpoint."""


def trace_thread(home: Path, thread: str, tracking_uri: str | None = None) -> int:
    """Write the turns of a thread to MLflow that are not there yet, a trace each, in the experiment `infertune/chat`.

    MLflow's settings are process-wide and its import takes a second: call this in a process of its own, see
    `start_tracing`.

    Args:
        home: the home directory.
        thread: name of the conversation.
        tracking_uri: default: `MLFLOW_TRACKING_URI`, else the home directory's own store.

    Returns:
        How many traces were written; none of a thread in which nobody has spoken.

    Raises:
        BusyError: another process is writing this thread's.
        StorageError: there is no history, or it cannot be read.
        TrackingError: the store cannot be reached or refuses.
    """
    turns = list(_turns(read_steps(home, thread)))
    if not turns:
        return 0
    uri = tracking_uri or default_tracking_uri(home)
    silence_mlflow()
    busy = f"the traces of the thread {thread} are being written right now."
    with held(home / "chat" / f"{thread}.traces.lock", busy=busy), tracking_errors(uri, what="the chat"):
        client = open_store(uri)
        where = experiment_id(client, EXPERIMENT, tracking_uri=uri, home=home)
        # Threads of several homes may share a name and a server.
        conversation = f"{thread}-{uuid.UUID(turns[0][0].identity).hex[:12]}"
        there = _written(client, where, conversation)
        missing = [turn for turn in turns if there.get(trace_id(_name(turn))) != turn[-1].identity]
        for turn in missing:
            write_trace(uri, where, _name(turn), turn_trace(turn, thread, conversation))
        return len(missing)


def start_tracing(home: Path, thread: str, tracking_uri: str | None = None) -> None:
    """Write a thread's turns to MLflow in the background; whatever comes of it disturbs no chat.

    What goes wrong is in `<home>/chat/<thread>.traces.log`; the turns are written the next time then.
    """
    given = [] if tracking_uri is None else ["--tracking-uri", tracking_uri]
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    path = [str(Path(__file__).parents[2]), *filter(None, [environment.get("PYTHONPATH")])]
    with contextlib.suppress(OSError), (home / "chat" / f"{thread}.traces.log").open("wb") as log:
        _STARTED.append(
            subprocess.Popen(
                [sys.executable, "-m", "agent.chat.traces", str(home), thread, *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, "PYTHONPATH": os.pathsep.join(path)},
                start_new_session=True,  # the terminal that the person closes is not its own
            )
        )


def read_steps(home: Path, thread: str) -> list[Step]:
    """Return the steps of a thread in order; it may be open in a chat meanwhile.

    Raises:
        StorageError: there is no history, or it cannot be read.
    """
    from langgraph.checkpoint.sqlite import SqliteSaver

    path = home / DATABASE
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            saver = SqliteSaver(connection)
            saver.is_setup = True  # making its tables is the chat's own business
            found = list(saver.list({"configurable": {"thread_id": thread, "checkpoint_ns": ""}}))
    except sqlite3.Error as error:
        raise StorageError(f"the history of chats cannot be read ({error}).", where=str(path)) from None
    return [_step(entry.checkpoint, entry.metadata) for entry in reversed(found)]


def _step(checkpoint: Mapping[str, Any], metadata: Mapping[str, Any]) -> Step:
    values = checkpoint["channel_values"]
    return Step(
        identity=checkpoint["id"],
        at_ns=nanoseconds(checkpoint["ts"]),
        begins=metadata.get("source") == "input",
        forced=metadata.get("source") == "update",
        messages=tuple(values.get("messages", ())),
        tokens_in=values.get("tokens_in", 0),
        tokens_out=values.get("tokens_out", 0),
        estimated=values.get("estimated", False),
    )


def _turns(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Yield the steps of each turn, from the person's words on; what went before the first is none."""
    begins = [place for place, step in enumerate(steps) if step.begins]
    for begin, end in itertools.pairwise([*begins, len(steps)]):
        if end > begin + 1:  # else it was cut off before the first step
            yield list(steps[begin:end])


def turn_trace(turn: Sequence[Step], thread: str, conversation: str) -> Trace:
    """Return the trace of one turn.

    Args:
        turn: its steps: the first is the state before the person spoke, the second has what they said.
        thread: name of the conversation.
        conversation: its id among those of other homes.
    """
    from mlflow.tracing.constant import TraceMetadataKey

    before, asked, *_ = turn
    new = turn[-1].messages[len(before.messages) :]
    question = next((m["content"] for m in new if m["role"] == "user"), "")
    answer = next((m["content"] for m in reversed(new) if m["role"] in ("assistant", "trouble")), "")
    trouble = new[-1]["content"] if new and new[-1]["role"] == "trouble" else None
    children = [span for earlier, step in itertools.pairwise(turn[1:]) for span in _spans(earlier, step, turn)]
    root = TraceSpan(
        name=f"chat {thread}",
        kind="AGENT",
        start_ns=before.at_ns,
        end_ns=turn[-1].at_ns,
        inputs={"messages": [{"role": "user", "content": question}]},
        outputs=said({"content": answer}),
        attributes={
            "infertune.earlier_messages": len(before.messages),
            "infertune.probing_tokens": asked.tokens_in + asked.tokens_out - before.tokens_in - before.tokens_out,
        },
        error=trouble,
        children=tuple(children),
    )
    return Trace(
        root=root,
        request=question,
        response=answer,
        tags={THREAD_TAG: thread, STEP_TAG: turn[-1].identity},
        metadata={TraceMetadataKey.TRACE_SESSION: conversation},
    )


def _spans(earlier: Step, step: Step, turn: Sequence[Step]) -> Iterator[TraceSpan]:
    """Yield what one step of a turn consisted of: a call of the model, calls of tools, or the check of the answer."""
    added = step.messages[len(earlier.messages) :]
    if not added or step.forced:
        return
    took = {
        "tokens_in": step.tokens_in - earlier.tokens_in,
        "tokens_out": step.tokens_out - earlier.tokens_out,
    }
    if added[0]["role"] == "tool":
        calls = {call["identity"]: call for message in earlier.messages for call in message.get("calls", ())}
        for message in added:
            arguments = calls.get(message["identity"], {}).get("arguments", "{}")
            inputs, outputs = _parsed(arguments), _parsed(message["content"])
            yield TraceSpan(message["tool"], "TOOL", earlier.at_ns, step.at_ns, inputs, outputs)
        return
    last = added[-1]
    if last["role"] == "note" and not any(took.values()):
        yield TraceSpan("check", "CHAIN", earlier.at_ns, step.at_ns, outputs={"told the model": last["content"]})
        return
    answered = last["role"] == "assistant"  # else what came could not be used, or nothing came, and this says why
    yield TraceSpan(
        name="model",
        kind="CHAT_MODEL",
        start_ns=earlier.at_ns,
        end_ns=step.at_ns,
        inputs={"messages": _wire(earlier.messages[len(turn[0].messages) :])},
        outputs=said(_wire([last])[0]) if answered else None,
        attributes=chat_attributes(model=None, estimated=step.estimated, **took),
        error=None if answered else last["content"],
    )


def _wire(messages: Sequence[_Wire]) -> list[_Wire]:
    """Return messages in the form of OpenAI's chat completions, which MLflow shows as a conversation."""
    told: list[_Wire] = []
    for message in messages:
        match message["role"]:
            case "user" | "note":
                told.append({"role": "user", "content": message["content"]})
            case "tool":
                answered = {"tool_call_id": message["identity"], "content": message["content"]}
                told.append({"role": "tool", **answered})
            case "assistant":
                asked = {"tool_calls": [_call(call) for call in message["calls"]]} if message["calls"] else {}
                told.append({"role": "assistant", "content": message["content"], **asked})
    return told


def _call(call: Mapping[str, Any]) -> _Wire:
    function = {"name": call["tool"], "arguments": call["arguments"]}
    return {"id": call["identity"], "type": "function", "function": function}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _name(turn: Sequence[Step]) -> str:
    """Return the name of a turn's trace: the id of its first step, which no other step of any thread has."""
    return uuid.UUID(turn[0].identity).hex


def _written(client: Any, experiment: str, conversation: str) -> dict[str, str]:
    """Return the last step that each trace of a conversation tells of, by the trace's id."""
    written: dict[str, str] = {}
    page: str | None = None
    while True:
        found = client.search_traces(
            locations=[experiment],
            filter_string=f"metadata.`mlflow.trace.session` = '{conversation}'",
            include_spans=False,
            max_results=200,
            page_token=page,
        )
        written |= {trace.info.trace_id: trace.info.tags.get(STEP_TAG, "") for trace in found}
        page = found.token
        if not page:
            return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the traces of one thread; 0 when they are written, 2 when they cannot be."""
    parser = argparse.ArgumentParser(prog="python -m agent.chat.traces", description="Mirror a chat to MLflow.")
    parser.add_argument("home", type=Path, help="the home directory")
    parser.add_argument("thread", help="name of the conversation")
    parser.add_argument("--tracking-uri", help="default: MLFLOW_TRACKING_URI, else the home directory's own store")
    given = parser.parse_args(arguments)
    try:
        written = trace_thread(given.home.resolve(), given.thread, given.tracking_uri)
    except InfertuneError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{written} turns of {given.thread} were written to MLflow.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
