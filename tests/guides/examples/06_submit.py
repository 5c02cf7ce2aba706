"""Calls submitted to the scheduler itself; a result leads to the next one."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(2)


def triple(x: int) -> int:
    return 3 * x


@scheduler.on_start
def begin() -> None:
    scheduler.submit(triple, 2)


@scheduler.on_future_result
def tell(_, x: int) -> None:
    print(x)
    if x < 10:
        scheduler.submit(triple, x)


scheduler.run()
