"""What the engine's tests share: turning the loop until something holds, and runs by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling.run import Run
from amltk_nb.testing import EventRecorder, FakeClock, ManualBackend

_MOST_TURNS = 5_000


async def turn_until(condition: Callable[[], Any]) -> None:
    """Let the loop turn until a condition holds; for work that is on the loop already."""
    for _ in range(_MOST_TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"still not so after {_MOST_TURNS} turns of the loop")


async def settled(n_turns: int = 10) -> None:
    """Let the loop deal with all that has been reported to it."""
    for _ in range(n_turns):
        await asyncio.sleep(0)


@dataclass
class ByHand:
    """A scheduler whose calls end by hand, and what is needed to steer and watch it."""

    scheduler: Scheduler
    backend: ManualBackend
    clock: FakeClock
    recorder: EventRecorder

    def start(self, **options: Any) -> Run:
        self.recorder.clear()
        return self.scheduler.start(**options)


@pytest.fixture
async def make_by_hand() -> AsyncIterator[Callable[..., ByHand]]:
    """Make schedulers over manual backends; runs that a test leaves open are ended."""
    made: list[Scheduler] = []

    def make(n_workers: int = 2, **options: Any) -> ByHand:
        ours = {k: options.pop(k) for k in ("cannot_end", "batches") if k in options}
        backend, clock = ManualBackend(n_workers, **ours), FakeClock(1_000.0)
        scheduler = Scheduler(backend, clock=clock, **options)
        made.append(scheduler)
        return ByHand(scheduler, backend, clock, EventRecorder(scheduler))

    yield make
    for scheduler in made:
        if scheduler.last_run is not None and not scheduler.last_run.done():
            scheduler.stop(wait=False)
            await scheduler.last_run.over()


@pytest.fixture
async def by_hand(make_by_hand: Callable[..., ByHand]) -> ByHand:
    """One of these with two workers."""
    return make_by_hand()
