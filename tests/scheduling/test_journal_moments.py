"""The journal at the worst moment: each test forces one interleaving of what usually just misses.

The question is always the same: does what the file says agree with what happened and was told?
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amltk_nb import ExitCode, Limiter, Retry, Scheduler
from amltk_nb.errors import JournalError
from amltk_nb.scheduling import journal_file
from amltk_nb.scheduling.journal import Journal
from amltk_nb.scheduling.journal_file import JournalFile
from tests.scheduling.conftest import ByHand, settled, turn_until

DEAD_S = 20

may_block = pytest.mark.may_block


def square(x: int) -> int:
    return x * x


def name_of(thing: Any) -> str:
    return type(thing).__name__


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
def make(make_by_hand: Callable[..., ByHand], path: Path) -> Iterator[Callable[..., ByHand]]:
    """A scheduler with a journal; each one made closes the journal of the one before."""
    made: list[ByHand] = []

    def make(**options: Any) -> ByHand:
        for former in made:
            former.scheduler.journal.close()
        made.append(make_by_hand(journal=path, **options))
        return made[-1]

    yield make
    made[-1].scheduler.journal.close()


def vanish(by_hand: ByHand) -> None:
    """End a run as the end of its process does, without leave."""
    by_hand.scheduler.last_run.end_now(ExitCode.CANCELLED, "its process ended")


def states(by_hand: ByHand) -> list[str]:
    return [record["state"] for record in by_hand.scheduler.journal.records()]


# ------------------------------------------------------------ going in


class Interrupts:
    """A value whose pickling is interrupted, as a large one's is by the interrupt button."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


class NeedsAnotherThread:
    """A value whose pickling waits for a lock of its user's."""

    def __init__(self, wait: Callable[[], bool]) -> None:
        self.wait = wait

    def __reduce__(self) -> Any:
        assert self.wait(), "the other thread could not go on"
        return int, ()


@may_block
async def test_a_submission_that_is_interrupted_leaves_nothing_behind(make: Callable[..., ByHand]):
    by_hand = make()
    run = by_hand.start(end_on_empty=True)
    with pytest.raises(KeyboardInterrupt):
        by_hand.scheduler.submit(name_of, Interrupts())
    assert by_hand.scheduler.queue == {}
    assert await asyncio.wait_for(run.over(), DEAD_S) == ExitCode.EXHAUSTED
    assert states(by_hand) == []


@may_block
async def test_pickling_an_argument_holds_up_no_other_thread(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    began, submitted = threading.Event(), threading.Event()

    def other() -> None:
        began.wait(DEAD_S)
        by_hand.scheduler.submit(square, 2)
        submitted.set()

    def wait() -> bool:
        began.set()
        return submitted.wait(DEAD_S)

    thread = threading.Thread(target=other)
    thread.start()
    by_hand.scheduler.submit(name_of, NeedsAnotherThread(wait))
    thread.join()
    assert states(by_hand) == ["unfinished"] * 2


# ------------------------------------------------------------ going out


@may_block
@pytest.mark.parametrize("how", ["cancel", "cancel_pending", "stop"])
async def test_what_is_taken_back_is_recorded_though_the_loop_is_blocked(
    make: Callable[..., ByHand], how: str
):
    by_hand = make(n_workers=1)
    run = by_hand.start()
    _, waiting = by_hand.scheduler.submit(square, 1), by_hand.scheduler.submit(square, 2)
    {
        "cancel": waiting.cancel,
        "cancel_pending": by_hand.scheduler.cancel_pending,
        "stop": run.stop,
    }[how]()
    # The loop has not turned since, as in a cell that goes on computing.
    assert states(by_hand) == ["unfinished", "cancelled"]
    vanish(by_hand)
    assert states(by_hand) == ["unfinished", "cancelled"]
    again = make()
    again.start()
    assert [future.call.id for future in again.scheduler.recover()] == [1]


@may_block
async def test_a_running_call_that_was_cancelled_stays_so_though_the_kernel_goes(
    make: Callable[..., ByHand],
):
    by_hand = make()
    by_hand.start()
    mine, other = by_hand.scheduler.submit(square, 1), by_hand.scheduler.submit(square, 2)
    assert mine.cancel()  # its worker is being ended
    vanish(by_hand)
    assert mine.cancelled()
    assert other.cancelled()
    assert states(by_hand) == ["cancelled", "unfinished"]


@may_block
@pytest.mark.parametrize("has_plugin", [False, True], ids=["plain", "with a plugin"])
@pytest.mark.parametrize("n_numbers", [3_000, 50_000, 1_000_000])
async def test_a_result_is_recorded_as_it_was_when_told(
    make: Callable[..., ByHand], has_plugin: bool, n_numbers: int
):
    by_hand = make()
    by_hand.start()
    by_hand.scheduler.on_future_result(lambda future, value: value.fill(0))
    plugins = [Retry(max_attempts=2)] if has_plugin else []
    future = by_hand.scheduler.task(square, plugins=plugins).submit(1)
    by_hand.backend.finish(future, np.ones(n_numbers))
    await asyncio.wait_for(asyncio.wait([future]), DEAD_S)
    await settled()
    assert future.result().sum() == 0
    assert by_hand.scheduler.journal.result(1).sum() == n_numbers


@may_block
@pytest.mark.parametrize("end", ["finish", "vanish"])
async def test_a_large_result_that_is_being_told_of_is_not_told_as_cancelled(
    make: Callable[..., ByHand], monkeypatch: pytest.MonkeyPatch, end: str
):
    by_hand = make()
    run = by_hand.start()
    may_tell = threading.Event()
    put = JournalFile.put

    def put_slowly(self: JournalFile, entry: Any) -> None:
        tell = entry.written
        if tell is not None:
            entry = entry._replace(written=lambda: (may_tell.wait(0.3), tell()))
        put(self, entry)

    monkeypatch.setattr(JournalFile, "put", put_slowly)
    future = by_hand.scheduler.submit(square, 1)
    by_hand.backend.finish(future, np.ones(1_000_000))
    if end == "vanish":
        vanish(by_hand)
    else:
        run.stop(wait=False)
        await run
    assert future.result().sum() == 1_000_000
    assert states(by_hand) == ["done"]


@may_block
async def test_a_result_that_lies_in_memory_by_columns_is_recorded(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    future = by_hand.scheduler.submit(square, np.asfortranarray(np.ones((300, 200))))
    by_hand.backend.finish(future, np.asfortranarray(np.arange(60_000).reshape(300, 200)))
    assert np.array_equal(
        await asyncio.wait_for(future, DEAD_S), by_hand.scheduler.journal.result(1)
    )


@may_block
async def test_an_attempt_that_failed_and_the_one_after_it_are_recorded_together(
    make: Callable[..., ByHand],
):
    by_hand = make()
    by_hand.start()
    seen: list[list[str]] = []

    def note_the_file(_: BaseException) -> bool:
        seen.append(states(by_hand))  # what is there if the kernel dies right now
        return True

    retry = Retry(max_attempts=2, wait=3600, retry_on=note_the_file)
    future = by_hand.scheduler.task(square, plugins=retry).submit(3)
    by_hand.backend.fail(future, ValueError("once"))
    await turn_until(lambda: future.call.id == 2)
    assert seen == [["unfinished"]]
    assert states(by_hand) == ["failed", "unfinished"]


# ------------------------------------------------------------ recovering


def unfinished(make: Callable[..., ByHand], n_calls: int) -> ByHand:
    """A new scheduler on a journal with calls that have no end."""
    by_hand = make()
    by_hand.start()
    for n in range(n_calls):
        by_hand.scheduler.submit(square, n)
    vanish(by_hand)
    return make(n_workers=n_calls)


@may_block
async def test_recovering_within_a_recovery_runs_nothing_twice(make: Callable[..., ByHand]):
    again = unfinished(make, 4)
    within: list[list[int]] = []

    @again.scheduler.on_future_submitted
    def recover_more(_: Any) -> None:
        if not within:
            within.append([])
            within.append([future.call.id for future in again.scheduler.recover()])

    run = again.start(end_on_empty=True)
    outer = [future.call.id for future in again.scheduler.recover()]
    assert sorted(outer + within[1]) == [1, 2, 3, 4]
    assert sorted(id for batch in again.backend.started for id in batch) == [1, 2, 3, 4]
    for call in again.backend.calls:
        again.backend.finish(call, 0)
    assert await asyncio.wait_for(run.over(), DEAD_S) == ExitCode.EXHAUSTED


@may_block
async def test_two_threads_that_recover_run_nothing_twice(
    make: Callable[..., ByHand], monkeypatch: pytest.MonkeyPatch
):
    again = unfinished(make, 3)
    run = again.start()
    both_have_read = threading.Barrier(2, timeout=DEAD_S)
    read = Journal.unfinished

    def and_wait(self: Journal) -> Any:
        found = list(read(self))
        both_have_read.wait()
        return iter(found)

    monkeypatch.setattr(Journal, "unfinished", and_wait)
    futures = await asyncio.gather(*(asyncio.to_thread(again.scheduler.recover) for _ in range(2)))
    assert sorted(future.call.id for each in futures for future in each) == [1, 2, 3]
    assert sorted(id for batch in again.backend.started for id in batch) == [1, 2, 3]
    for call in again.backend.calls:
        again.backend.finish(call, 0)
    run.finish_when_empty()
    assert await asyncio.wait_for(run.over(), DEAD_S) == ExitCode.EXHAUSTED


@may_block
async def test_a_call_that_ends_while_another_thread_recovers_runs_once(
    make: Callable[..., ByHand], monkeypatch: pytest.MonkeyPatch
):
    again = unfinished(make, 1)
    again.start()
    (future,) = again.scheduler.recover()
    mine = again.scheduler.submit(square, 7)
    has_read, may_go_on = threading.Event(), threading.Event()
    read = JournalFile.read

    def and_wait(self: JournalFile, sql: str, *parameters: Any) -> Any:
        found = read(self, sql, *parameters)
        if "state IS NULL" in sql and not has_read.is_set():
            has_read.set()
            assert may_go_on.wait(DEAD_S)
        return found

    monkeypatch.setattr(JournalFile, "read", and_wait)
    recovering = asyncio.create_task(asyncio.to_thread(again.scheduler.recover))
    await asyncio.to_thread(has_read.wait, DEAD_S)
    again.backend.finish(future, 0)
    again.backend.finish(mine, 49)
    await settled()
    assert future.done()
    may_go_on.set()
    assert await recovering == []
    assert again.backend.started == [[1], [2]]


@may_block
async def test_a_cell_that_runs_again_recovers_what_its_last_run_left(
    make: Callable[..., ByHand],
):
    again = unfinished(make, 2)
    again.start()
    again.scheduler.submit(square, 9)
    assert [future.call.id for future in again.scheduler.recover()] == [1, 2]
    vanish(again)
    again.start()
    assert [future.call.id for future in again.scheduler.recover()] == [1, 2, 3]
    assert again.scheduler.recover() == []


@may_block
async def test_what_a_plugin_refused_can_be_recovered_later(make: Callable[..., ByHand]):
    by_hand = make()
    by_hand.start()
    task = by_hand.scheduler.task(square)
    for n in range(3):
        task.submit(n)
    vanish(by_hand)
    again = make(n_workers=3)
    again.scheduler.task(square, plugins=Limiter(max_concurrent=2))
    again.start()
    assert [future.call.id for future in again.scheduler.recover()] == [1, 2]
    for call in again.backend.calls:
        again.backend.finish(call, 0)
    await settled()
    assert [future.call.id for future in again.scheduler.recover()] == [3]


# ------------------------------------------------------------ the writer, its file and its lock


class Disk:
    """Has a journal's writes fail for as long as it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.n_refused = 0
        self._write = JournalFile._write
        monkeypatch.setattr(JournalFile, "_write", lambda file, batch: self._try(file, batch))

    def _try(self, file: JournalFile, batch: Any) -> Exception | None:
        if not self.is_full:
            return self._write(file, batch)
        self.n_refused += 1
        return sqlite3.OperationalError("database or disk is full")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(journal_file, "_TRY_AGAIN_S", 0.01)
    return Disk(monkeypatch)


@may_block
async def test_a_large_result_is_told_of_though_the_disk_is_full_when_the_run_ends(
    make: Callable[..., ByHand], disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    by_hand = make()
    run = by_hand.start()
    future = by_hand.scheduler.submit(square, 1)
    by_hand.scheduler.journal.flush()
    disk.is_full = True
    by_hand.scheduler.submit(square, 2)
    by_hand.scheduler.journal.flush()
    assert disk.n_refused > 0
    monkeypatch.setattr(journal_file, "_TRY_AGAIN_S", 3600)
    await turn_until(lambda: by_hand.scheduler.journal._file._is_failing)
    by_hand.backend.finish(future, np.ones(1_000_000))
    run.stop(wait=False)
    await run
    assert future.result().sum() == 1_000_000
    disk.is_full = False


@may_block
async def test_functions_outlast_the_calls_that_a_full_disk_costs(
    make: Callable[..., ByHand], disk: Disk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal_file, "_MOST_KEPT", 6)
    by_hand = make()
    by_hand.start()
    disk.is_full = True
    for n in range(20):
        by_hand.scheduler.submit(square, n)
        by_hand.scheduler.journal.flush()
    refused = disk.n_refused
    await asyncio.to_thread(wait_until, lambda: disk.n_refused > refused + 1)
    disk.is_full = False
    wait_until(lambda: not by_hand.scheduler.journal._file._is_failing)
    assert by_hand.scheduler.journal.n_unwritten == 15  # of 20 calls and their function, 6 are kept
    late = by_hand.scheduler.submit(square, 20)
    vanish(by_hand)
    again = make(n_workers=6)
    again.start()
    found = again.scheduler.recover()
    assert [future.call.id for future in found] == [16, 17, 18, 19, 20, late.call.id]
    assert [future.call.fn(*future.call.args) for future in found] == [
        n * n for n in (15, 16, 17, 18, 19, 20)
    ]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEAD_S
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.001)


@may_block
async def test_a_fault_in_the_writers_thread_hangs_nobody(
    make: Callable[..., ByHand], monkeypatch: pytest.MonkeyPatch
):
    def fail(self: JournalFile, batch: Any) -> None:
        raise MemoryError("none left")

    by_hand = make()
    run = by_hand.start()
    future = by_hand.scheduler.submit(square, 1)
    by_hand.scheduler.journal.flush()
    monkeypatch.setattr(JournalFile, "_write", fail)
    by_hand.backend.finish(future, np.ones(1_000_000))
    run.finish_when_empty()
    assert await asyncio.wait_for(run.over(), DEAD_S) == ExitCode.EXHAUSTED
    assert future.result().sum() == 1_000_000
    journal = by_hand.scheduler.journal
    assert journal.n_unwritten == 1
    wait_until(lambda: any("none left" in line.text for line in by_hand.scheduler.history.log_tail))
    with pytest.raises(JournalError, match="cannot be read"):
        journal.records()


def test_a_journal_that_is_about_to_be_let_go_of_is_waited_for(path: Path):
    first = Scheduler.with_threads(1, journal=path)
    file = first.journal._file
    with file._lock:  # its writer cannot close it yet
        first.journal._file.leave()
        opening = threading.Thread(target=lambda: opened.append(Journal(path)))
        opened: list[Journal] = []
        opening.start()
        opening.join(0.2)  # not to wait for anything, but to be refused if it is to be
    opening.join(DEAD_S)
    assert len(opened) == 1
    opened[0].close()


_OPENED = "import sys; from amltk_nb.scheduling.journal import Journal; Journal(sys.argv[1])"


def opened_elsewhere(path: Path) -> str:
    """Open a journal in another process; returns what it said."""
    command = [sys.executable, "-c", _OPENED, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEAD_S).stderr


@pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="only Linux has such locks")
@pytest.mark.parametrize("is_new", [True, False])
def test_a_journal_that_its_own_process_copies_stays_locked(path: Path, is_new: bool):
    if not is_new:
        Journal(path).close()
    journal = Journal(path)
    shutil.copy(path, path.with_name("copy.db"))  # POSIX takes all of SQLite's locks for that
    before = sorted(file.name for file in path.parent.iterdir())
    assert "JournalInUseError" in opened_elsewhere(path)
    assert sorted(file.name for file in path.parent.iterdir()) == before
    journal.close()
    assert opened_elsewhere(path) == ""


def test_a_forked_child_keeps_no_journal_of_a_parent_that_is_gone(path: Path):
    code = """
import os, sys, time
from amltk_nb.scheduling.journal import Journal

journal = Journal(sys.argv[1])
if os.fork() == 0:
    sys.stdin.read()  # lives on
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as parent:
        parent.wait(DEAD_S)
        assert opened_elsewhere(path) == ""
        assert parent.stdin is not None
        parent.stdin.close()


_FORKED = """
import os, sys, threading
from amltk_nb.errors import JournalError
from amltk_nb.scheduling.journal import Journal

journal = Journal(sys.argv[1])
journal.records()
file = journal._file
with file._news, file._lock:  # as if its writer were busy right now
    child = os.fork()
if child == 0:
    journal.flush()
    try:
        journal.records()
    except JournalError as error:
        print(error, flush=True)
    journal.close()
    del journal
    raise SystemExit(3)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert journal.records() == []
raise SystemExit(code)
"""


@pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to:DeprecationWarning")
def test_a_forked_copy_has_no_journal_and_waits_for_no_thread_of_its_parent(path: Path):
    command = [sys.executable, "-W", "ignore", "-c", _FORKED, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEAD_S)
    assert "belongs to the process that opened it" in ended.stdout
    assert ended.returncode == 3, ended.stderr
