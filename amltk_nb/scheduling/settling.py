"""How one call is ended: its record, its future, its events, in this order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amltk_nb.scheduling.call import Call, Future, Outcome
from amltk_nb.scheduling.history import short_repr
from amltk_nb.scheduling.states import CallState

if TYPE_CHECKING:
    from amltk_nb.scheduling.core import SchedulerCore

__all__ = ["book", "resolve", "storable", "tell"]

_RESULT_TEXT = 1_000  # characters: all that an open row can show when nobody keeps the future


def book(call: Call, outcome: Outcome, *, now: float) -> None:
    """Write into a call how it ended.

    Args:
        call: queued or running; or cancelled, or failed at submission, which stays as it is.
        outcome: what its backend saw.
        now: seconds since the epoch.
    """
    if outcome.started_at is not None:
        call.started_at = outcome.started_at
    call.seconds = outcome.seconds
    call.worker = outcome.worker or call.worker
    call.output = outcome.output
    if call.state is CallState.CANCELLED:
        pass
    elif outcome.cancelled:
        call.move(CallState.CANCELLED)
    elif outcome.error is not None:
        call.error = storable(outcome.error, "the call")
        if call.state is not CallState.FAILED:
            call.move(CallState.FAILED)
    else:
        call.result_text = short_repr(outcome.value, _RESULT_TEXT)
        call.move(CallState.DONE)
    call.ended_at = now  # last: from here on its record is made once, on any thread, and kept


def resolve(future: Future[Any], call: Call, value: Any) -> None:
    """Give a future what became of its call."""
    if call.state is CallState.CANCELLED:
        future.settle_cancelled()
    elif call.error is not None:
        future.set_exception(call.error)
        future.exception()  # seen: the run's policy deals with it, not the garbage collector
    else:
        future.set_result(value)


def tell(scheduler: SchedulerCore, call: Call, future: Future[Any], value: Any) -> None:
    """Emit the events of an end: the scheduler's, then the task's."""
    task = call.task
    if call.state is CallState.CANCELLED:
        scheduler.cancelled.emit(future)
        if task is not None:
            task.tell_cancelled(future)
        return
    scheduler.done.emit(future)
    if call.error is not None:
        scheduler.failed.emit(future, call.error)
        if task is not None:
            task.tell_failed(future, call.error)
    else:
        scheduler.returned.emit(future, value)
        if task is not None:
            task.tell_returned(future, value)


def storable(error: BaseException, who: str) -> BaseException:
    """Wrap what a future cannot hold: it would end the coroutine that awaits it.

    Args:
        error: what was raised.
        who: raised it.
    """
    if not isinstance(error, StopIteration | asyncio.CancelledError):
        return error
    wrapped = RuntimeError(f"{who} raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
