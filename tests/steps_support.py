"""A process's own death at one of its steps."""

import os
import signal


class Steps:
    """Counts what the process does to the world, and kills it at one of these moments: before or after a step.

    Args:
        last: the moment to die at, counted from 1; 0 for never.
    """

    def __init__(self, last):
        self.last = last
        self.count = 0

    def step(self):
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner, name):
        """Count a moment before and one after each call of this function."""
        function = getattr(owner, name)

        def stepping(*args, **kwargs):
            self.step()
            result = function(*args, **kwargs)
            self.step()
            return result

        setattr(owner, name, stepping)
