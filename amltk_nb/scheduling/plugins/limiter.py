"""Limit how often a task may be called, and how often at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from amltk_nb.errors import PluginError
from amltk_nb.events import LIMITER_EVENTS, Event, EventSpec
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.plugins.base import Plugin, Submission

if TYPE_CHECKING:
    from amltk_nb.scheduling.task import Task

__all__ = ["CallLimiter", "Limiter"]


class Limiter(Plugin):
    """Refuses submissions over a limit and says so with an event of the task.

    A limiter on two tasks counts the calls of both together.
    """

    name = "limiter"

    CALL_LIMIT_REACHED: ClassVar[Event[...]] = Event("call-limit-reached")
    CONCURRENT_LIMIT_REACHED: ClassVar[Event[...]] = Event("concurrent-limit-reached")
    DISABLED_DUE_TO_RUNNING_TASK: ClassVar[Event[...]] = Event("disabled-due-to-running-task")

    def __init__(
        self,
        *,
        max_calls: int | None = None,
        max_concurrent: int | None = None,
        not_while_running: Task[..., Any] | None = None,
    ) -> None:
        """Set the limits.

        Args:
            max_calls: how many calls are accepted in all, over all runs.
            max_concurrent: how many calls may be queued or running at the same time.
            not_while_running: another task; while it has calls, none is accepted here.

        Raises:
            ValueError: a limit that is not a whole number of at least 1.
        """
        self.max_calls = _checked("max_calls", max_calls)
        self.max_concurrent = _checked("max_concurrent", max_concurrent)
        self.not_while_running = not_while_running
        self.n_calls = 0
        self.n_concurrent = 0
        self._task: Task[..., Any] | None = None
        self._lock = threading.Lock()  # submissions come from any thread

    def attach_task(self, task: Task[..., Any]) -> None:
        """Watch a task; the events tell of the one attached last."""
        if task is self.not_while_running:
            raise PluginError(
                f"a Limiter on {task.ref} with not_while_running={task.ref} would refuse every "
                "call while one runs; use max_concurrent=1 for that."
            )
        self._task = task

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Count the call in, or refuse it."""
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                self.n_calls += 1
                self.n_concurrent += 1
        if refusal is None:
            return fn, args, kwargs
        if self._task is not None:
            self._task.announce(refusal, self._task, *args, **kwargs)
        return None

    def release(self, call: Call | None) -> None:
        """Count the call out; one that was never made does not count as a call."""
        with self._lock:
            self.n_concurrent -= 1
            if call is None:
                self.n_calls -= 1

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Return the three events that tell of a refusal."""
        return LIMITER_EVENTS

    def state(self) -> Mapping[str, Any]:
        """Show each limit that was set against its count."""
        shown: dict[str, Any] = {}
        if self.max_calls is not None:
            shown["Calls"] = f"{self.n_calls}/{self.max_calls}"
        if self.max_concurrent is not None:
            shown["Concurrent"] = f"{self.n_concurrent}/{self.max_concurrent}"
        if self.not_while_running is not None:
            shown["Not while"] = self.not_while_running.ref
        return shown

    def _refusal(self) -> Event[...] | None:
        if self.max_calls is not None and self.n_calls >= self.max_calls:
            return self.CALL_LIMIT_REACHED
        if self.max_concurrent is not None and self.n_concurrent >= self.max_concurrent:
            return self.CONCURRENT_LIMIT_REACHED
        if self.not_while_running is not None and self.not_while_running.n_running:
            return self.DISABLED_DUE_TO_RUNNING_TASK
        return None


CallLimiter = Limiter


def _checked(name: str, limit: int | None) -> int | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(
            f"{name}={limit!r}: use a whole number of at least 1, or None for no limit."
        )
    return limit
