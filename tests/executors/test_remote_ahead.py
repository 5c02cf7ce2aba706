"""Calls handed over ahead of their turn: how many, and what becomes of them in the end."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amltk_nb.errors import WorkerDiedError
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.ahead import Pace, Sample
from amltk_nb.scheduling.executors.flights import Deaths, Flight
from amltk_nb.scheduling.executors.remote import Death, Handle, NeverRanError
from tests.executors.driver import TIMEOUT_S, Driver
from tests.executors.test_remote import HandBackend, HandEngine, add


class HandClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class QueueingEngine(HandEngine):
    """Its workers have queues: what a test has not begun can be dropped."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.begun: set[Handle] = set()
        self.asked: list[Handle] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.wrong_with_dropping: Exception | None = None

    def drop(self, handles: Collection[Handle]) -> Collection[Handle]:
        with self._news:
            self.asked += handles
            self._news.notify_all()
        assert self.may_answer.wait(TIMEOUT_S)
        if self.wrong_with_dropping is not None:
            raise self.wrong_with_dropping
        return [handle for handle in handles if handle not in self.begun]

    def answer(self, n: int, *, seconds: float, process: str = "w1", way_s: float = 0.0) -> None:
        """Have the n-th submission answered, `way_s` after it was handed over besides `seconds`."""
        clock = self.backend.clock
        assert isinstance(clock, HandClock)
        clock.now += seconds + way_s
        began_at = clock.now - way_s / 2 - seconds
        told = ("value", pickle.dumps(n), began_at, seconds, process, 1, process)
        self.submitted[n][1](pickle.dumps(told))

    def die(self, *handles: int, worker: str = "w1", n_slots: int = 1) -> None:
        for n in handles:
            self.submitted[n][1](Death(WorkerDiedError(f"{worker} died"), worker, n_slots))


class QueueingBackend(HandBackend):
    engine_type = QueueingEngine
    n_ahead = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.clock = HandClock()

    def queueing(self) -> QueueingEngine:
        engine = self.engine()
        assert isinstance(engine, QueueingEngine)
        return engine


class QueueingWhereNothingEnds(QueueingBackend):
    cannot_end = "nothing ends here"


@pytest.fixture(params=[QueueingBackend, QueueingWhereNothingEnds])
def backend(request: pytest.FixtureRequest) -> QueueingBackend:
    made: QueueingBackend = request.param()
    return made


@pytest.fixture
def driver(backend: QueueingBackend) -> Iterator[Driver]:
    with Driver(backend) as driver:
        yield driver


@pytest.fixture
def engine(backend: QueueingBackend, driver: Driver) -> QueueingEngine:
    """One whose two workers have run two calls each of 5 ms, with 9.8 ms for the way."""
    engine = backend.queueing()
    for n in range(4):
        run_one(driver, engine, n, seconds=0.005, way_s=0.0098)
    assert backend.slots() == 6  # one for each worker, and two ahead
    return engine


def run_one(driver: Driver, engine: QueueingEngine, n: int, **how: Any) -> None:
    call = driver.submit(add, n)
    engine.wait_for(lambda: len(engine.submitted) == n + 1)
    engine.answer(n, process=f"w{n % 2}", **how)
    assert driver.value(call) == n


def handed_over(driver: Driver, engine: QueueingEngine, n: int) -> list[Call]:
    calls = [driver.submit(add, k) for k in range(n)]
    engine.wait_for(lambda: len(engine.submitted) == 4 + n)
    return calls


# --- how many


def test_none_until_calls_are_known_to_be_short(backend: QueueingBackend, driver: Driver):
    engine = backend.queueing()
    driver.wait_for(lambda: backend.n_workers == 2)
    for n in range(2):
        run_one(driver, engine, n, seconds=0.005, way_s=0.0098)
        assert backend.slots() == 2, "the first call of a process says nothing"
    run_one(driver, engine, 2, seconds=0.005, way_s=0.0098)
    assert backend.slots() == 6


def test_none_when_calls_take_long(
    backend: QueueingBackend, engine: QueueingEngine, driver: Driver
):
    run_one(driver, engine, 4, seconds=0.1, way_s=0.0098)
    assert backend.slots() == 2
    for n in range(5, 12):  # it is forgotten in time
        run_one(driver, engine, n, seconds=0.005, way_s=0.0098)
    assert backend.slots() > 2


def test_never_any_if_that_is_what_was_asked_for(backend: QueueingBackend):
    backend.n_ahead = 0
    with Driver(backend) as driver:
        for n in range(4):
            run_one(driver, backend.queueing(), n, seconds=0.005, way_s=0.0098)
        assert backend.slots() == 2


def test_those_ahead_show_whether_they_are_enough():
    pace = Pace(None)
    sample = Sample("p", 0.0, 0.005, 0.0148, is_ahead=False)
    pace.learn(sample)
    pace.learn(Sample("p", 0.005, 0.005, 0.0148, is_ahead=False))
    assert pace.n_ahead == 2
    pace.learn(Sample("p", 0.014, 0.005, 0.03, is_ahead=True))  # it began after 4 ms
    assert pace.n_ahead == 3
    for n in range(20):  # and all others at once
        pace.learn(Sample("p", 0.019 + 0.005 * n, 0.005, 0.03, is_ahead=True))
    assert pace.n_ahead == 3


@pytest.mark.parametrize("began_at", [60.0, 3_600.0])
def test_a_rest_of_a_worker_or_a_clock_that_was_set_is_no_long_way(began_at: float):
    pace = Pace(None)
    pace.learn(Sample("p", 0.0, 0.005, 0.0148, is_ahead=False))
    pace.learn(Sample("p", 0.005, 0.005, 0.0148, is_ahead=False))
    for n in range(3):
        pace.learn(Sample(f"q{n}", 0.0, 0.005, 0.0148, is_ahead=False))
        pace.learn(Sample(f"q{n}", began_at, 0.005, 0.02, is_ahead=True))
    for n in range(20):  # and none of those that follow waits
        pace.learn(Sample("p", 0.01 + 0.005 * n, 0.005, 0.02, is_ahead=True))
    assert pace.n_ahead <= 6
    assert pace.late_s < 1


samples = st.builds(
    Sample,
    process=st.sampled_from("pq"),
    began_at=st.floats(0, 1e6),
    seconds=st.floats(0, 100),
    under_way_s=st.floats(0, 100),
    is_ahead=st.booleans(),
)


@given(st.lists(samples))
def test_whatever_is_told_the_number_is_bounded_and_long_calls_have_none_ahead(told: list[Sample]):
    pace = Pace(None)
    for sample in told:
        pace.learn(sample)
        assert 0 <= pace.n_ahead <= 16
        assert pace.late_s >= 0.1
    pace.learn(Sample("p", 0.0, 0.1, 5.0, is_ahead=False))
    pace.learn(Sample("p", 0.0, 0.1, 5.0, is_ahead=False))
    assert pace.n_ahead == 0


# --- taken back


def test_what_waits_behind_a_long_call_runs_elsewhere(
    backend: QueueingBackend, engine: QueueingEngine, driver: Driver
):
    calls = handed_over(driver, engine, 6)
    engine.begun = {4, 5, 7}
    backend.clock.now += 10  # type: ignore[attr-defined]
    engine.news.changed()
    driver.wait_for(lambda: len(driver.returned_ids) == 3)
    assert engine.asked == [6, 7, 8, 9]  # the first two found a free worker
    assert driver.returned_ids == [calls[2].id, calls[4].id, calls[5].id]
    assert backend.slots() == 0  # behind long calls nothing more is handed over
    for n in (6, 8, 9):  # whatever the engine still says of them
        engine.submitted[n][1](NeverRanError())
    engine.answer(4, seconds=10.0)
    engine.answer(5, seconds=10.0, process="w0")
    engine.wait_for(lambda: len(engine.submitted) == 11)  # one is left that has begun
    engine.answer(7, seconds=10.0)
    engine.wait_for(lambda: len(engine.submitted) == 12)
    engine.answer(10, seconds=0.005)
    engine.wait_for(lambda: len(engine.submitted) == 13)
    engine.answer(11, seconds=0.005)
    engine.answer(12, seconds=0.005)
    assert [driver.value(call) for call in calls] == [4, 5, 10, 7, 11, 12]
    assert len(driver.outcomes) == 4 + 6
    assert engine.asked == [6, 7, 8, 9]  # each once


def test_an_engine_that_cannot_be_asked_now_keeps_them(
    backend: QueueingBackend, engine: QueueingEngine, driver: Driver
):
    calls = handed_over(driver, engine, 3)
    engine.wrong_with_dropping = TimeoutError("slow")
    backend.clock.now += 10  # type: ignore[attr-defined]
    engine.news.changed()
    driver.wait_for(lambda: driver.log_texts("warning") != [])
    for n in (4, 5, 6):
        engine.answer(n, seconds=0.005)
    assert [driver.value(call) for call in calls] == [4, 5, 6]
    assert driver.returned_ids == []
    assert len(driver.log_texts("warning")) == 1


def test_one_that_a_worker_left_out_is_run_elsewhere(engine: QueueingEngine, driver: Driver):
    (call,) = handed_over(driver, engine, 1)
    engine.submitted[4][1](NeverRanError())
    engine.wait_for(lambda: len(engine.submitted) == 6)
    engine.answer(5, seconds=0.005)
    assert driver.value(call) == 5
    assert driver.returned_ids == [call.id]


# --- ended


def test_a_call_ahead_is_dropped_and_never_killed(engine: QueueingEngine, driver: Driver):
    calls = handed_over(driver, engine, 3)
    assert driver.end(calls[2]) is True
    assert driver.outcome(calls[2]).cancelled
    assert (engine.asked, engine.killed) == ([6], [])
    engine.answer(4, seconds=0.005)
    engine.answer(5, seconds=0.005)
    assert [driver.value(call) for call in calls[:2]] == [4, 5]


def test_a_call_ahead_that_began_just_now_is_killed_where_that_can_be():
    backend = QueueingBackend()
    backend.n_ahead = 1
    with Driver(backend) as driver:
        engine = backend.queueing()
        calls = [driver.submit(add, n) for n in range(3)]
        engine.wait_for(lambda: len(engine.submitted) == 3)
        engine.begun = {2}
        assert driver.end(calls[2]) is True
        assert driver.outcome(calls[2]).cancelled
        assert (engine.asked, engine.killed) == ([2], [2])


def test_a_call_ahead_that_began_just_now_goes_on_where_nothing_ends():
    backend = QueueingWhereNothingEnds()
    backend.n_ahead = 1
    with Driver(backend) as driver:
        engine = backend.queueing()
        calls = [driver.submit(add, n) for n in range(3)]
        engine.wait_for(lambda: len(engine.submitted) == 3)
        assert driver.end(calls[0]) is False  # it found a free worker
        engine.begun = {2}
        assert driver.end(calls[2]) is True
        driver.wait_for(lambda: driver.log_texts("warning") != [])
        assert "call 3 could not be ended and goes on" in driver.log_texts("warning")[0]
        assert driver.end(calls[2]) is False  # that is known now
        engine.answer(2, seconds=0.005)
        assert driver.value(calls[2]) == 2


def test_one_that_never_began_and_could_not_be_dropped_ends_once():
    backend = QueueingWhereNothingEnds()
    backend.n_ahead = 1
    with SlowListener(backend) as driver:
        engine = backend.queueing()
        calls = [driver.submit(add, n) for n in range(3)]
        engine.wait_for(lambda: len(engine.submitted) == 3)
        engine.wrong_with_dropping = TimeoutError("a busy worker")
        engine.may_answer = driver.is_hearing  # fails while the listener hears that it has ended
        assert driver.end(calls[2]) is True
        engine.wait_for(lambda: engine.asked == [2])
        engine.submitted[2][1](NeverRanError())
        assert driver.outcome(calls[2]).cancelled
        engine.run(0)
        assert driver.value(calls[0]) == 1
        assert driver.returned_ids == []
        assert driver.log_texts("warning") == []


class SlowListener(Driver):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_hearing = threading.Event()

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        self.is_hearing.set()
        time.sleep(0.05)
        super().ended(outcomes)


# --- dead workers


def test_of_the_calls_of_a_dead_worker_the_first_has_run_and_the_others_run_elsewhere(
    backend: QueueingBackend, engine: QueueingEngine, driver: Driver
):
    calls = handed_over(driver, engine, 6)
    engine.die(8, 4, 6)
    assert isinstance(driver.error(calls[0]), WorkerDiedError)
    driver.wait_for(lambda: len(driver.returned_ids) == 2)
    assert driver.returned_ids == [calls[2].id, calls[4].id]
    engine.wait_for(lambda: len(engine.submitted) == 12)
    for n in (5, 7, 9, 10, 11):
        engine.answer(n, seconds=0.005)
    assert [driver.value(call) for call in calls[1:]] == [5, 10, 7, 11, 9]
    assert len(driver.outcomes) == 4 + 6


def test_what_waits_behind_a_call_that_is_killed_runs_elsewhere():
    backend = QueueingBackend()
    backend.n_ahead = 1
    with Driver(backend) as driver:
        engine = backend.queueing()
        engine.there.pop()
        engine.news.changed()
        driver.wait_for(lambda: backend.n_workers == 1)
        victim, behind = driver.submit(add, 0), driver.submit(add, 1)
        engine.wait_for(lambda: len(engine.submitted) == 2)
        assert driver.end(victim) is True
        assert driver.outcome(victim).cancelled
        engine.die(0, 1)
        engine.wait_for(lambda: len(engine.submitted) == 3)
        engine.answer(2, seconds=0.005)
        assert driver.value(behind) == 2
        assert driver.returned_ids == [behind.id]
        assert len(driver.outcomes) == 2


def test_without_calls_ahead_all_of_a_dead_worker_have_run(backend: QueueingBackend):
    backend.n_ahead = 0
    with Driver(backend) as driver:
        engine = backend.queueing()
        calls = [driver.submit(add, n) for n in range(2)]
        engine.wait_for(lambda: len(engine.submitted) == 2)
        engine.die(0, 1)  # they shared it, against what it says of itself
        assert [str(driver.error(call)) for call in calls] == ["w1 died", "w1 died"]
        assert driver.returned_ids == []


@given(
    st.lists(st.tuples(st.sampled_from("uv"), st.booleans()), max_size=12),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
    st.integers(1, 12),
)
def test_in_whatever_order_deaths_are_told(
    told: list[tuple[str, bool]], n_slots: int, random: Any, n_at_a_time: int
):
    """Each call has run or waited; before one that waited as many have run as the worker could."""
    error = WorkerDiedError("gone")
    call = Call(1, add, (), {})
    dead = [
        (Flight(call, n, handed_at=0.0, is_ahead=is_ahead), Death(error, worker, n_slots))
        for n, (worker, is_ahead) in enumerate(told)
    ]
    random.shuffle(dead)
    deaths, ran, waited = Deaths(), list[Flight](), list[Flight]()
    for first in range(0, len(dead), n_at_a_time):
        some_ran, some_waited = deaths.part(dead[first : first + n_at_a_time])
        ran += some_ran
        waited += some_waited
        workers = {flight: death.worker for flight, death in dead}
        for flight in some_waited:
            before = [f for f in ran if workers[f] == workers[flight] and f.number < flight.number]
            assert len(before) >= n_slots
            assert flight.is_ahead
    assert sorted(f.number for f in (*ran, *waited)) == list(range(len(dead)))
    if n_at_a_time >= len(dead):
        for worker in "uv":
            had = [flight for flight, death in dead if death.worker == worker]
            had.sort(key=lambda flight: flight.number)
            assert had[:n_slots] == [f for f in had if f in ran][:n_slots]
