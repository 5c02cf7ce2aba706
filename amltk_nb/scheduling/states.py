"""The two state machines: of a run and of a call. Every legal move stands here.

The tables do not know who asks. An illegal move raises `IllegalMoveError` and changes nothing; its
notes tell of the last moves before it, for by then whoever made the wrong one has long gone on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import StrEnum
from threading import get_ident
from time import perf_counter
from typing import TypeAlias, TypeVar

from amltk_nb.errors import IllegalMoveError

__all__ = [
    "CALL_MOVES",
    "ENDED",
    "N_TRACED",
    "RUN_MOVES",
    "CallState",
    "RunState",
    "Trace",
    "checked_move",
    "traced",
]


class RunState(StrEnum):
    """Where a scheduler is in its life."""

    IDLE = "idle"  # never started
    RUNNING = "running"  # takes calls and starts them
    PAUSED = "paused"  # takes calls, starts none
    STOPPING = "stopping"  # takes no more calls; what runs may finish
    FINISHED = "finished"  # all is closed; may start again


class CallState(StrEnum):
    """Where one call is in its life."""

    QUEUED = "queued"  # in the scheduler's own queue
    RUNNING = "running"  # handed to a worker
    DONE = "done"  # returned a result
    FAILED = "failed"  # raised
    CANCELLED = "cancelled"  # taken back before or during its run


RUN_MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.IDLE: frozenset({RunState.RUNNING}),
    RunState.RUNNING: frozenset({RunState.PAUSED, RunState.STOPPING}),
    RunState.PAUSED: frozenset({RunState.RUNNING, RunState.STOPPING}),
    RunState.STOPPING: frozenset({RunState.FINISHED}),
    RunState.FINISHED: frozenset({RunState.RUNNING}),
}

# RUNNING → QUEUED: its worker died before the call began, so it waits for another one.
CALL_MOVES: dict[CallState, frozenset[CallState]] = {
    CallState.QUEUED: frozenset({CallState.RUNNING, CallState.FAILED, CallState.CANCELLED}),
    CallState.RUNNING: frozenset(
        {CallState.QUEUED, CallState.DONE, CallState.FAILED, CallState.CANCELLED}
    ),
    CallState.DONE: frozenset(),
    CallState.FAILED: frozenset(),
    CallState.CANCELLED: frozenset(),
}

ENDED = frozenset({CallState.DONE, CallState.FAILED, CallState.CANCELLED})

N_TRACED = 8  # moves of one call, or of one scheduler, that are remembered

S = TypeVar("S", RunState, CallState)

# A move: those before it, the new state, the time (seconds of `perf_counter`), the thread. Put into
# words only when asked for: calls move tens of thousands of times a second, and each one that is
# remembered keeps its own. Who moved them would cost a frame object each time, and the state nearly
# says it.
Trace: TypeAlias = tuple[()] | tuple["Trace", RunState | CallState, float, int]

# Every way round in a table leads through one of these, so only there it can become too long.
_RETURNED, _RESUMED = CallState.QUEUED, RunState.RUNNING


def traced(trace: Trace, new: RunState | CallState) -> Trace:
    """Return a trace with one more move; the oldest go when there are too many."""
    if new is _RETURNED or new is _RESUMED:
        trace = _shortened(trace)
    return (trace, new, perf_counter(), get_ident())


def _shortened(trace: Trace) -> Trace:
    short: Trace = ()
    for state, when, thread in _moves(trace)[-N_TRACED:]:
        short = (short, state, when, thread)
    return short


def _moves(trace: Trace) -> list[tuple[RunState | CallState, float, int]]:
    """List the moves, the oldest first."""
    moves = []
    while trace:
        trace, state, when, thread = trace
        moves.append((state, when, thread))
    return moves[::-1]


def checked_move(
    moves: dict[S, frozenset[S]], old: S, new: S, *, what: str, trace: Trace = ()
) -> S:
    """Return `new` if the table allows it after `old`.

    Args:
        moves: one of the two tables of this module.
        old: the present state.
        new: the wanted state.
        what: whose state it is, for the message.
        trace: the moves that led to the present state, for the notes.

    Raises:
        IllegalMoveError: the table has no such move.
    """
    if new not in moves[old]:
        legal = ", ".join(sorted(moves[old])) or "nothing: it has ended"
        error = IllegalMoveError(f"{what} is {old} and cannot become {new}; from there: {legal}.")
        error.add_note("\n".join(_told(trace, old, new)))
        raise error
    return new


def _told(trace: Trace, old: RunState | CallState, new: RunState | CallState) -> Iterator[str]:
    """Put a trace into lines, the oldest move first, and then the move that was refused."""
    names = {thread.ident: repr(thread.name) for thread in threading.enumerate()}
    now = perf_counter()
    yield f"Its last moves (at most {N_TRACED} are remembered), the oldest first:"
    if not trace:
        yield f"  none: it is {old} as it was made"
    for state, when, thread in _moves(trace)[-N_TRACED:]:
        where = names.get(thread, "that has ended")
        yield f"  {state}, {now - when:.6f} s ago, on thread {where}"
    yield f"  refused: {new}, now, on thread {threading.current_thread().name!r}"
