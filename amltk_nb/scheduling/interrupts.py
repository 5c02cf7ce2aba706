"""Keeping the interrupt button from cutting work of the engine in two.

In a kernel an interrupt raises KeyboardInterrupt in the main thread, between any two instructions:
in the engine's own too, if a cell is submitting just then. Half of what must happen together would
leave a call that never ends, or a lock that nobody releases. So the interrupt waits until that is
done, some microseconds, and comes then.
"""

from __future__ import annotations

# The public functions look for an enum's member each time, which takes ten times as long.
import _signal  # type: ignore[import-not-found]
import asyncio
import os
import signal
import threading
from threading import get_ident
from types import FrameType
from typing import Any
from weakref import ref

__all__ = ["Guard", "ShieldedLock", "are_held_back", "gently", "wholly"]


class _Interrupts:
    """Interrupts of the main thread, while it does what must not be cut in two."""

    def __init__(self) -> None:
        self.depth = 0
        self.n_whole = 0  # of the depth, how much lets no interrupt through
        # Whose holder lets no interrupt through, either. A new tuple for each: a handler may be
        # going through them while another thread makes a scheduler.
        self._locks: tuple[ref[Any], ...] = ()
        self.former: Any = None  # the handler to come back
        self._harmless: Any = None  # the last one that was found to cut nothing in two
        self._has_come = False
        self._noting = self._note  # one object, to be known again
        self.find_main_thread()

    def find_main_thread(self) -> None:
        """Note which thread gets interrupts; in a forked child it is another one."""
        self.main = threading.main_thread().ident

    def know(self, lock: Any) -> None:
        """Let no interrupt through, however often it is asked, while this thread holds a lock."""
        self._locks = (*(known for known in self._locks if known() is not None), ref(lock))

    def begin(self) -> None:
        """Note interrupts from here on; one that was raised before has begun nothing."""
        former = _signal.getsignal(signal.SIGINT)
        if former is self._harmless:
            return
        if not callable(former) or _only_asks(former):
            self._harmless = former
            return
        self._has_come = False
        _signal.signal(signal.SIGINT, self._noting)
        self.former = former

    def end(self) -> None:
        """Put the handler back, and have it told of what has come."""
        former, self.former = self.former, None
        present = _signal.signal(signal.SIGINT, former)
        if present is not self._noting:  # somebody has set one of theirs
            _signal.signal(signal.SIGINT, present)
        if self._has_come:
            self._has_come = False
            former(signal.SIGINT, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        former = self.former
        if former is not None and self._has_come and not self._is_whole():
            former(number, frame)  # asked twice: a callback of the user's may never end
        self._has_come = True

    def _is_whole(self) -> bool:
        return self.n_whole > 0 or any(
            lock._is_owned() for known in self._locks if (lock := known()) is not None
        )


def _only_asks(handler: Any) -> bool:
    """Whether it is that of `asyncio.run`, which cancels the main task and cuts nothing in two.

    To set a handler is a call of the system, and twice for each of the engine's steps.
    """
    method = getattr(handler, "func", None)
    return getattr(method, "__func__", method) is _ASKS and _ASKS is not None


_ASKS = getattr(asyncio.Runner, "_on_sigint", None)
_interrupts = _Interrupts()
os.register_at_fork(after_in_child=_interrupts.find_main_thread)


class Guard:
    """What runs inside of it on the main thread is interrupted only when it is left."""

    __slots__ = ("_is_whole",)

    def __init__(self, *, is_whole: bool) -> None:
        """Choose whether a second interrupt has to wait as well: only for what cannot hang."""
        self._is_whole = is_whole

    # Both are run several times for each call, and so are those of `ShieldedLock`: they are written
    # out there once more, because a call between them costs as much as all that they do.

    def __enter__(self) -> None:
        state = _interrupts
        if get_ident() == state.main:
            if not state.depth:
                state.begin()
            state.depth += 1
            state.n_whole += self._is_whole

    def __exit__(self, *_: object) -> None:
        state = _interrupts
        if get_ident() == state.main:
            state.depth -= 1
            state.n_whole -= self._is_whole
            if not state.depth and state.former is not None:
                state.end()


def are_held_back() -> bool:
    """Whether no interrupt can come between the caller's next steps; on any thread."""
    return _interrupts.depth > 0 or get_ident() != _interrupts.main


wholly = Guard(is_whole=True)  # for the engine's own short work
gently = Guard(is_whole=False)  # where callbacks of the user run


class ShieldedLock:
    """A lock that its holder may take again, and that no interrupt makes it let go of half-way."""

    __slots__ = ("bare",)

    def __init__(self) -> None:
        """Make one that is free."""
        self.bare = threading.RLock()  # the same lock, for who is within a guard already
        _interrupts.know(self.bare)

    def __enter__(self) -> None:
        state = _interrupts
        if get_ident() == state.main:
            if not state.depth:
                state.begin()
            state.depth += 1
        self.bare.acquire()

    def __exit__(self, *_: object) -> None:
        self.bare.release()
        state = _interrupts
        if get_ident() == state.main:
            state.depth -= 1
            if not state.depth and state.former is not None:
                state.end()
