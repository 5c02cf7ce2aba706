"""What an event is, and the tables of those that this package has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import GenericAlias
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
)

__all__ = [
    "BATCH_EVENTS",
    "LIMITER_EVENTS",
    "SCHEDULER_EVENTS",
    "TASK_EVENTS",
    "Event",
    "EventSpec",
    "Key",
    "Takes",
    "typed",
]

P = ParamSpec("P")
C_contra = TypeVar("C_contra", contravariant=True)

# At run time an Event is a str, so that both are one key everywhere, at the speed of a str. The
# type checker is not told: the overloads for plain names would accept any callback for any Event.
if TYPE_CHECKING:
    _Name: TypeAlias = object
else:
    _Name = str


def typed(cls: type, parameters: Any) -> GenericAlias:
    """Make `cls[parameters]`, whatever the number of parameters."""
    many = parameters if isinstance(parameters, tuple) else (parameters,)
    # lists are not hashable, and an alias must be to stand in a union
    return GenericAlias(cls, tuple(tuple(p) if isinstance(p, list) else p for p in many))


class Event(_Name, Generic[P]):
    """The name of an event, typed by what its callbacks are passed: `Event[int, str]`.

    Equal to the plain string and interchangeable with it.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> Event[P]:
        """Make an event.

        Args:
            name: what it is called, not empty.

        Raises:
            TypeError: the name is no string, or an empty one.
        """
        if not isinstance(name, str) or not name:
            raise TypeError(f"An event needs a name, as in Event('user-joined'); got {name!r}.")
        return super().__new__(cls, name)  # type: ignore[call-arg]

    def __class_getitem__(cls, parameters: Any) -> GenericAlias:
        """Accept `Event[X]`, `Event[X, Y]`, `Event[...]` and `Event[[X, Y], R]` alike."""
        return typed(cls, parameters)

    if TYPE_CHECKING:  # what a callback must take, in the form that type checkers compare

        def _takes(self, callback: Callable[P, Any], /) -> None: ...

    @property
    def name(self) -> str:
        """The plain string."""
        return str(self)

    def __repr__(self) -> str:
        return f"Event({str(self)!r})"


@dataclass(frozen=True, slots=True)
class EventSpec:
    """An event of the package or of a plugin: how it is called and what it carries."""

    constant: str  # the class attribute that holds the Event: "RESULT"
    name: str  # as shown after the @: "on_result"
    payload: str = "()"  # what callbacks may take: "(future, result)"
    aliases: tuple[str, ...] = ()
    keep: Literal["first", "last"] = "last"  # which end is passed to callbacks that take fewer
    is_rare: bool = False  # not shown in the views before it is emitted or has callbacks

    def __post_init__(self) -> None:
        if not (self.payload.startswith("(") and self.payload.endswith(")")):
            raise ValueError(f"payload is written like '(future, result)'; got {self.payload!r}.")
        if self.keep not in ("first", "last"):
            raise ValueError(f"keep is 'first' or 'last'; got {self.keep!r}.")

    @property
    def event(self) -> Event[...]:
        """The event of that name."""
        return Event(self.name)

    @property
    def n_fixed(self) -> int:
        """How many positional arguments every emission has."""
        names = self.payload[1:-1].split(", ")
        return sum(bool(name) and not name.startswith("*") for name in names)

    @property
    def is_open(self) -> bool:
        """Whether an emission may carry any further arguments."""
        return "*" in self.payload


def _spec(
    constant: str,
    name: str,
    payload: str,
    *older: str,
    keep: Literal["first", "last"] = "last",
    is_rare: bool = False,
) -> EventSpec:
    short = name.removeprefix("on_")
    spelled = (name.replace("_", "-"), name.replace("-", "_"), short, short.replace("_", "-"))
    aliases = tuple(dict.fromkeys(alias for alias in (*spelled, *older) if alias != name))
    return EventSpec(constant, name, payload, aliases, keep, is_rare)


SCHEDULER_EVENTS: Final = (
    _spec("STARTED", "on_start", "()", "scheduler-started"),
    _spec("FINISHING", "on_finishing", "()", "scheduler-finishing"),
    _spec("FINISHED", "on_finished", "()", "scheduler-finished"),
    _spec("STOP", "on_stop", "(message, error)", "scheduler-stop", keep="first"),
    _spec("TIMEOUT", "on_timeout", "()", "scheduler-timeout"),
    _spec("EMPTY", "on_empty", "()", "scheduler-empty"),
    _spec("FUTURE_SUBMITTED", "on_future_submitted", "(future)", "scheduler-future-submitted"),
    _spec("FUTURE_DONE", "on_future_done", "(future)", "scheduler-future-done"),
    _spec("FUTURE_CANCELLED", "on_future_cancelled", "(future)", "scheduler-future-cancelled"),
    _spec("FUTURE_EXCEPTION", "on_future_exception", "(future, exception)"),
    _spec("FUTURE_RESULT", "on_future_result", "(future, result)"),
    _spec("NO_WORKERS", "on_no_workers", "(seconds)", is_rare=True),
)
TASK_EVENTS: Final = (
    _spec("SUBMITTED", "on_submitted", "(future, *args, **kwargs)", "task-submitted", keep="first"),
    _spec("DONE", "on_done", "(future)", "task-done"),
    _spec("RESULT", "on_result", "(future, result)"),
    _spec("RETURNED", "on_returned", "(result)", "task-returned"),
    _spec("EXCEPTION", "on_exception", "(future, exception)", "task-exception"),
    _spec("CANCELLED", "on_cancelled", "(future)", "task-cancelled"),
    _spec("F_RETURNED", "on_f_returned", "(future, result)", "task-future-returned"),
    _spec("F_EXCEPTION", "on_f_exception", "(future, exception)", "task-future-exception"),
    _spec("F_CANCELLED", "on_f_cancelled", "(future)", "task-future-cancelled"),
)
BATCH_EVENTS: Final = (
    _spec("BATCH_SUBMITTED", "on_batch_submitted", "(batch, futures)"),
    _spec("BATCH_DONE", "on_batch_done", "(batch, results, exceptions, cancelled)"),
    _spec("BATCH_RETURNED", "on_batch_returned", "(batch, results)"),
    _spec("BATCH_FAILED", "on_batch_failed", "(batch)"),
    _spec("BATCH_CANCELLED", "on_batch_cancelled", "(batch)"),
    _spec("ANY_SUBMITTED", "on_any_submitted", "(batch, future)"),
    _spec("ANY_DONE", "on_any_done", "(batch, future)"),
    _spec("ANY_RETURNED", "on_any_returned", "(batch, result)"),
    _spec("ANY_EXCEPTION", "on_any_exception", "(batch, exception)"),
    _spec("ANY_CANCELLED", "on_any_cancelled", "(batch, future)"),
)
LIMITER_EVENTS: Final = (
    _spec("CALL_LIMIT_REACHED", "call-limit-reached", "(task, *args, **kwargs)"),
    _spec("CONCURRENT_LIMIT_REACHED", "concurrent-limit-reached", "(task, *args, **kwargs)"),
    _spec(
        "DISABLED_DUE_TO_RUNNING_TASK", "disabled-due-to-running-task", "(task, *args, **kwargs)"
    ),
)


# What may stand for an event besides an Event; the type checker knows no "hashable but no Event".
Key: TypeAlias = str | int | float | bytes | tuple[Any, ...] | frozenset[Any] | Enum


class Takes(Protocol[C_contra]):
    """An Event to a type checker; with `Event[P]` instead, mypy overlooks misfits."""

    def _takes(self, callback: C_contra, /) -> None: ...
