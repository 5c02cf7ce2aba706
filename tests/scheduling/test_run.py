"""One run from its first event to its last: the exact order of events for every way to end."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import threading
from collections.abc import Callable
from typing import Any

import pytest

from amltk_nb import ExitCode, ExitState, Scheduler, SchedulerNotRunningError
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import EventRecorder, ManualExecutor
from tests.scheduling.conftest import ByHand, settled

SUBMITTED = ["on_future_submitted"]
RETURNED = ["on_future_done", "on_future_result"]
FAILED = ["on_future_done", "on_future_exception"]
CANCELLED = ["on_future_cancelled"]


def f(x: int = 0) -> int:
    return x


# ------------------------------------------------------------ nothing left to do


async def test_a_run_without_work(by_hand: ByHand):
    state = await by_hand.start(end_on_empty=True)
    assert state == ExitCode.EXHAUSTED
    assert by_hand.recorder.names == ["on_start", "on_empty", "on_finishing", "on_finished"]
    assert (by_hand.backend.n_opened, by_hand.backend.n_closed) == (1, 1)


async def test_a_call_of_a_task_that_returns(by_hand: ByHand):
    task = by_hand.scheduler.task(f)
    by_hand.recorder.watch(task)
    run = by_hand.start(end_on_empty=True)
    future = task.submit(3)
    by_hand.backend.finish(future, 9)
    assert await run == ExitState(ExitCode.EXHAUSTED)
    assert by_hand.recorder.names == [
        "on_start",
        "on_future_submitted",
        "Task-f-1.on_submitted",
        "on_future_done",
        "on_future_result",
        "Task-f-1.on_done",
        "Task-f-1.on_result",
        "Task-f-1.on_returned",
        "Task-f-1.on_f_returned",
        "on_empty",
        "on_finishing",
        "on_finished",
    ]
    payloads = {r.name: (r.args, dict(r.kwargs)) for r in by_hand.recorder.events}
    assert payloads["on_future_submitted"] == ((future,), {})
    assert payloads["Task-f-1.on_submitted"] == ((future, 3), {})
    assert payloads["on_future_result"] == ((future, 9), {})
    assert payloads["Task-f-1.on_returned"] == ((9,), {})
    assert payloads["Task-f-1.on_f_returned"] == ((future, 9), {})


async def test_a_call_of_a_task_that_raises_and_the_run_goes_on(by_hand: ByHand):
    task = by_hand.scheduler.task(f)
    by_hand.recorder.watch(task)
    run = by_hand.start(end_on_empty=True)
    future = task.submit(x=3)
    by_hand.backend.fail(future, error := ValueError("bad"))
    assert await run == ExitCode.EXHAUSTED
    assert by_hand.recorder.names == [
        "on_start",
        "on_future_submitted",
        "Task-f-1.on_submitted",
        "on_future_done",
        "on_future_exception",
        "Task-f-1.on_done",
        "Task-f-1.on_exception",
        "Task-f-1.on_f_exception",
        "on_empty",
        "on_finishing",
        "on_finished",
    ]
    payloads = {r.name: (r.args, dict(r.kwargs)) for r in by_hand.recorder.events}
    assert payloads["Task-f-1.on_submitted"] == ((future,), {"x": 3})
    assert payloads["Task-f-1.on_exception"] == ((future, error), {})
    assert future.exception() is error


async def test_a_cancelled_call_has_one_event_of_each(by_hand: ByHand):
    task = by_hand.scheduler.task(f)
    by_hand.recorder.watch(task)
    run = by_hand.start(end_on_empty=True)
    by_hand.scheduler.pause()
    future = task.submit()
    assert future.cancel()
    assert await run == ExitCode.EXHAUSTED
    assert by_hand.recorder.names == [
        "on_start",
        "on_future_submitted",
        "Task-f-1.on_submitted",
        "on_future_cancelled",
        "Task-f-1.on_cancelled",
        "Task-f-1.on_f_cancelled",
        "on_empty",
        "on_finishing",
        "on_finished",
    ]


async def test_refilling_in_on_empty_keeps_the_run_alive(by_hand: ByHand):
    futures: list[Any] = []

    @by_hand.scheduler.on_empty(max_calls=3)
    def refill() -> None:
        futures.append(by_hand.scheduler.submit(f))
        by_hand.backend.finish(futures[-1])

    assert await by_hand.start(end_on_empty=True) == ExitCode.EXHAUSTED
    one = ["on_empty", *SUBMITTED, *RETURNED]
    names = by_hand.recorder.names
    assert names == ["on_start", *one * 3, "on_empty", "on_finishing", "on_finished"]
    assert [future.call.state for future in futures] == ["done"] * 3


async def test_on_empty_comes_once_per_time_that_all_is_done(by_hand: ByHand):
    run = by_hand.start()
    await settled()
    assert by_hand.recorder.names == ["on_start", "on_empty"]
    for _ in range(2):
        one, two = by_hand.scheduler.submit(f), by_hand.scheduler.submit(f)
        by_hand.backend.finish(one)
        await settled()
        assert by_hand.recorder.names[-1] == "on_future_result"  # the other one still runs
        by_hand.backend.finish(two)
        await settled()
    assert by_hand.recorder.counts["on_empty"] == 3
    by_hand.scheduler.stop()
    await run
    assert by_hand.recorder.counts["on_empty"] == 3


async def test_an_error_in_on_empty_is_not_swallowed(by_hand: ByHand):
    @by_hand.scheduler.on_empty
    def broken() -> None:
        raise ValueError("empty-handed")

    with pytest.raises(ValueError, match="empty-handed"):
        await by_hand.start(end_on_empty=True, on_exception="raise")
    names = ["on_start", "on_empty", "on_stop", "on_finishing", "on_finished"]
    assert by_hand.recorder.names == names


# ------------------------------------------------------------ stop


async def test_stop_with_nothing_under_way(by_hand: ByHand):
    run = by_hand.start()
    by_hand.scheduler.stop(stop_msg="enough")
    assert by_hand.scheduler.running() is False
    assert await run == ExitCode.STOPPED
    # It was empty when the stop was acted on, so that is said first.
    names = ["on_start", "on_empty", "on_stop", "on_finishing", "on_finished"]
    assert by_hand.recorder.names == names
    assert by_hand.recorder.events[2].args == ("enough", None)
    assert by_hand.scheduler.snapshot().run.reason == "enough"


async def test_stop_cancels_the_queue_and_waits_for_what_runs(by_hand: ByHand):
    run = by_hand.start()
    running = [by_hand.scheduler.submit(f) for _ in range(2)]
    queued = [by_hand.scheduler.submit(f) for _ in range(3)]
    by_hand.scheduler.stop()
    assert [future.call.state for future in queued] == [CallState.CANCELLED] * 3
    await settled()
    assert not run.done()
    by_hand.backend.finish(running[1], "b")
    by_hand.backend.fail(running[0], ValueError())
    assert await run == ExitCode.STOPPED
    assert by_hand.recorder.names == [
        "on_start",
        *SUBMITTED * 5,
        "on_stop",
        "on_finishing",
        *CANCELLED * 3,
        *RETURNED,
        *FAILED,
        "on_finished",
    ]
    assert running[1].result() == "b"
    assert all(future.cancelled() for future in queued)


async def test_stop_now_ends_what_runs(by_hand: ByHand):
    run = by_hand.start()
    running = [by_hand.scheduler.submit(f) for _ in range(2)]
    queued = [by_hand.scheduler.submit(f) for _ in range(2)]
    by_hand.scheduler.stop(wait=False)
    assert await run == ExitCode.STOPPED
    counts = by_hand.recorder.counts
    assert counts["on_future_cancelled"] == 4
    assert counts["on_future_done"] == counts["on_empty"] == 0
    assert by_hand.recorder.names[-1] == "on_finished"
    assert by_hand.recorder.names.index("on_stop") < by_hand.recorder.names.index("on_finishing")
    assert all(future.cancelled() for future in running + queued)


async def test_stop_now_leaves_behind_what_cannot_be_ended(make_by_hand: Callable[..., ByHand]):
    by_hand = make_by_hand(cannot_end="it is made so")
    run = by_hand.start()
    by_hand.scheduler.submit(f)
    by_hand.scheduler.stop(wait=False)
    assert await run == ExitCode.STOPPED
    assert by_hand.recorder.names == [
        "on_start",
        *SUBMITTED,
        "on_stop",
        "on_finishing",
        *CANCELLED,
        "on_finished",
    ]


async def test_a_run_started_without_waiting_ends_so(by_hand: ByHand):
    run = by_hand.start(wait=False)
    future = by_hand.scheduler.submit(f)
    by_hand.scheduler.stop()
    assert await run == ExitCode.STOPPED
    assert future.cancelled()


async def test_a_second_stop_can_only_make_it_quicker(by_hand: ByHand):
    run = by_hand.start()
    future = by_hand.scheduler.submit(f)
    by_hand.scheduler.stop(stop_msg="first")
    by_hand.scheduler.stop(stop_msg="second")
    await settled()
    assert (run.done(), by_hand.recorder.names[-1]) == (False, "on_finishing")
    by_hand.scheduler.stop(stop_msg="third", wait=False)
    assert await run == ExitCode.STOPPED
    assert future.cancelled()
    assert by_hand.recorder.counts["on_stop"] == 1
    assert run.reason == "first"
    by_hand.scheduler.stop()  # after the end: harmless
    assert by_hand.recorder.counts["on_stop"] == 1


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    "event", ["on_start", "on_future_submitted", "on_future_done", "on_future_result", "on_empty"]
)
async def test_stop_from_a_callback(by_hand: ByHand, event: str, wait: bool):
    by_hand.scheduler.on(event, by_hand.scheduler.stop)
    run = by_hand.start(wait=wait)
    with_call = event != "on_start"
    if with_call:
        future = by_hand.scheduler.submit(f)
        if event == "on_future_submitted" and wait:
            await settled()
        if event != "on_future_submitted" or wait:
            by_hand.backend.finish(future, 1)
    assert await run == ExitCode.STOPPED
    ended = CANCELLED if event == "on_future_submitted" and not wait else RETURNED
    stopped = ["on_stop", "on_finishing"]
    call_first = ["on_start", *SUBMITTED, *ended, "on_empty", *stopped, "on_finished"]
    expected = {
        "on_start": ["on_start", "on_empty", *stopped, "on_finished"],
        "on_future_submitted": ["on_start", *SUBMITTED, *stopped, *ended, "on_finished"],
    }.get(event, call_first)
    if event == "on_future_submitted" and not wait:
        # Ended before the stop was acted on: the drain that says so comes first. A call that is
        # cancelled by stopping never makes the run "empty".
        expected = ["on_start", *SUBMITTED, *CANCELLED, *stopped, "on_finished"]
    assert by_hand.recorder.names == expected


@pytest.mark.parametrize("event", ["on_stop", "on_finishing", "on_future_cancelled", "on_finished"])
async def test_stop_from_a_callback_while_finishing(by_hand: ByHand, event: str):
    by_hand.scheduler.on(event, by_hand.scheduler.stop)
    run = by_hand.start()
    running, _, _ = (by_hand.scheduler.submit(f) for _ in range(3))
    by_hand.backend.finish(running)
    await settled()
    assert by_hand.backend.started == [[1], [2], [3]]
    by_hand.scheduler.stop(stop_msg="first")
    for call in by_hand.backend.calls:
        by_hand.backend.finish(call)
    assert await run == ExitCode.STOPPED
    assert by_hand.recorder.counts["on_stop"] == 1
    assert by_hand.recorder.names[-1] == "on_finished"


async def test_stop_now_in_on_finishing_ends_what_runs(by_hand: ByHand):
    @by_hand.scheduler.on_finishing
    def hurry() -> None:
        by_hand.scheduler.stop(wait=False)

    run = by_hand.start()
    future = by_hand.scheduler.submit(f)
    by_hand.scheduler.stop()
    assert await run == ExitCode.STOPPED
    assert future.cancelled()
    names = ["on_start", *SUBMITTED, "on_stop", "on_finishing", *CANCELLED, "on_finished"]
    assert by_hand.recorder.names == names


async def test_stop_from_many_threads_at_once(by_hand: ByHand):
    run = by_hand.start()
    futures = [by_hand.scheduler.submit(f) for _ in range(20)]
    gate = threading.Barrier(8)

    def stop() -> None:
        gate.wait()
        by_hand.scheduler.stop(wait=False)

    threads = [threading.Thread(target=stop) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert by_hand.scheduler.running() is False  # at once, without the loop
    assert await run == ExitCode.STOPPED
    counts = by_hand.recorder.counts
    assert (counts["on_stop"], counts["on_future_cancelled"]) == (1, 20)
    assert all(future.cancelled() for future in futures)


async def test_stop_from_a_thread_wakes_a_loop_that_waits(by_hand: ByHand):
    run = by_hand.start(timeout=600)
    await settled()
    thread = threading.Timer(0.0, by_hand.scheduler.stop)
    thread.start()
    assert await asyncio.wait_for(run.wait(), 10) == ExitCode.STOPPED
    thread.join()


@pytest.mark.parametrize("n_failures", [1, 2])
async def test_a_backend_that_cannot_be_closed_keeps_no_run_from_ending(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch, n_failures: int
):
    close, failures = by_hand.backend.close, list(range(n_failures))

    def fail_first(**how: Any) -> None:
        if failures:
            failures.pop()
            raise OSError(24, "Too many open files")
        close(**how)

    monkeypatch.setattr(by_hand.backend, "close", fail_first)
    run = by_hand.start()
    futures = [by_hand.scheduler.submit(f) for _ in range(5)]
    by_hand.scheduler.stop(wait=False)
    with pytest.raises(OSError, match="Too many open files"):
        await asyncio.wait_for(run.wait(), 10)
    assert run.exit_state == ExitCode.EXCEPTION
    assert failures == []
    assert [future.cancelled() for future in futures] == [True] * 5
    counts = by_hand.recorder.counts
    assert (counts["on_future_cancelled"], counts["on_finished"]) == (5, 1)


async def test_stopping_takes_no_more_calls(by_hand: ByHand):
    task = by_hand.scheduler.task(f)
    refused: list[str] = []

    @by_hand.scheduler.on_stop
    @by_hand.scheduler.on_finishing
    @by_hand.scheduler.on_future_result
    @by_hand.scheduler.on_finished
    def submit_more(*_: Any) -> None:
        assert task(1) is None
        for submit in (by_hand.scheduler.submit, task.submit):
            with pytest.raises(SchedulerNotRunningError):
                submit(f) if submit == by_hand.scheduler.submit else submit(1)
        refused.append(str(by_hand.scheduler.state))

    run = by_hand.start()
    future = by_hand.scheduler.submit(f)
    by_hand.scheduler.stop()
    by_hand.backend.finish(future)
    assert await run == ExitCode.STOPPED
    assert sorted(refused) == ["finished", "stopping", "stopping", "stopping"]
    assert task.n_called == 0


async def test_an_unguarded_submit_while_draining_is_no_error(by_hand: ByHand):
    @by_hand.scheduler.on_future_result
    def chain() -> None:
        by_hand.scheduler.submit(f)

    run = by_hand.start(on_exception="raise")
    future = by_hand.scheduler.submit(f)
    by_hand.scheduler.stop()
    by_hand.backend.finish(future)
    assert await run == ExitState(ExitCode.STOPPED)
    (said,) = by_hand.scheduler.snapshot().log
    assert (said.level, said.text) == ("info", "did not submit: the run is stopping")


# ------------------------------------------------------------ stop with an error


@pytest.mark.parametrize("mode", ["raise", "end", "continue"])
async def test_stop_with_an_exception_follows_the_policy(by_hand: ByHand, mode: Any):
    error = ValueError("worse than that")
    run = by_hand.start(on_exception=mode)
    by_hand.scheduler.stop(stop_msg="it is broken", exception=error)
    code = ExitCode.STOPPED if mode == "continue" else ExitCode.EXCEPTION
    if mode == "raise":
        with pytest.raises(ValueError, match="worse than that"):
            await run
    else:
        assert await run == ExitState(code, error)
    assert run.exit_state == ExitState(code, error)
    stop = next(r for r in by_hand.recorder.events if r.name == "on_stop")
    assert stop.args == ("it is broken", error)
    assert by_hand.recorder.counts["on_stop"] == 1


# ------------------------------------------------------------ timeout


async def test_a_timeout(by_hand: ByHand):
    run = by_hand.start(timeout=0)
    assert await run == ExitCode.TIMEOUT
    names = ["on_start", "on_empty", "on_timeout", "on_finishing", "on_finished"]
    assert by_hand.recorder.names == names


async def test_a_timeout_cancels_the_queue_and_lets_running_calls_finish(by_hand: ByHand):
    run = by_hand.start(timeout=0.001)
    running = [by_hand.scheduler.submit(f) for _ in range(2)]
    by_hand.scheduler.submit(f)
    timed_out = asyncio.Event()
    by_hand.scheduler.on_timeout(timed_out.set)
    await asyncio.wait_for(timed_out.wait(), 10)
    await settled()
    for future in running:
        by_hand.backend.finish(future)
    assert await run == ExitCode.TIMEOUT
    assert by_hand.recorder.names == [
        "on_start",
        *SUBMITTED * 3,
        "on_timeout",
        "on_finishing",
        *CANCELLED,
        *RETURNED * 2,
        "on_finished",
    ]


async def test_a_timeout_that_falls_while_stopping_changes_nothing(by_hand: ByHand):
    run = by_hand.start(timeout=0)
    by_hand.scheduler.stop()
    assert await run == ExitCode.STOPPED
    assert by_hand.recorder.counts["on_timeout"] == 0


async def test_every_run_has_its_own_timeout(by_hand: ByHand):
    for _ in range(3):
        assert await by_hand.start(timeout=0.001) == ExitCode.TIMEOUT
        assert by_hand.recorder.counts["on_timeout"] == 1


# ------------------------------------------------------------ errors of calls


async def test_raise_ends_the_run_and_is_raised(by_hand: ByHand):
    run = by_hand.start(on_exception="raise")
    bad, other, queued = (by_hand.scheduler.submit(f) for _ in range(3))
    by_hand.backend.fail(bad, error := ValueError("bad"))
    await settled()
    by_hand.backend.finish(other)
    by_hand.backend.finish(queued)  # it had started on the worker that became free
    with pytest.raises(ValueError, match="bad") as caught:
        await run
    assert caught.value is error
    assert run.exit_state == ExitState(ExitCode.EXCEPTION, error)


async def test_the_order_of_events_when_a_call_ends_the_run(make_by_hand: Callable[..., ByHand]):
    by_hand = make_by_hand(1)
    run = by_hand.start(on_exception="end")
    bad, queued = by_hand.scheduler.submit(f), by_hand.scheduler.submit(f)
    by_hand.backend.fail(bad, error := ValueError("bad"))
    assert queued.call.state is CallState.RUNNING  # started at once on the worker that is free
    await settled()
    by_hand.backend.finish(queued)
    assert await run == ExitState(ExitCode.EXCEPTION, error)
    assert by_hand.recorder.names == [
        "on_start",
        *SUBMITTED * 2,
        *FAILED,
        "on_stop",
        "on_finishing",
        *RETURNED,
        "on_finished",
    ]
    stop = next(r for r in by_hand.recorder.events if r.name == "on_stop")
    assert stop.args == ("ValueError: bad", error)


async def test_a_mapping_decides_by_type(by_hand: ByHand):
    policy = {KeyError: "continue", LookupError: "end"}
    run = by_hand.start(on_exception=policy)
    one = by_hand.scheduler.submit(f)
    by_hand.backend.fail(one, KeyError("k"))
    await settled()
    assert by_hand.scheduler.running()
    by_hand.backend.fail(by_hand.scheduler.submit(f), error := IndexError("i"))
    assert await run == ExitState(ExitCode.EXCEPTION, error)


@pytest.mark.parametrize("where", ["call", "callback"])
@pytest.mark.parametrize("policy", [{}, {KeyError: "continue"}])
async def test_what_a_mapping_does_not_list_is_raised(by_hand: ByHand, where: str, policy: Any):
    if where == "callback":

        @by_hand.scheduler.on_future_result
        def broken() -> None:
            raise ValueError("not listed")

    run = by_hand.start(on_exception=policy)
    future = by_hand.scheduler.submit(f)
    if where == "call":
        by_hand.backend.fail(future, ValueError("not listed"))
    else:
        by_hand.backend.finish(future)
    with pytest.raises(ValueError, match="not listed"):
        await run
    assert run.exit_state == ExitCode.EXCEPTION


@pytest.mark.parametrize("mode", ["raise", "end", "continue"])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_exits_out_of_calls_end_the_run_and_come_out_of_the_wait_only(
    by_hand: ByHand, mode: Any, kind: type[BaseException]
):
    run = by_hand.start(on_exception=mode)
    by_hand.backend.fail(by_hand.scheduler.submit(f), error := kind("out"))
    await run.over()  # nothing came through the loop
    assert run.exit_state == ExitState(ExitCode.EXCEPTION, error)
    assert by_hand.recorder.names[-3:] == ["on_stop", "on_finishing", "on_finished"]
    with pytest.raises(kind):
        next(iter(run.__await__()))


async def test_stop_iteration_is_wrapped_with_its_cause(by_hand: ByHand):
    by_hand.start()
    future = by_hand.scheduler.submit(f)
    by_hand.backend.fail(future, error := StopIteration(3))
    with pytest.raises(RuntimeError, match="the call raised StopIteration") as caught:
        await future
    assert caught.value.__cause__ is error


async def test_a_first_error_wins_while_others_come(by_hand: ByHand):
    run = by_hand.start(on_exception="end")
    one, two = by_hand.scheduler.submit(f), by_hand.scheduler.submit(f)
    by_hand.backend.fail(one, first := ValueError("first"))
    by_hand.backend.fail(two, ValueError("second"))
    assert await run == ExitState(ExitCode.EXCEPTION, first)


async def test_an_error_while_stopping_still_counts(by_hand: ByHand):
    run = by_hand.start(on_exception="raise")
    future = by_hand.scheduler.submit(f)
    by_hand.scheduler.stop()
    by_hand.backend.fail(future, ValueError("late"))
    with pytest.raises(ValueError, match="late"):
        await run
    assert by_hand.recorder.counts["on_stop"] == 1


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("mode", ["end", "continue"])
async def test_an_error_that_cannot_be_shown_ends_like_any_other(by_hand: ByHand, mode: Any):
    run = by_hand.start(on_exception=mode, end_on_empty=True)
    by_hand.backend.fail(by_hand.scheduler.submit(f), Mute())
    state = await asyncio.wait_for(run.wait(), 10)
    assert state == (ExitCode.EXCEPTION if mode == "end" else ExitCode.EXHAUSTED)
    assert by_hand.scheduler.records()[0]["error"] == "Mute: (its message cannot be shown)"


@pytest.mark.parametrize("value", [10**5_000, Mute()], ids=["a huge number", "a mute one"])
async def test_a_result_that_cannot_be_shown_is_delivered(by_hand: ByHand, value: Any):
    by_hand.start()
    future = by_hand.scheduler.submit(f)
    by_hand.backend.finish(future, value)
    assert await asyncio.wait_for(future, 10) is value


# ------------------------------------------------------------ errors of callbacks

EVENTS_OF_A_RUN = [
    "on_start",
    "on_future_submitted",
    "on_future_done",
    "on_future_result",
    "on_empty",
    "on_finishing",
    "on_finished",
]


@pytest.mark.parametrize("event", EVENTS_OF_A_RUN)
@pytest.mark.parametrize("mode", ["raise", "end", "continue"])
async def test_a_callback_that_raises(by_hand: ByHand, event: str, mode: Any, caplog: Any):
    error, after = ValueError("of the callback"), []

    def broken() -> None:
        raise error

    by_hand.scheduler.on(event, broken)
    by_hand.scheduler.on(event, lambda: after.append(event))  # the remaining ones still run
    run = by_hand.start(on_exception=mode, end_on_empty=True)
    if by_hand.scheduler.running():
        future = by_hand.scheduler.submit(f)
        by_hand.backend.finish(future)
    if mode == "raise":
        with pytest.raises(ValueError, match="of the callback"):
            await run
    else:
        await run
    goes_on = mode == "continue"
    assert run.exit_state == (
        ExitState(ExitCode.EXHAUSTED) if goes_on else ExitState(ExitCode.EXCEPTION, error)
    )
    assert after == [event]
    assert by_hand.recorder.names[-2:] == ["on_finishing", "on_finished"]
    # After on_empty of an exhausted run only these two are left to come.
    told_of_stop = not goes_on and event not in ("on_finishing", "on_finished")
    assert by_hand.recorder.counts["on_stop"] == told_of_stop
    shown = [line for line in by_hand.scheduler.snapshot().log if line.level == "error"]
    assert [line.source for line in shown] == [f"broken() on {event}"]
    assert "ValueError: of the callback" in shown[0].text
    assert [r.name for r in caplog.records] == ["amltk_nb"]


async def test_an_error_of_a_callback_says_where_it_was_emitted(by_hand: ByHand):
    @by_hand.scheduler.on_start
    def broken() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad") as caught:
        await by_hand.start(on_exception="raise", end_on_empty=True)
    assert any("broken" in note and "on_start" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("mode", ["raise", "end", "continue"])
async def test_an_exit_out_of_a_callback_ends_the_run(by_hand: ByHand, mode: Any):
    @by_hand.scheduler.on_future_result
    def leave() -> None:
        raise SystemExit(3)

    run = by_hand.start(on_exception=mode)
    by_hand.backend.finish(by_hand.scheduler.submit(f))
    state = await run.over()
    assert (state.code, type(state.exception)) == (ExitCode.EXCEPTION, SystemExit)


async def test_asking_a_cancelled_future_for_its_result_is_an_error_of_the_callback(
    by_hand: ByHand,
):
    @by_hand.scheduler.on_future_cancelled
    def careless(future: Any) -> None:
        future.result()

    run = by_hand.start(on_exception="end")
    by_hand.scheduler.pause()
    by_hand.scheduler.submit(f).cancel()
    state = await run
    assert state.code is ExitCode.EXCEPTION
    assert isinstance(state.exception, RuntimeError)  # asyncio's own would cancel who awaits it
    assert isinstance(state.exception.__cause__, asyncio.CancelledError)


# ------------------------------------------------------------ cancelled by nobody here


@pytest.mark.parametrize("how", ["raise", "end", "continue"])
async def test_a_future_that_is_cancelled_elsewhere(how: Any):
    executor = ManualExecutor(1)
    scheduler = Scheduler(executor)
    recorder = EventRecorder(scheduler)
    run = scheduler.start(on_cancelled=how, end_on_empty=True)
    future = scheduler.submit(f)
    executor.futures[0].cancel()
    if how == "raise":
        with pytest.raises(cf.CancelledError, match="call 1 of f was cancelled"):
            await run
    else:
        await run
    assert future.cancelled()
    code = ExitCode.EXHAUSTED if how == "continue" else ExitCode.CANCELLED
    assert run.exit_state == code
    middle = ["on_empty"] if how == "continue" else ["on_stop"]
    names = ["on_start", *SUBMITTED, *CANCELLED, *middle, "on_finishing", "on_finished"]
    assert recorder.names == names


@pytest.mark.parametrize("verb", ["future", "scheduler", "task", "pending", "stop"])
async def test_what_was_asked_for_here_never_triggers_that_policy(by_hand: ByHand, verb: str):
    task = by_hand.scheduler.task(f)
    run = by_hand.start(on_cancelled="raise", end_on_empty=True)
    if verb != "scheduler":
        by_hand.scheduler.pause()
    future = task.submit()
    {
        "future": future.cancel,
        "scheduler": lambda: by_hand.scheduler.cancel(future),  # it runs
        "task": task.cancel,
        "pending": by_hand.scheduler.cancel_pending,
        "stop": by_hand.scheduler.stop,
    }[verb]()
    assert await run == (ExitCode.STOPPED if verb == "stop" else ExitCode.EXHAUSTED)
    assert future.cancelled()


# ------------------------------------------------------------ waiting for it


async def test_interrupting_the_wait_leaves_a_background_run_alone(by_hand: ByHand):
    run = by_hand.start()
    waiter = asyncio.ensure_future(run.wait())
    await settled()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert (run.done(), by_hand.scheduler.running()) == (False, True)
    by_hand.scheduler.stop()
    assert await run == ExitCode.STOPPED


@pytest.mark.parametrize("n_cancels", [1, 2])
async def test_cancelling_async_run_ends_it_before_it_returns(by_hand: ByHand, n_cancels: int):
    waiter = asyncio.ensure_future(by_hand.scheduler.async_run(end_on_empty=False))
    await settled()
    future = by_hand.scheduler.submit(f)
    for _ in range(n_cancels):
        waiter.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await waiter
    run = by_hand.scheduler.last_run
    await run.over()
    assert run.exit_state == ExitCode.STOPPED
    assert future.cancelled()
    assert by_hand.recorder.counts["on_future_cancelled"] == 1
    assert by_hand.recorder.names[-1] == "on_finished"


async def test_a_run_that_is_over_can_be_awaited_again(by_hand: ByHand):
    run = by_hand.start(on_exception="raise")
    by_hand.backend.fail(by_hand.scheduler.submit(f), ValueError("bad"))
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            await run
    assert await run.over() == ExitCode.EXCEPTION


async def test_its_repr_is_one_line(by_hand: ByHand):
    run = by_hand.start(end_on_empty=True)
    assert repr(run) == "<Run of 'scheduler': running>"
    await run
    assert repr(run) == "<Run of 'scheduler': exhausted>"


# ------------------------------------------------------------ timers and coroutines


async def test_call_later_runs_on_the_loop_and_its_errors_count(by_hand: ByHand):
    run = by_hand.start(on_exception="end")
    called = asyncio.Event()
    by_hand.scheduler.call_later(0, called.set)
    await asyncio.wait_for(called.wait(), 10)

    def broken(x: int, *, y: int) -> None:
        raise ValueError(x + y)

    by_hand.scheduler.call_later(0, broken, 1, y=2)
    state = await run
    assert (state.code, str(state.exception)) == (ExitCode.EXCEPTION, "3")


async def test_call_later_from_another_thread(by_hand: ByHand):
    by_hand.start()
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    threads: list[bool] = []

    def note() -> None:
        threads.append(threading.current_thread() is threading.main_thread())
        called.set()

    timer = await loop.run_in_executor(None, by_hand.scheduler.call_later, 0, note)
    await asyncio.wait_for(called.wait(), 10)
    assert (threads, timer.cancelled()) == ([True], False)

    called.clear()
    with cf.ThreadPoolExecutor(1) as pool:  # the loop stands still meanwhile
        pool.submit(by_hand.scheduler.call_later, 0, threads.append, False).result().cancel()
    by_hand.scheduler.call_later(0.01, called.set)
    await asyncio.wait_for(called.wait(), 10)
    assert threads == [True]


async def test_call_later_neither_keeps_a_run_alive_nor_outlives_it(by_hand: ByHand):
    called: list[int] = []
    run = by_hand.start(end_on_empty=True)
    timer = by_hand.scheduler.call_later(0.0, called.append, 1)
    far = by_hand.scheduler.call_later(3600, called.append, 2)
    await run
    assert timer.cancelled() or called == [1]
    assert far.cancelled()
    with pytest.raises(SchedulerNotRunningError):
        by_hand.scheduler.call_later(0, called.append, 3)


async def test_a_coroutine_callback_is_awaited_before_the_run_ends(by_hand: ByHand):
    said: list[str] = []

    @by_hand.scheduler.on_start
    async def slowly() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        said.append("done")

    assert await by_hand.start(end_on_empty=True) == ExitCode.EXHAUSTED
    assert said == ["done"]


@pytest.mark.parametrize("event", ["on_finishing", "on_finished"])
async def test_a_coroutine_callback_of_the_last_events_is_awaited_too(by_hand: ByHand, event: str):
    said: list[str] = []

    async def slowly() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        said.append(event)

    by_hand.scheduler.on(event, slowly)
    await by_hand.start(end_on_empty=True)
    assert said == [event]
    assert by_hand.recorder.names[-1] == "on_finished"


@pytest.mark.parametrize("event", ["on_start", "on_finished"])
async def test_an_error_of_a_coroutine_callback_follows_the_policy(by_hand: ByHand, event: str):
    async def broken() -> None:
        await asyncio.sleep(0)
        raise ValueError("of the coroutine")

    by_hand.scheduler.on(event, broken)
    with pytest.raises(ValueError, match="of the coroutine"):
        await by_hand.start(end_on_empty=True, on_exception="raise")


async def test_stop_now_cancels_coroutine_callbacks(by_hand: ByHand):
    ended: list[str] = []

    @by_hand.scheduler.on_start
    async def forever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("cancelled")

    run = by_hand.start()
    await settled()
    by_hand.scheduler.stop(wait=False)
    assert await run == ExitCode.STOPPED
    assert ended == ["cancelled"]


async def test_asking_twice_to_cancel_a_running_call_is_asking_once(by_hand: ByHand):
    run = by_hand.start(end_on_empty=True, on_cancelled="raise")
    future = by_hand.scheduler.submit(print)
    assert [future.cancel(), future.cancel()] == [True, True]
    assert await run == ExitCode.EXHAUSTED  # nobody but us has cancelled anything
    assert future.cancelled()
