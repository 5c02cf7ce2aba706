"""Two callbacks of one event are called in the order in which they were registered."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


@scheduler.on_start
def wake() -> None:
    print("wake up")


def rise() -> None:
    print("get up")


scheduler.on_start(rise)
scheduler.run()
