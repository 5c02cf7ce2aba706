"""How many threads BLAS and OpenMP may use inside a call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final, TypeAlias

from amltk_nb.scheduling.plugins.around import Around
from amltk_nb.scheduling.plugins.base import Plugin, Submission
from amltk_nb.scheduling.plugins.extras import require

__all__ = ["ThreadPoolCTLPlugin"]

_APIS: Final = ("blas", "openmp")
_Limits: TypeAlias = int | dict[str, int] | None


class ThreadPoolCTLPlugin(Plugin):
    """Limits the threads of numerical libraries around each call, with **threadpoolctl**.

    It acts on the libraries that are loaded when the call begins: import numpy at the top of a
    module or cell rather than inside the function.

    On threads a BLAS pool is everybody's: while calls with different limits overlap, the limit of
    the one that began last holds for all of them. When the last one ends, all is as it was.
    """

    name = "threadpoolctl"

    def __init__(
        self, max_threads: int | Mapping[str, int] | None = None, user_api: str | None = None
    ) -> None:
        """Set the limit.

        Args:
            max_threads: at least 1, for each library; or a limit by the library's prefix or API,
                as {"libopenblas": 1, "openmp": 2}; None limits nothing.
            user_api: "blas" or "openmp" for the libraries of that kind only; None: both.

        Raises:
            ValueError: a limit that is not a whole number of at least 1, or an unknown API.
            MissingExtraError: threadpoolctl is not installed.
        """
        require("threadpoolctl", extra="threadpoolctl", needed_by=type(self).__name__)
        if user_api is not None and user_api not in _APIS:
            raise ValueError(f"user_api={user_api!r}: use 'blas', 'openmp', or None for both.")
        self.max_threads: _Limits = _checked(max_threads)
        self.user_api = user_api

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Put the limit around the call."""
        if self.max_threads is None:
            return fn, args, kwargs
        return Around(fn, partial(_limited, self.max_threads, self.user_api)), args, kwargs

    def state(self) -> Mapping[str, Any]:
        """Show what was set."""
        limits = self.max_threads
        shown = (
            ", ".join(f"{name}: {n}" for name, n in limits.items())
            if isinstance(limits, dict)
            else limits
        )
        return {"Max threads": shown, "API": self.user_api or "all"}


def _checked(max_threads: int | Mapping[str, int] | None) -> _Limits:
    if max_threads is None:
        return None
    many = dict(max_threads) if isinstance(max_threads, Mapping) else {"": max_threads}
    for n_threads in many.values():
        if isinstance(n_threads, bool) or not isinstance(n_threads, int) or n_threads < 1:
            raise ValueError(
                f"max_threads={max_threads!r}: use a whole number of at least 1, a mapping of "
                "such, or None for no limit."
            )
    return many if isinstance(max_threads, Mapping) else max_threads


@contextmanager
def _limited(limits: _Limits, user_api: str | None) -> Iterator[None]:
    token = _Held(limits, user_api)
    _shared.enter(token)
    try:
        yield
    finally:
        _shared.leave(token)


class _Held:
    """The limit of one call while it runs."""

    def __init__(self, limits: _Limits, user_api: str | None) -> None:
        self.limits = limits
        self.user_api = user_api

    def apply(self, controller: Any) -> None:
        controller.limit(limits=self.limits, user_api=self.user_api)


class _Shared:
    """The limits in force in this process.

    Were each call to restore what it found, two that overlap would leave the limit of one behind:
    the second finds the first one's limit and restores it last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[_Held] = []
        self._original: Any = None

    def enter(self, held: _Held) -> None:
        with self._in_control() as controller:
            if not self._held:
                self._original = controller.limit(limits=None)  # sets nothing, but remembers
            self._held.append(held)
            held.apply(controller)

    def leave(self, held: _Held) -> None:
        with self._in_control() as controller:
            self._held.remove(held)
            self._original.restore_original_limits()
            # OpenMP counts per thread, so the limits of other calls are none of this thread's.
            blas = controller.select(user_api="blas")
            for other in self._held:
                other.apply(blas)

    @contextmanager
    def _in_control(self) -> Iterator[Any]:
        """Yield a controller of all libraries; one thread at a time."""
        library = import_module("threadpoolctl")
        controller = library.ThreadpoolController()
        # From 3.8 on it heeds only the thread that was first to limit a shared pool. Here the
        # lock sees to that, so each thread takes over, and none stays in control.
        openblas = getattr(library, "OpenBLASController", None)
        let_go = getattr(openblas, "clear_controlling_thread", lambda **_: None)
        with self._lock:
            let_go(force=True)
            try:
                yield controller
            finally:
                let_go(force=True)


_shared = _Shared()
