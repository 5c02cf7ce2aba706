"""Batches over any order of durations: workers are never idle while another holds a pile.

The dispatcher decides over a backend whose workers live in simulated time, so that thousands of
runs take no time and every moment of them can be looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.dispatch import Dispatcher
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import ManualBackend


def work() -> None: ...


LATE_S = 0.04
TICK_S = 0.01


class Workers(ManualBackend):
    """Gives back what has not begun, as worker processes do."""

    def __init__(self, simulation: Simulation, n_workers: int) -> None:
        super().__init__(n_workers, batches=True)
        self.simulation = simulation

    def start(self, calls: Sequence[Call]) -> None:
        n_queued = self.simulation.dispatcher.n_queued + len(calls)
        # Its share: what leaves as much for every worker, and once more for its own next one.
        assert len(calls) <= max(1, n_queued // (2 * self.n_workers)), (len(calls), n_queued)
        super().start(calls)
        self.simulation.begin(calls[0])
        self.simulation.sent_at[calls[0].worker] = self.simulation.now_s

    def reclaim(self) -> list[Call]:
        return [self._taken(call) for call in self.late()]

    def late(self) -> list[Call]:
        now_s, sent_at = self.simulation.now_s, self.simulation.sent_at
        batches = [
            batch[1:] for name, batch in self._batches.items() if now_s - sent_at[name] > LATE_S
        ]
        return [call for batch in batches for call in batch]


class Simulation:
    """Workers that take their calls' durations of simulated time, one call after the other."""

    def __init__(self, durations_s: Sequence[float], n_workers: int) -> None:
        self.now_s = 0.0
        self.durations_s = durations_s
        self.backend = Workers(self, n_workers)
        self.backend.open(self)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(self.backend, batching=True, clock=lambda: self.now_s)
        self.calls = [Call(n, work, (), {}) for n in range(len(durations_s))]
        self.ends: list[tuple[float, int]] = []  # of the call that each worker runs now
        self.sent_at: dict[str | None, float] = {}
        self.ended_in: list[int] = []

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            outcome.call.move(CallState.DONE)
        self.dispatcher.measured(outcomes)
        self.dispatcher.pump()

    def run(self) -> None:
        self.dispatcher.paused = True
        for call in self.calls:
            self.dispatcher.add(call)
        self.dispatcher.paused = False
        self.dispatcher.pump()
        next_tick_s = TICK_S
        while self.ends:
            is_idle = self.backend.slots() > 0
            assert not (is_idle and self.dispatcher.n_queued), "a worker is idle while calls wait"
            if is_idle and next_tick_s < self.ends[0][0]:
                self.now_s, next_tick_s = next_tick_s, next_tick_s + TICK_S
                self.dispatcher.pump()
                assert not (self.backend.slots() and self.backend.late()), "idle beside a pile"
                next_tick_s = next_tick_s if self._has_pile() else self.ends[0][0] + TICK_S
            else:
                self._end_next()
                next_tick_s = self.now_s + TICK_S

    def _has_pile(self) -> bool:
        return any(len(batch) > 1 for batch in self.backend._batches.values())

    def _end_next(self) -> None:
        self.now_s, number = heapq.heappop(self.ends)
        call = self.calls[number]
        behind = self._behind(call)
        self.ended_in.append(number)
        if behind is not None:
            self.begin(behind)
        self.backend.finish(call, seconds=self.durations_s[number])

    def _behind(self, call: Call) -> Call | None:
        same = [other for other in self.backend.calls if other.worker == call.worker]
        return same[1] if len(same) > 1 else None

    def begin(self, call: Call) -> None:
        heapq.heappush(self.ends, (self.now_s + self.durations_s[call.id], call.id))

    @property
    def batches(self) -> list[list[int]]:
        return self.backend.started


durations = st.lists(
    st.sampled_from([0.0, 1e-5, 1e-3, 0.004, 0.019, 0.021, 0.5, 30.0]), min_size=1, max_size=120
)


@settings(max_examples=150, deadline=None)
@given(durations, st.integers(1, 6))
@example([1e-5] * 119 + [30.0], 2)
@example([30.0] + [1e-5] * 119, 2)
def test_no_order_of_durations_leaves_a_worker_idle_beside_a_pile(
    durations_s: list[float], n_workers: int
):
    simulation = Simulation(durations_s, n_workers)
    simulation.run()  # looks at every moment
    first_started = list(dict.fromkeys(n for batch in simulation.batches for n in batch))
    assert first_started == list(range(len(durations_s)))  # in order
    assert sorted(simulation.ended_in) == first_started  # each once


@settings(max_examples=100, deadline=None)
@given(durations, st.integers(1, 6))
@example([1e-5] * 120, 1)
def test_after_a_long_call_the_next_ones_travel_alone(durations_s: list[float], n_workers: int):
    simulation = Simulation(durations_s, n_workers)
    for number, call in enumerate(simulation.calls):
        call.fn = work if number else print  # the first is of another sort: it teaches nothing
    simulation.dispatcher.measured([Outcome(Call(-1, work, (), {}), seconds=30.0)])
    simulation.run()
    # The estimate falls by a tenth with each short call: 30 s are above 20 ms for 69 of them.
    assert [len(batch) for batch in simulation.batches[:69]] == [1] * len(simulation.batches[:69])


def test_what_waits_behind_an_unexpectedly_long_call_goes_to_idle_workers():
    simulation = Simulation([1e-5] * 100 + [0.5] * 20, 2)
    simulation.run()
    assert simulation.now_s <= 20 * 0.5 / 2 + 0.5 / 2 + 0.1


@pytest.mark.parametrize("n_short", [10, 50, 51, 200])
def test_short_and_long_calls_of_one_sort_keep_workers_busy(n_short: int):
    """Two workers are done within 5 % of the best, and half of the last long call."""
    durations_s = ([0.001] * n_short + [0.5]) * 8
    simulation = Simulation(durations_s, 2)
    simulation.run()
    ideal_s = sum(durations_s) / 2
    assert simulation.now_s <= 1.05 * ideal_s + 0.5 / 2
