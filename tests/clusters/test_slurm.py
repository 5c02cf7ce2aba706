"""Calls in jobs of a real Slurm: the contract, and what can happen to jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import BackendStartError, WorkerDiedError
from tests.clusters.functions import job_number, mark_and_wait
from tests.clusters.jobs import BatchContract, is_gone, is_wanted, made, seen_waiting, started
from tests.clusters.slurm import Slurm
from tests.clusters.waiting import until
from tests.executors.contract import LONG_S, Gate, square

# For the first one, which may have to install Slurm; all others need some seconds.
pytestmark = pytest.mark.timeout(400)

NEVER = "sbatch --begin=now+1hour"


def on_slurm(folder: Path, n_workers: int = 2, **options: Any) -> Scheduler:
    return made("slurm", folder, n_workers, **options)


class TestSlurm(BatchContract):
    system_class = Slurm
    refused = {"queue": "nowhere"}
    refusal = "sbatch: error: invalid partition specified: nowhere"
    never = NEVER

    if not os.environ.get("AMLTK_NB_WHOLE_CONTRACT"):
        # Each takes some seconds to have its jobs started and says no more of jobs than the
        # others here, and the Dask tests run all of them; `make test-clusters` does for jobs.
        test_results_with_all_kinds_of_arguments = None
        test_errors_keep_their_type_and_state = None
        test_a_closure_and_a_local_class_travel = None
        test_coroutine_functions_run_to_their_end = None
        test_short_calls_do_not_wait_behind_a_long_one = None
        test_stop_lets_running_calls_finish = None
        test_stop_now_ends_or_abandons_running_calls = None
        test_the_same_scheduler_runs_three_times = None
        test_nothing_is_left_behind = None
        test_one_call_is_ended_and_one_that_waits_never_runs = None
        test_calls_behind_one_that_is_lost_run_elsewhere_and_once = None


async def test_a_submit_command_that_is_not_there(slurm: Slurm, tmp_path: Path):
    scheduler = on_slurm(tmp_path, submit_command="sbatsch --extra")
    run = scheduler.start(end_on_empty=True, on_exception="raise")
    scheduler.submit(square, 3)
    with pytest.raises(
        BackendStartError,
        match=r"`sbatsch --extra SCRIPT` cannot be run: .*No such file or directory",
    ):
        await asyncio.wait_for(run.wait(), LONG_S)


async def test_a_job_that_is_cancelled_in_the_queue_is_replaced(slurm: Slurm, tmp_path: Path):
    told: list[float] = []
    flags = f"{NEVER} --comment=ours --nice=7"
    scheduler = on_slurm(tmp_path, 1, no_workers_after=0.2, submit_command=flags)
    scheduler.on_no_workers(told.append)
    run = scheduler.start()
    future = scheduler.submit(job_number)
    await asyncio.to_thread(until, lambda: len(slurm.jobs()) == 1, "a job waits")
    (first,) = slurm.jobs()
    await asyncio.to_thread(until, lambda: seen_waiting(scheduler) == 1, "it is counted")
    assert scheduler.snapshot().backend.waiting_for == "workers of SLURMCluster"
    slurm.ask("scancel", first)
    await asyncio.to_thread(until, lambda: set(slurm.jobs()) - {first}, "another one waits")
    (second,) = slurm.jobs()
    slurm.ask("scontrol", "update", f"JobId={second}", "StartTime=now")
    assert await asyncio.wait_for(future, LONG_S) == second
    assert slurm.ask("squeue", "-h", "-j", second, "-o", "%k").strip() == "ours"
    assert seen_waiting(scheduler) == 0
    assert told
    assert told[0] >= 0.2
    assert told == sorted(told)
    run.stop()
    await run


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


NOTEBOOK = """
import asyncio, sys
from pathlib import Path
from amltk_nb import Scheduler
from tests.clusters.functions import mark_and_wait
from tests.clusters.jobs import made

folder, marks, gate = sys.argv[1:]
Scheduler.with_slurm(1, cores=1, memory="1 GB")  # loads what the main thread only may load
scheduler = made("slurm", Path(folder), 2, death_timeout=3)
waiting = made("slurm", Path(folder), 1, death_timeout=3, submit_command="sbatch --begin=now+1hour")

async def main():
    runs = [scheduler.start(), waiting.start()]
    for text in "ab":
        scheduler.submit(mark_and_wait, marks, gate, text)
    await runs[0]

asyncio.run(main())
"""


async def test_no_job_outlives_a_notebook_that_is_killed(slurm: Slurm, tmp_path: Path, gate: Gate):
    marks = tmp_path / "marks"
    said = tmp_path / "said"
    with said.open("wb") as output:
        notebook = subprocess.Popen(
            [sys.executable, "-c", NOTEBOOK, str(tmp_path), str(marks), gate.path],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        await gate.arrived(2)
        until(lambda: len(slurm.jobs()) == 3, lambda: f"all are there\n{said.read_text()}")
    finally:
        notebook.send_signal(signal.SIGKILL)
        notebook.wait(LONG_S)
    (waiting,) = [job for job, state in slurm.jobs().items() if state == "pending"]
    until(lambda: set(slurm.jobs()) == {waiting}, "the jobs that ran have ended", limit_s=15)
    pids = [pid for _, pid in started(marks).values()]
    until(lambda: all(map(is_gone, pids)), "both bodies are gone")
    # Nobody is left who could take this one back; it ends soon after it has begun.
    slurm.ask("scontrol", "update", f"JobId={waiting}", "StartTime=now")
    until(lambda: slurm.jobs().get(waiting) != "pending", "it has begun")
    until(lambda: slurm.jobs() == {}, "it has ended as well")


@is_wanted
async def test_a_job_whose_time_is_over_is_replaced(slurm: Slurm, tmp_path: Path, gate: Gate):
    marks = tmp_path / "marks"
    scheduler = on_slurm(tmp_path, 1)
    run = scheduler.start()
    future = scheduler.submit(mark_and_wait, str(marks), gate.path, "a")
    await gate.arrived(1)
    ((job, pid),) = started(marks).values()
    # Slurm counts time in minutes and looks every half one; this is the shortest way there.
    slurm.ask("scontrol", "update", f"JobId={job}", "EndTime=now")
    with pytest.raises(WorkerDiedError):
        await asyncio.wait_for(future, 60)
    until(lambda: is_gone(pid), "the body is gone")
    second = await asyncio.wait_for(scheduler.submit(job_number), LONG_S)
    assert second != job
    assert list(started(marks)) == ["a"]
    run.stop()
    await run
