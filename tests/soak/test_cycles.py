"""Started and stopped again and again: the process has what it had, and the loop is its owner's."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from tests.soak.functions import failing, short
from tests.soak.measuring import Belongings, open_dashboard

pytestmark = [pytest.mark.may_block]

IS_LONG = bool(os.environ.get("AMLTK_NB_SOAK"))
N_CYCLES = 200 if IS_LONG else 5

MAKERS: dict[str, Callable[[], Scheduler]] = {
    "processes": lambda: Scheduler.with_processes(2),
    "threads": lambda: Scheduler.with_threads(2),
    "sequential": Scheduler.with_sequential,
}


async def cycle(make: Callable[[], Scheduler], *, shown: bool, at_once: bool) -> None:
    """Make a scheduler and run it: results, an error that nobody asks for, a callback, an end."""
    scheduler = make()

    @scheduler.on_future_result
    async def later(*_: Any) -> None:
        await asyncio.sleep(0)

    with ExitStack() as stack:
        if shown:
            stack.enter_context(open_dashboard(scheduler))
        run = scheduler.start(display=False, on_exception="continue")
        assert await scheduler.gather(scheduler.map(short, range(4))) == [1, 2, 3, 4]
        scheduler.submit(failing, 1)
        waiting = scheduler.map(short, range(100))
        scheduler.stop(wait=not at_once)
        assert await run == ExitCode.STOPPED
        assert all(future.done() for future in waiting)


@pytest.mark.timeout(600 if IS_LONG else 60)
@pytest.mark.parametrize("shown", [True, False], ids=["shown", "unseen"])
@pytest.mark.parametrize("engine", MAKERS)
async def test_a_run_leaves_nothing(
    engine: str, shown: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # which nobody else writes to
    said: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: said.append(context))
    # What a first run opens for good (the fork server and its tracker) is not opened again.
    for at_once in (True, False):
        await cycle(MAKERS[engine], shown=shown, at_once=at_once)
    before = Belongings.now()
    for n in range(N_CYCLES):
        await cycle(MAKERS[engine], shown=shown, at_once=bool(n % 2))
        if n % (N_CYCLES // 5) == 0 or n == N_CYCLES - 1:  # looking takes longer than a cycle
            assert Belongings.now() == before
    gc.collect()
    assert said == []  # no exception that was never retrieved, no task that was destroyed
