"""What would be submitted, for all seven systems; no batch system is needed for that."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import Scheduler
from amltk_nb.errors import BackendStartError, MissingExtraError
from amltk_nb.scheduling.executors.batch_systems import SYSTEMS

ORDER: dict[str, Any] = {"cores": 4, "memory": "6 GB", "queue": "long", "walltime": "00:10:00"}
OPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("slurm", "pbs", "moab", "sge"), ORDER),
    "lsf": ORDER | {"walltime": "00:10", "lsf_units": "mb"},
    "htcondor": {"cores": 4, "memory": "6 GB", "disk": "1 GB"},
    "oar": ORDER | {"memory_per_core_property_name": "mem_core"},
}
THREADS = "export OMP_NUM_THREADS=4 MKL_NUM_THREADS=4 OPENBLAS_NUM_THREADS=4"
WORKER = (
    f"{sys.executable} -m distributed.cli.dask_worker tcp://scheduler-address:port --name worker "
    "--nthreads 4 --memory-limit 5.59GiB --nanny --death-timeout 60 --nthreads 1 --no-dashboard"
)
SLURM = """\
#SBATCH -J dask-worker
#SBATCH -p long
#SBATCH -n 1
#SBATCH --cpus-per-task=4
#SBATCH --mem=6G
#SBATCH -t 00:10:00"""
PBS = """\
#PBS -N dask-worker
#PBS -q long
#PBS -l select=1:ncpus=4:mem=5723MB
#PBS -l walltime=00:10:00"""
LSF = """\
#BSUB -J dask-worker
#BSUB -q long
#BSUB -n 4
#BSUB -R "span[hosts=1]"
#BSUB -M 6000
#BSUB -W 00:10"""
SGE = """\
#$ -N dask-worker
#$ -q long
#$ -l h_rt=00:10:00
#$ -cwd
#$ -j y"""
OAR = """\
#OAR -n dask-worker
#OAR -q long
#OAR -l /nodes=1/core=4,walltime=00:10:00
#OAR -p mem_core>=1431"""
HEADERS = {"slurm": SLURM, "pbs": PBS, "moab": PBS, "lsf": LSF, "sge": SGE, "oar": OAR}
HTCONDOR = f"""\
#!/usr/bin/env condor_submit

MY.DaskWorkerName = "htcondor--$F(MY.JobId)--"
batch_name = worker
RequestCpus = MY.DaskWorkerCores
RequestMemory = floor(MY.DaskWorkerMemory / 1048576)
RequestDisk = floor(MY.DaskWorkerDisk / 1024)
MY.JobId = "$(ClusterId).$(ProcId)"
MY.DaskWorkerCores = 4
MY.DaskWorkerMemory = 6000000000
MY.DaskWorkerDisk = 1000000000

Arguments = "-c '{THREADS}; {WORKER}'"
Executable = /bin/sh

Queue
"""


def on(key: str, **options: Any) -> Scheduler:
    make = getattr(Scheduler, f"with_{key}")
    scheduler: Scheduler = make(**{"n_workers": 10, **OPTIONS[key], **options})
    return scheduler


def flags(scheduler: Scheduler) -> str:
    """The line that starts the worker."""
    (line,) = [x for x in scheduler.job_script().splitlines() if "dask_worker" in x]
    return line


def test_there_is_an_order_for_every_system():
    assert set(OPTIONS) == set(SYSTEMS)


@pytest.mark.parametrize("key", HEADERS)
def test_the_script_of(key: str):
    expected = f"#!/usr/bin/env bash\n\n{HEADERS[key]}\n{THREADS}\n{WORKER}\n"
    assert on(key).job_script() == expected


def test_the_script_of_htcondor():
    assert on("htcondor").job_script() == HTCONDOR


@pytest.mark.parametrize("key", SYSTEMS)
def test_a_worker_is_a_job(key: str):
    scheduler = on(key)
    assert scheduler.backend.n_workers == 0  # nobody is asked before the run
    assert scheduler.backend.options["n_workers"] == 10
    assert scheduler.backend.order.n_jobs == 10


def test_a_job_may_hold_several_workers():
    scheduler = on("slurm", processes=2)
    assert scheduler.backend.order.n_jobs == 5
    assert "--nthreads 2" in flags(scheduler)
    assert "--nworkers 2" in flags(scheduler)
    assert "OMP_NUM_THREADS=2 " in scheduler.job_script()
    assert on("slurm", processes=3).backend.order.n_jobs == 4  # rounded up


def test_what_is_forwarded_is_kept():
    scheduler = on(
        "slurm",
        account="science",
        job_extra_directives=["--gres=gpu:1"],
        job_script_prologue=["module load python"],
        worker_extra_args=["--lifetime", "9m"],
        python="/opt/python",
        interface="ib0",
        name="a search",
        history=3,
    )
    script = scheduler.job_script()
    assert "\n#SBATCH -A science\n" in script
    assert "\n#SBATCH --gres=gpu:1\n" in script
    assert f"\n{THREADS}\nmodule load python\n/opt/python -m " in script
    assert script.endswith("--nthreads 1 --no-dashboard --lifetime 9m --interface ib0\n")
    assert scheduler.name == "a search"


def test_a_job_of_oar_writes_where_it_is_told_to(tmp_path: Path):
    scheduler = on("oar", log_directory=str(tmp_path), job_extra_directives=["-t besteffort"])
    lines = scheduler.job_script().splitlines()
    at = lines.index(f"#OAR -O {tmp_path}/dask-worker.%jobid%.out")
    assert lines[at + 1] == f"#OAR -E {tmp_path}/dask-worker.%jobid%.err"
    assert lines[at + 2] == "#OAR -t besteffort"


def test_one_core_needs_no_word_about_threads():
    assert "OMP_NUM_THREADS" not in on("slurm", cores=1).job_script()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cores": None}, "needs cores=: what one job asks Slurm for"),
        ({"memory": None}, "needs memory=: what one job asks Slurm for"),
        ({"cores": None, "memory": None}, "needs cores= and memory=: what one job"),
        ({"wall_time": "1:00"}, "has no option wall_time=, and neither has .*SLURMCluster"),
        ({"asynchronous": True}, "sets asynchronous= itself"),
        ({"n_workers": 2.5}, r"n_workers=2.5\): use a whole number"),
        ({"n_workers": ...}, r"n_workers=Ellipsis\): use a whole number"),
        ({"start_timeout": "1 h"}, r"start_timeout='1 h'\): use a number of seconds"),
    ],
)
def test_an_order_that_cannot_be(options: dict[str, Any], words: str):
    with pytest.raises(TypeError, match=rf"with_slurm\(.*{words}"):
        on("slurm", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": ...}, r"queue=\.\.\.\): the dots stand for a value of your site"),
        ({"n_workers": 0}, "at least 1 worker"),
        ({"memory": "much"}, "much"),
        ({"memory": 6}, r"memory=6\): write the size with its unit"),
        ({"cores": "4"}, r"cores='4'\): use a whole number"),
        ({"cores": 0}, r"cores=0\): use a whole number of 1 or more"),
        ({"start_timeout": 0}, r"start_timeout=0\): use more than 0 seconds"),
        ({"no_workers_after": 0}, "no_workers_after=0 must be positive"),
        ({"n_ahead": -1}, "n_ahead=-1 must be a whole number"),
        ({"submit_command": "sbatch 'open"}, "submit_command=.*No closing quotation"),
    ],
)
def test_an_order_that_makes_no_sense(options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        on("slurm", **options)


def test_htcondor_says_that_it_needs_a_disk():
    with pytest.raises(TypeError, match=r"with_htcondor\(\) needs disk=: what one job asks for"):
        on("htcondor", disk=None)


def test_a_scheduler_without_jobs_has_no_script():
    with pytest.raises(TypeError, match=r"A ThreadExecutor submits no jobs.*with_slurm"):
        Scheduler.with_threads(1).job_script()


QUEUES = {
    "slurm": (
        "12 PD Resources\n13 R None\n14 CG None\n15 CF None\n",
        {"12": True, "13": False, "15": True},
    ),
    "pbs": (
        "Job id            Name             User              Time Use S Queue\n"
        "----------------  ---------------- ----------------  -------- - -----\n"
        "12.server         dask-worker      me                00:00:01 R long\n"
        "13.server         dask-worker      me                       0 Q long\n"
        "14.server         dask-worker      me                       0 E long\n",
        {"12": False, "13": True},
    ),
    "lsf": ("12 RUN\n13 PEND\n14 EXIT\n", {"12": False, "13": True}),
    "sge": (
        "job-ID  prior   name       user         state submit/start at     queue  slots\n"
        "--------------------------------------------------------------------------------\n"
        "     12 0.55500 dask-worke me           r     11/22/2026 12:00:00 all.q@vm     1\n"
        "     13 0.00000 dask-worke me           qw    11/22/2026 12:00:00              1\n"
        "     14 0.00000 dask-worke me           Eqw   11/22/2026 12:00:00              1\n",
        {"12": False, "13": True},
    ),
    "htcondor": ("12 2\n13 1\n14 3\n15 4\n16 5\n", {"12": False, "13": True, "16": True}),
    "oar": (
        "Job id    S User     Duration   System message\n"
        "--------- - -------- ---------- ------------------------------------------------\n"
        "12        R me          0:00:09 R=1,W=0:5:0,J=B,N=dask-worker\n"
        "13        W me          0:00:00 R=1,W=0:5:0,J=B,N=dask-worker\n"
        "14        F me          0:00:00 R=1,W=0:5:0,J=B,N=dask-worker\n",
        {"12": False, "13": True},
    ),
}


@pytest.mark.parametrize("key", QUEUES)
def test_the_queue_of(key: str):
    listing, jobs = QUEUES[key]
    listed = SYSTEMS[key].read_queue(listing)
    assert {number: job.waits for number, job in listed.items()} == jobs


def test_the_queue_may_say_why_a_job_waits():
    (job,) = SYSTEMS["slurm"].read_queue("13   PD Resources\n").values()
    assert job.line == "13 PD Resources"


@pytest.mark.parametrize("key", sorted(set(SYSTEMS) - set(QUEUES)))
def test_a_queue_that_is_not_asked(key: str):
    assert SYSTEMS[key].queue() is None


IN_A_FRESH_PROCESS = """
import signal, threading
from amltk_nb import Scheduler
from amltk_nb.errors import BackendStartError

def order():
    return Scheduler.with_slurm(1, cores=1, memory="1 GB")

def elsewhere():
    try:
        order()
    except BackendStartError as error:
        print(error)

before = signal.getsignal(signal.SIGINT)
thread = threading.Thread(target=elsewhere)
thread.start()
thread.join()
order()
print(signal.getsignal(signal.SIGINT) is before)
"""


def test_an_interrupt_still_means_what_it_meant():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    refused, is_kept = done.stdout.splitlines()
    assert refused.startswith("Scheduler.with_slurm() loads dask_jobqueue, which can be loaded on")
    assert is_kept == "True"


def test_without_dask_jobqueue_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amltk-nb\[jobqueue\]'"):
        on("slurm")


@pytest.mark.may_block  # dask_jobqueue reads its configuration when it is imported
async def test_a_machine_without_the_command_is_told_so():
    scheduler = Scheduler.with_slurm(
        1, cores=1, memory="1 GB", submit_command="no_such_sbatch --exclusive", interface="lo"
    )
    state = await asyncio.wait_for(scheduler.start().wait(), 60)
    assert isinstance(state.exception, BackendStartError)
    assert "'no_such_sbatch' is not on this machine" in str(state.exception)
