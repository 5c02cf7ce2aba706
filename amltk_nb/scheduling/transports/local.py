"""Lines to calls on this machine: by hand within this process, over sockets to any other.

A ticket that stays in this process (threads, the sequential executor) leads straight to its line.
One that is pickled opens a listening socket, and what is unpickled elsewhere connects to that. So
one member serves all executors of this machine, whatever starts their processes.

All of a call's sockets are used on the loop's thread. A socket of the AF_UNIX kind holds in its
receiver what its sender has sent, so whoever hears of a call's end by another way finds all of its
messages there: that is what `hear_out` builds on.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any
from weakref import WeakValueDictionary

from amltk_nb.errors import CommClosedError, CommError
from amltk_nb.scheduling.transports.base import (
    End,
    Engine,
    Head,
    Line,
    Load,
    Receiver,
    Ticket,
    Transport,
)
from amltk_nb.scheduling.transports.socket_end import TOKEN_BYTES, SocketTicket, message_parts
from amltk_nb.scheduling.transports.sockets import Connection, Door

__all__ = ["LocalLine", "LocalTransport"]

_MOST_UNHEARD = 1_000  # messages of one call; then it waits for the loop

Message = tuple[Head, Load]


class LocalTransport(Transport):
    """The lines of one run; a line lives as long as somebody holds it or its ticket."""

    def __init__(self, engine: Engine) -> None:
        """Start without a line; no socket is opened before a ticket leaves this process."""
        self.engine = engine
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(64)
        self._numbers = count(1)
        self._lines: WeakValueDictionary[int, LocalLine] = WeakValueDictionary()
        self._door: Door | None = None
        self._is_closed = False

    def line(self, receiver: Receiver) -> LocalLine:
        """Make a line; see `Transport.line`."""
        with self._lock:
            line = LocalLine(self, next(self._numbers), receiver)
            self._lines[line.number] = line
        return line

    def token(self, number: int) -> bytes:
        """Make the token of a line: nobody can guess it from those of other lines.

        Asking the system for random bytes for each would cost as much as the rest of a line.
        """
        name = number.to_bytes(8, "little")
        return blake2b(name, digest_size=TOKEN_BYTES, key=self._secret).digest()

    def is_here(self) -> bool:
        """Say whether this is the process of the scheduler, and no forked copy of it."""
        return os.getpid() == self._pid

    def away(self, line: LocalLine) -> Ticket:
        """Make the ticket of a line for another process."""
        return SocketTicket(self.address(), line.number, line.token)

    def address(self) -> str:
        """Return where other processes connect; from any thread.

        Raises:
            CommClosedError: the run is over.
        """
        with self._lock:
            if self._door is None:
                self._check_open()
                self._door = Door(self.engine, self._lines.get)
            return self._door.address

    def _check_open(self) -> None:
        if self._is_closed or not self.is_here():
            raise CommClosedError("the run is over, so no call can talk with it any more.")

    def let_in(self) -> None:
        """Take in connections that wait; on the loop's thread."""
        if self._door is not None:
            self._door.let_in()

    def close(self) -> None:
        """Close all lines and the socket; see `Transport.close`."""
        with self._lock:
            self._is_closed = True
            door = self._door
        for line in list(self._lines.values()):
            line.close()
        if door is not None:
            door.close()


class LocalLine(Line):
    """The scheduler's end of one line. A call that runs again connects to it again."""

    def __init__(self, transport: LocalTransport, number: int, receiver: Receiver) -> None:
        """Make a line; `LocalTransport.line` does."""
        self.transport = transport
        self.number = number
        self.token = transport.token(number)
        self.ticket = _LocalTicket(self)
        self.is_closed = False
        self.nonces: frozenset[bytes] = frozenset()  # of greetings over a network
        self._engine = transport.engine
        self._receiver = receiver
        self._unheard: deque[Message | None] = deque()  # None: it hung up
        self._has_room = threading.Condition()
        self._end: _NearEnd | None = None  # of a call in this process
        self._connection: Connection | None = None  # to one in another

    # --- from the call

    def arrived(self, *messages: Message | None) -> bool:
        """Take in what came, in its order; None is the end. Returns whether more may come now."""
        if not self.is_closed:
            self._unheard.extend(messages)
            for _ in messages:
                self._engine.in_turn(self._hear)
        return len(self._unheard) < _MOST_UNHEARD

    def _hear(self) -> None:
        if not self._unheard:
            return  # `hear_out` was quicker
        message = self._unheard.popleft()
        if len(self._unheard) == _MOST_UNHEARD // 2:
            self._go_on()
        if message is None:
            self._receiver.hung_up()
        else:
            self._receiver.took(*message)

    def _go_on(self) -> None:
        """Have more come: there is room again."""
        with self._has_room:
            self._has_room.notify_all()
        if self._connection is not None:
            self._connection.resume()

    def wait_for_room(self, timeout_s: float | None) -> None:
        """Wait, in a thread of the call, until the loop has taken in what was sent."""
        with self._has_room:
            self._has_room.wait_for(
                lambda: self.is_closed or len(self._unheard) < _MOST_UNHEARD, timeout_s
            )

    def hear_out(self) -> None:
        """Deliver all that was sent; see `Line.hear_out`."""
        self.transport.let_in()
        if self._connection is not None:
            self._connection.read_all()
        for _ in range(len(self._unheard)):  # and not for ever: a stray thread may go on sending
            self._hear()

    # --- who is there

    def connected(self, connection: Connection) -> None:
        """Have a call in another process at the other end; a former one has said its last."""
        if (former := self._connection) is not None:
            former.read_all()
            former.close()
        self._connection = connection

    def disconnected(self, connection: Connection) -> None:
        """Note that the other process is gone, or its call has hung up."""
        if self._connection is connection:
            self._connection = None
            self.arrived(None)

    def near(self, end: _NearEnd | None) -> None:
        """Have a call in this process at the other end, or not any more."""
        self._end = end
        if end is None:
            self.arrived(None)

    # --- to the call

    def send(self, head: Head, body: Any = None) -> bool:
        """Send a message; see `Line.send`."""
        if (end := self._end) is not None:
            end.give((head, lambda: body))
            return True
        connection = self._connection
        if connection is None:
            return False
        parts = message_parts(head, body, copy=True)
        self._on_loop(partial(connection.write, parts))
        return True

    def hang_up(self) -> None:
        """End the talk; see `Line.hang_up`."""
        end, self._end = self._end, None
        if end is not None:
            end.give(None)
            self.arrived(None)
        if (connection := self._connection) is not None:
            self._on_loop(connection.close)

    def close(self) -> None:
        """Take in nothing more; see `Line.close`."""
        self.is_closed = True
        self._unheard.clear()
        self._go_on()
        self.hang_up()

    def _on_loop(self, fn: Callable[[], None]) -> None:
        if self._engine.is_on_loop():
            fn()
        else:
            self._engine.in_turn(fn)


class _LocalTicket(Ticket):
    """A ticket that has not left this process; pickled it becomes one that has."""

    __slots__ = ("line",)

    def __init__(self, line: LocalLine) -> None:
        self.line = line

    def __reduce__(self) -> Any:
        return self._away().__reduce__()

    def _away(self) -> Ticket:
        return self.line.transport.away(self.line)

    def connect(self, *, wait: bool = True) -> End | None:
        if self.line.transport.is_here():
            return _NearEnd(self.line)
        return self._away().connect(wait=wait)  # in a forked process nothing was pickled


class _NearEnd(End):
    """The end of a call that runs in this very process; bodies are passed as they are."""

    def __init__(self, line: LocalLine) -> None:
        self._line = line
        self._engine = line.transport.engine
        self._received: SimpleQueue[Message | None] = SimpleQueue()
        self._is_closed = line.is_closed
        self._check()
        line.near(self)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def give(self, message: Message | None) -> None:
        """Receive a message; None: the other side is gone."""
        self._received.put(message)

    def send(self, head: Head, body: Any = None, *, timeout_s: float | None = None) -> bool:
        self._check()
        has_room = self._line.arrived((head, lambda: body))
        if self._engine.is_on_loop():
            self._engine.catch_up()
        elif not has_room and not self._engine.holds_loop:
            self._line.wait_for_room(timeout_s)
        return True

    def receive(self, timeout_s: float | None = None) -> tuple[Head, Load]:
        self._check()
        held = self._engine.is_on_loop() or self._engine.holds_loop
        try:
            message = self._received.get(not held, timeout_s)
        except Empty:
            if held:
                raise CommError(
                    "nothing can come in while this call runs: the sequential executor runs it on "
                    "the thread of the event loop. Answer within the callback of the request, or "
                    "use Scheduler.with_threads(1)."
                ) from None
            raise TimeoutError from None
        if message is None:
            self._is_closed = True
            self._check()
        assert message is not None
        return message

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._line.near(None)
            if self._engine.is_on_loop():
                self._engine.catch_up()

    def _check(self) -> None:
        if self._is_closed or self._line.is_closed:
            raise CommClosedError(
                "the scheduler's side of this line is closed: its run has ended or is ending, or "
                "a callback closed it. Finish the call without it."
            )
