"""The one door from other threads to the loop.

    any thread: put(x) ──► deque ──► (loop) drain: handle(x), handle(x), …, then settled()

The first item since the last drain wakes the loop once; the rest ride along. A drain works for a
few milliseconds and then gives the loop back, really pausing where others live on the loop too:
with `sleep(0)` between slices, other cells of a flat-out kernel wait 360 ms, with slices and
pauses of 5 ms some 16 ms, of 2.5 ms some 12 ms.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Generic, TypeVar

from amltk_nb.scheduling.interrupts import gently

__all__ = ["Inbox"]

T = TypeVar("T")

_SLICE_S = 0.0025
_ITEMS_PER_CLOCK_READ = 16


class Inbox(Generic[T]):
    """Carries items to a handler on the loop's thread, in the order they were put."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        handle: Callable[[T], None],
        settled: Callable[[], None],
        pause_s: float = 0.0,
    ) -> None:
        """Make an open inbox; call it on the loop's thread.

        Args:
            loop: whose thread handles the items.
            handle: called with each item; must not raise.
            settled: called whenever the inbox has just become empty; must not raise.
            pause_s: how long to leave the loop to others between two slices of work.
        """
        self._loop = loop
        self._handle = handle
        self._settled = settled
        self._pause_s = pause_s
        self._items: deque[T] = deque()
        self._awake = False
        self._draining = False
        self._rest: asyncio.TimerHandle | None = None  # of a drain that pauses
        self._closed = False
        self._thread = threading.get_ident()

    def on_loop(self) -> bool:
        """Say whether the caller is on the loop's thread."""
        return threading.get_ident() == self._thread

    @property
    def is_empty(self) -> bool:
        """Whether everything that was put has been handled."""
        return not self._items

    def put(self, *items: T) -> None:
        """Add items, from any thread."""
        self._items.extend(items)
        if not self._awake:
            self.wake()

    def lay(self, items: Iterable[T]) -> None:
        """Add items whose turn it is now, from any thread; the next `put` sees to the drain."""
        self._items.extend(items)

    def wake(self) -> None:
        """Have a drain happen, so that `settled` is called even when nothing was put."""
        if self._closed:
            return
        self._awake = True
        try:
            if self.on_loop():
                self._loop.call_soon(self._drain)
            else:
                self._loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop was closed under us: nobody is left to tell
            self._closed = True

    def during(self, fn: Callable[[], None]) -> None:
        """Call what puts items, then handle them without another turn of the loop.

        For callbacks of the loop itself: nothing of the user's may be under way.
        """
        if self._awake or self._closed:  # a drain is to come, after its pause
            fn()
            return
        with gently:
            self._awake = True
            fn()
            self._drain()

    def flush(self) -> None:
        """Handle all there is, now; on the loop's thread."""
        while self._items:
            self._handle(self._items.popleft())

    def catch_up(self) -> None:
        """Handle all there is, unless that is under way; on the loop's thread.

        For calls that run there: what they say must not wait until they have ended.
        """
        if not self._draining:
            self._draining = True
            try:
                self.flush()
            finally:
                self._draining = False
                if self._awake:  # the drain that was due may have come meanwhile, and gone
                    self._loop.call_soon(self._drain)

    def close(self) -> None:
        """Handle nothing more."""
        self._closed = True
        self._items.clear()

    def _drain(self) -> None:
        # In a kernel the loop turns for a moment while an interrupt would be raised, before a cell
        # and after it. It means the cell, not the item that is just being handled.
        with gently:
            self._drain_on()

    def _drain_on(self) -> None:
        # A callback may run the loop (a nested run of something else): one drain at a time, else
        # items would be handled in the middle of another one's events.
        # And while one pauses, whoever wakes it must not add another: they would take turns, and
        # the loop would never be left to others.
        if self._closed or self._draining or self._rest is not None:
            return
        self._draining = True
        try:
            done = self._work()
        finally:
            self._draining = False
        if not done:
            self._rest = self._loop.call_later(self._pause_s, self._rested)
            return
        self._awake = False
        if self._items:  # put between the last look and the flag
            self.wake()
        else:
            self._settled()

    def _rested(self) -> None:
        self._rest = None
        self._drain()

    def _work(self) -> bool:
        items, handle = self._items, self._handle
        deadline = perf_counter() + _SLICE_S
        while True:
            for _ in range(_ITEMS_PER_CLOCK_READ):
                if not items:
                    return True
                handle(items.popleft())
            if perf_counter() > deadline:
                return not items
