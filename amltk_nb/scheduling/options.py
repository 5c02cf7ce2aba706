"""What a run was asked to do, checked before anything starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from amltk_nb.scheduling.grace import grace_s
from amltk_nb.scheduling.policy import OnException, Policy

__all__ = ["RunOptions", "check_names"]

_HOW_MANY = {"n_workers", "max_workers", "num_cpus", "n", "n_jobs", "workers"}  # meant alike


def check_names(constructor: Callable[..., Any], options: Iterable[str]) -> None:
    """Refuse options that neither a constructor nor a scheduler has.

    Args:
        constructor: a class method, such as `Scheduler.with_dask`.
        options: the names of those that it takes no notice of itself.

    Raises:
        TypeError: an option that does not exist; the message names the nearest one, or all.
    """
    made = constructor.__self__.__init__  # type: ignore[attr-defined]
    taken = inspect.signature(made).parameters
    if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        return  # a class of the user's takes what it likes
    of_its_own = {**inspect.signature(constructor).parameters}
    of_its_own.pop("options", None)
    known = [*of_its_own, *(name for name in taken if name not in ("self", "executor"))]
    for name in options:
        if name not in known:
            raise TypeError(_unknown(name, constructor.__name__, known))


def _unknown(name: str, verb: str, known: list[str]) -> str:
    from difflib import get_close_matches

    nearest = get_close_matches(name, known, n=1)
    if name in _HOW_MANY:
        nearest = [each for each in known if each in _HOW_MANY] or nearest
    said = f"Scheduler.{verb}() has no option {name}=. "
    return said + (f"Is it {nearest[0]}=?" if nearest else f"It takes {', '.join(known)}.")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one run."""

    timeout: float | None  # seconds
    end_on_empty: bool
    grace_s: float  # how long running calls may go on when it ends; inf: for ever
    on_exception: Policy
    on_cancelled: Literal["raise", "end", "continue"]
    display: Any
    background: bool = False
    output: Literal["log", "cell"] = "log"
    on_interrupt: Literal["stop"] | None = None
    returns_exception: bool = False  # the old spelling raises=False

    @classmethod
    def checked(
        cls,
        *,
        timeout: float | None,
        end_on_empty: bool,
        wait: bool | float,
        on_exception: OnException,
        on_cancelled: str,
        display: Any,
        background: bool = False,
        output: str = "log",
        on_interrupt: str | None = None,
        returns_exception: bool = False,
    ) -> RunOptions:
        """Check every value.

        Raises:
            ValueError: a value that means nothing; the message lists those that do.
            TypeError: a timeout or wait that is no number, or an exception key that is no type.
        """
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, int | float):
                raise TypeError(
                    f"timeout={timeout!r}: use a number of seconds, or None for no limit."
                )
            if not timeout >= 0:
                raise ValueError(
                    f"timeout={timeout!r}: use 0 or more seconds, or None for no limit."
                )
        return cls(
            timeout=timeout,
            end_on_empty=end_on_empty,
            grace_s=grace_s(wait),
            on_exception=Policy(on_exception),
            on_cancelled=_one_of("on_cancelled", on_cancelled, "raise", "end", "continue"),
            display=display,
            background=background,
            output=_one_of("output", output, "log", "cell"),
            on_interrupt=_one_of("on_interrupt", on_interrupt, None, "stop"),
            returns_exception=returns_exception,
        )


def _one_of(name: str, value: Any, *known: Any) -> Any:
    if value not in known:
        raise ValueError(
            f"{name}={value!r} is not known; use one of {', '.join(map(repr, known))}."
        )
    return value
