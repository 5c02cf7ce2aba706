"""An interrupt at one line after another of what cells do: no call is lost, and nothing hangs."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import amltk_nb
from amltk_nb import Scheduler
from amltk_nb.scheduling.interrupts import ShieldedLock, gently, wholly
from amltk_nb.scheduling.states import CallState

PACKAGE = str(Path(amltk_nb.__file__).parent)
MOST_S = 30
ENDED = {CallState.DONE, CallState.CANCELLED}


@contextmanager
def as_in_a_cell() -> Iterator[None]:
    """Have an interrupt raise KeyboardInterrupt at once; asyncio's own handler does not."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


class Press:
    """Interrupts this thread at the n-th line of the package that it comes to."""

    def __init__(self, at: int) -> None:
        self._n_left = at
        self.has_come = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Press | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line" and not self.has_come:
            self._n_left -= 1
            if self._n_left < 0:
                self.has_come = True
                signal.raise_signal(signal.SIGINT)
        return self

    def during(self, act: Callable[[], Any]) -> bool:
        """Do something; returns whether it was interrupted."""
        with as_in_a_cell():
            sys.settrace(self)
            try:
                act()
            except KeyboardInterrupt:
                return True
            finally:
                sys.settrace(None)
        return False


def at_every_line(act: Callable[[], Any], *, step: int = 1) -> int:
    """Do something again and again, interrupted a line later each time.

    Returns:
        How often it was interrupted.
    """
    n_interrupted, at = 0, 0
    while True:
        press = Press(at)
        n_interrupted += press.during(act)
        if not press.has_come:
            return n_interrupted
        at += step


async def every_call_ends(scheduler: Scheduler) -> None:
    run = scheduler.last_run
    assert run is not None
    run.finish_when_empty()
    async with asyncio.timeout(MOST_S):
        assert str(await run) == "exhausted"
    counts = scheduler.snapshot().counts
    assert sum(counts.values()) == run.traffic.n_accepted
    assert {state for state, n in counts.items() if n} <= ENDED


@pytest.mark.may_block
async def test_submitting() -> None:
    scheduler = Scheduler.with_processes(1)
    scheduler.start()
    n_interrupted = at_every_line(lambda: scheduler.submit(abs, -1))
    assert n_interrupted > 50
    await every_call_ends(scheduler)
    assert scheduler.snapshot().counts[CallState.DONE] > n_interrupted / 2


@pytest.mark.may_block
async def test_cancelling() -> None:
    scheduler = Scheduler.with_processes(1)
    scheduler.start()
    scheduler.pause()
    futures = [scheduler.submit(abs, -1) for _ in range(500)]
    waiting = iter(futures)
    n_interrupted = at_every_line(lambda: scheduler.cancel(next(waiting)))
    assert n_interrupted > 20
    scheduler.resume()
    await every_call_ends(scheduler)
    assert all(future.done() for future in futures)


@pytest.mark.may_block
async def test_pausing_and_resuming() -> None:
    scheduler = Scheduler.with_processes(1)
    scheduler.start()
    futures = [scheduler.submit(abs, -n) for n in range(500)]
    assert at_every_line(scheduler.pause) > 5
    assert at_every_line(scheduler.resume) > 5
    scheduler.resume()
    await every_call_ends(scheduler)
    assert [future.result() for future in futures] == list(range(500))


@pytest.mark.may_block
@pytest.mark.parametrize("verb", ["start", "stop"])
async def test_starting_and_stopping(verb: str) -> None:
    schedulers: list[Scheduler] = []

    def start() -> None:
        schedulers.append(Scheduler.with_threads(1))
        schedulers[-1].start()

    def stop() -> None:
        running.pop().stop()

    if verb == "start":
        assert at_every_line(start, step=9) > 20
    else:
        for _ in range(100):
            start()
        running = list(schedulers)
        assert at_every_line(stop, step=5) > 5
    async with asyncio.timeout(MOST_S):
        for scheduler in schedulers:
            if (run := scheduler.last_run) is not None:
                scheduler.stop()
                assert str(await run) == "stopped"
            again = scheduler.start(end_on_empty=True)
            future = scheduler.submit(abs, -3)
            assert (str(await again), future.result()) == ("exhausted", 3)


def press_and_note(done: list[str], word: str) -> None:
    signal.raise_signal(signal.SIGINT)
    done.append(word)


def test_an_interrupt_comes_when_the_work_is_done() -> None:
    done: list[str] = []

    def work() -> None:
        with gently:
            with wholly:
                press_and_note(done, "first")
                press_and_note(done, "second")
            done.append("third")
        done.append("never")

    with as_in_a_cell(), pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["first", "second", "third"]


def test_a_second_interrupt_ends_what_may_hang() -> None:
    done: list[str] = []

    def work() -> None:
        with gently:
            press_and_note(done, "first")
            press_and_note(done, "never")

    with as_in_a_cell(), pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["first"]


def test_the_handler_is_as_before() -> None:
    with as_in_a_cell():
        with wholly:
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_asked_twice_an_interrupt_waits_for_a_lock_that_is_held() -> None:
    lock, done = ShieldedLock(), []

    def act() -> None:
        with gently:
            with lock.bare:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
                done.append("within the lock")
            signal.raise_signal(signal.SIGINT)
            done.append("asked again, of a callback that may never end")

    with as_in_a_cell(), pytest.raises(KeyboardInterrupt):
        act()
    assert done == ["within the lock"]
