"""`every`: of five runs the second and the fourth call the callback."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


@scheduler.on_start(every=2)
def tock() -> None:
    print("tock")


scheduler.run()
scheduler.run()
scheduler.run()
scheduler.run()
scheduler.run()
