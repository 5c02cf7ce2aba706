"""Step by step, first: one call, to see that it works."""

from amltk_nb.scheduling import Scheduler, Task


def root(x: int) -> int:
    if x < 0:
        raise ValueError(f"no root of {x}")
    return int(x**0.5)


scheduler = Scheduler(...)
task = Task(root, scheduler)
numbers = iter([49, 64, 81])


@scheduler.on_start
def submit_next() -> None:
    task(next(numbers))


@task.on_returned
def tell(result: int) -> None:
    print(result)


@task.on_exception
def complain(error: BaseException) -> None:
    print(error)


scheduler.run()
