"""Threads and sequence: reports in good time, threads given back, ends that cannot be caused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from amltk_nb import SequentialExecutor
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.local import SequentialBackend, ThreadBackend


class Listening:
    """Collects what a backend says; `call_soon` is left to the test."""

    def __init__(self) -> None:
        self.reports: list[list[int]] = []
        self.outcomes: dict[int, Outcome] = {}
        self.soon: list[Callable[[], None]] = []
        self.then: list[Callable[[], None]] = []  # done between two calls of one turn
        self.said = threading.Condition()

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        with self.said:
            self.reports.append([outcome.call.id for outcome in outcomes])
            self.outcomes |= {outcome.call.id: outcome for outcome in outcomes}
            self.said.notify_all()

    def call_soon(self, fn: Callable[[], None]) -> None:
        self.soon.append(fn)

    def ended_here(self, outcomes: Sequence[Outcome]) -> None:
        self.ended(outcomes)
        for then in self.then:
            then()

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for fn in soon:
            fn()

    def heard(self, n: int) -> None:
        with self.said:
            assert self.said.wait_for(lambda: len(self.outcomes) >= n, timeout=10)


def calls(n: int, fn: Any = int) -> list[Call]:
    return [Call(id, fn, (), {}) for id in range(1, n + 1)]


@pytest.fixture
def listener() -> Listening:
    return Listening()


def test_a_thread_that_reported_takes_the_next_call(listener: Listening):
    backend = ThreadBackend(1)
    backend.open(listener)  # type: ignore[arg-type]
    for n, call in enumerate(calls(3), start=1):
        assert backend.slots() == 1
        backend.start([call])
        listener.heard(n)
    assert listener.reports == [[1], [2], [3]]
    assert [w.name for w in backend.workers()] == ["worker-1"]
    backend.close(end_running=False)
    assert backend.workers() == ()


def test_closing_waits_for_what_runs(listener: Listening):
    gate = threading.Event()
    backend = ThreadBackend(2)
    backend.open(listener)  # type: ignore[arg-type]
    (call,) = calls(1, lambda: gate.wait(10))
    backend.start([call])
    assert backend.workers()[0].state == "busy"
    threading.Timer(0, gate.set).start()
    backend.close(end_running=False)
    assert listener.outcomes[1].value is True


def test_closing_now_abandons_what_runs(listener: Listening):
    gate, began = threading.Event(), threading.Event()
    backend = ThreadBackend(1)
    backend.open(listener)  # type: ignore[arg-type]

    def block() -> None:
        began.set()
        gate.wait(10)

    backend.start(calls(1, block))
    assert began.wait(10)
    (thread,) = (t for t in threading.enumerate() if t.name == "amltk-nb-worker-1")
    backend.close(end_running=True)
    assert listener.outcomes[1].cancelled
    gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert listener.reports == [[1]]  # how it ended later was not reported


def test_whatever_a_call_raises_is_its_outcome(listener: Listening):
    def leave() -> None:
        raise SystemExit(3)

    backend = ThreadBackend(1)
    backend.open(listener)  # type: ignore[arg-type]
    backend.start(calls(1, leave))
    listener.heard(1)
    assert isinstance(listener.outcomes[1].error, SystemExit)
    assert backend.slots() == 1
    backend.close(end_running=False)


def test_a_sequential_call_runs_when_the_loop_turns(listener: Listening):
    backend = SequentialBackend()
    backend.open(listener)  # type: ignore[arg-type]
    ran: list[int] = []
    backend.start([Call(1, ran.append, (1,), {})])
    assert (ran, backend.slots()) == ([], 0)
    listener.turn()
    assert (ran, backend.slots(), listener.reports) == ([1], 1, [[1]])
    assert listener.outcomes[1].seconds is not None


def test_sequential_calls_share_a_turn_and_callbacks_act_between_them(listener: Listening):
    backend = SequentialBackend()
    backend.open(listener)  # type: ignore[arg-type]
    ran: list[str] = []
    first, second, third = (Call(n, ran.append, (f"call {n}",), {}) for n in (1, 2, 3))
    waiting = [second, third]

    def callback() -> None:
        ran.append(f"callback {listener.reports[-1]}")
        if waiting:
            backend.start([waiting.pop(0)])

    listener.then.append(callback)
    backend.start([first])
    listener.turn()
    assert ran[:2] == ["call 1", "callback [1]"]
    while len(listener.reports) < 3:  # the rest in this turn, or on a slow machine in the next
        listener.turn()
    assert [line for line in ran if line.startswith("call ")] == ["call 1", "call 2", "call 3"]


def test_a_sequential_call_that_has_not_begun_can_be_ended(listener: Listening):
    backend = SequentialBackend()
    backend.open(listener)  # type: ignore[arg-type]
    ran: list[int] = []
    call = Call(1, ran.append, (1,), {})
    backend.start([call])
    assert backend.end(call) is True
    assert backend.end(call) is False
    listener.turn()
    assert (ran, listener.outcomes[1].cancelled, listener.reports) == ([], True, [[1]])


def test_a_sequential_executor_by_itself():
    executor = SequentialExecutor()
    future = executor.submit(int, "7")
    assert (future.done(), future.result()) == (True, 7)
    assert isinstance(executor.submit(int, "x").exception(), ValueError)
    assert list(executor.map(int, ["1", "2"])) == [1, 2]
