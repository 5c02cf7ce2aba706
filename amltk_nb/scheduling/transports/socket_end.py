"""The end of a line in another process of this machine: a socket. Light, since workers load it.

The first thing on a connection is a greeting, the number of the line and its token. Nothing that
comes from a connection is unpickled by the scheduler's process before that.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import deque
from time import monotonic
from typing import Any

from amltk_nb.scheduling.shipping import not_picklable, pack, reason, type_name, unpack
from amltk_nb.scheduling.transports.base import End, Head, Load, Ticket
from amltk_nb.scheduling.wire import Channel, encoded

__all__ = ["GREETING", "TOKEN_BYTES", "SocketEnd", "SocketTicket", "closed", "message_parts"]

TOKEN_BYTES = 16
GREETING = struct.Struct(f"<Q{TOKEN_BYTES}s")  # the number of a line, its token

_LAST_WORDS_S = 1.0  # how long closing waits for a scheduler's process that does not read


def closed(why: str) -> Exception:
    """Make a `CommClosedError`."""
    from amltk_nb.errors import CommClosedError  # workers should not pay for what errors imports

    return CommClosedError(why)


def message_parts(head: Head, body: Any, *, copy: bool = False) -> list[Any]:
    """Make the parts of a message, to be written to a `Channel`.

    Raises:
        NotPicklableError: the body cannot travel.
    """
    try:
        packed = pack(body, copy=copy)
    except Exception as error:  # anything a value's own pickling may raise
        raise not_picklable(
            f"the message (a {type_name(body)}) cannot be pickled, so it cannot travel between a "
            f"call and its scheduler: {reason(error)}. Send plain values, or write it to a file "
            "and send the file's name."
        ) from error
    return encoded((head, packed))


class SocketTicket(Ticket):
    """The address of the scheduler's process, and the right to speak for one call."""

    __slots__ = ("_address", "_number", "_token")

    def __init__(self, address: str, number: int, token: bytes) -> None:
        """Describe a line.

        Args:
            address: of a listening AF_UNIX socket.
            number: of the line.
            token: known to the scheduler's process and to this call alone.
        """
        self._address = address
        self._number = number
        self._token = token

    def __reduce__(self) -> tuple[Any, ...]:
        return SocketTicket, (self._address, self._number, self._token)

    def connect(self, *, wait: bool = True) -> End | None:
        """Connect to the scheduler's process; see `Ticket.connect`."""
        line = socket.socket(socket.AF_UNIX)
        try:
            line.setblocking(wait)
            line.connect(self._address)
            line.setblocking(False)
            line.send(GREETING.pack(self._number, self._token))
        except BlockingIOError:
            line.close()
            return None
        except OSError as error:
            line.close()
            raise closed(
                f"the run that this call belongs to cannot be reached: {reason(error)}. It is over."
            ) from error
        return SocketEnd(line, Channel(line.fileno(), line.fileno()))


class SocketEnd(End):
    """An end that is connected."""

    def __init__(self, line: socket.socket, channel: Channel) -> None:
        """Take over a socket that does not block, and the channel over it."""
        self.line = line
        self._channel = channel  # which never closes the socket
        self._sending = threading.Lock()
        self._received: deque[tuple[Head, Any]] = deque()
        self._readable = select.poll()
        self._readable.register(line, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(line, select.POLLOUT)

    @property
    def is_closed(self) -> bool:
        """Whether this side has hung up."""
        return self.line.fileno() < 0

    def send(self, head: Head, body: Any = None, *, timeout_s: float | None = None) -> bool:
        """Send a message; see `End.send`."""
        parts = message_parts(head, body)
        with self._sending:
            self._check()
            try:
                if not self._flush(timeout_s):
                    return False
                self._channel.post(parts)
                self._flush(timeout_s)
            except OSError as error:
                raise self.gone() from error
        return True

    def _flush(self, timeout_s: float | None) -> bool:
        """Write what is unwritten; returns whether all is."""
        while not self._channel.flush():
            if not self._writable.poll(None if timeout_s is None else 1000 * timeout_s):
                return False
        return True

    def receive(self, timeout_s: float | None = None) -> tuple[Head, Load]:
        """Wait for a message; see `End.receive`."""
        until = None if timeout_s is None else monotonic() + timeout_s
        while not self._received:
            left_ms = None if until is None else max(0.0, 1000 * (until - monotonic()))
            self._check()
            if not self._readable.poll(left_ms):
                raise TimeoutError
            try:
                self._received.extend(self._channel.read())
            except (EOFError, OSError) as error:
                raise self.gone() from error
        head, packed = self._received.popleft()
        return head, lambda: unpack(packed)

    def close(self) -> None:
        """Hang up; see `End.close`."""
        with self._sending:
            try:
                if not self.is_closed:
                    self.last_words()
            except OSError:
                pass  # nobody is there to hear it
            self.line.close()

    def last_words(self) -> None:
        """See what was sent on its way, before the socket is closed."""
        self._flush(_LAST_WORDS_S)

    def _check(self) -> None:
        if self.is_closed:  # its number may be that of something else
            raise closed("this end of the line has been closed.")

    def gone(self) -> Exception:
        """Make the error of a line whose other side is closed."""
        return closed(
            "the scheduler's side of this line is closed: its run has ended or is ending, or a "
            "callback closed it. Finish the call without it."
        )
