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
from typing import TYPE_CHECKING, Any, TypeVar

from amltk_nb.errors import RunningLoopError

if TYPE_CHECKING:
    from amltk_nb.events.handler import Handler
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.task import Task

__all__ = ["Cell", "Host", "current", "use"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """The notebook cell that runs now."""

    id: str  # stable over re-runs of the same cell
    execution: int  # counts up with every execution of any cell
    label: str  # as shown: "[3]"


class Host:
    """A plain Python process; the notebook's host overrides what differs there."""

    def cell(self) -> Cell | None:
        """Say which cell is running, None outside notebooks."""
        return None

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

    def show(self, thing: Scheduler | Task[..., Any]) -> None:
        """Display a scheduler or a task; in a terminal as rich text."""
        from rich import print as rich_print

        rich_print(thing)

    def rich(self, thing: Scheduler | Task[..., Any]) -> Any:
        """Make the rich rendering of a scheduler or a task; the engine knows no view."""
        text = import_module("amltk_nb.views.text")
        snapshot = getattr(thing, "snapshot", None)
        if snapshot is None:
            return text.render_task(thing.record())  # type: ignore[union-attr]
        return text.render(snapshot(), extra=tuple(thing.renderables))  # type: ignore[union-attr]

    def dashboard(self, scheduler: Scheduler, views: tuple[str, ...]) -> Any:
        """Make a live dashboard; with no `views`, all of them."""
        widget = import_module("amltk_nb.views.widget")
        return widget.Dashboard(scheduler, views or widget.VIEWS)

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
