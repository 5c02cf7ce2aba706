"""What a task tells of its calls, each with what its callbacks may take."""

from asyncio import Future
from typing import Any

from amltk_nb.scheduling import Scheduler, Task


def root(x: int) -> int:
    if x < 0:
        raise ValueError(f"no root of {x}")
    return int(x**0.5)


scheduler = Scheduler.with_processes(1)
task = Task(root, scheduler)
asked: dict[Future[int], int] = {}  # a future can be a key


@scheduler.on_start
def begin() -> None:
    for x in (49, -1):
        asked[task(x)] = x


@task.on_submitted
def submitted(future: Future[int]) -> None:
    print("submitted", future.done())


@task.on_done
def done(future: Future[int]) -> None:
    print("done", asked[future])


@task.on_returned
def returned(result: Any) -> None:
    print("returned", result)


@task.on_f_returned
def f_returned(future: Future[int], result: Any) -> None:
    print("f_returned", asked[future], result)


@task.on_exception
def exception(error: BaseException) -> None:
    print("exception", error)


@task.on_f_exception
def f_exception(future: Future[int], error: BaseException) -> None:
    print("f_exception", asked[future], error)


scheduler.run(on_exception="continue")
