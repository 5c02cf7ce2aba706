"""The same by one line: the scheduler connects for each run, to the address or through a client."""

import os

from amltk_nb.scheduling import Scheduler


def halves(n: int) -> int:
    return n // 2


scheduler = Scheduler.with_dask(os.environ["DASK_SCHEDULER_ADDRESS"])
task = scheduler.task(halves)
path = []


@scheduler.on_start
def begin() -> None:
    task(100)


@task.on_returned
def go_on(n: int) -> None:
    path.append(n)
    if n > 1:
        task(n)


scheduler.run()
print(path)
