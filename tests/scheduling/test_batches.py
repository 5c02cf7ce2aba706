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


class Simulation:
    """Workers that take their calls' durations of simulated time, one call after the other."""

    def __init__(self, durations_s: Sequence[float], n_workers: int) -> None:
        self.now_s = 0.0
        self.durations_s = durations_s
        self.n_workers = n_workers
        self.backend = ManualBackend(n_workers, batches=True)
        self.backend.open(self)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(self.backend, batching=True, clock=lambda: self.now_s)
        self.calls = [Call(n, work, (), {}) for n in range(len(durations_s))]
        self.ends: list[tuple[float, int]] = []  # of the call that each worker runs now
        self.n_begun_batches = 0
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
        self._begin_batches()
        while self.ends:
            self.now_s, number = heapq.heappop(self.ends)
            call = self.calls[number]
            behind = self._behind(call)
            self.backend.finish(call, seconds=self.durations_s[number])
            self.ended_in.append(number)
            if behind is not None:
                self._begin(behind)
            self._begin_batches()

    def _behind(self, call: Call) -> Call | None:
        same = [other for other in self.backend.calls if other.worker == call.worker]
        return same[1] if len(same) > 1 else None

    def _begin(self, call: Call) -> None:
        heapq.heappush(self.ends, (self.now_s + self.durations_s[call.id], call.id))

    def _begin_batches(self) -> None:
        n_queued = len(self.calls) - sum(map(len, self.backend.started[: self.n_begun_batches]))
        for batch in self.backend.started[self.n_begun_batches :]:
            # Its share: what leaves as much for every worker, and once more for its own next one.
            assert len(batch) <= max(1, n_queued // (2 * self.n_workers)), (batch, n_queued)
            n_queued -= len(batch)
            self._begin(self.calls[batch[0]])
        self.n_begun_batches = len(self.backend.started)
        idle = self.backend.slots()
        assert not (idle and self.dispatcher.n_queued), "a worker is idle while calls wait"

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
    started = [number for batch in simulation.batches for number in batch]
    assert started == list(range(len(durations_s)))  # each once, in order
    assert sorted(simulation.ended_in) == started


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


@pytest.mark.parametrize("n_short", [10, 50, 51, 200])
def test_short_and_long_calls_of_one_sort_keep_workers_busy(n_short: int):
    """Two workers are done within 5 % of the best, and half of the last long call."""
    durations_s = ([0.001] * n_short + [0.5]) * 8
    simulation = Simulation(durations_s, 2)
    simulation.run()
    ideal_s = sum(durations_s) / 2
    assert simulation.now_s <= 1.05 * ideal_s + 0.5 / 2
