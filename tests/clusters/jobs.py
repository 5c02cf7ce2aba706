"""What every batch system owes a scheduler; a subclass per system says how to start it.

Nothing of what a batch system or Dask claims is taken for proof where a mark in a file can be.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import BackendLostError, BackendStartError, WorkerDiedError
from tests.clusters.daemons import BatchSystem
from tests.clusters.functions import job_number, mark, mark_and_wait
from tests.clusters.waiting import until
from tests.executors.contract import (
    LONG_S,
    Contract,
    Gate,
    OutOfLuck,
    bad_luck,
    child_pids,
    own_threads,
    square,
)

__all__ = ["BatchContract", "is_wanted", "made", "seen_waiting", "started"]

is_wanted = pytest.mark.skipif(
    not os.environ.get("AMLTK_NB_WHOLE_CONTRACT"), reason="a part of make test-clusters"
)


def made(key: str, folder: Path, n_workers: int = 2, **options: Any) -> Scheduler:
    """Make a scheduler of jobs that leave their files in a folder."""
    order = {
        "cores": 1,
        "memory": "500 MB",
        "walltime": "00:10:00",
        "interface": "lo",
        "log_directory": str(folder),
        "local_directory": str(folder),
    }
    wanted = {name: x for name, x in {**order, **options}.items() if x is not None}
    # Upstream looks at the log folder when a job is described: the time of a user's cell, which
    # the check for a blocked loop would not let pass.
    with ThreadPoolExecutor(1) as aside:
        make = getattr(Scheduler, f"with_{key}")
        scheduler: Scheduler = aside.submit(make, n_workers, **wanted).result()
        return scheduler


def started(marks: Path) -> dict[str, tuple[str, int]]:
    """The job and process of each call that began; one that began twice is a failure."""
    lines = [line.split() for line in marks.read_text().splitlines()]
    assert len({text for text, _, _ in lines}) == len(lines)
    return {text: (job, int(pid)) for text, job, pid in lines}


def seen_waiting(scheduler: Scheduler) -> int | None:
    """How many jobs wait in the batch queue, as the views show it."""
    return scheduler.snapshot().backend.n_jobs_waiting


def is_gone(pid: int) -> bool:
    """Whether a process runs no more; what nobody has buried yet does not run."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pids_under(pids: Sequence[int]) -> set[int]:
    """Processes that these have started."""
    under = [psutil.Process(pid).children(recursive=True) for pid in pids]
    return {process.pid for processes in under for process in processes}


class BatchContract(Contract):
    """Besides what every executor owes: jobs that are lost, refused, killed or never come."""

    can_end = True
    system_class: ClassVar[type[BatchSystem]]
    options: ClassVar[dict[str, Any]] = {}  # of the orders to this system
    refused: ClassVar[dict[str, Any]]  # of an order that it does not take …
    refusal: ClassVar[str]  # … and what it says then
    never: ClassVar[str | None] = None  # submits jobs that never begin; None: it knows no way

    @pytest.fixture(autouse=True)
    def system(
        self, lent: Callable[[type[BatchSystem]], BatchSystem], tmp_path: Path
    ) -> BatchSystem:
        self._folder = tmp_path
        return lent(self.system_class)

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        # Events are counted to the last one, and how long a first job takes is not of interest.
        yield self.made(no_workers_after=300)

    def made(self, n_workers: int = 2, **options: Any) -> Scheduler:
        return made(self.system_class.key, self._folder, n_workers, **{**self.options, **options})

    def is_empty(self, system: BatchSystem) -> None:
        until(
            lambda: system.jobs() == {},
            lambda: f"no job is left, but {system.jobs()}",
            limit_s=system.lingers_s,
        )

    async def test_calls_run_in_jobs_and_nothing_is_left(self, system: BatchSystem):
        scheduler = self.made()
        factor = 3
        run = scheduler.start()
        answers = await scheduler.gather(
            scheduler.map(lambda n: (n * factor, job_number(), os.getpid()), range(20))
        )
        assert [n for n, _, _ in answers] == [3 * n for n in range(20)]
        jobs = system.jobs()
        assert {job for _, job, _ in answers} <= set(jobs)
        assert sorted(jobs.values()) == ["running", "running"]
        failed = scheduler.submit(bad_luck, 7)
        with pytest.raises(OutOfLuck, match="7"):
            await failed
        factor = 5  # an edited global is what the next call sees
        assert await scheduler.submit(lambda: factor) == 5
        scheduler.stop()
        assert await asyncio.wait_for(run, LONG_S) == ExitCode.STOPPED
        self.is_empty(system)
        pids = {pid for _, _, pid in answers}
        until(lambda: all(map(is_gone, pids)), "the workers are gone")

    def test_nothing_is_left_behind(self, system: BatchSystem):
        """As in the contract, but that the system's own daemons have children as they like."""
        threads, children = own_threads(), set[int]()
        for n in range(3):
            with self.open() as scheduler:
                scheduler.on_start(partial(scheduler.map, square, range(20)))
                assert scheduler.run() == ExitCode.EXHAUSTED
            self.is_empty(system)
            if n == 0:
                children = child_pids()
        assert own_threads() <= threads
        assert child_pids() - pids_under(system.pids()) <= children

    async def test_one_call_is_ended_and_one_that_waits_never_runs(
        self, system: BatchSystem, gate: Gate
    ):
        marks = self._folder / "marks"
        scheduler = self.made()
        run = scheduler.start(end_on_empty=True)
        victim, other = (scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "vo")
        await gate.arrived(2)
        queued = scheduler.submit(mark, str(marks), "q")
        assert queued.cancel()
        assert scheduler.cancel(victim)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(victim, LONG_S)
        _, pid = started(marks)["v"]
        until(lambda: is_gone(pid), "the body is gone")
        after = scheduler.submit(mark, str(marks), "a")  # on the worker that took its place
        assert await asyncio.wait_for(after, LONG_S) == "a"
        assert not other.done()
        gate.open()
        assert await asyncio.wait_for(other, LONG_S) == "o"
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
        assert set(started(marks)) == {"v", "o", "a"}

    async def test_a_worker_that_is_killed_costs_its_call_only(
        self, system: BatchSystem, gate: Gate
    ):
        marks = self._folder / "marks"
        scheduler = self.made()
        run = scheduler.start(end_on_empty=True)
        victim, other = (scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "vo")
        await gate.arrived(2)
        os.kill(started(marks)["v"][1], signal.SIGKILL)
        with pytest.raises(WorkerDiedError):
            await asyncio.wait_for(victim, LONG_S)
        after = scheduler.submit(mark_and_wait, str(marks), gate.path, "a")
        await gate.arrived(3)
        assert len({pid for _, pid in started(marks).values()}) == 3
        gate.open()
        assert await scheduler.gather([other, after]) == ["o", "a"]
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED

    async def test_a_job_that_is_cancelled_from_outside_is_replaced(
        self, system: BatchSystem, gate: Gate
    ):
        marks = self._folder / "marks"
        scheduler = self.made()
        run = scheduler.start(end_on_empty=True)
        victim, other = (scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "vo")
        await gate.arrived(2)
        job, _ = started(marks)["v"]
        system.cancel(job)
        with pytest.raises(WorkerDiedError):
            await asyncio.wait_for(victim, LONG_S)
        late = scheduler.submit(mark_and_wait, str(marks), gate.path, "l")
        await gate.arrived(3)  # while `other` still holds the worker that is left
        assert len({*started(marks).values()}) == 3
        assert started(marks)["l"][0] not in (job, started(marks)["o"][0])
        gate.open()
        assert await asyncio.wait_for(other, LONG_S) == "o"
        assert await asyncio.wait_for(late, LONG_S) == "l"
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
        (told,) = [line.text for line in scheduler.snapshot().log if job in line.text]
        assert re.fullmatch(
            rf"job {job}\S* of .* is gone, with its worker; another one is submitted", told
        )

    async def test_calls_behind_one_that_is_lost_run_elsewhere_and_once(
        self, system: BatchSystem, gate: Gate
    ):
        marks = self._folder / "marks"
        scheduler = self.made(n_ahead=3)
        run = scheduler.start()
        await asyncio.to_thread(until, lambda: scheduler.backend.n_workers == 2, "both are there")
        victim, other = (scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "vo")
        await gate.arrived(2)
        behind = [scheduler.submit(mark, str(marks), f"b{n}") for n in range(6)]
        system.cancel(started(marks)["v"][0])
        with pytest.raises(WorkerDiedError):
            await asyncio.wait_for(victim, LONG_S)
        gate.open()
        answers = await asyncio.wait_for(scheduler.gather([other, *behind]), LONG_S)
        assert answers == ["o", *(f"b{n}" for n in range(6))]
        assert set(started(marks)) == {"v", *answers}  # which looks that none began twice
        run.stop()
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED

    async def test_all_jobs_are_cancelled_and_come_again(self, system: BatchSystem, gate: Gate):
        marks = self._folder / "marks"
        alone: list[float] = []
        scheduler = self.made(no_workers_after=0.2)
        scheduler.on_no_workers(alone.append)
        run = scheduler.start()
        victims = [scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "ab"]
        await gate.arrived(2)
        jobs = {job for job, _ in started(marks).values()}
        alone.clear()  # the wait for the first ones is told too
        for job in jobs:
            system.cancel(job)
        ends = await asyncio.wait_for(scheduler.gather(victims, return_exceptions=True), LONG_S)
        assert [type(end) for end in ends] == [WorkerDiedError, WorkerDiedError]
        assert await asyncio.wait_for(scheduler.submit(mark, str(marks), "c"), LONG_S) == "c"
        assert started(marks)["c"][0] not in jobs
        assert alone
        run.stop()
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED

    async def test_a_refused_submission_says_what_was_answered(self, system: BatchSystem):
        scheduler = self.made(**self.refused)
        run = scheduler.start(end_on_empty=True, on_exception="raise")
        future = scheduler.submit(square, 3)
        with pytest.raises(BackendStartError) as caught:
            await asyncio.wait_for(run.wait(), LONG_S)
        assert re.search(r"refused the job: `.*` failed \(\d+\) and printed: ", str(caught.value))
        assert self.refusal in str(caught.value)
        assert "scheduler.job_script()" in str(caught.value)
        assert future.cancelled()
        self.is_empty(system)

    async def test_jobs_that_end_at_once_end_the_run_with_a_reason(self, system: BatchSystem):
        scheduler = self.made(1, python="/nowhere/python")
        run = scheduler.start(end_on_empty=True, on_exception="raise")
        scheduler.submit(square, 3)
        with pytest.raises(BackendLostError) as caught:
            await asyncio.wait_for(run.wait(), 2 * LONG_S)
        assert "3 jobs in a row came to nothing" in str(caught.value)
        assert f"what they said is in {self._folder}" in str(caught.value)
        said = [path.read_text() for path in self._folder.iterdir() if path.is_file()]
        assert any("/nowhere/python" in text for text in said)

    async def test_nobody_comes_in_time(self, system: BatchSystem):
        if self.never is None:
            pytest.skip("this system is not asked to hold a job back")
        scheduler = self.made(1, start_timeout=1.5, submit_command=self.never)
        run = scheduler.start(end_on_empty=True, on_exception="raise")
        scheduler.submit(square, 3)
        has = r"within start_timeout=1\.5 s\. .* has the jobs: [\d.]+ waits \(`\d+ .+`\)\."
        with pytest.raises(BackendLostError, match=has):
            await asyncio.wait_for(run.wait(), LONG_S)
        self.is_empty(system)

    async def test_stop_now_ends_what_runs(self, system: BatchSystem, gate: Gate):
        marks = self._folder / "marks"
        scheduler = self.made()
        run = scheduler.start()
        futures = [scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "ab"]
        await gate.arrived(2)
        scheduler.stop(wait=False)
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
        assert all(future.cancelled() for future in futures)
        pids = [pid for _, pid in started(marks).values()]
        until(lambda: all(map(is_gone, pids)), "both bodies are gone")
        self.is_empty(system)

    async def test_adaptive_workers_come_with_the_work(self, system: BatchSystem, gate: Gate):
        marks = self._folder / "marks"
        scheduler = self.made(adaptive=True)
        run = scheduler.start()
        await asyncio.to_thread(until, lambda: seen_waiting(scheduler) == 0, "it is connected")
        assert system.jobs() == {}
        futures = [scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "ab"]
        await gate.arrived(2)
        assert len({job for job, _ in started(marks).values()}) == 2
        gate.open()
        assert await scheduler.gather(futures) == ["a", "b"]
        run.stop()
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
        self.is_empty(system)
