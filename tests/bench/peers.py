"""The same work given to amltk_nb, to its predecessor and to plain pools.

The first two share the interface that is used here, so one function measures both. Every function
warms its workers up, then measures from the first submission to the last result, and returns
seconds. All of them also check that nothing was lost: a quick machine that drops events is no good.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from time import perf_counter
from typing import Any

from tests.bench.functions import nothing, sleep

Work = tuple[Callable[..., Any], tuple[Any, ...]]

N_WORKERS = 2
WARM_S = 0.05


def ours(kind: str = "processes", **options: Any) -> Any:
    """Make a scheduler of this package."""
    from amltk_nb import Scheduler

    if kind == "sequential":
        return Scheduler.with_sequential(**options)
    make = Scheduler.with_threads if kind == "threads" else Scheduler.with_processes
    return make(N_WORKERS, **options)


def predecessor(kind: str = "processes") -> Any:
    """Make a scheduler of amltk, with the start method that ours has."""
    from concurrent.futures import ThreadPoolExecutor

    from amltk.scheduling import Scheduler

    if kind == "sequential":
        return Scheduler.with_sequential()
    if kind == "threads":
        return Scheduler(executor=ThreadPoolExecutor(N_WORKERS))
    return Scheduler.with_processes(N_WORKERS, mp_context="forkserver")


def pool() -> ProcessPoolExecutor:
    """Make a pool of the standard library, with the start method that ours has."""
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(N_WORKERS, mp_context=context)


class Timed:
    """Runs a scheduler over some work and takes the time."""

    def __init__(self, scheduler: Any, n_calls: int) -> None:
        """Get ready; `scheduler` is ours or the predecessor's."""
        self.scheduler = scheduler
        self.n_calls = n_calls
        self.n_results = 0
        self.began = self.ended = 0.0
        self.marks: dict[int, float] = {}

    def run(
        self, fn: Callable[..., Any], feed: Iterable[tuple[Any, ...]], *, n_first: int
    ) -> float:
        """Submit the first calls at once and one more for each result; returns seconds."""
        task, warm = self.scheduler.task(fn), self.scheduler.task(sleep)
        arguments = iter(feed)
        n_warm = 0

        def begin(*_: Any) -> None:
            nonlocal n_warm
            n_warm += 1
            if n_warm == N_WORKERS:
                self.began = perf_counter()
                for _, args in zip(range(n_first), arguments, strict=False):
                    task.submit(*args)

        def go_on(_: Any, __: Any) -> None:
            self.n_results += 1
            for args in arguments:
                task.submit(*args)
                break
            if self.n_results == self.n_calls:
                self.ended = perf_counter()

        warm.on_result(begin)
        task.on_result(go_on)
        self.scheduler.on_start(lambda: [warm.submit(WARM_S) for _ in range(N_WORKERS)])
        self.scheduler.run(display=False)
        self._check(task)
        return self.ended - self.began

    def _check(self, task: Any) -> None:
        counts = {str(getattr(k, "name", k)): n for k, n in self.scheduler.event_counts.items()}
        wanted = self.n_calls + N_WORKERS
        for name in ("submitted", "done", "result"):
            assert counts[f"on_future_{name}"] == wanted, (name, counts, wanted)
        assert self.n_results == self.n_calls


def burst(scheduler: Any, n_calls: int) -> float:
    """Submit empty calls all at once."""
    return Timed(scheduler, n_calls).run(nothing, [()] * n_calls, n_first=n_calls)


def chain(scheduler: Any, n_calls: int, fn: Callable[..., Any] = nothing) -> float:
    """Keep four empty calls under way, the next submitted by a callback on a result."""
    return Timed(scheduler, n_calls).run(fn, [()] * n_calls, n_first=4)


def flow(scheduler: Any, n_calls: int, n_first: int = 2_000) -> float:
    """Keep many calls under way, as a search over parameters does."""
    return Timed(scheduler, n_calls).run(nothing, ((),) * n_calls, n_first=n_first)


def work(scheduler: Any, fn: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> float:
    """Submit calls with arguments all at once."""
    return Timed(scheduler, len(arguments)).run(fn, arguments, n_first=len(arguments))


def burst_pool(executor: Executor, n_calls: int) -> float:
    """Submit empty calls all at once and take their results, nothing else."""
    with executor:
        _warm(executor)
        began = perf_counter()
        futures = [executor.submit(nothing) for _ in range(n_calls)]
        for future in futures:
            future.result()
        return perf_counter() - began


def chain_pool(executor: Executor, n_calls: int, fn: Callable[..., Any] = nothing) -> float:
    """Keep four calls under way with `wait`, the usual loop over a bare pool."""
    with executor:
        _warm(executor)
        began = perf_counter()
        n_left = n_calls - 4
        pending = {executor.submit(fn) for _ in range(4)}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for _ in done:
                if n_left:
                    n_left -= 1
                    pending.add(executor.submit(fn))
        return perf_counter() - began


def work_pool(
    executor: Executor, fn: Callable[..., Any], arguments: list[tuple[Any, ...]]
) -> float:
    """Submit calls with arguments all at once; results are let go of as they come."""
    with executor:
        _warm(executor)
        began = perf_counter()
        futures = deque(executor.submit(fn, *args) for args in arguments)
        while futures:
            futures.popleft().result()
        return perf_counter() - began


def burst_joblib(n_calls: int) -> float:
    """Give empty calls to joblib: no futures, no events, results in one list at the end."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=N_WORKERS) as parallel:
        parallel(delayed(sleep)(WARM_S) for _ in range(N_WORKERS))
        began = perf_counter()
        results = parallel(delayed(nothing)() for _ in range(n_calls))
        seconds = perf_counter() - began
    assert len(results) == n_calls
    return seconds


def _warm(executor: Executor) -> None:
    for future in [executor.submit(sleep, WARM_S) for _ in range(N_WORKERS)]:
        future.result()
