"""The host inside a marimo notebook, whose cells run on a loop of their own and show widgets.

marimo knows neither IPython's `display` nor display ids: a cell shows its last line and what is
appended while it runs. So a live view stays when its run ends, and says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast

from amltk_nb.host import Cell, Host
from amltk_nb.notebook.kernel import KernelHost
from amltk_nb.scheduling.batch import Batch
from amltk_nb.scheduling.call import Future
from amltk_nb.scheduling.core import SchedulerCore
from amltk_nb.scheduling.run import Run
from amltk_nb.scheduling.task import Task
from amltk_nb.views.bundle import is_static, static_bundle

if TYPE_CHECKING:
    from amltk_nb.host import Showable
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.views.widget import Dashboard

__all__ = ["MarimoCells", "MarimoHost"]

T = TypeVar("T")


class MarimoHost(KernelHost):
    """Shows dashboards under marimo's cells; the rest is as in a kernel."""

    saves_output = False

    def __init__(self) -> None:
        """Have what the engine makes shown by marimo as what it is."""
        super().__init__(None)
        kinds: tuple[Any, ...] = (SchedulerCore, Task, Future, Batch, Run)
        for kind in kinds:
            kind._display_ = self._shown_by_marimo

    def _follow(self, shell: Any) -> MarimoCells:
        return MarimoCells(self._begun)

    def run_to_end(self, main: Callable[[], Coroutine[Any, Any, T]], *, debug: bool) -> T:
        """Refuse: what blocks a cell blocks marimo's loop, and it cannot be nested.

        Raises:
            RunningLoopError: always in a cell.
        """
        return Host.run_to_end(self, main, debug=debug)

    def latest(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return it as it is: marimo itself runs again what uses a function that has changed."""
        return fn

    def show(self, thing: Showable) -> None:
        """Display something under the present cell, after what it shows already."""
        _append(self._shown_as(thing))

    def awaited(self, run: Run) -> None:
        """Show the outcome where nothing live was shown."""
        if run.options.display and is_static() and run not in self._told:
            self._told.add(run)
            _append(_Static(run.scheduler))

    def _may_hear_late(self) -> bool:
        return True  # marimo keeps it until the cell that runs has ended, whichever that is

    def _show_live(self, scheduler: Scheduler) -> None:
        _append(self.dashboard(scheduler, ()))

    def _shown_as(self, thing: Showable) -> Dashboard | _Static:
        if isinstance(thing, Task | Future | Batch | Run) or is_static():
            return _Static(thing)
        run = thing.last_run
        return _Static(thing) if run is None or run.done() else self.dashboard(thing, ())

    @property
    def _shown_by_marimo(self) -> Callable[[Showable], Dashboard | _Static]:
        """The method that marimo looks for in the last line of a cell."""
        return lambda thing: self._shown_as(thing)


class MarimoCells:
    """Knows which of marimo's cells is running; each reader of an app has a thread of its own."""

    def __init__(self, begun: Callable[[Cell], None]) -> None:
        """Tell of each execution of a cell when it is first asked for."""
        self._begun = begun
        self._here = threading.local()
        self._executions, self._readers = count(1), count(1)

    @property
    def now(self) -> Cell | None:
        """The cell that runs on this thread."""
        from marimo._runtime.context import safe_get_context

        session = safe_get_context()
        context = session.execution_context if session is not None else None
        if context is None:
            return None
        here = vars(self._here)
        if here.get("context") is not context:  # there is one for each execution
            reader = here.setdefault("reader", next(self._readers))
            cell = Cell(f"{reader} {context.cell_id}", next(self._executions), "")
            here.update(context=context, cell=cell)
            self._begun(cell)
        return cast(Cell, here["cell"])


@dataclass(frozen=True)
class _Static:
    """What is shown where nothing moves any more, as marimo asks for it."""

    thing: Showable

    def _mime_(self) -> tuple[str, str]:
        return "text/html", static_bundle(self.thing)["text/html"]


def _append(shown: Dashboard | _Static) -> None:
    import marimo

    marimo.output.append(shown)
