"""A client of yours, and its executor: the address is the one that DASK_SCHEDULER_ADDRESS names."""

from dask.distributed import Client

from amltk_nb.scheduling import Scheduler


def toss(sides: int) -> float:
    from random import random

    return sides * random()


client = Client()
executor = client.get_executor()
scheduler = Scheduler(executor=executor)
tossed = []


# Equal calls are different calls, whatever Dask thinks of equal ones.
@scheduler.on_start(repeat=20)
def begin() -> None:
    scheduler.submit(toss, 6)


@scheduler.on_future_result
def keep(number: float) -> None:
    tossed.append(number)


scheduler.run()
print(len(tossed), len(set(tossed)), client.status)
client.close()
