"""Memory is flat once the history is full: a hundred thousand calls cost as much as the last ones.

Short here; with AMLTK_NB_SOAK=1 it takes minutes. `make soak` also draws it (`tests.soak`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import Scheduler
from tests.soak.functions import failing, logging_, printing, short
from tests.soak.measuring import CountingComm, Memory, open_dashboard

pytestmark = [pytest.mark.may_block]

IS_LONG = bool(os.environ.get("AMLTK_NB_SOAK"))
N_CALLS = 250_000 if IS_LONG else 30_000  # twice
HISTORY = 10_000 if IS_LONG else 1_000
N_BEFORE = 30_000 if IS_LONG else 8_000
AT_ONCE = 1_000


async def burst(scheduler: Scheduler, fn: Callable[[int], Any], n_calls: int) -> None:
    """Run calls, some at a time, and drop their futures."""
    for first in range(0, n_calls, AT_ONCE):
        futures = scheduler.map(fn, range(first, min(n_calls, first + AT_ONCE)))
        await scheduler.gather(futures, return_exceptions=True)


async def growth(scheduler: Scheduler, fn: Callable[[int], Any], n_calls: int) -> list[Memory]:
    """Return what is held once the history is full, after so many calls, and after as many more."""
    run = scheduler.start(display=False, on_exception="continue")
    with open_dashboard(scheduler):
        await burst(scheduler, fn, N_BEFORE)
        held = [Memory.now(scheduler)]
        for _ in range(2):
            await burst(scheduler, fn, n_calls)
            if scheduler.journal is not None:
                scheduler.journal.flush()
            held.append(Memory.now(scheduler))
        n_bytes = CountingComm.n_bytes
    assert n_bytes > 0
    assert scheduler.history.counts.total() == N_BEFORE + 2 * n_calls
    assert len(scheduler.history) == HISTORY
    scheduler.stop()
    await run
    return held


def assert_flat(held: list[Memory], n_calls: int) -> None:
    """See that it grew in one of two equal parts at most: a leak does in both, chance does not."""

    def least(sizes: Iterable[int]) -> int:
        return min(after - before for before, after in pairwise(sizes))

    # One small object for each call would be three times as much, and 64 bytes each would show.
    assert least(memory.n_blocks for memory in held) < n_calls / 3
    assert least(memory.rss_bytes for memory in held) < 4_000_000 + 16 * n_calls
    for sizes in zip(*(memory.worker_rss_bytes for memory in held), strict=True):
        assert least(sizes) < 2_000_000 + 4 * n_calls


@pytest.mark.timeout(600 if IS_LONG else 60)
@pytest.mark.parametrize(
    ("fn", "n_calls"),
    [
        (short, N_CALLS),
        (failing, N_CALLS // 10),
        (printing, N_CALLS // 5),
        (logging_, N_CALLS // 5),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_memory_is_flat(fn: Callable[[int], Any], n_calls: int) -> None:
    scheduler = Scheduler.with_processes(2, history=HISTORY)
    held = await growth(scheduler, fn, n_calls)
    assert_flat(held, n_calls)


@pytest.mark.timeout(600 if IS_LONG else 60)
async def test_memory_is_flat_with_a_journal(tmp_path: Path) -> None:
    scheduler = Scheduler.with_processes(2, history=HISTORY, journal=tmp_path / "run.db")
    n_calls = N_CALLS // 3
    held = await growth(scheduler, short, n_calls)
    assert_flat(held, n_calls)
    assert scheduler.journal is not None
    assert scheduler.journal.last_id == N_BEFORE + 2 * n_calls
    scheduler.journal.close()


@pytest.mark.timeout(60)
async def test_memory_is_flat_on_threads() -> None:
    scheduler = Scheduler.with_threads(2, history=HISTORY)
    held = await growth(scheduler, short, N_CALLS // 3)
    assert_flat(held, N_CALLS // 3)


async def test_a_leak_of_one_small_object_for_each_call_would_be_seen() -> None:
    scheduler = Scheduler.with_processes(2, history=HISTORY)
    kept = []
    n_calls = N_CALLS // 3

    @scheduler.on_future_done(hidden=True)
    def leak(_: Any) -> None:
        kept.append(object())

    held = await growth(scheduler, short, n_calls)
    assert len(kept) == N_BEFORE + 2 * n_calls
    with pytest.raises(AssertionError):
        assert_flat(held, n_calls)
