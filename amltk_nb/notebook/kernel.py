"""The host inside a Jupyter kernel."""

from __future__ import annotations

import asyncio
import sys
import types
import weakref
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from amltk_nb.host import Cell, Host
from amltk_nb.notebook import living, output
from amltk_nb.notebook.cells import Cells, CellWatch
from amltk_nb.notebook.live import Lines
from amltk_nb.notebook.nested import run_nested
from amltk_nb.notebook.places import Places
from amltk_nb.notebook.waking import keep_waking
from amltk_nb.scheduling.batch import Batch
from amltk_nb.scheduling.call import Future
from amltk_nb.scheduling.run import Run
from amltk_nb.scheduling.task import Task
from amltk_nb.views.bundle import is_static, static_bundle

if TYPE_CHECKING:
    from amltk_nb.events.handler import Handler
    from amltk_nb.host import Showable
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.views.form_widget import FormView
    from amltk_nb.views.widget import Dashboard

__all__ = ["KernelHost"]

T = TypeVar("T")


class KernelHost(Host):
    """Shows dashboards, keeps cells that run again from piling things up, routes output."""

    saves_output = True
    # As long for the kernel as for us (see `inbox`): other cells answer within some 12 ms.
    drain_pause_s = 0.0025

    def __init__(self, shell: Any) -> None:
        """Live in the kernel of this shell."""
        self._shell = shell
        self._places = Places()
        self._lines = Lines()
        self._cells = self._follow(shell)
        self._constructed = living.Makers()
        self._started = living.Makers()
        self._shown: weakref.WeakKeyDictionary[Run, list[Dashboard]] = weakref.WeakKeyDictionary()
        self._live: set[Run] = set()  # nothing else might hold a run that nobody has a name for
        self._told: weakref.WeakSet[Run] = weakref.WeakSet()  # whose outcome was displayed
        self._heard: weakref.WeakSet[Run] = weakref.WeakSet()  # whose freezing everybody has seen
        self._nested = 0

    def _follow(self, shell: Any) -> Cells:
        return CellWatch(shell, self._begun)

    def cell(self) -> Cell | None:
        """Say which cell is running."""
        return self._cells.now

    def run_to_end(self, main: Callable[[], Coroutine[Any, Any, T]], *, debug: bool) -> T:
        """Block the cell until the coroutine has ended; everything else on the loop goes on."""
        self._nested += 1
        try:
            return run_nested(main)
        finally:
            self._nested -= 1

    def constructed(self, scheduler: Scheduler) -> None:
        """Stop what an earlier execution of this cell made: its name is rebound now."""
        if (cell := self.cell()) is not None:
            for former in self._constructed.note(cell, scheduler):
                if former.journal is not None:  # the next one may want the file
                    former.journal.close()
                former.stop(stop_msg="the cell that made it was run again", wait=False)

    def restarting(self, scheduler: Scheduler) -> bool:
        """Say whether this start replaces the run that an earlier execution of the cell began."""
        cell = self.cell()
        return cell is not None and self._started.made_before(cell, scheduler)

    def started(self, run: Run) -> None:
        """Show the dashboard under the cell, and stop what the cell started when it last ran."""
        living.began(run)
        self._live.add(run)
        keep_waking(run)
        if (cell := self.cell()) is not None:
            for former in self._started.note(cell, run.scheduler):
                if former.last_run is not None:  # nobody said that its calls are not wanted
                    former.last_run.traffic.abandon()
                former.stop(stop_msg="the cell that started it was run again", wait=False)
        if run.options.background and run.options.output == "log":
            output.install()
        if run.options.display and not is_static():
            self._show_live(run.scheduler)

    def interrupted(self, run: Run) -> bool:
        """Let the run go on if only a wait for it was interrupted, and say so in one line."""
        if self._nested or run.options.on_interrupt == "stop":
            return False
        print(
            f"Stopped waiting; {run.scheduler.name!r} runs on in the background. "
            "End it with its Stop button or .stop()."
        )
        return True

    def finished(self, run: Run) -> None:
        """Freeze what is shown of it."""
        self._live.discard(run)
        if not any(s.last_run and s.last_run.options.background for s in living.living()):
            output.uninstall()
        self._shown[run] = self._places.displayed(run.scheduler)
        if run.waiting:
            run.waiting[-1].run(self._freeze_heard, run)
        else:
            self._freeze(run)
        self._lines.ended(run.scheduler)

    def awaited(self, run: Run) -> None:
        """Freeze again if no cell waited at the end; show the outcome where nothing was live."""
        if run not in self._heard:
            self._freeze_heard(run)
        if run.options.display and is_static() and run not in self._told:
            self._told.add(run)
            _show_bundle(static_bundle(run.scheduler))

    def callback_output(self, run: Run) -> Callable[[Handler], AbstractContextManager[Any]] | None:
        """Send what callbacks of a background run print to the log, or to their cells."""
        if not run.options.background:
            return None
        if run.options.output == "cell":
            return lambda handler: output.as_in(handler.context)
        log = run.scheduler.log
        return lambda h: output.captured(lambda text: log(h.source, "print", text))

    def latest(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Find the newest definition of a function that a cell defined at top level."""
        if not isinstance(fn, types.FunctionType) or fn.__module__ != "__main__":
            return fn
        newest = vars(sys.modules["__main__"]).get(fn.__qualname__)
        return newest if isinstance(newest, types.FunctionType) else fn

    def show(self, thing: Showable) -> None:
        """Display something: a scheduler live while it runs, parts of it as lines that follow."""
        scheduler = self._scheduler_of(thing)
        run = scheduler.last_run if scheduler is not None else None
        is_live = run is not None and not run.done() and not is_static()
        if is_live and scheduler is not None and scheduler is thing:
            self._show_live(scheduler)
        elif isinstance(thing, Task | Future | Batch | Run) and not is_static():
            followed = scheduler if _running_loop() else None
            self._lines.show(thing, followed, self.cell(), _show_bundle)
        else:
            _show_bundle(static_bundle(thing))

    def dashboard(
        self, scheduler: Scheduler, views: tuple[str, ...], *, task: str | None = None
    ) -> Dashboard:
        """Make a live dashboard, to be frozen at the end of the run if it is displayed then."""
        dashboard = super().dashboard(scheduler, views, task=task)
        self._places.note(dashboard, scheduler, self.cell())
        dashboard.offer(self._may_hear_late)
        return dashboard

    def _may_hear_late(self) -> bool:
        """Whether what pages say may have to wait: without subshells, for the cells to end."""
        return self.cell() is not None

    def form(self, task: Task[..., Any], overrides: dict[str, Any]) -> FormView:
        """Make the form of a task; it closes when its cell runs again."""
        form = super().form(task, overrides)
        self._places.note(form, task.scheduler, self.cell())
        return form

    def _begun(self, cell: Cell) -> None:
        """Let go of what stood under a cell that is run again."""
        if not cell.is_hash:
            self._places.forget(cell)
            self._lines.forget(cell)

    def _scheduler_of(self, thing: Showable) -> Scheduler | None:
        """Find the scheduler of something; None for a future whose run is over."""
        if isinstance(thing, Future):
            return next((s for s in living.living() if s.key is thing.call.home), None)
        if isinstance(thing, Batch):
            return thing.task.scheduler
        return thing.scheduler if isinstance(thing, Task | Run) else thing

    def _show_live(self, scheduler: Scheduler) -> None:
        self.dashboard(scheduler, ())._ipython_display_()

    def _freeze_heard(self, run: Run) -> None:
        """Freeze in the context of a cell that waits; once is enough then.

        Clients such as nbclient see an update only if it comes from the cell that is running.
        """
        self._heard.add(run)
        self._freeze(run)

    def _freeze(self, run: Run) -> None:
        for dashboard in self._shown.get(run, ()):
            dashboard.freeze()


def _show_bundle(bundle: dict[str, Any]) -> Any:
    """Display static HTML and plain text; returns a handle by which it can be replaced."""
    from IPython.display import display

    return display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]


def _running_loop() -> bool:
    return asyncio._get_running_loop() is not None
