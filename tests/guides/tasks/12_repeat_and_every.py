"""`repeat` calls three times at each start, `every` at each third start only."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_start(repeat=3)
def ring() -> None:
    print("ring")


@scheduler.on_start(every=3)
def pause() -> None:
    print("pause")


for _ in range(3):
    scheduler.run()
