"""What a worker may be asked to do, the bad things included."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
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


def no_memory():
    raise MemoryError


def no_memory_in_other_words():
    try:
        bytearray(1 << 60)
    except MemoryError as error:
        raise WorkloadError("the model cannot be loaded.") from error


def chatter():
    for _ in range(2000):
        print("x" * 1000)
    os.system("echo from a child process")
    return "quiet"


def threads():
    return [thread.name for thread in threading.enumerate()]


def hang_with_the_interpreter():
    stage("holding on")
    ctypes.PyDLL(None).sleep(600)


def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def rest(seconds):
    stage("resting")
    time.sleep(seconds)
    return "done"


def allocate_until_killed():
    stage("allocating")
    kept = []
    while True:
        kept.append(b"x" * 10_000_000)


def allocate_in_a_program():
    stage("delegating")
    code = "kept = []\nwhile True: kept.append(b'x' * 10_000_000)"
    subprocess.run([sys.executable, "-c", code], check=True)


def allocate(mb):
    return len(b"x" * (mb * 1_000_000))


def allocate_in_torch():
    import torch

    stage("allocating")
    torch.zeros(10**9)


def load_in_processes():
    import torch

    loader = torch.utils.data.DataLoader(torch.arange(8), batch_size=2, num_workers=2)
    return int(sum(batch.sum() for batch in loader))


def allocate_in_onnxruntime(arena):
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["y"]), helper.make_node("ReduceSum", ["y"], ["z"], keepdims=0)],
        "expand",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = arena
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    stage("allocating")
    session.run(None, {"x": np.ones(1, np.float32), "shape": np.array([10**9])})


def abort(last_words=""):
    sys.stderr.write(last_words)
    sys.stderr.flush()
    os.abort()


def print_much(mb):
    print("the beginning")
    block = b"x" * 999_999 + b"\n"
    sys.stdout.flush()
    for _ in range(mb):
        sys.stdout.buffer.write(block)
    print("the end")


def print_and_hang():
    print("before the hang", flush=True)
    time.sleep(600)


def return_much(mb):
    return "x" * (mb * 1_000_000)


def raise_text(text):
    raise RuntimeError(text)


def raise_unprintable():
    class UnprintableError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    raise UnprintableError


def raise_keyboard_interrupt():
    raise KeyboardInterrupt


def not_a_number():
    return [float("nan"), float("inf"), -float("inf")]


def scribble_on_the_channel(text):
    from tools.worker import channel

    os.write(channel._fd, text.encode())
    time.sleep(600)


def close_everything():
    os.closerange(0, 100)


def multiprocess():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def start_program_in_a_session_of_its_own(path, *, wait=False):
    code = f"import os,time; open({path!r},'w').write(str(os.getpid())); time.sleep(600)"
    subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    while not Path(path).exists() or not Path(path).read_text():
        time.sleep(0.01)
    if wait:
        ctypes.PyDLL(None).sleep(600)


def die_of(number):
    os.kill(os.getpid(), number)
    time.sleep(600)


def say_own_pid_and_hang(path):
    stage("hanging")
    Path(path).write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(600)


def not_json():
    return object()
