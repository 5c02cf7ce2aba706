"""Rows of a journal: what is written of a call and its end, and what is read of them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from amltk_nb.scheduling.call import Outcome
from amltk_nb.scheduling.functions import ShippedFunction
from amltk_nb.scheduling.history import error_line, short_repr
from amltk_nb.scheduling.shipping import Packed
from amltk_nb.scheduling.snapshot import utc
from amltk_nb.scheduling.states import CallState

__all__ = [
    "COLUMNS",
    "Ending",
    "PackedWork",
    "Statements",
    "TakenDown",
    "as_record",
    "end_row",
    "in_state",
    "own_row",
    "size_of",
    "storable",
    "value_rows",
]

PackedWork: TypeAlias = tuple[ShippedFunction, Packed]
Statements: TypeAlias = list[tuple[str, list[tuple[Any, ...]]]]

_RESULT_TEXT = 200  # characters
_PIECE_BYTES = 1 << 22
_ENDS = (*map(str, (CallState.DONE, CallState.FAILED, CallState.CANCELLED)), "unfinished")
COLUMNS = (
    "id, task, function_name, args_text, state, submitted_at, started_at, ended_at, seconds, "
    "worker, attempt, resubmitted_from, error"
)


class TakenDown(NamedTuple):
    """An accepted call that is about to be recorded."""

    function: ShippedFunction | None
    arguments: Packed | None
    row: tuple[Any, ...]


class Ending(NamedTuple):
    """An end that is about to be recorded."""

    statements: Statements
    n_bytes: int  # of its result or error


def size_of(packed: Packed) -> int:
    """Count the bytes of a value."""
    body, buffers = packed
    return sum(memoryview(part).nbytes for part in (body, *buffers))


def value_rows(call_id: int, kind: str, packed: Packed) -> list[tuple[Any, ...]]:
    """Make the rows of a value: its buffers in order, each in pieces."""
    body, buffers = packed
    return [
        (call_id, kind, n, piece, data)
        for n, part in enumerate((body, *buffers))
        for piece, data in enumerate(_pieces(_flat(part)))
    ]


def _flat(part: Any) -> memoryview:
    """See a part as bytes; an array may lie in memory column by column."""
    return part.raw() if isinstance(part, pickle.PickleBuffer) else memoryview(part)


def own_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy the values of a row that somebody else may change."""
    return tuple(
        bytes(value) if isinstance(value, memoryview) and type(value.obj) is not bytes else value
        for value in row
    )


def _pieces(data: memoryview) -> list[memoryview]:
    if len(data) <= _PIECE_BYTES:
        return [data]
    return [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]


def end_row(outcome: Outcome, now: float) -> tuple[Any, ...]:
    """Make what is updated of a call that has ended; `now` is seconds since the epoch."""
    call, error = outcome.call, outcome.error
    state = CallState.FAILED if error is not None else CallState.DONE
    is_done = not outcome.cancelled and error is None
    return (
        str(CallState.CANCELLED if outcome.cancelled else state),
        outcome.started_at or call.started_at,
        now,
        outcome.seconds,
        storable(outcome.worker or call.worker),
        storable(error_line(error)) if error is not None else None,
        storable(short_repr(outcome.value, _RESULT_TEXT)) if is_done else None,
        storable(outcome.output),
        call.id,
    )


def storable(text: str | None) -> str | None:
    """Make a text that SQLite takes: lone surrogates are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode() if text is not None else None


def in_state(state: CallState | str | None) -> tuple[str, tuple[Any, ...]]:
    """Make the clause of those in a state, with its parameters.

    Raises:
        ValueError: there is no such state.
    """
    if state is None:
        return "", ()
    if state == "unfinished":
        return "WHERE state IS NULL", ()
    if state not in _ENDS:
        raise ValueError(f"There are no {state!r} records; there are {', '.join(_ENDS)} ones.")
    return "WHERE state = ?", (str(state),)


def as_record(row: Sequence[Any]) -> dict[str, Any]:
    """Make plain values of a row that has `COLUMNS`."""
    (call_id, task, function, args, state, submitted, started, ended, *rest) = row
    seconds, worker, attempt, resubmitted_from, error = rest
    return {
        "id": call_id,
        "task": task,
        "function": function,
        "args": args,
        "state": state or "unfinished",
        "submitted": utc(submitted),
        "started": utc(started),
        "ended": utc(ended),
        "seconds": seconds,
        "worker": worker,
        "attempt": attempt,
        "resubmitted_from": resubmitted_from,
        "error": error,
    }
