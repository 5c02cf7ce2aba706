"""The calls of one run: how they come in, what the backend says of them, how they go out.

    accept ─► dispatch ─► backend ─► (any thread) ended ─► inbox ─► settle: state, future, events

Events are emitted on the loop's thread; what must act at once (cancel) acts under the dispatch
lock, and only its events wait for the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ref

from amltk_nb.errors import NotPicklableError, SchedulerNotRunningError
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.dispatch import Dispatcher
from amltk_nb.scheduling.inbox import Inbox
from amltk_nb.scheduling.interrupts import gently, wholly
from amltk_nb.scheduling.lines import Lines
from amltk_nb.scheduling.plugins.base import (
    hear_out,
    received,
    release_all,
    without_hidden,
)
from amltk_nb.scheduling.retries import Retries
from amltk_nb.scheduling.settling import book, resolve, storable, tell
from amltk_nb.scheduling.states import CallState

if TYPE_CHECKING:
    from amltk_nb.scheduling.batch import Batch
    from amltk_nb.scheduling.journal_rows import TakenDown
    from amltk_nb.scheduling.run import Run

__all__ = ["Traffic"]

logger = logging.getLogger("amltk_nb")


class Traffic:
    """Every accepted call of a run, until it has ended; the backend's listener."""

    def __init__(self, run: Run, *, pause_s: float) -> None:
        """Start without calls; on the loop's thread.

        Args:
            run: whose calls these are.
            pause_s: how long to leave the loop to others between two slices of work.
        """
        self._run = run
        self._scheduler = scheduler = run.scheduler
        self.active: dict[int, Call] = {}  # accepted and not ended, in order of submission
        self._journal = scheduler.journal
        self.dispatch = Dispatcher(
            scheduler.backend,
            batching=scheduler.batching,
            clock=scheduler.clock,
            is_held_up=self._journal.is_behind if self._journal is not None else None,
        )
        if self._journal is not None:
            self._journal.caught_up = self.changed
        self.inbox: Inbox[Outcome | Callable[[], None]] = Inbox(
            run.loop, handle=self._handle, settled=run.settled, pause_s=pause_s
        )
        self._is_abandoned = False
        self._ended_for_good: set[int] = set()  # cancelled by somebody before it was abandoned
        self.n_accepted = 0  # attempts of retried calls included, as in all counts
        self.entering: set[Batch[Any]] = set()  # batches that some thread is submitting
        self.lines = Lines(self, scheduler.backend)
        self._retries = Retries(run, self)
        self._cancels_asked: set[int] = set()
        self._not_again: set[int] = set()  # asked to be cancelled too late: not retried either
        self._watched_fds: list[int] = []
        self._backend = scheduler.backend
        self._canceller = self.cancel  # one for all calls: each bound method is one more object

    # ---------------------------------------------------------------- in

    def accept(self, call: Call, *, recovered: bool = False) -> bool:
        """Take a call, from any thread, within a guard against interrupts.

        Args:
            call: a new one.
            recovered: whether the journal has it already.

        Returns:
            Whether it is taken; False: somebody else has recovered it meanwhile.

        Raises:
            SchedulerNotRunningError: the run is ending.
        """
        on_loop = self.inbox.on_loop()
        call.canceller = self._canceller
        error: Exception | None = None
        try:
            self._backend.prepare(call)
        except NotPicklableError as raised:
            error = raised
        writes = self._journal is not None and not recovered
        taken_down = self._taken_down(call) if writes else None
        with self.dispatch.lock.bare:
            if self._run.ending:
                raise SchedulerNotRunningError(self._scheduler.not_running_message())
            if self._journal is not None:  # in the order of acceptance, before anything ends it
                if taken_down is not None:
                    self._journal.accepted(taken_down)
                elif not self._journal.again(call):
                    return False
            self.enter(call)
            if not on_loop:  # before anything that a worker may say of it
                self.inbox.put(lambda: self._announce(call))
            if error is None:
                self.dispatch.add(call)
            else:
                call.move(CallState.FAILED)
                self.inbox.put(Outcome(call, error=error))
        if on_loop:
            self._announce(call)
        else:
            self._scheduler.tell_watchers()
        return True

    def _taken_down(self, call: Call) -> TakenDown:
        assert self._journal is not None
        # A large argument is copied once for both, unless plugins made another one of it.
        packed = self._backend.packed(call) if call.altered is None else None
        return self._journal.taken_down(call, packed)

    def enter(self, call: Call) -> None:
        """Count a call among those that have not ended; under the dispatch lock."""
        self.active[call.id] = call
        self.n_accepted += 1
        if call.task is not None:
            call.task.n_called += 1

    def await_batch(self, batch: Batch[Any]) -> None:
        """Have the run wait for a batch whose calls are about to come, from any thread.

        Raises:
            SchedulerNotRunningError: the run is ending.
        """
        with self.dispatch.lock:
            if self._run.ending:
                raise SchedulerNotRunningError(self._scheduler.not_running_message())
            self.entering.add(batch)

    @property
    def is_over(self) -> bool:
        """Whether every accepted call has ended, and none of a batch is on its way in."""
        return not self.active and not self.entering

    def _announce(self, call: Call) -> None:
        scheduler, task = self._scheduler, call.task
        future = call.future
        scheduler.submitted.emit(future)
        if task is not None:
            if task.submitted.handlers:
                _, args, kwargs = call.work
                task.submitted.emit(future, *args, **without_hidden(kwargs))
            else:
                task.submitted.count += 1
        scheduler.touch()

    # ---------------------------------------------------------------- taken back

    def cancel(self, call: Call) -> bool:
        """Take a call back, or end it; from any thread. Returns whether it ends as cancelled."""
        if call.id not in self.active:
            return call.state is CallState.CANCELLED
        if self.take_back(call):
            return True
        return call.state is CallState.CANCELLED or self._end(call)

    def take_back(self, call: Call) -> bool:
        """Cancel a call that still waits; returns whether it did."""
        with wholly:
            if not self.dispatch.take_back(call):
                return False
            self._cancels_asked.add(call.id)
            if self.inbox.on_loop() and call.future is not None:
                call.future.settle_cancelled()
            self.inbox.put(self._cancelled(call))
            self._scheduler.tell_watchers()
        return True

    def take_back_all(self) -> list[Outcome]:
        """Cancel every call that waits, for good; returns what is to be told of by `report`."""
        return [self._cancelled(call) for call in self.dispatch.take_back_all()]

    def _cancelled(self, call: Call) -> Outcome:
        """Make the end of a call that was taken back, recorded at once: the loop may be blocked."""
        outcome = Outcome(call, cancelled=True)
        if self._journal is not None:
            self._record(outcome)
        return outcome

    def end_running(self) -> bool:
        """End what the backend can end now; returns whether that was anything."""
        running = [call for call in list(self.active.values()) if call.state is CallState.RUNNING]
        return sum(self._end(call) for call in running) > 0  # not any(), which stops at the first

    def _end(self, call: Call) -> bool:
        with self.dispatch.lock:
            was_asked = call.id in self._cancels_asked  # by an earlier click
            self._cancels_asked.add(call.id)
            # Asked again: what could not be ended then, and goes on, may be ended now.
            ended = self._scheduler.backend.end(call) or was_asked
            if not ended:
                self._cancels_asked.discard(call.id)
                self._not_again.add(call.id)
        return ended

    def give_up(self) -> None:
        """Note that what the closing backend ends or abandons was asked for here."""
        self._cancels_asked.update(self.active)

    def abandon(self) -> None:
        """Leave without a recorded end what has none: the process ends, or its cell runs again."""
        with self.dispatch.lock:
            ended = (c.id for c in list(self.active.values()) if c.state is CallState.CANCELLED)
            self._ended_for_good.update(self._cancels_asked, ended)
            self._is_abandoned = True

    def report(self, outcomes: Sequence[Outcome]) -> None:
        """Have ends announced."""
        self.inbox.put(*outcomes)

    def settle_all(self) -> None:
        """Settle what has ended, and the rest as cancelled; now, on the loop's thread."""
        self.inbox.flush()
        self._cancels_asked.update(self.active)
        for call in list(self.active.values()):
            self._settle(Outcome(call, cancelled=True))

    # ---------------------------------------------------------------- what the backend says

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Take ends of calls, and start the next ones on this very thread."""
        # Waking the loop last: it would only wait for this thread to let go of the interpreter,
        # and workers would wait for both.
        self.inbox.lay(outcomes if self._journal is None else self._recorded(outcomes))
        self.dispatch.measured(outcomes)
        if not self._run.ending:
            self.dispatch.pump()
        self._scheduler.tell_watchers()
        self.inbox.put()

    def ended_here(self, outcomes: Sequence[Outcome]) -> None:
        """Take ends of calls that ran on the loop's thread, and tell of them at once."""
        with gently:
            self.ended(outcomes)
            self.inbox.catch_up()

    def _recorded(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Record ends as they come, for the loop may be blocked; returns those to tell of now.

        What plugins still have a say in is recorded when they have said it.
        """
        return [o for o in outcomes if o.call.plugins or not self._record(o, hold=True)]

    def _record(self, outcome: Outcome, *, hold: bool = False) -> bool:
        """Record an end; returns whether it is told of later, when it is written."""
        assert self._journal is not None
        call = outcome.call
        if outcome.cancelled and self._is_abandoned and call.id not in self._ended_for_good:
            self._journal.left(call)
            return False
        tell = (lambda: self.inbox.put(outcome)) if hold else None
        outcome.is_recorded = True
        try:
            return self._journal.ended(outcome, now=self._scheduler.clock(), tell=tell)
        except Exception as error:  # no memory for a copy, say; the call has ended all the same
            text = f"the end of call {call.id} is not in the journal: {error!r}"
            self._scheduler.log("journal", "error", text)
            return False

    def returned(self, calls: Sequence[Call]) -> None:
        """Put calls back whose worker died before they began; an ending run cancels them."""
        with self.dispatch.lock:
            if not self._run.ending:
                self.dispatch.give_back(calls)
                self._scheduler.tell_watchers()
                return
        self._cancels_asked.update(call.id for call in calls)
        self.report([Outcome(call, cancelled=True) for call in calls])

    def changed(self) -> None:
        """Start what can start now."""
        self.dispatch.pump()
        self._scheduler.touch()

    def lost(self, error: BaseException) -> None:
        """End the run: nothing can run any more."""
        self.inbox.put(lambda: self._run.faults.lost(error))

    def no_workers(self, seconds: float) -> None:
        """Emit that nobody has been there for so long."""
        scheduler = self._scheduler
        self.inbox.put(lambda: scheduler.emitter.emit(scheduler.NO_WORKERS, seconds))

    def log(self, source: str, level: str, text: str) -> None:
        """Add to the scheduler's log."""
        self._scheduler.log(source, level, text)

    def call_soon(self, fn: Callable[[], None]) -> None:
        """Run something on the loop's thread at its next turn."""
        if self.inbox.on_loop():
            self._run.loop.call_soon(fn)
            return
        with suppress(RuntimeError):  # the loop was closed under us: nobody is left to tell
            self._run.loop.call_soon_threadsafe(fn)

    def watch(self, fd: int, on_readable: Callable[[], None]) -> bool:
        """Have the loop call something while a descriptor has something to read."""
        try:
            self._run.loop.add_reader(fd, self.inbox.during, lambda: self._handle(on_readable))
        except NotImplementedError:
            return False
        self._watched_fds.append(fd)
        return True

    def unwatch(self) -> None:
        """Watch nothing any more; on the loop's thread."""
        while self._watched_fds:
            self._run.loop.remove_reader(self._watched_fds.pop())

    def on_loop(self, fn: Callable[[], None]) -> None:
        """Run something on the loop's thread: now if this is it, else soon."""
        if self.inbox.on_loop():
            fn()
        else:
            self.inbox.put(fn)

    # ---------------------------------------------------------------- out

    def _handle(self, item: Outcome | Callable[[], None]) -> None:
        try:
            if isinstance(item, Outcome):
                self._settle(item)
            else:
                item()
        except BaseException as error:  # a fault of ours: the drain must go on, the run must end
            logger.exception("the scheduler itself failed")
            if isinstance(item, Outcome):
                self._fail_future(item.call, error)
            self._run.faults.end_with(error)

    def _fail_future(self, call: Call, error: BaseException) -> None:
        """Have nobody wait for ever for a call that was lost on its way out."""
        future = call.settled() if call.settled is not None else call.future
        if future is not None and not future.done():
            future.set_exception(storable(error, "the scheduler itself"))
            future.exception()

    def _settle(self, outcome: Outcome) -> None:
        """End one call: state, future, plugins, history, then its events and the policy.

        One that failed and is to run again ends without a word: another one takes its future.
        """
        call = outcome.call
        if call.plugins and call.state is CallState.RUNNING:
            self._hear_out(call)
        if self.active.pop(call.id, None) is None:
            return
        has_run = call.state is CallState.RUNNING
        if call.plugins and has_run and outcome.error is None and not outcome.cancelled:
            self._receive(outcome)
        future, call.future = call.future, None
        assert future is not None
        call.settled = ref(future)
        asked = call.state is CallState.CANCELLED
        if self._cancels_asked and call.id in self._cancels_asked:
            self._cancels_asked.discard(call.id)
            asked = True
        too_late = bool(self._not_again) and call.id in self._not_again
        self._not_again.discard(call.id)
        self.dispatch.n_left += has_run
        book(call, outcome, now=self._scheduler.clock())
        if call.plugins:
            self._retries.forget(call)
            may_run_again = call.error is not None and has_run and not asked and not too_late
            if may_run_again and self._retries.again(outcome, future):
                return
        if self._journal is not None and not outcome.is_recorded:
            self._record(outcome)
        resolve(future, call, outcome.value)
        if call.plugins:
            self._release(call)
        self.put_away(call)
        tell(self._scheduler, call, future, outcome.value)
        if call.error is not None:
            self._run.faults.decide(call.error)
        elif call.state is CallState.CANCELLED and not asked:
            self._run.faults.cancelled(call)

    def _receive(self, outcome: Outcome) -> None:
        call = outcome.call
        try:
            outcome.value = received(call.plugins, call, outcome.value)
        except BaseException as error:
            outcome.value, outcome.error = None, error

    def _hear_out(self, call: Call) -> None:
        for error in hear_out(call.plugins, call):
            self._run.faults.failed(error, f"a plugin hearing call {call.id} out")

    def _release(self, call: Call) -> None:
        for error in release_all(call.plugins, call):
            where = f"a plugin releasing call {call.id} of {call.describe()}"
            self._run.faults.failed(error, where)

    def put_away(self, call: Call) -> None:
        """Count and remember a call that has ended, without what only running needs."""
        if call.task is not None:
            call.task.counts[call.state] += 1
        call.payload = None
        call.altered = call.canceller = None
        self._scheduler.history.add(call)
        self._scheduler.tell_watchers()
