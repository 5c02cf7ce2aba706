"""The long runs of `make soak`: what each holds while it goes on, and how long the loop stands."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amltk_nb import Scheduler
from tests.soak.functions import array, failing, logging_, nap, printing, short, total
from tests.soak.measuring import CountingComm, Memory, Watchdog, open_dashboard

__all__ = ["ARRAYS", "RUNS", "Curve", "Stand", "curve", "held", "stands"]

N_SAMPLES = 100
AT_ONCE = 1_000
N_MANY = 100_000
N_QUEUED = 10_000
N_LARGE_BYTES = 100_000_000
N_ARRAYS, N_ARRAY_BYTES = 20, 200_000_000

Function = Callable[[int], Any]
# What is run: a name, a function, how many calls, and whether with a journal.
RUNS: tuple[tuple[str, Function, int, bool], ...] = (
    ("short calls", short, 1_000_000, False),
    ("with a journal", short, 300_000, True),
    ("calls that fail", failing, 100_000, False),
    ("calls that print", printing, 200_000, False),
    ("calls that log", logging_, 200_000, False),
)
ARRAYS = ("results", "arguments")


@dataclass
class Curve:
    """One run, sampled."""

    name: str
    n_calls: int
    seconds: float = 0.0
    n_message_bytes: int = 0  # to the page
    samples: list[tuple[int, Memory]] = field(default_factory=list)  # at so many calls

    def after(self, n_calls: int) -> Memory:
        """Return the first sample from so many calls on."""
        return next(memory for n, memory in self.samples if n >= n_calls)


async def curve(name: str, fn: Function, n_calls: int, journaled: bool) -> Curve:
    """Run calls with a dashboard open, and look at the memory now and then."""
    found = Curve(name, n_calls)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"journal": Path(folder) / "run.db"} if journaled else {}
        scheduler = Scheduler.with_processes(2, **options)
        run = scheduler.start(display=False, on_exception="continue")
        n_bytes, began = CountingComm.n_bytes, time.perf_counter()
        with open_dashboard(scheduler):
            for n_done in range(0, n_calls, AT_ONCE):
                futures = scheduler.map(fn, range(n_done, n_done + AT_ONCE))
                await scheduler.gather(futures, return_exceptions=True)
                del futures
                if n_done % max(AT_ONCE, n_calls // N_SAMPLES) == 0:
                    found.samples.append((n_done + AT_ONCE, Memory.now(scheduler)))
            found.samples.append((n_calls, Memory.now(scheduler)))
        found.seconds = time.perf_counter() - began
        found.n_message_bytes = CountingComm.n_bytes - n_bytes
        scheduler.stop()
        await run
        if scheduler.journal is not None:
            scheduler.journal.close()
    return found


async def held(kind: str) -> tuple[Memory, Memory]:
    """Return what is held before and after some arrays went one way, the dashboard open."""
    scheduler = Scheduler.with_processes(2)
    run = scheduler.start(display=False)
    with open_dashboard(scheduler):
        await scheduler.gather([scheduler.submit(nap, 0.05) for _ in range(4)])
        await scheduler.submit(total, await scheduler.submit(array, 8_000))
        before = Memory.now(scheduler)
        for _ in range(N_ARRAYS):
            if kind == "results":
                await scheduler.submit(array, N_ARRAY_BYTES)
            else:
                await scheduler.submit(total, array(N_ARRAY_BYTES))
        await scheduler.gather([scheduler.submit(nap, 0.05) for _ in range(4)])
        after = Memory.now(scheduler)
    scheduler.stop()
    await run
    return before, after


@dataclass(frozen=True)
class Stand:
    """For how long the loop stood still at the most while something was done."""

    what: str
    worst_s: float
    collection_s: float  # the longest of CPython's garbage collections among it


@asynccontextmanager
async def _watched(what: str, found: list[Stand]) -> AsyncIterator[None]:
    async with Watchdog() as watchdog:
        yield
    found.append(Stand(what, watchdog.worst_s, watchdog.worst_collection_s))


async def stands(path: Path | None) -> list[Stand]:
    """Do what may take long, with a journal or without, and watch the loop."""
    found: list[Stand] = []
    options: dict[str, Any] = {"journal": path} if path is not None else {}
    scheduler = Scheduler.with_processes(2, **options)
    with open_dashboard(scheduler):
        async with _watched("start, and the first call", found):
            run = scheduler.start(display=False, on_exception="continue")
            await scheduler.submit(short, 1)
        await _many(scheduler, found)
        await _large(scheduler, found)
        async with _watched("a worker is killed", found):
            future = scheduler.submit(nap, 60)
            await asyncio.sleep(0.3)
            (pid,) = [w.pid for w in scheduler.backend.workers() if w.state == "busy" and w.pid]
            os.kill(pid, signal.SIGKILL)
            await asyncio.wait([future])
        queued = [scheduler.submit(nap, 0.01) for _ in range(N_QUEUED)]
        async with _watched(f"`stop()` with {N_QUEUED:,} calls queued", found):
            scheduler.stop()
            await run
        assert all(future.done() for future in queued)
    if scheduler.journal is not None:
        scheduler.journal.close()
    return found


async def _many(scheduler: Scheduler, found: list[Stand]) -> None:
    for n in (1_000, N_MANY):
        last = scheduler.history.counts.total() + n
        async with _watched(f"`map()` over {n:,}, one call of yours", found):
            futures = scheduler.map(short, range(n))
        async with _watched(f"the ends of {n:,} calls", found):
            while scheduler.history.counts.total() < last:
                await asyncio.sleep(0.01)
        del futures


async def _large(scheduler: Scheduler, found: list[Stand]) -> None:
    megabytes = f"{N_LARGE_BYTES // 1_000_000} MB"
    values = array(N_LARGE_BYTES)
    await scheduler.submit(total, values)
    async with _watched(f"an argument of {megabytes} is submitted", found):
        future = scheduler.submit(total, values)
    async with _watched("it is sent", found):
        await future
    await scheduler.submit(array, N_LARGE_BYTES)
    async with _watched(f"a result of {megabytes} arrives", found):
        result = await scheduler.submit(array, N_LARGE_BYTES)
    async with _watched("it is dropped", found):
        del result
