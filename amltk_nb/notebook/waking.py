"""Letting the interrupt button through while a cell awaits and nothing happens on the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amltk_nb.scheduling.interrupts import wholly

if TYPE_CHECKING:
    from amltk_nb.scheduling.run import Run

__all__ = ["keep_waking"]

_WAKE_S = 0.25


def keep_waking(run: Run) -> None:
    """Wake the loop a few times a second for as long as a run lives.

    On an interrupt ipykernel's signal handler asks tornado for a callback, which asks asyncio
    with `call_soon`: from a signal handler that does not wake a loop that waits for something to
    happen. A cell that awaits long calls would then go on until the next of them ends.
    """
    with wholly:
        if not run.done():
            run.loop.call_later(_WAKE_S, keep_waking, run)
