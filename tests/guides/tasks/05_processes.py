"""Worker processes: the scheduler's own, or a pool of the standard library."""

from concurrent.futures import ProcessPoolExecutor

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(2)


@scheduler.on_start
def begin() -> None:
    scheduler.submit(pow, 3, 4)


@scheduler.on_future_result
def tell(result: int) -> None:
    print(result)


scheduler.run()

with ProcessPoolExecutor(max_workers=2) as executor:
    print(Scheduler(executor=executor).run())
