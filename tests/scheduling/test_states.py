"""The two tables: every legal move is made, every other one raises and changes nothing."""

from __future__ import annotations

from itertools import product

import pytest

from amltk_nb import Scheduler
from amltk_nb.errors import IllegalMoveError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.states import CALL_MOVES, ENDED, RUN_MOVES, CallState, RunState
from amltk_nb.testing import ManualBackend

RUN_PAIRS = {
    ("idle", "running"),
    ("running", "paused"),
    ("running", "stopping"),
    ("paused", "running"),
    ("paused", "stopping"),
    ("stopping", "finished"),
    ("finished", "running"),
}
CALL_PAIRS = {
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "done"),
    ("running", "failed"),
    ("running", "cancelled"),
}


def test_the_tables_hold_exactly_these_moves():
    assert {(a, b) for a, to in RUN_MOVES.items() for b in to} == RUN_PAIRS
    assert {(a, b) for a, to in CALL_MOVES.items() for b in to} == CALL_PAIRS


def test_ended_are_the_states_without_a_way_out():
    assert {state for state in CallState if not CALL_MOVES[state]} == ENDED


@pytest.mark.parametrize(("old", "new"), list(product(CallState, CallState)))
def test_moves_of_a_call(old: CallState, new: CallState):
    call = Call(7, print, (), {})
    call.state = old
    if (old, new) in CALL_PAIRS:
        call.move(new)
        assert call.state is new
    else:
        with pytest.raises(IllegalMoveError, match=f"call 7 is {old} and cannot become {new}"):
            call.move(new)
        assert call.state is old


@pytest.mark.parametrize(("old", "new"), list(product(RunState, RunState)))
def test_moves_of_a_scheduler(old: RunState, new: RunState):
    scheduler = Scheduler(ManualBackend(), name="mine")
    scheduler.state = old
    version = scheduler.version
    if (old, new) in RUN_PAIRS:
        scheduler.move(new)
        assert (scheduler.state, scheduler.version) == (new, version + 1)
    else:
        with pytest.raises(IllegalMoveError, match=f"'mine' is {old} and cannot become {new}"):
            scheduler.move(new)
        assert (scheduler.state, scheduler.version) == (old, version)


def test_the_message_lists_where_one_can_go():
    call = Call(1, print, (), {})
    with pytest.raises(IllegalMoveError, match="from there: cancelled, failed, running"):
        call.move(CallState.DONE)
    call.state = CallState.DONE
    with pytest.raises(IllegalMoveError, match="nothing: it has ended"):
        call.move(CallState.QUEUED)
