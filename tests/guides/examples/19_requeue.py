"""The same limit, with what was refused put back in front of the queue."""

from amltk_nb.scheduling import Limiter, Scheduler, Task
from amltk_nb.types import Requeue


def same(x: int) -> int:
    return x


scheduler = Scheduler.with_processes(2)
task = scheduler.task(same, plugins=Limiter(max_concurrent=2))

numbers = Requeue(range(10))
results = []


@scheduler.on_start(repeat=4)
def begin() -> None:
    task.submit(next(numbers))


@task.on("concurrent-limit-reached")
def put_back(task: Task, x: int) -> None:
    numbers.requeue(x)


@task.on_result
def keep(_, result: int) -> None:
    results.append(result)


@task.on_result
def next_number(_, result: int) -> None:
    number = next(numbers, None)
    if number is not None:
        task.submit(number)


scheduler.run()
print(sorted(results))
