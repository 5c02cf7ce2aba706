"""What the scheduler remembers: ended calls, counts and a log, all bounded."""

from __future__ import annotations

import re
import reprlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.shelf import Shelf
from amltk_nb.scheduling.snapshot import LogRecord
from amltk_nb.scheduling.states import CallState

__all__ = ["BoundedRepr", "History", "args_text", "error_line", "short_repr"]

_LOG_LINES = 500
_LOG_TEXT = 10_000  # characters per entry
_ERROR_TEXT = 300  # characters
_ARGS_TEXT = 120
_PLAIN = (int, float, bool, complex, type(None))


class History:
    """Remembers the last `size` calls that ended; failures are kept apart, so they stay longer."""

    def __init__(self, size: int, *, clock: Callable[[], float]) -> None:
        """Start with nothing.

        Args:
            size: how many ended calls to keep, and as many failed ones besides.
            clock: gives seconds since the epoch.

        Raises:
            ValueError: a negative size.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ValueError(f"history={size!r}: use the number of ended calls to keep, 0 or more.")
        self.counts: Counter[CallState] = Counter()
        self.log_tail: deque[LogRecord] = deque(maxlen=_LOG_LINES)
        self._others = Shelf(size, forget_arguments=_forget_arguments)
        self._failed = Shelf(size, forget_arguments=_forget_arguments)
        self._by_id: dict[int, Call] = {}
        self._clock = clock
        self._log_ids = count(1)

    def add(self, call: Call) -> None:
        """Remember a call that has just ended."""
        self.counts[call.state] += 1
        kept = self._failed if call.state is CallState.FAILED else self._others
        if kept.maxlen == 0:
            return
        gone = kept.put(call)
        if gone is not None:
            del self._by_id[gone.id]
        self._by_id[call.id] = call

    def get(self, call_id: int) -> Call | None:
        """Return a remembered call by its id."""
        return self._by_id.get(call_id)

    def failed(self) -> list[Call]:
        """Return the remembered failures, oldest first."""
        return list(self._failed)

    def latest(self) -> Iterator[Call]:
        """Go through all remembered calls, the one that ended last first."""
        # Two deques in order of ending, merged; copies, because a callback may add meanwhile.
        others, failed = list(self._others), list(self._failed)
        while others and failed:
            newer = others if (others[-1].ended_at or 0) >= (failed[-1].ended_at or 0) else failed
            yield newer.pop()
        yield from reversed(others or failed)

    def __len__(self) -> int:
        return len(self._by_id)

    def log(self, source: str, level: str, text: str) -> None:
        """Add to the log; a very long text keeps its beginning and its end."""
        if len(text) > _LOG_TEXT:
            half = _LOG_TEXT // 2
            text = f"{text[:half]}\n… {len(text) - _LOG_TEXT} characters left out …\n{text[-half:]}"
        self.log_tail.append(
            LogRecord(
                id=next(self._log_ids), at=self._clock(), source=source, level=level, text=text
            )
        )


def short_repr(value: Any, limit: int = 60) -> str:
    """Show a value in at most `limit` characters, whatever its `__repr__` does.

    Args:
        value: anything; containers are shown by their first few items, so that a list of a
            million numbers costs no more than a short one.
        limit: characters.
    """
    try:
        text = repr(value) if type(value) in _PLAIN else _repr(value, limit)
    except BaseException as error:  # a panic of Rust code, say: the call must end all the same
        text = _unshowable(value, error)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def args_text(call: Call) -> str:
    """Show a call's arguments in one short line; made once."""
    if call.args_text is None:
        parts = [short_repr(arg) for arg in call.args[:20]]
        parts += [f"{name}={short_repr(arg)}" for name, arg in list(call.kwargs.items())[:20]]
        text = ", ".join(parts)
        call.args_text = text if len(text) <= _ARGS_TEXT else text[: _ARGS_TEXT - 1] + "…"
    return call.args_text


def _forget_arguments(call: Call) -> None:
    args_text(call)  # which stays
    call.forget_arguments()


def error_line(error: BaseException) -> str:
    """Show an error in one line: "ValueError: bad C", whatever its `__str__` does."""
    try:
        lines = str(error).splitlines()
    except BaseException:
        lines = ["(its message cannot be shown)"]
    text = f"{type(error).__name__}: {lines[0]}" if lines and lines[0] else type(error).__name__
    return text[:_ERROR_TEXT]


class BoundedRepr(reprlib.Repr):
    """A repr that stops once it has made enough text, however wide and deep the value is."""

    def __init__(self, n_characters: int, *, n_items: int) -> None:
        """Set the bounds.

        Args:
            n_characters: of all the text together; a little more for brackets and dots.
            n_items: how many items of each container are looked at.
        """
        super().__init__()
        self._n_left = n_characters
        self.maxstring = self.maxlong = self.maxother = n_characters
        for kind in ("tuple", "list", "dict", "set", "frozenset", "deque", "array"):
            setattr(self, f"max{kind}", n_items)

    def repr1(self, x: Any, level: int) -> str:
        """Show one value, as long as there is room."""
        if self._n_left <= 0:
            return "…"
        text = super().repr1(x, level)
        if not isinstance(x, tuple | list | dict | set | frozenset):  # their items have counted
            self._n_left -= len(text)
        return text

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """Show a dict in its own order; the library's way sorts it, all of it."""
        if x and level <= 0:
            return "{...}"
        items = islice(x.items(), self.maxdict)
        shown = [f"{self.repr1(k, level - 1)}: {self.repr1(v, level - 1)}" for k, v in items]
        return "{" + ", ".join([*shown, "..."] if len(x) > self.maxdict else shown) + "}"


class _Shortener(BoundedRepr):
    """Shows an object inside a container by its type if its own repr fails; without addresses."""

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(x)[: 20 * self.maxother])
        except BaseException as error:
            return _unshowable(x, error)
        return text if len(text) <= self.maxother else text[: self.maxother - 1] + "…"


def _repr(value: Any, limit: int) -> str:
    if type(value) in (str, bytes):
        return repr(value[: limit + 1])
    if hasattr(value, "shape") and hasattr(value, "dtype"):  # arrays: their repr is slow and long
        return f"<{type(value).__name__} {tuple(value.shape)} {value.dtype}>"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    # Items cost microseconds each, and results are shown while calls are waiting to be told of.
    return _Shortener(limit, n_items=max(6, min(40, limit // 10))).repr(value)


def _unshowable(value: Any, error: BaseException) -> str:
    return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
