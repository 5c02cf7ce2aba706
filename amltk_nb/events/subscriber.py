"""The handle through which callbacks register for one event: `scheduler.on_start`."""

from __future__ import annotations

from collections.abc import Callable
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, Unpack, overload

from amltk_nb.events.channel import Channel
from amltk_nb.events.event import typed
from amltk_nb.events.handler import OptionKeywords, Options

if TYPE_CHECKING:
    from amltk_nb.events.emitter import Emitter

__all__ = ["NO_CALLBACK", "Subscriber"]

P = ParamSpec("P")
R = TypeVar("R")

NO_CALLBACK: Final[Any] = object()  # None is what a decorator that forgot its `return` leaves


class Subscriber(Generic[P]):
    """One event of one emitter, to register for: as a decorator, with options or without."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        """Make one; `Emitter.subscriber` does it."""
        self._channel = channel

    def __class_getitem__(cls, parameters: Any) -> GenericAlias:
        """Accept the same spellings as `Event`."""
        return typed(cls, parameters)

    @property
    def emitter(self) -> Emitter:
        """Whose event it is."""
        return self._channel.emitter

    @property
    def event(self) -> Any:
        """The event."""
        return self._channel.event

    @property
    def event_counts(self) -> int:
        """How often the event was emitted so far."""
        return self._channel.count

    @overload
    def __call__(
        self, callback: Callable[P, R], **options: Unpack[OptionKeywords]
    ) -> Callable[P, R]: ...
    @overload
    def __call__(
        self, **options: Unpack[OptionKeywords]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def __call__(
        self,
        callback: Any = NO_CALLBACK,
        *,
        name: str | None = None,
        when: Callable[[], Any] | None = None,
        max_calls: int | None = None,
        limit: int | None = None,
        repeat: int = 1,
        every: int = 1,
        hidden: bool = False,
        replace: bool = True,
    ) -> Any:
        """Register a callback, or make a decorator that does; for the options see `Emitter.on`."""
        options = Options(
            name=name,
            when=when,
            max_calls=max_calls,
            limit=limit,
            repeat=repeat,
            every=every,
            hidden=hidden,
            replace=replace,
        )
        if callback is NO_CALLBACK:
            return lambda decorated: self._channel.register(decorated, options)
        return self._channel.register(callback, options)

    register = __call__

    def emit(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Emit the event; see `Emitter.emit`."""
        self._channel.emit(*args, **kwargs)

    def remove(self, callback: str | Callable[..., Any]) -> bool:
        """Take back registrations for this event; see `Emitter.remove`."""
        return self.emitter.remove(callback, self.event)

    def __repr__(self) -> str:
        return f"<Subscriber of @{self.event} of {self.emitter.name}>"
