"""A function inside a context that is made where the function runs: what most plugins need."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import update_wrapper
from inspect import iscoroutinefunction
from typing import Any

__all__ = ["Around"]


class Around:
    """Calls a function within a context, in the worker; a coroutine function is awaited in it."""

    def __init__(
        self, fn: Callable[..., Any], context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        """Put a context around a function.

        Args:
            fn: what to call.
            context: makes the context; it travels to the worker, so it must be picklable, as a
                class, a function of a module or a `functools.partial` of one is.
        """
        self._context = context
        update_wrapper(self, fn, updated=())  # its name for messages, itself as __wrapped__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        fn: Callable[..., Any] = self.__wrapped__  # type: ignore[attr-defined]
        if _is_coroutine_function(fn):
            return self._awaited(fn(*args, **kwargs))
        with self._context() as entered:
            value = fn(*args, **kwargs)
        return self.result(value, entered)

    def result(self, value: Any, entered: Any) -> Any:
        """Say what is returned in the end; for subclasses whose plugin wants more than that.

        Args:
            value: what the function returned.
            entered: what the context gave, which it has left.
        """
        return value

    async def _awaited(self, coroutine: Any) -> Any:
        try:
            with self._context() as entered:
                value = await coroutine
        finally:
            coroutine.close()  # else one that was never begun, for want of a context, complains
        return self.result(value, entered)


def _is_coroutine_function(fn: Callable[..., Any]) -> bool:
    """Whether calling it only makes a coroutine; so does a context around such a function."""
    while isinstance(fn, Around):
        fn = fn.__wrapped__  # type: ignore[attr-defined]
    return iscoroutinefunction(fn)
