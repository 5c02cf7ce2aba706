"""The scheduler's side of lines to other processes: a listening socket and what came in by it.

One selector holds all sockets and is itself watched by the loop. A connection belongs to nobody
until its greeting is known to be true; what is not, is closed.
"""

from __future__ import annotations

import hmac
import os
import secrets
import select
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from typing import Any, ClassVar, Protocol
from weakref import WeakSet

from amltk_nb.scheduling.shipping import unpack
from amltk_nb.scheduling.transports.base import Engine, Head, Load
from amltk_nb.scheduling.transports.socket_end import GREETING
from amltk_nb.scheduling.wire import Channel

__all__ = ["Connection", "Door"]

_BACKLOG = 4096  # calls that may come while the loop is held up; the system may allow fewer
_MOST_READS = 64  # of one connection in one go: more than any socket holds


class _Line(Protocol):
    token: bytes
    is_closed: bool
    nonces: frozenset[bytes]

    def arrived(self, *messages: tuple[Head, Load] | None) -> bool: ...
    def connected(self, connection: Connection) -> None: ...
    def disconnected(self, connection: Connection) -> None: ...


class Door:
    """Where calls in other processes come in."""

    def __init__(self, engine: Engine, find: Callable[[int], _Line | None]) -> None:
        """Listen; on any thread.

        Args:
            engine: whose loop serves it.
            find: knows a line by its number.
        """
        self._engine = engine
        self._find = find
        self._folder: str | None = None
        self.address = ""
        self._listener = self.listening()
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        self._sockets = DefaultSelector()
        self._sockets.register(self._listener, EVENT_READ)
        self._is_full = False  # no descriptor is left for another connection
        self._is_closed = False
        self._connections: set[Connection] = set()
        self._strangers: list[Connection] = []  # those that have not greeted yet
        _doors.add(self)
        engine.in_turn(self._watch)

    def listening(self) -> socket.socket:
        """Take an address that nobody else has.

        Abstract names leave no file behind, even if this process is killed, and they are never
        too long. Anybody on the machine may knock: the token in the greeting says who may come in.
        """
        name = f"amltk-nb-{secrets.token_hex(8)}"
        if sys.platform == "linux":
            self.address = f"\0{name}"
        else:
            self._folder = tempfile.mkdtemp(prefix="amltk-nb-", dir="/tmp")  # short enough there
            self.address = os.path.join(self._folder, name)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.address)
        return listener

    def connection(self, accepted: socket.socket) -> Connection:
        """Take in one who called."""
        return Connection(accepted, self._sockets, self._find, self._connections.discard)

    def _watch(self) -> None:
        if not self._is_closed:
            self._engine.watch(self._sockets.fileno(), self._serve)

    def _serve(self) -> None:
        if self._strangers:
            self.let_in()  # in the order they came: of two for one line the later one counts
        for key, events in self._sockets.select(0):
            if key.data is None:
                self.let_in()
            elif events & EVENT_WRITE:
                key.data.flush()
            else:
                key.data.read()

    def let_in(self) -> None:
        """Take in all connections that wait, and the greetings of those that came before theirs."""
        self._accept()
        for connection in [c for c in self._strangers if not c.is_closed]:
            connection.read()
        self._strangers = [c for c in self._strangers if c.is_stranger]

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._resume()
            connection = self.connection(accepted)
            self._connections.add(connection)
            self._strangers.append(connection)

    def _pause(self, error: OSError) -> None:
        """Look away from calls that wait: the loop would spin on them."""
        if not self._is_full:
            self._is_full = True
            self._sockets.unregister(self._listener)
            self._engine.log("scheduler", "error", f"calls that want to talk must wait: {error}")

    def _resume(self) -> None:
        if self._is_full:
            self._is_full = False
            self._sockets.register(self._listener, EVENT_READ)

    def close(self) -> None:
        """Hang up on everybody and give the address back."""
        self._is_closed = True
        for connection in list(self._connections):
            connection.close()
        self.let_go()
        if self._folder is not None:
            with suppress(OSError):
                os.unlink(self.address)
                os.rmdir(self._folder)

    def let_go(self) -> None:
        """Close this process's hold on the sockets; others that it was forked from keep theirs."""
        for connection in list(self._connections):
            connection.let_go()
        self._sockets.close()
        self._listener.close()


class Connection:
    """One call in another process, from its greeting on. Used on the loop's thread only."""

    greeting: ClassVar[struct.Struct] = GREETING

    def __init__(
        self,
        accepted: socket.socket,
        sockets: DefaultSelector,
        find: Callable[[int], _Line | None],
        forget: Callable[[Connection], None],
    ) -> None:
        """Wait for its greeting.

        Args:
            accepted: the socket.
            sockets: tells when there is something to read.
            find: knows a line by its number.
            forget: called when it is closed.
        """
        accepted.setblocking(False)
        self._socket = accepted
        self._sockets = sockets
        self._find = find
        self._forget = forget
        self._greeting = b""
        self._line: _Line | None = None
        self._channel = Channel(accepted.fileno(), accepted.fileno())  # it never closes them
        self._poll = select.poll()
        self._poll.register(accepted, select.POLLIN)
        self.is_closed = False
        self._is_paused = False
        sockets.register(accepted, EVENT_READ, self)

    @property
    def is_stranger(self) -> bool:
        """Whether it may still greet."""
        return self._line is None and not self.is_closed

    def read(self) -> None:
        """Read once."""
        if self.is_closed:  # in the same turn; its descriptor may be another one's by now
            return
        try:
            if self._line is None:
                self._greet()
            else:
                self._take(self._channel.read())
        except (EOFError, OSError):
            self.close()

    def read_all(self) -> None:
        """Read all that has been sent by now, though its sender may go on for ever."""
        for _ in range(_MOST_READS):
            if self.is_closed or not self._poll.poll(0):
                break
            self.read()

    def _greet(self) -> None:
        try:
            got = self._socket.recv(self.greeting.size - len(self._greeting))
        except BlockingIOError:
            return
        self._greeting += got
        if not got:
            raise EOFError
        if len(self._greeting) == self.greeting.size:
            number, *told = self.greeting.unpack(self._greeting)
            line = self._find(number)
            if line is None or line.is_closed or not self.is_true(line, number, *told):
                raise EOFError
            line.connected(self)
            self._line = line

    def is_true(self, line: _Line, number: int, *told: bytes) -> bool:
        """Look whether a greeting comes from the call that the line belongs to."""
        return hmac.compare_digest(line.token, told[0])

    def _take(self, messages: list[Any]) -> None:
        assert self._line is not None
        if messages and not self._line.arrived(
            *((head, partial(unpack, packed)) for head, packed in messages)
        ):
            self.pause()

    def pause(self) -> None:
        """Leave unread what comes, so that the call waits when its socket is full."""
        if not self._is_paused and not self.is_closed:
            self._is_paused = True
            self._sockets.unregister(self._socket)

    def resume(self) -> None:
        """Read on."""
        if self._is_paused and not self.is_closed:
            self._is_paused = False
            self._sockets.register(self._socket, EVENT_READ, self)
            self.flush()

    def write(self, parts: list[Any]) -> None:
        """Write a message as far as the socket takes it now, the rest later."""
        if self.is_closed:
            return
        try:
            if not self._channel.post(parts):
                self._expect(EVENT_READ | EVENT_WRITE)
        except OSError:
            self.close()

    def flush(self) -> None:
        """Write what is unwritten."""
        if self.is_closed:
            return
        try:
            is_done = self._channel.flush()
        except OSError:
            self.close()
            return
        self._expect(EVENT_READ if is_done else EVENT_READ | EVENT_WRITE)

    def _expect(self, events: int) -> None:
        if not self._is_paused:
            self._sockets.modify(self._socket, events, self)

    def close(self) -> None:
        """Hang up; harmless when closed."""
        if self.is_closed:
            return
        with suppress(OSError):  # it may be gone already
            # Before closing: a process that was forked meanwhile holds a copy of this socket.
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._is_paused:
            self._sockets.unregister(self._socket)
        self.let_go()
        self._forget(self)
        if self._line is not None:
            self._line.disconnected(self)

    def let_go(self) -> None:
        """Close this process's hold on the socket."""
        self.is_closed = True
        self._socket.close()


_doors: WeakSet[Door] = WeakSet()


def _let_go_of_all() -> None:
    # A forked process that held them would hide from calls that their scheduler is gone.
    for door in list(_doors):
        door.let_go()


os.register_at_fork(after_in_child=_let_go_of_all)
