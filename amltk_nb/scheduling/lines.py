"""The lines of one run to its running calls: what plugins use to talk with them.

Everything a call says is handled on the loop's thread, in the order it was sent and in turn with
all else that waits there: the inbox is the one door, for messages as for ends of calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amltk_nb.scheduling.transports.base import Line, Receiver, Transport, open_transport

if TYPE_CHECKING:
    from amltk_nb.scheduling.executors.base import Backend
    from amltk_nb.scheduling.traffic import Traffic

__all__ = ["Lines"]


class Lines:
    """Makes lines over the transport that fits the backend; the transport's engine."""

    def __init__(self, traffic: Traffic, backend: Backend) -> None:
        """Start without a transport: most runs need none."""
        self._traffic = traffic
        self._backend = backend
        self._transport: Transport | None = None
        self.holds_loop = backend.holds_loop

    def line(self, receiver: Receiver) -> Line:
        """Make a line for a call that is about to be queued; from any thread.

        Args:
            receiver: is told what the call says.
        """
        with self._traffic.dispatch.lock:
            if self._transport is None:
                self._transport = open_transport(self._backend.transport, self)
        return self._transport.line(receiver)

    def close(self) -> None:
        """Close all lines: the run is over."""
        if self._transport is not None:
            self._traffic.unwatch()
            self._transport.close()

    # --- what the transport asks for

    def is_on_loop(self) -> bool:
        """Say whether the caller is on the loop's thread."""
        return self._traffic.inbox.on_loop()

    def in_turn(self, fn: Callable[[], None]) -> None:
        """Call something on the loop's thread, behind what waits for it."""
        self._traffic.inbox.put(fn)

    def catch_up(self) -> None:
        """Do at once what waits for the loop's thread, which is this one."""
        self._traffic.inbox.catch_up()

    def watch(self, fd: int, on_readable: Callable[[], None]) -> bool:
        """Have the loop call something while a descriptor has something to read."""
        return self._traffic.watch(fd, on_readable)

    def reach(self) -> str | None:
        """Say by which address workers reach this machine; None: all of them are on it."""
        return self._backend.reach()

    def log(self, source: str, level: str, text: str) -> None:
        """Add to the scheduler's log."""
        self._traffic.log(source, level, text)
