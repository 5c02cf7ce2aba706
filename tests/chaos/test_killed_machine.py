"""Random orders of everything one may do, over real processes that are really killed.

Each call rings a bell when it has begun and waits at a gate of its own, so it is known at any
moment who runs what, and nothing waits for time to pass. Short here; AMLTK_NB_CHAOS=1 makes it
long.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from amltk_nb import ExitCode, Future, Retry, Scheduler
from amltk_nb.errors import WorkerDiedError
from amltk_nb.testing import EventRecorder
from tests.chaos.figures import IS_LONG, report
from tests.executors.driver import survivors
from tests.scheduling.model import events

N_EXAMPLES = 30 if IS_LONG else 8
N_STEPS = 20 if IS_LONG else 12
LEAST_STEPS = 250 if IS_LONG else 40
MOST_S = 300 if IS_LONG else 120
DEAD_S = 30
MAX_ATTEMPTS = {"work": 1, "again": 2}
PICK = st.integers(0, 1_000)


def wait_at_gate(bell: str, gate: str, n: int) -> int:
    """Say that it has begun, and who it is; then wait until somebody opens the gate."""
    with open(bell, "w") as file:
        file.write(f"{n} {os.getpid()}\n")  # in one piece: it is short
    with open(gate) as file:
        said = file.read()
    if said == "fail":
        raise ValueError(n)
    return n


@dataclass(eq=False)
class Fate:
    """What is to become of one future."""

    n: int
    kind: str
    gate: str
    future: Future[Any]
    n_failed: int = 0  # attempts
    n_begun: int = 0  # the same, with those that returned or were ended
    end: str = ""  # "": it lives
    error: type[BaseException] | None = None


class KilledMachine(RuleBasedStateMachine):
    """The engine over worker processes; every rule waits until all is as the model says."""

    n_steps = n_killed = n_calls = 0

    @initialize(n_workers=st.integers(1, 3), batching=st.booleans(), journal=st.booleans())
    def begin(self, n_workers: int, batching: bool, journal: bool) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.n_workers = n_workers
        path = self.folder / "run.db" if journal else None
        self.scheduler = Scheduler.with_processes(n_workers, batching=batching, journal=path)
        self.tasks = {
            "work": self.scheduler.task(wait_at_gate, name="work"),
            "again": self.scheduler.task(
                wait_at_gate, name="again", plugins=Retry(MAX_ATTEMPTS["again"], wait=0)
            ),
        }
        self.recorder = EventRecorder(self.scheduler)
        self.fates: list[Fate] = []
        self.at_gate: dict[int, int] = {}  # number of the call → pid of its worker
        self.pids: set[int] = set()
        self.numbers = count()
        self.loop = asyncio.new_event_loop()
        self.news = asyncio.Event()
        self.bell = str(self.folder / "bell")
        os.mkfifo(self.bell)
        self.bell_fd = os.open(self.bell, os.O_RDWR | os.O_NONBLOCK)
        self.loop.add_reader(self.bell_fd, self._rung)
        self.tasks["again"].on("retry", self.news.set)
        self.scheduler.watch(lambda: self.loop.call_soon_threadsafe(self.news.set))
        self._start()

    def _rung(self) -> None:
        for line in os.read(self.bell_fd, 1 << 16).decode().splitlines():
            n, pid = map(int, line.split())
            self.at_gate[n] = pid
            self.pids.add(pid)
            self.fates[n].n_begun += 1
        self.news.set()

    def _start(self) -> None:
        async def start() -> None:
            self.run = self.scheduler.start()

        self.loop.run_until_complete(start())

    def _until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                self.news.clear()
                await self.news.wait()

        self.loop.run_until_complete(asyncio.wait_for(wait(), DEAD_S))

    @property
    def live(self) -> list[Fate]:
        return [fate for fate in self.fates if not fate.end]

    def _picked(self, n: int) -> Fate:
        return self.fates[sorted(self.at_gate)[n % len(self.at_gate)]]

    def _settle(self) -> None:
        """Wait until all is as it must come to be, and see that it is."""
        ended = [fate for fate in self.fates if fate.end]
        n_busy = min(self.n_workers, len(self.live))
        self._until(lambda: all(fate.future.done() for fate in ended))
        self._until(lambda: all(f.future.call.attempt == f.n_failed + 1 for f in self.live))
        self._until(lambda: len(self.at_gate) == n_busy)
        counts = Counter(fate.end for fate in ended)
        counts["failed"] += sum(fate.n_failed - (fate.end == "failed") for fate in self.fates)
        shown = self.scheduler.snapshot().counts
        for state in ("done", "failed", "cancelled"):
            assert shown[state] == counts[state], (state, shown, counts)
        assert shown["queued"] + shown["running"] == len(self.live)
        assert not any(fate.future.done() for fate in self.live)
        type(self).n_steps += 1

    def _fails(self, fate: Fate, error: type[BaseException]) -> None:
        """Note that an attempt has failed; maybe another one follows."""
        del self.at_gate[fate.n]
        fate.n_failed += 1
        if fate.n_failed == MAX_ATTEMPTS[fate.kind]:
            fate.end, fate.error = "failed", error

    # ------------------------------------------------------------ rules

    def _submit(self, kind: str) -> Fate:
        n = next(self.numbers)
        gate = str(self.folder / f"gate-{n}")
        os.mkfifo(gate)
        fate = Fate(n, kind, gate, self.tasks[kind].submit(self.bell, gate, n))
        self.fates.append(fate)
        type(self).n_calls += 1
        return fate

    @rule(kind=st.sampled_from(["work", "again"]), n=st.integers(1, 4))
    def submit(self, kind: str, n: int) -> None:
        for _ in range(n):
            self._submit(kind)
        self._settle()

    @precondition(lambda self: self.at_gate)
    @rule(n=PICK, said=st.sampled_from(["go", "fail"]))
    def open_gate(self, n: int, said: str) -> None:
        fate = self._picked(n)
        self._open(fate, said)
        self._settle()

    def _open(self, fate: Fate, said: str) -> None:
        with open(fate.gate, "w") as file:  # waits until the call is there
            file.write(said)
        if said == "fail":
            self._fails(fate, ValueError)
        else:
            del self.at_gate[fate.n]
            fate.end = "done"

    @precondition(lambda self: self.at_gate)
    @rule(n=PICK, all_of_them=st.booleans())
    def kill(self, n: int, all_of_them: bool) -> None:
        fates = [self.fates[n] for n in self.at_gate] if all_of_them else [self._picked(n)]
        for fate in fates:
            os.kill(self.at_gate[fate.n], signal.SIGKILL)
            self._fails(fate, WorkerDiedError)
        type(self).n_killed += len(fates)
        self._settle()

    @precondition(lambda self: len(self.at_gate) < self.n_workers)
    @rule()
    def kill_the_idle(self) -> None:
        busy = set(self.at_gate.values())
        for worker in self.scheduler.backend.workers():
            if worker.pid and worker.pid not in busy:
                self.pids.add(worker.pid)
                with suppress(ProcessLookupError):  # killed before, and that is not known yet
                    os.kill(worker.pid, signal.SIGKILL)
                    type(self).n_killed += 1
        self._settle()

    @precondition(lambda self: self.live)
    @rule(n=PICK)
    def cancel(self, n: int) -> None:
        fate = self.live[n % len(self.live)]
        assert self.scheduler.cancel(fate.future) is True
        self.at_gate.pop(fate.n, None)
        fate.end = "cancelled"
        self._settle()

    @rule(n=st.integers(1, 3))
    def pause_and_resume(self, n: int) -> None:
        """What comes in while it is paused waits, and can be taken back."""
        self.scheduler.pause()
        fates = [self._submit("work") for _ in range(n)]
        assert {str(fate.future.call.state) for fate in fates} == {"queued"}
        assert fates[0].future.cancel() is True
        fates[0].end = "cancelled"
        self.scheduler.resume()
        self._settle()
        assert fates[0].n_begun == 0

    @rule(wait=st.booleans(), rarely=st.integers(0, 5).map(lambda n: n == 0))
    def stop_and_start_again(self, wait: bool, rarely: bool) -> None:
        if rarely:
            self._stop(wait=wait)
            self._start()

    # ------------------------------------------------------------ the end

    def _stop(self, *, wait: bool) -> None:
        self.scheduler.stop(wait=wait)
        for fate in self.live:
            if wait and fate.n in self.at_gate:
                self._open(fate, "go")
            else:
                fate.end = "cancelled"
        self.at_gate.clear()
        over = asyncio.wait_for(self.run.over(), DEAD_S)
        assert self.loop.run_until_complete(over) == ExitCode.STOPPED
        self._settle()
        self.all_ended_once()

    def all_ended_once(self) -> None:
        for fate in self.fates:
            n_attempts = fate.n_failed + (fate.end != "failed")
            assert fate.future.call.attempt == n_attempts
            assert self.recorder.of(fate.future) == events(
                fate.kind, fate.end, n_retries=n_attempts - 1
            )
            assert fate.future.cancelled() is (fate.end == "cancelled")
            if fate.end != "cancelled":
                assert fate.n_begun == fate.n_failed + (fate.end == "done")
                assert type(fate.future.exception()) is (fate.error or type(None))
        if (journal := self.scheduler.journal) is not None:
            told = {record["id"]: record["state"] for record in journal.records()}
            assert len(told) == sum(fate.future.call.attempt for fate in self.fates)
            assert [told[f.future.call.id] for f in self.fates] == [f.end for f in self.fates]

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        self._stop(wait=False)
        assert survivors(self.pids, timeout_s=10) == []
        with pytest.raises(BlockingIOError):  # nobody has rung who was not heard
            os.read(self.bell_fd, 1)
        self.loop.remove_reader(self.bell_fd)
        os.close(self.bell_fd)
        assert asyncio.all_tasks(self.loop) == set()
        if self.scheduler.journal is not None:
            self.scheduler.journal.close()
        self.loop.close()
        shutil.rmtree(self.folder)


@pytest.mark.timeout(MOST_S)
def test_any_order_over_processes_that_are_killed():
    machine = KilledMachine
    machine.n_steps = machine.n_killed = machine.n_calls = 0
    began = time.monotonic()
    run_state_machine_as_test(
        machine, settings=settings(max_examples=N_EXAMPLES, stateful_step_count=N_STEPS)
    )
    assert machine.n_steps >= LEAST_STEPS
    assert machine.n_killed > 2
    report(
        "orders over processes",
        orders=N_EXAMPLES,
        steps=machine.n_steps,
        calls=machine.n_calls,
        workers_killed=machine.n_killed,
        disagreements_with_the_model=0,  # the first one would have ended it
        seconds=round(time.monotonic() - began, 1),
    )
