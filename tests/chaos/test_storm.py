"""Workers killed at random, and kernels killed at random: nothing is lost, nothing ends twice.

Short here; `make chaos` makes it long (AMLTK_NB_CHAOS=1).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import WorkerDiedError
from amltk_nb.scheduling.journal import Journal
from tests.executors.driver import survivors

IS_LONG = bool(os.environ.get("AMLTK_NB_CHAOS"))
N_CALLS = 10_000 if IS_LONG else 1_000
N_KERNEL_CALLS = 3_000 if IS_LONG else 300
KILL_EVERY_S = 0.2
MOST_S = 600 if IS_LONG else 120


def work(marks: str, n: int, seconds: float) -> int:
    """Leave a mark at the beginning and one at the end; one write each, so none is torn."""
    file = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"began {n}\n".encode())
    time.sleep(seconds)
    os.write(file, f"ended {n}\n".encode())
    os.close(file)
    return n


def counted(marks: Path, word: str) -> Counter[int]:
    lines = (line.split() for line in marks.read_text().splitlines())
    return Counter(int(n) for said, n in lines if said == word)


class Killer:
    """Kills a random worker every so often, for as long as the run lives."""

    def __init__(self, scheduler: Scheduler, seed: int) -> None:
        self._scheduler = scheduler
        self._random = random.Random(seed)
        self.n_killed = 0
        self.pids: set[int] = set()
        self._next()

    def _next(self) -> None:
        self._scheduler.call_later(KILL_EVERY_S, self._kill)

    def _kill(self) -> None:
        pids = [worker.pid for worker in self._scheduler.backend.workers() if worker.pid]
        self.pids.update(pids)
        if pids:
            try:
                os.kill(self._random.choice(pids), signal.SIGKILL)
                self.n_killed += 1
            except ProcessLookupError:  # it has just died of another reason
                pass
        if self._scheduler.running():
            self._next()


@pytest.mark.timeout(MOST_S)
@pytest.mark.may_block
@pytest.mark.parametrize("batching", [True, False])
async def test_every_call_ends_once_though_workers_die(tmp_path: Path, batching: bool):
    marks, seeded = tmp_path / "marks", random.Random(7)
    scheduler = Scheduler.with_processes(4, batching=batching)
    ends: Counter[int] = Counter()

    @scheduler.on_future_done
    def note(future: Any) -> None:
        ends[future.call.id] += 1

    run = scheduler.start(end_on_empty=True)
    killer = Killer(scheduler, seed=11)
    futures = [
        scheduler.submit(work, str(marks), n, seeded.uniform(0.001, 0.020)) for n in range(N_CALLS)
    ]
    assert await run == ExitCode.EXHAUSTED
    errors = [future.exception() for future in futures]
    died = {n for n, error in enumerate(errors) if error is not None}
    assert {type(error) for error in errors} <= {type(None), WorkerDiedError}
    assert killer.n_killed > 2
    assert 0 < len(died) <= killer.n_killed
    assert ends == Counter(future.call.id for future in futures)
    assert [f.result() for n, f in enumerate(futures) if n not in died] == [
        n for n in range(N_CALLS) if n not in died
    ]
    began, ended = counted(marks, "began"), counted(marks, "ended")
    assert set(ended) >= set(range(N_CALLS)) - died
    assert survivors(killer.pids, timeout_s=10) == []
    if not batching:  # at most once: nothing that began is begun again
        assert max(began.values()) == 1
        assert set(began) == set(range(N_CALLS)) or set(range(N_CALLS)) - set(began) <= died


_LIFE = """
import asyncio, sys
from amltk_nb import Scheduler
from tests.chaos.test_storm import work

async def main(path, marks, n_calls):
    scheduler = Scheduler.with_processes(3, journal=path)
    run = scheduler.start(end_on_empty=True)
    n_known = scheduler.journal.last_id
    futures = scheduler.recover()
    # What the former life had not even submitted; ids count the calls that were accepted.
    futures += [scheduler.submit(work, marks, n, 0.01) for n in range(n_known, n_calls)]
    await run
    assert all(future.exception() is None for future in futures)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.mark.timeout(MOST_S)
def test_every_effect_is_recorded_though_the_kernel_dies(tmp_path: Path):
    path, marks, seeded = tmp_path / "run.db", tmp_path / "marks", random.Random(3)
    argv = [sys.executable, "-c", _LIFE, str(path), str(marks), str(N_KERNEL_CALLS)]
    recorded: set[int] = set()
    n_lives = 0
    while True:
        n_lives += 1
        n_before = sum(counted(marks, "began").values()) if marks.exists() else 0
        life = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        try:
            _, said = life.communicate(timeout=seeded.uniform(0.7, 2.0))
        except subprocess.TimeoutExpired:
            life.kill()
            _, said = life.communicate()
        assert life.returncode in (0, -signal.SIGKILL), said
        text = marks.read_text() if marks.exists() else ""
        lines = [line for line in text.splitlines() if line.startswith("began")]
        # A life may have been killed while the workers of the one before still ended.
        assert recorded.isdisjoint(int(line.split()[1]) for line in lines[n_before:])
        journal = Journal(path)
        recorded = {record["id"] - 1 for record in journal.records("done")}
        journal.close()
        if life.returncode == 0:
            break
    assert n_lives > 2
    assert recorded == set(range(N_KERNEL_CALLS))
    assert set(counted(marks, "ended")) == recorded
