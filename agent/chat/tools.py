"""The tools of the chat: each looks at, starts or stops a session, and none approves, applies or takes back a change.

A tool answers with JSON whose figures are texts, to be quoted as they are, and with the ids of what they rest on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agent.chat import answers
from agent.chat.answers import Surroundings
from agent.chat.arguments import Arguments, Changes, NewSession, Nothing, OfDecision, OfPlan, OfSession, Pair
from agent.chat.facts import Facts, data
from tools.errors import InfertuneError

LONGEST = 12_000
"""Characters of an answer; a small model's context is soon full."""


@dataclass(frozen=True)
class Tool:
    """One thing that can be asked for."""

    name: str
    title: str
    """For a person's menu."""
    about: str
    """For a model."""
    arguments: type[Arguments]
    run: Callable[[Surroundings, Any, str], Facts]
    by_number: bool = True
    """Whether it makes sense without arguments, and changes nothing."""

    def schema(self) -> dict[str, Any]:
        """Return it as the OpenAI protocol describes a function."""
        parameters = self.arguments.model_json_schema()
        parameters.pop("description", None)
        function = {"name": self.name, "description": self.about, "parameters": parameters}
        return {"type": "function", "function": function}


TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "show_result",
            "The result of a session",
            "The outcome of a session: verdict, the model as given against the best, candidates, promises.",
            OfSession,
            answers.show_result,
        ),
        Tool(
            "explain",
            "Why: the decisions of a session",
            "What a session decided and why; with the id of a decision also its options, their figures and evidence.",
            OfDecision,
            answers.explain,
        ),
        Tool(
            "what_if",
            "What if: other promises, another price",
            "What a session's evidence answers to other promises, another price or rate. Measures nothing.",
            Changes,
            answers.what_if,
            by_number=False,
        ),
        Tool(
            "describe_traffic",
            "The traffic",
            "The traffic of a session: its rates, its day and week, its busiest minutes.",
            OfSession,
            answers.describe_traffic,
        ),
        Tool(
            "show_scaling",
            "Scaling: how many replicas, which autoscaler",
            "How many replicas hold the traffic, and which autoscaler setting is recommended, against today's.",
            OfSession,
            answers.show_scaling,
        ),
        Tool(
            "show_plans",
            "The plans: changes offered to a cluster",
            "The changes that were offered to a cluster, where each stands, what it would change and why.",
            OfPlan,
            answers.show_plans,
        ),
        Tool(
            "request_approval",
            "How to approve a plan",
            "The commands by which a person approves and applies a plan. Nothing but a person can.",
            OfPlan,
            answers.request_approval,
        ),
        Tool("list_sessions", "All sessions", "All sessions, the newest last.", Nothing, answers.list_sessions),
        Tool(
            "compare_sessions",
            "Compare two sessions",
            "The outcomes of two sessions side by side.",
            Pair,
            answers.compare_sessions,
        ),
        Tool(
            "list_workloads",
            "Workloads that can be optimized",
            "The workloads that start_session accepts.",
            Nothing,
            answers.list_workloads,
        ),
        Tool(
            "start_session",
            "Start a session in the background",
            "Start optimizing a workload in the background. It measures on this machine for minutes: only if asked to.",
            NewSession,
            answers.start_session,
            by_number=False,
        ),
        Tool(
            "watch_session",
            "Watch a session",
            "How far a session is: its state, and the last lines of its journal.",
            OfSession,
            answers.watch_session,
        ),
        Tool(
            "stop_session",
            "Stop a session",
            "Stop a session that a chat started. It keeps the best so far. Only if asked to.",
            OfSession,
            answers.stop_session,
            by_number=False,
        ),
    )
}


def call(surroundings: Surroundings, tool: str, arguments: object, identity: str) -> str:
    """Run a tool and return its answer as JSON; what goes wrong is an answer too.

    Args:
        surroundings: what the tools work on.
        tool: its name.
        arguments: as they came, from a model or a person.
        identity: of this call; a call that is run again after a crash has the same.
    """
    try:
        known = TOOLS[tool]
    except KeyError:
        return _problem(tool, f"there is no tool of that name; there are: {', '.join(TOOLS)}")
    try:
        given = known.arguments.model_validate(arguments)
    except ValidationError as error:
        return _problem(tool, _wrong(error))
    try:
        answer = known.run(surroundings, given, identity)
    except InfertuneError as error:
        return _problem(tool, str(error))
    text = json.dumps({"tool": tool, "answer": answer}, ensure_ascii=False)
    while len(text) > LONGEST and _shortened(answer):
        text = json.dumps({"tool": tool, "answer": answer, "shortened": True}, ensure_ascii=False)
    return text


def _problem(tool: str, what: str) -> str:
    return json.dumps({"tool": data(tool), "problem": data(what)}, ensure_ascii=False)


def _wrong(error: ValidationError) -> str:
    """Say what is wrong with arguments, field by field."""
    found = []
    for problem in error.errors(include_url=False)[:4]:
        place = ".".join(str(part) for part in problem["loc"]) or "arguments"
        found.append(f"{place}: {problem['msg']}")
    return "; ".join(found)


def _shortened(value: Any) -> bool:
    """Halve the longest list within a value; return whether there was one."""
    lists: list[list[Any]] = []
    _collect(value, lists)
    longest = max(lists, key=lambda found: len(json.dumps(found)), default=[])
    if len(longest) < 2:
        return False
    del longest[len(longest) // 2 :]
    return True


def _collect(value: Any, into: list[list[Any]]) -> None:
    if isinstance(value, list) and len(value) > 1:
        into.append(value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _collect(inner, into)
