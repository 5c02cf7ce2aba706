"""Programs that end suddenly, in every way: nothing outlives them, whatever their calls started.

Short here; `make chaos` does all of it (AMLTK_NB_CHAOS=1).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from amltk_nb.errors import WorkerDiedError
from amltk_nb.scheduling.executors.process import ProcessBackend
from tests.chaos.figures import IS_LONG, report
from tests.executors import functions as f
from tests.executors.driver import Driver, survivors

MARK = "AMLTK_NB_TEST_ORPHANS"  # inherited by all that a program starts, so nothing can hide
METHODS = ("forkserver", "spawn", "fork", "loky")
MOST_S = 3.0
START_S = 40.0

# What calls leave behind if nobody ends it: children, deaf ones, sessions of their own, processes
# of multiprocessing, and a daemon, whose parent is gone when the call goes on.
PROGRAM = r"""
import asyncio, os, re, sys
from amltk_nb import Scheduler

def ring(bell):
    with open(bell, "a") as file:
        file.write("here\n")

def children(bell):
    import subprocess, time
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; sleep 601; sleep 602"])
    subprocess.Popen(["sleep", "603"], start_new_session=True)
    ring(bell)
    time.sleep(700)

def processes(bell):
    import multiprocessing, time
    for method in ("fork", "spawn", "forkserver"):
        multiprocessing.get_context(method).Process(target=time.sleep, args=(604,)).start()
    ring(bell)
    time.sleep(700)

def daemon(bell):
    import subprocess, time
    subprocess.run(["sh", "-c", "setsid sh -c 'sleep 605 & sleep 606' > /dev/null 2>&1 &"])
    ring(bell)
    time.sleep(700)

def deaf(bell):  # compiled code that never lets go of the interpreter
    import re
    ring(bell)
    re.match("(a+)+b", "a" * 60)

async def main(method, bell, *names):
    if method == "loky":
        scheduler = Scheduler.with_loky(len(names))
    else:
        scheduler = Scheduler.with_processes(len(names), mp_context=method)
    run = scheduler.start(on_exception="continue")
    for name in names:
        scheduler.submit(globals()[name], bell)
    await run

asyncio.run(main(*sys.argv[1:]))
"""

ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Bell:
    """Hears from calls, in whatever process, that they are where they are wanted."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR)
        self._heard = b""

    def wait(self, n_calls: int) -> None:
        until = time.monotonic() + START_S
        while self._heard.count(b"\n") < n_calls:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"only {self._heard!r} came, not {n_calls} calls"
            self._heard += os.read(self._fd, 4096)

    def close(self) -> None:
        os.close(self._fd)


class Program(NamedTuple):
    process: subprocess.Popen[bytes]
    mark: str
    terminal: int | None  # its other end

    def family(self) -> list[psutil.Process]:
        """Itself and all that descends from it, orphans too."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(MARK) == self.mark
        except psutil.Error:
            return False


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    bell = Bell(tmp_path / "bell")
    yield bell
    bell.close()


@pytest.fixture
def start(tmp_path: Path, bell: Bell) -> Iterator[Callable[..., Program]]:
    """Start a program in a session of its own; whatever is left of it is killed in the end."""
    programs: list[Program] = []

    def begin(method: str, *names: str, on_terminal: bool = False) -> Program:
        mark, other_end, standard = uuid.uuid4().hex, None, subprocess.DEVNULL
        argv = ["-c", PROGRAM, method, str(bell.path), *names]
        if on_terminal:
            other_end, standard = os.openpty()
            argv = ["-c", ON_A_TERMINAL, *argv]
        process = subprocess.Popen(
            [sys.executable, *argv],
            env={**os.environ, MARK: mark},
            stdin=standard,
            stdout=standard,
            stderr=standard,
            start_new_session=True,
        )
        if on_terminal:
            os.close(standard)
        programs.append(Program(process, mark, other_end))
        return programs[-1]

    yield begin
    for program in programs:
        for process in program.family():
            process.kill()
        program.process.wait()


def hang_up(program: Program) -> None:
    assert program.terminal is not None
    os.close(program.terminal)


def to_it(number: signal.Signals) -> Callable[[Program], None]:
    return lambda program: os.kill(program.process.pid, number)


def to_its_group(number: signal.Signals) -> Callable[[Program], None]:
    return lambda program: os.killpg(program.process.pid, number)


ENDS: dict[str, Callable[[Program], None]] = {
    "SIGKILL": to_it(signal.SIGKILL),
    "SIGTERM": to_it(signal.SIGTERM),
    "SIGHUP": to_it(signal.SIGHUP),
    "SIGKILL to its group": to_its_group(signal.SIGKILL),
    "SIGTERM to its group": to_its_group(signal.SIGTERM),
    "its terminal is closed": hang_up,
}
SHORT = [
    *((method, "SIGKILL") for method in METHODS),
    ("spawn", "SIGTERM to its group"),
    ("forkserver", "SIGKILL to its group"),
    ("fork", "its terminal is closed"),
    ("loky", "SIGTERM"),
]
ALL = [(method, end) for method in METHODS for end in ENDS]


def ended(program: Program, end: str, before: list[psutil.Process]) -> tuple[list[int], float]:
    """End it; returns who is left after some seconds, and when the last one was gone."""
    ENDS[end](program)
    began = time.monotonic()
    left = survivors([process.pid for process in before], MOST_S)
    took_s = time.monotonic() - began
    return [
        *left,
        *(process.pid for process in program.family() if process.pid not in left),
    ], took_s


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("method", "end"), ALL if IS_LONG else SHORT)
def test_nothing_outlives_a_program(
    start: Callable[..., Program], bell: Bell, method: str, end: str
) -> None:
    calls = ("children", "processes", "daemon")
    program = start(method, *calls, on_terminal=ENDS[end] is hang_up)
    bell.wait(len(calls))
    before = program.family()
    assert len(before) >= 15  # its helpers, three workers, and what the calls have started
    left, took_s = ended(program, end, before)
    assert left == []
    report("orphans", workers=method, end=end, processes=len(before), left=0, gone_after_s=took_s)


@pytest.mark.timeout(60)
def test_a_call_that_lets_no_python_run_outlives_no_kernel(
    start: Callable[..., Program], bell: Bell
) -> None:
    program = start("forkserver", "deaf", "children")
    bell.wait(2)
    left, _ = ended(program, "SIGKILL", program.family())
    assert left == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_what_a_call_has_started_does_not_outlive_its_killed_worker(
    tmp_path: Path, method: str
) -> None:
    gate, note = tmp_path / "gate", tmp_path / "note"
    os.mkfifo(gate)
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        call = driver.submit(f.start_child_and_pass_gate, str(gate), str(note))
        with gate.open("w"):  # it waits there, so the child has been started
            (worker,) = driver.backend.workers()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            assert isinstance(driver.error(call), WorkerDiedError)
            assert survivors([int(note.read_text())], MOST_S) == []
