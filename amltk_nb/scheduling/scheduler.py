"""The scheduler: how it is made and run. A `Run` does the work of one run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, overload

from amltk_nb import host
from amltk_nb.errors import NoRunningLoopError, RunningLoopError, SchedulerRunningError
from amltk_nb.scheduling.executors.base import open_backend
from amltk_nb.scheduling.exit_state import ExitCode, ExitState
from amltk_nb.scheduling.grace import grace_s
from amltk_nb.scheduling.on_clusters import OnClusters
from amltk_nb.scheduling.on_engines import OnEngines
from amltk_nb.scheduling.options import RunOptions, check_names
from amltk_nb.scheduling.run import Run
from amltk_nb.scheduling.states import RunState
from amltk_nb.scheduling.submitting import Submitting

if TYPE_CHECKING:
    from amltk_nb.scheduling.policy import Mode, OnException

__all__ = ["Scheduler"]


class Scheduler(OnClusters, OnEngines, Submitting):
    """Runs functions on workers and tells of what happens by events.

    Make one with `with_processes`, `with_threads` or `with_sequential`, or around any executor of
    your own; register functions with `task`, react with callbacks, then `start()` it in a
    notebook or `run()` it in a script. A finished scheduler can be run again.
    """

    ExitCode: ClassVar[TypeAlias] = ExitCode

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
        check_names(cls.with_processes, options)
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
        check_names(cls.with_threads, options)
        return cls(open_backend("threads", max_workers=max_workers), **options)

    @classmethod
    def with_sequential(cls, **options: Any) -> Scheduler:
        """Run one call at a time in this very process: for debugging.

        Args:
            options: see `Scheduler`.
        """
        check_names(cls.with_sequential, options)
        return cls(open_backend("sequential"), **options)

    @classmethod
    def with_loky(
        cls,
        max_workers: int | None = None,
        *,
        timeout: float | None = None,
        context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Scheduler:
        """Run calls in worker processes of loky, on this machine.

        The executor is one of its own, opened anew for each run. Running calls can only be ended
        all together (`stop(wait=False)`); when a worker dies, all calls under way fail.

        Args:
            max_workers: at least 1; None: the CPUs this process may use.
            timeout: seconds after which an idle worker leaves; None: never.
            context: how workers start; see loky.
            initializer: run once in each new worker.
            initargs: arguments for it.
            env: environment variables for workers, besides those of this process.
            options: see `Scheduler`.

        Raises:
            MissingExtraError: loky is not installed.
        """
        check_names(cls.with_loky, options)
        backend = open_backend(
            "loky",
            max_workers=max_workers,
            timeout=timeout,
            context=context,
            initializer=initializer,
            initargs=initargs,
            env=env,
        )
        return cls(backend, **options)

    @classmethod
    def with_dask(
        cls,
        address_or_client: Any = None,
        n_workers: int | None = None,
        *,
        threads_per_worker: int = 1,
        memory_limit: Any = 0,
        n_ahead: int | None = None,
        connect_timeout: float = 10.0,
        no_workers_after: float = 10.0,
        **options: Any,
    ) -> Scheduler:
        """Run calls on Dask: here, or wherever a Dask scheduler has workers.

        On a cluster of its own a call runs at most once: a dead worker is a `WorkerDiedError`.
        (Calls of some milliseconds are handed over ahead. If their worker dies, those that had not
        begun run elsewhere; one may run twice that began when an earlier one had just ended unseen.
        n_ahead=0 excludes that.)
        On yours Dask may run a call again when its worker died, unless its configuration says
        `distributed.scheduler.allowed-failures: 0`; and a running call cannot be ended there.

        Args:
            address_or_client: "tcp://host:8786", a cluster object, or a `distributed.Client` that
                stays yours; None: a cluster of its own on this machine, started for each run.
            n_workers: of its own cluster; None: the CPUs this process may use.
            threads_per_worker: of its own cluster; more than 1: running calls cannot be ended.
            memory_limit: of each worker of its own cluster, as Dask takes it; 0: none.
            n_ahead: how many calls to hand over for each worker besides those that run, so that
                short ones do not wait for the network. They count as running, and can still be
                cancelled. None: as many as are worth it, by what is measured, and none when calls
                take 0.1 seconds or more; those that come to wait behind a longer one are taken
                back. 0: never any.
            connect_timeout: seconds to wait for somebody at the address.
            no_workers_after: seconds without any worker after which `on_no_workers` is emitted.
            options: see `Scheduler`.

        Raises:
            TypeError: an asynchronous client, or no client or address at all.
            MissingExtraError: dask.distributed is not installed.
        """
        check_names(cls.with_dask, options)
        backend = open_backend(
            "dask",
            address_or_client=address_or_client,
            n_workers=n_workers,
            threads_per_worker=threads_per_worker,
            memory_limit=memory_limit,
            n_ahead=n_ahead,
            connect_timeout=connect_timeout,
            no_workers_after=no_workers_after,
        )
        return cls(backend, **options)

    # ---------------------------------------------------------------- running

    @overload
    def run(
        self,
        timeout: float | None = None,
        end_on_empty: bool = True,
        wait: bool | float = True,
        on_exception: OnException = "raise",
        on_cancelled: Mode = "raise",
        display: Any = "auto",
        asyncio_debug_mode: bool = False,
        *,
        end_on_exception: bool | None = None,
        raises: Literal[True] | None = None,
    ) -> ExitState: ...
    @overload
    def run(
        self,
        timeout: float | None = None,
        end_on_empty: bool = True,
        wait: bool | float = True,
        on_exception: OnException = "raise",
        on_cancelled: Mode = "raise",
        display: Any = "auto",
        asyncio_debug_mode: bool = False,
        *,
        end_on_exception: bool | None = None,
        raises: bool,
    ) -> ExitState | BaseException: ...
    def run(
        self,
        timeout: float | None = None,
        end_on_empty: bool = True,
        wait: bool | float = True,
        on_exception: OnException = "raise",
        on_cancelled: Mode = "raise",
        display: Any = "auto",
        asyncio_debug_mode: bool = False,
        *,
        end_on_exception: bool | None = None,
        raises: bool | None = None,
    ) -> ExitState | BaseException:
        """Run, and block until it is over; in a notebook the cell blocks.

        Args:
            timeout: seconds after which it ends.
            end_on_empty: whether it ends when nothing is left to do.
            wait: whether running calls may finish when it ends, or for how many seconds they may
                go on before they are ended.
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
        wait: bool | float = True,
        on_exception: OnException = "raise",
        on_cancelled: Mode = "raise",
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
        wait: bool | float = True,
        on_exception: OnException = "continue",
        on_cancelled: Mode = "continue",
        display: Any = "auto",
        output: Literal["log", "cell"] = "log",
        on_interrupt: Literal["stop"] | None = None,
    ) -> Run:
        """Start in the background of the running loop and return at once: the notebook's way.

        Args:
            timeout: seconds after which it ends.
            end_on_empty: whether it ends when nothing is left to do.
            wait: whether running calls may finish when it ends, or for how many seconds they may
                go on before they are ended.
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
        if (
            self.last_run is not None
            and not self.last_run.done()
            and host.current().restarting(self)
        ):
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
        wait: bool | float | None = None,
        **__: Any,
    ) -> None:
        """End the run: no new calls, queued ones are cancelled, running ones may finish.

        May be called from any thread and any callback (also as one), any number of times.

        Args:
            stop_msg: why; given to `on_stop`.
            exception: an error that is the reason; the run treats it by its `on_exception`.
            wait: False ends running calls at once; a number ends them after so many seconds; True
                lets them finish; None: as the run was started with. Stopping again can only make
                it quicker.

        Raises:
            TypeError: a `wait` that is neither a bool nor a number.
            ValueError: a negative `wait`, or nan.
        """
        if wait is not None:
            grace_s(wait)  # a wrong one is told of whether or not there is a run to stop
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
        run = self.live_run()
        with run.traffic.dispatch.lock:
            if run.traffic.dispatch.paused != paused and not run.ending:
                self.move(RunState.PAUSED if paused else RunState.RUNNING)
                run.traffic.dispatch.paused = paused
                run.traffic.dispatch.pump()
        self.touch()

    def restart_workers(self) -> None:
        """Replace the workers, so that edited modules are imported anew; running calls finish."""
        self.backend.restart()

    async def __aenter__(self) -> Self:
        self._begin_block(asyncio.get_running_loop())
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        await self._end_block(error)

    def __enter__(self) -> Self:
        running = asyncio._get_running_loop()
        if running is not None:
            self._begin_block(running)
            return self
        loop = asyncio.new_event_loop()
        try:
            self._begin_block(loop)
        except BaseException:
            loop.close()
            raise
        self._own_loop = loop
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        loop, self._own_loop = self._own_loop, None
        if loop is None:
            self._end_nested_block(error)
            return
        try:
            loop.run_until_complete(self._end_block(error))
        finally:
            loop.close()

    def _end_nested_block(self, error: BaseException | None) -> None:
        """End a block inside of a running loop, where the host can wait for it."""
        try:
            host.current().run_to_end(lambda: self._end_block(error), debug=False)
        except RunningLoopError:
            self.stop(stop_msg="its with block cannot wait inside of a running loop", wait=False)
            if error is None:
                raise RunningLoopError(
                    "`with scheduler:` would block the running event loop at its end, so the run "
                    "was stopped. Use `async with scheduler:` here."
                ) from None

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


def _modern(on_exception: OnException, end: bool | None, raises: bool | None) -> OnException:
    """Translate the older spellings of the exception policy."""
    if end is None and raises is None:
        return on_exception
    if on_exception != "raise":
        raise TypeError(
            "run() got on_exception= together with end_on_exception= or raises=; "
            "use on_exception= alone."
        )
    if end is False:
        return "continue"
    return "end" if raises is False else "raise"
