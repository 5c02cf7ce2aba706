"""Show how far each running call is, by its own reports.

::

    from amltk_nb import Progress, report

    def train(n_epochs):
        for epoch in range(n_epochs):
            loss = ...
            report(epoch + 1, total=n_epochs, loss=loss)

    task = scheduler.task(train, plugins=Progress())

`report` may be called anywhere below the call and does nothing elsewhere. A loop over
`tqdm(...)`, whichever of tqdm's variants for terminals and notebooks, reports by itself: n, total
and what `set_postfix` sets. Of nested bars the outermost one counts. Instead of drawing itself
again and again into the call's output, a bar leaves one line there when it is closed.

Reports show in the row of their call in every view, in `future.call.progress`, and come as the
event `on_progress` of the task with `(future, progress)`; see `ProgressRecord`. Some ten a second
are sent, and always the last one; on threads as on processes. A notebook's cell that blocks the
loop does not hold up the calls: their reports are shown when the loop turns again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar

from amltk_nb.errors import PluginError
from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.plugins.base import Plugin
from amltk_nb.scheduling.reporting import TICKET_KEYWORD, Addressee, Reported, report
from amltk_nb.scheduling.snapshot import ProgressRecord

if TYPE_CHECKING:
    from amltk_nb.scheduling.call import Call, Future
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.task import Task
    from amltk_nb.scheduling.transports.base import Head, Line, Load

__all__ = ["Progress", "report"]

_EVENT = EventSpec("PROGRESS", "on_progress", "(future, progress)", ("on-progress", "progress"))


class Progress(Plugin):
    """Shows what calls report, one by one and over all of them."""

    name = "progress"

    PROGRESS: ClassVar[Event[[Future[Any], ProgressRecord]]] = Event("on_progress")

    def __init__(self) -> None:
        """Start without reports."""
        self._live: dict[_Reports, ProgressRecord] = {}  # the latest of each call under way
        self._n_ended = self._total_ended = 0.0  # over all calls that have ended
        self._has_total = False

    def attach_task(self, task: Task[..., Any]) -> None:
        """Look whether the task's calls report to another one.

        Raises:
            PluginError: they do.
        """
        if any(isinstance(plugin, Progress) for plugin in task.plugins):
            raise PluginError(f"the calls of {task.ref} report to another progress plugin already.")

    def accepted(self, call: Call) -> None:
        """Give the call its way to report."""
        assert call.task is not None
        run = call.task.scheduler.last_run
        assert run is not None
        fn, args, kwargs = call.work
        reports = _Reports(self, call, run)
        call.altered = (
            _reported(fn),
            args,
            {**kwargs, TICKET_KEYWORD: Addressee(reports.line.ticket, reports)},
        )

    def hear_out(self, call: Call) -> None:
        """Take in its last report."""
        _reports_of(call).line.hear_out()

    def retried(self, former: Call, call: Call) -> None:
        """Begin again with the next attempt."""
        self._live.pop(_reports_of(call), None)

    def release(self, call: Call | None) -> None:
        """Count its last report among those of ended calls."""
        if call is None:
            return
        reports = _reports_of(call)
        reports.line.close()
        last = self._live.pop(reports, None)
        if last is not None:
            self._n_ended += last.n
            self._total_ended += last.n if last.total is None else last.total

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Return the event of a report."""
        return (_EVENT,)

    def state(self) -> Mapping[str, Any]:
        """Show the sum over all calls that reported, how many do now, and the latest metrics."""
        live = list(self._live.values())
        n = self._n_ended + sum(record.n for record in live)
        total = self._total_ended + sum(r.n if r.total is None else r.total for r in live)
        shown = _plain(n) + (f"/{_plain(total)}" if self._has_total else "")
        state: dict[str, Any] = {"Progress": shown, "Reporting": len(live)}
        if live and live[-1].metrics:
            state["Latest"] = ", ".join(f"{k}={_short(v)}" for k, v in live[-1].metrics.items())
        return state

    def reported(self, reports: _Reports, record: ProgressRecord) -> None:
        """Note a report; on the loop's thread."""
        self._live.pop(reports, None)  # so that the last one is the latest
        self._live[reports] = record
        self._has_total = self._has_total or record.total is not None


class _Reports:
    """What one call reports, in all its attempts."""

    def __init__(self, plugin: Progress, call: Call, run: Run) -> None:
        assert call.future is not None
        assert call.task is not None
        self._plugin = plugin
        self._future: Future[Any] = call.future
        self._task = call.task
        self._scheduler = run.scheduler
        self.line: Line = run.traffic.lines.line(self)

    def took(self, head: Head, load: Load) -> None:
        """Show a report and tell of it."""
        n, total, metrics = load()
        record = ProgressRecord(n=n, total=total, metrics=metrics)
        self._future.call.progress = record
        self._plugin.reported(self, record)
        self._task.emit(Progress.PROGRESS, self._future, record)
        self._scheduler.touch()

    def hung_up(self) -> None:
        """Expect no more."""


def _reported(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function report, in the process that it runs in; a plugin may have made one for it."""
    if not _is_elsewhere(fn):
        return Reported(fn)
    outer = copy(fn)
    outer.__wrapped__ = _reported(fn.__wrapped__)  # type: ignore[attr-defined]
    return outer


def _is_elsewhere(fn: Any) -> bool:
    while fn is not None and not getattr(fn, "is_elsewhere", False):
        fn = getattr(fn, "__wrapped__", None)
    return fn is not None


def _reports_of(call: Call) -> _Reports:
    reports: _Reports = call.work[2][TICKET_KEYWORD].reports
    return reports


def _plain(n: float) -> str:
    return str(int(n)) if float(n).is_integer() else f"{n:.6g}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
