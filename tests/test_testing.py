"""The doubles that are shipped for tests of users."""

from __future__ import annotations

import asyncio
from concurrent.futures import InvalidStateError

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import CallNotFoundError
from amltk_nb.testing import EventRecorder, FakeClock, ManualBackend, ManualExecutor


def f(x: int = 0) -> int:
    return x


def test_a_clock_moves_only_when_told():
    clock = FakeClock(10)
    assert [clock(), clock()] == [10, 10]
    clock.advance(2.5)
    assert clock() == 12.5
    with pytest.raises(ValueError, match="time goes forward only"):
        clock.advance(-1)
    assert clock() == 12.5


async def test_the_example_of_the_module():
    backend = ManualBackend(n_workers=2)
    scheduler = Scheduler(backend)
    recorder = EventRecorder(scheduler)
    run = scheduler.start()
    future = scheduler.submit(print, "never printed")
    backend.finish(future, "the result")
    assert await future == "the result"
    assert recorder.names[:3] == ["on_start", "on_future_submitted", "on_future_done"]
    assert recorder.of(future) == ["on_future_submitted", "on_future_done", "on_future_result"]
    recorder.clear()
    scheduler.stop()
    assert await run == ExitCode.STOPPED
    assert recorder.counts == {"on_stop": 1, "on_finishing": 1, "on_finished": 1}


async def test_a_manual_backend_says_what_it_has():
    backend = ManualBackend(1)
    scheduler = Scheduler(backend)
    run = scheduler.start()
    first, second = scheduler.submit(f), scheduler.submit(f)
    assert backend.calls == [first.call]
    for end in (backend.finish, backend.cancel, backend.give_back):
        with pytest.raises(CallNotFoundError, match=r"call 2 is queued .* running here: 1"):
            end(second)
    backend.finish(first)
    with pytest.raises(CallNotFoundError, match=r"call 1 .* running here: 2"):
        backend.fail(first, ValueError())
    assert scheduler.cancel(second) is True
    assert backend.calls == []  # it ends when the loop turns, and is no longer the test's
    scheduler.stop()
    await run
    assert second.cancelled()
    assert (backend.started, backend.n_opened, backend.n_closed) == ([[1], [2]], 1, 1)


async def test_a_manual_executor_runs_what_it_was_given_when_told():
    executor = ManualExecutor(1)
    future, other = executor.submit(f, 3), executor.submit(f, 4)
    assert (future.done(), executor.futures) == (False, [future, other])
    executor.run(other)
    executor.run()
    assert (future.result(), other.result()) == (3, 4)
    with pytest.raises(InvalidStateError, match="nothing is left to run"):
        executor.run()
    waiting = executor.submit(f)
    executor.shutdown(cancel_futures=True)
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(f)


async def test_a_recorder_watches_tasks_that_come_later():
    backend = ManualBackend()
    scheduler = Scheduler(backend)
    recorder = EventRecorder(scheduler)
    task = scheduler.task(f)
    recorder.watch(task)
    run = scheduler.start(end_on_empty=True)
    future = task.submit(x=5)
    backend.finish(future, 6)
    await asyncio.wait_for(run.wait(), 10)
    submitted = next(r for r in recorder.events if r.name == "Task-f-1.on_submitted")
    assert (submitted.source, submitted.event) == ("Task-f-1", "on_submitted")
    assert (submitted.args, submitted.kwargs) == ((future,), {"x": 5})
    shown = [c for event in scheduler.snapshot().events for c in event.callbacks if not c.hidden]
    assert shown == []
