"""A scheduler of ours, real to the last event, over workers that exist in simulated time only.

The scheduler, its queue, its dispatch and its events are the engine itself, with the doubles that
the package ships: a `ManualBackend` takes the calls and a `FakeClock` tells the time. Simulated is
what lies around it::

    scheduler ──hand-over, half of latency_s──► worker: length_s per call ──half of latency_s──┐
        ▲                                                                                      │
        └── one thread takes in answers, one after the other: message_s + call_s per call ◄────┘

The clock stands where that thread is: it moves on by what the thread spends, or to the next answer
if none waits. So workers wait while the thread is busy, which is what limits a real run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from time import perf_counter

from amltk_nb import ExitCode, Future, Scheduler
from amltk_nb.scheduling.call import Call
from amltk_nb.testing import FakeClock, ManualBackend

__all__ = ["Costs", "Seen", "Setting", "simulate"]

_STEADY = (0.2, 0.8)  # the part of all ends that counts: without the beginning and the last ones


@dataclass(frozen=True)
class Costs:
    """What a call costs besides its own work, seconds."""

    message_s: float  # of the thread that takes in answers, for each message
    call_s: float  # of the same thread, for each call in it
    latency_s: float  # there and back, while that thread is free for others


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    costs: Costs
    length_s: float  # of each call
    n_workers: int = 1_000
    n_calls: int = 20_000
    n_queued: int = 0  # how many are submitted at once, besides one for each place
    n_ahead: int = 0  # how many a worker is given besides the one that it runs
    batches: bool = False  # whether short calls travel together, as on processes


@dataclass(frozen=True)
class Seen:
    """What came of it; rates are those of the steady part."""

    elapsed_s: float  # simulated, from the first submission to the last result
    calls_per_s: float
    busy: float  # share of the workers' time that calls took
    batch_size: float  # calls per message, mean
    n_events: int  # that the engine emitted, all of them
    real_s: float

    def events_per_s(self, n_calls: int) -> float:
        """Return the rate of events, given how many calls there were."""
        return self.calls_per_s * self.n_events / n_calls


class _Workers(ManualBackend):
    """Has its hand-overs noted."""

    def __init__(self, n_places: int, *, batches: bool) -> None:
        super().__init__(n_places, batches=batches)
        self.handed_over: list[list[Call]] = []

    def start(self, calls: Sequence[Call]) -> None:
        super().start(calls)
        self.started.clear()  # a million lists that nobody reads
        self.handed_over.append(list(calls))


class _World:
    """The workers' side of a run, and the time that passes."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.clock = FakeClock()
        n_places = setting.n_workers * (1 + setting.n_ahead)
        self.backend = _Workers(n_places, batches=setting.batches)
        self.answers: list[tuple[float, int, list[Call]]] = []  # by arrival
        self.ends: list[tuple[float, int]] = []  # when a message's calls had ended, how many
        self._n_messages = 0
        self._free_at = [0.0] * setting.n_workers
        heapify(self._free_at)

    def hand_over(self) -> None:
        """Have the workers that are free first do what was handed over."""
        half_s = self.setting.costs.latency_s / 2
        for calls in self.backend.handed_over:
            begin = max(self.clock.now_s + half_s, self._free_at[0])
            end = begin + len(calls) * self.setting.length_s
            heapreplace(self._free_at, end)
            heappush(self.answers, (end + half_s, self._n_messages, calls))
            self._n_messages += 1
        self.backend.handed_over.clear()

    def take_in(self) -> int:
        """Let time pass until the next answer was taken in; returns how many calls it is of."""
        arrival, _, calls = heappop(self.answers)
        costs = self.setting.costs
        self.clock.advance(max(0.0, arrival - self.clock.now_s))
        self.clock.advance(costs.message_s + costs.call_s * len(calls))
        self.ends.append((self.clock.now_s, len(calls)))
        for call in calls:
            self.backend.finish(call, seconds=self.setting.length_s)
        return len(calls)


def nothing() -> None:
    """Stand for the work, which nobody does."""


def simulate(setting: Setting) -> Seen:
    """Run one setting to its end."""
    return asyncio.run(_simulated(setting))


async def _simulated(setting: Setting) -> Seen:
    began = perf_counter()
    world = _World(setting)
    scheduler = Scheduler(world.backend, clock=world.clock, history=1)
    task = scheduler.task(nothing)
    n_results = n_submitted = n_taken_in = 0

    @task.on_result
    def go_on(_: Future[None], __: None) -> None:
        nonlocal n_results, n_submitted
        n_results += 1
        if n_submitted < setting.n_calls:
            n_submitted += 1
            task.submit()

    run = scheduler.start(end_on_empty=True, display=False)
    n_submitted = min(setting.n_calls, world.backend.n_workers + setting.n_queued)
    for _ in range(n_submitted):
        task.submit()
    while n_taken_in < setting.n_calls:
        world.hand_over()
        n_taken_in += world.take_in()
        while n_results < n_taken_in:
            await asyncio.sleep(0)
    assert await run == ExitCode.EXHAUSTED
    n_events = sum(scheduler.event_counts.values()) + sum(task.event_counts.values())
    return _seen(setting, world.ends, n_events, perf_counter() - began)


def _seen(setting: Setting, ends: list[tuple[float, int]], n_events: int, real_s: float) -> Seen:
    first, last = (int(share * (len(ends) - 1)) for share in _STEADY)
    n_calls = sum(n for _, n in ends[first + 1 : last + 1])
    steady_s = ends[last][0] - ends[first][0]
    calls_per_s = n_calls / steady_s if steady_s else 0.0
    return Seen(
        elapsed_s=ends[-1][0],
        calls_per_s=calls_per_s,
        busy=calls_per_s * setting.length_s / setting.n_workers,
        batch_size=n_calls / max(1, last - first),
        n_events=n_events,
        real_s=real_s,
    )
