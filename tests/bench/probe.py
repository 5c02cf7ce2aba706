"""Take one measurement in a fresh process: `python -m tests.bench.probe burst ours 50000`.

A fresh process each time, so that no measurement pays for what another one left behind: a grown
heap, forked servers, modules. The last line printed is one JSON object: seconds of wall clock, CPU
seconds of this process and its workers, and whatever else the measurement is about.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Any

from tests.bench import peers
from tests.bench.functions import nothing, same
from tests.bench.functions import sleep as sleeping

Numbers = dict[str, float]


def burst_probes(who: str, n_calls: int, kind: str = "processes") -> float:
    """Measure a burst of empty calls."""
    if who == "joblib":
        return peers.burst_joblib(n_calls)
    if who == "pool":
        return peers.burst_pool(peers.pool(), n_calls)
    if who == "loky":
        from loky import get_reusable_executor

        return peers.burst_pool(get_reusable_executor(peers.N_WORKERS), n_calls)
    return peers.burst(_scheduler(who, kind), n_calls)


def chain_probes(who: str, n_calls: int) -> float:
    """Measure a chain: four calls in flight, each result submits the next."""
    if who == "pool":
        return peers.chain_pool(peers.pool(), n_calls)
    if who == "ours_by_value":  # as a function of a notebook travels
        return peers.chain(peers.ours(), n_calls, _of_a_notebook())
    return peers.chain(_scheduler(who, "processes"), n_calls)


def long_probes(who: str, n_calls: int) -> Numbers:
    """Measure calls of 50 ms; returns also the share of the ideal."""
    seconds = peers.work(peers.ours(), sleeping, [(0.05,)] * n_calls)
    return {"seconds": seconds, "share": n_calls * 0.05 / peers.N_WORKERS / seconds}


def worker_probes(who: str, n_calls: int) -> Numbers:
    """Measure calls of 10 ms on as many workers as `who` says; returns the share of the ideal."""
    n_workers = peers.N_WORKERS = int(who)
    scheduler = peers.ours()
    seconds = peers.work(scheduler, sleeping, [(0.01,)] * n_calls)
    worked_s = sum(call.seconds or 0.0 for call in scheduler.history.latest())
    share = (worked_s / n_workers - peers.WARM_S) / seconds
    return {"seconds": seconds, "share": share}


def mixed_probes(who: str, n_calls: int) -> Numbers:
    """Measure one call of 500 ms among many of 1 ms, in random order.

    The ideal is half of the work that was really done, as the workers measured it: a sleep of
    1 ms takes 1.1.
    """
    rng = random.Random(1)
    durations_s = [0.001] * n_calls + [0.5] * (n_calls // 50)
    rng.shuffle(durations_s)
    scheduler = peers.ours()
    seconds = peers.work(scheduler, sleeping, [(s,) for s in durations_s])
    worked_s = sum(call.seconds or 0.0 for call in scheduler.history.latest())
    worked_s -= peers.N_WORKERS * peers.WARM_S
    return {"seconds": seconds, "share": worked_s / peers.N_WORKERS / seconds}


def array_probes(who: str, n_calls: int) -> float:
    """Measure 8 MB arrays there and back, four under way."""
    import numpy as np

    array = np.zeros(1_000_000)
    if who == "pool":
        return peers.work_pool(peers.pool(), same, [(array,)] * n_calls)
    return peers.work(peers.ours(), same, [(array,)] * n_calls)


def flow_probes(who: str, n_calls: int) -> Numbers:
    """Measure a long flow; returns also how much memory a finished call leaves behind."""
    scheduler = peers.ours()
    task_rss: dict[int, int] = {}
    seen = 0

    def look(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen in (n_calls // 5, n_calls):
            task_rss[seen] = _rss_bytes()

    scheduler.on_future_done(look)
    seconds = peers.flow(scheduler, n_calls)
    grown = task_rss[n_calls] - task_rss[n_calls // 5]
    return {"seconds": seconds, "bytes_per_call": grown / (0.8 * n_calls)}


def first_probes(who: str, n_calls: int) -> float:
    """Measure from the start of a scheduler or pool to its first result, modules loaded."""
    if who == "ours":
        from amltk_nb import Scheduler  # noqa: F401
        from amltk_nb.scheduling.executors import process  # noqa: F401
    began = perf_counter()
    if who == "pool":
        with peers.pool() as pool:
            pool.submit(nothing).result()
            return perf_counter() - began
    return asyncio.run(_first_of_ours())


async def _first_of_ours() -> float:
    began = perf_counter()
    scheduler = peers.ours()
    run = scheduler.start()
    await scheduler.submit(nothing)
    seconds = perf_counter() - began
    run.stop()
    await run
    return seconds


def blocked_probes(who: str, n_calls: int) -> Numbers:
    """Measure how busy workers are while a cell blocks the loop; `n_calls` of 20 ms wait."""
    return asyncio.run(_blocked(n_calls))


async def _blocked(n_calls: int) -> Numbers:
    scheduler = peers.ours()
    run = scheduler.start()
    await scheduler.gather([scheduler.submit(sleeping, 0.05) for _ in range(peers.N_WORKERS)])
    futures = [scheduler.submit(sleeping, 0.02) for _ in range(n_calls)]
    began = perf_counter()
    sleep(0.02 * n_calls / peers.N_WORKERS * 0.8)  # the cell that blocks, shorter than the work
    blocked_s = perf_counter() - began
    await scheduler.gather(futures)
    calls = [f.call for f in futures]
    first = min(c.started_at for c in calls)
    within = sum(c.seconds for c in calls if c.started_at < first + blocked_s)
    run.stop()
    await run
    return {"seconds": blocked_s, "share": within / (peers.N_WORKERS * blocked_s)}


def monitor_probes(who: str, n_calls: int) -> Numbers:
    """Measure what a QueueMonitor takes of a core at 1 000 calls/s; on and off take turns."""
    return asyncio.run(_monitored(n_calls))


async def _monitored(n_calls: int) -> Numbers:
    from amltk_nb import QueueMonitor

    scheduler = peers.ours()
    task = scheduler.task(nothing)
    run = scheduler.start()
    await scheduler.gather([scheduler.submit(sleeping, peers.WARM_S)] * peers.N_WORKERS)
    cpu_s = {True: 0.0, False: 0.0}
    wall_s = {True: 0.0, False: 0.0}
    for n in range(6):
        monitor = QueueMonitor(scheduler) if n % 2 else None
        cpu_began, began = process_time(), perf_counter()
        await _paced(task, n_calls // 6)
        cpu_s[n % 2 == 1] += process_time() - cpu_began
        wall_s[n % 2 == 1] += perf_counter() - began
        if monitor is not None:
            monitor.detach()
    run.stop()
    await run
    share = cpu_s[True] / wall_s[True] - cpu_s[False] / wall_s[False]
    return {"seconds": wall_s[True], "share": share, "slower": wall_s[True] / wall_s[False]}


def journal_probes(who: str, n_calls: int, rate: float | None) -> Numbers:
    """Measure what a journal costs, until all is written; with and without take turns."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_recorded(n_calls, rate, Path(folder) / "run.db"))


async def _recorded(n_calls: int, rate: float | None, path: Path) -> Numbers:
    schedulers = {True: peers.ours(journal=path), False: peers.ours()}
    for scheduler in schedulers.values():
        scheduler.start()
        await scheduler.gather(
            [scheduler.submit(sleeping, peers.WARM_S) for _ in range(peers.N_WORKERS)]
        )
        await _given(scheduler, n_calls // 10, None)
    cpu_s = {True: 0.0, False: 0.0}
    wall_s = {True: 0.0, False: 0.0}
    for n in range(6):
        scheduler = schedulers[n % 2 == 1]
        gc.collect()  # of what the other one has left
        cpu_began, began = process_time(), perf_counter()
        await _given(scheduler, n_calls // 6, rate)
        cpu_s[n % 2 == 1] += process_time() - cpu_began
        wall_s[n % 2 == 1] += perf_counter() - began
    for scheduler in schedulers.values():
        scheduler.stop()
        await scheduler.last_run
    n_done = len(schedulers[True].journal.records("done"))
    assert n_done == peers.N_WORKERS + n_calls // 10 + 3 * (n_calls // 6), n_done
    assert schedulers[True].journal.n_unwritten == 0
    schedulers[True].journal.close()
    share = (cpu_s[True] - cpu_s[False]) / wall_s[True]
    return {"seconds": 2 * wall_s[True], "share": share, "slower": wall_s[True] / wall_s[False]}


async def _given(scheduler: Any, n_calls: int, rate: float | None) -> None:
    """Have calls done at a rate or all at once, and recorded if there is a journal."""
    task = scheduler.task(nothing)
    await _paced(task, n_calls, rate or math.inf)
    if scheduler.journal is not None:
        await asyncio.to_thread(scheduler.journal.flush)


async def _paced(task: Any, n_calls: int, rate: float = 1_000) -> None:
    began, futures = perf_counter(), []
    while len(futures) < n_calls:
        due = int(min(n_calls, (perf_counter() - began) * rate))
        futures += [task.submit() for _ in range(due - len(futures))]
        await asyncio.sleep(0.005)
    await asyncio.wait(futures)


def emit_probes(who: str, n_calls: int, n_callbacks: int = 0) -> float:
    """Measure emissions with some callbacks."""
    if who == "ours":
        from amltk_nb.events import Emitter, Event
    else:
        from amltk.scheduling.events import Emitter, Event
    event = Event("on_something")
    emitter = Emitter("bench")
    emitter.add_event(event)
    for _ in range(n_callbacks):
        emitter.on(event)(lambda x: None)
    emit = emitter.emit
    began = perf_counter()
    for _ in range(n_calls):
        emit(event, 1)
    return perf_counter() - began


def import_probes(who: str, n_calls: int) -> float:
    """Measure an import in interpreters of its own, the least of several."""
    modules = {"ours": "amltk_nb", "predecessor": "amltk.scheduling", "asyncio": "asyncio"}
    code = f"from time import perf_counter as t; b = t(); import {modules[who]}; print(t() - b)"
    command = [sys.executable, "-c", code]
    return min(float(subprocess.check_output(command, text=True)) for _ in range(n_calls))


def kernel_probes(who: str, n_calls: int) -> Numbers:
    """Measure how a kernel of version `who` answers while calls flow."""
    from tests.bench import notebook  # only the interpreter that starts kernels has what it needs

    return notebook.answering(who, n_calls)


def page_probes(who: str, n_calls: int, rate: float | None) -> Numbers:
    """Measure a flow in a kernel with the dashboard "open" or "closed"."""
    from tests.bench import notebook

    return notebook.flowing(n_calls, rate=rate, is_open=who == "open")


PROBES: dict[str, Callable[[str, int], float | Numbers]] = {
    "burst": burst_probes,
    "chain": chain_probes,
    "threads": lambda who, n: burst_probes(who, n, "threads"),
    "sequential": lambda who, n: burst_probes(who, n, "sequential"),
    "flow": flow_probes,
    "long": long_probes,
    "mixed": mixed_probes,
    "workers": worker_probes,
    "arrays": array_probes,
    "first": first_probes,
    "blocked": blocked_probes,
    "monitor": monitor_probes,
    "journal": lambda who, n: journal_probes(who, n, None),
    "journal at 1 000": lambda who, n: journal_probes(who, n, 1_000),
    "emit0": emit_probes,
    "emit5": lambda who, n: emit_probes(who, n, 5),
    "import": import_probes,
    "kernel": kernel_probes,
    "page": lambda who, n: page_probes(who, n, None),
    "page at 1 000": lambda who, n: page_probes(who, n, 1_000),
    "page at 20 000": lambda who, n: page_probes(who, n, 20_000),
}


def _scheduler(who: str, kind: str) -> Any:
    return peers.ours(kind) if who == "ours" else peers.predecessor(kind)


def _of_a_notebook() -> Callable[[], None]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("def nothing():\n    pass\n", names)
    fn: Callable[[], None] = names["nothing"]
    return fn


def _rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure what the command line says."""
    name, who, n_calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    measured = PROBES[name](who, n_calls)
    numbers = measured if isinstance(measured, dict) else {"seconds": measured}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = process_time() + children.ru_utime + children.ru_stime
    print(json.dumps({**numbers, "own_cpu_s": process_time(), "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
