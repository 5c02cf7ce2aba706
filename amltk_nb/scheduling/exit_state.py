"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeAlias

__all__ = ["ExitCode", "ExitState"]


class ExitCode(StrEnum):
    """Why a run ended."""

    STOPPED = "stopped"  # stop() was called
    TIMEOUT = "timeout"  # its time was over
    EXHAUSTED = "exhausted"  # nothing was left to do
    CANCELLED = "cancelled"  # a call was cancelled by nobody here, or the run itself was
    EXCEPTION = "exception"  # a call or a callback raised
    UNKNOWN = "unknown"  # none of these; a run of ours never ends so


@dataclass(frozen=True, slots=True, eq=False)
class ExitState:
    """The end of a run: a code, and the exception behind it if there was one.

    Equal to another state with the same code and exception, and to its bare code.
    """

    Code: ClassVar[TypeAlias] = ExitCode

    code: ExitCode
    exception: BaseException | None = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ExitState):
            return self.code == other.code and self.exception is other.exception
        return self.code == other

    def __hash__(self) -> int:
        return hash(self.code)

    def __repr__(self) -> str:
        return f"ExitState({self.code}{f', {self.exception!r}' if self.exception else ''})"

    def __str__(self) -> str:
        return str(self.code)
