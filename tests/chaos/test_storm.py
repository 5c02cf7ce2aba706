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
from tests.chaos.figures import IS_LONG, report
from tests.executors.driver import survivors

N_CALLS = 10_000 if IS_LONG else 600
N_KERNEL_CALLS = 10_000 if IS_LONG else 200
N_KERNEL_KILLS = 12 if IS_LONG else 3
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


def work_within(marks: str, n: int, seconds: float) -> int:
    """Do the same while this life may begin more calls, else wait for its end."""
    if os.path.getsize(marks) > int(Path(f"{marks}.most").read_text()):
        signal.pause()
    return work(marks, n, seconds)


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

    began_at = time.monotonic()
    run = scheduler.start(end_on_empty=True)
    killer = Killer(scheduler, seed=11)
    futures = [
        scheduler.submit(work, str(marks), n, seeded.uniform(0.001, 0.020)) for n in range(N_CALLS)
    ]
    assert await run == ExitCode.EXHAUSTED
    took_s = time.monotonic() - began_at
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
    report(
        "workers",
        batching="on" if batching else "off",
        calls=N_CALLS,
        workers_killed=killer.n_killed,
        calls_that_died=len(died),
        ends=ends.total(),
        calls_without_end=N_CALLS - len(ends),
        ended_twice=ends.total() - len(ends),
        begun_twice=began.total() - len(began),
        seconds=took_s,
    )


_LIFE = """
import asyncio, random, sys
from amltk_nb import Scheduler
from amltk_nb.errors import WorkerDiedError
from tests.chaos.test_storm import Killer, work_within

async def main(path, marks, n_calls, life):
    seeded = random.Random(life)
    scheduler = Scheduler.with_processes(3, journal=path, batching=life % 2 == 0)
    run = scheduler.start(end_on_empty=True)
    n_known = scheduler.journal.last_id
    futures = scheduler.recover()
    # What the former life had not even submitted; ids count the calls that were accepted.
    for n in range(n_known, n_calls):
        futures.append(scheduler.submit(work_within, marks, n, seeded.uniform(0.001, 0.020)))
    killer = Killer(scheduler, seed=life)
    await run
    assert {type(f.exception()) for f in futures} <= {type(None), WorkerDiedError}

asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
"""


class Lives:
    """One kernel after the other on one journal, each killed when it has got so far."""

    def __init__(self, folder: Path) -> None:
        self.journal, self.marks = folder / "run.db", folder / "marks"
        self.marks.touch()
        self.recorded: dict[int, str] = {}  # the states of calls with an end, by their numbers
        self.n_lives = self.n_killed = 0
        self._random = random.Random(3)

    def live(self, *, n_marks: int | None) -> None:
        """Live until so many calls more have begun, for a random moment if none, or to the end."""
        n_before = len(self._begun())
        self._allow(n_marks)
        self.n_lives += 1
        argv = [self.journal, self.marks, N_KERNEL_CALLS, self.n_lives]
        life = subprocess.Popen(
            [sys.executable, "-c", _LIFE, *map(str, argv)], stderr=subprocess.PIPE, text=True
        )
        if n_marks is not None:
            self._wait_for(life, n_before, n_marks)
            life.kill()
            self.n_killed += 1
        _, said = life.communicate()
        assert life.returncode == (0 if n_marks is None else -signal.SIGKILL), said
        # Calls of the life before may have begun meanwhile, but none that has a recorded end.
        assert self.recorded.keys().isdisjoint(self._begun()[n_before:])
        self._read_journal()

    def _allow(self, n_marks: int | None) -> None:
        """Have no life get so far ahead of whoever kills it that too few lives are lived."""
        n_bytes = sys.maxsize if n_marks is None else self.marks.stat().st_size + 24 * n_marks
        (self.marks.parent / "marks.most").write_text(str(n_bytes))

    def _wait_for(self, life: subprocess.Popen[str], n_before: int, n_marks: int) -> None:
        if n_marks == 0:
            time.sleep(self._random.uniform(0.1, 0.6))  # the chaos itself: nothing is waited for
        while len(self._begun()) < n_before + n_marks:
            assert life.poll() is None, life.communicate()[1]
            time.sleep(0.002)

    def _begun(self) -> list[int]:
        lines = self.marks.read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("began")]

    def _read_journal(self) -> None:
        journal = Journal(self.journal)
        before = self.recorded
        self.recorded = {record["id"] - 1: record["state"] for record in journal.records()}
        for n in [n for n, state in self.recorded.items() if state == "unfinished"]:
            del self.recorded[n]
        journal.close()
        assert before.items() <= self.recorded.items()  # nothing recorded changes or is lost


@pytest.mark.timeout(MOST_S)
def test_every_effect_is_recorded_though_the_kernel_dies(tmp_path: Path):
    lives, seeded, began_at = Lives(tmp_path), random.Random(3), time.monotonic()
    most = N_KERNEL_CALLS // N_KERNEL_KILLS
    for n_life in range(N_KERNEL_KILLS):
        # Killed at the beginning every now and then, when calls are recovered.
        lives.live(n_marks=0 if n_life % 4 == 1 else seeded.randrange(most // 2, most))
    lives.live(n_marks=None)
    assert lives.n_lives == N_KERNEL_KILLS + 1
    began, ended = counted(lives.marks, "began"), counted(lives.marks, "ended")
    died = {n for n, state in lives.recorded.items() if state == "failed"}
    assert set(lives.recorded.values()) <= {"done", "failed"}
    assert set(lives.recorded) == set(range(N_KERNEL_CALLS))
    assert set(ended) >= set(lives.recorded) - died
    report(
        "kernels",
        calls=N_KERNEL_CALLS,
        kernels_killed=lives.n_killed,
        calls_that_died_with_a_worker=len(died),
        recorded_ends=len(lives.recorded),
        begun_again_after_their_recorded_end=0,
        begun_again_without_one=began.total() - len(began),
        seconds=time.monotonic() - began_at,
    )
