"""One run on a remote engine: connects, hands calls over, takes answers in, looks for workers.

Two threads: one that asks things of the engine, in turn, and one that takes its answers in. So
the loop never waits for the engine, and an engine's callback thread never runs the user's code
(making a result again may). What is known of a call is kept here; the engine is not asked.
"""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError as AsyncCancelledError
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from amltk_nb.errors import (
    AmltkError,
    BackendError,
    BackendLostError,
    BackendStartError,
    CannotEndError,
    WorkerDiedError,
)
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.remote_call import read_answer
from amltk_nb.scheduling.snapshot import WorkerRecord

if TYPE_CHECKING:
    from amltk_nb.scheduling.executors.base import Listener
    from amltk_nb.scheduling.executors.remote import Connection, Handle, RemoteBackend, RemoteWorker

__all__ = ["Session"]

_POLL_ALONE_S = 0.2  # how often to look for workers while there are none and calls may wait
_CLOSE_S = 60.0  # the longest that closing waits for a connection that does not let go


class _Flight:
    """One call between hand-over and outcome."""

    __slots__ = ("call", "ending", "handle")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.handle: Handle | None = None  # None: not with the engine yet
        self.ending = False  # was asked to end; whatever comes now, it was cancelled


class Session:
    """The connection of one run, and the calls that are on it; a member's `News`."""

    def __init__(self, backend: RemoteBackend, listener: Listener) -> None:
        """Prepare; `begin` starts it."""
        self._backend = backend
        self._listener = listener
        self._lock = threading.RLock()
        self._flights: dict[Call, _Flight] = {}
        self._orders: SimpleQueue[Callable[[Connection], None] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[_Flight, bytes | BaseException] | None] = SimpleQueue()
        self._workers: tuple[RemoteWorker, ...] = ()
        self._told_no_workers_at = 0.0
        self._can_see = True
        self._idle = threading.Condition(self._lock)  # told when no call is under way any more
        self._error: BaseException | None = None  # why nothing can run any more
        self._over = False  # lost or closed: nothing is handed over any more
        self._given_up: list[_Flight] = []  # under way when the run was ended at once
        self._killers: list[threading.Thread] = []
        self.closing = threading.Event()
        self.n_slots = 0
        self.n_jobs_waiting: int | None = None
        self.waiting_for: str | None = f"{backend.name} to start"
        self.waiting_since: float | None = time.time()
        self._asker = self._thread("asks", self._live)
        self._taker = self._thread("takes", self._take_answers)

    def begin(self) -> None:
        """Connect, in a thread of its own."""
        self._asker.start()
        self._taker.start()

    # ---------------------------------------------------------------- under the dispatch lock

    def slots(self) -> int:
        """Count the workers that have nothing of ours."""
        n_most = self.n_slots * (1 + self._backend.n_ahead)
        return 0 if self._over else max(0, n_most - len(self._flights))

    def start(self, call: Call) -> None:
        """Have a call submitted."""
        flight = _Flight(call)
        with self._lock:
            self._flights[call] = flight
            error = self._error
        if error is not None:  # it was lost between the question for room and this call
            self._answered(flight, error)
        else:
            self._orders.put(lambda connection: self._submit(connection, flight))

    def end(self, call: Call) -> bool:
        """End one call, or say that it cannot be ended."""
        with self._lock:
            flight = self._flights.get(call)
            if flight is None:
                return False
            if flight.ending:
                return True
            if flight.handle is not None and self._backend.cannot_end is not None:
                return False
            flight.ending = True
            if flight.handle is not None:
                self._orders.put(lambda connection: self._begin_kill(connection, flight))
            return True

    def records(self) -> tuple[WorkerRecord, ...]:
        """Show the workers as last told."""
        ids = {flight.handle: flight.call.id for flight in list(self._flights.values())}
        return tuple(_record(worker, ids) for worker in self._workers)

    # ---------------------------------------------------------------- News

    def changed(self) -> None:
        """Look at the workers soon."""
        self._orders.put(self._look)

    def lost(self, error: BaseException) -> None:
        """Fail what is under way, and have the run end."""
        with self._lock:
            if self._over:
                return
            self._error = error
            flights = self._clear()
        self._orders.put(None)
        if flights:
            self._listener.ended([_outcome(flight, error) for flight in flights])
        self._listener.lost(error)

    def log(self, level: str, text: str) -> None:
        """Add to the scheduler's log."""
        self._listener.log(self._backend.name, level, text)

    # ---------------------------------------------------------------- the end

    def close(self, *, end_running: bool) -> None:
        """Give the engine back, with or without waiting for what is under way."""
        if not end_running:
            with self._idle:
                self._idle.wait_for(lambda: not self._flights or self._over)
        self.closing.set()
        with self._lock:
            self._given_up += self._clear()
        self._orders.put(None)
        self._asker.join(_CLOSE_S)
        self._answers.put(None)
        self._taker.join(_CLOSE_S)
        if self._asker.is_alive():
            self.log("error", f"it does not let go; it was left alone after {_CLOSE_S:.0f} s")
        if self._given_up:
            self._listener.ended([_cancelled(flight) for flight in self._given_up])

    def _clear(self) -> list[_Flight]:
        """Hand over nothing more, and return what is under way; under the lock."""
        flights, self._flights = list(self._flights.values()), {}
        self._over = True
        self.n_slots, self._workers = 0, ()
        self.waiting_for = self.waiting_since = None
        self._idle.notify_all()
        return flights

    def _thread(self, does: str, work: Callable[[], None]) -> threading.Thread:
        # Daemonic: an engine that never answers must not keep the interpreter from exiting.
        name = f"amltk-nb-{self._backend.name} {does}"
        return threading.Thread(target=work, name=name, daemon=True)

    # ---------------------------------------------------------------- the thread that asks

    def _live(self) -> None:
        try:
            connection = self._backend.connect(self)
        except BaseException as error:  # whatever a library raises when it cannot start
            self.lost(_explained(error, self._backend.name))
            return
        try:
            if not self.closing.is_set():
                self._serve(connection)
        finally:
            self._disconnect(connection)

    def _serve(self, connection: Connection) -> None:
        self._wait_for(f"workers of {self._backend.name}")
        self._listener.changed()
        look_at = time.monotonic()
        while True:
            if time.monotonic() >= look_at:
                self._look(connection)
                patience_s = self._backend.poll_s if self.n_slots else _POLL_ALONE_S
                look_at = time.monotonic() + min(patience_s, self._backend.poll_s)
            try:
                order = self._orders.get(timeout=max(0.0, look_at - time.monotonic()))
            except Empty:
                continue
            if order is None:
                return
            order(connection)

    def _submit(self, connection: Connection, flight: _Flight) -> None:
        if self._over or flight.ending:
            self._answered(flight, CancelledError())
            return
        try:
            handle = connection.submit(flight.call.payload, partial(self._answered, flight))
        except Exception as error:
            self._answered(flight, _refused(error, flight.call, self._backend.name))
            return
        if self._is_to_end(flight, handle):
            self._begin_kill(connection, flight)

    def _is_to_end(self, flight: _Flight, handle: Handle) -> bool:
        """Note that the engine has a call now; returns whether it was to end in the meantime."""
        with self._lock:
            flight.handle = handle
            return flight.ending

    def _begin_kill(self, connection: Connection, flight: _Flight) -> None:
        """End a call beside all else: it may take seconds, and others must not wait for it."""
        killer = self._thread("ends a call", partial(self._kill, connection, flight))
        self._killers = [*(k for k in self._killers if k.is_alive()), killer]
        killer.start()

    def _kill(self, connection: Connection, flight: _Flight) -> None:
        try:
            if self._backend.cannot_end is None:
                connection.kill(flight.handle)
            else:
                connection.drop(flight.handle)
        except Exception as error:
            flight.ending = False  # it goes on, so its own end is what will be told
            why = error if isinstance(error, CannotEndError) else repr(error)
            self.log("warning", f"call {flight.call.id} could not be ended and goes on: {why}")
            return
        self._answered_after_look(flight, CancelledError())

    def _answered_after_look(self, flight: _Flight, answer: bytes | BaseException) -> None:
        """See who is left before a call's slot is free: it may have gone with its worker."""

        def look_first(connection: Connection) -> None:
            self._look(connection)
            self._answers.put((flight, answer))

        self._orders.put(look_first)

    def _look(self, connection: Connection) -> None:
        """See who is there; room for more calls is told at once."""
        try:
            workers, n_jobs = tuple(connection.workers()), connection.n_jobs_waiting()
        except BackendLostError as error:
            self.lost(error)
            return
        except Exception as error:
            if self._can_see:  # said once for as long as it lasts
                self.log("warning", f"its workers cannot be seen now: {error!r}")
            self._can_see = False
            return
        self._can_see = True
        with self._lock:
            if self._over:
                return
            changed = (workers, n_jobs) != (self._workers, self.n_jobs_waiting)
            self._workers, self.n_jobs_waiting = workers, n_jobs
            self.n_slots = sum(worker.n_slots for worker in workers)
        self._name_workers(workers)
        self._mind_missing_workers()
        if changed:
            self._listener.changed()

    def _name_workers(self, workers: Iterable[RemoteWorker]) -> None:
        calls = {flight.handle: flight.call for flight in list(self._flights.values())}
        for worker in workers:
            for handle in worker.running or ():
                if handle in calls:
                    calls[handle].worker = worker.name

    def _mind_missing_workers(self) -> None:
        """Say again and again that nobody is there, until somebody is."""
        if self.n_slots:
            self.waiting_for = self.waiting_since = None
            return
        if self.waiting_since is None:
            self._wait_for(f"workers of {self._backend.name}")
        now, every_s = time.monotonic(), self._backend.no_workers_after_s
        if now - self._told_no_workers_at >= every_s:
            self._told_no_workers_at = now
            self._listener.no_workers(now - self._no_workers_since)

    def _wait_for(self, what: str) -> None:
        self.waiting_for, self.waiting_since = what, time.time()
        self._no_workers_since = self._told_no_workers_at = time.monotonic()

    def _disconnect(self, connection: Connection) -> None:
        for killer in self._killers:
            killer.join(_CLOSE_S)
        handles = [flight.handle for flight in self._given_up if flight.handle is not None]
        try:
            connection.disconnect(handles)
        except Exception as error:
            self.log("error", f"it did not close as it should: {error!r}")

    # ---------------------------------------------------------------- the thread that takes in

    def _answered(self, flight: _Flight, answer: bytes | BaseException) -> None:
        """Take what the engine says of a call, from any thread."""
        if isinstance(answer, WorkerDiedError):
            self._answered_after_look(flight, answer)
        else:
            self._answers.put((flight, answer))

    def _take_answers(self) -> None:
        while (first := self._answers.get()) is not None:
            answers = [first]
            try:
                while (more := self._answers.get_nowait()) is not None:
                    answers.append(more)
            except Empty:
                self._take(answers)
            else:
                self._take(answers)
                return

    def _take(self, answers: Iterable[tuple[_Flight, bytes | BaseException]]) -> None:
        """Report each call's first answer; an engine may say more than that."""
        outcomes = []
        for flight, answer in answers:
            if self._flights.get(flight.call) is not flight:
                continue
            outcome = _outcome(flight, answer)
            with self._lock:
                if self._flights.pop(flight.call, None) is not None:
                    outcomes.append(outcome)
        if outcomes:
            self._listener.ended(outcomes)
        with self._idle:
            if not self._flights:
                self._idle.notify_all()


def _record(worker: RemoteWorker, ids: Mapping[Handle | None, int]) -> WorkerRecord:
    # Engines tell what a worker has in no order; the one submitted first is what it began with.
    has = [ids[handle] for handle in worker.running or () if handle in ids]
    return WorkerRecord(
        name=worker.name,
        state=_worker_state(worker, len(ids)),
        pid=worker.pid,
        call=min(has, default=None),
        n_calls=len(has),
        where=worker.where,
    )


def _worker_state(worker: RemoteWorker, n_calls: int) -> str:
    if not worker.is_there:
        return "to come"
    if worker.running is None:
        return "up" if n_calls else "idle"
    return "busy" if worker.running else "idle"


def _cancelled(flight: _Flight) -> Outcome:
    return Outcome(flight.call, cancelled=True, worker=flight.call.worker)


def _outcome(flight: _Flight, answer: bytes | BaseException) -> Outcome:
    """Make of the engine's word on a call what became of it."""
    call = flight.call
    if flight.ending or isinstance(answer, (CancelledError, AsyncCancelledError)):
        return _cancelled(flight)
    if isinstance(answer, BaseException):
        return Outcome(call, error=answer, worker=call.worker)
    try:
        told = read_answer(answer, call.describe())
    except Exception as error:  # not what `run_call` makes: another version, or no answer at all
        wrong = BackendError(
            f"The answer to call {call.id} of {call.describe()}() cannot be read: {error!r}. "
            "Its worker may run another version of Python or cloudpickle."
        )
        wrong.__cause__ = error
        return Outcome(call, error=wrong, worker=call.worker)
    worker = told.worker or call.worker or f"{told.host}:{told.pid}"
    return Outcome(
        call, told.value, told.error, False, told.started_at, told.seconds, worker, told.output
    )


def _explained(error: BaseException, name: str) -> BaseException:
    """Say of whatever a library raised at its start what it means here."""
    if isinstance(error, AmltkError) or not isinstance(error, Exception):
        return error
    explained = BackendStartError(
        f"{name} could not be started: {type(error).__name__}: {error}. Nothing has run; see the "
        "cause above, then start the scheduler again."
    )
    explained.__cause__ = error
    return explained


def _refused(error: Exception, call: Call, name: str) -> Exception:
    if isinstance(error, AmltkError):
        return error
    explained = BackendError(
        f"{name} did not take call {call.id} of {call.describe()}(): {type(error).__name__}: "
        f"{error}. Other calls are not affected."
    )
    explained.__cause__ = error
    return explained
