"""What goes wrong in the calls and callbacks of one run, and what its policies make of it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from amltk_nb.errors import SchedulerNotRunningError
from amltk_nb.scheduling.exit_state import ExitCode
from amltk_nb.scheduling.history import error_line
from amltk_nb.scheduling.settling import storable

if TYPE_CHECKING:
    from amltk_nb.events import Emitter, Event, Handler
    from amltk_nb.scheduling.call import Call
    from amltk_nb.scheduling.run import Run

__all__ = ["TOLD_OF_FAILURES", "Faults"]

logger = logging.getLogger("amltk_nb")

# Whoever owes somebody an answer to an event sets this while emitting it, and is told of each
# callback that fails, coroutines included: the tasks that await them inherit the context.
TOLD_OF_FAILURES: ContextVar[Callable[[BaseException, Handler], None] | None] = ContextVar(
    "amltk_nb_told_of_failures", default=None
)


class Faults:
    """Takes errors of calls and callbacks, and ends the run where its policies say so."""

    def __init__(self, run: Run) -> None:
        """Start without any."""
        self._run = run
        self.raised: BaseException | None = None  # what `await run` raises
        self.coroutines: set[asyncio.Task[Any]] = set()  # of coroutine callbacks, under way

    def route(self, emitter: Emitter, around: Any, *, on: bool = True) -> None:
        """Have the errors and coroutines of an emitter's callbacks come here, or nowhere.

        Args:
            emitter: the scheduler's or a task's.
            around: entered around each callback, see `Emitter.around`.
            on: False lets the emitter go.
        """
        emitter.on_error = self.callback_failed if on else None
        emitter.spawn = self._spawn if on else None
        emitter.around = around

    def callback_failed(self, error: BaseException, handler: Handler, event: Event[...]) -> None:
        """Deal with an error of a callback as with one of a call."""
        if (tell := TOLD_OF_FAILURES.get()) is not None:
            tell(error, handler)
        self.failed(error, f"{handler.name}() on {getattr(event, 'name', event)}")

    def failed(self, error: BaseException, where: str) -> None:
        """Log an error and decide about it.

        Args:
            error: what was raised, by something that is not a call.
            where: by what, for the log.
        """
        if self._run.ending and isinstance(error, SchedulerNotRunningError):
            # Callbacks go on submitting while a stopped run drains; that is no fault of theirs.
            self._run.scheduler.log(where, "info", "did not submit: the run is stopping")
            return
        error = storable(error, where)
        self._run.scheduler.log(where, "error", "".join(traceback.format_exception(error)))
        logger.error("%s raised %s", where, error_line(error), exc_info=error)
        self.decide(error)

    def decide(self, error: BaseException) -> None:
        """Do what `on_exception` says about an error."""
        mode = self._run.options.on_exception.decide(error)
        if mode != "continue":
            self.end_with(error, raised=mode == "raise")

    def lost(self, error: BaseException) -> None:
        """End the run, whatever the policy: nothing can run any more."""
        raised = self._run.options.on_exception.decide(error) == "raise"
        self.end_with(error, raised=raised)

    def cancelled(self, call: Call) -> None:
        """Do what `on_cancelled` says about a call that was cancelled by nobody here."""
        mode = self._run.options.on_cancelled
        if mode == "continue":
            return
        # Not asyncio's: raised by `await run`, that one would cancel the code that waits.
        error = CancelledError(f"call {call.id} of {call.describe()} was cancelled")
        if mode == "raise":
            self.raised = self.raised or error
        self._run.ask_end(ExitCode.CANCELLED, str(error), exception=error)

    def end_with(
        self,
        error: BaseException,
        *,
        raised: bool = True,
        message: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """End the run with an error; one that comes while it ends still counts.

        Args:
            error: what happened.
            raised: whether `await run` raises it.
            message: the same in words; None: the error's.
            seconds: see `Run.ask_end`.
        """
        if raised:
            self.raised = self.raised or error
        message = message or error_line(error)
        self._run.ask_end(ExitCode.EXCEPTION, message, exception=error, seconds=seconds)

    def _spawn(
        self, coroutine: Coroutine[Any, Any, Any], handler: Handler, event: Event[...]
    ) -> None:
        """Run a coroutine callback; the run does not end before it has."""
        task = self._run.loop.create_task(coroutine)
        self.coroutines.add(task)
        task.add_done_callback(lambda done: self._coroutine_over(done, handler, event))

    def _coroutine_over(self, task: asyncio.Task[Any], handler: Handler, event: Event[...]) -> None:
        self.coroutines.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.callback_failed(error, handler, event)
        self._run.traffic.inbox.wake()
