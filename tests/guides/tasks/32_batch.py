"""A batch: told of once, when all of its calls have returned."""

from amltk_nb import Scheduler, Task


def area(width: int, height: int) -> int:
    return width * height


scheduler = Scheduler.with_processes(2)
task = Task(area, scheduler)
batch = task.batch([(4, 5), (2, 3), (1, 1)])


@scheduler.on_start
def begin() -> None:
    batch.submit()


@batch.on_batch_returned
def tell(areas: list[int]) -> None:
    print(areas)


@batch.on_any_exception
@batch.on_any_cancelled
def cancel_the_rest(_) -> None:
    batch.cancel()


scheduler.run()
print(batch)
