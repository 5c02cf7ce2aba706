"""A function registered with a scheduler, its events and its plugins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeVar

from amltk_nb import host
from amltk_nb.errors import PluginError, SchedulerNotRunningError
from amltk_nb.events import TASK_EVENTS, Emitter, Event, Subscriber, signature_text
from amltk_nb.scheduling import reading
from amltk_nb.scheduling.batch import Batch as TaskBatch
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.plugins.base import Plugin, as_plugins, claim
from amltk_nb.scheduling.states import CallState

if TYPE_CHECKING:
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.snapshot import TaskRecord
    from amltk_nb.views.form_widget import FormView
    from amltk_nb.views.widget import Dashboard

__all__ = ["Task"]

P = ParamSpec("P")
R = TypeVar("R")


class Task(Emitter, Generic[P, R]):
    """A function to be run by a scheduler, again and again, with events of its own.

    Subclass it to add events: make them class attributes and subscribers of them in `__init__`.
    """

    SUBMITTED: ClassVar[Event[...]] = Event("on_submitted")
    DONE: ClassVar[Event[...]] = Event("on_done")
    RESULT: ClassVar[Event[...]] = Event("on_result")
    RETURNED: ClassVar[Event[...]] = Event("on_returned")
    EXCEPTION: ClassVar[Event[...]] = Event("on_exception")
    CANCELLED: ClassVar[Event[...]] = Event("on_cancelled")
    F_RETURNED: ClassVar[Event[...]] = Event("on_f_returned")
    F_EXCEPTION: ClassVar[Event[...]] = Event("on_f_exception")
    F_CANCELLED: ClassVar[Event[...]] = Event("on_f_cancelled")

    Batch = TaskBatch

    on_submitted: Subscriber[...]
    on_done: Subscriber[...]
    on_result: Subscriber[...]
    on_returned: Subscriber[...]
    on_exception: Subscriber[...]
    on_cancelled: Subscriber[...]
    on_f_returned: Subscriber[...]
    on_f_exception: Subscriber[...]
    on_f_cancelled: Subscriber[...]

    def __init__(
        self,
        function: Callable[P, R],
        scheduler: Scheduler,
        *,
        name: str | None = None,
        plugins: Plugin | Iterable[Plugin] = (),
        late: bool = True,
    ) -> None:
        """Register a function.

        Args:
            function: what to run; a function of a notebook is looked up by its name at every
                submission, so an edited cell takes effect at once.
            scheduler: who runs it.
            name: what to call it; its own name if None.
            plugins: one or several, consulted in this order.
            late: False pins the function as it is now.

        Raises:
            TypeError: the function cannot be called, or the scheduler is none.
            PluginError: a plugin refuses this task.
        """
        if not callable(function):
            raise TypeError(f"Task({function!r}): pass the function itself, without calling it.")
        if not hasattr(scheduler, "register_task"):
            raise TypeError(f"Task(..., {scheduler!r}): pass the Scheduler that shall run it.")
        self.name = name or getattr(function, "__name__", None) or type(function).__name__
        super().__init__(self.name, specs=TASK_EVENTS)
        self.scheduler = scheduler
        self.plugins: list[Plugin] = []
        self._function = function
        # Only a notebook's own functions change; the host need not be asked about others.
        self._late = late and getattr(function, "__module__", None) == "__main__"
        self._signature: tuple[Any, str] | None = None
        self.n_called = 0  # accepted calls and attempts of retried ones, over all runs
        self.counts: Counter[CallState] = Counter()  # of ended calls, over all runs
        self.in_batches: dict[Future[R], TaskBatch[R]] = {}  # calls to be told of to a batch
        for spec in TASK_EVENTS:
            setattr(self, spec.name, self.subscriber(spec.name))
        # Found once: six look-ups per call would cost more than the events themselves.
        self.submitted = self.channel(self.SUBMITTED)
        self._done = self.channel(self.DONE)
        self._result, self._returned, self._f_returned = map(
            self.channel, (self.RESULT, self.RETURNED, self.F_RETURNED)
        )
        self._failures = self.channel(self.EXCEPTION), self.channel(self.F_EXCEPTION)
        self._cancels = self.channel(self.CANCELLED), self.channel(self.F_CANCELLED)
        checked = as_plugins(plugins)
        self.ref = scheduler.register_task(self)
        try:
            for plugin in checked:
                self.attach_plugin(plugin)
        except BaseException:
            scheduler.forget_task(self)
            raise

    @property
    def signature(self) -> str:
        """The function as its author would write it: "collatz(n: int) -> int"."""
        fn = self.function
        if self._signature is None or self._signature[0] is not fn:
            self._signature = (fn, self.name + signature_text(fn))
        return self._signature[1]

    @property
    def function(self) -> Callable[P, R]:
        """The function as it is defined now."""
        return host.current().latest(self._function) if self._late else self._function

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R] | None:
        """Have the function run with these arguments.

        Returns:
            A future of its result; None if a plugin refused.

        Raises:
            SchedulerNotRunningError: the scheduler does not take calls now.
        """
        function = self.function if self._late else self._function
        return self.scheduler.accept(function, args, kwargs, task=self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Future[R] | None:
        """Submit, or return None if the scheduler does not take calls now."""
        try:
            return self.submit(*args, **kwargs)
        except SchedulerNotRunningError:
            return None

    def map(self, *iterables: Iterable[Any]) -> list[Future[R]]:
        """Submit once per element of the iterables, as the builtin `map` would call.

        Returns:
            The futures, in order, without those that a plugin refused.

        Raises:
            SchedulerNotRunningError: the scheduler does not take calls now.
            TypeError: there is no iterable.
        """
        if not iterables:
            raise TypeError("map(): pass at least one iterable of arguments.")
        self.scheduler.live_run()
        futures = (self.submit(*args) for args in zip(*iterables, strict=False))  # type: ignore[call-arg]
        return [future for future in futures if future is not None]

    def batch(
        self, args: Iterable[tuple[Any, ...]], *, cancel_on_failed_submission: bool = True
    ) -> TaskBatch[R]:
        """Make a batch of calls with events for all of them together; see `Batch`.

        Args:
            args: for each call the tuple of its arguments.
            cancel_on_failed_submission: whether a refused submission cancels the whole batch.

        Raises:
            TypeError: an item is no tuple, or does not fit the function.
        """
        return self.Batch(self, args, cancel_on_failed_submission=cancel_on_failed_submission)

    def resubmit(
        self, call: Call | Future[R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R] | None:
        """Run a call again; see `Scheduler.resubmit`."""
        again: Future[R] | None = self.scheduler.resubmit(call, *args, **kwargs)
        return again

    def form(self, /, **overrides: Any) -> FormView:
        """Make a form of its parameters with a Submit button, for a notebook.

        Fields follow the hints and defaults: a checkbox for a bool, numbers, texts, choices for
        `Literal` and enums, and Python values for all else.

        Args:
            overrides: by parameter another default, a range for a slider as in `n=(0, 10)` or
                `(0.0, 1.0, 0.1)`, or options as in `kind=["a", "b"]` or a dict from label to value.

        Raises:
            TypeError: the function has no such parameter.
            ValueError: an override that makes no sense.
        """
        return host.current().form(self, overrides)

    def cancel(self) -> int:
        """Cancel its calls that are still queued; returns how many."""
        return sum(self.scheduler.cancel_queued(call) for call in self.live_calls())

    def futures(self) -> list[Future[R]]:
        """List the futures of calls that have not ended."""
        return [call.future for call in self.live_calls() if call.future is not None]

    @property
    def queue(self) -> list[Future[R]]:
        """The same as `futures()`."""
        return self.futures()

    @property
    def n_running(self) -> int:
        """How many of its calls are queued or running."""
        return self.n_called - self.counts.total()

    def running(self) -> bool:
        """Say whether any of its calls has not ended."""
        return self.n_running > 0

    def attach_plugin(self, plugin: Plugin) -> None:
        """Hang a plugin on this task, behind those that are there.

        Raises:
            PluginError: it is there already, is another scheduler's, or refuses this task;
                nothing is attached then.
        """
        (plugin,) = as_plugins((plugin,))
        if any(plugin is other for other in self.plugins):
            raise PluginError(f"this {plugin.name!r} plugin is attached to {self.ref} already.")
        claim(plugin, self.scheduler)
        plugin.attach_task(self)
        self.add_event(*plugin.events())
        self.plugins.append(plugin)

    def announce(self, event: Event[...], *args: Any, **kwargs: Any) -> None:
        """Emit an event on the loop's thread, whatever thread this is: for plugins."""
        self.scheduler.on_loop(lambda: self.emit(event, *args, **kwargs))

    def live_calls(self) -> list[Call]:
        """List its calls that have not ended."""
        run = self.scheduler.last_run
        active = list(run.traffic.active.values()) if run is not None else []
        return [call for call in active if call.task is self]

    def tell_returned(self, future: Future[R], result: R) -> None:
        """Emit the events of a call that returned; the scheduler's part, as the next two."""
        self._done.emit(future)
        returned, f_returned = self._returned, self._f_returned
        if returned.handlers or f_returned.handlers:
            both = (future, result)
            self.emit_channels((self._result, both), (returned, (result,)), (f_returned, both))
        else:  # the same without lists of what nobody listens to
            returned.count += 1
            f_returned.count += 1
            self._result.emit(future, result)
        if self.in_batches:
            self._tell_batch(future)

    def tell_failed(self, future: Future[R], error: BaseException) -> None:
        """Emit the events of a call that raised."""
        self._done.emit(future)
        self.emit_channels(*((channel, (future, error)) for channel in self._failures))
        self._tell_batch(future)

    def tell_cancelled(self, future: Future[R]) -> None:
        """Emit the events of a call that was cancelled."""
        self.emit_channels(*((channel, (future,)) for channel in self._cancels))
        self._tell_batch(future)

    def _tell_batch(self, future: Future[R]) -> None:
        if (batch := self.in_batches.pop(future, None)) is not None:
            batch.told_end(future)

    def panel(self) -> Dashboard:
        """Make a live view of this task alone: its progress, calls, events and plugins.

        To be displayed as the last line of a cell; see `Shown` for what all views share.
        """
        return host.current().dashboard(self.scheduler, (), task=self.ref)

    def record(self) -> TaskRecord:
        """Record how it stands."""
        return reading.task_record(self)

    def __rich__(self) -> Any:
        return host.current().rich(self)

    def _ipython_display_(self) -> None:
        host.current().show(self)

    def __repr__(self) -> str:
        told = f"{self.n_running} in flight, {self.n_called} called"
        return f"<{type(self).__name__} {self.ref}: {told}>"
