"""The other criterion: the first failure."""

from amltk_nb.scheduling import Scheduler, Task


def root(x: int) -> int:
    if x < 0:
        raise ValueError(f"no root of {x}")
    return int(x**0.5)


scheduler = Scheduler.with_processes(1)
task = Task(root, scheduler)
numbers = iter([49, 64, -1, 81])


@scheduler.on_start
@task.on_done
def submit_next() -> None:
    task(next(numbers))


results: list[int] = []


@task.on_returned
def keep(result: int) -> None:
    results.append(result)


@task.on_exception
def complain(error: BaseException) -> None:
    print(error)


@task.on_exception
def give_up(error: BaseException) -> None:
    scheduler.stop()


try:
    scheduler.run(timeout=60)
except ValueError as error:
    print("raised:", error)
print(results)
