"""The end of a line on a worker of an engine that runs calls elsewhere, or maybe here.

A worker on the scheduler's machine takes the socket of that machine, as any other process there.
From elsewhere the line goes over TCP, see `sealed`. All of a call's lines are closed when it ends:
`remote_call` sees to that, since threads and globals of such a worker outlive the call.

A socket of the AF_UNIX kind holds in its receiver what its sender has sent, and what the scheduler
does when it learns of a call's end builds on that. TCP has the sender's system deliver at leisure,
so an end that closes waits until the other system has acknowledged all of it. No process has to
do anything for that: a notebook's cell that blocks the loop does not hold up the call.
"""

from __future__ import annotations

import fcntl
import secrets
import select
import socket
import struct
import sys
import termios
import threading
import warnings
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from amltk_nb.scheduling.shipping import reason
from amltk_nb.scheduling.transports.base import End, Head, Ticket
from amltk_nb.scheduling.transports.sealed import NONCE_BYTES, called, greeting
from amltk_nb.scheduling.transports.socket_end import SocketEnd, SocketTicket, closed
from amltk_nb.scheduling.wire import Channel

__all__ = ["Place", "RemoteTicket", "call_over", "tuned"]

Place = tuple[str, int]  # a host's name or address, and a port

_REACH_S = 10.0  # the longest that connecting takes for a call that wants to talk
_GLANCE_S = 1.0  # and for one that only reports how far it is
_ACKNOWLEDGED_S = 10.0  # the longest that closing waits for the other machine
_LOOK_AGAIN_S = 0.001

_by_thread: dict[int, list[RemoteTicket]] = {}  # the tickets of calls that run here
_out_of_reach: set[Place] = set()
_warned_of: set[str] = set()  # the scheduler's hosts


def call_over() -> None:
    """Close all lines of the call that this thread has run."""
    for ticket in _by_thread.pop(threading.get_ident(), ()):
        ticket.hang_up()


def tuned(line: socket.socket) -> None:
    """Have small messages go at once, and a machine that is gone be noticed some day."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class RemoteTicket(Ticket):
    """The ways to the scheduler's process, and the right to speak for one call."""

    def __init__(
        self, near: SocketTicket | None, far: Place | None, host: str, number: int, token: bytes
    ) -> None:
        """Describe a line; where this is made again belongs to the call that is about to run.

        Args:
            near: the way for processes of the scheduler's machine; None: there is none.
            far: where it listens for other machines; None: it does not.
            host: the name of its machine, for messages.
            number: of the line.
            token: known to the scheduler's process and to this call alone.
        """
        self._given = near, far, host, number, token
        self._ends: list[End] = []
        self._is_over = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, self._given

    def connect(self, *, wait: bool = True) -> End | None:
        """Connect to the scheduler's process; see `Ticket.connect`."""
        if self._is_over:
            raise closed("the call that this comm belongs to has ended.")
        end = self._connected(wait=wait)
        if end is not None:
            self._ends = [*(each for each in self._ends if not each.is_closed), end]
        return end

    def _connected(self, *, wait: bool) -> End | None:
        near, far, host, _, _ = self._given
        if near is not None:
            try:
                return near.connect(wait=wait)  # names do not tell whose machine this is
            except EOFError as error:  # CommClosedError: another machine, or the run is over
                if far is None and host == socket.gethostname():
                    raise
                if far is None:
                    raise self._unreachable(
                        f"this worker runs on {socket.gethostname()}, and the scheduler on {host} "
                        "listens to calls of its own machine only",
                        wait=wait,
                    ) from error
        assert far is not None
        return self._by_network(far, wait=wait)

    def _by_network(self, far: Place, *, wait: bool) -> End:
        _, _, _, number, token = self._given
        try:
            if not wait and far in _out_of_reach:
                raise ConnectionError("it could not be reached before")
            line = socket.create_connection(far, _REACH_S if wait else _GLANCE_S)
        except OSError as error:
            _out_of_reach.add(far)
            raise self._unreachable(
                f"this worker on {socket.gethostname()} cannot reach the scheduler at "
                f"{far[0]}:{far[1]} ({reason(error)}): the run is over, or a firewall is between",
                wait=wait,
            ) from error
        _out_of_reach.discard(far)
        tuned(line)
        line.setblocking(False)
        nonce = secrets.token_bytes(NONCE_BYTES)
        line.send(greeting(number, nonce, token))  # the first bytes always have room
        return _TcpEnd(line, called(line.fileno(), nonce, token))

    def _unreachable(self, why: str, *, wait: bool) -> Exception:
        text = (
            f"{why}. Where the scheduler runs, the environment variable AMLTK_NB_COMM_HOST names "
            "the address (or address:port) by which its workers reach it."
        )
        if not wait and self._given[2] not in _warned_of:
            # Else nobody would learn of it: what only reports goes on without.
            _warned_of.add(self._given[2])
            warnings.warn(f"no progress is shown of this worker's calls: {text}", stacklevel=2)
        return closed(text)

    def hang_up(self) -> None:
        """Close what was connected, once all that was sent has arrived; nothing connects anew."""
        self._is_over = True
        for end in self._ends:
            end.close()


def _received(*given: Any) -> RemoteTicket:
    """Make a ticket on the thread that loads a call and then runs it."""
    ticket = RemoteTicket(*given)
    _by_thread.setdefault(threading.get_ident(), []).append(ticket)
    return ticket


class _TcpEnd(SocketEnd):
    """An end that closes when all it has sent is at the other machine."""

    def __init__(self, line: socket.socket, channel: Channel) -> None:
        super().__init__(line, channel)
        self._hung_up = select.poll()
        self._hung_up.register(line, getattr(select, "POLLRDHUP", select.POLLHUP))

    def send(self, head: Head, body: Any = None, *, timeout_s: float | None = None) -> bool:
        # TCP itself takes what nobody will read, until the other system has said so.
        if not self.is_closed and self._hung_up.poll(0):
            raise self.gone()
        return super().send(head, body, timeout_s=timeout_s)

    def last_words(self) -> None:
        super().last_words()
        until = monotonic() + _ACKNOWLEDGED_S
        with suppress(OSError):
            while _n_unacknowledged(self.line) and monotonic() < until:
                sleep(_LOOK_AGAIN_S)


def _n_unacknowledged(line: socket.socket) -> int:
    """Count the bytes that the other system has not confirmed to have."""
    if sys.platform != "linux":  # there is no such question elsewhere, or another one
        return 0
    (n_bytes,) = struct.unpack("i", fcntl.ioctl(line, termios.TIOCOUTQ, bytes(4)))
    return int(n_bytes)
