"""Who has events: emits them and takes registrations."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from amltk_nb.errors import EventNotKnownError, NoRunningLoopError
from amltk_nb.events.callback import is_same, name_of
from amltk_nb.events.channel import (
    Channel,
    EventCounts,
    blame,
    deliver,
    deliver_together,
    emit_site,
)
from amltk_nb.events.event import Event, EventSpec, Key, Takes
from amltk_nb.events.handler import Handler, OptionKeywords, Options
from amltk_nb.events.subscriber import NO_CALLBACK, Subscriber

__all__ = ["Emitter", "EventManager"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Callable[..., Any])


class Emitter:
    """Has events: emits them, and calls what was registered for them, in order of registration.

    With `specs` the names are a closed set and a misspelt one is an error; `Event` objects that
    are new to it are welcome, as events of the user. Without, anything hashable is an event.
    """

    # The engine's hooks; see `emit`.
    on_error: Callable[[BaseException, Handler, Any], None] | None = None
    around: Callable[[Handler], AbstractContextManager[Any]] | None = None
    spawn: Callable[[Coroutine[Any, Any, None], Handler, Any], None] | None = None

    def __init__(self, name: str | None = None, *, specs: Iterable[EventSpec] = ()) -> None:
        """Make an emitter.

        Args:
            name: what error messages call it.
            specs: the events it has; callbacks may take less than their payload.
        """
        self.name = name or type(self).__name__
        self._channels: dict[Hashable, Channel] = {}  # by every spelling
        self._declared: list[Channel] = []
        self._order = itertools.count()
        self._coroutines: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold of them
        self.add_event(*specs)
        self._is_closed = bool(self._declared)

    def add_event(self, *events: Event[...] | EventSpec | Key) -> None:
        """Declare events: of the user's own, or with an `EventSpec` such that may be taken in part.

        Raises:
            TypeError: one cannot be hashed, or a callback needs more than its spec has.
        """
        for event in events:
            spec = event if isinstance(event, EventSpec) else None
            channel = self._find(event.name if isinstance(event, EventSpec) else event)
            if channel is None:
                self._add(event.event if isinstance(event, EventSpec) else event, spec)
            elif spec is not None and channel.spec is None:
                channel.adopt(spec)
                self._spell(channel, spec)

    def _add(self, event: Hashable, spec: EventSpec | None = None) -> Channel:
        if type(event) is str and event:
            event = Event(event)
        channel = Channel(self, event, spec)
        self._channels[event] = channel
        self._declared.append(channel)
        self._spell(channel, spec)
        return channel

    def _spell(self, channel: Channel, spec: EventSpec | None) -> None:
        for alias in spec.aliases if spec is not None else ():
            self._channels.setdefault(alias, channel)

    def _find(self, event: Hashable) -> Channel | None:
        try:
            return self._channels.get(event)
        except TypeError:
            raise TypeError(
                f"An event must be hashable: a name, an Event or a tuple of such; got {event!r}."
            ) from None

    def channel(self, event: Event[...] | Key) -> Channel:
        """Find the channel of an event, which spares the engine a look-up per emission.

        Raises:
            EventNotKnownError: the events are a closed set, and this name is not among them.
            TypeError: it cannot be hashed.
        """
        channel = self._find(event)
        if channel is not None:
            return channel
        if self._is_closed and not isinstance(event, Event):
            raise self._not_known(event)
        return self._add(event)

    def _not_known(self, event: Hashable) -> EventNotKnownError:
        import difflib

        near = difflib.get_close_matches(str(event), [str(key) for key in self._channels], n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        known = ", ".join(str(channel.event) for channel in self._declared)
        return EventNotKnownError(
            f"{self.name} has no event {event!r}.{guess} It has: {known}. "
            f"For an event of your own, pass an Event object: Event({str(event)!r})."
        )

    @overload
    def emit(self, event: Event[P], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def emit(self, event: Key, /, *args: Any, **kwargs: Any) -> None: ...
    def emit(self, event: Any, /, *args: Any, **kwargs: Any) -> None:
        """Count an event and call what is registered for it, now, in order of registration.

        What is registered meanwhile waits for the next emission. If callbacks fail, the others
        still run; then the first error is raised, with the others and the place of this emission
        in its notes. Where `on_error` is set it gets each error at once instead, and decides.
        A KeyboardInterrupt, SystemExit or the like ends the emission. `around` makes a context
        for each callback. A coroutine that a callback
        returns is handed to `spawn`, else it becomes a task of the running loop; what goes wrong
        in it goes to `on_error`.

        Raises:
            EventNotKnownError: the events are a closed set, and this name is not among them.
            NoRunningLoopError: a callback is a coroutine function and no event loop runs.
        """
        try:
            channel = self._channels[event]
        except (KeyError, TypeError):
            channel = self.channel(event)
        channel.count += 1
        if channel.handlers:
            deliver(self, channel.handlers, args, kwargs)

    def emit_together(self, *emissions: tuple[Event[...] | Key | Channel, tuple[Any, ...]]) -> None:
        """Emit several events that tell of one thing, each with its arguments.

        All are counted first; then the callbacks of all run in one common order of registration.

        Raises:
            EventNotKnownError: the events are a closed set, and a name is not among them.
        """
        channels = [
            (event if isinstance(event, Channel) else self.channel(event), args)
            for event, args in emissions
        ]
        self.emit_channels(*channels)

    def emit_channels(self, *emissions: tuple[Channel, tuple[Any, ...]]) -> None:
        """Do what `emit_together` does, with channels found before: the engine's quick way."""
        heard: tuple[Channel, tuple[Any, ...]] | None = None
        several = False
        for emission in emissions:
            channel = emission[0]
            channel.count += 1
            if channel.handlers:
                several = heard is not None
                heard = emission
        if several:
            pairs = [(handler, args) for channel, args in emissions for handler in channel.handlers]
            deliver_together(self, sorted(pairs, key=lambda pair: pair[0].order))
        elif heard is not None:
            deliver(self, heard[0].handlers, heard[1], {})

    @overload
    def on(self, event: Takes[C], callback: C, **options: Unpack[OptionKeywords]) -> C: ...
    @overload
    def on(
        self, event: Event[P], **options: Unpack[OptionKeywords]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    @overload
    def on(self, event: Key, callback: C, **options: Unpack[OptionKeywords]) -> C: ...
    @overload
    def on(self, event: Key, **options: Unpack[OptionKeywords]) -> Callable[[C], C]: ...
    def on(
        self,
        event: Any,
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
        """Register a callback, or make a decorator that does.

        Args:
            event: when to call it.
            callback: what to call.
            name: what to call it in views and for `remove`; its own name if None.
            when: asked before each round, without arguments; a false answer uses nothing up.
            max_calls: rounds after which it is never called again; failed ones count.
            limit: the same as `max_calls`.
            repeat: calls per round; a round counts once.
            every: a round at this emission since registration, and again after as many.
            hidden: leave it out of views.
            replace: False keeps what an earlier execution of this notebook cell registered.

        Returns:
            The callback, so that its name stays bound and decorators can be stacked.

        Raises:
            EventNotKnownError: the events are a closed set, and this name is not among them.
            TypeError: something is not callable, or the callback needs more than the payload.
            ValueError: a number below 1, or `max_calls` together with `limit`.
        """
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
        channel = self.channel(event)
        if callback is NO_CALLBACK:
            return lambda decorated: channel.register(decorated, options)
        return channel.register(callback, options)

    register = on

    @overload
    def subscriber(self, event: Event[P]) -> Subscriber[P]: ...
    @overload
    def subscriber(self, event: Key) -> Subscriber[...]: ...
    def subscriber(self, event: Any) -> Subscriber[...]:
        """Make the handle through which callbacks register for one event.

        Raises:
            EventNotKnownError: the events are a closed set, and this name is not among them.
        """
        return Subscriber(self.channel(event))

    def remove(
        self, callback: str | Callable[..., Any], event: Event[...] | Key | None = None
    ) -> bool:
        """Take back registrations: of this function, or if it has none, of that name.

        Args:
            callback: the function, or a name; all registrations that fit go.
            event: only those for this event.

        Returns:
            Whether there were any.

        Raises:
            EventNotKnownError: the events are a closed set, and this name is not among them.
            TypeError: neither a name nor a function.
        """
        channels = self._declared if event is None else self._known(event)
        if callable(callback):
            function, name = callback, name_of(callback)
            same = [
                channel.remove(lambda handler: is_same(handler.callback, function))
                for channel in channels
            ]
            if any(same):
                return True
        elif isinstance(callback, str):
            name = callback
        else:
            raise TypeError(f"remove({callback!r}): pass the callback or its name.")
        named = [channel.remove(lambda handler: handler.name == name) for channel in channels]
        return any(named)

    def handlers(self, event: Event[...] | Key) -> tuple[Handler, ...]:
        """List what is registered for an event, in the order in which it runs.

        Raises:
            EventNotKnownError: the events are a closed set, and this name is not among them.
        """
        return tuple(handler for channel in self._known(event) for handler in channel.handlers)

    def _known(self, event: Event[...] | Key) -> list[Channel]:
        channel = self._find(event)
        if channel is None and self._is_closed and not isinstance(event, Event):
            raise self._not_known(event)
        return [] if channel is None else [channel]

    @property
    def events(self) -> tuple[Hashable, ...]:
        """The events it knows, in order of declaration."""
        return tuple(channel.event for channel in self._declared)

    @property
    def event_counts(self) -> EventCounts:
        """How often each event was emitted so far."""
        counts = {channel.event: channel.count for channel in self._declared}
        return EventCounts(counts, self._channels.get)

    def _follow(self, coroutine: Coroutine[Any, Any, Any], handler: Handler) -> None:
        awaited = self._awaited(coroutine, handler, emit_site())
        try:
            (self.spawn or self._spawn)(awaited, handler, handler.event)
        except BaseException:
            awaited.close()
            coroutine.close()
            raise

    async def _awaited(
        self, coroutine: Coroutine[Any, Any, Any], handler: Handler, site: str
    ) -> None:
        try:
            with nullcontext() if self.around is None else self.around(handler):
                await coroutine
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            blame(error, handler, site)
            if self.on_error is None:
                raise
            self.on_error(error, handler, handler.event)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], handler: Handler, event: Any) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise NoRunningLoopError(
                f"Callback {handler.name!r} of @{event} is a coroutine function and no event loop "
                "runs here to await it: emit from a coroutine, or register a plain function."
            ) from None
        task = loop.create_task(coroutine, name=handler.source)
        self._coroutines.add(task)
        task.add_done_callback(self._coroutines.discard)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self._declared)} events>"


EventManager = Emitter
