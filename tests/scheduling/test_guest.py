"""A guest on the user's loop: nothing of ours is left on it, and nothing blocks it."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.scheduling.waiting import in_thread
from amltk_nb.testing import ManualBackend
from tests.scheduling.conftest import ByHand, settled


def f(x: int = 0) -> int:
    return x


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Check that the loop is afterwards as it was before, and that nothing complained on it."""
    loop = asyncio.get_running_loop()
    complaints: list[Any] = []

    def mine(_: Any, context: dict[str, Any]) -> None:
        complaints.append(context)

    loop.set_exception_handler(mine)
    tasks, on_sigint = asyncio.all_tasks(), signal.getsignal(signal.SIGINT)
    threads = threading.active_count()
    yield
    await settled()
    gc.collect()  # an error that nobody retrieved complains when its future is collected
    await settled()
    assert complaints == []
    assert loop.get_exception_handler() is mine
    loop.set_exception_handler(None)
    assert signal.getsignal(signal.SIGINT) is on_sigint
    assert asyncio.all_tasks() == tasks
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "amltk-nb-aside":
            thread.join(10)
    assert threading.active_count() == threads


WAYS = ["exhausted", "stop", "stop now", "timeout", "raise", "end", "callback", "cancelled wait"]


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_left_on_the_loop(by_hand: ByHand, way: str):
    async with nothing_left():
        await run_and_end(by_hand, way)


async def run_and_end(by_hand: ByHand, way: str) -> None:
    mode: Any = {"raise": "raise", "end": "end", "callback": "end"}.get(way, "continue")
    if way == "callback":
        by_hand.scheduler.on_start(lambda: 1 / 0)
    run = by_hand.start(
        timeout=0 if way == "timeout" else 3600,
        on_exception=mode,
        end_on_empty=way == "exhausted",
    )
    if by_hand.scheduler.running():
        by_hand.scheduler.call_later(3600, print)
        future = by_hand.scheduler.submit(f)
        if way in ("raise", "end"):
            by_hand.backend.fail(future, ValueError("never retrieved by anybody"))
        elif way != "stop now":
            by_hand.backend.finish(future)
    if way.startswith("stop"):
        by_hand.scheduler.stop(wait=way == "stop")
    if way == "cancelled wait":
        waiter = asyncio.ensure_future(run.wait())
        await settled()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        by_hand.scheduler.stop()
    await run.over()


async def test_failures_that_nobody_looks_at_do_not_complain(by_hand: ByHand):
    async def main() -> None:
        run = by_hand.start()
        futures = [by_hand.scheduler.submit(f) for _ in range(3)]
        waits = [asyncio.ensure_future(by_hand.scheduler.gather(futures)) for _ in range(2)]
        await settled()
        waits[0].cancel()
        while by_hand.backend.calls:
            by_hand.backend.fail(by_hand.backend.calls[0], ValueError("one"))
        await settled()
        with pytest.raises(ValueError, match="one"):
            await waits[1]
        by_hand.scheduler.stop(wait=False)
        await run

    async with nothing_left():
        await main()


async def test_an_error_of_somebody_else_on_the_loop_is_not_ours(by_hand: ByHand):
    loop, seen = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    run = by_hand.start(end_on_empty=True, on_exception="raise")
    loop.call_soon(lambda: 1 / 0)
    assert await run == ExitCode.EXHAUSTED
    assert [type(error) for error in seen] == [ZeroDivisionError]
    loop.set_exception_handler(None)


async def test_the_loop_turns_while_a_stopped_run_waits_for_its_calls():
    scheduler, gate, started = Scheduler.with_threads(1), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> str:
        loop.call_soon_threadsafe(started.set)
        gate.wait()
        return "finished"

    run = scheduler.start()
    future = scheduler.submit(wait)
    await asyncio.wait_for(started.wait(), 10)
    scheduler.stop()
    for _ in range(100):  # a loop that is blocked would never come here, the gate being shut
        await asyncio.sleep(0)
    assert (run.done(), scheduler.state) == (False, "stopping")
    gate.set()
    assert await run == ExitCode.STOPPED
    assert future.result() == "finished"


async def test_calls_start_on_free_workers_while_the_loop_is_blocked():
    scheduler, done = Scheduler.with_threads(1), threading.Semaphore(0)
    run = scheduler.start(end_on_empty=True)
    futures = [scheduler.submit(done.release) for _ in range(50)]
    # This thread is the loop's, and it does nothing but wait, as a long cell does.
    assert all(done.acquire(timeout=10) for _ in range(50))
    assert [future.done() for future in futures] == [False] * 50  # their events wait for the loop
    assert await run == ExitCode.EXHAUSTED


async def test_a_flood_of_ends_leaves_the_loop_to_others(by_hand: ByHand):
    scheduler = Scheduler.with_threads(2)
    run = scheduler.start(end_on_empty=True)
    scheduler.map(f, range(20_000))
    longest, last = 0.0, time.perf_counter()
    while not run.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert scheduler.snapshot().counts["done"] == 20_000
    assert longest < 3  # slices of 5 ms; the rest is for a busy machine


def test_a_loop_that_closes_ends_the_run():
    scheduler = Scheduler(ManualBackend())
    kept: list[Any] = []

    async def main() -> None:
        kept.append(scheduler.start())
        kept.append(scheduler.submit(f))

    asyncio.run(main())
    run, future = kept
    assert (scheduler.state, run.done(), future.cancelled()) == ("finished", True, True)
    assert run.exit_state == ExitCode.CANCELLED
    assert scheduler.event_counts["on_finished"] == 1
    assert scheduler.backend.n_closed == 1
    assert scheduler.run() == ExitCode.EXHAUSTED  # and it runs again


def test_what_runs_beside_a_loop_may_outlive_it():
    gate, entered = threading.Event(), threading.Event()

    async def main() -> None:
        slow = asyncio.ensure_future(in_thread(lambda: (entered.set(), gate.wait(10))[0]))
        while not entered.is_set():
            await asyncio.sleep(0)
        slow.cancel()

    asyncio.run(main())
    asides = [t for t in threading.enumerate() if t.name == "amltk-nb-aside"]
    gate.set()
    for thread in asides:
        thread.join(10)  # an error in it would be a warning, and so an error here
    assert len(asides) == 1


async def test_an_error_beside_the_loop_comes_back():
    def fails() -> None:
        raise ValueError("beside")

    with pytest.raises(ValueError, match="beside"):
        await in_thread(fails)


QUIET_SCRIPT = """
from amltk_nb import Scheduler

scheduler = Scheduler.with_threads(1)

@scheduler.on_start
def broken():
    raise ValueError("only logged")

scheduler.on_future_result(scheduler.stop)
print(scheduler.run(on_exception="continue", timeout=3600))
try:
    scheduler.run(timeout=3600)
except ValueError as error:
    print("raised", error)
"""


def test_a_script_ends_with_its_run_and_prints_nothing_of_its_own():
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIET_SCRIPT],
        capture_output=True,
        text=True,
        timeout=50,  # its timeouts of an hour must not keep it alive
        check=True,
    )
    assert (ended.stdout, ended.stderr) == ("exhausted\nraised only logged\n", "")
