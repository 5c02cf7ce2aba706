"""A batch of which one call fails, and takes the others along."""

import time

from amltk_nb import Scheduler, Task


def rest(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


scheduler = Scheduler.with_processes(2)
task = Task(rest, scheduler)
batch = task.batch([(-1,), (3600,), (3600,), (3600,)])


@scheduler.on_start
def begin() -> None:
    batch.submit()


@batch.on_batch_returned
def tell(rests: list[float]) -> None:
    print("rested", rests)


@batch.on_any_exception
@batch.on_any_cancelled
def cancel_the_rest(_) -> None:
    batch.cancel()


@batch.on_batch_failed
def failed() -> None:
    print("failed")


@batch.on_batch_done
def done(batch, results, exceptions, cancelled) -> None:
    print(results, exceptions, len(cancelled))


scheduler.run(on_exception="continue")
print(batch)
