"""Which kind of field a parameter gets: by what was asked for, its hint, its default.

The rules are those of ipywidgets' `interactive`, with one difference: a default that is a list is
a value like any other, and only what was asked for or hinted can be options.
"""

from __future__ import annotations

import enum
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from amltk_nb.views.fields import MISSING, Field, Option, index_of, shown_text
from amltk_nb.views.literals import MAX_CHARS, literal_text
from amltk_nb.views.model import safe_text

__all__ = ["field_for"]

_MAX_OPTIONS = 200
_CONTAINERS = (list, dict, tuple, set)


def field_for(
    name: str, *, hint: Any = MISSING, value: Any = MISSING, override: Any = MISSING
) -> Field:
    """Make the field of a parameter.

    Args:
        name: of the parameter.
        hint: its annotation; one that is a range or a list of options counts as an override.
        value: its default, or what was passed.
        override: what somebody asked for: a value, (low, high), (low, high, step), or a list or
            dict of options.

    Raises:
        ValueError: an override that makes no sense.
    """
    if override is MISSING and (_is_range(hint) or isinstance(hint, list | dict)):
        try:
            return field_for(name, value=value, override=hint)
        except ValueError:  # the author's hint is no promise, and this value breaks it
            hint = MISSING
    if _is_range(override):
        made = _slider(name, override, value)
    elif isinstance(override, list | dict):
        made = _choice(name, _options(name, override), value)
    else:
        made = _plain(name, hint, value if override is MISSING else override)
        return replace(made, hint=made.hint or _hint_text(hint) or _said_type(made))
    return made


# ------------------------------------------------------------------------ which kind it is


def _plain(name: str, hint: Any, value: Any) -> Field:
    hint, is_nullable = _without_none(hint)
    options = _hinted_options(hint, is_nullable)
    if options and (value is MISSING or index_of(options, value) is not None):
        return _choice(name, options, value)
    kind = _hinted_kind(hint, value, is_nullable) or _kind_of(value)
    accepts = _container(hint)
    if accepts is not None and not (value is MISSING or isinstance(value, accepts)):
        accepts = None  # the hint is no promise, and the value breaks it
    made = Field(
        name=name, kind=kind, value=value, is_nullable=is_nullable and kind in _NUMBERS,
        accepts=None if is_nullable else accepts,
    )  # fmt: skip
    if value is not MISSING:
        return made
    if kind == "bool":
        return replace(made, value=False, sent=False)
    return replace(made, value=None, sent=None) if made.is_nullable else made


def _hinted_kind(hint: Any, value: Any, is_nullable: bool) -> str | None:
    """Return the kind that a hint asks for, if the value that is there fits it."""
    kind = _HINTS.get(hint) if isinstance(hint, type) else None
    if kind is None and typing.get_origin(hint) in (typing.Union, types.UnionType):
        kind = "number" if set(typing.get_args(hint)) == {int, float} else None
    if kind is None or (is_nullable and kind not in _NUMBERS):
        return None
    if value is MISSING or (value is None and is_nullable):
        return kind
    fitting = _FITTING.get(kind, ())  # else what is there decides
    return kind if type(value) in fitting and _is_writable(value) else None


def _kind_of(value: Any) -> str:
    kind = type(value)
    if kind is bool:
        return "bool"
    if kind in (int, float) and _is_writable(value):
        return "number" if kind is int else "float"
    if kind is str and _is_typable(value):
        return "text"
    return "kept" if value is not MISSING and literal_text(value) is None else "literal"


def _is_writable(value: Any) -> bool:
    return isinstance(value, float) or literal_text(value) is not None


def _is_typable(text: str) -> bool:
    """Say whether a browser's field gives back each character, and none of them hides."""
    return len(text) <= MAX_CHARS and text.replace("\n", "").replace("\t", "").isprintable()


_FITTING: dict[str, tuple[type, ...]] = {
    "bool": (bool,), "int": (int,), "float": (float,), "number": (int, float),
}  # fmt: skip
_HINTS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "text"}
_NUMBERS = {"int", "float", "number"}


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Take None out of a union; returns the rest and whether it was there."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    args = typing.get_args(hint)
    rest = tuple(arg for arg in args if arg is not types.NoneType)
    if len(rest) == len(args) or not rest:
        return hint, False
    return typing.Union[rest], True  # noqa: UP007 - of a tuple


def _container(hint: Any) -> type | None:
    origin = typing.get_origin(hint) or hint
    return next((kind for kind in _CONTAINERS if origin is kind), None)


# ------------------------------------------------------------------------ options and ranges


def _is_range(thing: Any) -> bool:
    return (
        isinstance(thing, tuple)
        and len(thing) in (2, 3)
        and all(type(n) in (int, float) for n in thing)
    )


def _slider(name: str, given: tuple[Any, ...], value: Any) -> Field:
    low, high = given[:2]
    is_whole = all(type(n) is int for n in given)
    step = given[2] if len(given) == 3 else (1 if is_whole else (high - low) / 100)
    if not all(map(math.isfinite, given)) or not low < high or not 0 < step <= high - low:
        raise ValueError(
            f"{name}={given!r}: a slider goes from a lower to a higher number in positive steps "
            "that are not longer than that, as in (0, 10) or (0.0, 1.0, 0.25)."
        )
    middle = low + round((high - low) / (2 * step)) * step
    start = middle if value is MISSING else value
    if (
        type(start) not in (int, float)
        or not low <= start <= high
        or (is_whole and type(start) is not int)
    ):
        raise ValueError(f"{name}={given!r}: its default {shown_text(start, 80)} is not in there.")
    numbers = f"{'int' if is_whole else 'float'}, {low!r} to {high!r}"
    sent = middle if value is MISSING else MISSING
    return Field(
        name=name, kind="slider", hint=numbers, value=start, sent=sent, limits=(low, high, step)
    )


def _hinted_options(hint: Any, is_nullable: bool) -> tuple[Option, ...]:
    if typing.get_origin(hint) is typing.Literal:
        found = [Option(_label(value), value) for value in typing.get_args(hint)]
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        found = [Option(safe_text(member.name, 200), member) for member in hint]
    else:
        return ()
    return tuple([*found, Option("None", None)] if is_nullable else found)


def _options(name: str, given: list[Any] | dict[Any, Any]) -> tuple[Option, ...]:
    """Make options of values, of (label, value) pairs, or of a dict from label to value."""
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(given, Mapping):
        pairs = given.items()
    elif all(isinstance(i, tuple) and len(i) == 2 and isinstance(i[0], str) for i in given):
        pairs = given
    else:
        pairs = [(_label(value), value) for value in given]
    options = tuple(Option(_label(label), value) for label, value in pairs)
    if not 0 < len(options) <= _MAX_OPTIONS:
        raise ValueError(f"{name}: from 1 to {_MAX_OPTIONS} options, not {len(options)}.")
    return options


def _choice(name: str, options: tuple[Option, ...], value: Any) -> Field:
    if value is not MISSING and index_of(options, value) is None:
        raise ValueError(f"{name}: its default {shown_text(value, 80)} is none of the options.")
    first = options[0].value if value is MISSING else value
    sent = first if value is MISSING else MISSING
    hint = f"one of {len(options)}"
    return Field(name=name, kind="choice", hint=hint, value=first, sent=sent, options=options)


def _label(value: Any) -> str:
    return safe_text(value, 200) if isinstance(value, str) else shown_text(value, 200)


def _hint_text(hint: Any) -> str:
    if hint is MISSING:
        return ""
    try:
        text = hint if isinstance(hint, str) else inspect.formatannotation(hint)
    except Exception:  # the user's class may have a repr that fails
        text = type(hint).__name__
    return safe_text(text.replace("typing.", "").replace("__main__.", ""), 120)


def _said_type(field: Field) -> str:
    if field.kind == "number":
        return field.kind
    if field.value is MISSING or field.value is None:
        return "any value"
    return safe_text(type(field.value).__name__, 120)
