"""The same task, submitted when the scheduler has started."""

from amltk_nb import Scheduler


def towards_one(n: int) -> int:
    return n - 1 if n % 2 else n // 2


scheduler = Scheduler.with_processes(1)
step = scheduler.task(towards_one)


@scheduler.on_start
def begin() -> None:
    step.submit(9)


scheduler.run()
