"""A callback that is registered and never called: the scheduler does not run."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


@scheduler.on_start
def greet() -> None:
    print("good morning")
