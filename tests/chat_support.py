"""Chats in tests: a terminal that types what it is told, and sessions and plans that nobody made."""

import datetime as dt
import json

from recorded_support import ID, write_session
from sample_result import sample_result

from agent.chat.answers import Surroundings
from agent.chat.loop import converse
from agent.chat.model import Settings
from agent.chat.terminal import Terminal
from tools.cluster.store import PlanStore
from tools.contracts import Bounds, HpaRef, ScalingPlan

KEY = "sk-very-secret-0123456789"
RICH = "20261122-041502-resnet50"
"""A finished session with every section filled."""


class Typist:
    """A person who types lines one after the other, and sees all that is written."""

    def __init__(self, *lines):
        self.lines = list(lines)
        self.seen = ""

    def read(self, prompt):
        line = self.lines.pop(0) if self.lines else None
        if callable(line):
            line = line()
        self.seen += f"{prompt}{'' if line is None else line}\n"
        return line

    def write(self, text):
        self.seen += text

    @property
    def terminal(self):
        return Terminal(self.read, self.write)


def home_with_sessions(tmp_path):
    """A home with a session of which there is everything but a result, and one of which there is only that."""
    home = tmp_path / "home"
    write_session(home)
    folder = home / "sessions" / RICH
    folder.mkdir()
    (folder / "result.json").write_text(sample_result().model_dump_json())
    return home


def offer_plan(home, *, most=8, **settings):
    """Put a plan into a home's store, and return it."""
    now = dt.datetime.now(dt.UTC)
    metric = {"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue"}}}
    plan = ScalingPlan(
        session=ID,
        target=HpaRef(
            server="https://127.0.0.1:1", context="prod", namespace="shop", name="hpa", uid="u", resource_version="7"
        ),
        scales="apps/v1 Deployment hpa",
        before={"minReplicas": 6, "maxReplicas": 40, "metrics": [metric]},
        after={"minReplicas": 2, "maxReplicas": most, "metrics": [metric]},
        why="It keeps the SLO with fewer replicas.",
        evidence=("3f9a1c2b45d6e7f8",),
        bounds=Bounds(),
        verify_s=600.0,
        created=now.isoformat(timespec="seconds"),
        expires=(now + dt.timedelta(hours=1)).isoformat(timespec="seconds"),
        **settings,
    )
    PlanStore(home).propose(plan, by="policy", at=now)
    return plan


def talk(home, server, *lines, thread="t", session=ID, **settings):
    """Hold a conversation with a scripted model and return all that the person saw."""
    typist = Typist(*lines)
    limit_tokens = settings.pop("limit_tokens", 10**6)
    prices = settings.pop("prices", None)
    target = settings.pop("target", None)
    endpoint = Settings("scripted", server.url, KEY, **{"timeout_s": 5.0, "retries": 1, **settings})
    at = Surroundings(home, session=session, target=target)
    converse(at, thread, endpoint, typist.terminal, limit_tokens=limit_tokens, prices=prices)
    return typist.seen


def returned(server, index=-1):
    """What the tools had returned by one of the requests, parsed."""
    contents = [m["content"] for m in server.requests[index]["messages"] if m["role"] == "tool"]
    return [json.loads(content) for content in contents]
