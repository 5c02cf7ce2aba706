"""A task with a callback for its results and one for its errors: the whole in a few lines."""

from amltk_nb.scheduling import Scheduler, Task


def share(cake: int, guests: int) -> int:
    return cake // guests


scheduler = Scheduler(executor=...)
task = Task(share, scheduler)


@scheduler.on_start
def begin() -> None:
    task(12, 3)


@task.on_returned
def tell(pieces: int) -> None:
    print(f"{pieces} pieces for each")
    task(12, 0)


@task.on_exception
def complain(error: BaseException) -> None:
    print(f"no party: {error}")


scheduler.run(on_exception="continue")
