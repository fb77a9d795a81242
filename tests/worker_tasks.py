"""What a worker may be asked to do, the bad things included."""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from tools.errors import WorkloadError
from tools.worker import emit, stage


def echo(value):
    return value


def size_of(text):
    return len(text)


def steps():
    stage("first")
    emit("point", batch_size=1, p50_ms=2.5)
    stage("second")
    return "done"


def pid():
    return os.getpid()


def hang(seconds=600):
    stage("waiting for nothing")
    time.sleep(seconds)


def hang_in_c():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ctypes.CDLL(None).sleep(600)


def leave_child_behind(path):
    if os.fork() == 0:
        Path(path).write_text(str(os.getpid()))
        time.sleep(600)
    while not Path(path).exists():
        time.sleep(0.01)


def segfault():
    stage("dereferencing")
    ctypes.string_at(0)


def user_error():
    raise WorkloadError("the model is upside down.", where="model.py", fix="Turn it.")


def bug():
    return {}["missing"]


def leave():
    sys.exit(3)


def vanish():
    os._exit(7)


def kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


def no_memory():
    raise MemoryError


def chatter():
    for _ in range(2000):
        print("x" * 1000)
    os.system("echo from a child process")
    return "quiet"


def threads():
    return threading.active_count()


def not_json():
    return object()
