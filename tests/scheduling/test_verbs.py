"""map, gather, as_completed and wait do what users of the standard library expect of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from amltk_nb import Future, Limiter, Scheduler
from amltk_nb.errors import SchedulerNotRunningError
from amltk_nb.testing import ManualBackend
from tests.scheduling.conftest import ByHand, settled

LONG_S = 20  # a wait of this length is a failure


def f(x: int = 0) -> int:
    return x


def add(x: int, y: int, z: int = 0) -> int:
    return x + y + z


def in_script(fn: Callable[..., Any], *arguments: Any) -> tuple[Scheduler, list[Future[Any]]]:
    """Run calls as a script does: their loop is closed afterwards."""
    scheduler = Scheduler.with_threads(2)
    futures: list[Future[Any]] = []
    scheduler.on_start(lambda: futures.extend(scheduler.map(fn, *arguments)))
    scheduler.run(on_exception="continue")
    return scheduler, futures


async def in_thread(fn: Callable[[], Any]) -> Any:
    return await asyncio.wait_for(asyncio.to_thread(fn), LONG_S)


# ------------------------------------------------------------ map


async def test_map_takes_several_iterables_and_ends_with_the_shortest(by_hand: ByHand):
    by_hand.start()
    task = by_hand.scheduler.task(add)
    for mapped in (by_hand.scheduler.map(add, [1, 2, 3], range(10, 12)), task.map([1, 2], "ab")):
        assert len(mapped) == 2
    calls = [(call.function, call.args) for call in by_hand.scheduler.calls()]
    assert calls[::-1] == [
        ("add", "1, 10"),
        ("add", "2, 11"),
        ("add", "1, 'a'"),
        ("add", "2, 'b'"),
    ]


async def test_map_returns_in_order_whatever_ends_first(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, (n for n in range(4)))
    for n, future in reversed(list(enumerate(futures[:2]))):
        by_hand.backend.finish(future, n)
    for n, future in enumerate(futures[2:], 2):
        by_hand.backend.finish(future, n)
    assert await by_hand.scheduler.gather(futures) == [0, 1, 2, 3]


async def test_map_over_nothing_submits_nothing(by_hand: ByHand):
    by_hand.start()
    assert by_hand.scheduler.map(f, []) == []
    assert by_hand.scheduler.task(f).map([]) == []
    assert by_hand.scheduler.snapshot().counts["running"] == 0


async def test_map_without_iterables_is_a_mistake(by_hand: ByHand):
    by_hand.start()
    with pytest.raises(TypeError, match=r"map\(f\): pass at least one iterable"):
        by_hand.scheduler.map(f)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"map\(\): pass at least one iterable"):
        by_hand.scheduler.task(f).map()


async def test_map_of_what_cannot_be_called_is_a_mistake_even_over_nothing(by_hand: ByHand):
    by_hand.start()
    with pytest.raises(TypeError, match="pass the function itself"):
        by_hand.scheduler.map(f(1), [])  # type: ignore[call-overload]


def test_map_before_a_run_says_so_even_over_nothing():
    scheduler = Scheduler(ManualBackend())
    with pytest.raises(SchedulerNotRunningError, match=r"scheduler\.start\(\)"):
        scheduler.map(f, [])
    with pytest.raises(SchedulerNotRunningError, match=r"scheduler\.start\(\)"):
        scheduler.task(f).map([])


async def test_a_tasks_map_leaves_out_what_a_plugin_refused(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.task(f, plugins=Limiter(max_calls=2)).map(range(5))
    assert [future.call.args for future in futures] == [(0,), (1,)]


async def test_map_works_from_another_thread(by_hand: ByHand):
    by_hand.start()
    futures = await in_thread(lambda: by_hand.scheduler.map(f, range(3)))
    for n, future in enumerate(futures):
        by_hand.backend.finish(future, n)
        await settled()
    assert [future.result() for future in futures] == [0, 1, 2]


# ------------------------------------------------------------ gather


async def test_gathering_nothing_is_nothing(by_hand: ByHand):
    by_hand.start()
    assert await by_hand.scheduler.gather([]) == []
    assert await by_hand.scheduler.gather(iter(())) == []


async def test_gather_raises_the_first_error_and_leaves_the_others_alone(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(2))
    by_hand.backend.fail(futures[1], ValueError("second"))
    with pytest.raises(ValueError, match="second"):
        await by_hand.scheduler.gather(futures)
    assert futures[0].call.state == "running"


async def test_gather_raises_an_error_that_is_there_without_waiting(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(2))
    by_hand.backend.fail(futures[1], ValueError("there"))
    await settled()
    with pytest.raises(ValueError, match="there"):
        await by_hand.scheduler.gather(futures)


async def test_gather_returns_errors_and_cancelled_ones_in_their_places(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(4))
    error = ValueError("bad")
    futures[3].cancel()
    by_hand.backend.fail(futures[0], error)
    by_hand.backend.finish(futures[1], 1)
    gathering = asyncio.ensure_future(
        by_hand.scheduler.gather([*futures, futures[1]], return_exceptions=True)
    )
    await settled()
    assert not gathering.done()
    by_hand.backend.finish(futures[2], 2)
    first, second, third, cancelled, again = await gathering
    assert (first, second, third, again) == (error, 1, 2, 1)
    assert isinstance(cancelled, asyncio.CancelledError)


async def test_gathering_a_cancelled_one_is_cancelled(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(3))
    gathering = asyncio.ensure_future(by_hand.scheduler.gather(futures))
    await settled()
    futures[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathering
    with pytest.raises(asyncio.CancelledError):
        await by_hand.scheduler.gather(futures)
    assert futures[0].call.state == futures[1].call.state == "running"


async def test_a_gathering_that_is_given_up_leaves_nothing_on_the_futures(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(2))
    before = [len(future._callbacks or ()) for future in futures]
    gathering = asyncio.ensure_future(by_hand.scheduler.gather(futures))
    await settled()
    gathering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathering
    assert [future.call.state for future in futures] == ["running"] * 2
    assert [len(future._callbacks or ()) for future in futures] == before


async def test_gathering_on_another_loop_says_where_to_wait(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(1))
    gathering = by_hand.scheduler.gather(futures)
    with pytest.raises(RuntimeError, match=r"another event loop .* scheduler\.wait"):
        await asyncio.to_thread(asyncio.run, gathering)
    assert futures[0].call.state == "running"


def test_what_ended_in_a_script_can_be_gathered_later():
    scheduler, futures = in_script(f, range(3))
    assert asyncio.run(scheduler.gather(futures)) == [0, 1, 2]
    failing, failures = in_script(add, [1, 2])
    first, second = asyncio.run(failing.gather(failures, return_exceptions=True))
    assert isinstance(first, TypeError)
    assert isinstance(second, TypeError)
    with pytest.raises(TypeError, match="missing 1 required"):
        asyncio.run(failing.gather(failures))


# ------------------------------------------------------------ as_completed


async def test_as_completed_of_nothing(by_hand: ByHand):
    by_hand.start()
    assert [future async for future in by_hand.scheduler.as_completed([])] == []
    assert await in_thread(lambda: list(by_hand.scheduler.as_completed([]))) == []


async def test_as_completed_yields_in_the_order_of_the_ends_and_each_once(by_hand: ByHand):
    by_hand.start()
    one, two, three = by_hand.scheduler.map(f, range(3))
    by_hand.backend.finish(two)
    await settled()
    by_hand.backend.finish(three)
    await settled()
    by_hand.backend.finish(one)
    given = [one, two, three, two]
    ended = [future async for future in by_hand.scheduler.as_completed(given, timeout=LONG_S)]
    assert len(ended) == 3
    assert ended[-1] is one
    blocking = await in_thread(lambda: list(by_hand.scheduler.as_completed(given)))
    assert len(blocking) == 3


async def test_as_completed_yields_what_failed_and_what_was_cancelled(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(3))
    futures[2].cancel()
    by_hand.backend.fail(futures[0], ValueError("bad"))
    by_hand.backend.finish(futures[1], 1)
    ended = [future async for future in by_hand.scheduler.as_completed(futures)]
    assert {future: future.cancelled() for future in ended} == {
        futures[0]: False,
        futures[1]: False,
        futures[2]: True,
    }
    assert isinstance(futures[0].exception(), ValueError)


@pytest.mark.parametrize("timeout", [0, 0.01])
async def test_a_timeout_comes_after_what_has_ended_and_says_how_many_have_not(
    by_hand: ByHand, timeout: float
):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(4))
    for future in futures[:2]:
        by_hand.backend.finish(future)
    await settled()
    ended: list[Any] = []

    async def follow() -> None:
        async for future in by_hand.scheduler.as_completed(futures, timeout=timeout):
            ended.append(future)

    def block() -> None:
        ended.extend(by_hand.scheduler.as_completed(futures[:2]))
        list(by_hand.scheduler.as_completed(futures, timeout=timeout))

    told = rf"^2 of 4 calls did not end within {timeout} s; they go on\.$"
    for waiting in (follow, lambda: in_thread(block)):
        ended.clear()
        with pytest.raises(TimeoutError, match=told):
            await waiting()
        assert ended == futures[:2]


def test_what_ended_in_a_script_can_be_iterated_over_later():
    scheduler, futures = in_script(f, range(3))
    assert list(scheduler.as_completed(futures)) == futures

    async def follow() -> list[Any]:
        return [future async for future in scheduler.as_completed(futures)]

    assert asyncio.run(follow()) == futures


async def test_another_loop_cannot_follow_and_is_told_what_can(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(2))

    async def follow() -> None:
        async for _ in by_hand.scheduler.as_completed(futures):
            pass

    with pytest.raises(RuntimeError, match=r"another event loop.*in a plain thread"):
        await in_thread(lambda: asyncio.run(follow()))


# ------------------------------------------------------------ wait


async def test_a_wait_that_was_too_short_says_which_call(by_hand: ByHand):
    by_hand.start()
    future = by_hand.scheduler.submit(f)
    told = r"^call 1 of f did not end within 0\.01 s; it goes on\.$"
    with pytest.raises(TimeoutError, match=told):
        await in_thread(lambda: by_hand.scheduler.wait(future, 0.01))


def test_a_wait_in_a_with_block_that_was_too_short_says_the_same():
    gate = threading.Event()
    with Scheduler.with_threads(1) as scheduler:
        future = scheduler.submit(gate.wait, LONG_S)
        with pytest.raises(TimeoutError, match=r"^call 1 of wait did not end within 0\.01 s"):
            scheduler.wait(future, 0.01)
        gate.set()
        assert scheduler.wait(future, LONG_S) is True


async def test_a_thread_that_waits_gets_the_error_or_the_cancellation(by_hand: ByHand):
    by_hand.start()
    failed, cancelled = by_hand.scheduler.map(f, range(2))
    waits = [
        asyncio.create_task(in_thread(lambda future=future: by_hand.scheduler.wait(future)))
        for future in (failed, cancelled)
    ]
    await settled()
    by_hand.backend.fail(failed, ValueError("bad"))
    cancelled.cancel()
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, asyncio.CancelledError]


def test_what_has_ended_needs_no_wait_anywhere():
    scheduler, futures = in_script(f, [7])
    assert scheduler.wait(futures[0]) == 7
    with scheduler:
        assert scheduler.wait(futures[0], timeout=1) == 7

    async def on_a_loop() -> tuple[Any, Any]:
        return scheduler.wait(futures[0]), await futures[0]

    assert asyncio.run(on_a_loop()) == (7, 7)


# ------------------------------------------------------------ what is no list of futures


async def drained(answer: Any) -> Any:
    return await answer if asyncio.iscoroutine(answer) else [future async for future in answer]


@pytest.mark.parametrize("verb", ["gather", "as_completed"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda future: future, r"<Future of call 1, f: running>: pass a list of futures"),
        (lambda future: [future, None], r"None in place 1: a plugin refused.*is not None"),
        (lambda future: [1], r"1 in place 0: pass futures, as submit\(\) returns them"),
    ],
    ids=["one", "refused", "number"],
)
async def test_what_is_no_list_of_futures_is_refused(
    by_hand: ByHand, verb: str, given: Any, says: str
):
    by_hand.start()
    future = by_hand.scheduler.submit(f)
    with pytest.raises(TypeError, match=verb + r"\(\) was given " + says):
        await drained(getattr(by_hand.scheduler, verb)(given(future)))


# ------------------------------------------------------------ task, as a decorator with arguments


async def test_a_decorator_may_take_arguments(by_hand: ByHand):
    limiter = Limiter(max_calls=1)

    @by_hand.scheduler.task(name="once", plugins=limiter)
    def twice(x: int) -> int:
        return 2 * x

    by_hand.start()
    assert (twice.ref, twice.plugins) == ("Task-once-1", [limiter])
    assert twice.submit(1) is not None
    assert twice.submit(2) is None


def test_a_decorator_over_what_returned_nothing_is_refused():
    with pytest.raises(TypeError, match="pass the function itself"):
        Scheduler(ManualBackend()).task(None)  # type: ignore[call-overload]
