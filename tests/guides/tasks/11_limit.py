"""`limit`: called once, however often the scheduler starts."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_start(limit=1)
def ribbon() -> None:
    print("cut the ribbon")


for _ in range(3):
    scheduler.run()
