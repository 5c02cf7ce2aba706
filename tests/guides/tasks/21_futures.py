"""Submitted by hand three times at the start; the results are taken from the futures."""

from asyncio import Future

from amltk_nb.scheduling import Scheduler

numbers = iter([2, 3, 4])
futures: list[Future[int]] = []

scheduler = Scheduler(...)


def cube(x: int) -> int:
    return x**3


@scheduler.on_start(repeat=3)
def submit_one() -> None:
    future = scheduler.submit(cube, next(numbers))
    futures.append(future)


scheduler.run()

print([future.result() for future in futures])
