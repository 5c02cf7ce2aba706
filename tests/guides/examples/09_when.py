"""`when`: a question asked at each emission decides whether the callback is called."""

import random

from amltk_nb.scheduling import Scheduler

SIDE = random.choice(["heads", "tails"])

scheduler = Scheduler.with_processes(1)


@scheduler.on_start(when=lambda: SIDE == "heads")
def heads() -> None:
    print("heads")


@scheduler.on_start(when=lambda: SIDE == "tails")
def tails() -> None:
    print("tails")


scheduler.run()
