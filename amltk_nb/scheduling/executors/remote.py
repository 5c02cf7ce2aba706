"""What all engines have in common that run calls elsewhere: Dask, Ray, batch systems and more.

A member of the family writes two classes::

    class DaskBackend(RemoteBackend):         what the user asked for
        def connect(self, news): ...          start or find the engine; may take its time

    class DaskConnection(Connection):         one connected engine, for one run
        def submit(self, packed, done): ...   returns a handle
        def workers(self): ...                who is there now
        def disconnect(self, running): ...    give everything back
        def drop(self, handles): ...          forget calls that have not begun
        def kill(self, handle): ...           end one running call (else `cannot_end` says why not)

What members can rely on: every hook runs on threads of ours, never on the loop, so it may block,
and `connect`, `submit`, `drop` and `workers` never run at the same time; `kill` may run beside
them, and `disconnect` comes last. What they owe: `connect` gives up soon after `news.closing` is
set, every hook is bounded in time, and what is wrong with the engine is raised or told as a
`BackendError` that says what to do.

What they need not care about: `done` may be called by any thread, early, late, twice or never
after `kill` and `disconnect`; each call still ends exactly once. As many calls are handed over as
there are workers now, and short ones ahead of their turn where a member says so (`n_ahead`); all
others wait in the scheduler's queue, where they can be cancelled. What travels is one `bytes` each
way; `run_call` (as `Portable`) runs it over there.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.executors.base import Backend, Listener
from amltk_nb.scheduling.executors.flights import Answered, Death, NeverRanError
from amltk_nb.scheduling.executors.session import Session
from amltk_nb.scheduling.remote_call import pack_call
from amltk_nb.scheduling.snapshot import BackendRecord, WorkerRecord

__all__ = [
    "Connection",
    "Death",
    "Done",
    "Handle",
    "NeverRanError",
    "News",
    "RemoteBackend",
    "RemoteWorker",
    "checked_ahead",
    "checked_seconds",
]

Handle: TypeAlias = Hashable  # the engine's name for a call: a key, a reference
Done: TypeAlias = Callable[[Answered], None]


class News(Protocol):
    """What a connection may tell at any time, from any thread."""

    closing: threading.Event  # set when the run ends: stop waiting for anything

    def changed(self) -> None:
        """Say that workers came or went: `workers` is asked soon, and not at its next turn."""

    def lost(self, error: BaseException) -> None:
        """Say that nothing can run any more: calls under way fail with this, and the run ends."""

    def log(self, level: str, text: str) -> None:
        """Add to the scheduler's log."""


@dataclass(frozen=True, slots=True)
class RemoteWorker:
    """One worker as the engine tells of it."""

    name: str  # as in what `run_call` is told, so that calls can be found
    n_slots: int = 1  # how many calls it runs at the same time
    where: str | None = None  # its machine or address, shown in the views
    pid: int | None = None
    is_there: bool = True  # False: it starts once there is a call for it
    running: Collection[Handle] | None = None  # what it runs now; None: the engine does not tell


class Connection(ABC):
    """An engine that is ready, from `connect` to `disconnect`."""

    @abstractmethod
    def submit(self, packed: bytes, done: Done) -> Handle:
        """Have the engine run `run_call(packed)` once, somewhere.

        Args:
            packed: from `pack_call`.
            done: to be called with the answer of `run_call`, or with what went wrong: a
                `WorkerDiedError`, a `Death` where others may have waited behind it, a
                `CancelledError` if the engine dropped it, any other error.

        Raises:
            BackendLostError: the engine is gone; the same as `News.lost`.
            BackendError: the engine does not take it; only this call fails.
        """

    def submit_many(self, calls: Sequence[tuple[bytes, Done]]) -> Sequence[Handle | Exception]:
        """Submit several, in one go where the engine can do that.

        Returns:
            For each its handle, or why the engine does not take it.
        """
        return [self._submitted(packed, done) for packed, done in calls]

    def _submitted(self, packed: bytes, done: Done) -> Handle | Exception:
        try:
            return self.submit(packed, done)
        except Exception as error:
            return error

    @abstractmethod
    def workers(self) -> Sequence[RemoteWorker]:
        """Say who is there now; asked about once a second.

        Raises:
            BackendLostError: the engine is gone; the same as `News.lost`.
        """

    def drop(self, handles: Collection[Handle]) -> Collection[Handle]:
        """Forget those calls that have not begun, for good.

        Returns:
            Those that will never run, whatever happens; nothing counts that is said of them later.
        """
        return ()

    def kill(self, handle: Handle) -> None:
        """End one call, whether it runs or not, and no other; returns when it runs no more.

        Raises:
            CannotEndError: it goes on, after all; its end is reported as it comes.
        """
        raise NotImplementedError(f"{type(self).__name__} says that it can end calls")

    def n_jobs_waiting(self) -> int | None:
        """Say how many jobs of ours wait in a batch queue; None: there is none."""
        return None

    @abstractmethod
    def disconnect(self, running: Collection[Handle]) -> None:
        """Give back everything of ours, and leave alone what is the user's.

        Args:
            running: calls that were given up: end them within 2 s where that is possible.
        """


class RemoteBackend(Backend):
    """Runs calls on an engine that is connected in a thread of its own."""

    reports_start: ClassVar[bool] = False  # whether RUNNING is more than "handed over"
    transport: ClassVar[str] = "remote"
    cannot_restart = (
        "workers of this engine are not replaced during a run. To have edited modules imported "
        "anew, end the run and start it again; workers that you started yourself, start anew "
        "yourself"
    )
    poll_s: float = 1.0  # how often workers are asked for
    clock: Callable[[], float] = staticmethod(time.monotonic)
    # How many more calls to hand over for each worker, which then need not wait for the next one;
    # None: as many short ones as are worth it. They may wait behind a long one, so only engines
    # should have some that can drop them again, or give them to whoever is free first.
    n_ahead: int | None = 0

    def __init__(self, *, options: Mapping[str, Any], no_workers_after_s: float = 10.0) -> None:
        """Prepare; nothing is started.

        Args:
            options: shown in the views.
            no_workers_after_s: how long to be without any worker before `on_no_workers` is
                emitted, and again each time as long after.

        Raises:
            TypeError: a time that is no number.
            ValueError: a time that is not positive.
        """
        checked_seconds(
            no_workers_after_s,
            "no_workers_after",
            "without a worker, then on_no_workers is emitted",
        )
        self.options = options
        self.no_workers_after_s = no_workers_after_s
        self._session: Session | None = None

    @abstractmethod
    def connect(self, news: News) -> Connection:
        """Start or find the engine; called for every run, in a thread of the run's own.

        Raises:
            BackendError: it cannot be had; the message says why and what to do.
        """

    # ---------------------------------------------------------------- for the engine

    @property
    def n_workers(self) -> int:  # type: ignore[override]
        """How many calls can run at this moment; changes during a run."""
        session = self._session  # once: another thread may close it
        return session.n_slots if session is not None else 0

    def open(self, listener: Listener) -> None:
        """Begin to connect, elsewhere; calls wait in the scheduler's queue meanwhile."""
        if self._session is not None:
            raise RuntimeError(f"This {self.name} is open already; close it first.")
        self._session = Session(self, listener)
        self._session.begin()

    def prepare(self, call: Call) -> None:
        """Pickle the function and the arguments as they are now.

        Raises:
            NotPicklableError: naming what cannot travel.
        """
        call.payload = pack_call(call, captures_output=self.captures_output)

    def slots(self) -> int:
        """Count the workers that have nothing of ours; none while it connects."""
        session = self._session
        return session.slots() if session is not None else 0

    def start(self, calls: Sequence[Call]) -> None:
        """Have the calls submitted, on the connection's own thread."""
        session = self._session
        if session is None:
            raise RuntimeError(f"This {self.name} is closed; open it before it gets calls.")
        for call in calls:
            session.start(call)

    def end(self, call: Call) -> bool:
        """End one call; where running ones cannot be ended, only one that is still here."""
        session = self._session
        return session is not None and session.end(call)

    def close(self, *, end_running: bool) -> None:
        """Disconnect; see `Backend.close`."""
        session = self._session
        if session is not None:
            session.close(end_running=end_running)
            self._session = None

    def restart(self) -> None:
        """Say that workers stay as they are: most engines would run calls again elsewhere."""
        session = self._session
        if session is not None:
            session.log("warning", f"{self.cannot_restart}.")

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Show the workers as the engine told of them last."""
        session = self._session
        return session.records() if session is not None else ()

    def describe(self) -> BackendRecord:
        """Say what it is, how many workers it has, and since when it waits for them."""
        session = self._session
        return BackendRecord(
            name=self.name,
            options=dict(self.options),
            n_workers=self.n_workers,
            cannot_end=self.cannot_end,
            cannot_restart=self.cannot_restart,
            reports_start=self.reports_start,
            waiting_for=session.waiting_for if session is not None else None,
            waiting_since=session.waiting_since if session is not None else None,
            no_workers_after_s=self.no_workers_after_s,
            n_jobs_waiting=session.n_jobs_waiting if session is not None else None,
        )


def checked_seconds(seconds: Any, name: str, what: str) -> float:
    """Check a time that a user gives.

    Args:
        seconds: the time.
        name: of the option.
        what: what it says, after the word "seconds".

    Raises:
        TypeError: no number.
        ValueError: not positive.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name}={seconds!r} must be a number: seconds {what}, such as 30.")
    if not seconds > 0:
        raise ValueError(f"{name}={seconds!r} must be positive: seconds {what}, such as 30.")
    return seconds


def checked_ahead(n_ahead: int | None) -> int | None:
    """Check what a user wants handed over ahead.

    Raises:
        ValueError: no number of calls.
    """
    if n_ahead is None or (type(n_ahead) is int and n_ahead >= 0):
        return n_ahead
    raise ValueError(
        f"n_ahead={n_ahead!r} must be a whole number of calls, 0 or more, or None for as many as "
        "are worth it."
    )
