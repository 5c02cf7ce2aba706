"""The journal at the worst moment: each test forces one interleaving of what usually just misses.

The question is always the same: does what the file says agree with what happened and was told?
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amltk_nb import ExitCode, Limiter, Retry
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
