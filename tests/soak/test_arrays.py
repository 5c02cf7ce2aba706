"""Large values come and go: what was given out is given back, dashboard and kept run or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling.buffers import copied, new_buffer
from amltk_nb.scheduling.run import Run
from tests.soak.functions import array, short, total
from tests.soak.measuring import Memory, open_dashboard

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(120)]

IS_LONG = bool(os.environ.get("AMLTK_NB_SOAK"))
N_CALLS = 20 if IS_LONG else 8
N_BYTES = 200_000_000 if IS_LONG else 64_000_000
KEPT_BYTES = 256_000_000  # of arguments, by which calls can be run again
NOISE_BYTES = 24_000_000

MAKERS: dict[str, Callable[[], Scheduler]] = {
    "processes": lambda: Scheduler.with_processes(1),
    "threads": lambda: Scheduler.with_threads(1),
}


@pytest.fixture
def kept() -> Iterator[list[Run]]:
    """Keep runs alive to the end of a test."""
    runs: list[Run] = []
    yield runs
    assert all(run.done() for run in runs)


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "unseen"])
@pytest.mark.parametrize("engine", MAKERS)
async def test_results_go_with_their_futures(engine: str, shown: bool, kept: list[Run]) -> None:
    scheduler = MAKERS[engine]()
    kept.append(run := scheduler.start(display=False))
    with ExitStack() as stack:
        if shown:
            stack.enter_context(open_dashboard(scheduler))
        assert await scheduler.submit(total, await scheduler.submit(array, 8_000)) == 1_000
        before = Memory.now(scheduler)
        for _ in range(N_CALLS):
            assert (await scheduler.submit(array, N_BYTES)).nbytes == N_BYTES
        await scheduler.submit(short, 1)
        after = Memory.now(scheduler)
        assert after.rss_bytes - before.rss_bytes < NOISE_BYTES
        for old, new in zip(before.worker_rss_bytes, after.worker_rss_bytes, strict=True):
            assert new - old < NOISE_BYTES
    scheduler.stop()
    await run


@pytest.mark.parametrize("engine", MAKERS)
async def test_arguments_are_kept_up_to_a_bound(engine: str, kept: list[Run]) -> None:
    scheduler = MAKERS[engine]()
    kept.append(run := scheduler.start(display=False))
    with open_dashboard(scheduler):
        await scheduler.submit(total, array(8_000))
        before = Memory.now(scheduler)
        calls = []
        for _ in range(N_CALLS):
            future = scheduler.submit(total, array(N_BYTES))
            assert await future == N_BYTES / 8
            calls.append(future.call)
        del future
        await scheduler.submit(short, 1)  # whose message takes the place of the last large one
        after = Memory.now(scheduler)
        n_kept = KEPT_BYTES // N_BYTES
        assert [call.arguments_gone for call in calls[-n_kept - 1 :]] == [True] + [False] * n_kept
        assert after.rss_bytes - before.rss_bytes < n_kept * N_BYTES + NOISE_BYTES
        for old, new in zip(before.worker_rss_bytes, after.worker_rss_bytes, strict=True):
            assert new - old < NOISE_BYTES
    scheduler.stop()
    await run


async def test_a_worker_holds_on_to_no_arguments_while_it_waits() -> None:
    scheduler = Scheduler.with_processes(1)
    run = scheduler.start(display=False)
    await scheduler.submit(total, array(8_000))
    (before,) = Memory.now(scheduler).worker_rss_bytes
    await scheduler.submit(total, array(N_BYTES))
    # Its results come just before it lets go: the end of a second one's way shows that it has.
    for _ in range(100):
        (after,) = Memory.now(scheduler).worker_rss_bytes
        if after - before < NOISE_BYTES:
            break
    assert after - before < NOISE_BYTES
    scheduler.stop()
    await run


@pytest.mark.parametrize("n_bytes", [0, 1, (1 << 22) - 1, 1 << 22, 50_000_001])
def test_memory_that_is_not_touched_before_it_is_filled(n_bytes: int) -> None:
    before = Memory.now()
    buffer = new_buffer(n_bytes)
    assert Memory.now().rss_bytes - before.rss_bytes < 8_000_000
    assert len(buffer) == n_bytes
    assert bytes(buffer[:1000]) == bytes(min(n_bytes, 1000))
    data = bytes(range(256)) * (n_bytes // 256 + 1)
    copy = copied(memoryview(data)[:n_bytes])
    assert memoryview(copy) == memoryview(data)[:n_bytes]
    if n_bytes:
        copy[-1] = 7  # arrays made over it can be written to
        assert copy[-1] == 7
