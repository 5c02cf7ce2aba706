"""What a view is of: a scheduler, or one task of it, which the view does not keep alive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast
from weakref import ref

from amltk_nb.errors import CommandError, SchedulerGoneError
from amltk_nb.scheduling import reading
from amltk_nb.scheduling.snapshot import (
    BackendRecord,
    CallRecord,
    RunRecord,
    Snapshot,
    TaskRecord,
)
from amltk_nb.scheduling.states import CallState, RunState
from amltk_nb.views.model import safe_text

if TYPE_CHECKING:
    from amltk_nb.scheduling.call import Future
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["GONE", "Source"]

GONE = (
    "The scheduler is gone: nothing in the notebook refers to it any more. This is how it was "
    "last seen; run the cell that makes it to have another one."
)


class Source:
    """Where a view reads and whom its commands reach.

    A view lives as long as a page may ask for it, which is longer than most schedulers are of use:
    so it only holds a weak reference, and remembers what it read last.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        views: Sequence[str],
        task: str | None,
        gone: Callable[[], None],
    ) -> None:
        """Look at a scheduler.

        Args:
            scheduler: whose views these are.
            views: which; what none of them shows is not read out.
            task: the ref of the one task to look at; None: all.
            gone: called when the scheduler was dropped, on any thread, in a garbage collection.
        """
        self.name = scheduler.name
        self.task = task
        self._views = frozenset(views)
        self._ref = ref(scheduler, lambda _: gone())
        self._last: Snapshot | None = None

    @property
    def scheduler(self) -> Scheduler | None:
        """The scheduler, while it is there."""
        return self._ref()

    def whole(self) -> Snapshot:
        """Take the present snapshot; once the scheduler is gone, the last one that was taken."""
        scheduler = self._ref()
        if scheduler is None:
            return self._remembered()
        if self.task is None:
            self._last = scheduler.snapshot()
        else:
            self._last = reading.task_snapshot(scheduler, self.task)
        return self._last

    def needed(self) -> Snapshot:
        """Take a snapshot without what these views do not show: it need not travel."""
        snapshot, views = self.whole(), self._views
        if {"events", "plugins", "log"} <= views:
            return snapshot
        events = snapshot.events if "events" in views else ()
        log = snapshot.log if "log" in views else ()
        tasks = tuple(self._thinned(task) for task in snapshot.tasks)
        return replace(snapshot, events=events, log=log, tasks=tasks)

    def target(self) -> Scheduler:
        """Return what commands of a page are to be given to."""
        scheduler = self._ref()
        if scheduler is None:
            return cast("Scheduler", _Nobody())
        return scheduler if self.task is None else cast("Scheduler", _OneTask(scheduler, self.task))

    def _thinned(self, task: TaskRecord) -> TaskRecord:
        events = task.events if "events" in self._views else ()
        plugins = task.plugins if "plugins" in self._views else ()
        return replace(task, events=events, plugins=plugins)

    def _remembered(self) -> Snapshot:
        last = self._last or Snapshot(
            version=0,
            name=self.name,
            run=RunRecord(state=RunState.IDLE),
            backend=BackendRecord(name=""),
            counts=dict.fromkeys(CallState, 0),
            events=(),
        )
        return replace(last, run=replace(last.run, cannot_start=GONE))


class _Nobody:
    """Refuses every command, since the scheduler is gone."""

    def __getattr__(self, name: str) -> NoReturn:
        raise SchedulerGoneError(GONE)


class _OneTask:
    """A scheduler as the page of one task may use it: rows and failures are those of the task."""

    def __init__(self, scheduler: Scheduler, task: str) -> None:
        self._scheduler = scheduler
        self._ref = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def calls(
        self, state: CallState | str | None = None, *, before: int | None = None, limit: int = 200
    ) -> list[CallRecord]:
        task = reading.find_task(self._scheduler, self._ref)
        if task is None:
            raise CommandError(f"{safe_text(self._ref, 100)} is no task of the scheduler any more.")
        return reading.calls(self._scheduler, state, before=before, limit=limit, task=task)

    def resubmit_failed(self) -> list[Future[Any]]:
        task = reading.find_task(self._scheduler, self._ref)
        failed = [call for call in self._scheduler.failed_calls() if call.task is task]
        again = (self._scheduler.resubmit(call) for call in failed if not call.arguments_gone)
        return [future for future in again if future is not None]
