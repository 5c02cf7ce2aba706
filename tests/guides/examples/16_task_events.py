"""Events of the scheduler tell of every call, those of a task of its own calls only."""

from amltk_nb import Scheduler


def shout(word: str) -> str:
    return word.upper()


scheduler = Scheduler.with_processes(1)
shouting = scheduler.task(shout)


@scheduler.on_start
def begin() -> None:
    shouting.submit("one")
    scheduler.submit(shout, "two")


@scheduler.on_future_result
def of_all(_, word: str) -> None:
    print(f"scheduler: {word}")


@shouting.on_result
def of_the_task(_, word: str) -> None:
    print(f"task: {word}")


scheduler.run()
