"""The scheduler's verbs, the ways to run it, and every misuse with what to do instead."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from amltk_nb import ExitCode, ExitState, Scheduler, SchedulerNotRunningError, SequentialExecutor
from amltk_nb.errors import (
    CallNotFoundError,
    ExecutorClosedError,
    NoRunningLoopError,
    NotPicklableError,
    RunningLoopError,
    SchedulerRunningError,
    WorkerStartError,
)
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import EventRecorder, ManualBackend, ManualExecutor
from tests.scheduling.conftest import ByHand, settled, turn_until


def f(x: int = 0) -> int:
    return x


def broken_initializer() -> None:
    raise RuntimeError("no licence")


# ------------------------------------------------------------ making one


@pytest.mark.parametrize("executor", [5, "threads", ThreadPoolExecutor, object()])
def test_what_runs_nothing_is_refused(executor: Any):
    with pytest.raises(TypeError, match=r"pass a concurrent.futures.Executor, or use"):
        Scheduler(executor)


@pytest.mark.parametrize("executor", [None, ...])
def test_none_and_dots_mean_local_processes(executor: Any):
    assert Scheduler(executor).snapshot().backend.name == "ProcessExecutor"


@pytest.mark.parametrize("make", [Scheduler.with_processes, Scheduler.with_threads])
@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_a_number_of_workers_that_means_nothing(make: Any, n: Any, error: type[Exception]):
    with pytest.raises(error, match="max_workers="):
        make(n)


def test_an_unknown_start_method_is_refused():
    with pytest.raises(ValueError, match="forkserver"):
        Scheduler.with_processes(1, mp_context="teleport")


def test_a_sequential_executor_is_known_as_such():
    assert Scheduler(SequentialExecutor()).snapshot().backend.name == "SequentialExecutor"


def test_a_negative_history_is_refused():
    with pytest.raises(ValueError, match="history=-1"):
        Scheduler.with_threads(1, history=-1)


# ------------------------------------------------------------ before, after, twice


def test_submitting_before_a_start_says_how_to_start():
    scheduler = Scheduler(ManualBackend())
    task = scheduler.task(f)
    for submit in (lambda: scheduler.submit(f), task.submit):
        with pytest.raises(SchedulerNotRunningError, match=r"scheduler\.start\(\).*on_start"):
            submit()
    assert task() is None
    assert (task.n_called, scheduler.records()) == (0, [])


def test_submitting_after_the_end_says_so():
    scheduler = Scheduler(ManualBackend())
    scheduler.run()
    with pytest.raises(SchedulerNotRunningError, match=r"its run is finished\. Start it again"):
        scheduler.submit(f)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_pausing_what_does_not_run(verb: str):
    with pytest.raises(SchedulerNotRunningError):
        getattr(Scheduler(ManualBackend()), verb)()


def test_stopping_what_does_not_run_is_harmless():
    scheduler = Scheduler(ManualBackend())
    scheduler.stop("any", arguments="do")
    assert scheduler.state == "idle"


def test_starting_without_a_loop_says_what_to_call():
    backend = ManualBackend()
    with pytest.raises(NoRunningLoopError, match=r"In a script use scheduler\.run\(\)"):
        Scheduler(backend).start()
    assert backend.n_opened == 0


async def test_running_inside_of_a_loop_says_what_to_call():
    backend = ManualBackend()
    scheduler = Scheduler(backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no coroutine is left unawaited
        with pytest.raises(RunningLoopError, match=r"await scheduler\.async_run\(\)"):
            scheduler.run()
    assert (backend.n_opened, scheduler.state) == (0, "idle")


async def test_a_with_block_inside_of_a_loop_ends_its_run_and_says_what_to_use():
    scheduler = Scheduler(ManualBackend())
    with pytest.raises(RunningLoopError, match="Use `async with scheduler:` here"):
        with scheduler:
            scheduler.submit(f)
    assert await asyncio.wait_for(scheduler.last_run.over(), 10) == ExitCode.STOPPED


@pytest.mark.parametrize("verb", ["start", "run", "async_run", "with", "async with"])
async def test_a_second_start_while_running_is_refused(by_hand: ByHand, verb: str):
    run = by_hand.start()
    start_again = {
        "with": by_hand.scheduler.__enter__,
        "async with": by_hand.scheduler.__aenter__,
    }.get(verb) or getattr(by_hand.scheduler, verb)
    with pytest.raises(SchedulerRunningError, match=r"is running already.*scheduler\.stop\(\)"):
        await start_again()
    assert by_hand.scheduler.running()  # the first run is as it was
    assert by_hand.scheduler.last_run is run
    assert by_hand.backend.n_opened == 1


def test_running_twice_at_the_same_time_from_a_callback():
    scheduler = Scheduler.with_sequential()
    errors: list[Exception] = []

    @scheduler.on_start
    def again() -> None:
        with pytest.raises(SchedulerRunningError) as caught:
            scheduler.run()
        errors.append(caught.value)

    assert scheduler.run() == ExitCode.EXHAUSTED
    assert len(errors) == 1


async def test_the_next_run_may_be_started_in_on_finished(by_hand: ByHand):
    runs: list[Any] = []
    by_hand.scheduler.on_finished(
        lambda: runs.append(by_hand.scheduler.start(end_on_empty=True)), max_calls=1
    )

    @by_hand.scheduler.on_empty
    def broken() -> None:
        if by_hand.scheduler.n_runs == 2:
            raise ValueError("in the second run")

    await by_hand.start(end_on_empty=True)
    state = await runs[0]
    assert state == ExitCode.EXHAUSTED  # its errors came to it, by its own policy "continue"
    assert "in the second run" in by_hand.scheduler.snapshot().log[0].text
    assert by_hand.scheduler.event_counts["on_finished"] == 2


# ------------------------------------------------------------ executors of the user


def test_a_closed_executor_is_refused_before_anything_starts():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    scheduler = Scheduler(executor)
    recorder = EventRecorder(scheduler)
    with pytest.raises(ExecutorClosedError, match=r"ThreadPoolExecutor .* shut down.*Make a new"):
        scheduler.run()
    assert (scheduler.state, recorder.names) == ("idle", [])


async def test_an_executor_closed_meanwhile_fails_the_call_that_finds_out():
    executor = ManualExecutor(1)
    scheduler = Scheduler(executor)
    run = scheduler.start()
    executor.shutdown()
    future = scheduler.submit(f)
    with pytest.raises(ExecutorClosedError, match="stop the scheduler before closing"):
        await asyncio.wait_for(future, 10)
    scheduler.stop()
    await run


async def test_an_executor_gets_no_more_than_it_can_run():
    executor = ManualExecutor(2)
    scheduler = Scheduler(executor)
    run = scheduler.start(end_on_empty=True)
    futures = scheduler.map(f, range(5))
    assert len(executor.futures) == 2
    executor.run()
    assert len(executor.futures) == 2  # the next one at once, on the thread that found room
    executor.run_all()
    assert await run == ExitCode.EXHAUSTED
    assert [future.result() for future in futures] == list(range(5))


@pytest.mark.parametrize("terminate", [False, True])
async def test_a_terminate_function_is_given_the_executor(terminate: bool):
    ended: list[Any] = []
    executor = ManualExecutor(1)
    scheduler = Scheduler(executor, terminate=ended.append if terminate else False)
    run = scheduler.start()
    future = scheduler.submit(f)
    scheduler.stop(wait=False)
    # What was submitted and not begun is taken back without ending anything.
    assert await asyncio.wait_for(run.wait(), 10) == ExitCode.STOPPED
    assert future.cancelled()
    run = scheduler.start()
    future = scheduler.submit(f)
    executor.futures[0].set_running_or_notify_cancel()
    scheduler.stop(wait=False)
    assert await asyncio.wait_for(run.wait(), 10) == ExitCode.STOPPED
    assert future.cancelled()
    assert ended == ([executor] if terminate else [])


# ------------------------------------------------------------ what cannot travel


@pytest.mark.parametrize("mode", ["raise", "end", "continue"])
def test_an_argument_that_cannot_travel_fails_its_call(mode: Any):
    scheduler = Scheduler.with_processes(1)
    recorder = EventRecorder(scheduler)
    futures: list[Any] = []

    @scheduler.on_start
    def submit() -> None:
        futures.append(scheduler.submit(f, threading.Lock()))

    if mode == "raise":
        with pytest.raises(NotPicklableError, match="lock"):
            scheduler.run(on_exception=mode)
    else:
        state = scheduler.run(on_exception=mode)
        assert state == (ExitCode.EXCEPTION if mode == "end" else ExitCode.EXHAUSTED)
    assert isinstance(futures[0].exception(), NotPicklableError)
    assert isinstance(futures[0].exception(), TypeError)
    ended = ["on_future_done", "on_future_exception"]
    assert recorder.names[1:4] == ["on_future_submitted", *ended]
    assert scheduler.snapshot().counts["failed"] == 1


def test_a_future_as_an_argument_says_to_await_it():
    scheduler = Scheduler.with_processes(1)
    futures: list[Any] = []

    @scheduler.on_start
    def submit() -> None:
        futures.append(scheduler.submit(f, 1))
        futures.append(scheduler.submit(f, futures[0]))

    with pytest.raises(NotPicklableError, match="await"):
        scheduler.run()
    assert isinstance(futures[1].exception(), NotPicklableError)


def a_lock() -> Any:
    return threading.Lock()


def test_a_result_that_cannot_travel_fails_its_call():
    scheduler = Scheduler.with_processes(1)
    scheduler.on_start(lambda: scheduler.submit(a_lock))
    with pytest.raises(NotPicklableError, match="result"):
        scheduler.run()


def test_a_broken_initializer_fails_the_calls_with_what_it_said():
    scheduler = Scheduler.with_processes(1, initializer=broken_initializer)
    scheduler.on_start(lambda: scheduler.submit(f))
    with pytest.raises(WorkerStartError, match="no licence"):
        scheduler.run()
    assert scheduler.state == "finished"


@pytest.mark.parametrize("thing", [5, None, "f"])
async def test_what_cannot_be_called_is_refused(by_hand: ByHand, thing: Any):
    by_hand.start()
    for submit in (by_hand.scheduler.submit, by_hand.scheduler.task):
        with pytest.raises(TypeError, match="pass the function itself"):
            submit(thing)


# ------------------------------------------------------------ verbs


async def test_resubmitting_what_has_a_parameter_named_call(by_hand: ByHand):
    def ring(*, call: int, self: int = 0) -> int:
        return call + self

    by_hand.start()
    task = by_hand.scheduler.task(ring)
    first = task.submit(call=1)
    for again in (by_hand.scheduler.resubmit, task.resubmit):
        assert again(first, call=2, self=3).call.kwargs == {"call": 2, "self": 3}


async def test_cancelling_and_resubmitting_something_else(by_hand: ByHand):
    by_hand.start()
    for verb in (by_hand.scheduler.cancel, by_hand.scheduler.resubmit):
        with pytest.raises(TypeError, match="neither a Call nor a Future"):
            verb(3)  # type: ignore[arg-type]


async def test_calls_of_another_scheduler_are_refused(make_by_hand: Callable[..., ByHand]):
    one, two = make_by_hand(name="one"), make_by_hand(name="two")
    one.start()
    two.start()
    future = one.scheduler.submit(f, 1)
    for verb in (two.scheduler.cancel, two.scheduler.resubmit):
        for what in (future, future.call):
            with pytest.raises(CallNotFoundError, match="another scheduler than 'two'"):
                verb(what)
    assert future.call.state is CallState.RUNNING
    one.backend.finish(future)
    await settled()
    with pytest.raises(CallNotFoundError, match="another scheduler"):  # not after its end either
        two.scheduler.resubmit(future)
    assert two.scheduler.records() == []
    assert one.scheduler.resubmit(future) is not None


async def test_resubmitting_all_failures_takes_each_once(by_hand: ByHand):
    by_hand.start()
    for n in range(4):
        future = by_hand.scheduler.submit(f, n)
        if n % 2:
            by_hand.backend.fail(future, ValueError())
        else:
            by_hand.backend.finish(future)
        await settled()
    again = by_hand.scheduler.resubmit_failed()
    assert [(f.call.args, f.call.resubmitted_from) for f in again] == [((1,), 2), ((3,), 4)]
    assert by_hand.scheduler.resubmit_failed() == []
    by_hand.backend.fail(again[0], ValueError())
    await settled()
    (third,) = by_hand.scheduler.resubmit_failed()
    assert (third.call.resubmitted_from, third.call.attempt) == (5, 3)


async def test_cancel_pending_counts_what_waited(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(6))
    assert by_hand.scheduler.cancel_pending() == 4
    assert by_hand.scheduler.cancel_pending() == 0
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 4


async def test_the_queue_is_what_has_not_ended(by_hand: ByHand):
    assert (by_hand.scheduler.queue, by_hand.scheduler.empty()) == ({}, True)
    by_hand.start()
    one, two = by_hand.scheduler.submit(f, 1), by_hand.scheduler.submit(f, x=2)
    assert by_hand.scheduler.queue == {one: (f, (1,), {}), two: (f, (), {"x": 2})}
    assert not by_hand.scheduler.empty()
    by_hand.backend.finish(one)
    await settled()
    assert list(by_hand.scheduler.queue) == [two]


async def test_awaiting_a_future_does_not_own_it(by_hand: ByHand):
    by_hand.start()
    future = by_hand.scheduler.submit(f)

    async def waits() -> Any:
        return await future

    for main in (waits(), by_hand.scheduler.gather([future])):
        waiter = asyncio.ensure_future(main)
        await settled()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert future.call.state == "running"
    by_hand.backend.finish(future, 5)
    assert await future == 5
    assert await future == 5


async def test_two_schedulers_live_on_one_loop(make_by_hand: Callable[..., ByHand]):
    one, two = make_by_hand(), make_by_hand()
    runs = [one.start(end_on_empty=True), two.start(end_on_empty=True)]
    one.backend.finish(one.scheduler.submit(f), 1)
    two.backend.finish(two.scheduler.submit(f), 2)
    assert await asyncio.gather(*(run.wait() for run in runs)) == [ExitCode.EXHAUSTED] * 2


# ------------------------------------------------------------ waiting


async def test_the_timeout_of_as_completed_spares_the_body_of_the_loop(by_hand: ByHand):
    by_hand.start()
    done, never = by_hand.scheduler.submit(f), by_hand.scheduler.submit(f)
    by_hand.backend.finish(done)
    await settled()
    slow = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, slow.set)  # long after the timeout
    bodies = []

    async def iterate() -> None:
        async for future in by_hand.scheduler.as_completed([done, never], timeout=0.01):
            await slow.wait()
            bodies.append(future)

    with pytest.raises(TimeoutError):
        await iterate()
    assert bodies == [done]


async def test_leaving_as_completed_early_leaves_nothing_behind(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(2))
    by_hand.backend.finish(futures[0])
    async for future in by_hand.scheduler.as_completed(futures, timeout=60):
        assert future is futures[0]
        break
    by_hand.backend.finish(futures[1])
    await settled()


async def test_waiting_on_the_loop_is_refused(by_hand: ByHand):
    by_hand.start()
    future = by_hand.scheduler.submit(f)
    with pytest.raises(RuntimeError, match="Use `await future`"):
        by_hand.scheduler.wait(future)
    with pytest.raises(RuntimeError, match="async for"):
        list(by_hand.scheduler.as_completed([future]))


async def test_a_thread_waits_no_longer_than_it_wants(by_hand: ByHand):
    by_hand.start()
    future = by_hand.scheduler.submit(f)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(by_hand.scheduler.wait, future, 0.01)
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        await asyncio.to_thread(list, by_hand.scheduler.as_completed([future], timeout=0.01))
    assert future.call.state == "running"


def test_waiting_in_a_with_block_outside_of_any_loop():
    with Scheduler.with_threads(2) as scheduler:
        future = scheduler.submit(f, 3)
        assert scheduler.wait(future, timeout=20) == 3
        rest = scheduler.map(f, range(4))
        ended = [future.result() for future in scheduler.as_completed(rest, timeout=20)]
        assert sorted(ended) == [0, 1, 2, 3]


# ------------------------------------------------------------ with blocks


def test_a_block_that_raises_ends_its_run_and_is_raised():
    scheduler = Scheduler(ManualBackend())
    futures: list[Any] = []

    def block() -> None:
        with scheduler:
            futures.append(scheduler.submit(f))
            raise KeyError("in the block")

    with pytest.raises(KeyError, match="in the block"):
        block()
    assert futures[0].cancelled()
    assert scheduler.last_run.reason == "the with block raised KeyError"
    assert scheduler.state == "finished"


async def test_an_async_block_that_raises_ends_its_run_and_is_raised():
    scheduler = Scheduler(ManualBackend())
    futures: list[Any] = []

    async def block() -> None:
        async with scheduler:
            futures.append(scheduler.submit(f))
            raise KeyError("in the block")

    with pytest.raises(KeyError, match="in the block"):
        await block()
    assert futures[0].cancelled()
    assert scheduler.state == "finished"


def test_an_error_of_a_call_is_raised_at_the_end_of_the_block():
    def fails() -> None:
        raise ValueError("of the call")

    with pytest.raises(ValueError, match="of the call"):
        with Scheduler.with_threads(1) as scheduler:
            scheduler.submit(fails)


def test_a_block_over_a_closed_executor_leaves_no_loop_open():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ExecutorClosedError):
        Scheduler(executor).__enter__()


def test_a_block_inside_of_its_own_block_is_refused_and_the_outer_one_works():
    with Scheduler.with_threads(1) as scheduler:
        future = scheduler.submit(f, 4)
        with pytest.raises(SchedulerRunningError):
            scheduler.__enter__()
    assert future.result() == 4


# ------------------------------------------------------------ older spellings


def raises_value_error() -> None:
    raise ValueError("bad")


def test_the_older_spellings_of_the_policy():
    scheduler = Scheduler.with_sequential()
    scheduler.on_start(lambda: scheduler.submit(raises_value_error))
    assert scheduler.run(end_on_exception=False) == ExitCode.EXHAUSTED
    assert isinstance(scheduler.run(raises=False), ValueError)
    assert isinstance(scheduler.run(end_on_exception=True, raises=False), ValueError)
    for old in ({"raises": True}, {"end_on_exception": True}):
        with pytest.raises(ValueError, match="bad"):
            scheduler.run(**old)
    with pytest.raises(TypeError, match="use on_exception= alone"):
        scheduler.run(on_exception="end", raises=False)


def test_an_exit_state_equals_its_code():
    state = ExitState(ExitCode.STOPPED)
    assert state == ExitCode.STOPPED == ExitState.Code.STOPPED == Scheduler.ExitCode.STOPPED
    assert state == ExitState(ExitCode.STOPPED)
    assert state != ExitCode.TIMEOUT
    assert state != ExitState(ExitCode.STOPPED, ValueError())
    assert hash(state) == hash(ExitCode.STOPPED)


async def test_stop_takes_any_arguments_so_it_can_be_a_callback(by_hand: ByHand):
    by_hand.scheduler.on_future_result(by_hand.scheduler.stop)
    task = by_hand.scheduler.task(f)
    task.on_exception(by_hand.scheduler.stop)
    run = by_hand.start()
    by_hand.backend.fail(task.submit(), ValueError())
    assert await run == ExitCode.STOPPED


async def test_a_paused_run_without_work_still_ends_when_empty(by_hand: ByHand):
    run = by_hand.start(end_on_empty=True)
    by_hand.scheduler.pause()
    assert await run == ExitCode.EXHAUSTED


async def test_pausing_twice_is_pausing_once(by_hand: ByHand):
    by_hand.start()
    for _ in range(2):
        by_hand.scheduler.pause()
    future = by_hand.scheduler.submit(f)
    by_hand.scheduler.resume()
    assert future.call.state == "running"
    by_hand.scheduler.resume()
    assert by_hand.scheduler.state == "running"


async def test_pause_and_stop_act_at_once_on_any_thread(by_hand: ByHand):
    run = by_hand.start()
    by_hand.scheduler.map(f, range(4))

    def elsewhere() -> list[Any]:
        by_hand.scheduler.pause()
        paused = by_hand.scheduler.state
        by_hand.scheduler.resume()
        by_hand.scheduler.stop()
        return [paused, by_hand.scheduler.state, by_hand.scheduler.running()]

    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend(elsewhere()))
    thread.start()
    thread.join()  # the loop is blocked meanwhile
    assert seen == ["paused", "stopping", False]
    await turn_until(lambda: by_hand.recorder.counts["on_future_cancelled"] == 2)
    for call in by_hand.backend.calls:
        by_hand.backend.finish(call)
    assert await run == ExitCode.STOPPED


async def test_a_call_whose_arguments_were_too_large_says_so_when_it_is_run_again():
    scheduler = Scheduler.with_threads(1)
    run = scheduler.start(on_exception="continue")
    large = 200_000_000
    failed = [scheduler.submit(int, bytes(large)) for _ in range(3)]
    await scheduler.gather(failed, return_exceptions=True)
    assert [future.call.arguments_gone for future in failed] == [True, True, False]
    with pytest.raises(CallNotFoundError, match=r"arguments of call 1 of int\(.*Pass them once"):
        scheduler.resubmit(failed[0])
    with pytest.raises(CallNotFoundError, match="arguments of call 1"):
        failed[0].call.run_here()
    assert await scheduler.resubmit(failed[0], "7") == 7
    (again,) = scheduler.resubmit_failed()
    assert again.call.resubmitted_from == 3
    with pytest.raises(ValueError, match="invalid literal"):
        await again
    warnings = [line.text for line in scheduler.history.log_tail if line.level == "warning"]
    assert warnings == ["calls 2 have no arguments any more; submit them anew"]
    scheduler.stop()
    await run
