"""Calls that wait at a Dask worker, and answers that die with one: what runs, told by marks."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import CannotEndError, WorkerDiedError
from amltk_nb.scheduling.executors.dask_connection import DaskConnection
from tests.executors.contract import LONG_S, Gate, open_gate, wait_at
from tests.executors.dask_processes import DaskProcesses, dask_processes
from tests.executors.driver import survivors


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async with open_gate() as gate:
        yield gate


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask"), 1) as processes:
        yield processes


@pytest.fixture
def ours() -> Scheduler:
    """One whose only worker gets three calls at a time."""
    return Scheduler.with_dask(n_workers=1, n_ahead=2)


def mark(marks: str, text: str, gate: str | None = None) -> str:
    with open(marks, "a") as file:
        file.write(f"{text} {os.getpid()}\n")
    return text if gate is None else wait_at(gate, text)


def marked(marks: Path) -> list[str]:
    return sorted(line.split()[0] for line in marks.read_text().splitlines())


def pid_of(marks: Path, text: str) -> int:
    return int(dict(line.split() for line in marks.read_text().splitlines())[text])


async def one_runs_and_two_wait(
    scheduler: Scheduler, gate: Gate, marks: Path
) -> tuple[Any, Any, Any]:
    first = scheduler.submit(mark, str(marks), "first", gate.path)
    await gate.arrived(1)
    second, third = (scheduler.submit(mark, str(marks), text) for text in ("second", "third"))
    await has_at_a_worker(scheduler, 2)  # the third is with Dask's scheduler
    return first, second, third


async def has_at_a_worker(scheduler: Scheduler, n: int) -> None:
    """Wait until Dask says that so many calls are with a worker."""
    async with asyncio.timeout(LONG_S):
        while sum(len(w.running or ()) for w in scheduler.backend._session._workers) < n:  # type: ignore[attr-defined]
            scheduler.backend._session.changed()  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)


async def test_one_that_waits_at_a_worker_is_cancelled_and_never_runs(
    ours: Scheduler, gate: Gate, tmp_path: Path
):
    marks = tmp_path / "marks"
    run = ours.start(end_on_empty=True)
    first, second, third = await one_runs_and_two_wait(ours, gate, marks)
    assert ours.cancel(second) is True
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(second, LONG_S)
    gate.open()
    assert await asyncio.wait_for(ours.gather([first, third]), LONG_S) == ["first", "third"]
    assert await run == ExitCode.EXHAUSTED
    assert marked(marks) == ["first", "third"]
    assert len({line.split()[1] for line in marks.read_text().splitlines()}) == 1  # nobody died


async def test_one_that_begins_just_when_it_is_dropped_is_killed(
    ours: Scheduler, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Dask's scheduler did not know of it yet, and it runs when its worker is asked to drop it."""
    known = DaskConnection._worker_of
    n_asked = itertools.count()
    monkeypatch.setattr(
        DaskConnection,
        "_worker_of",
        lambda self, handle: known(self, handle) if next(n_asked) else None,
    )
    marks = tmp_path / "marks"
    run = ours.start(end_on_empty=True)
    victim = ours.submit(mark, str(marks), "victim", gate.path)
    await gate.arrived(1)
    assert ours.cancel(victim) is True
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(victim, LONG_S)
    assert survivors([pid_of(marks, "victim")], timeout_s=0) == []
    assert await run == ExitCode.EXHAUSTED


async def test_where_nothing_that_runs_can_be_ended_what_waits_can_be_cancelled(
    cluster: DaskProcesses, gate: Gate, tmp_path: Path
):
    marks = tmp_path / "marks"
    scheduler = Scheduler.with_dask(cluster.address, n_ahead=2)
    run = scheduler.start(end_on_empty=True)
    first, second, third = await one_runs_and_two_wait(scheduler, gate, marks)
    with pytest.raises(CannotEndError):
        scheduler.cancel(first)
    assert scheduler.cancel(third) is True
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(third, LONG_S)
    gate.open()
    assert await asyncio.wait_for(scheduler.gather([first, second]), LONG_S) == ["first", "second"]
    assert await run == ExitCode.EXHAUSTED
    assert marked(marks) == ["first", "second"]


async def test_what_waits_at_a_worker_that_dies_runs_elsewhere_once(
    ours: Scheduler, gate: Gate, tmp_path: Path
):
    marks = tmp_path / "marks"
    run = ours.start(end_on_empty=True)
    first, second, third = await one_runs_and_two_wait(ours, gate, marks)
    os.kill(pid_of(marks, "first"), signal.SIGKILL)
    with pytest.raises(WorkerDiedError):
        await asyncio.wait_for(first, LONG_S)
    assert await asyncio.wait_for(ours.gather([second, third]), LONG_S) == ["second", "third"]
    assert await run == ExitCode.EXHAUSTED
    assert marked(marks) == ["first", "second", "third"]


async def test_what_waits_behind_a_call_that_is_ended_runs_once(
    ours: Scheduler, gate: Gate, tmp_path: Path
):
    marks = tmp_path / "marks"
    run = ours.start(end_on_empty=True)
    first, second, third = await one_runs_and_two_wait(ours, gate, marks)
    assert ours.cancel(first) is True
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(first, LONG_S)
    assert await asyncio.wait_for(ours.gather([second, third]), LONG_S) == ["second", "third"]
    assert await run == ExitCode.EXHAUSTED
    assert marked(marks) == ["first", "second", "third"]


def end_then_die(marks: str, gate: str, size: int) -> bytes:
    """Return, and kill this worker as soon as its scheduler has been sent that this has ended."""
    import time

    from distributed import get_worker

    worker, key = get_worker(), get_worker().get_current_task()

    def loop_has_turned() -> bool:
        turned = threading.Event()
        worker.loop.add_callback(turned.set)
        return turned.wait()

    def die() -> None:
        while worker.state.tasks[key].state != "memory" and loop_has_turned():
            time.sleep(0.001)
        while loop_has_turned() and worker.batched_stream.buffer:
            time.sleep(0.001)
        loop_has_turned()
        os.kill(os.getpid(), signal.SIGKILL)

    mark(marks, "ran", gate)
    threading.Thread(target=die).start()
    return bytes(size)


@pytest.mark.may_block  # Dask's scheduler, which must not answer meanwhile, is in this process
@pytest.mark.parametrize("size", [10, 4 << 20], ids=["sent", "fetched"])
async def test_what_has_ended_on_a_worker_that_died_since_is_not_run_again(
    gate: Gate, tmp_path: Path, size: int
):
    """Such a worker has told of the end; it is dead before Dask's scheduler hears of that."""
    marks = tmp_path / "marks"
    scheduler = Scheduler.with_dask(n_workers=2, n_ahead=0)
    run = scheduler.start()
    future = scheduler.submit(end_then_die, str(marks), gate.path, size)
    await gate.arrived(1)
    other = scheduler.submit(os.getpid)  # the other worker is there, and would run it at once
    assert await asyncio.wait_for(other, LONG_S) != pid_of(marks, "ran")
    client = next(c for c in distributed_clients() if c.status == "running")
    may_go_on = threading.Event()
    client.loop.add_callback(may_go_on.wait, LONG_S)
    gate.open()
    assert await asyncio.to_thread(survivors, [pid_of(marks, "ran")], LONG_S) == []
    may_go_on.set()
    if size == 10:
        assert await asyncio.wait_for(future, LONG_S) == bytes(10)
    else:
        with pytest.raises(WorkerDiedError, match="had run to its end"):
            await asyncio.wait_for(future, LONG_S)
    for _ in range(3):  # what came before these would have run by now
        await asyncio.wait_for(scheduler.submit(os.getpid), LONG_S)
    run.stop()
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
    assert marked(marks) == ["ran"]


def distributed_clients() -> list[Any]:
    from distributed import Client

    return list(Client._instances)
