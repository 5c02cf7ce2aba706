"""What went wrong in the predecessor of this engine and has no test of its own elsewhere."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from amltk_nb import ExitCode, ExitState, Scheduler
from amltk_nb.testing import EventRecorder, ManualBackend
from tests.scheduling.conftest import ByHand, settled


def f(x: int = 0) -> int:
    return x


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_callback_can_be_registered_twice_by_stacking_decorators():
    scheduler = Scheduler.with_sequential()
    task, other = scheduler.task(f), scheduler.task(f, name="g")
    called: list[str] = []

    @scheduler.on_start(repeat=3)
    @task.on_done
    @other.on_exception
    def note() -> None:
        called.append("note")
        if len(called) == 3:
            task(1)

    assert callable(note)
    scheduler.run()
    assert len(called) == 4


@pytest.mark.parametrize("end", ["stop", "stop now", "timeout", "error", "exhausted"])
async def test_no_event_comes_after_finished(by_hand: ByHand, end: str):
    run = by_hand.start(
        timeout=0 if end == "timeout" else None,
        end_on_empty=end == "exhausted",
        on_exception="end",
    )
    futures = by_hand.scheduler.map(f, range(4))
    if end == "error":
        by_hand.backend.fail(futures[0], ValueError())
    if end.startswith("stop"):
        by_hand.scheduler.stop(wait=end == "stop")
    while not run.done():
        await settled()
        for call in by_hand.backend.calls:
            by_hand.backend.finish(call)
    await settled()
    names = by_hand.recorder.names
    assert names[-1] == "on_finished"
    assert names.count("on_finished") == names.count("on_finishing") == 1
    ends = sum(by_hand.recorder.counts[f"on_future_{e}"] for e in ("done", "cancelled"))
    assert ends == 4


def test_the_second_run_is_as_long_as_the_first_though_its_loop_is_another():
    scheduler = Scheduler(ManualBackend())
    for _ in range(3):
        assert scheduler.run(timeout=0.01, end_on_empty=False) == ExitCode.TIMEOUT


async def test_runs_leave_no_callbacks_behind(by_hand: ByHand):
    def registered() -> int:
        events = by_hand.scheduler.snapshot().events
        return sum(len(event.callbacks) for event in events)

    before = registered()
    for _ in range(3):
        await by_hand.start(end_on_empty=True)
    assert registered() == before


def test_a_timeout_falls_between_two_calls_of_a_sequential_scheduler():
    scheduler = Scheduler.with_sequential()
    scheduler.on_start(lambda: scheduler.map(spin, [0.03] * 100))
    assert scheduler.run(timeout=0.05) == ExitCode.TIMEOUT
    counts = scheduler.snapshot().counts
    assert 1 <= counts["done"] < 100
    assert counts["done"] + counts["cancelled"] == 100


def test_five_thousand_chained_sequential_calls_need_no_deep_stack():
    scheduler = Scheduler.with_sequential()
    scheduler.on_start(lambda: scheduler.submit(f, 0))

    @scheduler.on_future_result
    def again(result: int) -> None:
        if result < 5_000:
            scheduler.submit(f, result + 1)

    assert scheduler.run() == ExitCode.EXHAUSTED
    assert scheduler.event_counts["on_future_result"] == 5_001


def test_a_coroutine_callback_is_awaited_and_a_coroutine_function_has_its_result():
    scheduler = Scheduler.with_threads(1)
    results: list[Any] = []

    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    @scheduler.on_future_result
    async def note(result: int) -> None:
        await asyncio.sleep(0)
        results.append(result)

    scheduler.on_start(lambda: scheduler.submit(later, 1))
    assert scheduler.run() == ExitCode.EXHAUSTED
    assert results == [2]


async def test_stop_with_an_error_that_may_continue_is_a_stop(by_hand: ByHand, capsys: Any):
    run = by_hand.start(on_exception="continue")
    error = ValueError("100 % of it")
    by_hand.scheduler.stop(exception=error)
    assert await run == ExitState(ExitCode.STOPPED, error)
    assert capsys.readouterr() == ("", "")


async def test_ending_eight_thousand_queued_calls_from_behind(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(8_000))
    began = time.perf_counter()
    assert all(future.cancel() for future in reversed(futures[2:]))
    assert time.perf_counter() - began < 5  # not a walk over the queue for each
    assert by_hand.scheduler.snapshot().counts["cancelled"] == 7_998
    assert len(by_hand.scheduler.queue) == 8_000  # until their events were emitted
    by_hand.scheduler.stop(wait=False)
    await by_hand.scheduler.last_run


def test_a_failed_run_can_be_followed_by_a_good_one():
    scheduler = Scheduler.with_threads(2)
    recorder = EventRecorder(scheduler)
    fail = [True]

    @scheduler.on_start
    def begin() -> None:
        if fail[0]:
            raise ValueError("first time")
        scheduler.submit(f, 7)

    with pytest.raises(ValueError, match="first time"):
        scheduler.run()
    assert recorder.names == ["on_start", "on_stop", "on_finishing", "on_finished"]
    fail[0] = False
    assert scheduler.run() == ExitCode.EXHAUSTED
    assert recorder.counts["on_future_result"] == 1
