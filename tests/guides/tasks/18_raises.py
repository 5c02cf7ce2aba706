"""The older options for failures: whether one ends the run, and whether it is raised."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


def open_box(number: int) -> str:
    if number == 1:
        raise ValueError(f"box {number} is empty")
    return f"found in {number}"


@scheduler.on_start
def begin() -> None:
    scheduler.submit(open_box, 1)


exception = scheduler.run(end_on_exception=True, raises=False)
print(repr(exception))

try:
    scheduler.run(end_on_exception=True, raises=True)
except Exception as e:
    print(f"raised: {e}")


@scheduler.on_future_exception
def try_the_next() -> None:
    scheduler.submit(open_box, 2)


scheduler.on_future_result(lambda result: print(result))
print(scheduler.run(end_on_exception=False))
