"""Two calls at a time: of four submitted at once two are refused, and lost."""

from amltk_nb.scheduling import Limiter, Scheduler


def same(x: int) -> int:
    return x


scheduler = Scheduler.with_processes(2)
task = scheduler.task(same, plugins=Limiter(max_concurrent=2))

numbers = iter(range(10))
results = []


@scheduler.on_start(repeat=4)
def begin() -> None:
    task.submit(next(numbers))


@task.on_result
def keep(_, result: int) -> None:
    results.append(result)


@task.on_result
def next_number(_, result: int) -> None:
    number = next(numbers, None)
    if number is not None:
        task.submit(number)


scheduler.run()
# Two workers answer in an order of their own.
print(sorted(results))
