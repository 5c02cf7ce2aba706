"""The verbs about work: register, submit, resubmit, cancel, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeVar, cast, overload

from amltk_nb import host
from amltk_nb.errors import CallNotFoundError, CannotEndError, JournalError
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.interrupts import are_held_back, gently
from amltk_nb.scheduling.plugins.base import Plugin, admit, release_all, tell_accepted
from amltk_nb.scheduling.shown import Shown
from amltk_nb.scheduling.states import CallState
from amltk_nb.scheduling.task import Task
from amltk_nb.scheduling.waiting import AsCompleted, futures_in, gathered, waited

if TYPE_CHECKING:
    from amltk_nb.scheduling.journal import Unfinished
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["Submitting"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")

_NO_FUNCTION: Final[Any] = object()  # None is a mistake: a decorator that forgot its `return`


class Submitting(Shown):
    """A scheduler as one hands it work."""

    @overload
    def task(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        plugins: Plugin | Iterable[Plugin] = (),
        late: bool = True,
    ) -> Task[P, R]: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        plugins: Plugin | Iterable[Plugin] = (),
        late: bool = True,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(
        self,
        function: Any = _NO_FUNCTION,
        *,
        name: str | None = None,
        plugins: Plugin | Iterable[Plugin] = (),
        late: bool = True,
    ) -> Any:
        """Register a function; usable as a decorator, with and without arguments.

        Args:
            function: what to run.
            name: what to call it; its own name if None.
            plugins: one or several.
            late: whether a function of a notebook is looked up anew at every submission.
        """
        if function is _NO_FUNCTION:
            return partial(self.task, name=name, plugins=plugins, late=late)
        return Task(function, cast("Scheduler", self), name=name, plugins=plugins, late=late)

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
        stored: Unfinished | None = None,
    ) -> Future[Any] | None:
        """Make a call and queue it; what `submit`, `Task.submit`, `resubmit`, `recover` share.

        Returns:
            Its future; None if a plugin of the task refused.

        Raises:
            SchedulerNotRunningError: no run takes calls now.
            PluginError: a plugin's hook failed.
        """
        run = self.live_run()
        plugins = tuple(task.plugins) if task is not None else ()
        work = admit(plugins, (fn, args, kwargs)) if plugins else (fn, args, kwargs)
        if work is None:
            return None
        call_id = stored.id if stored is not None else next(self.call_ids)
        call = Call(call_id, fn, args, kwargs, task=task, submitted_at=self.clock())
        call.home = self.key
        if stored is not None:
            call.resubmitted_from, call.attempt = stored.resubmitted_from, stored.attempt + 1
        if plugins:
            call.altered, call.plugins = work, plugins
        if origin is not None:
            call.resubmitted_from, call.attempt = origin.id, origin.attempt + 1
        future: Future[Any] = Future(loop=run.loop)
        call.future, future.call = future, call
        recovered = stored is not None
        if are_held_back():
            is_taken = self._take_in(run, call, origin, recovered=recovered)
        else:
            with gently:  # an interrupt comes when the call is wholly in, or out
                is_taken = self._take_in(run, call, origin, recovered=recovered)
        return future if is_taken else None

    def _take_in(self, run: Run, call: Call, origin: Call | None, *, recovered: bool) -> bool:
        """Have plugins and run take a new call; False: it was recovered by somebody else."""
        try:
            if call.plugins:
                tell_accepted(call.plugins, call)
            is_taken = run.traffic.accept(call, recovered=recovered)
        except BaseException:
            release_all(call.plugins, None)
            raise
        if not is_taken:
            release_all(call.plugins, None)
        elif origin is not None:
            origin.repeated_as = call.id
        return is_taken

    @overload
    def resubmit(self, call: Future[R], /, *args: Any, **kwargs: Any) -> Future[R] | None: ...
    @overload
    def resubmit(self, call: Call, /, *args: Any, **kwargs: Any) -> Future[Any] | None: ...
    def resubmit(
        self, call: Call | Future[Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any] | None:
        """Run a call again as a new one that is linked to it.

        Args:
            call: a call or its future, whatever became of it.
            args: with these or `kwargs`, they replace its whole argument list.
            kwargs: see `args`.

        Returns:
            The new call's future; None if a plugin refused.

        Raises:
            SchedulerNotRunningError: no run takes calls now.
            CallNotFoundError: it is a call of another scheduler, or its arguments were too large
                to be kept so long.
        """
        call = self._own(call)
        if not args and not kwargs:
            call.check_arguments()
            args, kwargs = call.args, call.kwargs
        fn = call.task.function if call.task is not None else host.current().latest(call.fn)
        return self.accept(fn, args, kwargs, task=call.task, origin=call)

    def resubmit_failed(self) -> list[Future[Any]]:
        """Resubmit every remembered failure that was not resubmitted before.

        Those whose arguments were too large to be kept so long are left, and the log names them.

        Returns:
            The new futures, without those that a plugin refused.
        """
        failed = self.failed_calls()
        if left := [call.id for call in failed if call.arguments_gone]:
            text = f"calls {', '.join(map(str, left))} have no arguments any more; submit them anew"
            self.log("scheduler", "warning", text)
        again = (self.resubmit(call) for call in failed if not call.arguments_gone)
        return [future for future in again if future is not None]

    def recover(self) -> list[Future[Any]]:
        """Run the calls that the journal has accepted and knows no end of, as they were.

        They keep their ids, and functions and arguments come out of the journal, so nothing need
        be defined again. A call of a task emits the events of the task of the same ref, and asks
        its plugins, if that task is registered by now. What is under way already is left alone.

        Returns:
            Their futures, in order of submission, without those that a plugin refused.

        Raises:
            SchedulerNotRunningError: no run takes calls now.
            JournalError: there is no journal, or it cannot be read.
        """
        if self.journal is None:
            raise JournalError(
                "This scheduler has no journal, so there is nothing to recover. Make it with one, "
                'as in Scheduler.with_processes(2, journal="run.db").'
            )
        self.live_run()
        tasks = {task.ref: task for task in self.tasks}
        found = list(self.journal.unfinished())
        again = (
            self.accept(*stored.work, task=tasks.get(stored.task or ""), stored=stored)
            for stored in found
        )
        return [future for future in again if future is not None]

    def failed_calls(self) -> list[Call]:
        """List the remembered failures that were not repeated since, in the order they failed."""
        return [call for call in self.history.failed() if call.repeated_as is None]

    def cancel(self, call: Call | Future[Any]) -> bool:
        """Take one call back: at once if it is queued, by ending its worker if it runs.

        Returns:
            Whether it ends as cancelled; False: it had ended already.

        Raises:
            CannotEndError: it is running and the backend cannot end a running call.
            CallNotFoundError: it is a call of another scheduler.
        """
        call = self._own(call)
        if call.cancel():
            return True
        if call.state is CallState.RUNNING and self.backend.cannot_end is not None:
            raise CannotEndError(f"Call {call.id} is running: {self.backend.cannot_end}.")
        return False

    def cancel_queued(self, call: Call) -> bool:
        """Cancel a call if it still waits; returns whether it did."""
        return self.last_run is not None and self.last_run.traffic.take_back(call)

    def cancel_pending(self) -> int:
        """Cancel every call that still waits; returns how many."""
        run = self.last_run
        return (
            sum(run.traffic.take_back(call) for call in list(run.traffic.active.values()))
            if run
            else 0
        )

    @overload
    def map(self, fn: Callable[[A], R], one: Iterable[A], /) -> list[Future[R]]: ...
    @overload
    def map(
        self, fn: Callable[[A, B], R], one: Iterable[A], two: Iterable[B], /
    ) -> list[Future[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[A, B, C], R],
        one: Iterable[A],
        two: Iterable[B],
        three: Iterable[C],
        /,
    ) -> list[Future[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[..., R],
        one: Iterable[Any],
        two: Iterable[Any],
        three: Iterable[Any],
        four: Iterable[Any],
        /,
        *more: Iterable[Any],
    ) -> list[Future[R]]: ...
    def map(self, fn: Callable[..., R], /, *iterables: Iterable[Any]) -> list[Future[R]]:
        """Submit once per element of the iterables, as the builtin `map` would call.

        Returns:
            The futures, in order; as many as the shortest iterable has elements.

        Raises:
            SchedulerNotRunningError: before a run and after it.
            TypeError: `fn` cannot be called, or there is no iterable.
        """
        if not callable(fn):
            raise TypeError(f"map({fn!r}): pass the function itself, then the iterables.")
        if not iterables:
            name = getattr(fn, "__name__", fn)
            raise TypeError(f"map({name}): pass at least one iterable of arguments.")
        self.live_run()
        return [self.submit(fn, *args) for args in zip(*iterables, strict=False)]

    @overload
    async def gather(
        self, futures: Iterable[Future[R]], *, return_exceptions: Literal[False] = False
    ) -> list[R]: ...
    @overload
    async def gather(
        self, futures: Iterable[Future[R]], *, return_exceptions: bool
    ) -> list[R | BaseException]: ...
    async def gather(
        self, futures: Iterable[Future[R]], *, return_exceptions: bool = False
    ) -> list[Any]:
        """Wait for all; interrupting the wait leaves the calls alone.

        Args:
            futures: of any calls.
            return_exceptions: whether errors stand among the results instead of being raised.

        Returns:
            The results in the order of the futures.

        Raises:
            TypeError: something among them is no future.
            BaseException: without `return_exceptions`, the first error of a call; the others go on.
        """
        found = futures_in(futures, "gather")
        return await gathered(found, return_exceptions=return_exceptions)

    def as_completed(
        self, futures: Iterable[Future[R]], *, timeout: float | None = None
    ) -> AsCompleted[R]:
        """Iterate over futures as they end: `async for`, or `for` on another thread.

        In a `with scheduler:` block outside of any loop, `for` works on this thread.

        Args:
            futures: of any calls; one that is there twice is yielded once.
            timeout: seconds for all of them together; then TimeoutError is raised.

        Raises:
            TypeError: something among them is no future.
        """
        found = futures_in(futures, "as_completed")
        return AsCompleted(found, timeout=timeout, loop=self._resting_loop())

    def wait(self, future: Future[R], timeout: float | None = None) -> R:
        """Wait on another thread than the loop's for a call to end.

        In a `with scheduler:` block outside of any loop, it works on this thread.

        Args:
            future: of any call.
            timeout: seconds.

        Returns:
            Its result, or raises its error.

        Raises:
            TimeoutError: it took longer.
            RuntimeError: called on the loop's thread, where it would wait for ever.
        """
        return waited(future, timeout, loop=self._resting_loop())

    def _resting_loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the loop of a `with` block on this thread, which turns while it is waited for."""
        loop, run = self._own_loop, self.last_run
        if loop is None or run is None or loop.is_running() or not run.traffic.inbox.on_loop():
            return None
        return loop

    def call_later(
        self, delay: float, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.TimerHandle:
        """Call something on the loop after `delay` seconds, if the run still lives then.

        From any thread. Its errors are treated as a callback's. It does not keep a run alive.

        Raises:
            SchedulerNotRunningError: there is no run.
        """
        return self.live_run().call_later(delay, fn, *args, **kwargs)

    def _own(self, call: Call | Future[Any]) -> Call:
        if isinstance(call, Future):
            call = call.call
        if not isinstance(call, Call):
            raise TypeError(f"{call!r} is neither a Call nor a Future of this scheduler.")
        if call.home is not self.key:
            raise CallNotFoundError(
                f"{call!r} belongs to another scheduler than {self.name!r}: ask the one that it "
                "was submitted to."
            )
        return call
