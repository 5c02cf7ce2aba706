"""The limiter: each limit, its event and count, threads, runs, and two tasks under one limit."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from amltk_nb import CallLimiter, ExitCode, Limiter, Requeue, Scheduler
from amltk_nb.errors import PluginError
from amltk_nb.testing import ManualBackend
from tests.plugins.contract import PluginContract
from tests.scheduling.conftest import settled


class TestLimiter(PluginContract):
    def make(self) -> Limiter:
        return Limiter(max_calls=5, max_concurrent=4)


def f(x: int = 0, *, y: int = 0) -> int:
    return x


@pytest.fixture
def backend() -> ManualBackend:
    return ManualBackend(2)


@pytest.fixture
def scheduler(backend: ManualBackend) -> Scheduler:
    return Scheduler(backend)


def note_events(task: Any) -> list[tuple[Any, ...]]:
    noted: list[tuple[Any, ...]] = []

    def noting(event: Any) -> Any:
        return lambda *args, **kwargs: noted.append((event.name, *args, kwargs))

    for event in (
        Limiter.CALL_LIMIT_REACHED,
        Limiter.CONCURRENT_LIMIT_REACHED,
        Limiter.DISABLED_DUE_TO_RUNNING_TASK,
    ):
        task.on(event, noting(event))
    return noted


async def test_no_more_calls_than_the_limit(scheduler: Scheduler, backend: ManualBackend):
    task = scheduler.task(f, plugins=Limiter(max_calls=2))
    noted = note_events(task)
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit(1), task.submit(2), task.submit(3, y=4)]
    assert futures[2] is None
    assert noted == [("call-limit-reached", task, 3, {"y": 4})]
    for future in futures[:2]:
        backend.finish(future)
    assert await run == ExitCode.EXHAUSTED
    assert task.event_counts["call-limit-reached"] == 1
    # The limit is for all runs together.
    run = scheduler.start(end_on_empty=True)
    assert task.submit(5) is None
    await run


async def test_no_more_at_a_time_than_the_limit(scheduler: Scheduler, backend: ManualBackend):
    limiter = Limiter(max_concurrent=2)
    task = scheduler.task(f, plugins=limiter)
    noted = note_events(task)
    scheduler.start()
    scheduler.pause()  # queued calls count as well
    first, second = task.submit(1), task.submit(2)
    assert task.submit(3) is None
    assert noted == [("concurrent-limit-reached", task, 3, {})]
    assert limiter.state() == {"Concurrent": "2/2"}
    second.cancel()
    await settled()
    assert task.submit(4) is not None
    scheduler.resume()
    backend.fail(first, ValueError())
    await settled()
    assert limiter.state() == {"Concurrent": "1/2"}
    scheduler.stop(wait=False)
    await scheduler.last_run
    assert limiter.state() == {"Concurrent": "0/2"}


async def test_not_while_another_task_runs(scheduler: Scheduler, backend: ManualBackend):
    other = scheduler.task(f, name="other")
    task = scheduler.task(f, plugins=Limiter(not_while_running=other))
    noted = note_events(task)
    scheduler.start()
    future = other.submit(1)
    assert task.submit(2) is None
    assert noted == [("disabled-due-to-running-task", task, 2, {})]
    assert task.plugins[0].state() == {"Not while": "Task-other-1"}
    backend.finish(future)
    await settled()
    assert task.submit(2) is not None
    scheduler.stop(wait=False)
    await scheduler.last_run


async def test_the_limit_of_calls_is_asked_first(scheduler: Scheduler):
    task = scheduler.task(f, plugins=Limiter(max_calls=1, max_concurrent=1))
    noted = note_events(task)
    scheduler.start()
    task.submit()
    task.submit()
    assert [event for event, *_ in noted] == ["call-limit-reached"]
    assert task.plugins[0].state() == {"Calls": "1/1", "Concurrent": "1/1"}
    scheduler.stop(wait=False)
    await scheduler.last_run


async def test_one_limiter_on_two_tasks_counts_both(scheduler: Scheduler):
    limiter = Limiter(max_calls=2)
    one, two = scheduler.task(f, plugins=limiter), scheduler.task(f, plugins=[limiter])
    scheduler.start()
    assert one.submit() is not None
    assert two.submit() is not None
    assert one.submit() is None
    assert two.submit() is None
    scheduler.stop(wait=False)
    await scheduler.last_run


async def test_a_call_that_a_later_plugin_refuses_does_not_count(scheduler: Scheduler):
    first, second = Limiter(max_calls=5, max_concurrent=5), Limiter(max_calls=1)
    task = scheduler.task(f, plugins=[first, second])
    scheduler.start()
    assert [task.submit() is None for _ in range(3)] == [False, True, True]
    assert first.state() == {"Calls": "1/5", "Concurrent": "1/5"}
    scheduler.stop(wait=False)
    await scheduler.last_run


async def test_the_limit_holds_over_threads_and_its_events_come_on_the_loop(
    scheduler: Scheduler,
):
    task = scheduler.task(f, plugins=Limiter(max_calls=10))
    told_on: list[int] = []
    task.on("call-limit-reached", lambda: told_on.append(threading.get_ident()))
    run = scheduler.start()
    barrier, accepted = threading.Barrier(8), list[Any]()

    def submit() -> None:
        barrier.wait()
        accepted.extend(future for _ in range(5) if (future := task.submit()) is not None)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(accepted), task.n_called) == (10, 10)
    scheduler.stop(wait=False)
    await run
    assert told_on == [threading.get_ident()] * 30


def test_what_was_refused_can_be_queued_again():
    scheduler = Scheduler.with_threads(2)
    queue = Requeue(range(10))
    task = scheduler.task(f, plugins=Limiter(max_concurrent=2))
    results: list[int] = []

    @task.on("concurrent-limit-reached")
    def put_back(_: Any, x: int) -> None:
        queue.requeue(x)

    @scheduler.on_start(repeat=4)
    @task.on_done
    def fill() -> None:
        for x in queue:
            task(x)
            break

    task.on_returned(results.append)
    assert scheduler.run() == ExitCode.EXHAUSTED
    assert sorted(results) == list(range(10))


@pytest.mark.parametrize("limit", ["max_calls", "max_concurrent"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_a_limit_that_means_nothing(limit: str, value: Any):
    with pytest.raises(ValueError, match=f"{limit}=.*whole number of at least 1"):
        Limiter(**{limit: value})


def test_a_task_cannot_wait_for_itself(scheduler: Scheduler):
    task = scheduler.task(f)
    with pytest.raises(PluginError, match="use max_concurrent=1"):
        task.attach_plugin(Limiter(not_while_running=task))
    assert task.plugins == []


def test_the_older_name():
    assert CallLimiter is Limiter
