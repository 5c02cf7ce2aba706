"""Calls of one task that belong together: submitted in one go, with events for all of them."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from amltk_nb import host
from amltk_nb.errors import BatchError, SchedulerNotRunningError
from amltk_nb.events import BATCH_EVENTS, Emitter, Event, Subscriber
from amltk_nb.scheduling import reading
from amltk_nb.scheduling.call import Future
from amltk_nb.scheduling.history import short_repr
from amltk_nb.scheduling.states import CallState

if TYPE_CHECKING:
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.snapshot import BatchRecord
    from amltk_nb.scheduling.task import Task

__all__ = ["Batch"]

R = TypeVar("R")


class Batch(Emitter, Generic[R]):
    """Several calls of one task, to be submitted together, once; `Task.batch` makes it.

    They are calls of the task like any others: its plugins are asked for each, and its events and
    the scheduler's tell of each, before the batch does. What a batch adds, in this order:

    - `on_any_submitted` for each call, then `on_batch_submitted`;
    - as each ends, `on_any_done` and `on_any_returned` or `on_any_exception`; a cancelled one only
      `on_any_cancelled`;
    - when all have ended, `on_batch_returned` if all returned, or `on_batch_failed` if one raised
      or was refused;
    - `on_batch_done`, always and last, for a batch without calls too.

    `on_batch_cancelled` tells of a `cancel()`. A submission is refused by a plugin, or by a run
    that is ending. Then the rest of the batch is not submitted, what was submitted is cancelled,
    and there is no `on_batch_submitted`; unless it was made with
    `cancel_on_failed_submission=False`, which goes on with the next one.
    """

    BATCH_SUBMITTED: ClassVar[Event[...]] = Event("on_batch_submitted")
    BATCH_DONE: ClassVar[Event[...]] = Event("on_batch_done")
    BATCH_RETURNED: ClassVar[Event[...]] = Event("on_batch_returned")
    BATCH_FAILED: ClassVar[Event[...]] = Event("on_batch_failed")
    BATCH_CANCELLED: ClassVar[Event[...]] = Event("on_batch_cancelled")
    ANY_SUBMITTED: ClassVar[Event[...]] = Event("on_any_submitted")
    ANY_DONE: ClassVar[Event[...]] = Event("on_any_done")
    ANY_RETURNED: ClassVar[Event[...]] = Event("on_any_returned")
    ANY_EXCEPTION: ClassVar[Event[...]] = Event("on_any_exception")
    ANY_CANCELLED: ClassVar[Event[...]] = Event("on_any_cancelled")

    on_batch_submitted: Subscriber[...]
    on_batch_done: Subscriber[...]
    on_batch_returned: Subscriber[...]
    on_batch_failed: Subscriber[...]
    on_batch_cancelled: Subscriber[...]
    on_any_submitted: Subscriber[...]
    on_any_done: Subscriber[...]
    on_any_returned: Subscriber[...]
    on_any_exception: Subscriber[...]
    on_any_cancelled: Subscriber[...]

    def __init__(
        self,
        task: Task[..., R],
        args: Iterable[tuple[Any, ...]],
        *,
        cancel_on_failed_submission: bool = True,
    ) -> None:
        """Make a batch; nothing is submitted yet.

        Args:
            task: whose calls they are.
            args: for each call the tuple of its arguments.
            cancel_on_failed_submission: whether a refused submission cancels the whole batch.

        Raises:
            TypeError: an item is no tuple, or does not fit the task's function; the message says
                which. What plugins may still add is not missed.
        """
        super().__init__(f"a batch of {task.ref}", specs=BATCH_EVENTS)
        for spec in BATCH_EVENTS:
            setattr(self, spec.name, self.subscriber(spec.name))
        self.task = task
        self.args = _checked(task, args)
        self.cancel_on_failed_submission = cancel_on_failed_submission
        self.futures: list[Future[R]] = []  # of the accepted calls, in the order of `args`
        self.n_refused = 0
        self._lock = threading.Lock()  # of what happens once
        self._is_submitted = self._is_cancelled = self._is_done = False
        # What ends while another thread still submits is told of when all are in.
        self._held: deque[Future[R]] | None = deque()
        self._n_ended = 0

    def submit(self) -> list[Future[R]]:
        """Submit all calls; from any thread.

        Returns:
            The futures of those that were accepted, in order.

        Raises:
            BatchError: it was submitted before.
            SchedulerNotRunningError: the scheduler takes no calls now; submit it later.
            PluginError: a plugin's hook failed; what was submitted is cancelled.
        """
        is_in = self._begin()
        try:
            for args in self.args:
                self._submit_one(args)
                if self._is_cancelled:
                    break
            else:
                self._announce(self.BATCH_SUBMITTED, list(self.futures))
        except BaseException:
            self.n_refused += 1
            self.cancel()
            raise
        finally:
            is_in()  # not now: ends are told by the drain, that of an empty batch too
        return list(self.futures)

    def __call__(self) -> list[Future[R]]:
        """Submit, or return an empty list if the scheduler does not take calls now."""
        try:
            return self.submit()
        except SchedulerNotRunningError:
            return []

    def cancel(self) -> int:
        """Cancel its calls: those in the queue, and running ones where they can be ended.

        From any thread, and of use once; before `submit` and after the last end it does nothing.
        Calls that cannot be ended run on, and the batch is done after them.

        Returns:
            How many calls it took back.
        """
        live = [future.call for future in self.futures if not future.done()]
        with self._lock:
            if self._is_cancelled or not self._is_submitted or not (live or self._held is not None):
                return 0
            self._is_cancelled = True
        self._announce(self.BATCH_CANCELLED)
        # First those that wait: each one ended would make room for the next of them to start.
        n_cancelled = sum(self.task.scheduler.cancel_queued(call) for call in live)
        return n_cancelled + sum(c.cancel() for c in live if c.state is CallState.RUNNING)

    def done(self) -> bool:
        """Say whether it was submitted and all its calls have ended."""
        return self._is_done

    def cancelled(self) -> bool:
        """Say whether `cancel()`, or a refused submission, has cancelled it."""
        return self._is_cancelled

    @property
    def state(self) -> str:
        """Where it is: "not submitted", "submitted", "cancelled" (calls still run), "done"."""
        if self._is_done:
            return "done"
        if self._is_cancelled:
            return "cancelled"
        return "submitted" if self._is_submitted else "not submitted"

    def told_end(self, future: Future[R]) -> None:
        """Learn that one of its calls has ended; the task's part."""
        if self._held is None:
            self._tell(future)
        else:
            self._held.append(future)

    # ---------------------------------------------------------------- going in

    def _begin(self) -> Callable[[], None]:
        """Belong to the present run, which does not end before what this returns is called."""
        with self._lock:
            if self._is_submitted:
                raise BatchError(
                    f"{self!r} was submitted before, and its events tell of one submission only. "
                    "Make another one with the same arguments: task.batch(batch.args)."
                )
            run = self.task.scheduler.live_run()
            run.faults.route(self, host.current().callback_output(run))
            run.traffic.await_batch(self)
            self._is_submitted = True
        return lambda: run.traffic.inbox.put(lambda: self._open(run))

    def _submit_one(self, args: tuple[Any, ...]) -> None:
        try:
            future = self.task.submit(*args)
        except SchedulerNotRunningError:  # stopped meanwhile, maybe by a callback of the last one
            future = None
        if future is not None:
            self.futures.append(future)
            self.task.scheduler.on_loop(lambda: self._expect(future))
            return
        self.n_refused += 1
        if self.cancel_on_failed_submission:
            self.cancel()

    def _expect(self, future: Future[R]) -> None:
        """Wait for the end of an accepted call; on the loop's thread."""
        if future.done() and future.call.ended_at is not None:  # faster than the submitting thread
            self.told_end(future)
        else:
            self.task.in_batches[future] = self
        self.emit(self.ANY_SUBMITTED, self, future)

    def _announce(self, event: Event[...], *args: Any) -> None:
        self.task.scheduler.on_loop(lambda: self.emit(event, self, *args))

    # ---------------------------------------------------------------- coming out

    def _open(self, run: Run) -> None:
        """Tell of what has ended so far, and of the rest when it ends."""
        run.traffic.entering.discard(self)
        while self._held:
            self._tell(self._held.popleft())
        self._held = None
        if not self.futures:
            self._finish()

    def _tell(self, future: Future[R]) -> None:
        self._n_ended += 1
        if future.cancelled():
            self.emit(self.ANY_CANCELLED, self, future)
        else:
            self.emit(self.ANY_DONE, self, future)
            if (error := future.exception()) is not None:
                self.emit(self.ANY_EXCEPTION, self, error)
            else:
                self.emit(self.ANY_RETURNED, self, future.result())
        if self._n_ended == len(self.futures):
            self._finish()

    def _finish(self) -> None:
        results: list[R] = []
        errors: list[BaseException] = []
        cancelled: list[Future[R]] = []
        for future in self.futures:
            if future.cancelled():
                cancelled.append(future)
            elif (error := future.exception()) is not None:
                errors.append(error)
            else:
                results.append(future.result())
        self._is_done = True
        if errors or self.n_refused:
            self.emit(self.BATCH_FAILED, self)
        elif not cancelled and not self._is_cancelled:
            self.emit(self.BATCH_RETURNED, self, results)
        self.emit(self.BATCH_DONE, self, results, errors, cancelled)

    # ---------------------------------------------------------------- shown

    def record(self) -> BatchRecord:
        """Record how it stands."""
        return reading.batch_record(self)

    def __rich__(self) -> Any:
        return host.current().rich(self)

    def _ipython_display_(self) -> None:
        host.current().show(self)

    def __repr__(self) -> str:
        told = f"{len(self.args)} calls"
        if not self._is_submitted:
            told += ", not submitted"
        elif self._is_done:
            told += ", done"
        else:
            told += f", {self._n_ended} ended"
        if self.n_refused:
            told += f", {self.n_refused} refused"
        return f"<Batch of {self.task.ref}: {told}{', cancelled' if self._is_cancelled else ''}>"


def _checked(task: Task[..., Any], args: Any) -> tuple[tuple[Any, ...], ...]:
    if isinstance(args, str | bytes) or not isinstance(args, Iterable):
        raise TypeError(
            f"A batch needs a tuple of arguments for each call, as in [(1, 1), (2, 2)]; "
            f"got {short_repr(args)}."
        )
    items = tuple(args)
    fits = _fits(task)
    for n, item in enumerate(items):
        if not isinstance(item, tuple):
            raise TypeError(
                f"Item {n} of the batch is {short_repr(item)}: each is the tuple of arguments of "
                f"one call, with one argument too: ({short_repr(item)},)."
            )
        try:
            fits(*item)
        except TypeError as error:
            raise TypeError(
                f"Item {n} of the batch is {short_repr(item)}, which does not fit "
                f"{task.signature}: {error}. Each item is the tuple of arguments of one call."
            ) from None
    return items


def _fits(task: Task[..., Any]) -> Callable[..., object]:
    try:
        signature = inspect.signature(task.function)
    except (TypeError, ValueError):  # of some builtins nothing is known
        return lambda *_: None
    # A plugin may add arguments at submission; that there are too many can be said now.
    return signature.bind_partial if task.plugins else signature.bind
