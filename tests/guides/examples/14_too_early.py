"""A call submitted before the scheduler runs is refused, with an error that says what to do."""

from amltk_nb import Scheduler


def towards_one(n: int) -> int:
    return n - 1 if n % 2 else n // 2


scheduler = Scheduler.with_processes(1)
step = scheduler.task(towards_one)

try:
    step.submit(9)
except Exception as error:
    print(f"{type(error)}: {error}")
