"""A task whose every result leads to its next call, until nothing is left to do."""

from amltk_nb import Scheduler


def towards_one(n: int) -> int:
    return n - 1 if n % 2 else n // 2


scheduler = Scheduler.with_processes(1)
step = scheduler.task(towards_one)
path = []


@scheduler.on_start
def begin() -> None:
    path.append(200)
    step.submit(200)


@step.on_result
def go_on(_, n: int) -> None:
    path.append(n)
    if scheduler.running() and n != 1:
        step.submit(n)


# Far longer than it takes: the chain's end is what ends the run.
scheduler.run(timeout=50)
print(path)
