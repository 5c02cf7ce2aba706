"""What a run does about an exception: the values of `on_exception=`, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

__all__ = ["Mode", "OnException", "Policy"]

Mode: TypeAlias = Literal["raise", "end", "continue"]
OnException: TypeAlias = Mode | Mapping[type[Exception], Mode]

_MODES = get_args(Mode)
_ADVICE = "use 'raise' (end the run and raise), 'end' (end the run) or 'continue' (carry on)"


class Policy:
    """Decides by the type of an exception; the first entry that matches wins."""

    def __init__(self, option: OnException, *, name: str = "on_exception") -> None:
        """Check what the user gave.

        Args:
            option: one mode for all exceptions, or a mapping from exception types to modes.
            name: the option's name, for messages.

        Raises:
            ValueError: an unknown mode, or a key that is no ordinary exception type.
            TypeError: a key that is no type at all.
        """
        self._default: Mode = "raise"  # also for types that a mapping does not list
        self._entries: tuple[tuple[type[BaseException], Mode], ...] = ()
        if isinstance(option, Mapping):
            self._entries = tuple(
                (_checked_type(t, name), _checked(m, name)) for t, m in option.items()
            )
        else:
            self._default = _checked(option, name)

    def decide(self, exception: BaseException) -> Mode:
        """Say what to do; anything but an ordinary `Exception` is always raised."""
        if not isinstance(exception, Exception):
            return "raise"
        return next(
            (mode for kind, mode in self._entries if isinstance(exception, kind)), self._default
        )


def _checked(mode: object, name: str) -> Mode:
    for known in _MODES:
        if mode == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"{name}={mode!r} is not a mode; {_ADVICE}.")


def _checked_type(kind: object, name: str) -> type[BaseException]:
    if not isinstance(kind, type):
        raise TypeError(f"{name}: the key {kind!r} is not a type; use exception types as keys.")
    if not issubclass(kind, Exception):
        raise ValueError(
            f"{name}: {kind.__name__} cannot be handled, only subclasses of Exception can; "
            "KeyboardInterrupt and SystemExit always end the run."
        )
    return kind
