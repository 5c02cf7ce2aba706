"""The ready queue, and the one place that decides what starts.

`pump` runs on whichever thread finds room: on the loop when a call is submitted, on a backend's
thread when one ends. So queued calls start on free workers while a notebook cell blocks the
loop. The lock guards decisions only; no user code runs under it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Backend
from amltk_nb.scheduling.interrupts import ShieldedLock
from amltk_nb.scheduling.states import CallState

__all__ = ["Dispatcher"]

# One message to a worker costs some 40 µs; 20 ms of work per message makes that invisible and
# still lets progress be seen and calls be cancelled at a human pace. Taking in the results of a
# full batch is the longest that the loop is held in one go: some 2 ms.
_BATCH_WORK_S = 0.020
_BATCH_MAX = 250
# A call that once was slow is expected to be slow again; the estimate halves in ~7 quick calls.
_FORGETTING = 0.9


class Dispatcher:
    """Holds the calls that wait, and hands them to the backend as it has room."""

    def __init__(
        self,
        backend: Backend,
        *,
        batching: bool,
        clock: Callable[[], float] = time.time,
        is_held_up: Callable[[], bool] | None = None,
    ) -> None:
        """Start empty.

        Args:
            backend: who runs the calls.
            batching: whether short calls may travel together.
            clock: gives seconds since the epoch.
            is_held_up: whether nothing is to begin for now; `pump` when that is over.
        """
        self._clock = clock
        self._is_held_up = is_held_up
        self.lock = ShieldedLock()
        self.paused = False
        self._is_ending = False
        self._n_ready = 0  # of those in the deque, how many still wait
        self._held: dict[int, Call] = {}  # waiting for their time, by id
        self._n_handed_over = 0  # under the lock
        self.n_left = 0  # of these, how many have ended; counted by the loop's thread alone
        self._backend = backend
        self._batching = batching and backend.batches
        # Cancelled calls stay in the deque until they reach the front: removing one from the
        # middle costs a walk over all (8 000 cancels took the predecessor 0.7 s).
        self._ready: deque[Call] = deque()
        self._expected_s: dict[object, float] = {}
        self._is_full = False  # no room when last asked, and the backend has said nothing since

    def add(self, call: Call) -> None:
        """Put a call at the end of the queue and start what can start; under the lock."""
        self._ready.append(call)
        self._n_ready += 1
        if not self._is_full:
            self._hand_over()

    def hold(self, call: Call) -> None:
        """Keep a call out of the queue until `let_in`; it waits all the same. Under the lock."""
        self._held[call.id] = call

    def let_in(self, call: Call) -> None:
        """Put a call that was held at the end of the queue, unless it was taken back meanwhile."""
        with self.lock:
            if self._held.pop(call.id, None) is not None:
                self.add(call)

    def give_back(self, calls: Sequence[Call]) -> None:
        """Put calls that never began back at the front, in their order."""
        with self.lock:
            self._requeue(calls)
            self.pump()

    def take_back(self, call: Call) -> bool:
        """Cancel a call if it still waits; returns whether it did."""
        with self.lock:
            if call.state is not CallState.QUEUED:
                return False
            call.move(CallState.CANCELLED)
            if self._held.pop(call.id, None) is None:
                self._n_ready -= 1
            return True

    def take_back_all(self) -> list[Call]:
        """Cancel every call that waits, for good; returns them in their order."""
        with self.lock:
            self._is_ending = True
            waiting = [
                call for call in (*self._ready, *self._held.values()) if self.take_back(call)
            ]
            self._ready.clear()
            return waiting

    @property
    def n_queued(self) -> int:
        """How many calls wait, for a worker or for their time."""
        return self._n_ready + len(self._held)

    @property
    def n_running(self) -> int:
        """How many calls the backend has, or has ended without their events being out."""
        return self._n_handed_over - self.n_left

    def upcoming(self, n: int) -> list[Call]:
        """Return the next `n` calls in the order they will start; those that are held come last."""
        with self.lock:
            return list(islice(self._waiting(), n))

    def measured(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from ended calls how long their function takes."""
        expected_s = self._expected_s
        for outcome in outcomes:
            if outcome.seconds is not None:
                call = outcome.call
                kind = call.task or _kind(call)
                expected_s[kind] = max(outcome.seconds, _FORGETTING * expected_s.get(kind, 0.0))

    def pump(self) -> None:
        """Hand over calls while the backend has room; it may have more than before."""
        with self.lock:
            self._is_full = False
            self._hand_over()
            # What an ending run takes out of a batch would never be started again.
            if self._batching and not (self._n_ready or self.paused or self._is_ending):
                self._even_out()

    def _even_out(self) -> None:
        """Let idle workers have what waits behind a call that takes longer than expected."""
        if self._backend.slots() > 0 and (waiting := self._backend.reclaim()):
            self._requeue(waiting)
            self._hand_over()

    def _requeue(self, calls: Sequence[Call]) -> None:
        for call in calls:
            call.move(CallState.QUEUED)
            call.worker = call.started_at = None
        self._ready.extendleft(reversed(calls))
        self._n_ready += len(calls)
        self._n_handed_over -= len(calls)

    def _hand_over(self) -> None:
        while self._n_ready and not self.paused:
            held_up = self._is_held_up is not None and self._is_held_up()
            if held_up or self._backend.slots() <= 0:
                self._is_full = True
                return
            batch = self._take_batch()
            now = self._clock()
            for call in batch:
                call.move(CallState.RUNNING)
                call.started_at = now  # until its worker says it better
            self._n_handed_over += len(batch)
            self._backend.start(batch)

    def _take_batch(self) -> list[Call]:
        """Take the next call, and those behind it that are short enough to travel along."""
        ready = self._ready
        batch: list[Call] = []
        # Half of an even share: the other workers, and this one's next batch, find work too.
        n_most = 1
        if self._batching:
            fair = (self._n_ready - 1) // (2 * self._backend.n_workers)
            n_most = max(1, min(_BATCH_MAX, fair))
        budget_s = _BATCH_WORK_S
        while len(batch) < n_most:
            call = ready[0]
            if call.state is CallState.QUEUED:
                budget_s -= self._expect(call)
                if batch and budget_s < 0:
                    break
                batch.append(call)
            ready.popleft()
        self._n_ready -= len(batch)
        return batch

    def _expect(self, call: Call) -> float:
        """Guess how long a call takes, seconds; one never measured travels alone."""
        return self._expected_s.get(call.task or _kind(call), _BATCH_WORK_S)

    def _waiting(self) -> Iterator[Call]:
        queued = (call for call in self._ready if call.state is CallState.QUEUED)
        return chain(queued, sorted(self._held.values(), key=lambda call: call.not_before or 0.0))


def _kind(call: Call) -> object:
    """What calls without a task share if they are of one sort: their function's code."""
    return getattr(call.fn, "__code__", None) or type(call.fn)
