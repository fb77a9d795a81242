"""How much memory a task may have, and how to tell that it ran out of it.

Two fences, since neither is enough alone. A control group (`tools.worker.groups`) counts what is really used, by all
processes of a task, but needs rights that a container rarely gives. `RLIMIT_DATA` needs no rights and makes an
allocation fail instead of killing, but counts what is reserved, in each process for itself.

Of the limits on a process's size, `RLIMIT_AS` counts every mapping. A process that has imported PyTorch maps 3.5 GB,
most of it libraries, and CUDA reserves more than there is memory. `RLIMIT_DATA` counts private writable mappings, which
grow with what is allocated: by 116 MB where anonymous memory grows by 91 MB (ResNet-18 in PyTorch), 152 where it
grows by 144 (the same in ONNX Runtime), and 135 where it grows by 86 (OpenVINO).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

SLACK_MB = 512.0
"""Reserved and never used on any machine: heaps of threads, pools of allocators, data of libraries loaded late."""

SLACK_MB_PER_CORE = 32.0
"""The same for each core: a working thread's stack of 8 MiB, for the pools of up to four libraries."""

_HOST_TEXTS = re.compile(
    r"bad_alloc|bad allocation"  # the C++ standard library's
    r"|(can't|cannot|failed to|unable to) allocate memory"  # PyTorch, ONNX Runtime, the C library
    r"|failed to allocate \d+ bytes of memory"  # OpenVINO
    r"|not enough memory",  # PyTorch on other systems
    re.IGNORECASE,
)
_DEVICE_TEXTS = re.compile(r"(cuda|cudnn|cublas|hip|xpu|mps|gpu)\b.{0,80}\bout of memory", re.IGNORECASE | re.DOTALL)


class Shortage(Enum):
    """Whose memory was short."""

    HOST = "host"
    DEVICE = "device"


def limit_data(limit_mb: float) -> None:
    """Let this process allocate so much more than it has now, and the documented slack; then allocations fail.

    Only the soft limit is set: `lift_data_limit` takes it back.
    """
    slack_mb = SLACK_MB + SLACK_MB_PER_CORE * (os.cpu_count() or 1)
    wanted = _data_bytes() + int((limit_mb + slack_mb) * 1e6)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def lift_data_limit() -> None:
    """Give the process room again: telling that memory ran out takes memory, too."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def shortage(error: BaseException) -> Shortage | None:
    """Return whose memory an exception says was short, or None when it is about something else.

    Libraries in C++ raise `RuntimeError`, or types of their own, so their words count; and an error that was raised
    because of such an error is one.
    """
    for cause in _chain(error):
        text = _text(cause)
        if _DEVICE_TEXTS.search(text):
            return Shortage.DEVICE
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return Shortage.HOST
        if _HOST_TEXTS.search(text):
            return Shortage.HOST
    return None


def machine_oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  `__str__` is user code
        return ""


def _data_bytes() -> int:
    """Return what `RLIMIT_DATA` counts (`VmData` of proc_pid_status(5)); 0 where there is no /proc."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    return 0
