"""The hooks around a submission, and the chain that unwinds them.

Every `pre_submit` that accepted is answered by exactly one `release`: at once and in reverse order
when a later plugin refuses or something fails, else when the call has ended. So whatever a plugin
takes in `pre_submit` it can give back, whatever happens between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from weakref import ReferenceType, ref

from amltk_nb import host
from amltk_nb.errors import PluginError
from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.call import Call

if TYPE_CHECKING:
    from amltk_nb.host import Cell
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.task import Task

__all__ = [
    "HIDDEN",
    "Plugin",
    "Submission",
    "admit",
    "as_plugins",
    "claim",
    "hear_out",
    "received",
    "release_all",
    "retry_delay",
    "tell_accepted",
    "tell_retried",
    "without_hidden",
]

HIDDEN = "_amltk_nb_"  # how keywords begin that are between a plugin and its wrapper
Submission: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Plugin:
    """Adds something to a task: subclass it and override what is needed."""

    name: ClassVar[str] = "plugin"  # shown in the views
    _owner: ReferenceType[Scheduler] | None = None
    _owner_cell: Cell | None = None  # where it was attached first

    def attach_task(self, task: Task[..., Any]) -> None:
        """Be told of the task; raise `PluginError` to refuse it."""

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """See a submission before it is made.

        Returns:
            The function and arguments to use, changed or not; None refuses the submission.
        """
        return fn, args, kwargs

    def accepted(self, call: Call) -> None:
        """Be told of the call that became of a submission, before it can start; on any thread.

        What the call needs to know of itself goes here into `call.altered`; a keyword that is to
        be shown to nobody begins with `HIDDEN`.
        """

    def hear_out(self, call: Call) -> None:
        """Take in what a call that has just ended said while it ran, on the loop's thread.

        Its end is booked and told after this; with `Run.traffic.lines` a call can talk.
        """

    def received(self, call: Call, value: Any) -> Any:
        """See what a call returned before anybody else does, on the loop's thread.

        Returns:
            What shall be the result: the value, or what it held if `pre_submit` put a function in
            place that wraps it.
        """
        return value

    def retry_after(self, call: Call, error: BaseException) -> float | None:
        """Be asked whether a call that has run and failed shall run again, on the loop's thread.

        Returns:
            After how many seconds; None leaves the error as it is. The first plugin that wants it
            again decides.
        """
        return None

    def retried(self, former: Call, call: Call) -> None:
        """Be told that a new call takes the place of a failed one, for the same future.

        What `pre_submit` took stays taken: `release` comes once, with the last of the calls. A
        plugin that remembers calls by their ids learns the new one here; on the loop's thread.
        """

    def release(self, call: Call | None) -> None:
        """Give back what `pre_submit` took.

        Args:
            call: the call that has ended, its state says how; None when it was never made.
        """

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Name the events it adds to a task."""
        return ()

    def state(self) -> Mapping[str, Any]:
        """Say how it stands, in a few plain values: what every view shows of it."""
        return {}


def as_plugins(plugins: Plugin | Iterable[Plugin]) -> list[Plugin]:
    """Accept one plugin or several.

    Raises:
        PluginError: something that is no plugin.
    """
    given = [plugins] if isinstance(plugins, Plugin) else list(plugins)
    for plugin in given:
        if not isinstance(plugin, Plugin):
            raise PluginError(f"{plugin!r} is not a Plugin; pass an instance of a Plugin subclass.")
    return given


def claim(plugin: Plugin, scheduler: Scheduler) -> None:
    """Make a plugin this scheduler's; a notebook cell that runs again takes its plugins over.

    Raises:
        PluginError: it is another scheduler's.
    """
    cell, former_cell = host.current().cell(), plugin._owner_cell
    owner = plugin._owner() if plugin._owner is not None else None
    is_rerun = cell is not None and former_cell is not None and cell.id == former_cell.id
    if owner is not None and owner is not scheduler and not is_rerun:
        raise PluginError(
            f"this {plugin.name!r} plugin belongs to the scheduler {owner.name!r} already, and its "
            "counts and events cannot serve two; make another one."
        )
    if owner is not scheduler:
        plugin._owner, plugin._owner_cell = ref(scheduler), cell


def admit(plugins: Sequence[Plugin], submission: Submission) -> Submission | None:
    """Take a submission through the plugins, in order.

    Returns:
        What to submit, or None if one refused; then all is released again.

    Raises:
        PluginError: a hook raised or returned something else; all is released again.
    """
    for n, plugin in enumerate(plugins):
        fn, args, kwargs = submission
        try:
            answer = plugin.pre_submit(fn, *args, **kwargs)
            if answer is not None:
                submission = _checked(answer)
        except PluginError:  # it says itself what is wrong
            release_all(plugins[:n], None)
            raise
        except Exception as error:
            release_all(plugins[:n], None)
            raise PluginError(
                f"the plugin {plugin.name!r} failed before the submission of "
                f"{getattr(fn, '__name__', fn)!r}: {type(error).__name__}: {error}. "
                "Nothing was submitted; mend its pre_submit()."
            ) from error
        if answer is None:
            release_all(plugins[:n], None)
            return None
    return submission


def tell_accepted(plugins: Sequence[Plugin], call: Call) -> None:
    """Tell all of them about the call.

    Raises:
        PluginError: a hook raised.
    """
    for plugin in plugins:
        try:
            plugin.accepted(call)
        except Exception as error:
            raise PluginError(
                f"the plugin {plugin.name!r} failed when told of call {call.id} of "
                f"{call.describe()!r}: {type(error).__name__}: {error}. "
                "Nothing was submitted; mend its accepted()."
            ) from error


def hear_out(plugins: Sequence[Plugin], call: Call) -> list[Exception]:
    """Have all of them take in what a call said; returns what the hooks raised."""
    errors: list[Exception] = []
    for plugin in plugins:
        try:
            plugin.hear_out(call)
        except Exception as error:
            errors.append(error)
    return errors


def without_hidden(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Leave out keywords by which plugins talk with their own wrappers in the worker."""
    return {name: value for name, value in kwargs.items() if not name.startswith(HIDDEN)}


def received(plugins: Sequence[Plugin], call: Call, value: Any) -> Any:
    """Have all of them see what a call returned, the last one first: it wraps the others.

    Raises:
        PluginError: a hook raised.
    """
    for plugin in reversed(plugins):
        try:
            value = plugin.received(call, value)
        except Exception as error:
            raise PluginError(
                f"the plugin {plugin.name!r} failed at the result of call {call.id} of "
                f"{call.describe()!r}: {type(error).__name__}: {error}. "
                "The result is lost; mend its received()."
            ) from error
    return value


def retry_delay(plugins: Sequence[Plugin], call: Call, error: BaseException) -> float | None:
    """Ask them whether a failed call shall run again.

    Returns:
        After how many seconds, 0 or more; None: not at all.

    Raises:
        PluginError: a hook raised or returned something else.
    """
    for plugin in plugins:
        try:
            delay_s = plugin.retry_after(call, error)
            if delay_s is not None:
                return _checked_delay(delay_s)
        except Exception as failure:
            raise PluginError(
                f"the plugin {plugin.name!r} failed to say whether call {call.id} of "
                f"{call.describe()!r} is tried again: {type(failure).__name__}: {failure}. "
                "It is not; mend its retry_after()."
            ) from failure
    return None


def tell_retried(plugins: Sequence[Plugin], former: Call, call: Call) -> list[Exception]:
    """Tell all of them of the call that takes another one's place; returns what hooks raised."""
    errors: list[Exception] = []
    for plugin in plugins:
        try:
            plugin.retried(former, call)
        except Exception as error:
            errors.append(error)
    return errors


def release_all(plugins: Sequence[Plugin], call: Call | None) -> list[Exception]:
    """Release in reverse order, all of them; returns what the hooks raised."""
    errors: list[Exception] = []
    for plugin in reversed(plugins):
        try:
            plugin.release(call)
        except Exception as error:
            errors.append(error)
    return errors


def _checked(answer: object) -> Submission:
    match answer:
        case (fn, tuple() as args, dict() as kwargs) if callable(fn):
            return fn, args, kwargs
    raise TypeError(f"pre_submit() returned {answer!r}; return (fn, args, kwargs) or None")


def _checked_delay(delay_s: object) -> float:
    if isinstance(delay_s, (int, float)) and not isinstance(delay_s, bool) and 0 <= delay_s < inf:
        return float(delay_s)
    raise TypeError(f"retry_after() returned {delay_s!r}; return seconds, 0 or more, or None")
