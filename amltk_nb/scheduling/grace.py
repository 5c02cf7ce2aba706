"""How long running calls still have when a run is asked to end."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from time import monotonic

__all__ = ["Grace", "grace_s"]

_LOOK_AGAIN_S = 0.001


def grace_s(wait: object) -> float:
    """Return for how many seconds running calls may go on, by what a user said.

    Args:
        wait: True: for ever (`math.inf`); False: not at all (0.0); or a number of seconds.

    Raises:
        TypeError: neither a bool nor a number.
        ValueError: a negative number, or nan.
    """
    if isinstance(wait, bool):
        return math.inf if wait else 0.0
    if not isinstance(wait, int | float):
        raise TypeError(
            f"wait={wait!r}: use True to let running calls finish, False to end them at once, or "
            "the number of seconds that they may still take."
        )
    if not wait >= 0:
        raise ValueError(
            f"wait={wait!r}: use 0 or more seconds, or True to let running calls finish."
        )
    # No timer counts further than this, and an int may be too large for any float.
    return math.inf if wait > threading.TIMEOUT_MAX else float(wait)


class Grace:
    """The time that running calls still have; it can only become shorter.

    Threads keep it, because a cell that blocks the loop must not stretch it. All but `close` is
    used under the dispatch lock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_over: Callable[[], object]) -> None:
        """Begin one without an end.

        Args:
            loop: keeps the time where no thread can be started.
            on_over: called when the time has passed, on whatever thread.
        """
        self.is_over = False
        self._loop = loop
        self._on_over = on_over
        self._ends_at = math.inf  # seconds of `monotonic`
        self._timers: list[threading.Timer] = []

    def shorten(self, seconds: float) -> bool:
        """Have it end so many seconds from now, unless it does so earlier; returns whether."""
        # None at all is always less: the time that has run out is as late as it was to end.
        ends_at = monotonic() + seconds if seconds else -math.inf
        if ends_at >= self._ends_at:
            return False
        self._cancel()
        self._ends_at = ends_at
        self.is_over = not seconds
        if not self.is_over:
            self._set_timer(seconds)
        return True

    async def close(self) -> None:
        """Call nothing any more, and leave no thread behind."""
        self._ends_at = -math.inf
        self._cancel()
        while any(timer.is_alive() for timer in self._timers):
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _cancel(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _set_timer(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._on_over)
        timer.name = "amltk-nb-grace"
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # there are too many threads
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self._on_over)
        else:
            self._timers.append(timer)
