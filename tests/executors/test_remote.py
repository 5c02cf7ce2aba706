"""What engines elsewhere have in common, over one that says things twice, late, or not at all."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import (
    BackendError,
    BackendLostError,
    BackendStartError,
    CannotEndError,
    NotPicklableError,
    WorkerDiedError,
)
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.executors.ahead import Pace
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Done,
    Handle,
    News,
    RemoteBackend,
    RemoteWorker,
)
from amltk_nb.scheduling.remote_call import Portable, pack_call, read_answer, run_call
from amltk_nb.scheduling.shipping import RemoteError
from tests.executors.driver import TIMEOUT_S, Driver


def add(a: int, b: int = 1) -> int:
    return a + b


class HandEngine(Connection):
    """An engine in which nothing happens unless a test says so."""

    def __init__(self, backend: HandBackend, news: News) -> None:
        self.backend = backend
        self.news = news
        self.there = [RemoteWorker("w1"), RemoteWorker("w2")]
        self.wrong_with_workers: Exception | None = None
        self.refusal: Exception | None = None
        self.kill_error: Exception | None = None
        self.submitted: list[tuple[bytes, Done]] = []
        self.killed: list[Handle] = []
        self.given_up: list[Handle] | None = None
        self.n_jobs: int | None = None
        self._news = threading.Condition()

    def submit(self, packed: bytes, done: Done) -> Handle:
        if self.refusal is not None:
            raise self.refusal
        with self._news:
            self.submitted.append((packed, done))
            self._news.notify_all()
            return len(self.submitted) - 1

    def workers(self) -> Sequence[RemoteWorker]:
        if self.wrong_with_workers is not None:
            raise self.wrong_with_workers
        return tuple(self.there)

    def n_jobs_waiting(self) -> int | None:
        return self.n_jobs

    def kill(self, handle: Handle) -> None:
        with self._news:
            self.killed.append(handle)
            self._news.notify_all()
        if self.kill_error is not None:
            raise self.kill_error

    def disconnect(self, running: Collection[Handle]) -> None:
        self.given_up = list(running)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(condition, TIMEOUT_S), "it never happened"

    def run(self, n: int) -> None:
        """Run the n-th submission, and say so."""
        packed, done = self.submitted[n]
        done(run_call(packed, "w1"))


class HandBackend(RemoteBackend):
    name = "HandExecutor"
    poll_s = 0.01
    engine_type: type[HandEngine] = HandEngine

    def __init__(self, **options: Any) -> None:
        super().__init__(options={}, **options)
        self.may_connect = threading.Event()
        self.may_connect.set()
        self.wrong: BaseException | None = None
        self.engines: list[HandEngine] = []
        self._connected = threading.Condition()

    def connect(self, news: News) -> Connection:
        assert self.may_connect.wait(TIMEOUT_S)
        if self.wrong is not None:
            raise self.wrong
        with self._connected:
            self.engines.append(self.engine_type(self, news))
            self._connected.notify_all()
        return self.engines[-1]

    def engine(self, n: int = 0) -> HandEngine:
        with self._connected:
            assert self._connected.wait_for(lambda: len(self.engines) > n, TIMEOUT_S)
        return self.engines[n]


class StubbornBackend(HandBackend):
    cannot_end = "nothing ends here"


@pytest.fixture
def backend() -> HandBackend:
    return HandBackend()


@pytest.fixture
def driver(backend: HandBackend) -> Iterator[Driver]:
    with Driver(backend) as driver:
        yield driver
    assert [t.name for t in threading.enumerate() if "HandExecutor" in t.name] == []


def handed_over(driver: Driver, engine: HandEngine, n: int) -> list[Call]:
    calls = [driver.submit(add, k) for k in range(n)]
    engine.wait_for(lambda: len(engine.submitted) == n)
    return calls


# --- handing over


def test_calls_wait_until_it_is_connected(backend: HandBackend):
    backend.may_connect.clear()
    with Driver(backend) as driver:
        call = driver.submit(add, 1)
        told = backend.describe()
        assert (backend.slots(), told.n_workers, told.waiting_for) == (
            0,
            0,
            "HandExecutor to start",
        )
        assert told.waiting_since is not None
        backend.may_connect.set()
        engine = backend.engine()
        engine.wait_for(lambda: len(engine.submitted) == 1)
        engine.run(0)
        assert driver.value(call) == 2
        assert backend.describe().waiting_for is None


def test_as_many_as_there_are_workers_and_more_when_more_come(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    calls = [driver.submit(add, n) for n in range(6)]
    engine.wait_for(lambda: len(engine.submitted) == 2)
    assert (backend.slots(), backend.n_workers) == (0, 2)
    engine.there.append(RemoteWorker("w3", n_slots=2))
    engine.news.changed()
    engine.wait_for(lambda: len(engine.submitted) == 4)
    for n in range(4):
        engine.run(n)
    engine.wait_for(lambda: len(engine.submitted) == 6)
    engine.run(4)
    engine.run(5)
    assert [driver.value(call) for call in calls] == [1, 2, 3, 4, 5, 6]
    assert backend.describe().n_workers == 4


def test_nothing_is_handed_over_to_workers_that_left(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    handed_over(driver, engine, 2)
    engine.there.pop()
    engine.news.changed()
    driver.wait_for(lambda: backend.n_workers == 1)
    assert backend.slots() == 0
    engine.run(0)
    assert backend.slots() == 0
    engine.run(1)
    driver.wait_for(lambda: len(driver.outcomes) == 2)
    assert backend.slots() == 1


def test_so_many_more_are_handed_over_ahead(backend: HandBackend):
    backend.n_ahead = 2
    with Driver(backend) as driver:
        engine = backend.engine()
        calls = [driver.submit(add, n) for n in range(8)]
        engine.wait_for(lambda: len(engine.submitted) == 6)
        assert (backend.slots(), backend.n_workers) == (0, 2)
        engine.run(0)
        engine.wait_for(lambda: len(engine.submitted) == 7)
        for n in range(1, 7):
            engine.run(n)
        engine.wait_for(lambda: len(engine.submitted) == 8)
        engine.run(7)
        assert [driver.value(call) for call in calls] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_refused_call_fails_and_no_other(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    engine.refusal = OSError("full")
    refused = driver.submit(add, 1)
    assert isinstance(driver.error(refused), BackendError)
    assert "did not take call 1 of add(): OSError: full" in str(driver.error(refused))
    engine.refusal = None
    taken = driver.submit(add, 2)
    engine.wait_for(lambda: len(engine.submitted) == 1)
    engine.run(0)
    assert driver.value(taken) == 3


# --- one outcome for each call


def test_whatever_is_said_again_counts_once(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    (call,) = handed_over(driver, engine, 1)
    _, done = engine.submitted[0]
    engine.run(0)
    done(ValueError("no, it failed"))
    engine.run(0)
    done(CancelledError())
    assert driver.value(call) == 1
    other = driver.submit(add, 5)
    engine.wait_for(lambda: len(engine.submitted) == 2)
    engine.run(1)
    assert driver.value(other) == 6
    assert len(driver.outcomes) == 2


def test_what_a_former_run_says_later_is_not_heard(backend: HandBackend):
    with Driver(backend) as first:
        engine = backend.engine()
        handed_over(first, engine, 1)
    assert [outcome.cancelled for outcome in first.outcomes] == [True]
    with Driver(backend) as second:
        later = backend.engine(1)
        (call,) = handed_over(second, later, 1)
        engine.run(0)
        later.run(0)
        assert second.value(call) == 1
    assert (len(first.outcomes), len(second.outcomes)) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (WorkerDiedError("gone"), WorkerDiedError, "gone"),
        (ValueError("engine's own"), ValueError, "engine's own"),
        (b"no pickle at all", BackendError, "cannot be read"),
    ],
)
def test_what_an_engine_says_instead_of_an_answer(
    backend: HandBackend, driver: Driver, answer: Any, kind: type[Exception], text: str
):
    engine = backend.engine()
    (call,) = handed_over(driver, engine, 1)
    engine.submitted[0][1](answer)
    assert type(driver.error(call)) is kind
    assert text in str(driver.error(call))


def test_a_call_that_the_engine_dropped_is_cancelled(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    (call,) = handed_over(driver, engine, 1)
    engine.submitted[0][1](CancelledError())
    assert driver.outcome(call).cancelled


class Noted(Exception):
    """One that can be known by a weak reference."""


def test_an_answer_is_let_go_of_before_the_next_one_comes(backend: HandBackend, driver: Driver):
    backend.poll_s = 1_000.0
    engine = backend.engine()
    handed_over(driver, engine, 1)
    _, done = engine.submitted.pop()
    done(answer := Noted())
    kept = weakref.ref(answer)
    del answer, done
    driver.wait_for(lambda: driver.outcomes != [])
    driver.outcomes.clear()
    gone_by(lambda: kept() is None)


def test_a_call_that_could_not_be_ended_is_let_go_of(backend: HandBackend, driver: Driver):
    backend.poll_s = 1_000.0
    engine = backend.engine()
    engine.kill_error = CannotEndError("out of reach")
    noted = Noted("noted")
    kept = weakref.ref(noted)
    call = driver.submit(str, noted)
    engine.wait_for(lambda: len(engine.submitted) == 1)
    assert driver.end(call) is True
    driver.wait_for(lambda: driver.log_texts("warning") != [])
    engine.run(0)
    assert driver.value(call) == "noted"
    driver.outcomes.clear()
    engine.submitted.clear()
    engine.kill_error = None  # its traceback knows the call
    del call, noted
    gone_by(lambda: kept() is None)


def gone_by(is_gone: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not is_gone():
        gc.collect()
        assert time.monotonic() < until, "it is kept"
        time.sleep(0.01)


# --- ending


def test_an_ended_call_is_cancelled_whatever_comes_of_it(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    one, other = handed_over(driver, engine, 2)
    assert driver.end(one) is True
    assert driver.end(one) is True
    engine.wait_for(lambda: engine.killed == [0])
    engine.run(0)
    assert driver.outcome(one).cancelled
    assert driver.end(one) is False  # it is over
    engine.run(1)
    assert driver.value(other) == 2
    assert engine.killed == [0]


def test_one_that_cannot_be_ended_after_all_ends_as_it_does(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    engine.kill_error = CannotEndError("out of reach")
    (call,) = handed_over(driver, engine, 1)
    assert driver.end(call) is True
    engine.wait_for(lambda: engine.killed == [0])
    driver.wait_for(lambda: driver.log_texts("warning") != [])
    engine.run(0)
    assert driver.value(call) == 1


def test_running_calls_that_cannot_be_ended_are_given_up_at_the_end():
    backend = StubbornBackend()
    with Driver(backend) as driver:
        engine = backend.engine()
        calls = handed_over(driver, engine, 2)
        assert driver.end(calls[0]) is False
    assert engine.killed == []
    assert engine.given_up == [0, 1]
    assert [outcome.cancelled for outcome in driver.outcomes] == [True, True]


def test_closing_waits_for_what_runs_unless_it_is_in_haste(backend: HandBackend):
    driver = Driver(backend)
    backend.open(driver)
    engine = backend.engine()
    (call,) = handed_over(driver, engine, 1)
    closing = threading.Thread(target=backend.close, kwargs={"end_running": False})
    closing.start()
    assert driver.outcomes == []
    engine.run(0)
    closing.join(TIMEOUT_S)
    assert driver.value(call) == 1
    assert engine.given_up == []


def test_it_is_disconnected_even_if_it_connects_while_it_is_closed(backend: HandBackend):
    backend.may_connect.clear()
    driver = Driver(backend)
    backend.open(driver)
    closing = threading.Thread(target=backend.close, kwargs={"end_running": True})
    closing.start()
    backend.may_connect.set()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert [engine.given_up for engine in backend.engines] == [[]]
    assert driver.outcomes == []


# --- faults


def test_a_start_that_fails_says_why(backend: HandBackend):
    backend.wrong = RuntimeError("no such queue")
    with Driver(backend) as driver:
        driver.wait_for(lambda: driver.lost_errors != [])
        assert backend.slots() == 0
    (error,) = driver.lost_errors
    assert isinstance(error, BackendStartError)
    assert "HandExecutor could not be started: RuntimeError: no such queue" in str(error)
    assert error.__cause__ is backend.wrong


def test_one_that_is_lost_fails_what_is_under_way_and_says_so_once(
    backend: HandBackend, driver: Driver
):
    engine = backend.engine()
    calls = handed_over(driver, engine, 2)
    lost = BackendLostError("it is gone")
    engine.news.lost(lost)
    engine.news.lost(BackendLostError("again"))
    engine.run(0)
    assert [driver.error(call) for call in calls] == [lost, lost]
    assert driver.lost_errors == [lost]
    assert backend.slots() == 0
    assert len(driver.outcomes) == 2


def test_one_that_is_found_lost_when_asked_for_workers(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    (call,) = handed_over(driver, engine, 1)
    engine.wrong_with_workers = BackendLostError("nobody answers")
    engine.news.changed()
    assert driver.error(call) is engine.wrong_with_workers
    driver.wait_for(lambda: driver.lost_errors == [engine.wrong_with_workers])


def test_one_that_is_found_lost_when_it_is_given_a_call_does_not_use_up_the_queue(
    backend: HandBackend, driver: Driver
):
    engine = backend.engine()
    engine.refusal = lost = BackendLostError("it is gone")
    calls = [driver.submit(add, n) for n in range(5)]
    driver.wait_for(lambda: driver.lost_errors == [lost])
    assert backend.slots() == 0
    assert all(driver.error(call) is lost for call in calls[: len(driver.outcomes)])
    assert len(driver.outcomes) <= 2


class FaultyEngine(HandEngine):
    def submit_many(self, calls: Sequence[tuple[bytes, Done]]) -> Sequence[Handle | Exception]:
        raise RuntimeError("not foreseen")


class FaultyBackend(HandBackend):
    engine_type = FaultyEngine


def test_a_fault_of_an_engine_ends_the_run_and_does_not_leave_it_waiting():
    backend = FaultyBackend()
    with Driver(backend) as driver:
        call = driver.submit(add, 1)
        error = driver.error(call)
        assert isinstance(error, BackendLostError)
        assert "HandExecutor failed in a way that was not foreseen" in str(error)
        driver.wait_for(lambda: driver.lost_errors == [error])
    assert backend.engine().given_up == []


def test_a_fault_in_taking_answers_in_ends_the_run(
    backend: HandBackend, driver: Driver, monkeypatch: pytest.MonkeyPatch
):
    def learn(*_: object) -> None:
        raise OverflowError("not foreseen")

    monkeypatch.setattr(Pace, "learn", learn)
    engine = backend.engine()
    calls = handed_over(driver, engine, 2)
    engine.run(0)
    assert isinstance(driver.error(calls[1]), BackendLostError)
    driver.wait_for(lambda: driver.lost_errors != [])


def test_a_passing_fault_in_asking_for_workers_changes_nothing(
    backend: HandBackend, driver: Driver
):
    engine = backend.engine()
    (call,) = handed_over(driver, engine, 1)
    engine.wrong_with_workers = TimeoutError("slow")
    driver.wait_for(lambda: driver.log_texts("warning") != [])
    for _ in range(3):
        engine.news.changed()
    engine.run(0)
    assert driver.value(call) == 1
    assert driver.lost_errors == []
    assert len(driver.log_texts("warning")) == 1
    engine.wrong_with_workers = None
    engine.there.append(RemoteWorker("w3"))
    driver.wait_for(lambda: backend.n_workers == 3)


def test_nobody_there_is_told_again_and_again_with_the_time():
    backend = HandBackend(no_workers_after_s=0.05)
    with Driver(backend) as driver:
        engine = backend.engine()
        engine.there.clear()
        driver.wait_for(lambda: len(driver.no_workers_s) >= 2)
        first, second = driver.no_workers_s[:2]
        assert 0.05 <= first < second
        assert backend.describe().waiting_for == "workers of HandExecutor"
        engine.there.append(RemoteWorker("w9"))
        driver.wait_for(lambda: backend.describe().waiting_for is None)


@pytest.mark.parametrize("wrong", [0, -1.0])
def test_a_time_without_workers_must_be_positive(wrong: float):
    with pytest.raises(ValueError, match="no_workers_after"):
        HandBackend(no_workers_after_s=wrong)


def test_workers_are_not_replaced_and_that_is_said(backend: HandBackend, driver: Driver):
    backend.restart()
    assert "end the run and start it again" in driver.log_texts("warning")[0]


# --- what is shown


def test_workers_show_where_they_are_and_what_they_run(backend: HandBackend, driver: Driver):
    engine = backend.engine()
    one, other = handed_over(driver, engine, 2)
    engine.n_jobs = 3
    engine.there = [
        RemoteWorker("w1", where="node-7", pid=11, running=[1]),
        RemoteWorker("w2", running=()),
        RemoteWorker("w3"),
    ]
    driver.wait_for(lambda: backend.n_workers == 3)
    told = [(w.name, w.state, w.call, w.where, w.pid) for w in backend.workers()]
    assert told == [
        ("w1", "busy", other.id, "node-7", 11),
        ("w2", "idle", None, None, None),
        ("w3", "up", None, None, None),
    ]
    driver.wait_for(lambda: other.worker == "w1")
    assert one.worker is None
    assert backend.describe().n_jobs_waiting == 3
    engine.run(0)
    assert driver.outcome(one).worker == "w1"


async def test_a_call_that_could_not_be_ended_is_ended_when_that_is_asked_again():
    backend = HandBackend()
    scheduler = Scheduler(backend)
    run = scheduler.start()
    future = scheduler.submit(add, 1)
    engine = await asyncio.to_thread(backend.engine)
    await asyncio.to_thread(engine.wait_for, lambda: len(engine.submitted) == 1)
    engine.kill_error = CannotEndError("out of reach for now")
    assert future.cancel() is True
    while "out of reach for now" not in str(scheduler.snapshot().log):
        await asyncio.sleep(0.01)
    engine.kill_error = None
    assert future.cancel() is True
    assert future.cancel() is True
    await asyncio.wait([future], timeout=TIMEOUT_S)
    assert future.cancelled()
    assert engine.killed == [0, 0]
    scheduler.stop()
    assert await run == ExitCode.STOPPED


async def test_the_scheduler_over_it_emits_on_no_workers_and_ends_when_it_is_lost():
    backend = HandBackend(no_workers_after_s=0.01)
    scheduler = Scheduler(backend)
    told: list[float] = []
    scheduler.on_no_workers(told.append)
    assert "on_no_workers" in [event.name for event in scheduler.snapshot().events]

    @scheduler.on_no_workers(max_calls=1)
    def lose_it() -> None:
        backend.engine().news.lost(BackendLostError("it is gone"))

    run = scheduler.start(on_exception="continue")
    queued = [scheduler.submit(add, 1) for _ in range(3)]
    backend.engine().there.clear()
    state = await run
    assert state == ExitCode.EXCEPTION
    assert isinstance(state.exception, BackendLostError)
    assert all(future.done() for future in queued)
    assert told[0] >= 0.01


# --- what travels


def test_what_cannot_travel_is_named():
    lock = threading.Lock()
    with pytest.raises(NotPicklableError, match=r"argument b= \(a _thread.lock\) of add\(\)"):
        pack_call(Call(1, add, (1,), {"b": lock}))
    with pytest.raises(NotPicklableError, match="the function <lambda>"):
        pack_call(Call(1, lambda: lock, (), {}))


def test_a_result_that_cannot_travel_is_explained():
    answer = read_answer(run_call(pack_call(Call(1, threading.Lock, (), {}))), "Lock")
    assert isinstance(answer.error, NotPicklableError)
    assert "a _thread.lock" in str(answer.error)
    assert (answer.pid, answer.worker) == (os.getpid(), None)


class Quits:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("while it is loaded",)


class QuitsAsError(Quits, Exception):
    pass


def raise_what_quits() -> None:
    raise QuitsAsError


@pytest.mark.parametrize(
    ("fn", "kind", "text"),
    [
        (Quits, NotPicklableError, "while it is loaded"),
        (raise_what_quits, RemoteError, "QuitsAsError"),
    ],
)
def test_a_result_whose_loading_wants_to_exit_is_an_error_as_any_other(
    backend: HandBackend,
    driver: Driver,
    fn: Callable[[], object],
    kind: type[Exception],
    text: str,
):
    engine = backend.engine()
    quitting = driver.submit(fn)
    engine.wait_for(lambda: len(engine.submitted) == 1)
    engine.run(0)
    error = driver.error(quitting)
    assert type(error) is kind
    assert text in str(error)
    other = driver.submit(add, 1)
    engine.wait_for(lambda: len(engine.submitted) == 2)
    engine.run(1)
    assert driver.value(other) == 2


def test_it_runs_where_the_package_is_not_installed():
    class Odd(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"{first} and {second}")
            self.first = first

    def odd(n: int) -> int:
        if n % 2:
            raise Odd(n, n + 1)
        return n * FACTOR

    FACTOR = 10
    packed = [pack_call(Call(n, odd, (n,), {})) for n in (2, 3)]
    code = (
        "import pickle, sys; sys.modules['amltk_nb'] = None\n"
        "run, packed = pickle.load(sys.stdin.buffer)\n"
        "pickle.dump([run(each) for each in packed], sys.stdout.buffer)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((Portable(run_call), packed)),
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    good, bad = (read_answer(answer, "odd") for answer in pickle.loads(done.stdout))
    assert (good.value, good.error) == (20, None)
    assert (type(bad.error), str(bad.error), bad.error.first) == (Odd, "3 and 4", 3)  # type: ignore[union-attr]
    assert "in odd" in str(bad.error.__cause__)  # type: ignore[union-attr]
    assert good.pid == bad.pid != os.getpid()
    assert json.dumps(good.host)
