"""Functions that calls of these tests run; imports little, since every worker imports it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from typing import Any


def add(a: int, b: int = 1) -> int:
    return a + b


def echo(value: Any) -> Any:
    return value


def pid(*_: Any) -> int:
    return os.getpid()


def fail(kind: type[BaseException], *args: Any) -> None:
    raise kind(*args)


async def add_soon(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


class TwoArguments(Exception):
    """Cannot be made again from its `args`."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class HoldsLock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


def fail_with_lock() -> None:
    raise HoldsLock("held")


def fail_with_two() -> None:
    raise TwoArguments("one", "two")


def make_lock() -> Any:
    return threading.Lock()


def note(path: str, text: str) -> str:
    """Append a line to a file, at once and as a whole."""
    with open(path, "a") as file:
        file.write(text + "\n")
    return text


def pass_gate(fifo: str, value: Any = None) -> Any:
    """Wait until somebody writes to a fifo."""
    with open(fifo) as file:
        file.read()
    return value


def pass_gate_and_note(fifo: str, path: str, text: str) -> str:
    pass_gate(fifo)
    return note(path, text)


def leave_memory(n_bytes: int) -> None:
    """Let this process take so much more, counted in addresses."""
    import resource

    with open("/proc/self/statm") as file:
        n_taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (n_taken + n_bytes,) * 2)


def die(code: int) -> None:
    os._exit(code)


def die_by(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def speak_and_die(number: int) -> None:
    print("so far so good")
    os.kill(os.getpid(), number)
    signal.pause()


def speak_and_pass_gate(gate: str) -> None:
    print("waiting")
    pass_gate(gate)


def crash() -> None:
    ctypes.string_at(0)


def close_everything() -> None:
    os.closerange(3, 4096)


def speak(name: str) -> None:
    print("print", name)
    print("error", name, file=sys.stderr)
    ctypes.CDLL(None).puts(f"puts {name}".encode())
    subprocess.run(["echo", f"child {name}"], check=True)


def shout(n_bytes: int) -> None:
    sys.stdout.write("a" * (n_bytes // 2))
    sys.stdout.write("z" * (n_bytes // 2))


def complain() -> None:
    logging.getLogger("lib").warning("disk is %s", "full")
    warnings.simplefilter("always")  # a forked worker has those of the test run
    warnings.warn("old thing", stacklevel=1)


def start_child_and_pass_gate(fifo: str, note_path: str) -> None:
    child = subprocess.Popen(["sleep", "600"])
    note(note_path, str(child.pid))
    pass_gate(fifo)


def environment(name: str) -> str | None:
    return os.environ.get(name)


def where() -> str:
    return os.getcwd()


def has_main() -> list[str]:
    return sorted(name for name in vars(sys.modules["__main__"]) if not name.startswith("__"))


def joblib_sum(n: int) -> int:
    from joblib import Parallel, delayed

    return sum(Parallel(n_jobs=2)(delayed(abs)(-i) for i in range(n)))


def pool_sum(n: int) -> int:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return sum(pool.map(abs, range(-n, 0)))


def first_element(array: Any) -> float:
    return float(array[0])


def fill(array: Any, value: float) -> Any:
    array[:] = value
    return array


_buffer: Any = None


def shared_buffer(value: float) -> Any:
    """Return the same array each time, with other numbers in it."""
    global _buffer
    import numpy as np

    if _buffer is None:
        _buffer = np.zeros(100_000)
    _buffer[:] = value
    return _buffer


def set_flag(name: str, value: str) -> None:
    os.environ[name] = value


def fail_if_exists(path: str) -> None:
    print("looking for", path)
    if os.path.exists(path):
        raise ValueError(f"{path} is in the way")


def spin(seconds: float) -> int:
    until = time.monotonic() + seconds
    n = 0
    while time.monotonic() < until:
        n += 1
    return os.getpid()
