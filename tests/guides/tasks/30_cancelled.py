"""A call that is taken back: neither done nor returned, but cancelled."""

from asyncio import Future

from amltk_nb.scheduling import Scheduler, Task

scheduler = Scheduler.with_processes(1)
task = Task(abs, scheduler)


@scheduler.on_start
def begin() -> None:
    task(-1)
    task(-2).cancel()


@task.on_cancelled
def cancelled(future: Future[int]) -> None:
    print("cancelled", future.cancelled())


@task.on_f_cancelled
def f_cancelled(future: Future[int]) -> None:
    print("f_cancelled", future.cancelled())


scheduler.run()
