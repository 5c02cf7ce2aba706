"""What users write, and the type that a checker gives to it. Checked, and never run.

Each line that ends in two `ignore` comments is a mistake that both checkers must find: one that
is not found is an unused comment, which is an error as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

from amltk_nb import (
    Call,
    Emitter,
    Event,
    ExitCode,
    ExitState,
    Future,
    Limiter,
    Plugin,
    QueueMonitor,
    Requeue,
    Run,
    Scheduler,
    Subscriber,
    Task,
)
from amltk_nb.views.widget import Dashboard

scheduler = Scheduler.with_processes(2)


def double(x: int, *, times: int = 2) -> float:
    return float(x * times)


def join(left: str, right: int) -> str:
    return left * right


def five(a: int, b: int, c: int, d: int, e: int) -> int:
    return a + b + c + d + e


# ---------------------------------------------------------------- tasks

task = scheduler.task(double)
assert_type(task.submit(1, times=3), Future[float] | None)
assert_type(task(1), Future[float] | None)
assert_type(task.map([1, 2]), list[Future[float]])
assert_type(task.futures(), list[Future[float]])
assert_type(task.function(1), float)
assert_type(task.n_running, int)
task.submit("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
task.submit(1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
task.submit(1, timse=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
task("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
task()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
task.map(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@scheduler.task
def triple(x: int) -> int:
    return 3 * x


assert_type(triple.submit(1), Future[int] | None)
triple.submit("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@scheduler.task(name="four times", plugins=Limiter(max_concurrent=2))
def quadruple(x: int) -> int:
    return 4 * x


assert_type(quadruple.submit(1), Future[int] | None)
quadruple.submit("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

assert_type(Task(join, scheduler).submit("a", 2), Future[str] | None)
scheduler.task(join, plugins=[Limiter(max_calls=1), Plugin()])
scheduler.task(join, plugins="limiter")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scheduler.task(join, plugins=Limiter)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
scheduler.task(join("a", 2))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Task(join)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class SeedTask(Task[[int], tuple[int, int]]):
    LONGEST: Event[int, tuple[int, int]] = Event("longest")

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(self.run, scheduler)
        self.on_longest = self.subscriber(self.LONGEST)

    @staticmethod
    def run(seed: int) -> tuple[int, int]:
        return seed, 2 * seed


def longest(seed: int, result: tuple[int, int]) -> None: ...


def too_few(seed: int) -> None: ...


seeds = SeedTask(scheduler)
assert_type(seeds.submit(3), Future[tuple[int, int]] | None)
assert_type(seeds.on_longest, Subscriber[int, tuple[int, int]])
assert_type(seeds.on_longest(longest), Callable[[int, tuple[int, int]], None])
seeds.on_longest.emit(3, (3, 6))
seeds.emit(SeedTask.LONGEST, 3, (3, 6))
seeds.submit("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
seeds.on_longest(too_few)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
seeds.on_longest.emit(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# ---------------------------------------------------------------- the scheduler's verbs

assert_type(scheduler.submit(double, 1), Future[float])
assert_type(scheduler.submit(double, 1, times=3).call, Call)
scheduler.submit(double, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scheduler.submit(double, 1, timse=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
scheduler.submit(join, "a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

assert_type(scheduler.map(double, [1, 2]), list[Future[float]])
assert_type(scheduler.map(join, ["a"], range(3)), list[Future[str]])
assert_type(scheduler.map(five, [1], [2], [3], [4], [5]), list[Future[int]])
scheduler.map(double, ["1"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scheduler.map(join, ["a"], ["b"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scheduler.map(join, ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scheduler.map(double)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]

assert_type(scheduler.wait(scheduler.submit(double, 1), timeout=3), float)
assert_type(scheduler.resubmit(scheduler.submit(double, 1)), Future[float] | None)
assert_type(scheduler.resubmit(scheduler.find_call(1)), Future[Any] | None)
assert_type(scheduler.call_later(1, double, 2).cancel(), None)
assert_type(scheduler.records(), list[dict[str, Any]])
assert_type(len(scheduler.to_frame()), int)
scheduler.wait(double, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scheduler.resubmit(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def waiting(futures: Sequence[Future[float]]) -> None:
    assert_type(await scheduler.submit(double, 1), float)
    assert_type(await scheduler.gather(futures), list[float])
    assert_type(await scheduler.gather(scheduler.map(double, [1])), list[float])
    assert_type(
        await scheduler.gather(futures, return_exceptions=True), list[float | BaseException]
    )
    async for future in scheduler.as_completed(futures, timeout=3):
        assert_type(future, Future[float])
        assert_type(future.result(), float)
    for blocking in scheduler.as_completed(scheduler.map(join, ["a"], [2])):
        assert_type(blocking, Future[str])
    if (maybe := triple.submit(1)) is not None:
        assert_type(await maybe, int)
    await triple.submit(1)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await scheduler.gather([triple.submit(1)])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await scheduler.gather(futures[0], futures[1])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    scheduler.as_completed([3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- runs


async def running() -> None:
    run = scheduler.start(on_exception={ValueError: "continue"}, on_interrupt="stop", output="cell")
    assert_type(run, Run)
    assert_type(run.exit_state, ExitState | None)
    assert_type(await run, ExitState)
    assert_type((await run).code, ExitCode)
    assert_type((await run).exception, BaseException | None)
    assert_type(await scheduler.async_run(), ExitState)
    scheduler.start(output="here")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


assert_type(scheduler.run(), ExitState)
assert_type(scheduler.run(raises=False), ExitState | BaseException)
with scheduler as entered:
    assert_type(entered, Scheduler)
scheduler.run(on_exception="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
scheduler.run(on_cancelled="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
Scheduler.with_threads("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Scheduler(ThreadPoolExecutor(2))


# ---------------------------------------------------------------- events

hello: Event[int, str] = Event("hello")
emitter = Emitter()


def fits(n: int, text: str) -> bool:
    return n == len(text)


def misfits(text: str) -> None: ...


for place in (emitter, scheduler):
    assert_type(place.on(hello, fits)(1, "a"), bool)
    assert_type(place.subscriber(hello), Subscriber[int, str])
    place.on(hello, every=2)(fits)
    place.on("hello", misfits)
    place.emit(hello, 1, "a")
    place.emit("hello", 1, 2, any=3)

emitter.on(hello, misfits)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
scheduler.on(hello, misfits)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
emitter.on(hello)(misfits)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
emitter.on(hello, fits, often=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
emitter.emit(hello, "a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
scheduler.emit(hello, "a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
emitter.subscriber(hello)(misfits)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
scheduler.subscriber(hello).emit(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@scheduler.on_start(repeat=3)
@triple.on_result
def told() -> None: ...


told()


# ---------------------------------------------------------------- beside them

assert_type(next(Requeue([1, 2])), int)
monitor = QueueMonitor(scheduler, max_rows=100)
assert_type(monitor.resolution_s, float)
monitor.plot(by="workers")
monitor.plot(by="tasks")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
QueueMonitor(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# ---------------------------------------------------------------- views

assert_type(scheduler.events(), Dashboard)
assert_type(scheduler.queue(), Dashboard)
assert_type(scheduler.log(), Dashboard)
assert_type(task.panel(), Dashboard)
assert_type(list(scheduler.queue), list[Future[Any]])
scheduler.log("here", "info", "a line")
scheduler.log("here")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
scheduler.queue("all")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
