"""A call that fails; its callback ends the run, which itself would have gone on."""

from asyncio import Future

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(1)


def measure(sensor: str) -> None:
    raise ValueError(f"no {sensor} here")


@scheduler.on_start
def begin() -> None:
    scheduler.submit(measure, "thermometer")


@scheduler.on_future_exception
def give_up(future: Future, error: Exception) -> None:
    print(f"It failed: {error}")
    scheduler.stop()


scheduler.run(on_exception="continue")
