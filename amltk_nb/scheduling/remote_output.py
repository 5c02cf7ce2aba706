"""What a call prints on a worker elsewhere, taken so that it can travel with its answer.

It is sent by value with `remote_call`, so it uses nothing of this package. Such a worker belongs
to its engine, which logs there, may run calls on several threads at once and wants to see its own
last words: so only what goes through Python's `sys.stdout` and `sys.stderr` is taken, and by the
thread that prints. What C code or a child process prints stays in the worker's own log.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["CallOutput", "captured", "lent"]

_HALF_CHARS = 1 << 15  # of one call's beginning and of its end travel; what is between is left out

# Each copy of these functions that arrives at a worker has globals of its own; this name is the
# one place where all of them meet.
_SHARED = "_amltk_nb_outputs"


class CallOutput:
    """What one call has printed, in bounded memory."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._lock = threading.Lock()
        self._head = ""
        self._parts: list[str] = []
        self._n_chars = 0  # in the parts
        self._n_left_out = 0

    def write(self, text: str) -> None:
        """Take a text; from any thread."""
        with self._lock:
            self._parts.append(text)
            self._n_chars += len(text)
            if self._n_chars > 4 * _HALF_CHARS:
                self._shorten()

    def text(self) -> str:
        """Return all of it, or its beginning and end with a note of how much is left out."""
        with self._lock:
            if not self._head and self._n_chars <= 2 * _HALF_CHARS:
                return "".join(self._parts)
            self._shorten()
            note = f"\n… {self._n_left_out:,} characters left out …\n"
            return self._head + (note if self._n_left_out else "") + "".join(self._parts)

    def _shorten(self) -> None:
        text = "".join(self._parts)
        if not self._head:
            self._head, text = text[:_HALF_CHARS], text[_HALF_CHARS:]
        kept = text[-_HALF_CHARS:]
        self._n_left_out += len(text) - len(kept)
        self._parts, self._n_chars = [kept], len(kept)


class _Shared:
    """What all copies of this module in one process know of each other's calls."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.outputs: dict[int, Any] = {}  # by the thread that runs a call

    def of_this_thread(self) -> Any:
        """Find whose output this thread makes; None: nobody's.

        A thread that a call has started is not known. It can be no other's where only one runs.
        """
        found = self.outputs.get(threading.get_ident())
        if found is None and self.outputs:
            there = set(self.outputs.values())
            found = there.pop() if len(there) == 1 else None
        return found


class _Stream:
    """Stands in for `sys.stdout` or `sys.stderr` while calls run."""

    takes_output = True  # so that it is not asked for a descriptor in order to go round it

    def __init__(self, former: Any, shared: Any) -> None:
        self.former = former
        self.shared = shared

    def write(self, text: str) -> int:
        output = self.shared.of_this_thread()
        if output is None:
            return int(self.former.write(text) or 0)
        output.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.former, name)


def _shared() -> Any:
    module = sys.modules.setdefault(_SHARED, ModuleType(_SHARED))
    return module.__dict__.setdefault("shared", _Shared())


@contextmanager
def captured(wanted: bool) -> Iterator[CallOutput]:
    """Take what this thread prints; what other calls print at the same time is theirs.

    Args:
        wanted: if not, it goes where it went, and the output stays empty.
    """
    output = CallOutput()
    if not wanted:
        yield output
        return
    shared, thread = _shared(), threading.get_ident()
    with shared.lock:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and getattr(stream, "shared", None) is not shared:
                setattr(sys, name, _Stream(stream, shared))
        shared.outputs[thread] = output
    try:
        yield output
    finally:
        with shared.lock:
            shared.outputs.pop(thread, None)
            if not shared.outputs:
                _put_back(shared)


def _put_back(shared: Any) -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if getattr(stream, "shared", None) is shared:  # else the call has put its own there
            setattr(sys, name, stream.former)


@contextmanager
def lent(output: CallOutput) -> Iterator[None]:
    """Have this thread print for a call that another one runs, and that waits for it."""
    shared, thread = _shared(), threading.get_ident()
    shared.outputs[thread] = output
    try:
        yield
    finally:
        shared.outputs.pop(thread, None)
