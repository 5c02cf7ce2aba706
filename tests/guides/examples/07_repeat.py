"""`repeat`: one emission, three rounds of the callback."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


@scheduler.on_start(repeat=3)
def knock() -> None:
    print("knock")


scheduler.run()
