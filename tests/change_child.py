"""What a process that is killed in the middle of a change runs: little is imported, since there are many of them."""

import datetime as dt
from pathlib import Path

from steps_support import Steps

from tools.cluster import store as store_module
from tools.cluster.client import HpaClient
from tools.cluster.connection import open_reader, open_writer
from tools.cluster.context import ChangeContext
from tools.cluster.resume import resume_change
from tools.cluster.store import PlanStore
from tools.spec import ClusterSpec

START = dt.datetime(2026, 3, 2, 9, 0, tzinfo=dt.UTC)


class Time:
    """A clock that only moves when somebody sleeps, and what happens meanwhile."""

    def __init__(self, now=START):
        self.now = now
        self.slept = []
        self.events = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += dt.timedelta(seconds=seconds)
        for when, what in [event for event in self.events if event[0] <= self.now]:
            self.events.remove((when, what))
            what()

    def after(self, seconds, what):
        """Let something happen once that much time has passed."""
        self.events.append((self.now + dt.timedelta(seconds=seconds), what))


def run(home, cluster, digest, p99_ms, now, last, result):
    """Bring a plan to its end; or die at step `last` of it. The file `result` tells that it came to the end.

    Each read, dry run, patch and event has a moment before and one after it; an event has one more, when its row is
    written and not committed yet.
    """
    steps = Steps(last)
    for name in ("read", "dry_run", "patch"):
        steps.around(HpaClient, name)
    steps.around(PlanStore, "append")
    steps.around(store_module, "append_event")
    time = Time(dt.datetime.fromisoformat(now))
    spec = ClusterSpec.model_validate_json(cluster)
    with open_reader(spec) as reader, open_writer(spec) as writer:
        context = ChangeContext(
            store=PlanStore(Path(home)),
            reader=reader,
            writer=writer,
            cluster=spec,
            clock=time.clock,
            sleep=time.sleep,
        )
        outcome = resume_change(digest, context, watch_slo=lambda: p99_ms)
    Path(result).write_text(outcome.state)
