"""Limit what a call may use: memory, CPU time, wall time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from amltk_nb.errors import PluginError
from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.plugins.base import Plugin, Submission
from amltk_nb.scheduling.plugins.extras import require
from amltk_nb.scheduling.plugins.limited import Limited, Limits

__all__ = ["PynisherPlugin", "ResourceLimits"]

Quantity: TypeAlias = float | tuple[float, str] | str

_BYTES: Final = {
    "b": 1,
    **dict.fromkeys(("kb", "kib", "k"), 2**10),
    **dict.fromkeys(("mb", "mib", "m"), 2**20),
    **dict.fromkeys(("gb", "gib", "g"), 2**30),
    **dict.fromkeys(("tb", "tib", "t"), 2**40),
}
_SECONDS: Final = {
    "ms": 1e-3,
    **dict.fromkeys(("s", "sec"), 1),
    **dict.fromkeys(("m", "min"), 60),
    "h": 3600,
    "d": 86_400,
}
_AMOUNT = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)

_EVENTS: Final = (
    EventSpec(
        "TIMEOUT",
        "pynisher-timeout",
        "(exception)",
        ("pynisher_timeout", "on_timeout", "timeout"),
    ),
    EventSpec(
        "MEMORY_LIMIT_REACHED",
        "pynisher-memory-limit",
        "(exception)",
        ("pynisher_memory_limit", "on_memory_limit", "memory-limit"),
    ),
    EventSpec(
        "CPU_TIME_LIMIT_REACHED",
        "pynisher-cputime-limit",
        "(exception)",
        ("pynisher_cputime_limit", "on_cpu_time_limit", "cpu-time-limit"),
    ),
    EventSpec(
        "WALL_TIME_LIMIT_REACHED",
        "pynisher-walltime-limit",
        "(exception)",
        ("pynisher_walltime_limit", "on_wall_time_limit", "wall-time-limit"),
    ),
)


class _OnUse:
    """An error class that is imported when it is asked for, since that needs pynisher."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        require("pynisher", extra="limits", needed_by=owner.__name__)
        from amltk_nb.scheduling.plugins import limit_errors

        return getattr(limit_errors, self._name)


class ResourceLimits(Plugin):
    """Ends calls that use too much, with **pynisher**; the workers that ran them go on.

    Each call runs in a process of its own, a child of its worker or, on threads, of the kernel;
    so threads get limits as well. That costs some 50 ms per call, and what the function changes
    in its process (globals, caches, random state) is gone with it.

    A call that is ended raises an error of this table. The task tells of it by an event first,
    then by `on_exception`. Callbacks of these events get the exception.

        ======================  =====================  =======================================
        error                   also a                 events
        ======================  =====================  =======================================
        Exception               pynisher's             (all of them)
        TimeoutException        TimeoutError           pynisher-timeout
        WallTimeoutException    TimeoutError           the same, then pynisher-walltime-limit
        CpuTimeoutException     TimeoutError           the same, then pynisher-cputime-limit
        MemoryLimitException    MemoryError            pynisher-memory-limit
        ======================  =====================  =======================================

    The names without "pynisher", as `timeout` or `on_memory_limit`, mean the same events.
    """

    name = "resource-limits"

    TIMEOUT: ClassVar[Event[...]] = Event("pynisher-timeout")
    MEMORY_LIMIT_REACHED: ClassVar[Event[...]] = Event("pynisher-memory-limit")
    CPU_TIME_LIMIT_REACHED: ClassVar[Event[...]] = Event("pynisher-cputime-limit")
    WALL_TIME_LIMIT_REACHED: ClassVar[Event[...]] = Event("pynisher-walltime-limit")

    Exception: ClassVar[Any] = _OnUse("ResourceLimitError")
    TimeoutException: ClassVar[Any] = _OnUse("TimeLimitError")
    WallTimeoutException: ClassVar[Any] = _OnUse("WallTimeLimitError")
    CpuTimeoutException: ClassVar[Any] = _OnUse("CpuTimeLimitError")
    MemoryLimitException: ClassVar[Any] = _OnUse("MemoryLimitError")
    PynisherException: ClassVar[Any] = _OnUse("ResourceLimitError")

    def __init__(
        self,
        memory: Quantity | None = None,
        cpu_time: Quantity | None = None,
        wall_time: Quantity | None = None,
        *,
        memory_limit: Quantity | None = None,
        cputime_limit: Quantity | None = None,
        walltime_limit: Quantity | None = None,
    ) -> None:
        """Set the limits of each call; each one a number, (number, unit) or "number unit".

        Args:
            memory: bytes, or with B, KB, MB, GB, TB (of 1024 each) as the unit: how many
                addresses the call's process may have. That includes the interpreter (some 30 MB)
                and what libraries reserve, for numpy several times what it uses.
            cpu_time: seconds, or with ms, s, min, h, d as the unit: how long each process of the
                call may compute, rounded up to whole seconds.
            wall_time: the same units: how long a call may take, with the start of its process.
            memory_limit: the older name of `memory`.
            cputime_limit: the older name of `cpu_time`.
            walltime_limit: the older name of `wall_time`.

        Raises:
            ValueError: a limit that is not above zero, or an unknown unit.
            TypeError: a limit given by both of its names.
            PluginError: this system cannot set such a limit.
            MissingExtraError: pynisher is not installed.
        """
        require("pynisher", extra="limits", needed_by=type(self).__name__)
        memory = _either("memory", memory, "memory_limit", memory_limit)
        cpu_time = _either("cpu_time", cpu_time, "cputime_limit", cputime_limit)
        wall_time = _either("wall_time", wall_time, "walltime_limit", walltime_limit)
        memory_bytes = _amount("memory", memory, _BYTES)
        cpu_time_s = _amount("cpu_time", cpu_time, _SECONDS)
        self.limits = Limits(
            memory_bytes=None if memory_bytes is None else math.ceil(memory_bytes),
            cpu_time_s=None if cpu_time_s is None else math.ceil(cpu_time_s),
            wall_time_s=_amount("wall_time", wall_time, _SECONDS),
        )
        self.n_reached = 0  # calls that went over a limit
        for kind, limit in (("memory", memory), ("cpu_time", cpu_time), ("wall_time", wall_time)):
            if limit is not None and not self.supports(kind):
                raise PluginError(
                    f"this system cannot limit the {kind.replace('_', ' ')} of a process, so "
                    f"{kind}={limit!r} would do nothing; leave it out."
                )

    @staticmethod
    def supports(kind: str) -> bool:
        """Say whether this system can set a limit: "memory", "cpu_time" or "wall_time".

        Raises:
            ValueError: there is no such kind.
            MissingExtraError: pynisher is not installed.
        """
        require("pynisher", extra="limits", needed_by="ResourceLimits")
        from pynisher import supports

        if kind not in ("memory", "cpu_time", "wall_time"):
            raise ValueError(f"supports({kind!r}): ask for 'memory', 'cpu_time' or 'wall_time'.")
        try:
            return bool(supports(kind))
        except NotImplementedError:  # a system that pynisher has never heard of
            return False

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Have the call run within the limits."""
        if self.limits == Limits(None, None, None):
            return fn, args, kwargs
        return Limited(fn, self.limits), args, kwargs

    def release(self, call: Call | None) -> None:
        """Tell of a limit that the call went over; end what it leaves running on a thread."""
        if call is None:
            return
        for limited in _limited(call.work[0]):
            limited.end()
        if call.error is None or not isinstance(call.error, self.Exception):
            return
        self.n_reached += 1
        if call.task is not None:
            for event, kind in self._table():
                if isinstance(call.error, kind):
                    call.task.emit(event, call.error)

    def _table(self) -> tuple[tuple[Event[...], type[BaseException]], ...]:
        return (
            (self.TIMEOUT, self.TimeoutException),
            (self.WALL_TIME_LIMIT_REACHED, self.WallTimeoutException),
            (self.CPU_TIME_LIMIT_REACHED, self.CpuTimeoutException),
            (self.MEMORY_LIMIT_REACHED, self.MemoryLimitException),
        )

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Return the four events that tell of a limit."""
        return _EVENTS

    def state(self) -> Mapping[str, Any]:
        """Show each limit that was set, and how many calls went over one."""
        memory_bytes, cpu_time_s, wall_time_s = self.limits
        shown: dict[str, Any] = {}
        if memory_bytes is not None:
            shown["Memory"] = _shown_bytes(memory_bytes)
        if cpu_time_s is not None:
            shown["CPU time"] = f"{cpu_time_s} s"
        if wall_time_s is not None:
            shown["Wall time"] = f"{wall_time_s:g} s"
        return {**shown, "Ended calls": self.n_reached}


PynisherPlugin = ResourceLimits


def _limited(fn: Any) -> Iterator[Limited]:
    """Find the limits around a function among what other plugins have put around it."""
    while fn is not None:
        if isinstance(fn, Limited):
            yield fn
        fn = getattr(fn, "__wrapped__", None)


def _either(name: str, value: Any, older_name: str, older: Any) -> Any:
    if value is not None and older is not None:
        raise TypeError(f"{name}={value!r} and {older_name}={older!r} mean the same; give one.")
    return older if value is None else value


def _amount(name: str, given: Any, units: Mapping[str, float]) -> float | None:
    """Turn a limit into bytes or seconds."""
    if given is None:
        return None
    number, unit = _parts(given)
    factor = units.get(unit.lower()) if unit else 1
    if factor is None:
        raise ValueError(f"{name}={given!r}: no unit {unit!r} is known; use {', '.join(units)}.")
    if number is None or not 0 < number * factor < math.inf:
        raise ValueError(
            f"{name}={given!r}: use a number above zero, (number, unit) or a string such as "
            f"'2 {list(units)[-1]}', or None for no limit."
        )
    return number * factor


def _parts(given: Any) -> tuple[float | None, str]:
    """Take a limit apart into its number, None if it has none, and its unit."""
    unit: Any = ""
    if isinstance(given, tuple) and len(given) == 2:
        given, unit = given
    elif isinstance(given, str) and (found := _AMOUNT.fullmatch(given)):
        try:
            return float(found[1]), found[2]
        except ValueError:  # two points in it
            return None, ""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return (float(given) if is_number else None), unit if isinstance(unit, str) else repr(unit)


def _shown_bytes(n_bytes: int) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.4g} {unit}"
    return f"{n_bytes} B"
