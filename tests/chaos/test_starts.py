"""Workers that cannot start, and workers that start again: errors instead of loops, for real.

Each start method has programs of its own, since limits and what is imported hold for a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.figures import IS_LONG, report

REPOSITORY = Path(__file__).parents[2]
METHODS = ("forkserver", "spawn", "fork")
N_HEALS = 25 if IS_LONG else 3

COMMON = """
import asyncio, json, os, resource, signal, sys, time, types
from collections import Counter
from amltk_nb import Scheduler
from tests.executors import functions as f

async def ended(scheduler, fn=f.add, n_calls=6, before=lambda: None):
    run = scheduler.start(end_on_empty=True)
    before()
    futures = [scheduler.submit(fn, n) for n in range(n_calls)]
    state = str((await asyncio.wait_for(run.wait(), 30)).code)
    errors = [future.exception() for future in futures]
    return state, dict(Counter(type(error).__name__ for error in errors)), str(errors[-1])

def tell(**what):
    print(json.dumps(what), flush=True)
"""

CANNOT = """
def exits(starts):
    f.note(starts, "exits")
    os._exit(7)

def is_killed(starts):
    f.note(starts, "killed")
    os.kill(os.getpid(), signal.SIGKILL)

def raises(starts):
    f.note(starts, "raises")
    raise ValueError("no licence")

def imports(starts):
    f.note(starts, "imports")
    import kernel_only_there

# A module that was made, or has been deleted since it was imported: a new process has none.
module = sys.modules["kernel_only"] = types.ModuleType("kernel_only")
exec("def setup(_): pass", vars(module))

async def main(method, folder):
    for initializer in (exits, is_killed, raises, imports, module.setup):
        starts = os.path.join(folder, initializer.__name__)
        scheduler = Scheduler.with_processes(
            2, mp_context=method, initializer=initializer, initargs=(starts,)
        )
        for _ in range(2):
            tell(name=initializer.__name__, ended=await ended(scheduler))

asyncio.run(main(*sys.argv[1:]))
"""

HOARD = """
hoard = []

def leave(n_free):
    while True:
        try:
            hoard.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            break
    for _ in range(n_free):
        os.close(hoard.pop())
"""

WITHOUT_DESCRIPTORS = """
async def main(method):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))
    for n_free in range(13):
        scheduler = Scheduler.with_processes(2, mp_context=method)
        told = await ended(scheduler, before=lambda: leave(n_free))
        while hoard:
            os.close(hoard.pop())
        tell(n_free=n_free, ended=told, again=(await ended(scheduler))[1])

asyncio.run(main(*sys.argv[1:]))
"""

NOT_EVEN_STARTED = """
async def main(method):
    def n_open():
        return len(os.listdir("/proc/self/fd"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))
    scheduler = Scheduler.with_processes(2, mp_context=method)
    await ended(scheduler)
    n_before, n_free = n_open(), 0
    while True:
        leave(n_free)
        try:
            run, what = scheduler.start(), "started"
            scheduler.stop()
            await run
        except OSError as error:
            what = str(error)
        while hoard:
            os.close(hoard.pop())
        tell(what=what, n_leaked=n_open() - n_before)
        if what == "started":
            break
        n_free += 1
    tell(what=await ended(scheduler), n_leaked=n_open() - n_before)

asyncio.run(main(*sys.argv[1:]))
"""

HEALS = """
async def main(method, n_heals):
    scheduler = Scheduler.with_processes(4, mp_context=method)
    run = scheduler.start()
    def pids():
        return {worker.pid for worker in scheduler.backend.workers() if worker.state != "starting"}
    async def all_there(but):
        while len(pids() - but) < 4:
            await asyncio.gather(*[scheduler.submit(f.spin, 0.02) for _ in range(4)])
    await all_there(set())
    for _ in range(int(n_heals)):
        victims, began = pids(), time.monotonic()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        await all_there(victims)
        tell(seconds=time.monotonic() - began)
    scheduler.stop()
    await run

asyncio.run(main(*sys.argv[1:]))
"""


def told_by(source: str, *arguments: str) -> list[dict[str, Any]]:
    """Run a program to its end, which it must reach without a word of complaint."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + source, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_workers_that_cannot_start_end_in_an_error_on_the_calls(method: str, tmp_path: Path):
    reasons = {
        "exits": "exit code 7",
        "is_killed": "killed by SIGKILL",
        "raises": "ValueError: no licence",
        "imports": "No module named 'kernel_only_there'",
        "setup": "No module named 'kernel_only'",
    }
    if method == "fork":  # a copy of this process has what it has imported
        del reasons["setup"]
    told = told_by(CANNOT, method, str(tmp_path))
    for name, reason in reasons.items():
        ends = [each["ended"] for each in told if each["name"] == name]
        assert [end[:2] for end in ends] == [["exhausted", {"WorkerStartError": 6}]] * 2
        assert all(reason in end[2] and "3 in a row" in end[2] for end in ends)
        if name != "setup":  # three in a row, and one that was starting beside the last
            assert 2 * 3 <= len((tmp_path / name).read_text().splitlines()) <= 2 * 4
    if method == "fork":
        assert [each["ended"][1] for each in told if each["name"] == "setup"] == [
            {"NoneType": 6}
        ] * 2


@pytest.mark.parametrize("method", METHODS)
def test_without_descriptors_a_run_ends_and_the_next_one_works(method: str):
    told = told_by(HOARD + WITHOUT_DESCRIPTORS, method)
    assert [each["n_free"] for each in told] == list(range(13))
    assert [each["ended"][0] for each in told] == ["exhausted"] * 13
    kinds = [each["ended"][1] for each in told]
    assert all(each in ({"WorkerStartError": 6}, {"NoneType": 6}) for each in kinds), kinds
    assert kinds[0] == {"WorkerStartError": 6}
    assert "Too many open files" in told[0]["ended"][2]
    assert [each["again"] for each in told] == [{"NoneType": 6}] * 13


def test_a_start_without_descriptors_says_so_and_keeps_none():
    *failed, started, again = told_by(HOARD + NOT_EVEN_STARTED, "spawn")
    assert {each["what"] for each in failed} == {"[Errno 24] Too many open files"}
    assert len(failed) > 2
    assert started["what"] == "started"
    assert again["what"][:2] == ["exhausted", {"NoneType": 6}]
    assert [each["n_leaked"] for each in (*failed, started, again)] == [0] * (len(failed) + 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_whose_workers_all_die_heals(method: str):
    seconds = sorted(each["seconds"] for each in told_by(HEALS, method, str(N_HEALS)))
    assert len(seconds) == N_HEALS
    assert seconds[-1] < 20  # 2 s is what it is to be; how long it took is measured, not tested
    report(
        "heals",
        start_method=method,
        times_all_4_workers_were_killed=N_HEALS,
        median_seconds=seconds[N_HEALS // 2],
        longest_seconds=seconds[-1],
    )
