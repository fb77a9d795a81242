"""A schedule's process that is killed at one of its steps: little is imported, since there are many of them."""

import sqlite3
import subprocess
import urllib.request
from pathlib import Path

from steps_support import Steps

import tools.outbox
from agent.scheduling import daemon


class ScheduleSteps(Steps):
    """The moments at which a schedule changes something outside of itself.

    There is one before and one after each commit to one of its databases, each process that it starts, and each event
    that it posts.
    """

    def around_commits(self):
        steps, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def commit(self):
                steps.step_if(self.in_transaction)
                super().commit()

            def __exit__(self, *error):
                was_open = self.in_transaction
                steps.step_if(was_open)
                result = super().__exit__(*error)
                steps.step_if(was_open)
                return result

        def connecting(*args, **kwargs):
            return connect(*args, factory=Connection, **kwargs)

        sqlite3.connect = sqlite3.dbapi2.connect = connecting

    def step_if(self, condition):
        if condition:
            self.step()


def run(home, command, last, result):
    """Deal with what is due; or die at step `last` of it. The file `result` tells how many steps there were."""
    tools.outbox.CLAIM_S = 0.0  # else what was being sent is left alone for a minute
    steps = ScheduleSteps(last)
    steps.around_commits()
    steps.around(subprocess, "Popen")
    steps.around(urllib.request.OpenerDirector, "open")
    said = []
    daemon.run(Path(home), once=True, metrics_port=None, say=said.append, command=command)
    Path(result).write_text(str(steps.count))
