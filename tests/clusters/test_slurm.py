"""Calls in jobs of a real Slurm: the contract, and what can happen to jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import BackendLostError, BackendStartError, WorkerDiedError
from tests.clusters.slurm import Slurm
from tests.clusters.waiting import until
from tests.executors.contract import LONG_S, Contract, Gate, square, wait_at

LIMIT_S = 300  # for the first one, which may have to install Slurm; all others need some seconds
pytestmark = pytest.mark.timeout(LIMIT_S)


def made(key: str, folder: Path, n_workers: int = 2, **options: Any) -> Scheduler:
    order = {
        "cores": 1,
        "memory": "500 MB",
        "walltime": "00:10:00",
        "interface": "lo",
        "log_directory": str(folder),
        "local_directory": str(folder),
    }
    # Upstream looks at the log folder when a job is described: the time of a user's cell, which
    # the check for a blocked loop would not let pass.
    with ThreadPoolExecutor(1) as aside:
        make = getattr(Scheduler, f"with_{key}")
        scheduler: Scheduler = aside.submit(make, n_workers, **{**order, **options}).result()
        return scheduler


def on_slurm(folder: Path, n_workers: int = 2, **options: Any) -> Scheduler:
    return made("slurm", folder, n_workers, **options)


def mark_and_wait(marks: str, gate: str, text: str) -> str:
    """Leave a line with the job and the process, then wait to be let go."""
    with open(marks, "a") as file:
        file.write(f"{text} {os.environ['SLURM_JOB_ID']} {os.getpid()}\n")
    return wait_at(gate, text)


def started(marks: Path) -> dict[str, tuple[str, int]]:
    """The job and process of each call that began; one that began twice is a failure."""
    lines = [line.split() for line in marks.read_text().splitlines()]
    assert len({text for text, _, _ in lines}) == len(lines)
    return {text: (job, int(pid)) for text, job, pid in lines}


def job_of(_: Any = None) -> str:
    return os.environ["SLURM_JOB_ID"]


@pytest.mark.usefixtures("slurm")
class TestSlurm(Contract):
    can_end = True

    if not os.environ.get("AMLTK_NB_WHOLE_CONTRACT"):
        # Each takes some seconds to have its jobs started and says no more of jobs than the
        # others here, and the Dask tests run all of them; `make test-clusters` does for jobs.
        test_results_with_all_kinds_of_arguments = None
        test_errors_keep_their_type_and_state = None
        test_coroutine_functions_run_to_their_end = None
        test_short_calls_do_not_wait_behind_a_long_one = None
        test_stop_lets_running_calls_finish = None
        test_stop_now_ends_or_abandons_running_calls = None
        test_the_same_scheduler_runs_three_times = None
        test_nothing_is_left_behind = None

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self._folder = tmp_path

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield on_slurm(self._folder)


async def test_calls_run_in_jobs_and_nothing_is_left(slurm: Slurm, tmp_path: Path):
    factor = 3
    scheduler = on_slurm(tmp_path)
    run = scheduler.start()
    answers = await scheduler.gather(
        scheduler.map(lambda n: (n * factor, os.environ["SLURM_JOB_ID"], os.getpid()), range(20))
    )
    assert [n for n, _, _ in answers] == [3 * n for n in range(20)]
    jobs = slurm.jobs()
    assert {job for _, job, _ in answers} <= set(jobs)
    assert sorted(jobs.values()) == ["RUNNING", "RUNNING"]
    assert "tcp://127.0.0.1:" in scheduler.job_script()  # where the workers found us
    scheduler.stop()
    assert await run == ExitCode.STOPPED
    assert slurm.jobs() == {}
    pids = {pid for _, _, pid in answers}
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the workers are gone")


async def test_a_refused_submission_says_what_slurm_answered(slurm: Slurm, tmp_path: Path):
    scheduler = on_slurm(tmp_path, queue="nowhere")
    run = scheduler.start(end_on_empty=True, on_exception="raise")
    future = scheduler.submit(square, 3)
    with pytest.raises(BackendStartError) as caught:
        await asyncio.wait_for(run.wait(), LONG_S)
    for words in (
        "Slurm refused the job: `sbatch SCRIPT` failed (1) and printed: ",
        "sbatch: error: invalid partition specified: nowhere",
        "scheduler.job_script()",
        "queue=",
    ):
        assert words in str(caught.value)
    assert future.cancelled()
    assert slurm.jobs() == {}


async def test_a_submit_command_that_is_not_there(slurm: Slurm, tmp_path: Path):
    scheduler = on_slurm(tmp_path, submit_command="sbatsch --extra")
    run = scheduler.start(end_on_empty=True, on_exception="raise")
    scheduler.submit(square, 3)
    with pytest.raises(
        BackendStartError,
        match=r"`sbatsch --extra SCRIPT` cannot be run: .*No such file or directory",
    ):
        await asyncio.wait_for(run.wait(), LONG_S)


async def test_flags_of_the_submit_command_reach_slurm(slurm: Slurm, tmp_path: Path):
    scheduler = on_slurm(tmp_path, 1, submit_command="sbatch --comment=ours --nice=7")
    run = scheduler.start()
    job = await scheduler.submit(job_of)
    assert slurm.ask("squeue", "-h", "-j", job, "-o", "%k").strip() == "ours"
    run.stop()
    await run


async def test_a_job_that_is_cancelled_from_outside_is_replaced(
    slurm: Slurm, tmp_path: Path, gate: Gate
):
    marks = tmp_path / "marks"
    scheduler = on_slurm(tmp_path)
    run = scheduler.start(end_on_empty=True)
    victim, other = (scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "vo")
    await gate.arrived(2)
    job, _ = started(marks)["v"]
    slurm.ask("scancel", job)
    with pytest.raises(WorkerDiedError):
        await asyncio.wait_for(victim, LONG_S)
    late = [scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "l"]
    await gate.arrived(3)  # while `other` still holds the worker that is left
    assert len({*started(marks).values()}) == 3
    assert started(marks)["l"][0] not in (job, started(marks)["o"][0])
    gate.open()
    assert await asyncio.wait_for(other, LONG_S) == "o"
    assert await asyncio.wait_for(late[0], LONG_S) == "l"
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
    (told,) = [line.text for line in scheduler.snapshot().log if job in line.text]
    assert told == f"job {job} of Slurm is gone, with its worker; another one is submitted"


async def test_a_job_that_is_cancelled_in_the_queue_is_replaced(slurm: Slurm, tmp_path: Path):
    told: list[float] = []
    scheduler = on_slurm(
        tmp_path, 1, no_workers_after=0.2, submit_command="sbatch --begin=now+1hour"
    )
    scheduler.on_no_workers(told.append)
    run = scheduler.start()
    future = scheduler.submit(job_of)
    await asyncio.to_thread(until, lambda: len(slurm.jobs()) == 1, "a job waits")
    (first,) = slurm.jobs()
    await asyncio.to_thread(until, lambda: seen_waiting(scheduler) == 1, "it is counted")
    assert scheduler.snapshot().backend.waiting_for == "workers of SLURMCluster"
    slurm.ask("scancel", first)
    await asyncio.to_thread(until, lambda: set(slurm.jobs()) - {first}, "another one waits")
    (second,) = slurm.jobs()
    slurm.ask("scontrol", "update", f"JobId={second}", "StartTime=now")
    assert await asyncio.wait_for(future, LONG_S) == second
    assert seen_waiting(scheduler) == 0
    assert told
    assert told[0] >= 0.2
    assert told == sorted(told)
    run.stop()
    await run


def seen_waiting(scheduler: Scheduler) -> int | None:
    return scheduler.snapshot().backend.n_jobs_waiting


async def test_jobs_that_end_at_once_end_the_run_with_a_reason(slurm: Slurm, tmp_path: Path):
    scheduler = on_slurm(tmp_path, 1, python="/nowhere/python")
    run = scheduler.start(end_on_empty=True, on_exception="raise")
    scheduler.submit(square, 3)
    with pytest.raises(BackendLostError) as caught:
        await asyncio.wait_for(run.wait(), LONG_S)
    assert "3 jobs in a row came to nothing" in str(caught.value)
    assert f"what they said is in {tmp_path}" in str(caught.value)
    assert "/nowhere/python" in next(tmp_path.glob("*.err")).read_text()


async def test_a_limit_of_the_site_leaves_the_jobs_it_allows(slurm: Slurm, tmp_path: Path):
    sbatch = tmp_path / "sbatch-one"  # takes one job only, as a site's limit does
    sbatch.write_text(
        f'#!/bin/sh\nmkdir {tmp_path}/taken 2>/dev/null || {{ echo "limit: 1 job" >&2; exit 1; }}\n'
        'exec sbatch "$@"\n'
    )
    sbatch.chmod(0o755)
    scheduler = on_slurm(tmp_path, submit_command=str(sbatch))
    run = scheduler.start(end_on_empty=True)
    assert await scheduler.gather(scheduler.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
    refusals = {x.text for x in scheduler.snapshot().log if "limit: 1 job" in x.text}
    assert len(refusals) == 1


async def test_nobody_comes_in_time(slurm: Slurm, tmp_path: Path):
    scheduler = on_slurm(tmp_path, 1, start_timeout=0.5, submit_command="sbatch --begin=now+1hour")
    run = scheduler.start(end_on_empty=True, on_exception="raise")
    scheduler.submit(square, 3)
    with pytest.raises(BackendLostError, match=r"within start_timeout=0\.5 s\. Slurm has the jobs"):
        await asyncio.wait_for(run.wait(), LONG_S)


async def test_stop_now_ends_what_runs(slurm: Slurm, tmp_path: Path, gate: Gate):
    marks = tmp_path / "marks"
    scheduler = on_slurm(tmp_path)
    run = scheduler.start()
    futures = [scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "ab"]
    await gate.arrived(2)
    scheduler.stop(wait=False)
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
    assert all(future.cancelled() for future in futures)
    pids = [pid for _, pid in started(marks).values()]
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "both bodies are gone")


async def test_adaptive_workers_come_with_the_work(slurm: Slurm, tmp_path: Path, gate: Gate):
    marks = tmp_path / "marks"
    scheduler = on_slurm(tmp_path, adaptive=True)
    run = scheduler.start()
    await asyncio.to_thread(until, lambda: seen_waiting(scheduler) == 0, "it is connected")
    assert slurm.jobs() == {}
    futures = [scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "ab"]
    await gate.arrived(2)
    assert len({job for job, _ in started(marks).values()}) == 2
    gate.open()
    assert await scheduler.gather(futures) == ["a", "b"]
    run.stop()
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
