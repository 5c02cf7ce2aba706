"""The hooks around a submission, and the chain that unwinds them.

Every `pre_submit` that accepted is answered by exactly one `release`: at once and in reverse order
when a later plugin refuses or something fails, else when the call has ended. So whatever a plugin
takes in `pre_submit` it can give back, whatever happens between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from amltk_nb.errors import PluginError
from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.call import Call

if TYPE_CHECKING:
    from amltk_nb.scheduling.task import Task

__all__ = ["Plugin", "Submission", "admit", "as_plugins", "release_all"]

Submission: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Plugin:
    """Adds something to a task: subclass it and override what is needed."""

    name: ClassVar[str] = "plugin"  # shown in the views

    def attach_task(self, task: Task[..., Any]) -> None:
        """Be told of the task; raise `PluginError` to refuse it."""

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """See a submission before it is made.

        Returns:
            The function and arguments to use, changed or not; None refuses the submission.
        """
        return fn, args, kwargs

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
