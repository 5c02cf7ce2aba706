"""Runs that end at the worst moment; each test forces one."""

from __future__ import annotations

import asyncio
from typing import Any

from amltk_nb import ExitCode, Scheduler
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
