"""What a call of ours costs here, measured in short real runs: on processes, and on Dask.

Costs are CPU time of this process: its threads share the interpreter's lock, so whatever they do
besides the work itself adds up. Latency is what is left of a call that has the machine for itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psutil

from amltk_nb import Future, Scheduler
from amltk_nb.scheduling.call import Call
from tests.bench.functions import nothing, sleep
from tests.executors.dask_processes import dask_processes
from tests.simulation.world import Costs, Setting, simulate

__all__ = ["CHECK_S", "Check", "Engine", "measured"]

CHECK_S = 0.005  # the calls of the check
_N_CHECK = 400
_N_ALONE = 200  # calls that have the machine for themselves
_N_LONE = 3_000  # calls that travel alone, with others under way
_N_FLOW = 30_000
_N_REMOTE = 1_500

Made = Callable[[int], Scheduler]  # with so many workers


@dataclass(frozen=True)
class Check:
    """A simulation beside the real run that it is of: two workers, calls of 5 ms."""

    real_s: float
    simulated_s: float

    @property
    def error(self) -> float:
        """How much longer the simulated run took; negative: shorter."""
        return self.simulated_s / self.real_s - 1


@dataclass(frozen=True)
class Engine:
    """An engine's costs, and how well they foretell."""

    costs: Costs
    check: Check
    other_s: float = 0.0  # per call, of another process that all calls pass through; else 0

    @property
    def bound_s(self) -> float:
        """What a lone call costs where all calls have to pass, one after the other."""
        return max(self.costs.message_s + self.costs.call_s, self.other_s)


@dataclass
class _Run:
    """One real run, from the first submission to the last result."""

    elapsed_s: float = 0.0
    cpu_s: float = 0.0  # of this process
    work_s: float = 0.0  # what the calls themselves took
    n_batches: int = 0


def measured() -> tuple[Engine, Engine]:
    """Measure processes and Dask, this one with workers from the command line."""
    processes = _processes(Scheduler.with_processes)
    with tempfile.TemporaryDirectory(prefix="amltk-nb-simulation-") as folder:
        with dask_processes(Path(folder) / "one", 1) as one:
            alone = _real(_on_dask(one.address), sleep, [(CHECK_S,)] * _N_ALONE, n_under_way=1)
        with dask_processes(Path(folder) / "two", 2) as two:
            dask = _remote(two.address, psutil.Process(two.scheduler.pid), alone)
    return processes, dask


def _processes(make: Made) -> Engine:
    alone = _real(make(1), sleep, [(CHECK_S,)] * _N_ALONE, n_under_way=1)
    lone = _real(_unbatched(), nothing, [()] * _N_LONE, n_under_way=4)
    flow = _real(make(2), nothing, [()] * _N_FLOW, n_under_way=2_000)
    lone_s, flow_s = lone.cpu_s / _N_LONE, flow.cpu_s / _N_FLOW
    # Two equations: a call alone is one message and one call, in a batch it is a part of one.
    message_s = max(0.0, (lone_s - flow_s) / (1 - flow.n_batches / _N_FLOW))
    costs = Costs(message_s, lone_s - message_s, _latency_s(alone, lone_s))
    real = _real(_unbatched(), sleep, [(CHECK_S,)] * _N_CHECK, n_under_way=_N_CHECK)
    return Engine(costs, _checked(costs, real))


def _unbatched() -> Scheduler:
    return Scheduler.with_processes(2, batching=False)


def _remote(address: str, dask_scheduler: psutil.Process, alone: _Run) -> Engine:
    before = _cpu_s(dask_scheduler)
    lone = _real(_on_dask(address), nothing, [()] * _N_REMOTE, n_under_way=4)
    theirs_s = (_cpu_s(dask_scheduler) - before) / _N_REMOTE
    lone_s = lone.cpu_s / _N_REMOTE
    costs = Costs(lone_s, 0.0, _latency_s(alone, lone_s))
    real = _real(_on_dask(address), sleep, [(CHECK_S,)] * _N_CHECK, n_under_way=_N_CHECK)
    return Engine(costs, _checked(costs, real), theirs_s)


def _on_dask(address: str) -> Scheduler:
    return Scheduler.with_dask(address, n_ahead=0, connect_timeout=30)


def _latency_s(alone: _Run, cost_s: float) -> float:
    return max(0.0, (alone.elapsed_s - alone.work_s) / _N_ALONE - cost_s)


def _checked(costs: Costs, real: _Run) -> Check:
    setting = Setting(costs, real.work_s / _N_CHECK, n_workers=2, n_calls=_N_CHECK)
    return Check(real.elapsed_s, simulate(setting).elapsed_s)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _real(
    scheduler: Scheduler,
    fn: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    n_under_way: int,
) -> _Run:
    """Run calls, so many under way at a time; workers are warm before the first one."""
    ran, left = _Run(), iter(arguments)
    warm, task = scheduler.task(sleep), scheduler.task(fn)
    began = began_cpu = 0.0
    n_results = 0
    start = scheduler.backend.start

    def counted(calls: Sequence[Call]) -> None:
        ran.n_batches += calls[0].task is task
        start(calls)

    scheduler.backend.start = counted  # type: ignore[method-assign]
    scheduler.on_start(lambda: warm.submit(0.2))

    @warm.on_done(max_calls=20)  # the time in which the other workers come
    def once_more(_: Future[Any]) -> None:
        nonlocal began, began_cpu
        if warm.n_called < 20:
            warm.submit(0.05)
            return
        began, began_cpu = perf_counter(), process_time()
        for _, args in zip(range(n_under_way), left, strict=False):
            task.submit(*args)

    @task.on_result
    def go_on(future: Future[Any], _: Any) -> None:
        nonlocal n_results
        n_results += 1
        ran.work_s += future.call.seconds or 0.0
        if (args := next(left, None)) is not None:
            task.submit(*args)
        elif n_results == len(arguments):
            ran.elapsed_s, ran.cpu_s = perf_counter() - began, process_time() - began_cpu

    scheduler.run(display=False)
    assert n_results == len(arguments)
    return ran
