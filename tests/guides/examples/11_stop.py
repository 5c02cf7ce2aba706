"""Stop at once, with `wait=False`: the call does not get its ten seconds."""

import time

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


def doze(seconds: int) -> None:
    time.sleep(seconds)


@scheduler.on_start
def begin() -> None:
    scheduler.submit(doze, seconds=10)


@scheduler.on_future_submitted
def think_again(_) -> None:
    scheduler.stop()


scheduler.run(wait=False)
