"""Stopping with a grace: running calls have so many seconds, and are ended then."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.grace import grace_s
from amltk_nb.scheduling.run import Run
from amltk_nb.testing import ManualBackend
from tests.executors.contract import open_gate, wait_at
from tests.scheduling.conftest import ByHand, settled

LONG_S = 20  # a wait of this length is a failure
FAR_S = 1e6  # nobody sees this one end


def g() -> None: ...


async def ended(run: Run) -> Any:
    return await asyncio.wait_for(run.wait(), LONG_S)


def grace_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "amltk-nb-grace"]


# --- what may be asked for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (True, math.inf),
        (math.inf, math.inf),
        (10**400, math.inf),
        (False, 0.0),
        (0, 0.0),
        (0.0, 0.0),
        (1, 1.0),
        (2.5, 2.5),
    ],
)
def test_what_a_wait_means(wait: Any, seconds: float):
    assert grace_s(wait) == seconds


@pytest.mark.parametrize(
    ("wait", "error", "message"),
    [
        (-1, ValueError, "wait=-1: use 0 or more seconds, or True"),
        (-math.inf, ValueError, "wait=-inf: use 0 or more seconds"),
        (math.nan, ValueError, "wait=nan: use 0 or more seconds"),
        ("5", TypeError, "wait='5': use True .*, False .*, or the number of seconds"),
        ([5], TypeError, r"wait=\[5\]: use True"),
        (5j, TypeError, "wait=5j: use True"),
    ],
)
async def test_a_wait_that_means_nothing(
    by_hand: ByHand, wait: Any, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        by_hand.scheduler.stop(wait=wait)  # also where there is nothing to stop
    with pytest.raises(error, match=message):
        by_hand.start(wait=wait)
    assert by_hand.backend.n_opened == 0
    by_hand.start()
    for stop in (by_hand.scheduler.stop, by_hand.scheduler.last_run.stop):  # type: ignore[union-attr]
        with pytest.raises(error, match=message):
            stop(wait=wait, exception=ValueError("a reason"))
    assert by_hand.scheduler.running()


async def test_none_is_for_stop_only(by_hand: ByHand):
    with pytest.raises(TypeError, match="wait=None: use True"):
        by_hand.start(wait=None)


# --- what happens -----------------------------------------------------------------------------


async def test_calls_that_end_within_it_are_left_alone(by_hand: ByHand):
    run = by_hand.start()
    one, other = by_hand.scheduler.submit(g), by_hand.scheduler.submit(g)
    by_hand.scheduler.stop(wait=FAR_S)
    by_hand.backend.finish(one, 1)
    await settled()
    assert (one.result(), run.done()) == (1, False)
    by_hand.backend.finish(other, 2)
    assert await ended(run) == ExitCode.STOPPED
    assert (other.result(), grace_threads()) == (2, [])


async def test_calls_that_do_not_are_ended(by_hand: ByHand):
    run = by_hand.start()
    running = [by_hand.scheduler.submit(g) for _ in range(2)]
    queued = by_hand.scheduler.submit(g)
    by_hand.scheduler.stop(stop_msg="enough", wait=0.01)
    assert not any(future.done() for future in running)
    assert await ended(run) == ExitCode.STOPPED
    assert [future.cancelled() for future in (*running, queued)] == [True] * 3
    assert by_hand.recorder.counts["on_future_cancelled"] == 3
    assert by_hand.recorder.counts["on_stop"] == 1
    assert (run.reason, grace_threads()) == ("enough", [])
    told = [line.text for line in by_hand.scheduler.snapshot().log]
    assert told == ["the time that running calls had to finish is over: they are ended"]


@pytest.mark.parametrize("options", [{}, {"timeout": 0.0}])
async def test_a_run_may_be_started_with_one(by_hand: ByHand, options: Any):
    run = by_hand.start(wait=0.01, **options)
    future = by_hand.scheduler.submit(g)
    if not options:
        by_hand.scheduler.stop()
    assert await ended(run) == (ExitCode.TIMEOUT if options else ExitCode.STOPPED)
    assert future.cancelled()


async def test_what_cannot_be_ended_is_left_behind(make_by_hand: Callable[..., ByHand]):
    by_hand = make_by_hand(cannot_end="it is made so")
    run = by_hand.start()
    future = by_hand.scheduler.submit(g)
    by_hand.scheduler.stop(wait=0.01)
    assert await ended(run) == ExitCode.STOPPED
    assert future.cancelled()


async def test_coroutine_callbacks_have_the_same_time(by_hand: ByHand):
    over = []

    @by_hand.scheduler.on_stop
    async def takes_for_ever(*_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            over.append(True)

    run = by_hand.start()
    by_hand.scheduler.stop(wait=0.01)
    assert await ended(run) == ExitCode.STOPPED
    assert over == [True]


@pytest.mark.parametrize(
    "waits",
    [
        (True, 0.01),
        (FAR_S, 0.01),
        (FAR_S, 2 * FAR_S, False),
        (0.01, FAR_S),
        (0.01, True),
        (0.01, None),
        (FAR_S, FAR_S / 2, True, 0.01, FAR_S),
    ],
)
async def test_asking_again_can_only_make_it_quicker(by_hand: ByHand, waits: tuple[Any, ...]):
    run = by_hand.start()
    future = by_hand.scheduler.submit(g)
    for wait in waits:
        by_hand.scheduler.stop(wait=wait)
    assert await ended(run) == ExitCode.STOPPED
    assert (future.cancelled(), grace_threads()) == (True, [])


async def test_a_loop_that_is_blocked_does_not_stretch_it(make_by_hand: Callable[..., ByHand]):
    asked = threading.Event()

    class Backend(ManualBackend):
        def end(self, call: Call) -> bool:
            asked.set()
            return super().end(call)

    scheduler = Scheduler(Backend())
    run = scheduler.start()
    future = scheduler.submit(g)
    scheduler.stop(wait=0.01)
    assert asked.wait(LONG_S)  # the loop is here, and turns not once meanwhile
    assert await ended(run) == ExitCode.STOPPED
    assert future.cancelled()


async def test_where_no_thread_can_be_started_the_loop_keeps_the_time(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
):
    def refused(timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", refused)
    run = by_hand.start()
    future = by_hand.scheduler.submit(g)
    by_hand.scheduler.stop(wait=0.01)
    assert await ended(run) == ExitCode.STOPPED
    assert future.cancelled()


async def test_from_many_threads_the_shortest_one_holds(by_hand: ByHand):
    run = by_hand.start()
    future = by_hand.scheduler.submit(g)
    together = threading.Barrier(8)

    def stop(n: int) -> None:
        together.wait(LONG_S)
        for m in range(20):
            by_hand.scheduler.stop(wait=FAR_S - n - m if (n, m) != (3, 10) else 0.01)

    threads = [threading.Thread(target=stop, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    assert await ended(run) == ExitCode.STOPPED
    for thread in threads:
        thread.join(LONG_S)
    assert (future.cancelled(), by_hand.recorder.counts["on_stop"]) == (True, 1)


async def test_the_next_run_knows_nothing_of_it(by_hand: ByHand):
    first = by_hand.start()
    by_hand.scheduler.stop(wait=FAR_S)
    await ended(first)
    second = by_hand.start()
    future = by_hand.scheduler.submit(g)
    by_hand.scheduler.stop()
    await settled()
    assert (by_hand.scheduler.snapshot().run.grace_ends_at, future.done()) == (None, False)
    by_hand.backend.finish(future)
    assert await ended(second) == ExitCode.STOPPED


# --- what is seen of it -----------------------------------------------------------------------


@pytest.mark.parametrize(("wait", "seconds"), [(True, None), (False, 0.0), (5, 5.0)])
async def test_a_snapshot_says_what_a_plain_stop_gives(
    by_hand: ByHand, wait: Any, seconds: float | None
):
    assert by_hand.scheduler.snapshot().run.grace_s is None
    by_hand.start(wait=wait)
    assert by_hand.scheduler.snapshot().run.grace_s == seconds


async def test_a_snapshot_says_when_it_ends(by_hand: ByHand):
    def ends_at() -> float | None:
        return by_hand.scheduler.snapshot().run.grace_ends_at

    run = by_hand.start(wait=5)
    future = by_hand.scheduler.submit(g)
    assert ends_at() is None
    by_hand.scheduler.stop(wait=FAR_S)
    assert ends_at() == 1_000.0 + FAR_S
    by_hand.clock.advance(7)
    by_hand.scheduler.stop(wait=500)
    assert ends_at() == 1_507.0
    by_hand.scheduler.stop(wait=600)
    by_hand.scheduler.stop(wait=True)
    by_hand.scheduler.stop()
    assert ends_at() == 1_507.0
    by_hand.backend.finish(future)
    await ended(run)
    assert ends_at() is None


async def test_real_processes_are_ended_when_it_is_over():
    scheduler = Scheduler.with_processes(2)
    run = scheduler.start()
    async with open_gate() as gate:
        futures = [scheduler.submit(wait_at, gate.path) for _ in range(2)]
        await gate.arrived(2)
        scheduler.stop(wait=0.05)
        assert await ended(run) == ExitCode.STOPPED  # and nobody has opened the gate
    assert [future.cancelled() for future in futures] == [True, True]
