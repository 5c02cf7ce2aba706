"""A cluster of yours that grows with its load, and the executor of its client."""

import os

from dask_jobqueue import SLURMCluster

from amltk_nb.scheduling import Scheduler

cluster = SLURMCluster(queue="debug", cores=1, memory="500 MB", walltime="00:10:00")
cluster.adapt(minimum_jobs=0, maximum_jobs=2)
client = cluster.get_client()
scheduler = Scheduler(executor=client.get_executor())
jobs = []


@scheduler.on_start(repeat=6)
def begin() -> None:
    scheduler.submit(os.getenv, "SLURM_JOB_ID")


@scheduler.on_future_result
def keep(job: str) -> None:
    jobs.append(job)


scheduler.run()
print(len(jobs), all(job.isdigit() for job in jobs))
client.close()
cluster.close()
