"""The parameters of a function as fields of a form, and values as arguments for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from amltk_nb.views.fields import MISSING, Field
from amltk_nb.views.kinds import field_for

__all__ = [
    "ANYTHING",
    "STARS",
    "Arguments",
    "arguments_of",
    "call_fields",
    "signature_of",
    "task_fields",
    "without",
]

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

ANYTHING = inspect.signature(lambda *args, **kwargs: None)
STARS: Mapping[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**",
}  # fmt: skip

_MAX_EXTRAS = 50


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with its hints as objects, as far as they can be had."""
    for eval_str in (True, False):  # hints in quotes may name what is not there (yet)
        try:
            return inspect.signature(fn, eval_str=eval_str)
        except Exception:  # also what evaluating the author's own hints raises
            continue
    return ANYTHING


def without(signature: inspect.Signature, names: Sequence[str | None]) -> inspect.Signature:
    """Leave out the parameters that plugins fill."""
    kept = [p for p in signature.parameters.values() if p.name not in names]
    return signature.replace(parameters=kept)


def task_fields(signature: inspect.Signature, overrides: Mapping[str, Any]) -> Iterator[Field]:
    """Make the fields for new calls.

    Raises:
        TypeError: there is no parameter of an override's name.
        ValueError: an override that makes no sense.
    """
    left = dict(overrides)
    for name, parameter in signature.parameters.items():
        override = left.pop(name, MISSING) if parameter.kind not in STARS else MISSING
        if parameter.kind is parameter.VAR_KEYWORD:
            extras = [key for key in left if key not in signature.parameters]
            yield from (_extra(key, MISSING, left.pop(key)) for key in extras)
        yield _of_parameter(parameter, value=MISSING, override=override)
    if left:
        known = ", ".join(signature.parameters) or "none"
        raise TypeError(
            f"form() got {', '.join(map(repr, left))}, which the function does not take. Its "
            f"parameters are {known}."
        )


def call_fields(
    signature: inspect.Signature, passed: Mapping[str, Any], *, is_open: bool
) -> Iterator[Field]:
    """Make the fields for what a call has passed.

    Args:
        signature: of the function.
        passed: by parameter what it has passed.
        is_open: whether plugins may add arguments, so that none is required.
    """
    for name, parameter in signature.parameters.items():
        value = passed.get(name, MISSING)
        is_there = parameter.kind is parameter.VAR_KEYWORD and value is not MISSING
        if is_there and _can_stand_alone(value, signature):
            yield from (_extra(key, item, MISSING) for key, item in value.items())
            value = MISSING
        field = _of_parameter(parameter, value=value, override=MISSING)
        yield replace(field, is_required=field.is_required and not is_open)


def _can_stand_alone(extras: Mapping[str, Any], signature: inspect.Signature) -> bool:
    """Say whether each keyword that `**kwargs` took can be a field by itself."""
    return len(extras) <= _MAX_EXTRAS and all(
        key.isprintable() and len(key) <= 200 and key not in signature.parameters for key in extras
    )


def _of_parameter(parameter: inspect.Parameter, *, value: Any, override: Any) -> Field:
    """Make one field.

    Args:
        parameter: of the function.
        value: what a call has passed; MISSING: nothing.
        override: what somebody asked for in place of the default.
    """
    if parameter.kind in STARS:
        return _star(parameter, value)
    shown = parameter.default if value is MISSING else value
    field = field_for(parameter.name, hint=parameter.annotation, value=shown, override=override)
    if value is not MISSING:
        return replace(field, sent=value)
    if override is not MISSING and field.kind not in ("slider", "choice"):
        return replace(field, sent=override)
    nothing = field.sent is MISSING and field.value is MISSING
    return replace(field, is_required=nothing)


def _extra(name: str, value: Any, override: Any) -> Field:
    """Make the field of one keyword among those that `**kwargs` takes."""
    field = field_for(name, value=value, override=override)
    sent = field.value if field.sent is MISSING else field.sent
    return replace(field, sent=sent, is_extra=True)


def _star(parameter: inspect.Parameter, value: Any) -> Field:
    """Make the field of `*args` or `**kwargs`: one list or dict."""
    is_args = parameter.kind is parameter.VAR_POSITIONAL
    shown = value if not value or value is MISSING else (list(value) if is_args else value)
    field = field_for(parameter.name, value=shown if shown else MISSING)
    hint = "more values, as a list" if is_args else "more named values, as a dict"
    return replace(field, hint=hint, sent=value, accepts=list if is_args else dict)


def arguments_of(signature: inspect.Signature, values: Mapping[str, Any]) -> Arguments:
    """Put values in the places of a call: what can stand without its name does."""
    parameters = list(signature.parameters.values())
    # What stands further back without a name needs all before it, defaults included.
    last = max((i for i, p in enumerate(parameters) if _stands_bare(p, values)), default=-1)
    filled: dict[str, Any] = {}
    for i, p in enumerate(parameters):
        if p.kind is p.VAR_POSITIONAL:
            if i <= last:  # an empty one behind a gap would be passed by its name
                filled[p.name] = tuple(values[p.name])
        elif p.name in values:
            filled[p.name] = values[p.name]
        elif i < last and p.default is not p.empty:
            filled[p.name] = p.default
    bound = inspect.BoundArguments(signature, filled)
    return bound.args, bound.kwargs


def _stands_bare(parameter: inspect.Parameter, values: Mapping[str, Any]) -> bool:
    """Say whether a value is there that cannot be passed by name."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return len(values.get(parameter.name, ())) > 0
    return parameter.kind is parameter.POSITIONAL_ONLY and parameter.name in values
