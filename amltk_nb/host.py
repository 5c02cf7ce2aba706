"""What surrounds the engine: a plain Python process, or the kernel of a notebook.

The engine asks its surroundings through this one window and never knows which it is. A plain
process is the default; `amltk_nb.notebook` puts its own `Host` in when it finds a kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from amltk_nb.errors import RunningLoopError

if TYPE_CHECKING:
    from amltk_nb.events.handler import Handler
    from amltk_nb.scheduling.batch import Batch
    from amltk_nb.scheduling.call import Future
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.task import Task
    from amltk_nb.views.form_widget import FormView
    from amltk_nb.views.widget import Dashboard

    Showable: TypeAlias = Scheduler | Task[..., Any] | Future[Any] | Batch[Any] | Run

__all__ = ["Cell", "Host", "current", "use"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """The notebook cell that runs now."""

    id: str  # stable over re-runs of the same cell
    execution: int  # counts up with every execution of any cell
    label: str  # as shown: "[3]"
    is_hash: bool = False  # the id is made of the source: two cells of the same one look alike


class Host:
    """A plain Python process; the notebook's host overrides what differs there."""

    def cell(self) -> Cell | None:
        """Say which cell is running, None outside notebooks."""
        return None

    saves_output = False  # whether what is displayed is kept in a file, and maybe compared
    drain_pause_s = 0.0  # how long a busy run leaves the loop to others between two slices

    def run_to_end(self, main: Callable[[], Coroutine[Any, Any, T]], *, debug: bool) -> T:
        """Run a coroutine to its end and block until then.

        Raises:
            RunningLoopError: a loop already runs in this thread, which would deadlock.
        """
        if asyncio._get_running_loop() is not None:
            raise RunningLoopError(
                "run() was called inside a running event loop and would block it. Use "
                "`await scheduler.async_run()`, or `run = scheduler.start()` and `await run`."
            )
        return asyncio.run(main(), debug=debug)

    def constructed(self, scheduler: Scheduler) -> None:
        """Be told of a new scheduler."""

    def restarting(self, scheduler: Scheduler) -> bool:
        """Say whether a start of a running scheduler replaces its run instead of being refused."""
        return False

    def started(self, run: Run) -> None:
        """Be told that a run began; a notebook shows its dashboard."""

    def interrupted(self, run: Run) -> bool:
        """Be told that a wait for a run was interrupted; returns whether the run goes on."""
        return run.options.background

    def finished(self, run: Run) -> None:
        """Be told that a run ended, after its last event; a notebook freezes what it shows."""

    def awaited(self, run: Run) -> None:
        """Be told that somebody waited for a run to its end, in the waiting code's context."""

    def callback_output(self, run: Run) -> Callable[[Handler], AbstractContextManager[Any]] | None:
        """Say what to enter around each callback of a run; None: nothing."""
        return None

    def show(self, thing: Showable) -> None:
        """Display something of the engine; in a terminal as rich text."""
        from rich import print as rich_print

        rich_print(self.rich(thing))

    def rich(self, thing: Showable) -> Any:
        """Make the rich rendering of something of the engine, which knows no view."""
        return import_module("amltk_nb.views.objects").rich_form(thing)

    def dashboard(
        self, scheduler: Scheduler, views: tuple[str, ...], *, task: str | None = None
    ) -> Dashboard:
        """Make a live dashboard.

        Args:
            scheduler: of which.
            views: which parts; none: all of them, or those that a task has.
            task: the ref of the one task that it shows; None: all.
        """
        widget = import_module("amltk_nb.views.widget")
        made: Dashboard = widget.make(scheduler, views, task)
        return made

    def form(self, task: Task[..., Any], overrides: dict[str, Any]) -> FormView:
        """Make the form of a task."""
        form: FormView = import_module("amltk_nb.views.form_widget").make_form(task, overrides)
        return form

    def report(self, scheduler: Scheduler, *, title: str | None) -> str:
        """Draw all that a scheduler remembers as one HTML page."""
        return str(import_module("amltk_nb.views.report").render_report(scheduler, title=title))

    def latest(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Find the newest definition of a function of the notebook; others stay what they are."""
        return fn


_host = Host()


def current() -> Host:
    """Return the host in use."""
    return _host


def use(host: Host) -> Host:
    """Put another host in place; returns the one that was there."""
    global _host
    old, _host = _host, host
    return old
