"""Small containers for the work that is still to be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

__all__ = ["Requeue"]

T = TypeVar("T")


class Requeue(Iterator[T], Generic[T]):
    """An iterator that takes items back.

    Items put back come first, the last one put back before the others; then those of the
    iterable; then those appended. Having run out it can be filled again.
    """

    def __init__(self, iterable: Iterable[T] = ()) -> None:
        """Iterate over `iterable`, lazily.

        Raises:
            TypeError: it cannot be iterated over.
        """
        try:
            self._source = iter(iterable)
        except TypeError:
            raise TypeError(f"Requeue({iterable!r}): use something to iterate over.") from None
        # Two queues around the source; a chain of iterators in one another would recurse.
        self._returned: deque[T] = deque()
        self._appended: deque[T] = deque()

    @classmethod
    def from_func(cls, fn: Callable[[], T], n: int | None = None) -> Requeue[T]:
        """Iterate over what a function returns, calling it when an item is wanted.

        Args:
            fn: called without arguments.
            n: how many times; without end if None.

        Raises:
            TypeError: the function is not callable, or `n` no whole number.
            ValueError: `n` is negative.
        """
        if not callable(fn):
            raise TypeError(f"from_func({fn!r}): pass the function itself, without calling it.")
        if n is not None and (not isinstance(n, int) or isinstance(n, bool)):
            raise TypeError(f"n={n!r}: use a whole number of calls, or None for no end.")
        if n is not None and n < 0:
            raise ValueError(f"n={n}: use a number of calls from 0 on, or None for no end.")
        return cls(_results(fn, n))

    def __next__(self) -> T:
        if self._returned:
            return self._returned.popleft()
        for item in self._source:
            return item
        if self._appended:
            return self._appended.popleft()
        raise StopIteration

    def requeue(self, item: T) -> None:
        """Put an item at the front: it is the next one."""
        self._returned.appendleft(item)

    def append(self, item: T) -> None:
        """Put an item at the end, behind all that the iterable has."""
        self._appended.append(item)


def _results(fn: Callable[[], T], n: int | None) -> Iterator[T]:
    n_calls = 0
    while n is None or n_calls < n:
        n_calls += 1
        yield fn()
