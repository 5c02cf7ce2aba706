"""The ready queue and what starts when: order, room, pause, batches, taking and giving back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.dispatch import Dispatcher
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import ManualBackend


class Desk:
    """A dispatcher over a manual backend, and calls made by number."""

    def __init__(self, n_workers: int = 1, *, batches: bool = True, batching: bool = True) -> None:
        self.backend = ManualBackend(n_workers, batches=batches)
        self.backend.open(self)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(self.backend, batching=batching)
        self.made: dict[int, Call] = {}

    def add(self, *ids: int, fn: Any = print) -> list[Call]:
        calls = [Call(id, fn, (), {}) for id in ids]
        for call in calls:
            self.made[call.id] = call
            self.dispatcher.add(call)
        return calls

    def measure(self, seconds: float, fn: Any = print) -> None:
        call = Call(0, fn, (), {})
        self.dispatcher.measured([Outcome(call, seconds=seconds)])

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            outcome.call.move(CallState.DONE)
        self.dispatcher.pump()

    def returned(self, calls: Sequence[Call]) -> None:
        self.dispatcher.give_back(calls)

    @property
    def started(self) -> list[list[int]]:
        return self.backend.started

    def pour(self, *ids: int, fn: Any = print) -> list[Call]:
        """Queue calls while no worker takes any, then let them go."""
        self.dispatcher.paused = True
        calls = self.add(*ids, fn=fn)
        self.dispatcher.paused = False
        self.dispatcher.pump()
        return calls


def short() -> None: ...


def long() -> None: ...


def test_calls_start_in_order_as_room_allows():
    desk = Desk(2)
    calls = desk.add(1, 2, 3, 4)
    assert desk.started == [[1], [2]]
    assert [call.state for call in calls] == ["running", "running", "queued", "queued"]
    assert desk.dispatcher.n_queued == 2
    desk.backend.finish(calls[1])
    assert desk.started == [[1], [2], [3]]
    assert calls[2].worker == "worker-2"


def test_nothing_starts_while_paused_not_even_when_pumped():
    desk = Desk(2)
    desk.dispatcher.paused = True
    desk.add(1, 2)
    desk.dispatcher.pump()
    assert (desk.started, desk.dispatcher.n_queued) == ([], 2)
    desk.dispatcher.paused = False
    desk.dispatcher.pump()
    assert desk.started == [[1], [2]]


def test_what_was_never_measured_travels_alone():
    desk = Desk(1)
    calls = desk.pour(*range(1, 10))
    assert desk.started == [[1]]
    desk.backend.finish(calls[0])
    assert desk.started == [[1], [2]]


@pytest.mark.parametrize(("n_workers", "n_calls", "size"), [(1, 10, 4), (2, 21, 5), (4, 7, 1)])
def test_a_batch_is_half_of_an_even_share(n_workers: int, n_calls: int, size: int):
    desk = Desk(n_workers)
    desk.measure(0.0)
    desk.pour(*range(1, n_calls + 1))
    assert len(desk.started[0]) == size
    assert len(desk.started) == n_workers  # the others found work too
    taken = [id for batch in desk.started for id in batch]
    assert taken == list(range(1, len(taken) + 1))


def test_a_batch_holds_20_ms_of_work():
    desk = Desk(1)
    desk.measure(0.006)
    desk.pour(*range(1, 101))
    assert desk.started == [[1, 2, 3]]  # a fourth one would make it 24 ms


def test_a_batch_ends_before_a_call_that_is_long():
    desk = Desk(1)
    desk.measure(0.0, short)
    desk.measure(5.0, long)
    desk.dispatcher.paused = True
    desk.add(1, 2, fn=short)
    desk.add(3, fn=long)
    desk.add(*range(4, 40), fn=short)
    desk.dispatcher.paused = False
    desk.dispatcher.pump()
    assert desk.started == [[1, 2]]


def test_a_batch_never_holds_more_than_two_hundred_and_fifty():
    desk = Desk(1)
    desk.measure(0.0)
    desk.pour(*range(1, 1_002))
    assert [len(batch) for batch in desk.started] == [250]


def test_one_slow_call_is_forgotten_slowly():
    desk = Desk(1)
    desk.measure(1.0)
    desk.measure(0.0)
    call = Call(1, print, (), {})
    assert desk.dispatcher._expect(call) == pytest.approx(0.9)
    for _ in range(60):
        desk.measure(0.0)
    assert desk.dispatcher._expect(call) < 0.002


@pytest.mark.parametrize(("batches", "batching"), [(False, True), (True, False)])
def test_no_batches_unless_both_sides_want_them(batches: bool, batching: bool):
    desk = Desk(1, batches=batches, batching=batching)
    desk.measure(0.0)
    desk.pour(*range(1, 101))
    assert desk.started == [[1]]


def test_cancelled_calls_are_skipped():
    desk = Desk(1)
    desk.measure(0.0)
    desk.dispatcher.paused = True
    calls = desk.add(*range(1, 12))
    for n in (0, 2, 5, 10):
        assert desk.dispatcher.take_back(calls[n]) is True
    assert desk.dispatcher.n_queued == 7
    assert [call.id for call in desk.dispatcher.upcoming(3)] == [2, 4, 5]
    desk.dispatcher.paused = False
    desk.dispatcher.pump()
    assert desk.started == [[2, 4, 5]]
    assert calls[0].state is CallState.CANCELLED


def test_only_a_waiting_call_can_be_taken_back():
    desk = Desk(1)
    running, waiting = desk.add(1, 2)
    assert desk.dispatcher.take_back(running) is False
    assert running.state is CallState.RUNNING
    assert desk.dispatcher.take_back(waiting) is True
    assert desk.dispatcher.take_back(waiting) is False
    assert desk.dispatcher.n_queued == 0


def test_taking_all_back_leaves_the_running_ones():
    desk = Desk(1)
    calls = desk.add(1, 2, 3, 4)
    desk.dispatcher.take_back(calls[2])
    assert desk.dispatcher.take_back_all() == [calls[1], calls[3]]
    assert [call.state for call in calls] == ["running", "cancelled", "cancelled", "cancelled"]
    assert (desk.dispatcher.n_queued, desk.dispatcher.upcoming(9)) == (0, [])


def test_calls_given_back_are_the_next_ones_in_their_order():
    desk = Desk(1)
    desk.measure(0.0)
    desk.pour(*range(1, 10))
    assert desk.started == [[1, 2, 3, 4]]
    dead, *behind = (desk.made[n] for n in (1, 2, 3, 4))
    desk.dispatcher.paused = True
    desk.backend.give_back(*behind)
    assert [call.state for call in behind] == ["queued"] * 3
    assert [call.worker for call in behind] == [None] * 3
    assert [call.id for call in desk.dispatcher.upcoming(4)] == [2, 3, 4, 5]
    desk.dispatcher.paused = False
    desk.backend.finish(dead)
    assert desk.started[1] == [2, 3, 4]  # 3 = (8 - 1) // 2
    assert desk.dispatcher.n_queued == 5


def test_eight_thousand_cancels_from_the_end_walk_nowhere():
    desk = Desk(1)
    desk.dispatcher.paused = True
    calls = desk.add(*range(1, 8_001))
    for call in reversed(calls):
        assert desk.dispatcher.take_back(call)
    assert (desk.dispatcher.n_queued, desk.dispatcher.upcoming(1)) == (0, [])
    (new,) = desk.add(9_000)
    desk.dispatcher.paused = False
    desk.dispatcher.pump()
    assert desk.started == [[9_000]]
    assert new.state is CallState.RUNNING
