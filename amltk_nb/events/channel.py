"""One event of one emitter: who registered for it, and how an emission reaches them."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amltk_nb import host
from amltk_nb.events.callback import fitted, qualified_name
from amltk_nb.events.event import EventSpec
from amltk_nb.events.handler import Handler, Options

if TYPE_CHECKING:
    from amltk_nb.events.emitter import Emitter

__all__ = ["Channel", "EventCounts", "blame", "deliver", "deliver_together", "emit_site"]

C = TypeVar("C", bound=Callable[..., Any])


class Channel:
    """One event of one emitter: its count and its handlers. `emit` is the quick way to emit."""

    __slots__ = ("_latest", "count", "emitter", "event", "handlers", "spec")

    def __init__(self, emitter: Emitter, event: Hashable, spec: EventSpec | None = None) -> None:
        """Make a channel without handlers; `Emitter.channel` finds the one of an event.

        Args:
            emitter: whose hooks apply.
            event: what it carries.
            spec: if given, callbacks may take less than the payload.
        """
        self.emitter = emitter
        self.event = event
        self.spec = spec
        self.count = 0  # emissions so far
        self.handlers: tuple[Handler, ...] = ()  # a new tuple per change: an emission keeps its own
        # (cell, qualified name) -> the execution that registered last, and how often it did
        self._latest: dict[tuple[str, str], tuple[int, int]] = {}

    def emit(self, /, *args: Any, **kwargs: Any) -> None:
        """Count the event and call everything registered for it; see `Emitter.emit`."""
        self.count += 1
        if self.handlers:
            deliver(self.emitter, self.handlers, args, kwargs)

    def register(self, callback: C, options: Options) -> C:
        """Add a callback behind the others, or where a re-run cell had it before.

        Raises:
            TypeError: it cannot be called, or needs more than the event's payload.
        """
        if not callable(callback):
            raise TypeError(
                f"A callback of @{self.event} must be callable, got {callback!r}: pass the "
                "function itself; a decorator below this one must return the function."
            )
        cell = host.current().cell()
        handler = Handler(self.event, callback, options, cell=cell.label if cell else None)
        if self.spec is not None:
            handler.call = fitted(callback, self.spec)
        if cell is not None and options.replace:
            self._sign(handler, cell)
        self._place(handler)
        return callback

    def _sign(self, handler: Handler, cell: host.Cell) -> None:
        name = (cell.id, qualified_name(handler.callback))
        execution, n = self._latest.get(name, (cell.execution, 0))
        if cell.execution < execution:
            return  # left running by an execution that was repeated since: it replaces nothing
        n = n + 1 if execution == cell.execution else 1
        self._latest[name] = (cell.execution, n)
        handler.key = (*name, n)

    def _place(self, handler: Handler) -> None:
        if handler.key is not None:
            for i, former in enumerate(self.handlers):
                if former.key == handler.key:  # of an earlier execution: n sets those of one apart
                    former.remove()
                    handler.order = former.order
                    self.handlers = (*self.handlers[:i], handler, *self.handlers[i + 1 :])
                    return
        handler.order = next(self.emitter._order)
        self.handlers = (*self.handlers, handler)

    def remove(self, is_meant: Callable[[Handler], bool]) -> bool:
        """Take out every handler that is meant; returns whether there was one."""
        out = [handler for handler in self.handlers if is_meant(handler)]
        for handler in out:
            handler.remove()
        self.handlers = tuple(handler for handler in self.handlers if not handler.is_removed)
        return bool(out)

    def adopt(self, spec: EventSpec) -> None:
        """Learn the payload, for callbacks that came before it as well."""
        calls = [fitted(handler.callback, spec) for handler in self.handlers]
        self.spec = spec
        for handler, call in zip(self.handlers, calls, strict=True):
            handler.call = call

    def __repr__(self) -> str:
        return f"<Channel @{self.event} of {self.emitter.name}>"


def deliver(
    emitter: Emitter, handlers: Iterable[Handler], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Call handlers in order; one that fails does not keep the others from running."""
    around = emitter.around
    failures: list[BaseException] | None = None
    for handler in handlers:
        try:
            if handler.is_plain and around is None:  # the same as below, in a third of the time
                handler.n_calls += 1
                result = handler.call(*args, **kwargs) if kwargs else handler.call(*args)
                if result is not None and isinstance(result, Coroutine):
                    emitter._follow(result, handler)
            elif handler.is_due():
                handler.run_round(args, kwargs, around, emitter._follow)
        except BaseException as error:
            failures = failures or []
            if not _goes_on_after(error, handler, emitter, failures):
                break
    if failures:
        _raise_together(failures)


def deliver_together(emitter: Emitter, pairs: Iterable[tuple[Handler, tuple[Any, ...]]]) -> None:
    """Call handlers in order, each with its own arguments; the same rules."""
    failures: list[BaseException] = []
    for handler, args in pairs:
        try:
            if handler.is_due():
                handler.run_round(args, {}, emitter.around, emitter._follow)
        except BaseException as error:
            if not _goes_on_after(error, handler, emitter, failures):
                break
    if failures:
        _raise_together(failures)


def _goes_on_after(
    error: BaseException, handler: Handler, emitter: Emitter, failures: list[BaseException]
) -> bool:
    blame(error, handler, emit_site())
    # A cancelled future that a callback asks for its result is an error like any other.
    goes_on = isinstance(error, Exception | asyncio.CancelledError)
    if emitter.on_error is not None:
        emitter.on_error(error, handler, handler.event)
    else:
        failures.insert(len(failures) if goes_on else 0, error)  # the first one will be raised
    return goes_on


def _raise_together(failures: list[BaseException]) -> None:
    import traceback

    first, *others = failures
    for error in others:
        if error is not first:
            text = "".join(traceback.format_exception(error)).rstrip()
            first.add_note(f"Another callback failed in the same emission:\n{text}")
    try:
        raise first
    finally:
        del failures, first, others  # else the traceback keeps itself alive


def blame(error: BaseException, handler: Handler, site: str) -> None:
    """Note in an error whose callback failed, and where its event was emitted."""
    handler.n_errors += 1
    note = f"In callback {handler.name!r} of @{handler.event}, emitted at {site}."
    if note not in getattr(error, "__notes__", ()):  # one error may be raised over and over
        error.add_note(note)


_OURS: Final = __name__.rpartition(".")[0]


def emit_site() -> str:
    """Find the line that emitted: the innermost one outside of this machinery."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").startswith(_OURS) and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


class EventCounts(Counter[Hashable]):
    """How often each event was emitted, by event; other spellings of an event find it too."""

    def __init__(
        self,
        counts: Mapping[Hashable, int] | Iterable[Hashable] = (),
        find: Callable[[Hashable], Channel | None] | None = None,
    ) -> None:
        """Make a counter.

        Args:
            counts: as for a Counter.
            find: knows the other spellings; a copy does without.
        """
        super().__init__(counts)
        self._find = find

    def __missing__(self, event: Hashable) -> int:
        channel = None if self._find is None else self._find(event)
        return 0 if channel is None else self.get(channel.event, 0)

    def __reduce__(self) -> tuple[type[Counter[Hashable]], tuple[dict[Hashable, int]]]:
        return (Counter, (dict(self),))  # a pickle must not take the emitter along
