"""One registered callback: its options, its counts, and when it is due."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

from amltk_nb.events.callback import full_text, name_of

__all__ = ["Handler", "OptionKeywords", "Options"]

Callback: TypeAlias = Callable[..., Any]
Follow: TypeAlias = "Callable[[Coroutine[Any, Any, Any], Handler], None]"


class OptionKeywords(TypedDict, total=False):
    """The options of a registration, for type checkers."""

    name: str | None
    when: Callable[[], Any] | None
    max_calls: int | None
    limit: int | None
    repeat: int
    every: int
    hidden: bool
    replace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a registration, checked.

    Raises:
        TypeError: `name` is no string or `when` cannot be called.
        ValueError: a number below 1, or both `max_calls` and its alias `limit`.
    """

    name: str | None = None  # instead of the function's own name
    when: Callable[[], Any] | None = None  # asked before each round
    max_calls: int | None = None  # rounds, after which it is never called again
    limit: int | None = None  # another word for max_calls
    repeat: int = 1  # calls per round
    every: int = 1  # emissions per round
    hidden: bool = False  # not shown in views
    replace: bool = True  # a re-run notebook cell replaces what it registered before

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name={self.name!r}: use a string.")
        if self.when is not None and not callable(self.when):
            raise TypeError(
                f"when={self.when!r}: use a function without arguments that is asked each time, "
                "such as when=lambda: len(results) < 10."
            )
        if self.max_calls is not None and self.limit is not None:
            raise ValueError("max_calls= and limit= are the same option: give only max_calls=.")
        for option in ("max_calls", "limit", "repeat", "every"):
            self._check_count(option)

    def _check_count(self, option: str) -> None:
        value = getattr(self, option)
        if value is None and option in ("max_calls", "limit"):
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{option}={value!r}: use a whole number from 1 on.")

    @property
    def most_calls(self) -> int | None:
        """How many rounds there may be, under either name."""
        return self.limit if self.max_calls is None else self.max_calls


class Handler:
    """A callback registered for one event, with its options and its counts. Read it only."""

    __slots__ = (
        "_text",
        "call",
        "callback",
        "cell",
        "context",
        "event",
        "every",
        "hidden",
        "is_plain",
        "is_removed",
        "key",
        "max_calls",
        "n_calls",
        "n_emissions",
        "n_errors",
        "name",
        "order",
        "repeat",
        "source",
        "when",
    )

    _text: str

    def __init__(
        self, event: Hashable, callback: Callback, options: Options, *, cell: str | None = None
    ) -> None:
        """Make a handler that nobody calls yet.

        Args:
            event: what it will be called for.
            callback: what is called.
            options: when it is called, and how it is shown.
            cell: the label of the notebook cell it comes from.
        """
        self.event = event
        self.callback = callback
        self.call = callback  # what is really called: fitted to the payload
        self.name = options.name or name_of(callback)
        self.source = f"{event} · {self.name}"
        self.when = options.when
        self.max_calls = options.most_calls
        self.repeat = options.repeat
        self.every = options.every
        self.hidden = options.hidden
        self.cell = cell
        # What its cell set, such as where prints go; kept in notebooks only.
        self.context: Context | None = copy_context() if cell is not None else None
        self.key: tuple[str, str, int] | None = None  # who may replace it; None: nobody
        self.order = 0  # its place among all handlers of its emitter
        self.n_calls = 0  # rounds; one of repeat=3 counts once
        self.n_errors = 0
        self.n_emissions = 0  # since registration; not kept while is_plain
        self.is_removed = False
        options_used = (self.when, self.max_calls, self.repeat, self.every)
        self.is_plain = options_used == (None, None, 1, 1)

    @property
    def text(self) -> str:
        """How its author wrote it: "def record(result: int) -> None"; made at the first look."""
        try:
            return self._text
        except AttributeError:
            self._text = full_text(self.callback)
            return self._text

    def remove(self) -> None:
        """Never run it again, not even in an emission that is under way."""
        self.is_removed, self.is_plain = True, False

    def is_due(self) -> bool:
        """Count one emission and decide about a round: first `every`, then `when`, then the limit.

        Raises:
            BaseException: whatever `when` raised.
        """
        self.n_emissions += 1
        if self.is_removed or self.n_emissions % self.every:
            return False
        if self.when is not None and not self.when():
            return False
        return self.max_calls is None or self.n_calls < self.max_calls

    def run_round(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        around: Callable[[Handler], AbstractContextManager[Any]] | None,
        follow: Follow,
    ) -> None:
        """Call it `repeat` times; an error ends the round.

        Args:
            args: what was emitted.
            kwargs: the same.
            around: makes the context for the round.
            follow: sees to it that a coroutine is awaited.
        """
        self.n_calls += 1  # before the call: a round that fails is used up
        if around is None:
            self._call_repeatedly(args, kwargs, follow)
        else:
            with around(self):
                self._call_repeatedly(args, kwargs, follow)

    def _call_repeatedly(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], follow: Follow
    ) -> None:
        for _ in range(self.repeat):
            result = self.call(*args, **kwargs)
            if result is not None and isinstance(result, Coroutine):
                follow(result, self)

    def __repr__(self) -> str:
        return f"<Handler {self.source}>"
