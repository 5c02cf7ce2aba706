"""The last ended calls of one kind: so many, and no more than so much memory.

What weighs is let go of before the calls themselves, oldest first: arguments (by which a call can
be run again), printed text, and the frames that errors of threads hold on to.
"""

from __future__ import annotations

import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from amltk_nb.scheduling.call import Call

__all__ = ["Shelf"]

_MOST_ARGUMENT_BYTES = 256_000_000
_MOST_OUTPUT_CHARACTERS = 64_000_000
_MOST_FRAMED = 3  # failures whose frames stay as they were, for a debugger
_LIGHT = 1 << 10  # bytes, or characters: 10 000 calls with less of it are not worth counting
_MOST_ITEMS = 1_000  # of a container that is looked into
_ITEM_BYTES = 32  # a guess for each item of a larger one

_PLAIN = frozenset({int, float, bool, complex, type(None)})
_TEXTS = (str, bytes, bytearray)
_CONTAINERS = (tuple, list, set, frozenset)

Weights = list[tuple[int, int]]  # identity of a value, and its weight


class _Budget:
    """Calls in order of ending with what they weigh; the oldest are relieved of it."""

    def __init__(self, most: int, relieve: Callable[[Call], None]) -> None:
        self._most = most
        self._relieve = relieve
        self._calls: deque[tuple[Call, Weights]] = deque()
        self._n_holders: dict[int, int] = {}  # what many calls share weighs once
        self._sum = 0

    def add(self, call: Call, weights: Weights) -> None:
        """Count a call's weights; older ones are relieved when it is too much, itself never."""
        for value, weight in weights:
            n_holders = self._n_holders[value] = self._n_holders.get(value, 0) + 1
            self._sum += weight if n_holders == 1 else 0
        self._calls.append((call, weights))
        while self._sum > self._most and len(self._calls) > 1:
            self._relieve(self._pop())

    def forget(self, call: Call) -> None:
        """Count the oldest call of all no more."""
        if self._calls and self._calls[0][0] is call:
            self._pop()

    def _pop(self) -> Call:
        call, weights = self._calls.popleft()
        for value, weight in weights:
            self._n_holders[value] -= 1
            if not self._n_holders[value]:
                del self._n_holders[value]
                self._sum -= weight
        return call


class Shelf(deque[Call]):
    """Remembers the last `size` calls it was given."""

    def __init__(self, size: int, *, forget_arguments: Callable[[Call], None]) -> None:
        """Start empty.

        Args:
            size: how many to remember, 1 or more.
            forget_arguments: has a call let go of its arguments.
        """
        super().__init__(maxlen=size)
        self._arguments = _Budget(_MOST_ARGUMENT_BYTES, forget_arguments)
        self._outputs = _Budget(_MOST_OUTPUT_CHARACTERS, _forget_output)
        self._framed: deque[TracebackType] = deque()
        self._weighs = False  # whether anything ever did

    def put(self, call: Call) -> Call | None:
        """Remember a call; returns the one that it takes the place of, if it does."""
        gone = self[0] if len(self) == self.maxlen else None
        if gone is not None and self._weighs:
            self._arguments.forget(gone)
            self._outputs.forget(gone)
        self.append(call)
        # Most calls have a few numbers, or nothing: seen at once.
        if call.kwargs or call.output or not _PLAIN.issuperset(map(type, call.args)):
            self._weigh(call)
        if call.error is not None and call.error.__traceback__ is not None:
            self._framed.append(call.error.__traceback__)
            if len(self._framed) > _MOST_FRAMED:
                _clear_frames(self._framed.popleft())
        return gone

    def _weigh(self, call: Call) -> None:
        if weights := list(_weights((*call.args, *call.kwargs.values()))):
            self._arguments.add(call, weights)
            self._weighs = True
        if (n_characters := len(call.output)) > _LIGHT:
            self._outputs.add(call, [(id(call), n_characters)])
            self._weighs = True


def _weights(values: Any, depth: int = 3) -> Iterator[tuple[int, int]]:
    """Find what weighs among values, by identity."""
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        weight = 0
        if kind in _TEXTS:
            weight = len(value)
        elif kind is dict or kind in _CONTAINERS:
            weight = sys.getsizeof(value)
            if len(value) > _MOST_ITEMS:
                weight += _ITEM_BYTES * len(value)
            elif depth:
                yield from _weights(value.values() if kind is dict else value, depth - 1)
        else:
            weight = _n_bytes(value)
        if weight > _LIGHT:
            yield id(value), weight


def _n_bytes(value: Any) -> int:
    """Ask an array, or what is like one, for its size; 0: it does not tell."""
    try:
        n_bytes = value.nbytes
    except Exception:  # most values have none, and it is the user's code that says so
        return 0
    return n_bytes if isinstance(n_bytes, int) else 0


def _forget_output(call: Call) -> None:
    call.output = f"({len(call.output):,} characters; too old to be kept)\n"


def _clear_frames(traceback: TracebackType | None) -> None:
    """Let go of the variables of functions that raised; where the lines are stays known."""
    while traceback is not None:
        # One that a coroutine or a generator waits in would be ended by it.
        if not traceback.tb_frame.f_code.co_flags & _SUSPENDABLE:
            try:
                traceback.tb_frame.clear()
            except RuntimeError:  # it is running
                pass
        traceback = traceback.tb_next


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
