"""Out of work, it goes on waiting; what comes later is still done."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_empty(limit=1)
def think() -> None:
    scheduler.call_later(0.05, scheduler.submit, str.upper, "an idea")


@scheduler.on_future_result
def at_last(idea: str) -> None:
    print(idea)
    scheduler.stop()


scheduler.run(end_on_empty=False)
