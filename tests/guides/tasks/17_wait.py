"""`wait=False`: a stopped run waits for nothing; what runs is ended."""

import time

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_start
def begin() -> None:
    scheduler.submit(time.sleep, 3600)


@scheduler.on_future_submitted
def lose_patience() -> None:
    scheduler.stop()


scheduler.run(wait=False)
