"""Where the prints of callbacks go while a run is in the background: to the dashboard's log.

A proxy stands in for `sys.stdout` and `sys.stderr` while such runs live. It looks into a context
variable: set around a callback (and in the coroutines it starts), what is written goes to that
run's log; unset, as in every cell, it goes on as always. So prints of cells are never caught.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, TextIO

__all__ = ["as_in", "captured", "install", "uninstall"]


class _Lines:
    """Collects what one callback writes and hands it on when the callback is over."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._parts: list[str] = []
        self.over = False  # a coroutine goes on printing when the callback is over

    def write(self, text: str) -> None:
        self._parts.append(text)
        if self.over and text.endswith("\n"):
            self.flush()

    def flush(self) -> None:
        text, self._parts = "".join(self._parts), []
        if text.strip():
            self._tell(text.rstrip("\n"))


_sink: ContextVar[_Lines | None] = ContextVar("amltk_nb_sink", default=None)


class _Proxy:
    """Stands in for one of the standard streams."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        sink = _sink.get()
        if sink is None:
            return self._stream.write(text)
        sink.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def install() -> None:
    """Put the proxies in place; again does nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Proxy):
            setattr(sys, name, _Proxy(stream))


def uninstall() -> None:
    """Put the streams back, if nobody has put others over the proxies meanwhile."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Proxy):
            setattr(sys, name, stream._stream)


@contextmanager
def captured(tell: Callable[[str], None]) -> Iterator[None]:
    """Have what is printed inside given to `tell`, a text per callback."""
    lines = _Lines(tell)
    token = _sink.set(lines)
    try:
        yield
    finally:
        _sink.reset(token)
        lines.over = True
        lines.flush()


@contextmanager
def as_in(context: Context | None) -> Iterator[None]:
    """Have context variables as they were in another context.

    Kernels keep in them which cell prints belong to. `Context.run` would do the same but cannot
    be entered twice, as a callback that emits its own event does.
    """
    before = [(var, var.set(value)) for var, value in (context or {}).items()]
    try:
        yield
    finally:
        for var, token in reversed(before):
            var.reset(token)
