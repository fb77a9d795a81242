"""A clock that jumps, for one process: `time.time` and `datetime`, which stand for the time of day.

`time.monotonic` and `time.perf_counter` go on, as they do on a machine whose clock is set.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

_time, _datetime = time.time, dt.datetime


class _Kind(type):
    """Has the real class's objects count as objects of the one that stands in for it."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)


class _Shifted(dt.datetime, metaclass=_Kind):
    """`datetime` that asks `time.time` what time it is."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return _datetime.fromtimestamp(time.time(), tz)


def jump(jumps: Sequence[Sequence[float]], is_journal: Callable[[int], bool]) -> None:
    """Replace this process's clock.

    Args:
        jumps: at which entry of the journal it jumps, and where to: seconds before (negative) or after the real time.
        is_journal: whether a file descriptor is the session's journal.
    """
    shifts = {int(entry): shift_s for entry, shift_s in jumps}
    written = 0
    shift_s = 0.0
    real_write = os.write

    def write(fd: int, data: Any) -> int:
        nonlocal written, shift_s
        if is_journal(fd):
            written += 1
            shift_s = shifts.get(written, shift_s)
        return real_write(fd, data)

    for module, name, value in (
        (time, "time", lambda: _time() + shift_s),
        (dt, "datetime", _Shifted),
        (os, "write", write),
    ):
        setattr(module, name, value)
