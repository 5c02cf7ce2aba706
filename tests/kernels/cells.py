"""What the cells of several tests have in common, and what they leave behind."""

from __future__ import annotations

import fcntl
import os
import select
import time
from pathlib import Path

import psutil

from tests.kernels.kernel import Kernel

__all__ = ["AT_REST", "PRELUDE", "Gate", "left_over", "servants"]

# Defined in a cell, so that every use of them also proves that functions of cells travel.
PRELUDE = """
import asyncio, fcntl, os, threading, time
import amltk_nb
from amltk_nb import Scheduler

def through(gate, value=None):
    with open(gate + ".in", "w") as bell:
        bell.write(f"{os.getpid()} {value}\\n")
    with open(gate) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    return value

def double(n):
    return 2 * n

def texts(scheduler):
    return [line.text for line in scheduler.snapshot().log]

def counts(scheduler):
    return {str(state): n for state, n in scheduler.snapshot().counts.items() if n}
"""

AT_REST = """
import amltk_nb
for former in amltk_nb.schedulers():
    former.stop(wait=False)
    await former.last_run.over()
"""


class Gate:
    """Holds back whoever calls `through(gate)`, in whatever process, until it is opened.

    It is a lock on a file, held by the test: so neither side has to look again and again, and it
    can be opened while the kernel is busy.
    """

    def __init__(self, path: Path) -> None:
        """Make a closed gate; the cells know it by its path."""
        self.path = path
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        bell = f"{path}.in"
        os.mkfifo(bell)
        self._bell = os.open(bell, os.O_RDWR)  # for writing too, or it would end with each caller
        self._heard = b""

    def open(self) -> None:
        """Let everybody through from now on; again does nothing."""
        if not self._file.closed:
            self._file.close()

    def arrived(self, n_calls: int, timeout_s: float = 20) -> list[tuple[int, str]]:
        """Wait until so many calls have come to the gate since it was made.

        Returns:
            The process id and the value of each, in the order they came.
        """
        end = time.monotonic() + timeout_s
        while self._heard.count(b"\n") < n_calls:
            left_s = end - time.monotonic()
            ready, _, _ = select.select([self._bell], [], [], max(0, left_s))
            assert ready, f"only {self._heard!r} came within {timeout_s} s, not {n_calls} calls"
            self._heard += os.read(self._bell, 4096)
        words = [line.split(" ", 1) for line in self._heard.decode().splitlines()]
        return [(int(pid), value) for pid, value in words]

    def close(self) -> None:
        """Open it and give everything back."""
        self.open()
        os.close(self._bell)

    def __repr__(self) -> str:
        return repr(str(self.path))


def servants(kernel: Kernel) -> list[psutil.Process]:
    """The kernel's processes that are there because of a run: workers and what they started.

    Two helpers of multiprocessing are not: once started, the resource tracker and the fork server
    stay as long as their process, so that a second run starts at once. At most one of each.
    """
    found: dict[bool, list[psutil.Process]] = {True: [], False: []}
    for process in kernel.processes():
        try:
            found[_is_helper(process, kernel.pid)].append(process)
        except psutil.NoSuchProcess:
            continue
    assert len(found[True]) <= 2, [p.pid for p in found[True]]
    return found[False]


def _is_helper(process: psutil.Process, kernel_pid: int) -> bool:
    words = " ".join(process.cmdline())
    is_server = "multiprocessing.forkserver" in words and process.ppid() == kernel_pid
    return is_server or "multiprocessing.resource_tracker" in words


def left_over(kernel: Kernel, within_s: float = 3) -> list[str]:
    """Wait for such processes to end and describe those that have not."""
    psutil.wait_procs(servants(kernel), timeout=within_s)
    return [str(process) for process in servants(kernel)]
