"""One field of a form: what it shows of a parameter, and how what is entered becomes a value.

An entry travels as a boolean (a checkbox), the number of an option (a choice), or the text as it
was typed.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from amltk_nb.errors import CommandError
from amltk_nb.scheduling.history import BoundedRepr
from amltk_nb.views.literals import MAX_CHARS, literal_text, read_literal
from amltk_nb.views.model import safe_text

__all__ = [
    "MISSING",
    "Entry",
    "Field",
    "Option",
    "entry_of",
    "index_of",
    "read_entry",
    "shown_text",
]

MISSING: Any = inspect.Parameter.empty  # where None is a value like any other

Entry: TypeAlias = "bool | int | str"

_MAX_SHOWN = 2_000  # characters of a value that is shown and not edited
_EXAMPLES: dict[Any, str] = {
    list: "[1, 2]", dict: '{"a": 1}', tuple: "(1, 2)", set: "{1, 2}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Option:
    """One value to choose from."""

    label: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One parameter, or one of the values that `*args` and `**kwargs` take.

    Kinds: "bool" a checkbox, "choice" one of `options`, "slider" a number of a range, "int",
    "float" and "number" typed numbers, "text" a str without quotes, "literal" a value as Python
    writes it, "kept" a value that no text can stand for and that a literal can replace.
    """

    name: str  # of the parameter, or of the keyword
    kind: str
    hint: str = ""  # its type, in few words
    value: Any = MISSING  # what it shows
    sent: Any = MISSING  # what counts if nothing is entered; MISSING: it is not passed at all
    is_required: bool = False
    is_extra: bool = False  # a keyword that goes to **kwargs
    accepts: type | None = None  # the container that a literal has to be
    is_nullable: bool = False  # an empty number means None
    options: tuple[Option, ...] = ()
    limits: tuple[Any, ...] = ()  # of a slider: lowest, highest, step


def read_entry(field: Field, entry: Entry) -> Any:
    """Make a value of what was entered.

    Raises:
        ValueError: it is none that the field accepts; the message ends a sentence that begins
            with the field's name.
        CommandError: it is of a kind that no field of a page sends.
    """
    kinds: dict[str, type] = {"bool": bool, "choice": int}
    wanted = kinds.get(field.kind, str)
    if type(entry) is not wanted:
        raise CommandError(
            f"The entry of {field.name} must be of type {wanted.__name__}, not "
            f"{type(entry).__name__}."
        )
    return _READERS[field.kind](field, entry)


def entry_of(field: Field, value: Any) -> Entry | None:
    """Return the entry that stands for a value in this field; None: there is none."""
    if value is MISSING or field.kind == "kept":
        return None
    if field.kind == "bool":
        return bool(value)
    if field.kind == "choice":
        return index_of(field.options, value)
    if field.kind == "text":
        return str(value)
    if value is None and field.is_nullable:
        return ""
    return repr(value) if isinstance(value, float) else literal_text(value)


def shown_text(value: Any, limit: int = _MAX_SHOWN) -> str:
    """Return the text of a value that is shown only."""
    try:
        bounded = BoundedRepr(limit, n_items=100)
        bounded.maxlevel = 10
        return safe_text(bounded.repr(value), limit)
    except Exception as error:  # the repr is the user's
        return f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"


def index_of(options: tuple[Option, ...], value: Any) -> int | None:
    """Return which option a value is; None: none of them."""
    for i, option in enumerate(options):
        if option.value is value or (type(option.value) is type(value) and _equal(option, value)):
            return i
    return None


def _equal(option: Option, value: Any) -> bool:
    try:
        return bool(option.value == value)
    except Exception:  # arrays have no one answer, and classes of users may have none at all
        return False


def _bounded(text: str) -> str:
    if len(text) > MAX_CHARS:
        raise ValueError(f"takes at most {MAX_CHARS:,} characters, and this is {len(text):,}.")
    return text


def _is_none(field: Field, text: str) -> bool:
    return field.is_nullable and text.strip() in ("", "None")


def _said(text: str) -> str:
    return "it is empty" if not text.strip() else f"this is {reprlib.repr(text)}"


def _read_whole(field: Field, text: str) -> int | None:
    if _is_none(field, _bounded(text)):
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"needs a whole number, like 3; {_said(text)}.") from None


def _read_float(field: Field, text: str) -> float | None:
    if _is_none(field, _bounded(text)):
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"needs a number, like 2.5 or 1e-3; {_said(text)}.") from None


def _read_number(field: Field, text: str) -> float | None:
    try:
        return _read_whole(field, text)
    except ValueError:
        return _read_float(field, text)


def _read_slider(field: Field, text: str) -> float:
    low, high, _ = field.limits
    read = _read_whole if all(type(n) is int for n in field.limits) else _read_float
    number = read(field, text)
    if number is None or not low <= number <= high:
        raise ValueError(f"takes a number from {low!r} to {high!r}; {_said(text)}.")
    return number


def _read_choice(field: Field, number: int) -> Any:
    if not 0 <= number < len(field.options):
        raise CommandError(f"{field.name} has the options 0 to {len(field.options) - 1}.")
    return field.options[number].value


def _read_literal(field: Field, text: str) -> Any:
    value, wanted = read_literal(text), field.accepts
    if wanted is not None and type(value) is not wanted:
        raise ValueError(
            f"needs a {wanted.__name__}, like {_EXAMPLES[wanted]}; this is of type "
            f"{type(value).__name__}."
        )
    return value


_READERS: dict[str, Callable[[Field, Any], Any]] = {
    "bool": lambda _, entry: entry,
    "choice": _read_choice,
    "slider": _read_slider,
    "int": _read_whole,
    "float": _read_float,
    "number": _read_number,
    "text": lambda _, text: _bounded(text),
    "literal": _read_literal,
    "kept": _read_literal,
}
