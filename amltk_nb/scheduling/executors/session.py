"""One run on a remote engine: connects, hands calls over, takes answers in, looks for workers.

Two threads: one that asks things of the engine, in turn, and one that takes its answers in. So
the loop never waits for the engine, and an engine's callback thread never runs the user's code
(making a result again may). What is known of a call is kept here; the engine is not asked.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from itertools import takewhile
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from amltk_nb.errors import BackendLostError, CannotEndError, WorkerDiedError
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.ahead import Pace, Sample
from amltk_nb.scheduling.executors.flights import (
    Answered,
    Death,
    Deaths,
    Flight,
    NeverRanError,
    cancelled,
    could_not_start,
    failed,
    outcome,
    refused,
)
from amltk_nb.scheduling.snapshot import WorkerRecord

if TYPE_CHECKING:
    from amltk_nb.scheduling.executors.base import Listener
    from amltk_nb.scheduling.executors.remote import Connection, Handle, RemoteBackend, RemoteWorker

__all__ = ["Session"]

_POLL_ALONE_S = 0.2  # how often to look for workers while there are none and calls may wait
_CLOSE_S = 60.0  # the longest that closing waits for a connection that does not let go


class Session:
    """The connection of one run, and the calls that are on it; a member's `News`."""

    def __init__(self, backend: RemoteBackend, listener: Listener) -> None:
        """Prepare; `begin` starts it."""
        self._backend = backend
        self._listener = listener
        self._lock = threading.RLock()
        self._pace = Pace(backend.n_ahead)
        self._clock = backend.clock
        self._n_started = 0
        self._is_filling = False  # whether more calls are being handed over just now
        self._flights: dict[Call, Flight] = {}  # in the order of hand-over
        self._orders: SimpleQueue[Callable[[Connection], None] | None] = SimpleQueue()
        self._to_submit: deque[Flight] = deque()
        self._answers: SimpleQueue[list[tuple[Flight, Answered]] | None] = SimpleQueue()
        self._dead: list[tuple[Flight, Answered]] = []  # whose workers have died, so they say
        self._deaths = Deaths()
        self._workers: tuple[RemoteWorker, ...] = ()
        self._told_no_workers_at = 0.0
        self._can_see = True
        self._idle = threading.Condition(self._lock)  # told when no call is under way any more
        self._error: BaseException | None = None  # why nothing can run any more
        self._over = False  # lost or closed: nothing is handed over any more
        self._given_up: list[Flight] = []  # under way when the run was ended at once
        self._killers: list[threading.Thread] = []
        self.closing = threading.Event()
        self.n_slots = 0
        self.n_jobs_waiting: int | None = None
        self.waiting_for: str | None = f"{backend.name} to start"
        self.waiting_since: float | None = time.time()
        self._asker = self._thread("asks", self._live)
        self._taker = self._thread("takes", self._take_in)

    def begin(self) -> None:
        """Connect, in a thread of its own."""
        self._asker.start()
        self._taker.start()

    # ---------------------------------------------------------------- under the dispatch lock

    def slots(self) -> int:
        """Count the calls that it takes now: one for each idle worker, and those ahead."""
        with self._lock:
            if self._over:
                return 0
            n_ahead, n_refilled = self._pace.n_ahead, self._pace.n_refilled
            if self._is_late():
                n_ahead = n_refilled = 0
            n_free = self.n_slots * (1 + n_ahead) - len(self._flights)
            enough = self.n_slots * n_refilled
            self._is_filling = n_free > 0 and (self._is_filling or n_free >= enough)
            return n_free if self._is_filling else 0

    def _is_late(self) -> bool:
        """Whether a call takes far longer than expected: then others would wait behind it."""
        oldest = next(iter(self._flights.values()), None)
        return oldest is not None and self._clock() - oldest.handed_at >= self._pace.late_s

    def start(self, call: Call) -> None:
        """Have a call submitted, together with others that wait for that."""
        with self._lock:
            self._n_started += 1
            is_ahead = len(self._flights) >= self.n_slots
            flight = Flight(call, self._n_started, handed_at=self._clock(), is_ahead=is_ahead)
            self._flights[call] = flight
            error = self._error
            is_first = not self._to_submit
            self._to_submit.append(flight)
        if error is not None:  # it was lost between the question for room and this call
            self._answered(flight, error)
        elif is_first:
            self._orders.put(self._submit)

    def end(self, call: Call) -> bool:
        """End one call, or say that it cannot be ended."""
        with self._lock:
            flight = self._flights.get(call)
            if flight is None:
                return False
            if flight.ending:
                return True
            has_begun = flight.handle is not None and not flight.is_ahead
            if has_begun and self._backend.cannot_end is not None:
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
            self._listener.ended([outcome(flight, error) for flight in flights])
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
            self._listener.ended([cancelled(flight) for flight in self._given_up])

    def _clear(self) -> list[Flight]:
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
            self.lost(could_not_start(error, self._backend.name))
            return
        try:
            if not self.closing.is_set():
                self._serve(connection)
        except BaseException as error:  # nobody would ask or submit anything any more
            self.lost(failed(error, self._backend.name))
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
            if self._late():
                self._take_back(connection)
            patience_s = min(look_at - time.monotonic(), self._late_in_s())
            try:
                order = self._orders.get(timeout=max(0.0, patience_s))
            except Empty:
                continue
            if order is None:
                return
            order(connection)
            del order  # it may know a call

    def _submit(self, connection: Connection) -> None:
        """Submit all that is to be submitted."""
        flights = []
        with self._lock:
            while self._to_submit:
                flights.append(self._to_submit.popleft())
            ended = [flight for flight in flights if self._over or flight.ending]
        for flight in ended:
            self._answered(flight, CancelledError())
        flights = [flight for flight in flights if flight not in ended]
        calls = [(flight.call.payload, partial(self._answered, flight)) for flight in flights]
        for flight, handle in zip(flights, connection.submit_many(calls), strict=True):
            if isinstance(handle, BackendLostError):
                self.lost(handle)
            elif isinstance(handle, Exception):
                self._answered(flight, refused(handle, flight.call, self._backend.name))
            elif self._is_to_end(flight, handle):
                self._begin_kill(connection, flight)

    # ---------------------------------------------------------------- what waits behind a long one

    def _late_in_s(self) -> float:
        """Say how long until a call that was handed over ahead is late."""
        with self._lock:
            first = next(self._ahead(), None)
            if first is None:
                return math.inf
            return first.handed_at + self._pace.late_s - self._clock()

    def _late(self) -> list[Flight]:
        with self._lock:
            before = self._clock() - self._pace.late_s
            return list(takewhile(lambda flight: flight.handed_at <= before, self._ahead()))

    def _ahead(self) -> Iterator[Flight]:
        flights = self._flights.values()
        return (f for f in flights if f.is_ahead and f.handle is not None and not f.ending)

    def _take_back(self, connection: Connection) -> None:
        """Take back calls that wait too long: those that have not begun can run elsewhere."""
        late = self._late()
        try:
            dropped = set(connection.drop([flight.handle for flight in late]))
        except Exception as error:
            self.log("warning", f"calls that wait at a busy worker stay there: {error!r}")
            dropped = set()
        for flight in late:
            flight.is_ahead = flight.handle in dropped  # the others have begun, as far as is known
        self._give_back([flight for flight in late if flight.handle in dropped])

    def _give_back(self, flights: Iterable[Flight]) -> None:
        """Have calls that never began queue again."""
        with self._lock:
            ours = [f for f in flights if self._flights.get(f.call) is f]  # and no later one
            for flight in ours:
                del self._flights[flight.call]
            if not self._flights:
                self._idle.notify_all()
        if ended := [cancelled(flight) for flight in ours if flight.ending]:
            self._listener.ended(ended)
        if waiting := [flight.call for flight in ours if not flight.ending]:
            self._listener.returned(waiting)

    # ---------------------------------------------------------------- ending single calls

    def _is_to_end(self, flight: Flight, handle: Handle) -> bool:
        """Note that the engine has a call now; returns whether it was to end in the meantime."""
        with self._lock:
            flight.handle = handle
            return flight.ending

    def _begin_kill(self, connection: Connection, flight: Flight) -> None:
        """End a call beside all else: it may take seconds, and others must not wait for it."""
        killer = self._thread("ends a call", partial(self._kill, connection, flight))
        self._killers = [*(k for k in self._killers if k.is_alive()), killer]
        killer.start()

    def _kill(self, connection: Connection, flight: Flight) -> None:
        try:
            self._end(connection, flight)
        except BaseException as error:  # of a library's event loop, which may be closing, too
            self._goes_on(flight, error)
        else:
            self._answered_after_look(flight, CancelledError())

    def _goes_on(self, flight: Flight, error: BaseException) -> None:
        with self._lock:
            if self._flights.get(flight.call) is not flight:
                return  # it has ended meanwhile, or was given back: as cancelled
            flight.ending = flight.is_ahead = False  # so its own end will be told
        why = error if isinstance(error, CannotEndError) else repr(error)
        self.log("warning", f"call {flight.call.id} could not be ended and goes on: {why}")

    def _end(self, connection: Connection, flight: Flight) -> None:
        if flight.is_ahead and flight.handle in connection.drop([flight.handle]):
            return
        if self._backend.cannot_end is not None:
            raise CannotEndError("it had begun just before")
        connection.kill(flight.handle)

    def _answered_after_look(self, flight: Flight, answer: Answered) -> None:
        """See who is left before a call's slot is free: it may have gone with its worker."""
        with self._lock:
            self._dead.append((flight, answer))
            is_first = len(self._dead) == 1
        if is_first:  # one look is enough for all that are told of until then
            self._orders.put(self._look_first)

    def _look_first(self, connection: Connection) -> None:
        self._look(connection)
        with self._lock:
            dead, self._dead = self._dead, []
        self._answers.put(dead)

    # ---------------------------------------------------------------- looking for workers

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

    def _answered(self, flight: Flight, answer: Answered) -> None:
        """Take what the engine says of a call, from any thread."""
        if isinstance(answer, (WorkerDiedError, Death)):
            self._answered_after_look(flight, answer)
        else:
            self._answers.put([(flight, answer)])

    def _take_in(self) -> None:
        try:
            self._take_answers()
        except BaseException as error:  # nobody would hear of any end any more
            self.lost(failed(error, self._backend.name))

    def _take_answers(self) -> None:
        while (answers := self._answers.get()) is not None:
            more: list[tuple[Flight, Answered]] | None = answers
            with suppress(Empty):
                while (more := self._answers.get_nowait()) is not None:
                    answers += more
            self._take(answers)
            if more is None:
                return
            del answers, more  # else big results would be kept until the next ones come

    def _take(self, answers: list[tuple[Flight, Answered]]) -> None:
        """Report each call's first answer; an engine may say more than that."""
        died = {flight: answer for flight, answer in answers if isinstance(answer, Death)}
        _, waited = self._deaths.part(died.items())
        waited += [flight for flight, answer in answers if isinstance(answer, NeverRanError)]
        outcomes = []
        for flight, answer in answers:
            if flight in waited or self._flights.get(flight.call) is not flight:
                continue
            told = outcome(flight, answer.error if isinstance(answer, Death) else answer)
            with self._lock:
                if self._flights.pop(flight.call, None) is not None:
                    self._learn(flight, told)
                    outcomes.append(told)
        if outcomes:
            self._listener.ended(outcomes)
        self._give_back(waited)
        with self._idle:
            if not self._flights:
                self._idle.notify_all()

    def _learn(self, flight: Flight, told: Outcome) -> None:
        if told.seconds is not None and told.started_at is not None:
            under_way_s = self._clock() - flight.handed_at
            self._pace.learn(
                Sample(flight.process, told.started_at, told.seconds, under_way_s, flight.is_ahead)
            )


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
