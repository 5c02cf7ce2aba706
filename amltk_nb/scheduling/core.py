"""What a scheduler is, without its verbs: its state, events, tasks, history and observers.

The parts (`Run`, `Task`, the views) work with this; users meet it as `Scheduler`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import count
from os import PathLike
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    ParamSpec,
    TypeVar,
    Unpack,
    cast,
    overload,
)
from weakref import ref

from amltk_nb import host
from amltk_nb.errors import CallNotFoundError, SchedulerNotRunningError
from amltk_nb.events import SCHEDULER_EVENTS, Emitter, Event, Subscriber
from amltk_nb.scheduling import reading
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.executors.base import adopt
from amltk_nb.scheduling.history import History
from amltk_nb.scheduling.snapshot import CallRecord, Observer, Snapshot
from amltk_nb.scheduling.states import (
    RUN_MOVES,
    CallState,
    RunState,
    Trace,
    checked_move,
    traced,
)

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd

    from amltk_nb.events.event import Key, Takes
    from amltk_nb.events.handler import OptionKeywords
    from amltk_nb.scheduling.journal import Journal
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.task import Task

__all__ = ["SchedulerCore"]

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")

_LIVE = frozenset({RunState.RUNNING, RunState.PAUSED})


class SchedulerCore:
    """The state of a scheduler, and what its parts may do with it."""

    STARTED: ClassVar[Event[...]] = Event("on_start")
    FINISHING: ClassVar[Event[...]] = Event("on_finishing")
    FINISHED: ClassVar[Event[...]] = Event("on_finished")
    STOP: ClassVar[Event[...]] = Event("on_stop")
    TIMEOUT: ClassVar[Event[...]] = Event("on_timeout")
    EMPTY: ClassVar[Event[...]] = Event("on_empty")
    FUTURE_SUBMITTED: ClassVar[Event[...]] = Event("on_future_submitted")
    FUTURE_DONE: ClassVar[Event[...]] = Event("on_future_done")
    FUTURE_CANCELLED: ClassVar[Event[...]] = Event("on_future_cancelled")
    FUTURE_EXCEPTION: ClassVar[Event[...]] = Event("on_future_exception")
    FUTURE_RESULT: ClassVar[Event[...]] = Event("on_future_result")
    NO_WORKERS: ClassVar[Event[...]] = Event("on_no_workers")

    on_start: Subscriber[...]
    on_finishing: Subscriber[...]
    on_finished: Subscriber[...]
    on_stop: Subscriber[...]
    on_timeout: Subscriber[...]
    on_empty: Subscriber[...]
    on_future_submitted: Subscriber[...]
    on_future_done: Subscriber[...]
    on_future_cancelled: Subscriber[...]
    on_future_exception: Subscriber[...]
    on_future_result: Subscriber[...]
    on_no_workers: Subscriber[...]

    def __init__(
        self,
        executor: Executor | Any = None,
        *,
        name: str | None = None,
        terminate: bool | Callable[[Any], object] = True,
        batching: bool = True,
        history: int = 10_000,
        capture_output: bool = True,
        journal: str | PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a scheduler; nothing is started yet.

        Args:
            executor: what runs the calls; None (or `...`): local processes. An executor of yours
                stays open after a run and stays yours to close.
            name: shown in the views.
            terminate: how to end what runs on an executor of yours when a run must end at once:
                True: kill its processes, if it has any; a function that is given the executor;
                False: leave it running unseen.
            batching: whether very short calls may travel to a worker together.
            history: how many ended calls to remember, and as many failed ones besides.
            capture_output: whether to catch what calls print in worker processes.
            journal: the path of a file in which accepted calls and their outcomes are recorded, so
                that they outlive this process; see `recover`.
            clock: gives seconds since the epoch; for tests.

        Raises:
            JournalError: the file is no journal, is damaged, in use, or cannot be written.
            TypeError: the executor runs nothing, or the journal's path is none.
            ValueError: a negative history.
        """
        self.name = name or "scheduler"
        self.clock = clock
        self.batching = batching
        self.backend = adopt(executor, terminate=terminate, capture_output=capture_output)
        self.state = RunState.IDLE
        self.trace: Trace = ()  # of its last moves, for who looks for a wrong one
        self.history = History(history, clock=clock)
        self.tasks: list[Task[..., Any]] = []
        self.renderables: list[Any] = []
        self.n_runs = 0
        self.version = 0
        self.last_run: Run | None = None
        self.journal: Journal | None = None
        self.call_ids = count(1)
        self.key = object()  # calls carry it, so that those of other schedulers are known
        self._ref_keys: dict[str, object] = {}  # ref → the cell that made the task
        self._observers: tuple[Observer, ...] = ()
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._own_loop: asyncio.AbstractEventLoop | None = None  # of a `with` outside of any loop
        self._seen = True  # whether somebody took a snapshot since observers were last told
        self._make_events()
        host.current().constructed(cast("Scheduler", self))
        if journal is not None:
            self._open_journal(journal)

    def _make_events(self) -> None:
        self.emitter = Emitter("scheduler", specs=SCHEDULER_EVENTS)
        for spec in SCHEDULER_EVENTS:
            setattr(self, spec.name, self.emitter.subscriber(spec.name))
        self.submitted = self.emitter.channel(self.FUTURE_SUBMITTED)
        self.done = self.emitter.channel(self.FUTURE_DONE)
        self.returned = self.emitter.channel(self.FUTURE_RESULT)
        self.failed = self.emitter.channel(self.FUTURE_EXCEPTION)
        self.cancelled = self.emitter.channel(self.FUTURE_CANCELLED)

    def _open_journal(self, path: str | PathLike[str]) -> None:
        from amltk_nb.scheduling.journal import Journal  # sqlite3 is for those who want one

        me = ref(self)  # the journal's thread must not keep its scheduler alive

        def log(level: str, text: str) -> None:
            if (scheduler := me()) is not None:
                scheduler.log("journal", level, text)

        self.journal = Journal(path, log=log)
        self.call_ids = count(self.journal.last_id + 1)

    def running(self) -> bool:
        """Say whether it takes calls."""
        return self.state in _LIVE

    def empty(self) -> bool:
        """Say whether nothing is queued or running."""
        return not (self.last_run and self.last_run.traffic.active)

    # ---------------------------------------------------------------- reading

    @property
    def event_counts(self) -> Any:
        """How often each of the scheduler's events was emitted, over all runs."""
        return self.emitter.event_counts

    @overload
    def on(self, event: Takes[F], callback: F, **options: Unpack[OptionKeywords]) -> F: ...
    @overload
    def on(
        self, event: Event[P], **options: Unpack[OptionKeywords]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    @overload
    def on(self, event: Key, callback: F, **options: Unpack[OptionKeywords]) -> F: ...
    @overload
    def on(self, event: Key, **options: Unpack[OptionKeywords]) -> Callable[[F], F]: ...
    def on(self, event: Any, *args: Any, **options: Any) -> Any:
        """Register a callback; see `Emitter.on`."""
        return self.emitter.on(event, *args, **options)

    @overload
    def emit(self, event: Event[P], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def emit(self, event: Key, /, *args: Any, **kwargs: Any) -> None: ...
    def emit(self, event: Any, /, *args: Any, **kwargs: Any) -> None:
        """Emit an event of one's own; see `Emitter.emit`."""
        self.emitter.emit(event, *args, **kwargs)

    @overload
    def subscriber(self, event: Event[P]) -> Subscriber[P]: ...
    @overload
    def subscriber(self, event: Key) -> Subscriber[...]: ...
    def subscriber(self, event: Any) -> Subscriber[...]:
        """Return the subscriber of an event; see `Emitter.subscriber`."""
        return self.emitter.subscriber(event)

    def snapshot(self, *, max_calls: int = 300) -> Snapshot:
        """Take everything that can be seen, at this moment.

        Args:
            max_calls: how many calls it shows: running ones, then the next in the queue, then
                failures, then those that ended last; some of each, however many there are.
        """
        self.note_look()
        return reading.snapshot(self, max_calls=max_calls)

    def note_look(self) -> None:
        """Note that somebody looks, so that observers are told of the next change."""
        self._seen = True

    def calls(
        self, state: CallState | str | None = None, *, before: int | None = None, limit: int = 200
    ) -> list[CallRecord]:
        """List remembered calls, the newest first.

        Args:
            state: only those in this state.
            before: only those with a smaller id.
            limit: at most this many.
        """
        return reading.calls(self, state, before=before, limit=limit)

    def find_call(self, call_id: int) -> Call:
        """Return a call by its id.

        Raises:
            CallNotFoundError: there is none, or it has left the history.
        """
        active = self.last_run.traffic.active.get(call_id) if self.last_run else None
        call = active or self.history.get(call_id)
        if call is None:
            raise CallNotFoundError(
                f"No call {call_id} is known: it never existed or has left the history of ended "
                "calls; a larger Scheduler(history=…) keeps more."
            )
        return call

    def records(self) -> list[dict[str, Any]]:
        """List every remembered call as a dict of plain values, in order of submission.

        Times are `datetime` values in UTC; seconds are floats.
        """
        return reading.rows(self)

    def to_frame(self) -> pd.DataFrame:
        """Return `records()` as a pandas DataFrame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return reading.frame(self)

    def observe(self, observer: Observer) -> None:
        """Have an observer told of changes; one that raises is dropped and logged."""
        self._observers = (*self._observers, observer)

    def unobserve(self, observer: Observer) -> None:
        """Tell it no more."""
        self._observers = tuple(o for o in self._observers if o is not observer)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have something called at every change, when it happens and on whatever thread.

        Unlike an observer, which is told once until somebody looks, it must be cheap. One that
        raises is dropped and logged.
        """
        self._watchers = (*self._watchers, watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers = tuple(w for w in self._watchers if w is not watcher)

    def add_renderable(self, renderable: Any) -> None:
        """Show something more below the scheduler's rich rendering."""
        self.renderables.append(renderable)

    def log(self, source: str, level: str, text: str) -> None:
        """Add to the log that the views show.

        Args:
            source: who says it.
            level: "debug", "info", "warning", "error", or "print" for what was printed.
            text: what.
        """
        self.history.log(source, level, text)
        self.touch()

    # ---------------------------------------------------------------- for its parts

    def touch(self) -> None:
        """Note that a snapshot would look different now."""
        self.version += 1
        self.tell_watchers()
        if self._seen and self._observers:
            self._seen = False
            for observer in self._observers:
                self._tell(observer)

    def tell_watchers(self) -> None:
        """Tell of a change that observers are told of later, with others, or by `touch`."""
        for watcher in self._watchers:
            try:
                watcher()
            except Exception as error:
                self.unwatch(watcher)
                text = f"a watcher failed and was dropped: {error!r}"
                self.history.log("scheduler", "error", text)

    def _tell(self, observer: Observer) -> None:
        try:
            observer.changed()
        except Exception as error:
            self.unobserve(observer)
            self.history.log("scheduler", "error", f"a view failed and was dropped: {error!r}")

    def move(self, new: RunState) -> None:
        """Go to another state by the table.

        Raises:
            IllegalMoveError: it has no such move; nothing is changed.
        """
        what = f"the scheduler {self.name!r}"
        checked_move(RUN_MOVES, self.state, new, what=what, trace=self.trace)
        self.trace = traced(self.trace, new)
        self.state = new
        self.touch()

    def enter(self, run: Run) -> None:
        """Make a run the present one."""
        self.move(RunState.RUNNING)
        self.last_run = run
        self.n_runs += 1

    def on_loop(self, fn: Callable[[], None]) -> None:
        """Run something on the loop's thread: at once if there is no run."""
        if self.last_run is not None and not self.last_run.done():
            self.last_run.traffic.on_loop(fn)
        else:
            fn()

    def register_task(self, task: Task[..., Any]) -> str:
        """Take a task in and give it its ref; a re-run cell's task replaces its former self."""
        if self.last_run is not None and not self.last_run.done():
            self.last_run.faults.route(task, host.current().callback_output(self.last_run))
        ref, old = self._ref_for(task)
        if old is None:
            self.tasks.append(task)
        else:
            self.tasks[self.tasks.index(old)] = task
        self.touch()
        return ref

    def forget_task(self, task: Task[..., Any]) -> None:
        """Take out a task whose making failed."""
        self.tasks.remove(task)
        self.touch()

    def _ref_for(self, task: Task[..., Any]) -> tuple[str, Task[..., Any] | None]:
        """Number tasks of one name, unless an earlier execution of this cell made the same one."""
        cell = host.current().cell()
        same_name = [t for t in self.tasks if t.name == task.name]
        if cell is not None:
            for old in same_name:
                made = self._ref_keys.get(old.ref)
                if (
                    isinstance(made, host.Cell)
                    and made.id == cell.id
                    and made.execution < cell.execution
                ):
                    self._ref_keys[old.ref] = cell
                    return old.ref, old
        ref = f"Task-{task.name}-{len(same_name) + 1}"
        self._ref_keys[ref] = cell
        return ref, None

    def not_running_message(self) -> str:
        """Say why no call is taken now, and what to do."""
        if self.state is RunState.IDLE:
            return (
                "Scheduler is not running, so it takes no calls yet. In a notebook start it with "
                "`run = scheduler.start()` and submit then; in a script submit from a callback: "
                "`@scheduler.on_start`, then `scheduler.run()`."
            )
        return (
            f"Scheduler is not running: its run is {self.state}. Start it again to submit more; "
            "in callbacks ask `scheduler.running()` first."
        )

    def live_run(self) -> Run:
        """Return the run that takes calls now.

        Raises:
            SchedulerNotRunningError: there is none.
        """
        run = self.last_run
        if run is None or self.state not in _LIVE:
            raise SchedulerNotRunningError(self.not_running_message())
        return run

    def __repr__(self) -> str:
        return reading.line(self)

    def __rich__(self) -> Any:
        return host.current().rich(cast("Scheduler", self))

    def _ipython_display_(self) -> None:
        host.current().show(cast("Scheduler", self))
