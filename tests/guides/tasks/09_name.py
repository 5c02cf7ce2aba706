"""A name of its own, by which a callback is taken back; or by the function itself."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_start(name="greeting")
def hello() -> None:
    print("hello")


@scheduler.on_start
def welcome() -> None:
    print("welcome")


print([callback.name for callback in scheduler.snapshot().events[0].callbacks])
scheduler.run()
print(scheduler.on_start.remove("greeting"), scheduler.on_start.remove("greeting"))
scheduler.run()
print(scheduler.on_start.remove(welcome))
scheduler.run()
