"""The door to the loop: order, one wake-up, slices that give the loop back, settled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from amltk_nb.scheduling import inbox as inbox_module
from amltk_nb.scheduling.inbox import Inbox
from tests.scheduling.conftest import settled, turn_until


class CountingLoop:
    """The running loop, counting how often it is woken."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.n_soon = self.n_threadsafe = 0
        self.delays: list[float] = []

    def call_soon(self, fn: Callable[[], None]) -> Any:
        self.n_soon += 1
        return self._loop.call_soon(fn)

    def call_soon_threadsafe(self, fn: Callable[[], None]) -> Any:
        self.n_threadsafe += 1
        return self._loop.call_soon_threadsafe(fn)

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> Any:
        self.delays.append(delay_s)
        return self._loop.call_later(0, fn)


class Log:
    """What an inbox did, in order."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def inbox(self, loop: Any, **options: Any) -> Inbox[Any]:
        return Inbox(
            loop, handle=self.said.append, settled=lambda: self.said.append("settled"), **options
        )


async def test_items_come_in_order_and_then_settled_once():
    log = Log()
    inbox = log.inbox(loop := CountingLoop())
    inbox.put(1, 2)
    inbox.put(3)
    assert log.said == []
    await settled()
    assert log.said == [1, 2, 3, "settled"]
    assert (loop.n_soon, loop.n_threadsafe) == (1, 0)


async def test_a_burst_of_another_thread_wakes_the_loop_once():
    log = Log()
    inbox = log.inbox(loop := CountingLoop())

    def burst() -> None:
        for n in range(100):
            inbox.put(n)

    thread = threading.Thread(target=burst)
    thread.start()
    thread.join()  # the loop cannot drain meanwhile
    assert (loop.n_soon, loop.n_threadsafe) == (0, 1)
    await settled()
    assert log.said == [*range(100), "settled"]


async def test_after_a_drain_the_next_item_wakes_the_loop_again():
    log = Log()
    inbox = log.inbox(loop := CountingLoop())
    for n in range(3):
        inbox.put(n)
        await settled()
    assert log.said == [0, "settled", 1, "settled", 2, "settled"]
    assert loop.n_soon == 3


async def test_each_thread_keeps_its_own_order():
    log = Log()
    inbox = log.inbox(CountingLoop())
    names = "abcd"

    def put(name: str) -> None:
        for n in range(200):
            inbox.put((name, n))

    threads = [threading.Thread(target=put, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    await turn_until(lambda: sum(type(said) is tuple for said in log.said) == 800)
    for thread in threads:
        thread.join()
    for name in names:
        assert [said[1] for said in log.said if said[0] == name] == list(range(200))


async def test_a_long_drain_gives_the_loop_back_between_slices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inbox_module, "_SLICE_S", 0.0)  # every look at the clock ends a slice
    log = Log()
    inbox = log.inbox(loop := CountingLoop(), pause_s=0.007)
    other: list[int] = []  # somebody else on the loop, and how far the drain was at each turn

    async def neighbour() -> None:
        while "settled" not in log.said:
            other.append(len(log.said))
            await asyncio.sleep(0)

    inbox.put(*range(100))
    await asyncio.wait_for(neighbour(), 10)
    assert log.said == [*range(100), "settled"]
    per_slice = inbox_module._ITEMS_PER_CLOCK_READ
    assert set(range(per_slice, 100, per_slice)) <= set(other)  # it had a turn after every slice
    assert loop.delays == [0.007] * (100 // per_slice)


async def test_wake_settles_without_items():
    log = Log()
    inbox = log.inbox(CountingLoop())
    inbox.wake()
    await settled()
    assert log.said == ["settled"]


async def test_what_a_handler_puts_is_handled_before_settled():
    said: list[Any] = []

    def handle(n: int) -> None:
        said.append(n)
        if n < 3:
            inbox.put(n + 1)

    inbox: Inbox[int] = Inbox(CountingLoop(), handle=handle, settled=lambda: said.append("settled"))
    inbox.put(0)
    await settled()
    assert said == [0, 1, 2, 3, "settled"]


async def test_a_closed_inbox_handles_nothing():
    log = Log()
    inbox = log.inbox(CountingLoop())
    inbox.put(1)
    inbox.close()
    inbox.put(2)
    inbox.wake()
    await settled()
    assert log.said == []


async def test_flush_handles_at_once():
    log = Log()
    inbox = log.inbox(CountingLoop())
    inbox.put(1, 2)
    inbox.flush()
    assert log.said == [1, 2]


def test_putting_after_the_loop_closed_is_harmless():
    log, made = Log(), []

    async def main() -> None:
        made.append(log.inbox(asyncio.get_running_loop()))

    asyncio.run(main())
    (inbox,) = made
    inbox.put(1)
    thread = threading.Thread(target=inbox.put, args=(2,))
    thread.start()
    thread.join()
    assert log.said == []


async def test_waking_it_again_and_again_leaves_the_loop_to_others_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(inbox_module, "_SLICE_S", 0.0)
    handled: list[int] = []

    def handle(n: int) -> None:
        handled.append(n)
        inbox.wake()  # as the end of each coroutine callback does

    inbox = Inbox(asyncio.get_running_loop(), handle=handle, settled=lambda: None)
    inbox.put(*range(1_000))
    most_in_a_turn = n_before = 0
    while len(handled) < 1_000:
        await asyncio.sleep(0)
        most_in_a_turn = max(most_in_a_turn, len(handled) - n_before)
        n_before = len(handled)
    assert most_in_a_turn == 16
    assert handled == list(range(1_000))
