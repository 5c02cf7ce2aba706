"""Callbacks as functions: how much of a payload they take, and how they read."""

from __future__ import annotations

import inspect  # dataclasses has loaded it already
import re
import reprlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import BuiltinMethodType, MethodType
from typing import Any

from amltk_nb.events.event import EventSpec

__all__ = [
    "fitted",
    "full_text",
    "is_same",
    "name_of",
    "qualified_name",
    "signature_text",
]

Callback = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Which arguments a callable can take."""

    names: tuple[str, ...] = ("",)  # of the positional ones; "" cannot be given by keyword
    n_required: int = 0
    most: int = 1
    keywords: frozenset[str] = frozenset()  # keyword-only
    required_keywords: tuple[str, ...] = ()
    any_keyword: bool = False


def _parameters(callback: Callback) -> _Parameters:
    try:
        found = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):
        return _Parameters()  # some builtins: they take one thing, as `list.append` does
    kind = inspect.Parameter
    positional = [p for p in found if p.kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)]
    keyword_only = [p for p in found if p.kind is kind.KEYWORD_ONLY]
    return _Parameters(
        names=tuple("" if p.kind is kind.POSITIONAL_ONLY else p.name for p in positional),
        n_required=sum(p.default is kind.empty for p in positional),
        most=sys.maxsize if any(p.kind is kind.VAR_POSITIONAL for p in found) else len(positional),
        keywords=frozenset(p.name for p in keyword_only),
        required_keywords=tuple(p.name for p in keyword_only if p.default is kind.empty),
        any_keyword=any(p.kind is kind.VAR_KEYWORD for p in found),
    )


def fitted(callback: Callback, spec: EventSpec) -> Callback:
    """Make a callable that takes the whole payload and passes on what the callback has room for.

    Raises:
        TypeError: the callback needs more than the event has.
    """
    takes = _parameters(callback)
    if spec.is_open:
        return _fitted_to_open(callback, spec, takes)
    if takes.n_required > spec.n_fixed or takes.required_keywords:
        needs = f"{takes.n_required} positional arguments"
        if takes.required_keywords:
            needs = "the keywords " + ", ".join(takes.required_keywords)
        raise TypeError(
            f"{name_of(callback)!r} needs {needs}, and @{spec.name} passes {spec.payload}: "
            "take these or fewer, or give the other parameters defaults."
        )
    n = min(spec.n_fixed, takes.most)
    if n == spec.n_fixed:
        return callback
    if n == 0:
        return lambda *_: callback()
    if spec.keep == "first":
        return lambda *args: callback(*args[:n])
    return lambda *args: callback(*args[-n:])


def _fitted_to_open(callback: Callback, spec: EventSpec, takes: _Parameters) -> Callback:
    keep_first, names, n_fixed = spec.keep == "first", takes.names, spec.n_fixed
    first_free = n_fixed if keep_first else 0  # the future of on_submitted(future) is never theirs

    def call(*args: Any, **kwargs: Any) -> Any:
        most = takes.most
        if kwargs:  # what comes by keyword leaves no room for a positional one
            given = (i for i in range(first_free, len(names)) if names[i] in kwargs)
            most = next(given, most)
        taken = args[:most] if keep_first else args[max(len(args) - most, 0) :]
        if not kwargs:
            return callback(*taken)
        filled, free = names[: len(taken)], takes.keywords.union(names[len(taken) :])
        accepted = {
            key: value
            for key, value in kwargs.items()
            if key in free or (takes.any_keyword and key not in filled)
        }
        return callback(*taken, **accepted)

    return call


# How a callback is named and shown


def _innermost(callback: Callback) -> Callback:
    while isinstance(callback, partial):
        callback = callback.func
    return callback


def name_of(callback: Callback) -> str:
    """Say what a callback is called."""
    inner = _innermost(callback)
    return getattr(inner, "__name__", None) or type(inner).__name__


def qualified_name(callback: Callback) -> str:
    """Say what a callback is called, with the class or function around it."""
    inner = _innermost(callback)
    return getattr(inner, "__qualname__", None) or type(inner).__qualname__


def is_same(one: Callback, other: Callback) -> bool:
    """Say whether two callbacks are one; a method is made anew at every access."""
    if isinstance(one, MethodType | BuiltinMethodType):
        return bool(one == other)
    return one is other


class _Verbatim(str):
    """Text that `inspect` puts into a signature as it is."""

    __slots__ = ()
    __repr__ = str.__str__


_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = _SHORT.maxlong = 120
_LONGEST_DEFAULT, _LONGEST_TEXT = 40, 200


def _cut(text: str, n: int) -> str:
    return text if len(text) <= n else text[: n - 1] + "…"


def _annotation(annotation: Any) -> Any:
    if isinstance(annotation, str):
        return _Verbatim(annotation)
    if isinstance(annotation, type) and getattr(annotation, "__module__", "") == "__main__":
        return _Verbatim(annotation.__qualname__)
    return annotation


def _default(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return value
    # addresses differ from run to run, and outputs of notebooks are compared
    return _Verbatim(_cut(re.sub(r" at 0x[0-9a-fA-F]+", "", _SHORT.repr(value)), _LONGEST_DEFAULT))


def signature_text(function: Callback) -> str:
    """Write what a function takes and returns as its author would: "(n: int = 3) -> list[int]".

    Long defaults are cut; there are no memory addresses in it.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    parameters = [
        p.replace(annotation=_annotation(p.annotation), default=_default(p.default))
        for p in signature.parameters.values()
    ]
    returns = _annotation(signature.return_annotation)
    written = str(signature.replace(parameters=parameters, return_annotation=returns))
    return _cut(written, _LONGEST_TEXT)


def full_text(callback: Callback) -> str:
    """Write the line that defines a callback: "def record(result: int) -> None"."""
    inner, signature = _innermost(callback), signature_text(callback)
    if name_of(callback) == "<lambda>":
        return f"lambda {signature[1:-1]}".strip()
    text = name_of(callback) + signature
    if not (inspect.isfunction(inner) or inspect.ismethod(inner)):
        return text
    return ("async def " if inspect.iscoroutinefunction(inner) else "def ") + text
