"""Calls in processes of loky."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import loky
import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import CannotEndError, MissingExtraError, WorkerDiedError
from tests.executors.contract import LONG_S, Contract, Gate, square, wait_at


@pytest.fixture(scope="module", autouse=True)
def no_resource_tracker_is_left() -> Iterator[None]:
    yield
    from loky.backend import resource_tracker

    tracker = resource_tracker._resource_tracker
    if tracker._pid is not None:  # it would live as long as we do
        os.close(tracker._fd)
        os.waitpid(tracker._pid, 0)
        tracker._fd = tracker._pid = None


def mark_and_wait(marks: str, gate: str, text: str) -> str:
    with open(marks, "a") as file:
        file.write(f"{os.getpid()}\n")
    return wait_at(gate, text)


def note(path: str, text: str) -> str:
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return text


def pool_sum(start_method: str) -> int:
    with multiprocessing.get_context(start_method).Pool(1) as pool:
        return sum(pool.map(abs, [-1, -2, -3]))


class TestLoky(Contract):
    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_loky(2)

    async def test_a_dead_worker_costs_the_calls_under_way_and_no_others(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        marks = tmp_path / "marks"
        run = scheduler.start(end_on_empty=True)
        under_way = [
            scheduler.submit(mark_and_wait, str(marks), gate.path, name) for name in ("a", "b")
        ]
        queued = scheduler.map(square, range(5))
        await gate.arrived(2)
        pids = [int(line) for line in marks.read_text().split()]
        os.kill(pids[0], signal.SIGKILL)
        errors = await scheduler.gather(under_way, return_exceptions=True)
        assert [type(error) for error in errors] == [WorkerDiedError, WorkerDiedError]
        assert "SIGKILL" in str(errors[0])
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
        assert [future.result() for future in queued] == [0, 1, 4, 9, 16]
        assert len(set(pids)) == len(marks.read_text().split()) == 2  # nothing ran a second time

    async def test_calls_ahead_can_be_cancelled_and_outlive_a_dead_worker(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        marks, ahead = tmp_path / "marks", tmp_path / "ahead"
        scheduler.backend.n_ahead = 2  # type: ignore[attr-defined]
        run = scheduler.start()
        warm = [scheduler.submit(square, n) for n in range(2)]
        assert await scheduler.gather(warm) == [0, 1]  # this executor is of use
        running = [
            scheduler.submit(mark_and_wait, str(marks), gate.path, name) for name in ("a", "b")
        ]
        await gate.arrived(2)
        behind = [scheduler.submit(note, str(ahead), name) for name in ("c", "d")]
        async with asyncio.timeout(LONG_S):
            while len(scheduler.backend._session._flights) < 4:  # type: ignore[attr-defined]
                await asyncio.sleep(0.001)
        with pytest.raises(CannotEndError):
            scheduler.cancel(running[0])
        assert scheduler.cancel(behind[0]) is True
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(behind[0], LONG_S)
        os.kill(int(marks.read_text().split()[0]), signal.SIGKILL)
        errors = await scheduler.gather(running, return_exceptions=True)
        assert [type(error) for error in errors] == [WorkerDiedError, WorkerDiedError]
        assert await asyncio.wait_for(behind[1], LONG_S) == "d"
        run.stop()
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
        assert ahead.read_text() == "d\n"
        assert len(marks.read_text().split()) == 2

    async def test_an_interrupt_of_all_processes_leaves_calls_alone(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        marks = tmp_path / "marks"
        run = scheduler.start(end_on_empty=True)
        future = scheduler.submit(mark_and_wait, str(marks), gate.path, "went on")
        await gate.arrived(1)
        os.kill(int(marks.read_text()), signal.SIGINT)
        gate.open()
        assert await future == "went on"
        assert await run == ExitCode.EXHAUSTED

    async def test_a_call_may_start_processes_in_the_standard_ways(self, scheduler: Scheduler):
        run = scheduler.start(end_on_empty=True)
        futures = scheduler.map(pool_sum, ["forkserver", "spawn"])
        assert await scheduler.gather(futures) == [6, 6]
        assert await run == ExitCode.EXHAUSTED

    async def test_an_idle_worker_that_dies_is_replaced(self, scheduler: Scheduler):
        run = scheduler.start()
        pid = await scheduler.submit(os.getpid)
        os.kill(pid, signal.SIGKILL)
        outcomes = []
        while not outcomes or isinstance(outcomes[-1], WorkerDiedError):
            outcomes += await scheduler.gather(
                [scheduler.submit(square, 3)], return_exceptions=True
            )
        assert outcomes[-1] == 9
        assert len(outcomes) <= 2  # the one that found out, at most
        run.stop()
        await run


async def test_it_is_an_executor_of_its_own():
    shared = loky.get_reusable_executor(max_workers=1)
    theirs = shared.submit(os.getpid).result()
    scheduler = Scheduler.with_loky(2)
    scheduler.start(end_on_empty=True)
    ours = await scheduler.submit(os.getpid)
    await scheduler.last_run
    assert ours != theirs
    assert shared.submit(os.getpid).result() == theirs  # neither closed nor resized
    shared.shutdown(wait=True, kill_workers=True)


async def test_its_options_and_what_it_says_of_itself():
    scheduler = Scheduler.with_loky(
        2, env={"AMLTK_NB_HERE": "yes"}, initializer=os.putenv, initargs=("AMLTK_NB_TOO", "yes")
    )
    run = scheduler.start()
    assert await scheduler.submit(os.getenv, "AMLTK_NB_HERE") == "yes"
    told = scheduler.submit(subprocess.check_output, ["printenv", "AMLTK_NB_TOO"])
    assert await told == b"yes\n"
    backend = scheduler.snapshot().backend
    assert (backend.name, backend.options, backend.n_workers) == (
        "LokyExecutor",
        {"max_workers": 2},
        2,
    )
    assert backend.waiting_since is None
    assert len(scheduler.backend.workers()) == 2
    assert scheduler.records()[0]["worker"].startswith("pid-")
    run.stop()
    await run
    assert scheduler.backend.workers() == ()


@pytest.mark.parametrize("wrong", [0, "2", True])
def test_a_wrong_number_of_workers_is_refused(wrong: Any):
    with pytest.raises((ValueError, TypeError), match="max_workers="):
        Scheduler.with_loky(wrong)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "loky", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amltk-nb\[loky\]'"):
        Scheduler.with_loky()
