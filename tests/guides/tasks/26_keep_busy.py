"""Fourth: each end, good or bad, makes room for the next call."""

from amltk_nb.scheduling import Scheduler, Task


def root(x: int) -> int:
    if x < 0:
        raise ValueError(f"no root of {x}")
    return int(x**0.5)


scheduler = Scheduler(...)
task = Task(root, scheduler)
numbers = iter([49, -1, 64, 81, -4, 100])


@scheduler.on_start(repeat=3)
@task.on_done
def submit_next() -> None:
    number = next(numbers, None)
    if number is not None:
        task(number)


results: list[int] = []


@task.on_returned
def keep(result: int) -> None:
    results.append(result)


errors: list[str] = []


@task.on_exception
def complain(error: BaseException) -> None:
    errors.append(str(error))


scheduler.run(timeout=60, on_exception="continue")
print(sorted(results), sorted(errors))
