"""Stopping: from everywhere, at any time, as often as one likes, with all that calls started."""

from __future__ import annotations

import asyncio
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import SchedulerNotRunningError
from amltk_nb.testing import EventRecorder
from tests.chaos.figures import IS_LONG, report
from tests.executors import functions as f
from tests.executors.contract import child_pids

METHODS = ("forkserver", "spawn", "fork")
N_FAMILIES = 20 if IS_LONG else 1
N_CYCLES = 200 if IS_LONG else 12
N_DEADLINES = 100 if IS_LONG else 2
N_THREADS = 8
LONG_S = 20  # a wait of this length is a failure

# Forking a process with threads is what the user of `fork` asks for; Python 3.12 warns of it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to:DeprecationWarning"),
    pytest.mark.timeout(600 if IS_LONG else 60),
]


# --- what calls have started ------------------------------------------------------------------

FAMILY = (
    "exec sleep {name}",
    'trap "" TERM HUP INT; sleep {name}; true',  # deaf, and its child as well
    "sleep {name} & wait",  # a grandchild
    "setsid sleep {name} & true",  # a daemon: its parent is gone at once
)
N_FAMILY = 1 + 2 + 2 + 1 + 1  # shells that live, sleepers, and the one in a session of its own


def raise_family(name: str) -> None:
    for command in FAMILY:
        subprocess.Popen(["sh", "-c", command.format(name=name)])
    subprocess.run(["sleep", name], start_new_session=True, check=False)


def family(name: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(process.info["cmdline"] or ())
        if name in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again; what is looked for happens in processes that tell nobody."""
    async with asyncio.timeout(LONG_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.may_block
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_what_calls_have_started_ends_with_them(method: str, how: str):
    scheduler = Scheduler.with_processes(2, mp_context=method)
    took = []
    for n in range(N_FAMILIES):
        run = scheduler.start()
        names = [f"{600 + n}.{time.monotonic_ns()}{i}" for i in range(2)]
        futures = [scheduler.submit(raise_family, name) for name in names]
        await until(lambda names=names: sum(map(len, map(family, names))) == 2 * N_FAMILY)  # type: ignore[misc]
        began = time.monotonic()
        if how == "stop":
            scheduler.stop(wait=False)
        else:
            assert [future.cancel() for future in futures] == [True, True]
        await until(lambda names=names: not any(map(family, names)))  # type: ignore[misc]
        took.append(time.monotonic() - began)
        scheduler.stop()
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
        assert [future.cancelled() for future in futures] == [True, True]
    took.sort()
    report(
        "families",
        start_method=method,
        ended_by=f"`{how}(wait=False)`" if how == "stop" else "`future.cancel()`",
        times=N_FAMILIES,
        processes_each_time=2 * N_FAMILY,
        survivors=0,
        median_seconds=took[len(took) // 2],
        longest_seconds=took[-1],
    )


# --- from everywhere --------------------------------------------------------------------------


GRACES = (True, 30.0)  # no call here lasts as long
HASTES = (True, False, 30.0, 0.002, 0)


class Stoppers:
    """Threads that all stop a scheduler when they are let go, more than once each."""

    def __init__(self, scheduler: Scheduler, waits: list[bool | float]) -> None:
        self._go = threading.Barrier(max(1, len(waits)))
        self._scheduler = scheduler
        self._is_let_go = threading.Event()
        self._threads = [threading.Thread(target=self._stop, args=(wait,)) for wait in waits]
        self.errors: list[BaseException] = []
        for thread in self._threads:
            thread.start()

    def let_go(self, *_: Any) -> None:
        self._is_let_go.set()

    def join(self) -> None:
        self.let_go()
        for thread in self._threads:
            thread.join(LONG_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def _stop(self, wait: bool | float) -> None:
        self._is_let_go.wait(LONG_S)
        self._go.wait(LONG_S)
        try:
            for _ in range(5):
                self._scheduler.stop(stop_msg="from a thread", wait=wait)
        except BaseException as error:
            self.errors.append(error)


MOMENTS = (
    "before",
    "on_start",
    "on_future_submitted",
    "on_future_result",
    "on_empty",
    "on_stop",
    "on_finishing",
    "on_finished",
)


class Besieged:
    """A scheduler whose runs are stopped from a callback and from many threads at one moment."""

    def __init__(self) -> None:
        self.scheduler = Scheduler.with_processes(3)
        self.n_stopped = self.n_calls = 0
        self.moments: Counter[str] = Counter()
        self._moment = "before"
        self._wait = True
        self._stoppers = Stoppers(self.scheduler, [])
        self._ends: Counter[int] = Counter()
        self._recorder = EventRecorder(self.scheduler)
        for event in ("on_future_done", "on_future_cancelled"):
            self.scheduler.on(event, lambda future: self._ends.update([future.call.id]))
        for event in MOMENTS[1:]:
            self.scheduler.on(event, lambda *_, event=event: self._stop_if(event))  # type: ignore[misc]

    def _stop_if(self, moment: str) -> None:
        if moment == self._moment:
            self.moments[moment] += 1
            self._stoppers.let_go()
            self.scheduler.stop(wait=self._wait)

    async def run(self, moment: str, seeded: random.Random) -> None:
        """Have one run end at a moment, and see that all of it has ended once."""
        self._moment, self._wait = moment, seeded.random() < 0.5
        waits = [seeded.choice(GRACES if self._wait else HASTES) for _ in range(N_THREADS)]
        self._stoppers = Stoppers(self.scheduler, waits)
        self._ends.clear()
        self._recorder.clear()
        if moment == "before":
            self._stoppers.let_go()
        run = self.scheduler.start(end_on_empty=True)
        futures = await self._submitted(seeded)
        state = await asyncio.wait_for(run.wait(), LONG_S)
        self._stoppers.join()
        assert self._stoppers.errors == []
        assert state in (ExitCode.STOPPED, ExitCode.EXHAUSTED)
        assert all(future.done() for future in futures)
        assert self._ends == Counter(future.call.id for future in futures)
        counts = self._recorder.counts
        assert [counts[name] for name in ("on_start", "on_finishing", "on_finished")] == [1, 1, 1]
        assert counts["on_stop"] == (state == ExitCode.STOPPED)
        self.n_stopped += state == ExitCode.STOPPED
        self.n_calls += len(futures)

    async def _submitted(self, seeded: random.Random) -> list[Any]:
        futures = []
        try:
            for _ in range(30):
                futures.append(self.scheduler.submit(time.sleep, seeded.uniform(0, 0.005)))
                await asyncio.sleep(0)
        except SchedulerNotRunningError:
            pass
        return futures


@pytest.mark.may_block
async def test_stop_from_eight_threads_and_every_callback_and_again():
    besieged, seeded, before = Besieged(), random.Random(5), child_pids()
    for n in range(N_CYCLES):
        await besieged.run(MOMENTS[n % len(MOMENTS)], seeded)
    scheduler = besieged.scheduler
    besieged._moment = "never"
    run = scheduler.start(end_on_empty=True)
    futures = [scheduler.submit(f.add, n) for n in range(20)]
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
    assert [future.result() for future in futures] == list(range(1, 21))
    assert besieged.n_stopped > N_CYCLES // 3
    assert child_pids() - before <= fork_servers()
    report(
        "stops",
        runs=N_CYCLES,
        threads_that_stop_each=N_THREADS,
        ended_by_it=besieged.n_stopped,
        calls=besieged.n_calls,
        calls_without_end_or_with_two=0,
        hangs=0,
    )


def fork_servers() -> set[int]:
    """The processes that serve all schedulers for as long as this one lives."""
    kept = ("resource_tracker", "multiprocessing.forkserver")
    processes = psutil.Process().children()
    return {p.pid for p in processes if any(word in " ".join(p.cmdline()) for word in kept)}


# --- deadlines --------------------------------------------------------------------------------


def held_until(event: threading.Event) -> None:
    event.wait(LONG_S)


def lateness_of_this_machine() -> float:
    """Say how late a bare timer of a bare loop is, seconds."""
    began = time.monotonic()
    asyncio.run(asyncio.sleep(0.05))
    return time.monotonic() - began - 0.05


def processes(_: threading.Event) -> tuple[Scheduler, Any, int]:
    return Scheduler.with_processes(2), (time.sleep, LONG_S), 20


def busy_processes(_: threading.Event) -> tuple[Scheduler, Any, int]:
    return Scheduler.with_processes(2), (f.spin, 0.002), 5_000


def threads(end: threading.Event) -> tuple[Scheduler, Any, int]:
    return Scheduler.with_threads(2), (held_until, end), 20


def sequential(_: threading.Event) -> tuple[Scheduler, Any, int]:
    return Scheduler.with_sequential(), (f.spin, 0.005), 1_000


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (processes, "processes, calls without end"),
        (busy_processes, "processes, 5,000 calls of 2 ms"),
        (threads, "threads, calls without end (left behind)"),
        (sequential, "sequential, between calls of 5 ms"),
    ],
)
def test_a_run_ends_when_its_time_is_over(kind: Any, what: str):
    seeded, late, machine_late = random.Random(9), [], []
    end = threading.Event()
    for _ in range(N_DEADLINES):
        scheduler, work, n_calls = kind(end)
        timeout = seeded.uniform(0.05, 0.4)

        @scheduler.on_start
        async def submit(
            scheduler: Scheduler = scheduler, work: Any = work, n_calls: int = n_calls
        ) -> None:
            for n in range(n_calls):
                if n % 50 == 0:  # whoever holds the loop holds up the deadline as well
                    await asyncio.sleep(0)
                    if not scheduler.running():
                        return
                scheduler.submit(*work)

        began = time.monotonic()
        assert scheduler.run(timeout=timeout, wait=False) == ExitCode.TIMEOUT
        late.append(time.monotonic() - began - timeout)
        assert scheduler.queue == {}
        machine_late.append(lateness_of_this_machine())
    end.set()
    late.sort()
    assert late[0] > -0.01
    assert late[-1] < 5  # 0.2 s is what it is to be; how late it was is measured, not tested
    report(
        "deadlines",
        where=what,
        runs=N_DEADLINES,
        median_seconds_late=late[len(late) // 2],
        longest_seconds_late=late[-1],
        later_than_200_ms=sum(each > 0.2 for each in late),
        longest_of_a_bare_timer=max(machine_late),
    )
