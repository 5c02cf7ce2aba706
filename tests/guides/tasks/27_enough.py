"""Fifth: a criterion to stop by, asked at each end of a call."""

from itertools import repeat

from amltk_nb.scheduling import Scheduler, Task


def root(x: int) -> int:
    if x < 0:
        raise ValueError(f"no root of {x}")
    return int(x**0.5)


scheduler = Scheduler(...)
task = Task(root, scheduler)
numbers = repeat(49)


@scheduler.on_start(repeat=3)
@task.on_done
def submit_next() -> None:
    task(next(numbers))


results: list[int] = []


@task.on_returned
def keep(result: int) -> None:
    results.append(result)


@task.on_done(when=lambda: len(results) >= 50)
def stop_at_50(result: int) -> None:
    scheduler.stop()


scheduler.run(timeout=60)
print(len(results) >= 50, set(results), scheduler.running(), task(1))
