"""A run without any work: it starts, finds nothing to do and ends."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


@scheduler.on_start
def greet() -> None:
    print("good morning")


scheduler.run()
