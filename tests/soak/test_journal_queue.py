"""A disk slower than the calls: what waits to be written is bounded, and nothing is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling import journal_file
from amltk_nb.scheduling.journal import Journal

pytestmark = [pytest.mark.may_block, pytest.mark.timeout(60)]

N_BEHIND, N_CALLS = 500, 3_000


@pytest.fixture
def few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "_MOST_BEHIND", N_BEHIND)
    monkeypatch.setattr(journal_file, "_MOST_BEHIND_BYTES", 4_000_000)


async def held_up(scheduler: Scheduler) -> None:
    """Turn the loop until nothing runs although calls wait."""
    run = scheduler.last_run
    assert run is not None
    while run.traffic.dispatch.n_running or not scheduler.history.counts.total():
        await asyncio.sleep(0)


def two(n: int) -> int:
    return 2 * n


def two_megabytes(n: int) -> bytes:
    return bytes([n]) * 2_000_000


@pytest.mark.usefixtures("few_may_wait")
async def test_ends_that_wait_for_the_disk_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    scheduler = Scheduler.with_processes(2, journal=path)
    run = scheduler.start(end_on_empty=True)
    assert scheduler.journal is not None
    with scheduler.journal._file._lock:  # the disk takes nothing; what is put waits
        futures = scheduler.map(two, range(N_CALLS))
        await held_up(scheduler)
        n_ended = sum(future.done() for future in futures)
        # Each of two workers has one message of results under way when the bound is reached.
        assert N_BEHIND <= n_ended <= N_BEHIND + 2 * 250
        assert run.traffic.dispatch.n_queued == N_CALLS - n_ended
    assert await scheduler.gather(futures) == [2 * n for n in range(N_CALLS)]
    await run
    scheduler.journal.close()
    assert len(Journal(path).records("done")) == N_CALLS


@pytest.mark.usefixtures("few_may_wait")
async def test_large_results_that_wait_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    scheduler = Scheduler.with_processes(2, journal=tmp_path / "run.db")
    run = scheduler.start(end_on_empty=True)
    assert scheduler.journal is not None
    with scheduler.journal._file._lock:
        futures = scheduler.map(two_megabytes, range(12))
        file, begun = scheduler.journal._file, []
        # They are told of when they are written: ended for their workers, not for the run.
        while not (file.is_behind() and file._n_behind == len(begun)):
            await asyncio.sleep(0)
            begun = [future for future in futures if future.call.started_at is not None]
        assert 2 <= len(begun) <= 2 + 2  # each worker may have begun one more
        assert not any(future.done() for future in futures)
    assert [len(value) for value in await scheduler.gather(futures)] == [2_000_000] * 12
    await run
