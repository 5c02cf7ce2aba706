"""The command that submits, with flags of your own; and what will be submitted."""

import os

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_slurm(
    n_workers=1,
    adaptive=True,
    submit_command="sbatch --comment=extra",
    cores=1,
    memory="500 MB",
    walltime="00:10:00",
)
told = []


@scheduler.on_start
def begin() -> None:
    scheduler.submit(os.getenv, "SLURM_JOB_ID")


@scheduler.on_future_result
def keep(job: str) -> None:
    told.append(job)


scheduler.run()
print(told[0].isdigit(), "#SBATCH -t 00:10:00" in scheduler.job_script())
