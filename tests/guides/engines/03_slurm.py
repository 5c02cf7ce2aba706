"""Jobs of Slurm as workers: how many, and what each of them needs."""

import os

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_slurm(
    n_workers=2,
    queue="debug",
    cores=1,
    memory="500 MB",
    walltime="00:10:00",
)
jobs = []


@scheduler.on_start(repeat=6)
def begin() -> None:
    scheduler.submit(os.getenv, "SLURM_JOB_ID")


@scheduler.on_future_result
def keep(job: str) -> None:
    jobs.append(job)


scheduler.run()
print(len(jobs), all(job.isdigit() for job in jobs))
