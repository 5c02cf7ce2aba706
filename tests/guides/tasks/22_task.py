"""A task is a function and its scheduler; called too early, it does nothing."""

from amltk_nb.scheduling import Scheduler, Task


def cube(x: int) -> int:
    return x**3


scheduler = Scheduler(...)
task = Task(cube, scheduler)
print(task.signature, task(3))
