"""Which dashboards were made where."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet, ref

if TYPE_CHECKING:
    from amltk_nb.host import Cell
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.views.widget import Dashboard

__all__ = ["Places"]


class Places:
    """Knows the dashboards by scheduler and by cell."""

    def __init__(self) -> None:
        """Know none yet."""
        self._of: WeakKeyDictionary[Scheduler, WeakSet[Dashboard]] = WeakKeyDictionary()
        self._in: dict[str, list[tuple[int, ref[Dashboard]]]] = {}

    def note(self, dashboard: Dashboard, scheduler: Scheduler, cell: Cell | None) -> None:
        """Note where a dashboard was made, and of what."""
        self._of.setdefault(scheduler, WeakSet()).add(dashboard)
        if cell is not None and not cell.is_hash:
            self._in.setdefault(cell.id, []).append((cell.execution, ref(dashboard)))

    def displayed(self, scheduler: Scheduler) -> list[Dashboard]:
        """List those that are live in some output and freeze at the end of a run."""
        made = [board for board in self._of.get(scheduler, ()) if board.freezes]
        return [board for board in made if board.is_displayed and not board.ended]

    def forget(self, cell: Cell) -> None:
        """Close what earlier executions of a cell made: it makes anew what it still wants."""
        for _, made in self._in.pop(cell.id, ()):
            if (dashboard := made()) is not None:
                dashboard.close()
