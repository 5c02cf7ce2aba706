"""The journal: what is in it after any end of a run or a process, what is refused, what is kept."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amltk_nb import ExitCode, Limiter, Retry, Scheduler
from amltk_nb.errors import (
    CallNotFoundError,
    JournalError,
    JournalInUseError,
    SchedulerNotRunningError,
)
from amltk_nb.scheduling.journal import Journal
from tests.scheduling.conftest import ByHand, settled, turn_until

DEAD_S = 30

# Opening a journal and asking it reads a file: that is what its user asks for. What the engine
# does by itself must not, see the first test.
may_block = pytest.mark.may_block


def square(x: int) -> int:
    return x * x


def refuse(x: int) -> int:
    raise ValueError(f"not {x}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
def make(make_by_hand: Callable[..., ByHand], path: Path) -> Callable[..., ByHand]:
    """A scheduler with a journal; each one made closes the journal of the one before."""
    made: list[ByHand] = []

    def make(**options: Any) -> ByHand:
        for former in made:
            former.scheduler.journal.close()
        made.append(make_by_hand(journal=path, **options))
        return made[-1]

    return make


async def vanish(by_hand: ByHand) -> None:
    """End a run as the end of its process does, without leave."""
    by_hand.scheduler.last_run.end_now(ExitCode.CANCELLED, "its process ended")
    await settled()


# ------------------------------------------------------------ what is recorded


async def test_recording_never_blocks_the_loop(path: Path):
    scheduler = await asyncio.to_thread(Scheduler.with_threads, 2, journal=path)
    run = scheduler.start(end_on_empty=True)
    scheduler.map(square, range(100))
    assert await run == ExitCode.EXHAUSTED
    states = await asyncio.to_thread(lambda: [r["state"] for r in scheduler.journal.records()])
    assert states == ["done"] * 100
    await asyncio.to_thread(scheduler.journal.close)


@may_block
async def test_it_tells_what_the_scheduler_tells(make: Callable[..., ByHand]):
    by_hand = make(n_workers=3)
    scheduler = by_hand.scheduler
    run = by_hand.start()
    task = scheduler.task(square)
    done, failed, ended = task.submit(3), scheduler.submit(refuse, 1), scheduler.submit(square, 5)
    waiting = scheduler.submit(square, x=6)
    by_hand.backend.finish(done, 9, started_at=1_001.0, seconds=0.5, output="hello\n")
    by_hand.backend.fail(failed, ValueError("not 1"))
    by_hand.backend.cancel(ended)
    waiting.cancel()
    await settled()
    left = scheduler.submit(square, 7)
    journal = scheduler.journal
    told = {record["id"]: record for record in scheduler.records()}
    for record in journal.records():
        if record["id"] != left.call.id:
            assert record == told[record["id"]] | {"ended": record["ended"]}
    assert [r["state"] for r in journal.records()] == [
        "done", "failed", "cancelled", "cancelled", "unfinished",
    ]  # fmt: skip
    for state, ids in {"done": [1], "failed": [2], "cancelled": [3, 4], "unfinished": [5]}.items():
        assert [record["id"] for record in journal.records(state)] == ids
    with pytest.raises(ValueError, match="are done, failed, cancelled, unfinished"):
        journal.records("nonsense")
    by_hand.backend.finish(by_hand.backend.calls[0], 49)
    run.stop()
    await run
    assert [record["id"] for record in journal.records("unfinished")] == []


@may_block
async def test_results_and_errors_are_loaded_by_id(make: Callable[..., ByHand]):
    by_hand = make(n_workers=4)
    by_hand.start()
    futures = [by_hand.scheduler.submit(square, n) for n in range(4)]
    array = np.arange(1_000)
    by_hand.backend.finish(futures[0], array)
    by_hand.backend.fail(futures[1], KeyError("no"))
    by_hand.backend.cancel(futures[2])
    await settled()
    journal = by_hand.scheduler.journal
    loaded = journal.result(1)
    assert np.array_equal(loaded, array)
    loaded[0] = 7  # what is loaded is the caller's own
    with pytest.raises(KeyError, match="no"):
        journal.result(2)
    for call_id, message in ((3, "was cancelled"), (4, "no recorded end"), (99, "No call 99")):
        with pytest.raises(CallNotFoundError, match=message):
            journal.result(call_id)


@may_block
async def test_a_large_result_is_told_when_it_is_written(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    told: list[Any] = []

    @by_hand.scheduler.on_future_result
    def note(future: Any, value: Any) -> None:
        told.append(by_hand.scheduler.journal.result(future.call.id).sum())
        value[:] = 0  # too late to matter

    future = by_hand.scheduler.submit(square, 1)
    by_hand.backend.finish(future, np.ones(1_000_000))
    await asyncio.wait_for(asyncio.wait([future]), DEAD_S)
    await settled()
    assert told == [1_000_000]
    assert by_hand.scheduler.journal.result(1).sum() == 1_000_000


@may_block
async def test_what_a_plugin_makes_of_an_end_is_what_is_recorded(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    task = by_hand.scheduler.task(refuse, plugins=Retry(max_attempts=2, wait=0))
    future = task.submit(1)
    by_hand.backend.fail(future, ValueError("once"))
    await turn_until(lambda: [call.id for call in by_hand.backend.calls] == [2])
    by_hand.backend.finish(by_hand.backend.calls[0], 5)
    assert await future == 5
    journal = by_hand.scheduler.journal
    told = [(r["id"], r["state"], r["attempt"], r["resubmitted_from"]) for r in journal.records()]
    assert told == [(1, "failed", 1, None), (2, "done", 2, 1)]
    assert journal.result(2) == 5


@may_block
async def test_a_retry_that_waits_is_recovered(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    task = by_hand.scheduler.task(square, plugins=Retry(max_attempts=2, wait=3600))
    by_hand.backend.fail(task.submit(8), ValueError("once"))
    await turn_until(lambda: [future.call.id for future in by_hand.scheduler.queue] == [2])
    await vanish(by_hand)
    again = make()
    again.start()
    (future,) = again.scheduler.recover()
    assert (future.call.id, future.call.fn(*future.call.args)) == (2, 64)


@may_block
async def test_lone_surrogates_do_no_harm(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    future = by_hand.scheduler.submit(square, "\ud800")
    by_hand.backend.fail(future, ValueError("\udfff"), output="\udc80")
    await settled()
    (record,) = by_hand.scheduler.journal.records()
    assert record["state"] == "failed"
    assert record["error"] == "ValueError: \\udfff"
    assert by_hand.scheduler.journal.n_unwritten == 0


# ------------------------------------------------------------ recovering


@may_block
async def test_what_did_not_end_runs_again_under_its_id(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    futures = [by_hand.scheduler.submit(square, n) for n in range(5)]
    by_hand.backend.finish(futures[1], 1)
    await settled()
    await vanish(by_hand)
    assert all(future.cancelled() for future in futures if future is not futures[1])

    again = make()
    with pytest.raises(SchedulerNotRunningError):
        again.scheduler.recover()
    again.start()
    fresh = again.scheduler.submit(square, 100)
    assert fresh.call.id == 6
    recovered = again.scheduler.recover()
    assert [future.call.id for future in recovered] == [1, 3, 4, 5]
    assert [future.call.args for future in recovered] == [(0,), (2,), (3,), (4,)]
    assert {future.call.attempt for future in recovered} == {2}
    assert again.scheduler.recover() == []  # they are under way
    while again.backend.calls:
        for call in again.backend.calls:
            again.backend.finish(call, call.fn(*call.args))
        await settled()
    assert [await future for future in recovered] == [0, 4, 9, 16]
    assert again.scheduler.recover() == []
    assert [again.scheduler.journal.result(n) for n in (1, 2, 3, 4, 5)] == [0, 1, 4, 9, 16]
    assert [r["attempt"] for r in again.scheduler.journal.records()] == [2, 1, 2, 2, 2, 1]


@may_block
async def test_a_recovered_call_belongs_to_the_task_of_its_ref(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    by_hand.scheduler.task(square).submit(3)
    by_hand.scheduler.task(refuse).submit(4)
    await vanish(by_hand)
    again = make()
    task = again.scheduler.task(square)
    told: list[tuple[Any, ...]] = []
    task.on_submitted(lambda future, x: told.append(("submitted", x)))
    task.on_returned(lambda value: told.append(("returned", value)))
    again.start()
    mine, nobodys = again.scheduler.recover()
    assert (mine.call.task, nobodys.call.task) == (task, None)
    again.backend.finish(mine, 9)
    await settled()
    assert told == [("submitted", 3), ("returned", 9)]


@may_block
async def test_what_a_plugin_refuses_stays_unfinished(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    task = by_hand.scheduler.task(square)
    for n in range(3):
        task.submit(n)
    await vanish(by_hand)
    again = make()
    again.scheduler.task(square, plugins=Limiter(max_calls=2))
    again.start()
    assert [future.call.id for future in again.scheduler.recover()] == [1, 2]
    assert [r["id"] for r in again.scheduler.journal.records("unfinished")] == [1, 2, 3]


@may_block
async def test_stopping_ends_calls_for_good(make: Callable[..., ByHand]):
    by_hand = make()
    run = by_hand.start()
    for n in range(4):
        by_hand.scheduler.submit(square, n)
    run.stop(wait=False)
    await run
    again = make()
    again.start()
    assert again.scheduler.recover() == []
    assert [r["state"] for r in again.scheduler.journal.records()] == ["cancelled"] * 4


@may_block
async def test_a_second_run_goes_on_in_the_same_file(make: Callable[..., ByHand]):
    by_hand = make()
    for n in (1, 2):
        run = by_hand.start()
        by_hand.backend.finish(by_hand.scheduler.submit(square, n), n)
        await settled()
        run.stop()
        await run
    assert [(r["id"], r["state"]) for r in by_hand.scheduler.journal.records()] == [
        (1, "done"),
        (2, "done"),
    ]


@may_block
async def test_arguments_that_cannot_be_stored(path: Path):
    scheduler = Scheduler.with_threads(1, journal=path)
    run, lock = scheduler.start(), threading.Lock()
    release = threading.Event()

    def hold(lock: Any) -> str:
        release.wait(DEAD_S)
        return "held"

    held = scheduler.submit(hold, lock)
    waiting = scheduler.submit(hold, lock)
    scheduler.pause()
    release.set()
    assert await held == "held"
    assert scheduler.journal.result(1) == "held"  # its end can be, all the same
    run.end_now(ExitCode.CANCELLED, "its process ended")
    scheduler.journal.close()
    assert waiting.cancelled()

    again = Scheduler.with_threads(1, journal=path)
    run = again.start()
    (future,) = again.recover()
    with pytest.raises(JournalError, match=r"Call 2 of hold\(\) cannot be run again: .*Event"):
        await future
    run.stop()
    await run
    again.journal.close()


def test_recovering_without_a_journal_says_how_to_have_one(by_hand: ByHand):
    with pytest.raises(JournalError, match=r'journal="run.db"'):
        by_hand.scheduler.recover()


# ------------------------------------------------------------ files


def refused(path: Path, message: str, kind: type[Exception] = JournalError) -> None:
    before = path.read_bytes()
    with pytest.raises(kind, match=message):
        Scheduler.with_threads(1, journal=path)
    assert path.read_bytes() == before


def a_journal(path: Path, n_calls: int = 200) -> None:
    async def main() -> None:
        scheduler = Scheduler.with_sequential(journal=path)
        run = scheduler.start(end_on_empty=True)
        scheduler.map(square, range(n_calls))
        await run
        scheduler.journal.close()

    asyncio.run(main())


def test_files_of_others_are_refused_and_left_alone(path: Path):
    path.write_text("my thesis")
    refused(path, "is not a journal")
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    refused(path, "is not a journal")


def test_a_damaged_file_is_refused_and_left_alone(path: Path):
    a_journal(path)
    content = bytearray(path.read_bytes())
    content[4096 : 3 * 4096] = os.urandom(2 * 4096)
    path.write_bytes(content)
    refused(path, "is damaged")
    path.write_bytes(content[: len(content) // 2])
    refused(path, "is damaged")


@pytest.mark.parametrize("version", [0, 1, 77])
def test_another_format_is_refused_and_left_alone(path: Path, version: int):
    a_journal(path, 1)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    refused(path, f"has format {version}")


def test_two_on_one_file_are_refused_while_the_first_lives(path: Path):
    first = Scheduler.with_threads(1, journal=path)
    with pytest.raises(JournalInUseError, match="open in another scheduler"):
        Scheduler.with_threads(1, journal=path)
    code = f"from amltk_nb import Scheduler; Scheduler.with_threads(1, journal={str(path)!r})"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEAD_S
    )
    assert "JournalInUseError" in other.stderr
    first.journal.close()
    Scheduler.with_threads(1, journal=path).journal.close()


def test_a_scheduler_that_is_gone_leaves_its_file_to_the_next(path: Path):
    scheduler = Scheduler.with_threads(1, journal=path)
    writer = scheduler.journal._file._writer
    del scheduler
    gc.collect()
    writer.join(DEAD_S)
    assert not writer.is_alive()
    Scheduler.with_threads(1, journal=path).journal.close()


def test_where_no_file_can_be_made(tmp_path: Path):
    with pytest.raises(JournalError, match=r"cannot be written: .*Is its folder there"):
        Scheduler.with_threads(1, journal=tmp_path / "nowhere" / "run.db")
    with pytest.raises(JournalError, match="cannot be written"):
        Scheduler.with_threads(1, journal=tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_folder(small_disk: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalError, match="cannot be written"):
        Scheduler.with_threads(1, journal=small_disk / "run.db")


@may_block
async def test_a_full_disk_stops_no_run_and_is_told_once(small_disk: Path):
    scheduler = Scheduler.with_sequential(journal=small_disk / "run.db")
    run = scheduler.start()
    assert await scheduler.submit(square, 2) == 4
    scheduler.journal.flush()
    heavy = small_disk / "ballast"
    with heavy.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    futures = scheduler.map(square, range(300))
    assert await scheduler.gather(futures) == [n * n for n in range(300)]
    errors = [line.text for line in scheduler.history.log_tail if line.level == "error"]
    while not errors:  # the writer's thread is about to find out
        await asyncio.sleep(0.01)
        errors = [line.text for line in scheduler.history.log_tail if line.level == "error"]
    assert len(errors) == 1
    assert "cannot be written" in errors[0]
    assert "full" in errors[0]
    heavy.unlink()
    run.stop()
    await run
    while not any("written again" in line.text for line in scheduler.history.log_tail):
        await asyncio.sleep(0.05)
    assert len(scheduler.journal.records("done")) == 301
    assert scheduler.journal.n_unwritten == 0
    scheduler.journal.close()


# ------------------------------------------------------------ the end of a process

_LIFE = """
import asyncio, os, sys
from amltk_nb import Scheduler

def work(n):
    with open(sys.argv[2], "a") as marks:
        marks.write(f"{n}\\n")
    return n * n

async def main():
    scheduler = Scheduler.with_processes(2, journal=sys.argv[1])
    run = scheduler.start(end_on_empty=True)
    known = scheduler.journal.records()
    futures = scheduler.recover() if known else [scheduler.submit(work, n) for n in range(60)]
    done = 0
    for future in asyncio.as_completed(futures):
        await future
        done += 1
        if done == int(sys.argv[3]):
            os.kill(os.getpid(), 9)
    await run
    results = [scheduler.journal.result(r["id"]) for r in scheduler.journal.records("done")]
    assert results == [n * n for n in range(60)], results

asyncio.run(main())
"""


def test_killed_again_and_again_no_recorded_call_runs_twice(path: Path, tmp_path: Path):
    marks = tmp_path / "marks"
    script = tmp_path / "life.py"
    script.write_text(_LIFE.replace("sys.argv[2]", repr(str(marks))))
    recorded: set[int] = set()
    for kill_at in ("7", "15", "1", "never"):
        n_before = len(marks.read_text().splitlines()) if marks.exists() else 0
        argv = [sys.executable, str(script), str(path), str(marks), kill_at.replace("never", "-1")]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert ended.returncode == (0 if kill_at == "never" else -signal.SIGKILL), ended.stderr
        began = [int(line) for line in marks.read_text().splitlines()[n_before:]]
        assert recorded.isdisjoint(began)
        journal = Journal(path)
        recorded = {record["id"] - 1 for record in journal.records("done")}
        journal.close()
    assert recorded == set(range(60))
