"""Second: results are kept as well, without a change to what is there."""

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


results: list[int] = []


@task.on_returned
def keep(result: int) -> None:
    results.append(result)


@task.on_exception
def complain(error: BaseException) -> None:
    print(error)


scheduler.run()
print(results)
