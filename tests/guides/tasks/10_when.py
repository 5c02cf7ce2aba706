"""Whether a callback is called can be asked each time."""

import random

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)
coin = random.Random(5)
tosses = []


def toss() -> bool:
    tosses.append(coin.choice([True, False]))
    return tosses[-1]


@scheduler.on_start(when=toss)
def heads() -> None:
    print(f"heads at toss {len(tosses)}")


for _ in range(4):
    scheduler.run()
print(tosses)
