"""Runs that end at the worst moment; each test forces one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.scheduling import traffic
from amltk_nb.scheduling.journal import Journal
from amltk_nb.scheduling.run import Run
from amltk_nb.scheduling.states import RunState
from tests.scheduling.conftest import ByHand, settled


def test_a_loop_that_closes_while_a_callback_of_the_end_is_awaited():
    scheduler = Scheduler.with_threads(1)
    ends: list[Any] = []

    async def main() -> Run:
        run = scheduler.start(end_on_empty=True)
        told = asyncio.Event()

        @scheduler.on_finished
        async def tell_the_world() -> None:
            told.set()
            try:
                if not ends:
                    await asyncio.Event().wait()
            finally:
                ends.append("told")

        await told.wait()
        return run

    run = asyncio.run(main())
    assert run.done()
    assert run.exit_state == ExitCode.EXHAUSTED
    assert scheduler.state is RunState.FINISHED
    assert scheduler.event_counts[scheduler.FINISHED] == 1
    assert ends == ["told"]
    assert scheduler.run() == ExitCode.EXHAUSTED  # and it can run again


async def test_a_callback_of_the_end_may_end_the_run_at_once(by_hand: ByHand):
    run = by_hand.start(end_on_empty=True)
    by_hand.scheduler.on_finished(lambda: run.end_now(ExitCode.CANCELLED, "at once"))
    assert await run == ExitCode.EXHAUSTED
    await settled()
    assert by_hand.recorder.names[-1] == "on_finished"
    assert by_hand.scheduler.event_counts[by_hand.scheduler.FINISHED] == 1


class Panic(BaseException):
    """As Rust code raises it: no `Exception`."""


class PanicsWhenShown:
    def __repr__(self) -> str:
        raise Panic


class PanicsWhenPickled:
    def __reduce__(self) -> Any:
        raise Panic


class PanicsInWords(ValueError):
    def __str__(self) -> str:
        raise Panic


def raise_one() -> None:
    raise PanicsInWords


@pytest.mark.may_block
@pytest.mark.parametrize("make", [PanicsWhenShown, PanicsWhenPickled, raise_one])
@pytest.mark.parametrize("has_journal", [False, True])
@pytest.mark.parametrize("kind", [Scheduler.with_threads, Scheduler.with_sequential])
async def test_a_value_that_panics_costs_no_other_call_its_end(
    tmp_path: Path, make: Callable[[], Any], has_journal: bool, kind: Callable[..., Scheduler]
):
    scheduler = kind(journal=tmp_path / "run.db" if has_journal else None)
    run = scheduler.start()
    future, other = scheduler.submit(make), scheduler.submit(len, "ab")
    await asyncio.wait_for(asyncio.wait([future, other]), 20)
    if make is raise_one:
        assert type(future.exception()) is PanicsInWords
    else:
        assert type(future.result()) is make
    assert other.result() == 2
    run.stop()
    assert await run == ExitCode.STOPPED
    if scheduler.journal is not None:
        ends = ["failed" if make is raise_one else "done", "done"]
        assert [record["state"] for record in scheduler.journal.records()] == ends
        scheduler.journal.close()


async def test_a_fault_of_the_engine_leaves_nobody_waiting(
    by_hand: ByHand, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("none left")

    run = by_hand.start()
    future = by_hand.scheduler.submit(len, "ab")
    monkeypatch.setattr(traffic, "book", fail)
    by_hand.backend.finish(future, 2)
    with pytest.raises(MemoryError, match="none left"):
        await asyncio.wait_for(future, 20)
    monkeypatch.undo()
    with pytest.raises(MemoryError):
        await run


@pytest.mark.may_block
async def test_an_end_that_cannot_be_recorded_is_told_of_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("none left")

    scheduler = Scheduler.with_threads(1, journal=tmp_path / "run.db")
    run = scheduler.start()
    monkeypatch.setattr(Journal, "ending", fail)
    assert await asyncio.wait_for(scheduler.submit(len, "ab"), 20) == 2
    assert any("call 1 is not in the journal" in line.text for line in scheduler.history.log_tail)
    run.stop()
    await run
    scheduler.journal.close()
