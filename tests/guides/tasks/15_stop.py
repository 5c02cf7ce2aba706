"""Stopped by a callback, before there was anything to do."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_start
def never_mind() -> None:
    scheduler.stop()


print(scheduler.run())
