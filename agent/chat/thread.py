"""One conversation as it is kept: its turns, and what was asked by the menu."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.chat.graph import STATE_VERSION, Chat, build_graph
from agent.chat.ladder import Message
from agent.chat.tools import TOOLS

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

RECURSION_LIMIT = 60
"""Steps of one turn: the rounds of tools that are allowed, with room to spare."""


class Thread:
    """A conversation in the history.

    Args:
        saver: what keeps it.
        name: its name.
    """

    def __init__(self, saver: BaseCheckpointSaver[str], name: str) -> None:
        self._graph = build_graph().compile(checkpointer=saver)
        self._config: Any = {"configurable": {"thread_id": name}, "recursion_limit": RECURSION_LIMIT}

    @property
    def values(self) -> Mapping[str, Any]:
        """What is kept of it."""
        values: Mapping[str, Any] = self._graph.get_state(self._config).values
        return values

    @property
    def questions(self) -> int:
        """How often the person asked something."""
        return sum(message["role"] == "user" for message in self.values.get("messages", ()))

    @property
    def was_cut_off(self) -> bool:
        """Whether the last turn did not come to its end."""
        return bool(self._graph.get_state(self._config).next)

    def take_turn(self, given: Any, chat: Chat) -> None:
        """Run a turn; with None the rest of one that was cut off."""
        self._graph.invoke(given, self._config, context=chat, durability="sync")

    def add(self, *messages: Message) -> None:
        """Add messages, and with them end a turn that was cut off."""
        update = {"schema_version": STATE_VERSION, "messages": list(messages)}
        self._graph.update_state(self._config, update, as_node="check")

    def keep(self, tool: str, arguments: Mapping[str, str], content: str) -> None:
        """Keep what was asked by the menu, as if a model had asked for it: one that takes over later knows it."""
        identity = f"menu_{secrets.token_hex(4)}"
        called = {"identity": identity, "tool": tool, "arguments": json.dumps(dict(arguments))}
        self.add(
            {"role": "user", "content": f"(by the menu) {TOOLS[tool].title}"},
            {"role": "assistant", "content": "", "calls": [called]},
            {"role": "tool", "identity": identity, "tool": tool, "content": content},
        )
