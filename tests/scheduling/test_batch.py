"""Batches: their events to the last one, whatever ends their calls; refusals; bad arguments."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amltk_nb import Batch, Event, ExitCode, Limiter, Plugin, Retry, Scheduler, Task
from amltk_nb.errors import (
    BatchError,
    EventNotKnownError,
    NotPicklableError,
    PluginError,
    SchedulerNotRunningError,
)
from amltk_nb.events import BATCH_EVENTS
from amltk_nb.testing import EventRecorder, ManualBackend
from tests.scheduling.conftest import ByHand, settled, turn_until

Told = tuple[Any, ...]


def add(x: int, y: int) -> int:
    return x + y


def same(x: Any) -> Any:
    return x


def refuse_two(x: int) -> int:
    if x == 2:
        raise ValueError("not two")
    return x


def told_by(batch: Batch[Any]) -> list[Told]:
    """Write down what a batch tells: names without "on_", and what comes behind the batch."""
    told: list[Told] = []

    def noting(name: str) -> Callable[..., None]:
        def note(*payload: Any) -> None:
            assert payload[0] is batch
            told.append((name.removeprefix("on_"), *payload[1:]))

        return note

    for spec in BATCH_EVENTS:
        batch.on(spec.event, noting(spec.name))
    return told


def names(told: list[Told]) -> list[str]:
    return [name for name, *_ in told]


# ------------------------------------------------------------ ends


async def test_all_return_in_an_order_of_their_own(by_hand: ByHand):
    task = by_hand.scheduler.task(add)
    batch = task.batch([(1, 1), (2, 2)])
    told = told_by(batch)
    by_hand.start()
    first, second = batch.submit()
    assert told == [
        ("any_submitted", first),
        ("any_submitted", second),
        ("batch_submitted", [first, second]),
    ]
    told.clear()
    by_hand.backend.finish(second, 4)
    await settled()
    assert told == [("any_done", second), ("any_returned", 4)]
    assert not batch.done()
    told.clear()
    by_hand.backend.finish(first, 2)
    await settled()
    assert told == [
        ("any_done", first),
        ("any_returned", 2),
        ("batch_returned", [2, 4]),
        ("batch_done", [2, 4], [], []),
    ]
    assert batch.done()
    assert task.in_batches == {}


async def test_the_calls_are_the_tasks_own(by_hand: ByHand):
    task, said = by_hand.scheduler.task(add), []
    by_hand.recorder.watch(task)
    batch = task.batch([(1, 1)])
    for spec in BATCH_EVENTS:
        batch.on(spec.event, lambda *, name=spec.name: said.append(name))
    task.on_submitted(lambda: said.append("task submitted"))
    task.on_returned(lambda: said.append("task returned"))
    by_hand.start()
    (future,) = batch.submit()
    by_hand.backend.finish(future, 2)
    await settled()
    assert said == [
        "task submitted",
        "on_any_submitted",
        "on_batch_submitted",
        "task returned",
        "on_any_done",
        "on_any_returned",
        "on_batch_returned",
        "on_batch_done",
    ]
    assert (task.n_called, by_hand.recorder.counts["on_future_result"]) == (1, 1)
    assert future.call.task is task


async def test_results_that_are_none_are_kept(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,), (2,)])
    kept: list[Any] = []
    batch.on_batch_returned(lambda results: kept.append(results))
    by_hand.start()
    for future in batch.submit():
        by_hand.backend.finish(future, None)
    await settled()
    assert kept == [[None, None]]


async def test_one_that_raises_leaves_the_others_alone(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,), (2,), (3,)])
    told = told_by(batch)
    by_hand.start()
    first, second, third = batch.submit()
    told.clear()
    error = ValueError("broken")
    by_hand.backend.fail(first, error)
    await settled()
    by_hand.backend.finish(third, 3)
    by_hand.backend.finish(second, 2)
    await settled()
    assert told == [
        ("any_done", first),
        ("any_exception", error),
        ("any_done", third),
        ("any_returned", 3),
        ("any_done", second),
        ("any_returned", 2),
        ("batch_failed",),
        ("batch_done", [2, 3], [error], []),
    ]


async def test_an_empty_batch_is_done_at_the_next_turn(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([])
    told = told_by(batch)
    by_hand.start()
    assert batch.submit() == []
    assert told == [("batch_submitted", [])]
    await settled()
    assert told[1:] == [("batch_returned", []), ("batch_done", [], [], [])]
    assert batch.done()


def test_callbacks_take_as_much_as_they_like():
    scheduler, taken = Scheduler(ManualBackend()), []
    batch = scheduler.task(same).batch([])
    batch.on_batch_done(lambda *payload: taken.append(payload))
    batch.on_batch_done(lambda cancelled: taken.append(cancelled))
    batch.on_batch_done(lambda: taken.append("nothing"))
    batch.on_batch_failed(lambda failed: taken.append(failed))
    batch.emit(Batch.BATCH_DONE, batch, [1], [2], [3])
    batch.emit("batch-failed", batch)
    assert taken == [(batch, [1], [2], [3]), [3], "nothing", batch]


def test_an_event_that_no_batch_has():
    batch = Scheduler(ManualBackend()).task(same).batch([])
    with pytest.raises(EventNotKnownError, match=r"Did you mean 'on_batch_returned'"):
        batch.on("on_batch_return")


# ------------------------------------------------------------ cancelled


async def test_cancel_takes_back_what_waits_and_what_runs(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(n,) for n in range(4)])
    told = told_by(batch)
    by_hand.start()
    futures = batch.submit()
    by_hand.backend.finish(futures[0], 0)
    await settled()
    assert [future.call.state for future in futures] == ["done", "running", "running", "queued"]
    told.clear()
    assert batch.cancel() == 3
    assert told == [("batch_cancelled",)]
    assert batch.cancel() == 0
    await settled()
    assert told[0] == ("batch_cancelled",)
    assert sorted(future.call.id for _, future in told[1:4]) == [2, 3, 4]
    assert names(told[1:4]) == ["any_cancelled"] * 3
    assert told[4:] == [("batch_done", [0], [], futures[1:])]
    assert batch.cancelled()
    assert len(by_hand.backend.started) == 3  # none of them was started to be ended at once


async def test_what_cannot_be_ended_runs_on_and_the_batch_is_done_after_it(
    make_by_hand: Callable[..., ByHand],
):
    by_hand = make_by_hand(1, cannot_end="it is a thread")
    batch = by_hand.scheduler.task(same).batch([(1,)])
    told = told_by(batch)
    by_hand.start()
    (future,) = batch.submit()
    assert batch.cancel() == 0
    await settled()
    assert (names(told)[2:], batch.done()) == (["batch_cancelled"], False)
    by_hand.backend.finish(future, 1)
    await settled()
    # All have returned, but nobody wants that batch any more.
    assert told[3:] == [("any_done", future), ("any_returned", 1), ("batch_done", [1], [], [])]


async def test_a_failure_may_cancel_the_rest(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(n,) for n in range(5)])
    told = told_by(batch)

    @batch.on_any_exception
    @batch.on_any_cancelled
    def cancel_the_rest(_: Any) -> None:
        batch.cancel()

    by_hand.start()
    futures = batch.submit()
    error = ValueError("broken")
    by_hand.backend.fail(futures[1], error)
    await settled()
    assert names(told)[6:] == [
        "any_done",
        "any_exception",
        "batch_cancelled",
        *["any_cancelled"] * 4,
        "batch_failed",
        "batch_done",
    ]
    cancelled = [futures[0], *futures[2:]]
    assert told[-1] == ("batch_done", [], [error], cancelled)


async def test_a_call_cancelled_by_itself_leaves_the_others(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,), (2,)])
    told = told_by(batch)
    by_hand.start()
    first, second = batch.submit()
    first.cancel()
    await settled()
    by_hand.backend.finish(second, 2)
    await settled()
    assert names(told)[3:] == ["any_cancelled", "any_done", "any_returned", "batch_done"]
    assert told[-1] == ("batch_done", [2], [], [first])
    assert not batch.cancelled()


async def test_there_is_nothing_to_cancel_before_and_after(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,)])
    told = told_by(batch)
    by_hand.start()
    assert batch.cancel() == 0
    batch.on_any_returned(lambda: batch.cancel())
    by_hand.backend.finish(batch.submit()[0], 1)
    await settled()
    assert batch.cancel() == 0
    assert names(told)[-2:] == ["batch_returned", "batch_done"]
    assert batch.event_counts["on_batch_cancelled"] == 0
    assert not batch.cancelled()


async def test_an_empty_batch_can_be_cancelled(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([])
    told = told_by(batch)
    by_hand.start()
    batch.submit()
    batch.cancel()
    await settled()
    assert names(told) == ["batch_submitted", "batch_cancelled", "batch_done"]


async def test_a_run_that_stops_ends_its_batches_before_itself(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(n,) for n in range(4)])
    said: list[str] = []
    for spec in BATCH_EVENTS:
        batch.on(spec.event, lambda *, name=spec.name: said.append(name))
    by_hand.scheduler.on_finished(lambda: said.append("finished"))
    run = by_hand.start()
    futures = batch.submit()
    said.clear()
    by_hand.scheduler.stop(wait=False)
    assert await run == ExitCode.STOPPED
    assert said == ["on_any_cancelled"] * 4 + ["on_batch_done", "finished"]
    assert all(future.cancelled() for future in futures)


async def test_a_call_that_is_tried_again_has_not_ended(by_hand: ByHand):
    task = by_hand.scheduler.task(same, plugins=Retry(max_attempts=3, wait=0))
    batch = task.batch([(1,), (2,)])
    told = told_by(batch)
    by_hand.start()
    first, second = batch.submit()
    by_hand.backend.finish(second, 2)
    for _ in range(2):
        by_hand.backend.fail(first, ValueError("not yet"))
        await settled()
    assert names(told)[3:] == ["any_done", "any_returned"]
    by_hand.backend.finish(first, 1)
    await settled()
    assert told[-1] == ("batch_done", [1, 2], [], [])


async def test_cancel_takes_back_what_waits_to_be_tried_again(by_hand: ByHand):
    task = by_hand.scheduler.task(same, plugins=Retry(max_attempts=3, wait=3600))
    batch = task.batch([(1,)])
    told = told_by(batch)
    by_hand.start()
    (future,) = batch.submit()
    by_hand.backend.fail(future, ValueError("not yet"))
    await settled()
    assert batch.cancel() == 1
    await settled()
    assert names(told)[2:] == ["batch_cancelled", "any_cancelled", "batch_done"]


# ------------------------------------------------------------ refused


async def test_a_refused_call_cancels_the_batch(by_hand: ByHand):
    task = by_hand.scheduler.task(same, plugins=Limiter(max_calls=2))
    batch = task.batch([(n,) for n in range(4)])
    told = told_by(batch)
    by_hand.start()
    futures = batch.submit()
    assert (len(futures), batch.n_refused, batch.cancelled()) == (2, 1, True)
    await settled()
    assert names(told) == [
        *["any_submitted"] * 2,
        "batch_cancelled",
        *["any_cancelled"] * 2,
        "batch_failed",
        "batch_done",
    ]
    assert told[-1] == ("batch_done", [], [], futures)
    assert task.event_counts["call-limit-reached"] == 1  # the fourth was not tried


async def test_it_may_go_on_without_the_refused(by_hand: ByHand):
    task = by_hand.scheduler.task(same, plugins=Limiter(max_concurrent=2))
    batch = task.batch([(n,) for n in range(4)], cancel_on_failed_submission=False)
    told = told_by(batch)
    by_hand.start()
    futures = batch.submit()
    assert (told[-1], batch.n_refused) == (("batch_submitted", futures), 2)
    for future in futures:
        by_hand.backend.finish(future, future.call.args[0])
    await settled()
    assert names(told)[-2:] == ["batch_failed", "batch_done"]
    assert told[-1] == ("batch_done", [0, 1], [], [])
    assert task.event_counts["concurrent-limit-reached"] == 2


async def test_one_that_is_refused_at_once_is_done_as_well(by_hand: ByHand):
    task = by_hand.scheduler.task(same, plugins=Limiter(max_calls=1))
    by_hand.start()
    by_hand.backend.finish(task.submit(0))
    batch = task.batch([(1,), (2,)])
    told = told_by(batch)
    assert batch.submit() == []
    await settled()
    assert told == [("batch_cancelled",), ("batch_failed",), ("batch_done", [], [], [])]


async def test_a_run_stopped_meanwhile_refuses_the_rest(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(n,) for n in range(4)])
    told = told_by(batch)
    batch.on_any_submitted(lambda: by_hand.scheduler.stop(), when=lambda: len(batch.futures) == 2)
    run = by_hand.start(wait=False)
    assert len(batch.submit()) == 2
    await run
    assert names(told) == [
        *["any_submitted"] * 2,
        "batch_cancelled",
        *["any_cancelled"] * 2,
        "batch_failed",
        "batch_done",
    ]


async def test_a_callback_may_cancel_it_while_it_is_submitted(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(n,) for n in range(4)])
    told = told_by(batch)
    batch.on_any_submitted(lambda: batch.cancel(), when=lambda: len(batch.futures) == 3)
    by_hand.start()
    assert len(batch.submit()) == 3
    await settled()
    assert names(told) == [
        *["any_submitted"] * 3,
        "batch_cancelled",
        *["any_cancelled"] * 3,
        "batch_done",
    ]
    assert batch.n_refused == 0


async def test_a_failing_plugin_cancels_what_was_submitted_and_is_told(by_hand: ByHand):
    class FailsAtTwo(Plugin):
        def pre_submit(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
            if args == (2,):
                raise RuntimeError("out of order")
            return fn, args, kwargs

    task = by_hand.scheduler.task(same, plugins=FailsAtTwo())
    batch = task.batch([(1,), (2,), (3,)], cancel_on_failed_submission=False)
    told = told_by(batch)
    by_hand.start()
    with pytest.raises(PluginError, match="out of order"):
        batch.submit()
    await settled()
    assert names(told) == [
        "any_submitted",
        "batch_cancelled",
        "any_cancelled",
        "batch_failed",
        "batch_done",
    ]
    assert task.in_batches == {}


def test_an_argument_that_cannot_travel_fails_its_call_alone():
    scheduler = Scheduler.with_processes(1)
    batch = scheduler.task(same).batch([(1,), (threading.Lock(),)])
    told = told_by(batch)
    scheduler.on_start(batch.submit)
    scheduler.run(on_exception="continue")
    assert told[-2] == ("batch_failed",)
    _, results, (error,), cancelled = told[-1]
    assert (results, cancelled, type(error)) == ([1], [], NotPicklableError)


# ------------------------------------------------------------ submitting


async def test_it_is_submitted_once(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,)])
    run = by_hand.start()
    batch.submit()
    with pytest.raises(BatchError, match=r"task\.batch\(batch\.args\)") as caught:
        batch.submit()
    assert "<Batch of Task-same-1: 1 calls, 0 ended> was submitted before" in str(caught.value)
    by_hand.scheduler.stop(wait=False)
    await run
    with pytest.raises(BatchError):  # which is true whether the scheduler runs or not
        batch()
    assert batch.task.batch(batch.args).args == ((1,),)


async def test_too_early_it_can_be_submitted_later(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,)])
    told = told_by(batch)
    with pytest.raises(SchedulerNotRunningError, match=r"scheduler\.start\(\)"):
        batch.submit()
    assert batch() == []
    assert told == []
    by_hand.start()
    (future,) = batch()
    by_hand.backend.finish(future, 1)
    await settled()
    assert names(told)[-1] == "batch_done"


async def test_another_thread_submits_and_the_order_is_the_same(by_hand: ByHand):
    loop_thread, told_on = threading.get_ident(), set[int]()
    first_has_ended, loop = threading.Event(), asyncio.get_running_loop()
    first_is_in = asyncio.Event()

    class SlowAtTwo(Plugin):
        def pre_submit(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
            if args == (2,):
                loop.call_soon_threadsafe(first_is_in.set)
                assert first_has_ended.wait(20)
            return fn, args, kwargs

    batch = by_hand.scheduler.task(same, plugins=SlowAtTwo()).batch([(1,), (2,)])
    told = told_by(batch)
    batch.on_any_submitted(lambda: told_on.add(threading.get_ident()))
    by_hand.start()
    submission = asyncio.ensure_future(asyncio.to_thread(batch.submit))
    await first_is_in.wait()
    by_hand.backend.finish(by_hand.backend.calls[0], 1)
    await turn_until(lambda: batch.futures and batch.futures[0].done())
    assert names(told) == ["any_submitted"]
    first_has_ended.set()
    first, second = await submission
    by_hand.backend.finish(second, 2)
    await settled()
    assert told == [
        ("any_submitted", first),
        ("any_submitted", second),
        ("batch_submitted", [first, second]),
        ("any_done", first),
        ("any_returned", 1),
        ("any_done", second),
        ("any_returned", 2),
        ("batch_returned", [1, 2]),
        ("batch_done", [1, 2], [], []),
    ]
    assert told_on == {loop_thread}


async def test_a_call_may_end_before_the_thread_that_submits_it_goes_on(by_hand: ByHand):
    has_ended, loop, is_in = threading.Event(), asyncio.get_running_loop(), asyncio.Event()

    class Slow(Task[[int], int]):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(*args, **kwargs)
            loop.call_soon_threadsafe(is_in.set)
            assert has_ended.wait(20)
            return future

    task = Slow(same, by_hand.scheduler)
    batch = task.batch([(1,)])
    told = told_by(batch)
    by_hand.start()
    submission = asyncio.ensure_future(asyncio.to_thread(batch.submit))
    await is_in.wait()
    by_hand.backend.finish(by_hand.backend.calls[0], 1)
    await turn_until(lambda: task.event_counts["on_returned"])
    assert told == []
    has_ended.set()
    (future,) = await submission
    await settled()
    assert told == [
        ("any_submitted", future),
        ("batch_submitted", [future]),
        ("any_done", future),
        ("any_returned", 1),
        ("batch_returned", [1]),
        ("batch_done", [1], [], []),
    ]
    assert task.in_batches == {}


async def test_a_run_that_ends_waits_for_the_thread_that_submits(by_hand: ByHand):
    loop, is_in, may_go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    class Slow(Task[[int], int]):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            future = super().submit(*args, **kwargs)
            loop.call_soon_threadsafe(is_in.set)
            assert may_go_on.wait(20)
            return future

    batch = Slow(same, by_hand.scheduler).batch([(1,), (2,)])
    told = told_by(batch)
    by_hand.scheduler.on_finished(lambda: told.append(("finished",)))
    run = by_hand.start()
    submission = asyncio.ensure_future(asyncio.to_thread(batch.submit))
    await is_in.wait()
    run.stop(wait=False)
    await turn_until(by_hand.scheduler.empty)
    await settled()
    assert not run.done()
    may_go_on.set()
    (first,) = await submission
    assert await run == ExitCode.STOPPED
    assert told == [
        ("any_submitted", first),
        ("batch_cancelled",),
        ("any_cancelled", first),
        ("batch_failed",),
        ("batch_done", [], [], [first]),
        ("finished",),
    ]


async def test_another_thread_cancels_and_that_is_told_first(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(n,) for n in range(3)])
    told = told_by(batch)
    by_hand.start()
    batch.submit()
    assert await asyncio.to_thread(batch.cancel) == 3
    await settled()
    assert names(told)[4:] == ["batch_cancelled", *["any_cancelled"] * 3, "batch_done"]


def test_the_end_of_one_batch_can_be_the_start_of_the_next():
    scheduler = Scheduler.with_sequential()
    task = scheduler.task(add)
    sums: list[list[int]] = []

    @scheduler.on_start
    def begin() -> None:
        go_on([1, 2, 3, 4])

    def go_on(numbers: list[int]) -> None:
        sums.append(numbers)
        if len(numbers) > 1:
            batch = task.batch(zip(numbers[::2], numbers[1::2], strict=True))
            batch.on_batch_returned(go_on)
            batch.submit()

    assert scheduler.run() == ExitCode.EXHAUSTED
    assert sums == [[1, 2, 3, 4], [3, 7], [10]]
    assert scheduler.event_counts["on_empty"] == 1


async def test_errors_of_its_callbacks_are_the_runs(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,)])
    told = told_by(batch)

    @batch.on_any_returned
    def broken(result: int) -> None:
        raise ValueError(f"no {result} please")

    run = by_hand.start(on_exception="end")
    by_hand.backend.finish(batch.submit()[0], 1)
    state = await run
    assert (state, str(state.exception)) == (ExitCode.EXCEPTION, "no 1 please")
    assert names(told)[-2:] == ["batch_returned", "batch_done"]
    (line,) = [line for line in by_hand.scheduler.snapshot().log if line.level == "error"]
    assert line.source == "broken() on on_any_returned"


async def test_the_run_waits_for_its_coroutine_callbacks(by_hand: ByHand):
    batch = by_hand.scheduler.task(same).batch([(1,)])
    gate, done = asyncio.Event(), []

    @batch.on_batch_done
    async def take_time() -> None:
        await gate.wait()
        done.append(True)

    run = by_hand.start(end_on_empty=True)
    by_hand.backend.finish(batch.submit()[0], 1)
    await settled()
    assert not run.done()
    gate.set()
    assert await run == ExitCode.EXHAUSTED
    assert done == [True]


# ------------------------------------------------------------ making one


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([(1, 1), (2,)], r"^Item 1 of the batch is \(2,\), which does not fit add\(x: int, y: int\)"
         r" -> int: missing a required argument: 'y'\."),
        ([(1, 2, 3)], r"^Item 0 of the batch is \(1, 2, 3\), .*: too many positional arguments\."),
        ([(1, 1), 2], r"^Item 1 of the batch is 2: each is the tuple .*: \(2,\)\.$"),
        ([[1, 1]], r"^Item 0 of the batch is \[1, 1\]: each is the tuple"),
        (3, r"as in \[\(1, 1\), \(2, 2\)\]; got 3\.$"),
        ("ab", r"got 'ab'\.$"),
        (None, r"got None\.$"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_named(args: Any, message: str):
    task = Scheduler(ManualBackend()).task(add)
    with pytest.raises(TypeError, match=message):
        task.batch(args)
    assert task.n_called == 0


def test_what_a_plugin_adds_is_not_missed():
    task = Scheduler(ManualBackend()).task(add, plugins=Limiter(max_calls=1))
    assert task.batch([(1,)]).args == ((1,),)
    with pytest.raises(TypeError, match="too many positional arguments"):
        task.batch([(1, 2, 3)])


def test_a_function_without_a_signature_takes_anything():
    task = Scheduler(ManualBackend()).task(max)
    assert task.batch([(1, 2), (3, 4, 5)]).args == ((1, 2), (3, 4, 5))


def test_the_ways_to_make_one():
    task = Scheduler(ManualBackend()).task(add)
    assert Task.Batch is Batch
    by_name = Task.Batch(task, args=((n, n) for n in range(2)))
    assert (by_name.args, by_name.task) == (task.batch(args=[(0, 0), (1, 1)]).args, task)


async def test_a_task_of_ones_own_may_have_a_batch_of_its_own(by_hand: ByHand):
    class Summed(Batch[int]):
        SUM: Event[int] = Event("sum")

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.on_sum = self.subscriber(self.SUM)
            self.on_batch_returned(lambda results: self.on_sum.emit(sum(results)))

    class Summing(Task[[int, int], int]):
        Batch = Summed

    sums: list[int] = []
    batch = Summing(add, by_hand.scheduler).batch([(1, 1), (2, 2)])
    batch.on_sum(sums.append)
    by_hand.start()
    for future in batch.submit():
        by_hand.backend.finish(future, sum(future.call.args))
    await settled()
    assert sums == [6]


async def test_it_shows_how_it_stands_in_one_line(by_hand: ByHand):
    task = by_hand.scheduler.task(same, plugins=Limiter(max_calls=3))
    batch = task.batch([(1,), (2,)])
    assert repr(batch) == "<Batch of Task-same-1: 2 calls, not submitted>"
    by_hand.start()
    first, second = batch.submit()
    by_hand.backend.finish(first)
    await settled()
    assert repr(batch) == "<Batch of Task-same-1: 2 calls, 1 ended>"
    by_hand.backend.finish(second)
    await settled()
    assert repr(batch) == "<Batch of Task-same-1: 2 calls, done>"
    refused = task.batch([(1,), (2,)])
    refused.submit()
    await settled()
    assert repr(refused) == "<Batch of Task-same-1: 2 calls, done, 1 refused, cancelled>"


def test_its_rich_form_is_its_tasks():
    from rich.console import Console

    task = Scheduler(ManualBackend()).task(add)
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(task.batch([(1, 1)]))
    assert "Task add(x: int, y: int) -> int" in shown.get()


# ------------------------------------------------------------ for real

EXECUTORS: dict[str, Callable[[], Scheduler]] = {
    "processes": lambda: Scheduler.with_processes(2),
    "threads": lambda: Scheduler.with_threads(2),
    "sequential": Scheduler.with_sequential,
    "foreign": lambda: Scheduler(ThreadPoolExecutor(2)),
}


@pytest.mark.parametrize("name", EXECUTORS)
def test_on_every_executor(name: str):
    scheduler = EXECUTORS[name]()
    task = scheduler.task(refuse_two)
    good, bad = task.batch([(n,) for n in (1, 3, 5)]), task.batch([(n,) for n in (1, 2, 3)])
    told = told_by(good), told_by(bad)

    @scheduler.on_start
    def begin() -> None:
        good.submit()
        bad.submit()

    try:
        assert scheduler.run(on_exception="continue") == ExitCode.EXHAUSTED
    finally:
        if isinstance(executor := getattr(scheduler.backend, "executor", None), ThreadPoolExecutor):
            executor.shutdown()
    assert told[0][-2:] == [("batch_returned", [1, 3, 5]), ("batch_done", [1, 3, 5], [], [])]
    _, results, (error,), cancelled = told[1][-1]
    assert (results, str(error), cancelled) == ([1, 3], "not two", [])
    assert good.event_counts["on_any_returned"] == bad.event_counts["on_any_done"] == 3
    assert bad.event_counts["on_batch_failed"] == 1


def test_a_running_call_is_ended_with_its_batch():
    scheduler = Scheduler.with_processes(2)
    batch = scheduler.task(time.sleep).batch([(60,), (0,), (60,), (60,)])
    told = told_by(batch)
    batch.on_any_returned(batch.cancel, max_calls=1)
    scheduler.on_start(batch.submit)
    assert scheduler.run(timeout=50) == ExitCode.EXHAUSTED
    assert told[-1] == ("batch_done", [None], [], [batch.futures[n] for n in (0, 2, 3)])


# ------------------------------------------------------------ whatever happens

STEP = st.sampled_from(["finish", "fail", "cancel one", "cancel", "turn", "stop"])


@settings(max_examples=150)
@given(n=st.integers(0, 5), limit=st.integers(1, 6), steps=st.lists(STEP, max_size=12))
def test_every_batch_ends_once_and_tells_the_truth(n: int, limit: int, steps: list[str]):
    async def main() -> tuple[Batch[Any], list[Told]]:
        backend = ManualBackend(2)
        scheduler = Scheduler(backend)
        recorder = EventRecorder(scheduler)
        task = scheduler.task(same, plugins=Limiter(max_concurrent=limit))
        batch = task.batch([(i,) for i in range(n)])
        told = told_by(batch)
        run = scheduler.start()
        batch.submit()
        for step in steps:
            if step == "cancel":
                batch.cancel()
            elif step == "stop":
                scheduler.stop()
            elif step == "turn":
                await asyncio.sleep(0)
            elif backend.calls:
                call = backend.calls[-1]
                if step == "finish":
                    backend.finish(call, call.args[0])
                elif step == "fail":
                    backend.fail(call, ValueError(call.args[0]))
                else:
                    call.cancel()
        scheduler.stop(wait=False)
        await run
        assert recorder.counts["on_future_submitted"] == len(batch.futures)
        return batch, told

    batch, told = asyncio.run(main())
    counts = {name: names(told).count(name) for name in names(told)}
    assert names(told)[-1] == "batch_done"
    assert counts["batch_done"] == 1
    _, results, errors, cancelled = told[-1]
    assert len(results) + len(errors) + len(cancelled) == len(batch.futures)
    ended = counts.get("any_done", 0), counts.get("any_cancelled", 0)
    assert ended == (len(results) + len(errors), len(cancelled))
    assert counts.get("any_returned", 0) == len(results)
    assert counts.get("any_submitted", 0) == len(batch.futures) == min(n, limit)
    assert counts.get("batch_failed", 0) == (bool(errors) or n > limit)
    assert counts.get("batch_submitted", 0) == (n <= limit)
    if counts.get("batch_returned", 0):
        assert results == list(range(n))
    assert counts.get("batch_cancelled", 0) == batch.cancelled()
