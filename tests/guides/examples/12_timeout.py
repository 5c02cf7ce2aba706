"""A chain without end, ended by the time limit."""

import time
from asyncio import Future

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


def tick() -> str:
    time.sleep(0.1)
    return "tick"


@scheduler.on_start
def begin() -> None:
    scheduler.submit(tick)


@scheduler.on_future_done
def go_on(future: Future) -> None:
    if scheduler.running():
        scheduler.submit(tick)


scheduler.run(timeout=1)
