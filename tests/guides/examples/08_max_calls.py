"""`max_calls`: the callback takes part three times and is passed over from then on."""

from asyncio import Future

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(2)


def cube(x: int) -> int:
    return x**3


@scheduler.on_start
def begin() -> None:
    scheduler.submit(cube, 3)


@scheduler.on_future_result(max_calls=3)
def once_more(future: Future, result: int) -> None:
    scheduler.submit(cube, 3)


scheduler.run()
