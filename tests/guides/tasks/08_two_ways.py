"""A callback is registered by a decorator or by a call."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_start
def open_doors() -> None:
    print("open the doors")


def light() -> None:
    print("light the lamps")


scheduler.on_start(light)
scheduler.run()
