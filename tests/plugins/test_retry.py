"""Retry: attempts and their records, waiting, giving up, everything that may end a call meanwhile.

Waits are skipped, not waited for: the loop's time is moved on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tenacity
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from amltk_nb import CallLimiter, ExitCode, Future, Limiter, Plugin, Retry, Scheduler, Task
from amltk_nb.errors import MissingExtraError, NotPicklableError, PluginError, WorkerDiedError
from amltk_nb.scheduling.call import Call
from amltk_nb.testing import EventRecorder, FakeClock, ManualBackend
from tests.plugins.contract import LONG_S, PluginContract
from tests.scheduling.conftest import settled


class TestRetry(PluginContract):
    def make(self) -> Retry:
        return Retry(2, wait=0)


def work(x: int = 0) -> int:
    return x


async def test_a_cancel_that_comes_too_late_still_ends_the_trying():
    backend = ManualBackend(1)
    scheduler = Scheduler(backend)
    task = scheduler.task(work, plugins=Retry(5, wait=0))
    run = scheduler.start(end_on_empty=True)
    future = task.submit()
    backend.fail(future, ValueError("on its way"))
    assert future.cancel() is False
    assert await run == ExitCode.EXHAUSTED
    assert str(future.exception()) == "on its way"
    assert task.n_called == 1


class SkippingClock(FakeClock):
    """Moves a loop's time along with its own, so that timers are due without waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(1_000.0)
        real = loop.time
        loop.time = lambda: real() + self.now_s  # type: ignore[method-assign]


class Stage:
    """A scheduler by hand with one task, and its time in hand as well."""

    def __init__(self, loop: asyncio.AbstractEventLoop, retry: Plugin, *others: Plugin) -> None:
        self.backend, self.clock = ManualBackend(2), SkippingClock(loop)
        self.scheduler = Scheduler(self.backend, clock=self.clock)
        self.task: Task[[int], int] = self.scheduler.task(work, plugins=[*others, retry])
        self.recorder = EventRecorder(self.scheduler)

    async def fail(self, future: Future[Any], error: BaseException | None = None) -> None:
        self.backend.fail(future, OSError("no luck") if error is None else error)
        await settled()

    async def skip(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await settled()

    def states(self) -> list[tuple[int, str, int, int | None]]:
        rows = self.scheduler.records()
        return [(r["id"], r["state"], r["attempt"], r["resubmitted_from"]) for r in rows]

    def counts(self) -> dict[str, int]:
        return {str(k): n for k, n in self.scheduler.snapshot().counts.items() if n}


@pytest.fixture
async def make_stage() -> AsyncIterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(retry: Plugin, *others: Plugin) -> Stage:
        made.append(Stage(asyncio.get_running_loop(), retry, *others))
        return made[-1]

    yield make
    for stage in made:
        if stage.scheduler.last_run is not None:
            stage.scheduler.stop(wait=False)
            await stage.scheduler.last_run.over()
            assert stage.scheduler.last_run.traffic._retries._timers == {}


MakeStage = Callable[..., Stage]


# What the user sees of it


async def test_one_future_and_one_end_whatever_it_took(make_stage: MakeStage):
    retry = Retry(3, wait=0)
    stage = make_stage(retry)
    run = stage.scheduler.start(end_on_empty=True, on_exception="raise")
    future = stage.task.submit(7)
    first, errors = future.call, [OSError("one"), OSError("two")]
    await stage.fail(future, errors[0])
    assert (future.done(), future.call.id, future.call.attempt) == (False, 2, 2)
    assert (first.state, first.error, first.future) == ("failed", errors[0], None)
    await stage.fail(future, errors[1])
    stage.backend.finish(future, 49)
    assert await run == ExitCode.EXHAUSTED  # on_exception="raise" saw no error
    assert future.result() == 49
    assert stage.states() == [(1, "failed", 1, None), (2, "failed", 2, 1), (3, "done", 3, 2)]
    assert [e for e in stage.recorder.names if "on_start" not in e and "finish" not in e] == [
        "on_future_submitted",
        "Task-work-1.on_submitted",
        "Task-work-1.on_retry",
        "Task-work-1.on_retry",
        "on_future_done",
        "on_future_result",
        "Task-work-1.on_done",
        "Task-work-1.on_result",
        "Task-work-1.on_returned",
        "Task-work-1.on_f_returned",
        "on_empty",
    ]
    told = [e.args for e in stage.recorder.events if e.event == "on_retry"]
    assert told == [(future, errors[0], 2), (future, errors[1], 3)]
    assert stage.counts() == {"failed": 2, "done": 1}
    assert (stage.task.n_called, stage.task.n_running) == (3, 0)
    assert retry.state() == {"Max attempts": 3, "Attempts": 3, "Retries": 2, "Given up": 0}


async def test_the_last_error_is_the_calls_own(make_stage: MakeStage):
    retry = Retry(2, wait=0)
    stage = make_stage(retry)
    run = stage.scheduler.start(on_exception="end")
    future = stage.task.submit(1)
    await stage.fail(future)
    last = OSError("still no luck")
    await stage.fail(future, last)
    assert await run == ExitCode.EXCEPTION
    assert future.exception() is last
    assert stage.recorder.counts["on_future_exception"] == 1
    assert stage.recorder.counts["Task-work-1.on_exception"] == 1
    assert retry.state() == {"Max attempts": 2, "Attempts": 2, "Retries": 1, "Given up": 1}
    (line,) = [line for line in stage.scheduler.snapshot().log if line.source == "retry"]
    assert line.text == "gave up on call 2 of work after 2 attempts: OSError: still no luck"


async def test_attempts_of_one_call_are_not_those_of_a_resubmitted_one(make_stage: MakeStage):
    stage = make_stage(Retry(2, wait=0))
    stage.scheduler.start()
    future = stage.task.submit(1)
    await stage.fail(future)
    await stage.fail(future)
    assert future.done()
    again = stage.scheduler.resubmit(future)
    assert again.call.attempt == 3
    await stage.fail(again)
    assert not again.done()  # it has its two attempts as well
    await stage.fail(again)
    assert again.done()
    assert [row[2] for row in stage.states()] == [1, 2, 3, 4]


async def test_what_was_tried_again_is_not_resubmitted_as_failed(make_stage: MakeStage):
    stage = make_stage(Retry(3, wait=0))
    scheduler = stage.scheduler
    scheduler.start()
    good, bad = stage.task.submit(1), stage.task.submit(2)
    for future in (good, bad, bad, bad):
        await stage.fail(future)
    stage.backend.finish(good)
    await settled()
    assert [call.id for call in scheduler.failed_calls()] == [bad.call.id]
    assert [f.call.resubmitted_from for f in scheduler.resubmit_failed()] == [bad.call.id]
    assert scheduler.failed_calls() == []


async def test_what_was_tried_again_stays_so_when_the_next_attempt_is_forgotten():
    backend = ManualBackend(1)
    scheduler = Scheduler(backend, history=1)  # of calls that did not fail, one is remembered
    task = scheduler.task(work, plugins=Retry(2, wait=0))
    run = scheduler.start()
    first, second = task.submit(1), task.submit(2)
    backend.fail(first, OSError())
    await settled()
    backend.finish(second)
    await settled()
    backend.finish(first)
    backend_call = task.submit(3)
    backend.finish(backend_call)
    await settled()
    assert [row["id"] for row in scheduler.records()] == [1, 4]
    assert scheduler.failed_calls() == []
    run.stop()
    await run


async def test_other_plugins_are_asked_once(make_stage: MakeStage):
    asked: list[Any] = []

    class Notes(Plugin):
        def pre_submit(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append("asked")
            return fn, args, kwargs

        def accepted(self, call: Call) -> None:
            asked.append(("accepted", call.id))

        def retried(self, former: Call, call: Call) -> None:
            asked.append(("retried", former.id, call.id))

        def release(self, call: Call | None) -> None:
            asked.append(("released", call and call.id))

    limiter = Limiter(max_calls=1, max_concurrent=1)
    stage = make_stage(Retry(2, wait=5), limiter, Notes())
    stage.scheduler.start()
    future = stage.task.submit(1)
    await stage.fail(future)
    assert limiter.state() == {"Calls": "1/1", "Concurrent": "1/1"}
    await stage.skip(5)
    stage.backend.finish(future)
    await settled()
    assert asked == ["asked", ("accepted", 1), ("retried", 1, 2), ("released", 2)]
    assert limiter.state() == {"Calls": "1/1", "Concurrent": "0/1"}


async def test_a_callback_of_on_retry_may_cancel(make_stage: MakeStage):
    stage = make_stage(Retry(5, wait=0))
    stage.task.on("on_retry", lambda future, error, attempt: future.cancel())
    run = stage.scheduler.start(end_on_empty=True)
    other = stage.task.submit(0)
    futures = [stage.task.submit(n) for n in (1, 2)]
    stage.backend.fail(other, OSError())  # the next attempt waits behind the third call
    await settled()
    assert other.cancelled()
    stage.backend.finish(futures[0])
    stage.backend.finish(futures[1])
    assert await run == ExitCode.EXHAUSTED
    assert stage.counts() == {"failed": 1, "cancelled": 1, "done": 2}


# Waiting


async def test_an_attempt_waits_for_its_time(make_stage: MakeStage):
    stage = make_stage(Retry(3, wait=60))
    run = stage.scheduler.start(end_on_empty=True)
    future = stage.task.submit(1)
    await stage.skip(10)
    await stage.fail(future)
    await stage.skip(59.9)
    assert (run.done(), stage.scheduler.empty(), stage.backend.calls) == (False, False, [])
    assert stage.counts() == {"failed": 1, "queued": 1}
    waiting = stage.scheduler.snapshot().calls[0]
    assert (waiting.id, waiting.state, waiting.not_before) == (2, "queued", 1_070.0)
    assert stage.scheduler.snapshot().tasks[0].counts["queued"] == 1
    assert stage.task.futures() == [future]
    await stage.skip(0.2)
    assert stage.backend.calls == [future.call]
    stage.backend.finish(future)
    assert await run == ExitCode.EXHAUSTED


async def test_it_then_waits_behind_those_that_are_queued(make_stage: MakeStage):
    stage = make_stage(Retry(3, wait=1))
    stage.scheduler.start()
    futures = [stage.task.submit(n) for n in range(4)]
    await stage.fail(futures[0])
    await stage.skip(1)
    await stage.fail(futures[1])
    shown = [call.id for call in stage.scheduler.snapshot().calls if call.state == "queued"]
    assert shown == [5, 6]  # 3 and 4 run; 5 is due, 6 is not
    assert stage.backend.started == [[1], [2], [3], [4]]
    stage.backend.finish(futures[2])
    assert stage.backend.started[4:] == [[5]]


@pytest.mark.parametrize("how", ["future", "scheduler", "pending", "task"])
async def test_a_waiting_attempt_is_taken_back_at_once(make_stage: MakeStage, how: str):
    retry = Retry(3, wait=3_600)
    stage = make_stage(retry)
    run = stage.scheduler.start(end_on_empty=True)
    future = stage.task.submit(1)
    await stage.fail(future)
    taken: dict[str, Callable[[], Any]] = {
        "future": future.cancel,
        "scheduler": lambda: stage.scheduler.cancel(future),
        "pending": stage.scheduler.cancel_pending,
        "task": stage.task.cancel,
    }
    assert taken[how]() == 1
    assert future.cancelled()
    assert await run == ExitCode.EXHAUSTED
    assert stage.states() == [(1, "failed", 1, None), (2, "cancelled", 2, 1)]
    assert stage.recorder.counts["on_future_cancelled"] == 1
    assert stage.recorder.counts["on_future_done"] == 0
    assert retry.state()["Attempts"] == 1  # the second one never began


async def test_stopping_takes_it_back(make_stage: MakeStage):
    stage = make_stage(Retry(3, wait=3_600))
    run = stage.scheduler.start()
    future = stage.task.submit(1)
    await stage.fail(future)
    stage.scheduler.stop()
    assert str(future.call.state) == "cancelled"
    assert await run == ExitCode.STOPPED
    assert future.cancelled()
    assert stage.scheduler.snapshot().counts["queued"] == 0


async def test_a_timeout_takes_it_back(make_stage: MakeStage):
    stage = make_stage(Retry(3, wait=3_600))
    run = stage.scheduler.start(timeout=100)
    future = stage.task.submit(1)
    await stage.fail(future)
    await stage.skip(100)
    assert await run == ExitCode.TIMEOUT
    assert future.cancelled()


async def test_a_pause_holds_it(make_stage: MakeStage):
    stage = make_stage(Retry(3, wait=1))
    stage.scheduler.start()
    future = stage.task.submit(1)
    stage.scheduler.pause()
    await stage.fail(future)
    await stage.skip(10)
    assert (stage.backend.calls, str(future.call.state)) == ([], "queued")
    stage.scheduler.resume()
    assert stage.backend.calls == [future.call]


@pytest.mark.parametrize("wait", [True, False])
async def test_a_run_that_is_ending_tries_nothing_again(make_stage: MakeStage, wait: bool):
    retry = Retry(3, wait=0)
    stage = make_stage(retry)
    run = stage.scheduler.start()
    future = stage.task.submit(1)
    stage.scheduler.stop(wait=wait)
    if wait:
        stage.backend.fail(future, OSError("too late"))
    assert await run == ExitCode.STOPPED
    assert len(stage.states()) == 1
    assert future.cancelled() is not wait
    assert stage.scheduler.failed_calls() == ([future.call] if wait else [])


async def test_a_running_attempt_that_is_cancelled_is_not_tried_again(make_stage: MakeStage):
    stage = make_stage(Retry(3, wait=0))
    run = stage.scheduler.start(end_on_empty=True)
    future = stage.task.submit(1)
    await stage.fail(future)
    assert future.cancel()
    assert await run == ExitCode.EXHAUSTED
    assert stage.states() == [(1, "failed", 1, None), (2, "cancelled", 2, 1)]


# What is tried again, how often, after how long


def by_message(error: BaseException) -> bool:
    return "luck" in str(error)


@pytest.mark.parametrize(
    ("retry_on", "error", "again"),
    [
        (Exception, ValueError("x"), True),
        (OSError, ConnectionError("x"), True),
        (OSError, ValueError("x"), False),
        ((ValueError, KeyError), KeyError("x"), True),
        ((ValueError, KeyError), OSError("x"), False),
        (by_message, OSError("no luck"), True),
        (by_message, OSError("x"), False),
        (tenacity.retry_if_exception_message("x"), OSError("x"), True),
        (tenacity.retry_if_exception_message("x"), OSError("y"), False),
        (Exception, NotPicklableError("its result"), False),
        (Exception, WorkerDiedError("killed"), True),
        (OSError, WorkerDiedError("killed"), False),
        (Exception, SystemExit(1), False),
    ],
)
async def test_which_errors(
    make_stage: MakeStage, retry_on: Any, error: BaseException, again: bool
):
    retry = Retry(2, wait=60, retry_on=retry_on)
    stage = make_stage(retry)
    stage.scheduler.start()
    future = stage.task.submit(1)
    await stage.fail(future, error)
    assert future.done() is not again
    assert retry.n_given_up == 0  # one that is not of its kind it never took up


async def waits(stage: Stage, n: int) -> list[float]:
    """Fail one call so often; returns after how many seconds it runs again."""
    stage.scheduler.start()
    future = stage.task.submit(1)
    found = []
    for _ in range(n):
        await stage.fail(future)
        wait_s = (future.call.not_before or stage.clock()) - stage.clock()
        found.append(wait_s)
        await stage.skip(wait_s + 0.001)
    return found


async def test_waits_of_tenacity(make_stage: MakeStage):
    stage = make_stage(Retry(9, wait=tenacity.wait_exponential(multiplier=2, max=10)))
    assert await waits(stage, 5) == pytest.approx([2, 4, 8, 10, 10])


async def test_the_usual_waits_are_random_and_bounded(make_stage: MakeStage):
    found = await waits(make_stage(Retry(40)), 12)
    for n, wait_s in enumerate(found):
        assert 0 <= wait_s <= min(2**n, 60)
    assert len(set(found)) == len(found)


async def test_strategies_see_what_happened(make_stage: MakeStage):
    seen: list[tuple[Any, ...]] = []

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        error = state.outcome.exception()
        seen.append((state.attempt_number, str(error), state.fn, state.args, state.idle_for))
        return 3 * state.attempt_number

    assert await waits(make_stage(Retry(9, wait=wait)), 3) == pytest.approx([3, 6, 9])
    assert [s[:4] for s in seen] == [(n, "no luck", work, (1,)) for n in (1, 2, 3)]
    assert [s[4] for s in seen] == [0, 3, 9]


@pytest.mark.parametrize("stop", [30, tenacity.stop_after_delay(30)], ids=["seconds", "tenacity"])
async def test_a_time_after_which_it_gives_up(make_stage: MakeStage, stop: Any):
    retry = Retry(None, wait=0, stop=stop)
    stage = make_stage(retry)
    stage.scheduler.start()
    stage.scheduler.pause()
    future = stage.task.submit(1)
    await stage.skip(1_000)  # in the queue; that does not count
    stage.scheduler.resume()
    for _ in range(2):
        await stage.skip(14)
        await stage.fail(future)
    assert not future.done()
    await stage.skip(2)
    await stage.fail(future)
    assert future.done()
    assert retry.state() == {"Max attempts": None, "Attempts": 3, "Retries": 2, "Given up": 1}


async def test_the_first_of_two_reasons_to_stop(make_stage: MakeStage):
    stage = make_stage(Retry(2, wait=0, stop=1_000))
    stage.scheduler.start()
    future = stage.task.submit(1)
    await stage.fail(future)
    await stage.fail(future)
    assert future.done()


async def test_a_stop_that_looks_at_the_wait_to_come(make_stage: MakeStage):
    stage = make_stage(Retry(9, wait=20, stop=tenacity.stop_before_delay(30)))
    stage.scheduler.start()
    future = stage.task.submit(1)
    await stage.fail(future)
    await stage.skip(21)
    await stage.fail(future)
    assert future.done()


async def test_a_call_that_kills_three_workers_in_a_row_is_not_tried_again(make_stage: MakeStage):
    retry = Retry(10, wait=0)
    stage = make_stage(retry)
    stage.scheduler.start()
    future = stage.task.submit(1)
    died = [WorkerDiedError(f"killed {n}") for n in range(5)]
    for error in (died[0], died[1], OSError("in between"), died[2], died[3]):
        await stage.fail(future, error)
        assert not future.done()
    await stage.fail(future, died[4])
    assert future.exception() is died[4]
    (note,) = died[4].__notes__
    assert note.startswith("It was not tried again: this call has killed 3 workers in a row.")
    assert not hasattr(died[3], "__notes__")
    assert (retry.n_attempts, retry.n_given_up) == (6, 1)


# What goes wrong


def broken(_: Any) -> Any:
    raise ZeroDivisionError("of the user")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retry_on": broken}, "failed to say whether call 1 of 'work' is tried again: ZeroDiv"),
        ({"wait": broken}, "ZeroDivisionError: of the user. It is not; mend its retry_after"),
        ({"wait": lambda state: -1}, "its wait= strategy returned -1; return seconds, 0 or more"),
        ({"wait": lambda state: float("nan")}, "its wait= strategy returned nan"),
        ({"wait": lambda state: "soon"}, "its wait= strategy returned 'soon'"),
        ({"stop": broken}, "ZeroDivisionError"),
    ],
)
async def test_a_strategy_that_fails(make_stage: MakeStage, options: Any, message: str):
    stage = make_stage(Retry(5, **options))
    run = stage.scheduler.start(end_on_empty=True)
    future = stage.task.submit(1)
    error = OSError("no luck")
    await stage.fail(future, error)
    assert await run == ExitCode.EXHAUSTED
    assert future.exception() is error
    (line,) = [line for line in stage.scheduler.snapshot().log if line.level == "error"]
    assert message in line.text


async def test_a_strategy_that_ends_the_process_ends_the_run(make_stage: MakeStage):
    def leave(_: Any) -> float:
        raise SystemExit(3)

    stage = make_stage(Retry(5, wait=leave))
    run = stage.scheduler.start()
    future = stage.task.submit(1)
    await stage.fail(future)
    with pytest.raises(SystemExit):
        await run
    assert isinstance(future.exception(), OSError)


@pytest.mark.parametrize("delay_s", [-1, float("inf"), float("nan"), "soon", True])
async def test_a_plugin_that_answers_nonsense(make_stage: MakeStage, delay_s: Any):
    class Odd(Plugin):
        name = "odd"

        def retry_after(self, call: Call, error: BaseException) -> Any:
            return delay_s

    stage = make_stage(Odd())
    run = stage.scheduler.start(end_on_empty=True)
    await stage.fail(stage.task.submit(1))
    await run
    (line,) = [line for line in stage.scheduler.snapshot().log if line.level == "error"]
    assert f"retry_after() returned {delay_s!r}; return seconds, 0 or more, or None" in line.text


async def test_a_plugin_that_fails_to_hear_of_it(make_stage: MakeStage):
    class Deaf(Plugin):
        def retried(self, former: Call, call: Call) -> None:
            raise RuntimeError("deaf")

    stage = make_stage(Retry(2, wait=0), Deaf())
    run = stage.scheduler.start(end_on_empty=True)
    future = stage.task.submit(1)
    await stage.fail(future)
    stage.backend.finish(future, 5)
    await run
    assert future.result() == 5
    assert stage.recorder.counts["Task-work-1.on_retry"] == 1
    (line,) = [line for line in stage.scheduler.snapshot().log if line.level == "error"]
    assert "RuntimeError: deaf" in line.text


async def test_what_cannot_be_submitted_is_not_tried_again():
    retry = Retry(3, wait=0)
    scheduler = Scheduler.with_processes(1)
    task = scheduler.task(work, plugins=retry)
    run = scheduler.start(end_on_empty=True)
    future = task.submit(n for n in ())
    await run
    assert isinstance(future.exception(), NotPicklableError)
    assert (retry.n_attempts, retry.n_given_up) == (0, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_attempts": 0}, ValueError, "max_attempts=0: use a whole number of at least 1"),
        ({"max_attempts": -1}, ValueError, "max_attempts=-1"),
        ({"max_attempts": 1.5}, ValueError, "max_attempts=1.5"),
        ({"max_attempts": True}, ValueError, "max_attempts=True"),
        ({"max_attempts": None}, ValueError, "would never give up: pass stop="),
        ({"wait": -1}, ValueError, "wait=-1: use seconds, 0 or more"),
        ({"wait": float("nan")}, ValueError, "wait=nan"),
        ({"wait": "1 s"}, TypeError, "wait='1 s': use seconds or a strategy of tenacity"),
        ({"wait": tenacity.wait_fixed}, TypeError, "a strategy of tenacity, as it is made"),
        ({"stop": -1}, ValueError, "stop=-1"),
        ({"stop": "never"}, TypeError, "stop='never'"),
        ({"retry_on": ()}, TypeError, r"retry_on=\(\): use a type of exceptions"),
        ({"retry_on": "OSError"}, TypeError, "retry_on='OSError'"),
        ({"retry_on": (OSError, 1)}, TypeError, "a tuple of such types"),
        ({"retry_on": int}, TypeError, "retry_on=<class 'int'>"),
    ],
)
def test_what_means_nothing(options: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Retry(**options)


def test_one_is_enough_for_a_task():
    scheduler = Scheduler.with_sequential()
    task = scheduler.task(work, plugins=Retry())
    with pytest.raises(PluginError, match="Task-work-1 has a Retry already"):
        task.attach_plugin(Retry())
    assert len(task.plugins) == 1


def test_without_tenacity(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tenacity", None)
    with pytest.raises(MissingExtraError, match=r"Retry needs tenacity.*amltk-nb\[retry\]"):
        Retry()


# For real


def luck_at_last(path: str, n_bad: int) -> int:
    """Fail as often as told, over all attempts in any process; returns the number of this one."""
    n = int(Path(path).read_text() or 0) + 1
    Path(path).write_text(str(n))
    if n <= n_bad:
        raise OSError(f"bad luck {n}")
    return n


def killed_at_first(path: str) -> str:
    if not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def killed(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.may_block  # sequential calls read and write their file on the loop itself
@pytest.mark.parametrize("backend", ["processes", "threads", "sequential", "foreign"])
async def test_on_every_backend(backend: str, tmp_path: Path):
    (path := tmp_path / "n").touch()
    if backend == "foreign":
        scheduler = Scheduler(ThreadPoolExecutor(1))
    else:
        scheduler = getattr(Scheduler, f"with_{backend}")()
    task = scheduler.task(luck_at_last, plugins=Retry(5, wait=0.001))
    run = scheduler.start(end_on_empty=True, on_exception="raise")
    future = task.submit(str(path), 2)
    assert await asyncio.wait_for(run, LONG_S) == ExitCode.EXHAUSTED
    assert future.result() == 3
    rows = [(r["state"], r["attempt"], r["error"]) for r in scheduler.records()]
    assert rows == [
        ("failed", 1, "OSError: bad luck 1"),
        ("failed", 2, "OSError: bad luck 2"),
        ("done", 3, None),
    ]
    assert all(r["seconds"] is not None for r in scheduler.records())


async def test_what_was_submitted_is_tried_again_as_it_was(tmp_path: Path):
    (path := tmp_path / "n").touch()
    scheduler = Scheduler.with_processes(1)

    def sized(values: list[int]) -> int:
        luck_at_last(str(path), 1)
        return len(values)

    task = scheduler.task(sized, plugins=Retry(wait=0))
    values = [1, 2, 3]
    task.on("on_retry", lambda: values.clear())
    run = scheduler.start(end_on_empty=True)
    future = task.submit(values)
    await asyncio.wait_for(run, LONG_S)
    assert (future.result(), values) == (3, [])


async def test_a_call_whose_worker_was_killed(tmp_path: Path):
    scheduler = Scheduler.with_processes(2)
    task = scheduler.task(killed_at_first, plugins=Retry(wait=0, retry_on=WorkerDiedError))
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit(str(tmp_path / str(n))) for n in range(3)]
    assert await asyncio.wait_for(run, LONG_S) == ExitCode.EXHAUSTED
    assert [future.result() for future in futures] == ["alive"] * 3
    assert task.event_counts["on_retry"] == 3
    assert task.event_counts["on_exception"] == 0


async def test_a_call_that_kills_every_worker(tmp_path: Path):
    scheduler = Scheduler.with_processes(1)
    task = scheduler.task(killed, plugins=Retry(10, wait=0))
    run = scheduler.start(end_on_empty=True)
    future = task.submit(str(tmp_path / "n"))
    await asyncio.wait_for(run, LONG_S)
    assert "killed 3 workers in a row" in future.exception().__notes__[0]
    assert (tmp_path / "n").read_text() == "xxx"


def test_in_a_run_that_blocks(tmp_path: Path):
    (path := tmp_path / "n").touch()
    scheduler = Scheduler.with_threads(1)
    task = scheduler.task(luck_at_last, plugins=Retry(wait=0.001))
    results: list[int] = []
    task.on_returned(results.append)
    scheduler.on_start(lambda: task.submit(str(path), 1))
    assert scheduler.run() == ExitCode.EXHAUSTED
    assert results == [2]


# Any order


PICK = st.integers(0, 1_000)
ENDS = {"on_future_done", "on_future_cancelled"}


class RetryMachine(RuleBasedStateMachine):
    """Calls that fail, are cancelled, wait, are given back, stopped: each ends once."""

    n_steps = n_retries = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.limiter, self.retry = CallLimiter(max_concurrent=1_000), Retry(3, wait=self._wait)
        self.stage = Stage(self.loop, self.retry, self.limiter)
        self.stage.task.on("on_retry", self._react)
        self.futures: list[Future[Any]] = []
        self.wait_s = 0.0
        self.cancels_next = False
        self.do(self._start())

    async def _start(self) -> None:
        self.run = self.stage.scheduler.start()

    def _wait(self, state: Any) -> float:
        return self.wait_s

    def _react(self, future: Future[Any], error: Exception, attempt: int) -> None:
        if self.cancels_next:
            self.cancels_next = False
            future.cancel()

    @initialize(wait_s=st.sampled_from([0.0, 5.0]))
    def begin(self, wait_s: float) -> None:
        """Have one call between two attempts, whatever the rules are going to be."""
        self.submit(3)
        self.wait_s = wait_s
        self.stage.backend.fail(self.futures[0], OSError("at first"))
        self.turn(0)

    def do(self, main: Any) -> Any:
        return self.loop.run_until_complete(main)

    def pick(self, n: int) -> Any:
        running = self.stage.backend.calls
        return running[n % len(running)]

    def any_running(self) -> bool:
        return bool(self.stage.backend.calls)

    def is_open(self) -> bool:
        return self.stage.scheduler.running()

    @precondition(is_open)
    @rule(n=st.integers(1, 3))
    def submit(self, n: int) -> None:
        self.futures += [self.stage.task.submit(k) for k in range(n)]

    @precondition(any_running)
    @rule(n=PICK)
    def finish(self, n: int) -> None:
        self.stage.backend.finish(self.pick(n))

    @precondition(any_running)
    @rule(
        n=PICK,
        all_of_them=st.booleans(),
        kind=st.sampled_from([OSError, OSError, WorkerDiedError, SystemExit, NotPicklableError]),
        wait_s=st.sampled_from([0.0, 0.0, 5.0, 50.0]),
        cancels=st.sampled_from([False, False, True]),
    )
    def fail(self, n: int, all_of_them: bool, kind: Any, wait_s: float, cancels: bool) -> None:
        if kind is SystemExit and not cancels:
            kind = OSError  # it ends the run, so it shall be rare
        self.wait_s, self.cancels_next = wait_s, cancels
        for call in self.stage.backend.calls if all_of_them else [self.pick(n)]:
            self.stage.backend.fail(call, kind("as asked"))

    @precondition(any_running)
    @rule(n=PICK)
    def give_back(self, n: int) -> None:
        self.stage.backend.give_back(self.pick(n))

    @precondition(lambda self: self.futures)
    @rule(n=PICK)
    def cancel(self, n: int) -> None:
        future = self.futures[n % len(self.futures)]
        if future.cancel():
            assert str(future.call.state) in ("cancelled", "running")  # to be ended soon

    @precondition(is_open)
    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        (self.stage.scheduler.pause if paused else self.stage.scheduler.resume)()

    @rule(seconds=st.sampled_from([0, 0, 5, 60]))
    def turn(self, seconds: float) -> None:
        self.do(self.stage.skip(seconds))

    @precondition(lambda self: len(self.futures) > 6)
    @rule(wait=st.booleans())
    def stop(self, wait: bool) -> None:
        self.stage.scheduler.stop(wait=wait)

    @invariant()
    def the_counts_add_up(self) -> None:
        type(self).n_steps += 1
        snapshot, n_retries = self.stage.scheduler.snapshot(), self.retry.n_retries
        assert sum(snapshot.counts.values()) == len(self.futures) + n_retries
        assert snapshot.tasks[0].counts == snapshot.counts
        assert self.stage.task.n_called == len(self.futures) + n_retries
        n_open = sum(future.call.future is not None for future in self.futures)
        assert self.limiter.n_concurrent == n_open

    def teardown(self) -> None:
        self.stage.scheduler.stop(wait=False)
        self.do(asyncio.wait_for(self.run.over(), LONG_S))
        self.the_counts_add_up()
        type(self).n_retries += self.retry.n_retries
        assert (self.limiter.n_concurrent, self.retry._tries) == (0, {})
        for future in self.futures:
            told = self.stage.recorder.of(future)
            assert sum(name in ENDS for name in told) == 1
            assert told.count("on_future_submitted") == 1
            assert told.count("Task-work-1.on_retry") == future.call.attempt - 1 <= 2
            assert future.done()
        self.every_attempt_follows_one_that_failed()
        assert self.run.traffic._retries._timers == {}
        assert [line for line in self.stage.scheduler.snapshot().log if line.level == "error"] == []
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.close()

    def every_attempt_follows_one_that_failed(self) -> None:
        rows = {row["id"]: row for row in self.stage.scheduler.records()}
        followed = [r["resubmitted_from"] for r in rows.values() if r["resubmitted_from"]]
        assert len(set(followed)) == len(followed) == self.retry.n_retries
        assert {rows[id]["state"] for id in followed} <= {"failed"}
        final = {future.call.id for future in self.futures}
        assert final | set(followed) == set(rows)


def test_any_order():
    RetryMachine.n_steps = RetryMachine.n_retries = 0
    run_state_machine_as_test(
        RetryMachine,
        settings=settings(
            max_examples=int(os.environ.get("AMLTK_NB_EXAMPLES", "100")), stateful_step_count=40
        ),
    )
    if "AMLTK_NB_EXAMPLES" not in os.environ:
        assert RetryMachine.n_steps >= 600
        assert RetryMachine.n_retries >= 100
