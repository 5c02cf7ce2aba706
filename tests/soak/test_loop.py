"""The loop is the user's: long work of ours is cut, and what is large is no one piece of it.

No times are asserted here; `make soak` measures them (docs/soak.md).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from tests.soak.functions import array, nap, short
from tests.soak.measuring import Watchdog, open_dashboard

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(60)]

N_CALLS = 1_000
SPIN_S = 0.0003
# A slice of work looks at the clock after every 16 calls and ends after 2.5 ms: with a callback
# that takes 0.3 ms it is one of 16 calls.
N_TURNS = N_CALLS // 16 // 2


def spin(*_: Any) -> None:
    until = time.perf_counter() + SPIN_S
    while time.perf_counter() < until:
        pass


async def test_a_flood_of_ends_is_taken_in_by_slices() -> None:
    scheduler = Scheduler.with_processes(2)
    scheduler.on_future_done(spin)
    run = scheduler.start(display=False)
    with open_dashboard(scheduler):
        await scheduler.submit(short, 1)
        async with Watchdog() as watchdog:
            n_before = watchdog.n_turns
            await scheduler.gather(scheduler.map(short, range(N_CALLS)))
            assert watchdog.n_turns - n_before >= N_TURNS
        scheduler.stop()
        await run


async def test_stopping_with_a_long_queue_is_done_by_slices() -> None:
    scheduler = Scheduler.with_processes(1)
    scheduler.on_future_cancelled(spin)
    run = scheduler.start(display=False)
    with open_dashboard(scheduler):
        await scheduler.submit(short, 1)
        busy = scheduler.submit(nap, 60)
        futures = scheduler.map(short, range(N_CALLS))
        async with Watchdog() as watchdog:
            n_before = watchdog.n_turns
            scheduler.stop(wait=False)
            assert await run == ExitCode.STOPPED
            assert watchdog.n_turns - n_before >= N_TURNS
        assert busy.cancelled()
        assert all(future.cancelled() for future in futures)


async def test_a_large_result_is_read_piece_by_piece() -> None:
    n_bytes = 64_000_000
    scheduler = Scheduler.with_processes(1)
    run = scheduler.start(display=False)
    await scheduler.submit(array, 8)
    n_turns = 0
    future = scheduler.submit(array, n_bytes)
    while not future.done():
        await asyncio.sleep(0)
        n_turns += 1
    assert (await future).nbytes == n_bytes
    assert n_turns >= n_bytes >> 20  # a pipe takes 1 MB at a time
    scheduler.stop()
    await run
