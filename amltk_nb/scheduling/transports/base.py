"""How a running call and its scheduler talk while it runs, whoever runs it.

::

    the scheduler's process                     wherever the call runs
    Transport ──► Line ◄─────── messages ───────► End ◄── ticket.connect()
                   └──── ticket, travels with the call ────────┘

A run has one transport, made when the first plugin needs it. A message is a head and a body: the
head is a tuple of plain values for the protocol above, the body is anything that can be pickled
and is made again by whoever asks for it. Messages of one line arrive in the order they were sent,
on the loop's thread; `Line.hear_out` brings all of them in before the end of its call is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeAlias

__all__ = [
    "End",
    "Engine",
    "Head",
    "Line",
    "Load",
    "Receiver",
    "Ticket",
    "Transport",
    "open_transport",
]

Head: TypeAlias = tuple[Any, ...]
Load: TypeAlias = Callable[[], Any]  # makes a body again; raises whatever its own code raises

# The family's members, loaded on use.
_MEMBERS = {
    "local": ("amltk_nb.scheduling.transports.local", "LocalTransport"),
    "remote": ("amltk_nb.scheduling.transports.remote", "RemoteTransport"),
}


class Receiver(Protocol):
    """Who takes in what a call says; called on the loop's thread."""

    def took(self, head: Head, load: Load) -> None:
        """Take one message."""

    def hung_up(self) -> None:
        """Be told that the call's end is closed, or that its process is gone."""


class Engine(Protocol):
    """What a transport may ask of the run that it serves."""

    holds_loop: bool  # calls run on the loop's thread, so nothing else happens meanwhile

    def is_on_loop(self) -> bool:
        """Say whether the caller is on the loop's thread."""

    def in_turn(self, fn: Callable[[], None]) -> None:
        """Call something on the loop's thread, behind what waits for it; from any thread."""

    def catch_up(self) -> None:
        """Do at once what waits for the loop's thread, which is this one."""

    def watch(self, fd: int, on_readable: Callable[[], None]) -> bool:
        """Have the loop call something while a descriptor has something to read."""

    def log(self, source: str, level: str, text: str) -> None:
        """Add to the scheduler's log."""

    def reach(self) -> str | None:
        """Say by which address workers reach this machine; None: all of them are on it."""


class Ticket(ABC):
    """What a call is given to find its line: small, and picklable."""

    @abstractmethod
    def connect(self, *, wait: bool = True) -> End | None:
        """Make the call's end of the line.

        Args:
            wait: whether to wait while the scheduler's process is too far behind to take it.

        Returns:
            The end; None if it would have had to wait.

        Raises:
            CommClosedError: the run that the line belongs to is over.
        """


class End(ABC):
    """The call's end of a line; a few threads of the call may share it."""

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """Whether this side has hung up."""

    @abstractmethod
    def send(self, head: Head, body: Any = None, *, timeout_s: float | None = None) -> bool:
        """Send a message.

        Args:
            head: plain values.
            body: anything that can be pickled.
            timeout_s: how long to wait while the other side is behind; None: for ever.

        Returns:
            Whether it is on its way; if not, nothing has been sent.

        Raises:
            NotPicklableError: the body cannot travel.
            CommClosedError: the other side is gone.
        """

    @abstractmethod
    def receive(self, timeout_s: float | None = None) -> tuple[Head, Load]:
        """Wait for a message.

        Raises:
            TimeoutError: none came in time.
            CommClosedError: the other side is gone.
            CommError: none can come, since the loop stands still until this call ends.
        """

    @abstractmethod
    def close(self) -> None:
        """Hang up, once all that was sent is on its way; harmless when closed."""


class Line(ABC):
    """The scheduler's end of the line of one call."""

    ticket: Ticket

    @abstractmethod
    def send(self, head: Head, body: Any = None) -> bool:
        """Send a message, from any thread, without waiting.

        Returns:
            Whether anybody is there to receive it.

        Raises:
            NotPicklableError: the body cannot travel.
        """

    @abstractmethod
    def hear_out(self) -> None:
        """Deliver all that the call had sent when it ended; on the loop's thread."""

    @abstractmethod
    def hang_up(self) -> None:
        """End the talk: the call's end is told that this side is gone; it may connect again."""

    @abstractmethod
    def close(self) -> None:
        """Take in nothing more."""


class Transport(ABC):
    """All lines of one run."""

    @abstractmethod
    def line(self, receiver: Receiver) -> Line:
        """Make a line for a call that is about to be queued; from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; whoever still waits on a line is told that the run is over."""


def open_transport(kind: str, engine: Engine) -> Transport:
    """Make the transport of a run.

    Args:
        kind: "local": for calls that run on this machine; "remote": maybe elsewhere.
        engine: the run that it serves.
    """
    module, name = _MEMBERS[kind]
    transport: Transport = getattr(import_module(module), name)(engine)
    return transport
