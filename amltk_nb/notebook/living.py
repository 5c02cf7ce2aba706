"""Which schedulers run now, and which cells made and started them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from amltk_nb.host import Cell

if TYPE_CHECKING:
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["Makers", "began", "living"]

_runs: list[weakref.ref[Run]] = []


def began(run: Run) -> None:
    """Note that a run began."""
    _runs[:] = [ref for ref in _runs if (old := ref()) is not None and not old.done()]
    _runs.append(weakref.ref(run))


def living() -> list[Scheduler]:
    """List the schedulers that run now, the one started last at the end."""
    runs = [ref() for ref in _runs]
    return [run.scheduler for run in runs if run is not None and not run.done()]


class Makers:
    """Remembers which execution of which cell made what, to find what a re-run replaces."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._made: dict[str, list[tuple[int, weakref.ref[Scheduler]]]] = {}

    def note(self, cell: Cell, scheduler: Scheduler) -> list[Scheduler]:
        """Note what a cell made; returns what earlier executions of it made."""
        made = self._made.get(cell.id, [])
        former = [s for n, ref in made if n < cell.execution and (s := ref()) is not None]
        kept = [(n, ref) for n, ref in made if n == cell.execution]
        self._made[cell.id] = [*kept, (cell.execution, weakref.ref(scheduler))]
        return [s for s in former if s is not scheduler]

    def made_before(self, cell: Cell, scheduler: Scheduler) -> bool:
        """Say whether an earlier execution of this cell noted this very scheduler."""
        return any(
            n < cell.execution and ref() is scheduler for n, ref in self._made.get(cell.id, [])
        )
