"""How a scheduler is looked at: the dashboard, each of its views alone, and a report to keep."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from amltk_nb import host
from amltk_nb.scheduling.call import Future, Work
from amltk_nb.scheduling.core import SchedulerCore

if TYPE_CHECKING:
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.views.widget import Dashboard

__all__ = ["CallQueue", "Shown"]


class CallQueue(dict[Future[Any], Work]):
    """What was accepted and has not ended: future → (function, args, kwargs).

    Two promises share the name `scheduler.queue`: read, it is this mapping as it is at that
    moment; called, `scheduler.queue()`, it shows the view of the queue.
    """

    __slots__ = ("_show",)

    def __init__(self, work: dict[Future[Any], Work], show: Callable[[], Dashboard]) -> None:
        """Hold what waits and runs now.

        Args:
            work: the calls.
            show: makes the view.
        """
        super().__init__(work)
        self._show = show

    def __call__(self) -> Dashboard:
        """Make a live view of the queue alone: filters, search, and what each call knows."""
        return self._show()


class Shown(SchedulerCore):
    """The part of a scheduler that shows it. The engine knows no view: the host makes them.

    Each method makes another live view, to be displayed as the last line of a cell. Any number
    can be shown at once, before, during and after a run; what is displayed freezes to static HTML
    when the run ends. Views do not keep their scheduler alive.
    """

    def dashboard(self, *views: str) -> Dashboard:
        """Make a live dashboard of its own, to be displayed in a cell.

        Args:
            views: which parts: "header", "progress", "controls", "events", "queue", "timeline",
                "workers", "plugins", "log"; none: all of them. Without "header" there is a line
                with the scheduler's name and state.

        Raises:
            ValueError: an unknown part.
        """
        return host.current().dashboard(cast("Scheduler", self), views)

    def controls(self) -> Dashboard:
        """Make a live view of the buttons alone: Start, Pause, Stop, Stop now, Resubmit failed."""
        return self.dashboard("controls")

    def progress(self) -> Dashboard:
        """Make a live view of the progress bar alone, with how long the rest still takes."""
        return self.dashboard("progress")

    def events(self) -> Dashboard:
        """Make a live view of all events with their counts and callbacks."""
        return self.dashboard("events")

    def timeline(self) -> Dashboard:
        """Make a live view of what each worker ran when."""
        return self.dashboard("timeline")

    def plugins(self) -> Dashboard:
        """Make a live view of the plugins of all tasks."""
        return self.dashboard("plugins")

    @property
    def queue(self) -> CallQueue:
        """What was accepted and has not ended: future → (function, args, kwargs).

        Called, as `scheduler.queue()`, it makes a live view of all calls.
        """
        calls = list(self.last_run.traffic.active.values()) if self.last_run else []
        work = {call.future: (call.fn, call.args, call.kwargs) for call in calls if call.future}
        return CallQueue(work, lambda: self.dashboard("queue"))

    @overload
    def log(self) -> Dashboard: ...
    @overload
    def log(self, source: str, level: str, text: str) -> None: ...
    def log(
        self, source: str | None = None, level: str | None = None, text: str | None = None
    ) -> Dashboard | None:
        """Make a live view of the log; with arguments add to the log.

        Args:
            source: who says it.
            level: "debug", "info", "warning", "error", or "print" for what was printed.
            text: what.

        Raises:
            TypeError: some of the three, but not all.
        """
        if source is None and level is None and text is None:
            return self.dashboard("log")
        if source is None or level is None or text is None:
            raise TypeError(
                "log() takes nothing, and shows the log, or all of source, level and text, and "
                'adds to it: scheduler.log("setup", "info", "data loaded").'
            )
        super().log(source, level, text)
        return None

    def report(self, path: str | PathLike[str], *, title: str | None = None) -> Path:
        """Write all that is remembered into one HTML file, which needs no network and no kernel.

        Args:
            path: of the file; one that is there is replaced.
            title: of the page; None: the scheduler's name.

        Returns:
            The path of the file.

        Raises:
            OSError: it cannot be written; an older report is left as it was.
        """
        page = host.current().report(cast("Scheduler", self), title=title)
        target = Path(path).expanduser()
        beside = target.with_name(f".{target.name}.part")
        try:
            beside.write_text(page, encoding="utf-8", errors="backslashreplace")
            return beside.replace(target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
