"""Warnings filters that hold inside a call and nowhere else."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NamedTuple

from amltk_nb.scheduling.plugins.around import Around
from amltk_nb.scheduling.plugins.base import Plugin, Submission

__all__ = ["WarningFilter"]

_ACTIONS: Final = ("error", "ignore", "always", "default", "module", "once")


class WarningFilter(Plugin):
    """Sets a warnings filter, as `warnings.filterwarnings` does, for the time of a call.

    The calls run where the filter does: in the worker process. On threads it holds for the
    thread that runs the call; other threads of the kernel never see it, and threads that the call
    itself starts do not see it either. Another `warnings.catch_warnings()` that ends meanwhile in
    another thread may take it away early, as it does with any filter before Python 3.14.

    Several of them on a task are consulted in their order, before all others.
    """

    name = "warning-filter"

    def __init__(
        self,
        action: str,
        message: str = "",
        category: type[Warning] = Warning,
        module: str = "",
        lineno: int = 0,
        append: bool = False,
    ) -> None:
        """Say what becomes of which warnings.

        Args:
            action: "error", "ignore", "always", "default", "module" or "once".
            message: a regular expression that the start of the message must match, in any case.
            category: the class of warning it is about, with its subclasses.
            module: a regular expression that the name of the warning module must match.
            lineno: the line that must have warned; 0 for any.
            append: whether it comes after all other filters instead of before them.

        Raises:
            ValueError: an unknown action, a faulty regular expression, a negative line.
            TypeError: the category is no class of warnings, or a pattern is no string.
        """
        if action not in _ACTIONS:
            raise ValueError(f"action={action!r}: use one of {', '.join(map(repr, _ACTIONS))}.")
        if not (isinstance(category, type) and issubclass(category, Warning)):
            raise TypeError(f"category={category!r}: pass a class of warnings, as UserWarning.")
        if isinstance(lineno, bool) or not isinstance(lineno, int) or lineno < 0:
            raise ValueError(f"lineno={lineno!r}: use the number of a line, or 0 for any.")
        _check_pattern("message", message)
        _check_pattern("module", module)
        self._filter = _Filter(action, message, category, module, lineno, append)

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Put the filter around the call."""
        return Around(fn, partial(_filtered, self._filter)), args, kwargs

    def state(self) -> Mapping[str, Any]:
        """Show what was set."""
        chosen = self._filter
        shown: dict[str, Any] = {"Action": chosen.action, "Category": chosen.category.__name__}
        if chosen.message:
            shown["Message"] = chosen.message
        if chosen.module:
            shown["Module"] = chosen.module
        return shown


class _Filter(NamedTuple):
    """The arguments of `warnings.filterwarnings`."""

    action: str
    message: str
    category: type[Warning]
    module: str
    lineno: int
    append: bool


def _check_pattern(name: str, pattern: object) -> None:
    if not isinstance(pattern, str):
        raise TypeError(f"{name}={pattern!r}: pass a regular expression as a string.")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}={pattern!r} is no regular expression: {error}.") from None


@contextmanager
def _filtered(chosen: _Filter) -> Iterator[None]:
    if threading.current_thread() is threading.main_thread():
        # A worker process has nothing but this call; threads that it starts are covered, too.
        with warnings.catch_warnings():
            warnings.filterwarnings(*chosen)  # type: ignore[arg-type]
            yield
        return
    here = _InThread(chosen.message)
    _insert(chosen, here)
    try:
        yield
    finally:
        here.thread_id = None  # first: whoever puts an old list of filters back finds it inert
        _remove(here)


class _InThread:
    """Stands where a filter has its regular expression, and matches in one thread only.

    Filters are the process's until Python 3.14. Their message need not be a regular expression,
    though: whatever has a `match()` will do, and that can ask who is warning.
    """

    def __init__(self, message: str) -> None:
        self._pattern = re.compile(message, re.IGNORECASE)
        self.thread_id: int | None = threading.get_ident()

    def match(self, text: str) -> bool:
        return threading.get_ident() == self.thread_id and self._pattern.match(text) is not None


_lock = threading.Lock()  # calls begin and end at the same time


def _insert(chosen: _Filter, here: _InThread) -> None:
    # The module's own function puts it in place, and notes the change: what was shown once may
    # have to be shown again. With a message of its own no equal filter of the user's is moved.
    unique = f"filter {id(here)} of one thread"
    with _lock:
        warnings.filterwarnings(*chosen._replace(message=unique))  # type: ignore[arg-type]
        filters: Any = warnings.filters
        for i, (action, pattern, *rest) in enumerate(filters):
            if getattr(pattern, "pattern", None) == unique:
                filters[i] = (action, here, *rest)


def _remove(here: _InThread) -> None:
    with _lock:
        filters: Any = warnings.filters
        filters[:] = [each for each in filters if each[1] is not here]
