"""The two tables: every legal move is made, every other one raises and changes nothing."""

from __future__ import annotations

import ast
import re
import threading
from itertools import product
from pathlib import Path

import pytest

import amltk_nb
from amltk_nb import Scheduler
from amltk_nb.errors import IllegalMoveError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.states import (
    CALL_MOVES,
    ENDED,
    N_TRACED,
    RUN_MOVES,
    CallState,
    RunState,
)
from amltk_nb.testing import ManualBackend
from tests.scheduling.conftest import ByHand, settled

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


# ------------------------------------------------------------ what a refused move says


def told(error: pytest.ExceptionInfo[BaseException]) -> list[str]:
    """The note of an illegal move, without its times."""
    (note,) = error.value.__notes__
    return [re.sub(r"\d+\.\d{6} s", "? s", line).strip() for line in note.splitlines()]


def n_remembered(call: Call) -> int:
    n, trace = 0, call.trace
    while trace:
        n, trace = n + 1, trace[0]
    return n


def test_a_refused_move_tells_of_the_moves_before_it_and_on_which_thread_they_were():
    call = Call(7, print, (), {})
    gone = threading.Thread(target=call.move, args=(CallState.RUNNING,))
    gone.start()
    gone.join()
    call.move(CallState.DONE)
    with pytest.raises(IllegalMoveError) as error:
        call.move(CallState.FAILED)
    assert told(error) == [
        "Its last moves (at most 8 are remembered), the oldest first:",
        "running, ? s ago, on thread that has ended",
        "done, ? s ago, on thread 'MainThread'",
        "refused: failed, now, on thread 'MainThread'",
    ]
    times = [float(t) for t in re.findall(r"(\d+\.\d{6}) s", error.value.__notes__[0])]
    assert times == sorted(times, reverse=True)


def test_a_refused_first_move_says_that_there_was_none():
    with pytest.raises(IllegalMoveError) as error:
        Call(7, print, (), {}).move(CallState.DONE)
    assert told(error)[1] == "none: it is queued as it was made"


def test_the_moves_that_are_remembered_are_bounded():
    call = Call(7, print, (), {})
    sizes = set()
    for _ in range(1_000):
        call.move(CallState.RUNNING)
        sizes.add(n_remembered(call))
        call.move(CallState.QUEUED)
        sizes.add(n_remembered(call))
    assert max(sizes) == N_TRACED + 2, "shortened on the way back to the queue"
    with pytest.raises(IllegalMoveError) as error:
        call.move(CallState.DONE)
    names = [line.partition(",")[0] for line in told(error)[1:-1]]
    assert names == ["running", "queued"] * (N_TRACED // 2)


async def test_a_second_end_of_a_call_ends_the_run_with_its_moves(by_hand: ByHand):
    run = by_hand.start(on_exception="continue")
    future = by_hand.scheduler.submit(print)
    call = future.call
    by_hand.backend.finish(future)
    await settled()
    run.traffic.inbox.put(lambda: call.move(CallState.DONE))
    with pytest.raises(IllegalMoveError) as error:
        await run
    assert [line.partition(",")[0] for line in told(error)[1:]] == [
        "running",
        "done",
        "refused: done",
    ]
    assert by_hand.scheduler.snapshot().counts["done"] == 1


def test_a_scheduler_tells_of_its_moves_too():
    scheduler = Scheduler(ManualBackend(), name="mine")
    for state in (RunState.RUNNING, RunState.PAUSED, RunState.STOPPING):
        scheduler.move(state)
    with pytest.raises(IllegalMoveError) as error:
        scheduler.move(RunState.RUNNING)
    assert [line.partition(",")[0] for line in told(error)[1:]] == [
        "running",
        "paused",
        "stopping",
        "refused: running",
    ]


def test_nothing_sets_a_state_past_the_tables():
    """Only what makes a call or a scheduler, and their `move`, assign to `state`."""
    package = Path(amltk_nb.__file__).parent / "scheduling"
    found = {
        f"{path.stem}.{function.name}"
        for path in package.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and node.attr == "state"
        and isinstance(node.ctx, ast.Store | ast.Del)
    }
    assert found == {
        "call.__init__",
        "call.move",
        "core.__init__",
        "core.move",
        "airflow_connection._take_in",  # what Airflow says of a run of its own
    }
