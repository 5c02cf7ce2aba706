"""Limits that really end calls: which error, which events, what survives, and what must not."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pynisher
import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import (
    AmltkError,
    MissingExtraError,
    NotPicklableError,
    PluginError,
    WorkerDiedError,
)
from amltk_nb.scheduling.plugins.limited import Limited, Limits
from amltk_nb.scheduling.plugins.resources import PynisherPlugin, ResourceLimits
from tests.plugins.contract import LONG_S, OutOfLuck, PluginContract, bad_luck, double

ENOUGH = {"memory": "2 GB", "cpu_time": 20, "wall_time": "1 min"}


class TestResourceLimits(PluginContract):
    def make(self) -> ResourceLimits:
        return ResourceLimits(**ENOUGH)


def sleep_long() -> None:
    print("before")
    time.sleep(LONG_S)


def compute_long() -> None:
    while True:
        math.factorial(1000)


def have_child(address: str, end: str) -> None:
    """Start a process, tell the pids of both, and go on until ended."""
    with subprocess.Popen(["sleep", str(LONG_S)]) as child:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messages:
            messages.sendto(f"{os.getpid()} {child.pid}".encode(), address)
        if end == "computing":
            compute_long()
        time.sleep(LONG_S)


def take_much(*_: object) -> int:
    return len(bytearray(2**33))


def take_little_by_little(*_: object) -> None:
    kept: list[list[int]] = []
    while True:
        kept.append(list(range(1000)))


class Told:
    """Where calls tell their pids."""

    def __init__(self, path: Path) -> None:
        self.address = str(path / "told")
        self._messages = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._messages.bind(self.address)
        self._messages.settimeout(LONG_S)

    async def pids(self) -> list[int]:
        return await asyncio.to_thread(self.pids_now)

    def pids_now(self) -> list[int]:
        return [int(pid) for pid in self._messages.recv(100).split()]

    def close(self) -> None:
        self._messages.close()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path)
    yield told
    told.close()


def alive(pids: list[int]) -> list[int]:
    """Wait some seconds for processes to end; returns those that have not."""
    return [pid for pid in pids if not has_ended(pid)]


def has_ended(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(descriptor):  # readable as soon as the process has ended, reaped or not
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(5000))


BACKENDS: dict[str, Callable[[], Scheduler]] = {
    "forkserver": lambda: Scheduler.with_processes(4),
    "spawn": lambda: Scheduler.with_processes(4, mp_context="spawn"),
    "threads": lambda: Scheduler.with_threads(4),
}
# limits, function, how it goes on, error, events, message
ENDED: list[tuple[dict[str, Any], Callable[..., Any], str, str, list[str], str]] = [
    (
        {"wall_time": 1.5},
        have_child,
        "sleeping",
        "WallTimeoutException",
        ["pynisher-timeout", "pynisher-walltime-limit"],
        r"have_child\(\) had not returned after 1\.5 s, its limit of wall time",
    ),
    (
        {"cpu_time": 1},
        have_child,
        "computing",
        "CpuTimeoutException",
        ["pynisher-timeout", "pynisher-cputime-limit"],
        "had computed for 1 s, its limit of CPU time",
    ),
    (
        {"memory": "500 MB"},
        take_much,
        "",
        "MemoryLimitException",
        ["pynisher-memory-limit"],
        r"wanted more than 500\.0 MB, its limit of memory\. It was told: MemoryError",
    ),
    (
        {"memory": (150, "MB")},
        take_little_by_little,
        "",
        "MemoryLimitException",
        ["pynisher-memory-limit"],
        r"take_little_by_little\(\) wanted more than 150\.0 MB",
    ),
]


@pytest.fixture(params=BACKENDS)
async def scheduler(request: pytest.FixtureRequest) -> AsyncIterator[Scheduler]:
    scheduler = BACKENDS[request.param]()
    yield scheduler
    if scheduler.running():
        run = scheduler.last_run
        scheduler.stop(wait=False)
        await run.over()


async def test_each_limit_ends_the_call_and_what_it_started_and_nothing_else(
    scheduler: Scheduler, told: Told
):
    run = scheduler.start()
    tasks, futures, noted = [], [], list[list[Any]]()
    for limits, fn, end, *_ in ENDED:
        task = scheduler.task(fn, plugins=ResourceLimits(**limits))
        noted.append(note_events(task))
        tasks.append(task)
        futures.append(task.submit(told.address, end))
    pids = await told.pids() + await told.pids()
    workers = sorted((w.name, w.pid) for w in scheduler.snapshot().workers)
    await asyncio.wait_for(scheduler.gather(futures, return_exceptions=True), LONG_S)
    for task, future, events, (_, _, _, kind, names, message) in zip(
        tasks, futures, noted, ENDED, strict=True
    ):
        error = future.exception()
        assert type(error) is getattr(ResourceLimits, kind)
        with pytest.raises(getattr(pynisher, kind), match=message):
            raise error
        assert events == [(name, error) for name in (*names, "on_exception")]
        assert task.plugins[0].state()["Ended calls"] == 1
    assert len(pids) == 4
    assert await asyncio.to_thread(alive, pids) == []
    assert await asyncio.wait_for(scheduler.submit(double, 4), LONG_S) == 8
    assert sorted((w.name, w.pid) for w in scheduler.snapshot().workers) == workers
    run.stop()
    await run


def note_events(task: Any) -> list[Any]:
    noted: list[Any] = []
    for name in [spec.name for spec in task.plugins[0].events()] + ["on_exception"]:
        task.on(name, lambda error, *, name=name: noted.append((name, error)))
    return noted


def test_its_errors_are_those_that_others_catch_as_well():
    for error, others in (
        (ResourceLimits.WallTimeoutException, (TimeoutError, pynisher.WallTimeoutException)),
        (ResourceLimits.CpuTimeoutException, (TimeoutError, pynisher.CpuTimeoutException)),
        (ResourceLimits.MemoryLimitException, (MemoryError, pynisher.MemoryLimitException)),
    ):
        assert issubclass(error, (AmltkError,))
        for other in (*others, ResourceLimits.Exception, pynisher.PynisherException):
            assert issubclass(error, other)
    assert PynisherPlugin is ResourceLimits
    assert PynisherPlugin.PynisherException is ResourceLimits.Exception


def test_a_policy_for_its_errors_only():
    scheduler = Scheduler.with_threads(1)
    limited = scheduler.task(sleep_long, plugins=ResourceLimits(wall_time=0.2))
    policy = {ResourceLimits.Exception: "continue", Exception: "raise"}
    scheduler.on_start(lambda: limited.submit())
    assert scheduler.run(on_exception=policy, display=False) == ExitCode.EXHAUSTED
    assert limited.event_counts["on_exception"] == 1
    unlucky = scheduler.task(bad_luck, plugins=ResourceLimits(wall_time=LONG_S))
    scheduler.on_start(lambda: unlucky.submit(1))
    with pytest.raises(OutOfLuck):
        scheduler.run(on_exception=policy, display=False)


# --- what is left ---------------------------------------------------------------------------


async def test_stop_now_takes_the_child_along(scheduler: Scheduler, told: Told):
    task = scheduler.task(have_child, plugins=ResourceLimits(wall_time=LONG_S))
    run = scheduler.start()
    future = task.submit(told.address, "sleeping")
    pids = await told.pids()
    run.stop(wait=False)
    await run
    assert future.cancelled()
    assert await asyncio.to_thread(alive, pids) == []


async def test_cancel_takes_the_child_along(told: Told):
    scheduler = Scheduler.with_processes(1)
    task = scheduler.task(have_child, plugins=ResourceLimits(wall_time=LONG_S))
    run = scheduler.start(end_on_empty=True)
    future = task.submit(told.address, "sleeping")
    pids = await told.pids()
    assert future.cancel()
    await run
    assert await asyncio.to_thread(alive, pids) == []


@pytest.mark.skipif(sys.platform != "linux", reason="nothing else tells a child of its parent")
async def test_the_child_of_a_worker_that_is_killed_goes_as_well(told: Told):
    scheduler = Scheduler.with_processes(1)
    task = scheduler.task(have_child, plugins=ResourceLimits(wall_time=LONG_S))
    run = scheduler.start(end_on_empty=True)
    future = task.submit(told.address, "sleeping")
    child, grandchild = await told.pids()
    (worker,) = scheduler.snapshot().workers
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="killed by SIGKILL"):
        await asyncio.wait_for(future, LONG_S)
    assert await asyncio.to_thread(alive, [child]) == []
    os.kill(grandchild, signal.SIGKILL)  # nobody was left to do it
    await run


def test_an_interrupt_of_a_sequential_call_ends_it(told: Told):
    pids: list[int] = []

    def interrupt() -> None:
        pids.extend(told.pids_now())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        Limited(have_child, Limits(None, None, LONG_S))(told.address, "sleeping")
    assert len(pids) == 2
    assert alive(pids) == []


EXITING = """
import asyncio, sys
from pathlib import Path
from amltk_nb import Scheduler
from amltk_nb.scheduling.plugins.resources import ResourceLimits
from tests.plugins.test_resources import LONG_S, Told, have_child

async def main():
    told = Told(Path(sys.argv[1]))
    scheduler = Scheduler.with_threads(1)
    task = scheduler.task(have_child, plugins=ResourceLimits(wall_time=LONG_S))
    scheduler.start()
    task.submit(told.address, "sleeping")
    print(*await told.pids(), flush=True)
    sys.exit(7)

asyncio.run(main())
"""


def test_an_interpreter_that_exits_does_not_wait_for_a_limited_call(tmp_path: Path):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", EXITING, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    assert done.returncode == 7
    assert time.monotonic() - began < LONG_S / 2
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert alive(pids) == []


# --- what a call can tell -------------------------------------------------------------------


async def test_what_it_printed_before_it_was_ended_is_not_lost():
    scheduler = Scheduler.with_processes(1)
    task = scheduler.task(sleep_long, plugins=ResourceLimits(wall_time=1))
    run = scheduler.start(end_on_empty=True)
    future = task.submit()
    await run
    assert future.call.output == "before\n"


async def test_on_threads_it_prints_where_the_thread_would(capsys: pytest.CaptureFixture[str]):
    scheduler = Scheduler.with_threads(1)
    ended = scheduler.task(sleep_long, plugins=ResourceLimits(wall_time=1))
    noisy = scheduler.task(print, plugins=ResourceLimits(wall_time=LONG_S))
    run = scheduler.start(end_on_empty=True)
    ended.submit()
    await run
    assert capsys.readouterr().out == "before\n"
    run = scheduler.start(end_on_empty=True)
    noisy.submit("x" * 100_000)
    await run
    assert capsys.readouterr().out == "x" * 65_536 + "\n… 34,465 bytes left out …\n"


async def test_an_error_brings_its_traceback(scheduler: Scheduler):
    task = scheduler.task(bad_luck, plugins=ResourceLimits(**ENOUGH))
    run = scheduler.start(end_on_empty=True)
    future = task.submit(7)
    await run
    text = "".join(traceback.format_exception(future.exception()))
    assert "raise OutOfLuck(x)" in text
    assert "in bad_luck" in text
    assert task.event_counts["pynisher-timeout"] == 0


def die() -> None:
    os._exit(3)


def abort() -> None:
    os.abort()


def out_of_memory_of_its_own() -> None:
    raise MemoryError("not the limit's")


def start_one() -> int:
    child = multiprocessing.get_context("fork").Process(target=os._exit, args=(5,))
    child.start()
    child.join()
    return child.exitcode


async def test_other_ends_are_not_taken_for_limits():
    scheduler = Scheduler.with_threads(2)
    run = scheduler.start()
    died = scheduler.task(die, plugins=ResourceLimits(**ENOUGH)).submit()
    with pytest.raises(WorkerDiedError, match=r"die\(\) within limits died: exit code 3"):
        await asyncio.wait_for(died, LONG_S)
    crashed = scheduler.task(abort, plugins=ResourceLimits(wall_time=LONG_S)).submit()
    with pytest.raises(WorkerDiedError, match="killed by SIGABRT"):
        await asyncio.wait_for(crashed, LONG_S)
    own = scheduler.task(out_of_memory_of_its_own, plugins=ResourceLimits(cpu_time=LONG_S)).submit()
    with pytest.raises(MemoryError, match="not the limit's") as caught:
        await asyncio.wait_for(own, LONG_S)
    assert type(caught.value) is MemoryError
    unpicklable = scheduler.task(threading.Lock, plugins=ResourceLimits(**ENOUGH)).submit()
    with pytest.raises(NotPicklableError, match=r"result of .*lock.* cannot be pickled"):
        await asyncio.wait_for(unpicklable, LONG_S)
    run.stop()
    await run


async def test_an_abort_within_a_memory_limit_counts_as_one():
    scheduler = Scheduler.with_threads(1)
    run = scheduler.start()
    aborted = scheduler.task(abort, plugins=ResourceLimits(memory="1 GB")).submit()
    with pytest.raises(ResourceLimits.MemoryLimitException):
        await asyncio.wait_for(aborted, LONG_S)
    run.stop()
    await run


async def test_a_call_may_start_processes_and_has_its_environment(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AMLTK_NB_TEST", "1")
    run = scheduler.start()
    started = scheduler.task(start_one, plugins=ResourceLimits(**ENOUGH)).submit()
    assert await asyncio.wait_for(started, LONG_S) == 5
    told = scheduler.task(os.getenv, plugins=ResourceLimits(**ENOUGH)).submit("AMLTK_NB_TEST")
    assert await asyncio.wait_for(told, LONG_S) == "1"
    run.stop()
    await run


async def test_arrays_arrive_writable():
    import numpy as np

    def fill(array: Any) -> Any:
        array[:] = 7
        return array

    scheduler = Scheduler.with_threads(1)
    run = scheduler.start()
    task = scheduler.task(fill, plugins=ResourceLimits(wall_time=LONG_S))
    given = np.zeros(100_000)
    filled = await asyncio.wait_for(task.submit(given), LONG_S)
    filled += 1
    assert (given.max(), filled.min()) == (0, 8)
    run.stop()
    await run


# --- limits as they are given ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({"memory": 1000}, Limits(1000, None, None)),
        ({"memory": (1, "KB")}, Limits(1024, None, None)),
        ({"memory": "500MB"}, Limits(500 * 2**20, None, None)),
        ({"memory_limit": "1.5 GiB"}, Limits(3 * 2**29, None, None)),
        ({"cpu_time": 2.1}, Limits(None, 3, None)),
        ({"cputime_limit": (1, "m")}, Limits(None, 60, None)),
        ({"wall_time": "2m"}, Limits(None, None, 120.0)),
        ({"walltime_limit": "250 ms"}, Limits(None, None, 0.25)),
        ({"wall_time": "1e1 S"}, Limits(None, None, 10.0)),
        ({}, Limits(None, None, None)),
    ],
)
def test_units(given: dict[str, Any], limits: Limits):
    assert ResourceLimits(**given).limits == limits


@pytest.mark.parametrize("name", ["memory", "cpu_time", "wall_time"])
@pytest.mark.parametrize(
    "value", [0, -1, math.inf, math.nan, True, "much", "", "1.2.3", (1,), (1, 2), ("1", "s"), [1]]
)
def test_a_limit_that_means_nothing(name: str, value: Any):
    with pytest.raises(ValueError, match=f"{name}="):
        ResourceLimits(**{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": "3 parsecs"}, "no unit 'parsecs' is known; use b, kb"),
        ({"memory": (3, "s")}, "no unit 's' is known"),
        ({"wall_time": (3, "MB")}, "no unit 'MB' is known; use ms, s"),
    ],
)
def test_an_unknown_unit(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ResourceLimits(**given)


def test_one_limit_by_two_names():
    with pytest.raises(TypeError, match="memory=1 and memory_limit=2 mean the same"):
        ResourceLimits(memory=1, memory_limit=2)


def test_what_the_system_supports(monkeypatch: pytest.MonkeyPatch):
    kinds = ("memory", "cpu_time", "wall_time")
    assert [ResourceLimits.supports(kind) for kind in kinds] == [True, True, True]
    with pytest.raises(ValueError, match="ask for 'memory'"):
        ResourceLimits.supports("patience")
    monkeypatch.setattr(sys, "platform", "darwin")  # all that pynisher looks at
    assert [ResourceLimits.supports(kind) for kind in kinds] == [False, True, True]
    with pytest.raises(PluginError, match=r"cannot limit the memory.*memory='1 GB'.*leave it out"):
        ResourceLimits("1 GB")
    monkeypatch.setattr(sys, "platform", "plan9")
    assert not ResourceLimits.supports("wall_time")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynisher", None)
    with pytest.raises(MissingExtraError, match=r"needs pynisher.*amltk-nb\[limits\]"):
        ResourceLimits(wall_time=1)
    with pytest.raises(MissingExtraError, match="limits"):
        _ = ResourceLimits.Exception


def test_state_shows_the_limits():
    assert ResourceLimits("1.5 GB", (90, "s"), 0.5).state() == {
        "Memory": "1.5 GB",
        "CPU time": "90 s",
        "Wall time": "0.5 s",
        "Ended calls": 0,
    }
    assert double(2) == 4


async def test_a_child_that_ends_in_the_moment_it_is_ended_has_said_its_word(
    monkeypatch: pytest.MonkeyPatch,
):
    def gone(process: Any, _: int) -> None:
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "send_signal", gone)
    scheduler = Scheduler.with_threads(1)
    returning = scheduler.task(abs, plugins=ResourceLimits(**ENOUGH))
    dying = scheduler.task(os._exit, plugins=ResourceLimits(**ENOUGH))
    run = scheduler.start()
    assert await asyncio.wait_for(returning.submit(-3), LONG_S) == 3
    with pytest.raises(WorkerDiedError, match="exit code 5"):
        await asyncio.wait_for(dying.submit(5), LONG_S)
    run.stop()
    await run
