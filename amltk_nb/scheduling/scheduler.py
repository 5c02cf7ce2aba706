"""The scheduler: the verbs a user calls. A `Run` does the work of one run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeAlias, TypeVar

from amltk_nb import host
from amltk_nb.errors import (
    CallNotFoundError,
    CannotEndError,
    NoRunningLoopError,
    SchedulerNotRunningError,
    SchedulerRunningError,
)
from amltk_nb.events import SCHEDULER_EVENTS, Emitter, Event, Subscriber
from amltk_nb.scheduling import reading
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.executors.base import adopt, open_backend
from amltk_nb.scheduling.exit_state import ExitCode, ExitState
from amltk_nb.scheduling.history import History
from amltk_nb.scheduling.options import RunOptions
from amltk_nb.scheduling.plugins.base import Plugin, admit, release_all
from amltk_nb.scheduling.run import Run
from amltk_nb.scheduling.snapshot import CallRecord, Observer, Snapshot
from amltk_nb.scheduling.states import RUN_MOVES, CallState, RunState, checked_move
from amltk_nb.scheduling.task import Task
from amltk_nb.scheduling.waiting import AsCompleted, gathered, waited

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd

    from amltk_nb.scheduling.policy import OnException

__all__ = ["Scheduler"]

P = ParamSpec("P")
R = TypeVar("R")

_LIVE = frozenset({RunState.RUNNING, RunState.PAUSED})


class Scheduler:
    """Runs functions on workers and tells of what happens by events.

    Make one with `with_processes`, `with_threads` or `with_sequential`, or around any executor of
    your own; register functions with `task`, react with callbacks, then `start()` it in a
    notebook or `run()` it in a script. A finished scheduler can be run again.
    """

    ExitCode: ClassVar[TypeAlias] = ExitCode

    STARTED: ClassVar[Event[..., Any]] = Event("on_start")
    FINISHING: ClassVar[Event[..., Any]] = Event("on_finishing")
    FINISHED: ClassVar[Event[..., Any]] = Event("on_finished")
    STOP: ClassVar[Event[..., Any]] = Event("on_stop")
    TIMEOUT: ClassVar[Event[..., Any]] = Event("on_timeout")
    EMPTY: ClassVar[Event[..., Any]] = Event("on_empty")
    FUTURE_SUBMITTED: ClassVar[Event[..., Any]] = Event("on_future_submitted")
    FUTURE_DONE: ClassVar[Event[..., Any]] = Event("on_future_done")
    FUTURE_CANCELLED: ClassVar[Event[..., Any]] = Event("on_future_cancelled")
    FUTURE_EXCEPTION: ClassVar[Event[..., Any]] = Event("on_future_exception")
    FUTURE_RESULT: ClassVar[Event[..., Any]] = Event("on_future_result")

    on_start: Subscriber[..., Any]
    on_finishing: Subscriber[..., Any]
    on_finished: Subscriber[..., Any]
    on_stop: Subscriber[..., Any]
    on_timeout: Subscriber[..., Any]
    on_empty: Subscriber[..., Any]
    on_future_submitted: Subscriber[..., Any]
    on_future_done: Subscriber[..., Any]
    on_future_cancelled: Subscriber[..., Any]
    on_future_exception: Subscriber[..., Any]
    on_future_result: Subscriber[..., Any]

    def __init__(
        self,
        executor: Executor | Any = None,
        *,
        name: str | None = None,
        terminate: bool | Callable[[Any], object] = True,
        batching: bool = True,
        history: int = 10_000,
        capture_output: bool = True,
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
            clock: gives seconds since the epoch; for tests.

        Raises:
            TypeError: the executor runs nothing.
            ValueError: a negative history.
        """
        self.name = name or "scheduler"
        self.clock = clock
        self.batching = batching
        self.backend = adopt(executor, terminate=terminate, capture_output=capture_output)
        self.state = RunState.IDLE
        self.history = History(history, clock=clock)
        self.tasks: list[Task[..., Any]] = []
        self.renderables: list[Any] = []
        self.n_runs = 0
        self.version = 0
        self.last_run: Run | None = None
        self._ids = count(1)
        self._ref_keys: dict[str, object] = {}  # ref → the cell that made the task
        self._observers: tuple[Observer, ...] = ()
        self._own_loop: asyncio.AbstractEventLoop | None = None  # of a `with` outside of any loop
        self._seen = True  # whether somebody took a snapshot since observers were last told
        self.emitter = Emitter("scheduler", specs=SCHEDULER_EVENTS)
        for spec in SCHEDULER_EVENTS:
            setattr(self, spec.name, self.emitter.subscriber(spec.name))
        self.submitted = self.emitter.channel(self.FUTURE_SUBMITTED)
        self.done = self.emitter.channel(self.FUTURE_DONE)
        self.returned = self.emitter.channel(self.FUTURE_RESULT)
        self.failed = self.emitter.channel(self.FUTURE_EXCEPTION)
        self.cancelled = self.emitter.channel(self.FUTURE_CANCELLED)
        host.current().constructed(self)

    # ---------------------------------------------------------------- constructors

    @classmethod
    def with_processes(
        cls,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> Scheduler:
        """Run calls in worker processes of this machine.

        Args:
            max_workers: at least 1; None: the CPUs this process may use (its affinity and its
                container's quota).
            mp_context: "forkserver" (the default where it exists), "spawn" or "fork".
            initializer: run once in each new worker.
            initargs: arguments for it.
            options: see `Scheduler`.
        """
        capture = options.get("capture_output", True)
        backend = open_backend(
            "processes",
            max_workers=max_workers,
            mp_context=mp_context,
            initializer=initializer,
            initargs=initargs,
            capture_output=capture,
        )
        return cls(backend, **options)

    @classmethod
    def with_threads(cls, max_workers: int | None = None, **options: Any) -> Scheduler:
        """Run calls in threads of this process: for waiting, not for computing.

        Args:
            max_workers: at least 1; None: the CPUs this process may use.
            options: see `Scheduler`.
        """
        return cls(open_backend("threads", max_workers=max_workers), **options)

    @classmethod
    def with_sequential(cls, **options: Any) -> Scheduler:
        """Run one call at a time in this very process: for debugging.

        Args:
            options: see `Scheduler`.
        """
        return cls(open_backend("sequential"), **options)

    # ---------------------------------------------------------------- running

    def run(
        self,
        timeout: float | None = None,
        end_on_empty: bool = True,
        wait: bool = True,
        on_exception: OnException = "raise",
        on_cancelled: str = "raise",
        display: Any = "auto",
        asyncio_debug_mode: bool = False,
        *,
        end_on_exception: bool | None = None,
        raises: bool | None = None,
    ) -> Any:
        """Run, and block until it is over; in a notebook the cell blocks.

        Args:
            timeout: seconds after which it ends.
            end_on_empty: whether it ends when nothing is left to do.
            wait: whether running calls may finish when it ends.
            on_exception: what to do when a call or a callback raises: "raise", "end",
                "continue", or a mapping from exception types to these.
            on_cancelled: the same for a call that was cancelled by nobody here.
            display: whether to show a dashboard: "auto" (in notebooks), True or False.
            asyncio_debug_mode: whether the loop runs in its debug mode.
            end_on_exception: older spelling: False means on_exception="continue".
            raises: older spelling: False means on_exception="end", and that the exception
                itself is returned.

        Returns:
            An `ExitState`.

        Raises:
            SchedulerRunningError: it is running already.
            ExecutorClosedError: your executor was shut down.
            RunningLoopError: an event loop runs in this thread, and this is no notebook.
            Exception: what a call or callback raised, where the policy says "raise".
        """
        options = self._options(
            timeout=timeout,
            end_on_empty=end_on_empty,
            wait=wait,
            on_exception=_modern(on_exception, end_on_exception, raises),
            on_cancelled=on_cancelled,
            display=display,
            returns_exception=raises is False,
        )
        state = host.current().run_to_end(
            lambda: self._foreground(options), debug=asyncio_debug_mode
        )
        return state.exception if options.returns_exception and state.exception else state

    async def async_run(
        self,
        timeout: float | None = None,
        end_on_empty: bool = True,
        wait: bool = True,
        on_exception: OnException = "raise",
        on_cancelled: str = "raise",
        display: Any = "auto",
    ) -> ExitState:
        """Do the same as `run`, awaitable."""
        options = self._options(
            timeout=timeout,
            end_on_empty=end_on_empty,
            wait=wait,
            on_exception=on_exception,
            on_cancelled=on_cancelled,
            display=display,
        )
        return await self._foreground(options)

    def start(
        self,
        timeout: float | None = None,
        end_on_empty: bool = False,
        wait: bool = True,
        on_exception: OnException = "continue",
        on_cancelled: str = "continue",
        display: Any = "auto",
        output: str = "log",
        on_interrupt: str | None = None,
    ) -> Run:
        """Start in the background of the running loop and return at once: the notebook's way.

        Args:
            timeout: seconds after which it ends.
            end_on_empty: whether it ends when nothing is left to do.
            wait: whether running calls may finish when it ends.
            on_exception: see `run`.
            on_cancelled: see `run`.
            display: whether to show a dashboard under the cell.
            output: where callbacks' prints go: "log" (of the dashboard) or "cell" (that defined
                the callback).
            on_interrupt: "stop": interrupting a cell that awaits the run stops it too.

        Returns:
            The run; await it for its `ExitState`.

        Raises:
            SchedulerRunningError: it is running already.
            NoRunningLoopError: no event loop runs here; use `run()`.
            ExecutorClosedError: your executor was shut down.
        """
        options = self._options(
            timeout=timeout,
            end_on_empty=end_on_empty,
            wait=wait,
            on_exception=on_exception,
            on_cancelled=on_cancelled,
            display=display,
            background=True,
            output=output,
            on_interrupt=on_interrupt,
        )
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise NoRunningLoopError(
                "start() needs a running event loop, as every notebook has one. In a script use "
                "scheduler.run(), or call start() inside of a coroutine."
            ) from None
        run = Run(self, options, loop)
        run.begin()
        return run

    async def _foreground(self, options: RunOptions) -> ExitState:
        run = Run(self, options, asyncio.get_running_loop())
        run.begin()
        return await run

    def _options(self, **given: Any) -> RunOptions:
        options = RunOptions.checked(**given)
        if self.last_run is not None and not self.last_run.done() and host.current().restarting(self):
            self.last_run.end_now(ExitCode.STOPPED, "the cell that started it was run again")
        if self.state not in (RunState.IDLE, RunState.FINISHED):
            raise SchedulerRunningError(
                f"The scheduler {self.name!r} is {self.state} already. Submit to it as it is, or "
                "end this run first: `scheduler.stop()`, then `await run`."
            )
        return options

    def stop(
        self,
        *_: Any,
        stop_msg: str | None = None,
        exception: BaseException | None = None,
        wait: bool | None = None,
        **__: Any,
    ) -> None:
        """End the run: no new calls, queued ones are cancelled, running ones may finish.

        May be called from any thread and any callback (also as one), any number of times.

        Args:
            stop_msg: why; given to `on_stop`.
            exception: an error that is the reason; the run treats it by its `on_exception`.
            wait: False ends running calls too; None: as the run was started with.
        """
        if self.last_run is not None and not self.last_run.done():
            self.last_run.stop(stop_msg=stop_msg, exception=exception, wait=wait)

    def pause(self) -> None:
        """Start no more calls; queued ones stay, running ones finish. From any thread.

        Raises:
            SchedulerNotRunningError: there is no run to pause.
        """
        self._set_paused(True)

    def resume(self) -> None:
        """Start calls again. From any thread.

        Raises:
            SchedulerNotRunningError: there is no run to resume.
        """
        self._set_paused(False)

    def _set_paused(self, paused: bool) -> None:
        run = self._live_run()
        with run.dispatch.lock:
            if run.dispatch.paused != paused and not run.ending:
                self.move(RunState.PAUSED if paused else RunState.RUNNING)
                run.dispatch.paused = paused
                run.dispatch.pump()
        self.touch()

    def running(self) -> bool:
        """Say whether it takes calls."""
        return self.state in _LIVE

    def empty(self) -> bool:
        """Say whether nothing is queued or running."""
        return not (self.last_run and self.last_run.active)

    def restart_workers(self) -> None:
        """Replace the workers, so that edited modules are imported anew; running calls finish."""
        self.backend.restart()

    async def __aenter__(self) -> Scheduler:
        self._begin_block(asyncio.get_running_loop())
        return self

    async def __aexit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        await self._end_block(error)

    def __enter__(self) -> Scheduler:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = self._own_loop = asyncio.new_event_loop()
        self._begin_block(loop)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        loop, self._own_loop = self._own_loop, None
        if loop is None:
            host.current().run_to_end(lambda: self._end_block(error), debug=False)
            return
        try:
            loop.run_until_complete(self._end_block(error))
        finally:
            loop.close()

    def _begin_block(self, loop: asyncio.AbstractEventLoop) -> None:
        options = self._options(
            timeout=None,
            end_on_empty=False,
            wait=True,
            on_exception="raise",
            on_cancelled="raise",
            display="auto",
        )
        Run(self, options, loop).begin()

    async def _end_block(self, error: BaseException | None) -> None:
        """End at once if the block raised, which is raised on; else when nothing is left to do."""
        run = self.last_run
        assert run is not None
        if error is None:
            run.finish_when_empty()
            await run
        else:
            run.stop(stop_msg=f"the with block raised {type(error).__name__}", wait=False)
            await run.over()

    # ---------------------------------------------------------------- work

    def task(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        plugins: Plugin | Iterable[Plugin] = (),
        late: bool = True,
    ) -> Task[P, R]:
        """Register a function; usable as a decorator.

        Args:
            function: what to run.
            name: what to call it; its own name if None.
            plugins: one or several.
            late: whether a function of a notebook is looked up anew at every submission.
        """
        return Task(function, self, name=name, plugins=plugins, late=late)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function run; from any thread.

        Returns:
            A future of its result.

        Raises:
            SchedulerNotRunningError: before a run and after it.
            TypeError: `fn` cannot be called.
        """
        if not callable(fn):
            raise TypeError(f"submit({fn!r}): pass the function itself, then its arguments.")
        future: Future[R] | None = self.accept(fn, args, kwargs)
        assert future is not None  # only plugins refuse
        return future

    def accept(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        task: Task[..., Any] | None = None,
        origin: Call | None = None,
    ) -> Future[Any] | None:
        """Make a call and queue it; what `submit`, `Task.submit` and `resubmit` share.

        Returns:
            Its future; None if a plugin of the task refused.

        Raises:
            SchedulerNotRunningError: no run takes calls now.
            PluginError: a plugin's hook failed.
        """
        run = self._live_run()
        plugins = task.plugins if task is not None else ()
        work = admit(plugins, (fn, args, kwargs)) if plugins else (fn, args, kwargs)
        if work is None:
            return None
        call = Call(next(self._ids), fn, args, kwargs, task=task, submitted_at=self.clock())
        call.work = work
        call.canceller = run.cancel
        if origin is not None:
            call.resubmitted_from, call.attempt = origin.id, origin.attempt + 1
        future: Future[Any] = Future(loop=run.loop)
        call.future, future.call = future, call
        if task is not None:
            task.began(call)
        try:
            run.accept(call)
        except BaseException:
            release_all(plugins, None)
            if task is not None:
                task.withdrawn(call)
            raise
        return future

    def resubmit(self, call: Call | Future[Any], *args: Any, **kwargs: Any) -> Future[Any] | None:
        """Run a call again as a new one that is linked to it.

        Args:
            call: a call or its future, whatever became of it.
            args: with these or `kwargs`, they replace its whole argument list.
            kwargs: see `args`.

        Returns:
            The new call's future; None if a plugin refused.

        Raises:
            SchedulerNotRunningError: no run takes calls now.
        """
        call = _as_call(call)
        if not args and not kwargs:
            args, kwargs = call.args, call.kwargs
        fn = call.task.function if call.task is not None else host.current().latest(call.fn)
        return self.accept(fn, args, kwargs, task=call.task, origin=call)

    def resubmit_failed(self) -> list[Future[Any]]:
        """Resubmit every remembered failure that was not resubmitted before.

        Returns:
            The new futures, without those that a plugin refused.
        """
        again = (self.resubmit(call) for call in self.failed_calls())
        return [future for future in again if future is not None]

    def failed_calls(self) -> list[Call]:
        """List the remembered calls that failed and were not resubmitted, oldest first."""
        tried_again = {c.resubmitted_from for c in self._known_calls()}
        return [call for call in self.history.failed() if call.id not in tried_again]

    def cancel(self, call: Call | Future[Any]) -> bool:
        """Take one call back: at once if it is queued, by ending its worker if it runs.

        Returns:
            Whether it ends as cancelled; False: it had ended already.

        Raises:
            CannotEndError: it is running and the backend cannot end a running call.
        """
        call = _as_call(call)
        if call.cancel():
            return True
        if call.state is CallState.RUNNING and self.backend.cannot_end is not None:
            raise CannotEndError(f"Call {call.id} is running: {self.backend.cannot_end}.")
        return False

    def cancel_queued(self, call: Call) -> bool:
        """Cancel a call if it still waits; returns whether it did."""
        return self.last_run is not None and self.last_run.take_back(call)

    def cancel_pending(self) -> int:
        """Cancel every call that still waits; returns how many."""
        run = self.last_run
        return sum(run.take_back(call) for call in list(run.active.values())) if run else 0

    def map(self, fn: Callable[..., R], *iterables: Iterable[Any]) -> list[Future[R]]:
        """Submit `fn` once per element of the iterables; returns the futures in order."""
        return [self.submit(fn, *args) for args in zip(*iterables, strict=False)]

    async def gather(
        self, futures: Iterable[Future[R]], *, return_exceptions: bool = False
    ) -> list[R]:
        """Wait for all; interrupting the wait leaves the calls alone.

        Args:
            futures: of any calls.
            return_exceptions: whether errors stand among the results instead of being raised.

        Returns:
            The results in the order of the futures.
        """
        return await gathered(futures, return_exceptions=return_exceptions)

    def as_completed(
        self, futures: Iterable[Future[R]], *, timeout: float | None = None
    ) -> AsCompleted[R]:
        """Iterate over futures as they end: `async for`, or `for` on another thread.

        Args:
            futures: of any calls.
            timeout: seconds for all of them together; then TimeoutError is raised.
        """
        return AsCompleted(futures, timeout=timeout)

    def wait(self, future: Future[R], timeout: float | None = None) -> R:
        """Wait on another thread than the loop's for a call to end.

        Args:
            future: of any call.
            timeout: seconds.

        Returns:
            Its result, or raises its error.

        Raises:
            TimeoutError: it took longer.
            RuntimeError: called on the loop's thread, where it would wait for ever.
        """
        return waited(future, timeout)

    def call_later(
        self, delay: float, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.TimerHandle:
        """Call something on the loop after `delay` seconds, if the run still lives then.

        Its errors are treated as a callback's. It does not keep a run alive.

        Raises:
            SchedulerNotRunningError: there is no run.
        """
        return self._live_run().call_later(delay, fn, *args, **kwargs)

    # ---------------------------------------------------------------- reading

    @property
    def queue(
        self,
    ) -> dict[Future[Any], tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]:
        """What was accepted and has not ended: future → (function, args, kwargs)."""
        calls = list(self.last_run.active.values()) if self.last_run else []
        return {call.future: (call.fn, call.args, call.kwargs) for call in calls if call.future}

    @property
    def event_counts(self) -> Any:
        """How often each of the scheduler's events was emitted, over all runs."""
        return self.emitter.event_counts

    def on(self, event: Any, *args: Any, **options: Any) -> Any:
        """Register a callback; see `Emitter.on`."""
        return self.emitter.on(event, *args, **options)

    def emit(self, event: Any, *args: Any, **kwargs: Any) -> None:
        """Emit an event of one's own; see `Emitter.emit`."""
        self.emitter.emit(event, *args, **kwargs)

    def subscriber(self, event: Any) -> Subscriber[..., Any]:
        """Return the subscriber of an event; see `Emitter.subscriber`."""
        return self.emitter.subscriber(event)

    def snapshot(self, *, max_calls: int = 300) -> Snapshot:
        """Take everything that can be seen, at this moment.

        Args:
            max_calls: how many calls it shows: running ones, then the next in the queue, then
                failures, then those that ended last.
        """
        self._seen = True
        return reading.snapshot(self, max_calls=max_calls)

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
        active = self.last_run.active.get(call_id) if self.last_run else None
        call = active or self.history.get(call_id)
        if call is None:
            raise CallNotFoundError(
                f"No call {call_id} is known: it never existed or has left the history of ended "
                "calls; a larger Scheduler(history=…) keeps more."
            )
        return call

    def records(self) -> list[dict[str, Any]]:
        """List every remembered call as a dict of plain values, in order of submission.

        Times are `datetime`s in UTC; seconds are floats.
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
        if self._seen and self._observers:
            self._seen = False
            for observer in self._observers:
                self._tell(observer)

    def _tell(self, observer: Observer) -> None:
        try:
            observer.changed()
        except Exception as error:  # noqa: BLE001 - the run must never notice a view that fails
            self.unobserve(observer)
            self.history.log("scheduler", "error", f"a view failed and was dropped: {error!r}")

    def move(self, new: RunState) -> None:
        """Go to another state by the table."""
        self.state = checked_move(RUN_MOVES, self.state, new, what=f"the scheduler {self.name!r}")
        self.touch()

    def enter(self, run: Run) -> None:
        """Make a run the present one."""
        self.move(RunState.RUNNING)
        self.last_run = run
        self.n_runs += 1

    def on_loop(self, fn: Callable[[], None]) -> None:
        """Run something on the loop's thread: at once if there is no run."""
        if self.last_run is not None and not self.last_run.done():
            self.last_run.on_loop(fn)
        else:
            fn()

    def register_task(self, task: Task[..., Any]) -> str:
        """Take a task in and give it its ref; a re-run cell's task replaces its former self."""
        if self.last_run is not None and not self.last_run.done():
            self.last_run.route(task, host.current().callback_output(self.last_run))
        ref, old = self._ref_for(task)
        if old is None:
            self.tasks.append(task)
        else:
            self.tasks[self.tasks.index(old)] = task
        self.touch()
        return ref

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

    def _live_run(self) -> Run:
        run = self.last_run
        if run is None or self.state not in _LIVE:
            raise SchedulerNotRunningError(self.not_running_message())
        return run

    def _known_calls(self) -> Sequence[Call]:
        active = list(self.last_run.active.values()) if self.last_run else []
        return [*self.history.latest(), *active]

    def __repr__(self) -> str:
        return reading.line(self)

    def __rich__(self) -> Any:
        return host.current().rich(self)

    def _ipython_display_(self) -> None:
        host.current().show(self)


def _as_call(call: Call | Future[Any]) -> Call:
    if isinstance(call, Future):
        return call.call
    if isinstance(call, Call):
        return call
    raise TypeError(f"{call!r} is neither a Call nor a Future of this scheduler.")


def _modern(on_exception: OnException, end: bool | None, raises: bool | None) -> OnException:
    """Translate the older spellings of the exception policy."""
    if end is None and raises is None:
        return on_exception
    if on_exception != "raise":
        raise TypeError(
            "run() got on_exception= together with end_on_exception= or raises=; use on_exception= alone."
        )
    if end is False:
        return "continue"
    return "end" if raises is False else "raise"
