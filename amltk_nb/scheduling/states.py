"""The two state machines: of a run and of a call. Every legal move stands here.

The tables do not know who asks. An illegal move raises `IllegalMoveError` and changes nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from amltk_nb.errors import IllegalMoveError

__all__ = ["CALL_MOVES", "ENDED", "RUN_MOVES", "CallState", "RunState", "checked_move"]


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

S = TypeVar("S", RunState, CallState)


def checked_move(moves: dict[S, frozenset[S]], old: S, new: S, *, what: str) -> S:
    """Return `new` if the table allows it after `old`.

    Args:
        moves: one of the two tables of this module.
        old: the present state.
        new: the wanted state.
        what: whose state it is, for the message.

    Raises:
        IllegalMoveError: the table has no such move.
    """
    if new not in moves[old]:
        legal = ", ".join(sorted(moves[old])) or "nothing: it has ended"
        raise IllegalMoveError(f"{what} is {old} and cannot become {new}; from there: {legal}.")
    return new
