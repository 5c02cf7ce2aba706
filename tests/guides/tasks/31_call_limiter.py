"""A limiter lets ten calls pass, two at a time, and tells of each one it refuses."""

from amltk_nb.scheduling import CallLimiter, Scheduler, Task

scheduler = Scheduler.with_processes(2)
limiter = CallLimiter(max_calls=10, max_concurrent=2)
task = Task(abs, scheduler, plugins=[limiter])


@scheduler.on_start(repeat=3)
def begin() -> None:
    task(-1)


@task.on_done
def again() -> None:
    task(-2)


@task.on(CallLimiter.CALL_LIMIT_REACHED)
def enough(*args, **kwargs) -> None:
    print(f"it was called {task.n_called} times")


@task.on(CallLimiter.CONCURRENT_LIMIT_REACHED)
def too_many(*args, **kwargs) -> None:
    print(f"{task.n_running} calls are under way")


scheduler.run()
