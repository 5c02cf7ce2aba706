"""Threads: the scheduler's own, or a pool of the standard library, which stays open."""

from concurrent.futures import ThreadPoolExecutor

from amltk_nb.scheduling import Scheduler


def run(scheduler: Scheduler) -> None:
    scheduler.on_start(lambda: scheduler.submit(pow, 3, 4))
    scheduler.on_future_result(lambda result: print(result))
    scheduler.run()


run(Scheduler.with_threads(2))

with ThreadPoolExecutor(max_workers=2) as executor:
    scheduler = Scheduler(executor=executor)
    run(scheduler)
    print(executor.submit(pow, 3, 5).result())
