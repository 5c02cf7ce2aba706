"""Keeping the interrupt button from cutting work of the engine in two.

In a kernel an interrupt raises KeyboardInterrupt in the main thread, between any two instructions:
in the engine's own too, if a cell is submitting just then. Half of what must happen together would
leave a call that never ends, or a lock that nobody releases. So the interrupt waits until that is
done, some microseconds, and comes then.
"""

from __future__ import annotations

# The public functions look for an enum's member each time, which takes ten times as long.
import _signal  # type: ignore[import-not-found]
import signal
import threading
from types import FrameType
from typing import Any

__all__ = ["Guard", "ShieldedLock", "gently", "wholly"]


class _Interrupts:
    """Interrupts of the main thread, while it does what must not be cut in two."""

    def __init__(self) -> None:
        self._depth = 0
        self._n_whole = 0  # of the depth, how much lets no interrupt through
        self._former: Any = None  # the handler to come back
        self._has_come = False

    def hold(self, *, is_whole: bool) -> None:
        if not self._depth and callable(former := _signal.getsignal(signal.SIGINT)):
            self._former, self._has_come = former, False
            # From here on none can be raised; one that was before has begun nothing.
            _signal.signal(signal.SIGINT, self._note)
        self._depth += 1
        self._n_whole += is_whole

    def let_go(self, *, is_whole: bool) -> None:
        self._depth -= 1
        self._n_whole -= is_whole
        former = self._former
        if self._depth or former is None:
            return
        self._former = None
        if _signal.getsignal(signal.SIGINT) == self._note:  # else somebody has set one of theirs
            _signal.signal(signal.SIGINT, former)
        if self._has_come:
            self._has_come = False
            former(signal.SIGINT, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        former = self._former
        if former is not None and self._has_come and not self._n_whole:
            former(number, frame)  # asked twice: a callback of the user's may never end
        self._has_come = True


_interrupts = _Interrupts()


class Guard:
    """What runs inside of it on the main thread is interrupted only when it is left."""

    __slots__ = ("_is_whole",)

    def __init__(self, *, is_whole: bool) -> None:
        """Choose whether a second interrupt has to wait as well: only for what cannot hang."""
        self._is_whole = is_whole

    def __enter__(self) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            _interrupts.hold(is_whole=self._is_whole)

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() == threading.main_thread().ident:
            _interrupts.let_go(is_whole=self._is_whole)


wholly = Guard(is_whole=True)  # for the engine's own short work
gently = Guard(is_whole=False)  # where callbacks of the user run


class ShieldedLock:
    """A lock that its holder may take again, and that no interrupt makes it let go of half-way."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        """Make one that is free."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        wholly.__enter__()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        wholly.__exit__()
