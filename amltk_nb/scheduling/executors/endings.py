"""What became of a call: the outcome made from what a worker sent about it."""

from __future__ import annotations

from typing import Any

from amltk_nb.errors import NotPicklableError
from amltk_nb.scheduling import worker as child
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.shipping import reason, rebuilt_error, unpack

__all__ = ["cancelled", "outcome"]


def cancelled(call: Call, output: str = "") -> Outcome:
    """Make the outcome of a call that was ended on purpose or left out."""
    return Outcome(call, cancelled=True, worker=call.worker, output=output)


def outcome(call: Call, item: tuple[Any, ...], worker: str) -> Outcome:
    """Make the outcome from what a worker sent about a call."""
    _, kind, value, started_at, seconds, output = item
    error: BaseException | None = None
    if kind == child.VALUE:
        pass
    elif kind == child.PACKED:
        try:
            value = unpack(value)
        except BaseException as why:  # anything, a panic of Rust code too
            error = NotPicklableError(
                f"the result of {call.describe()}() travelled back but cannot be made again here: "
                f"{reason(why)}. Return plain values, or define its class in a module."
            )
            error.__cause__ = why
    elif kind == child.ERROR:
        error = rebuilt_error(value)
    elif kind == child.UNPICKLABLE:
        error = NotPicklableError(value)
    if error is not None:
        value = None
    # By position: with names it would take three times as long, and there is one for each call.
    return Outcome(call, value, error, False, started_at, seconds, worker, output)
