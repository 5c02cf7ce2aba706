"""Lines to calls on engines that run them elsewhere: Dask, Ray, batch systems, ipyparallel.

Each of these has channels of its own, and none is enough for what a line promises. Dask's events
stay in its scheduler's memory and know no waiting, its queues have to be asked; a queue of Ray's is
an actor that takes a CPU; ipyparallel and batch systems have nothing. None tells that the other
side is gone, and none keeps order with the end of a call, which comes by another way. So there is
one road for all: a socket of ours, as for processes of this machine, and the very same one for
workers that run here. For workers of other machines this process listens by TCP as well, at the
address by which they reach it (`Engine.reach`); the engine only carries the ticket.

Who may connect: whoever reaches that port. Who is heard: whoever proves to know the token of a
line, and that is in the payload of its call; see `sealed`. So who can read the engine's own
traffic, or run code on it, can speak for a call: messages are unpickled, so protect the engine
(TLS, a network of one's own) as one protects the notebook. Nothing listens by TCP before the first
call with such a plugin is submitted, nor where all workers are on this machine.
"""

from __future__ import annotations

import errno
import hmac
import os
import socket
from typing import Any

from amltk_nb.scheduling.transports.base import Engine
from amltk_nb.scheduling.transports.local import LocalLine, LocalTransport
from amltk_nb.scheduling.transports.remote_end import Place, RemoteTicket, tuned
from amltk_nb.scheduling.transports.sealed import GREETING, proof, taken
from amltk_nb.scheduling.transports.socket_end import SocketTicket
from amltk_nb.scheduling.transports.sockets import Connection, Door

__all__ = ["HOST_VARIABLE", "RemoteTransport"]

HOST_VARIABLE = "AMLTK_NB_COMM_HOST"  # "address" or "address:port", for what cannot be found out

_MOST_STRANGERS = 1_000  # who has connected and not said who it is; the oldest must go


class RemoteTransport(LocalTransport):
    """The lines of one run on an engine elsewhere."""

    def __init__(self, engine: Engine) -> None:
        """Start without a line; nothing listens yet."""
        super().__init__(engine)
        self._gate: _TcpDoor | None = None
        self._has_gate: bool | None = None  # None: nobody has needed to know
        self._is_far_only = False  # the user has named the one way that there shall be

    def away(self, line: LocalLine) -> RemoteTicket:
        """Make a ticket for a worker anywhere."""
        far, near = self._far(), None
        if not self._is_far_only:
            near = SocketTicket(self.address(), line.number, line.token)
        return RemoteTicket(near, far, socket.gethostname(), line.number, line.token)

    def _far(self) -> Place | None:
        """Return where other machines connect; None: all workers are on this one."""
        with self._lock:
            if self._has_gate is None:
                chosen = _chosen()
                place = chosen or _found(self.engine)
                if place is not None:
                    self._check_open()
                    self._gate = _TcpDoor(self.engine, self._lines.get, place)
                self._has_gate, self._is_far_only = place is not None, chosen is not None
            return self._gate.place if self._gate is not None else None

    def let_in(self) -> None:
        """Take in connections that wait, on both ways."""
        super().let_in()
        if self._gate is not None:
            self._gate.let_in()

    def close(self) -> None:
        """Close all lines and both sockets."""
        super().close()
        if self._gate is not None:
            self._gate.close()


def _chosen() -> Place | None:
    """Read the variable by which the user names the address.

    Raises:
        ValueError: it is no address.
    """
    given = os.environ.get(HOST_VARIABLE)
    if not given:
        return None
    host, colon, port = given.rpartition(":")
    is_bare_v6 = given.count(":") > 1 and not host.endswith("]")
    if not colon or is_bare_v6:
        return given, 0
    if not host or not port.isdigit() or int(port) > 65_535:
        raise ValueError(
            f"{HOST_VARIABLE}={given!r}: use an address of this machine, as 10.0.0.5, or with a "
            "port that the firewall lets through, as 10.0.0.5:7000."
        )
    return host.strip("[]"), int(port)


def _found(engine: Engine) -> Place | None:
    host = engine.reach()
    return (host, 0) if host is not None else None


class _TcpDoor(Door):
    """Where calls on other machines come in."""

    def __init__(self, engine: Engine, find: Any, place: Place) -> None:
        """Listen; on any thread.

        Args:
            engine: whose loop serves it.
            find: knows a line by its number.
            place: an address of this machine and a port, 0 for any.
        """
        self.place = place
        super().__init__(engine, find)

    def listening(self) -> socket.socket:
        """Listen at the address that the workers are told."""
        host, port = self.place
        try:
            listener = _server(host, port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            listener = _server("", port)  # the address is that of a router before this machine
        self.place = host, listener.getsockname()[1]
        return listener

    def connection(self, accepted: socket.socket) -> Connection:
        """Take in one who called."""
        tuned(accepted)
        return _TcpConnection(accepted, self._sockets, self._find, self._connections.discard)

    def let_in(self) -> None:
        """Let nobody use up all descriptors by saying nothing."""
        super().let_in()
        while len(self._strangers) > _MOST_STRANGERS:
            self._strangers.pop(0).close()


def _server(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


class _TcpConnection(Connection):
    """One call on another machine; its messages are sealed."""

    greeting = GREETING

    def is_true(self, line: Any, number: int, *told: bytes) -> bool:
        """Look whether the caller knows the token, and says so for the first time."""
        nonce, proven = told
        if not hmac.compare_digest(proof(number, nonce, line.token), proven):
            return False
        if nonce in line.nonces:  # somebody repeats what was overheard
            return False
        line.nonces |= {nonce}
        self._channel = taken(self._socket.fileno(), nonce, line.token)
        return True
