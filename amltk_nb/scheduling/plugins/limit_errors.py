"""What a call that went over a limit raises.

These inherit pynisher's errors, so that code written for it catches them, and the standard errors
that everybody catches. Hence this module needs pynisher, and is imported on use only.
"""

from __future__ import annotations

from pynisher.exceptions import (
    CpuTimeoutException,
    MemoryLimitException,
    PynisherException,
    TimeoutException,
    WallTimeoutException,
)

from amltk_nb.errors import AmltkError

__all__ = [
    "CpuTimeLimitError",
    "MemoryLimitError",
    "ResourceLimitError",
    "TimeLimitError",
    "WallTimeLimitError",
]


class ResourceLimitError(AmltkError, PynisherException):
    """A call used more than it was allowed, and was ended."""


class TimeLimitError(ResourceLimitError, TimeoutException, TimeoutError):
    """A call took more time than it was allowed."""


class WallTimeLimitError(TimeLimitError, WallTimeoutException):
    """A call had not returned within its wall time."""


class CpuTimeLimitError(TimeLimitError, CpuTimeoutException):
    """A call computed for more than its CPU time."""


class MemoryLimitError(ResourceLimitError, MemoryLimitException):
    """A call wanted more memory than it was allowed."""
