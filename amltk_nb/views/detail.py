"""All of one call, in texts: what an open row of the dashboard and a report say of it."""

from __future__ import annotations

import inspect
import traceback
from typing import TYPE_CHECKING, Any

from amltk_nb.scheduling.history import BoundedRepr
from amltk_nb.views.model import safe_text

if TYPE_CHECKING:
    from amltk_nb.scheduling.call import Call

__all__ = ["MAX_CHARACTERS", "MAX_PARAMETERS", "detail_of", "said_of"]

MAX_CHARACTERS = 100_000  # of each text in a detail
MAX_PARAMETERS = 100

# Ours and multiprocessing's, and that of concurrent.futures, which loky shares: all written alike.
_REMOTE = {"RemoteTraceback", "_RemoteTraceback"}

_CUT = ("…", "...)", "...]", "...}")  # how a shortened repr ends


def detail_of(call: Call) -> dict[str, Any]:
    """Return all that can be told of a call, as texts."""
    result, is_part = _result(call)
    return {
        "call": call.id,
        "state": str(call.state),
        "function": safe_text(call.describe(), 1_000),
        "arguments": _arguments(call),
        "result": result,
        "result_is_part": is_part,
        "error": None if call.error is None else _error_text(call.error),
        "output": safe_text(call.output, MAX_CHARACTERS, keep="end") if call.output else None,
        "resubmitted_from": call.resubmitted_from,
    }


def _result(call: Call) -> tuple[str | None, bool]:
    """Show a result, and say whether that is all that is left of it.

    A result lives as long as its future; the call itself keeps only the beginning of its text.
    """
    kept = call.result_text
    if kept is None:
        return None, False
    future = call.settled() if call.settled is not None else None
    if future is None:
        return safe_text(kept, MAX_CHARACTERS), kept.endswith(_CUT)
    return _text_of(future.result(), MAX_CHARACTERS), False


def _arguments(call: Call) -> list[dict[str, str]]:
    """Return the arguments with their parameters' names, where the signature tells them."""
    named: list[tuple[str, object]]
    try:
        named = list(inspect.signature(call.fn).bind(*call.args, **call.kwargs).arguments.items())
    except (TypeError, ValueError):  # builtins without a signature, and calls that do not fit
        named = [(str(i), value) for i, value in enumerate(call.args)]
        named += list(call.kwargs.items())
    budget = MAX_CHARACTERS // max(1, min(len(named), MAX_PARAMETERS))
    return [
        {"name": safe_text(name, 200), "text": _text_of(value, budget)}
        for name, value in named[:MAX_PARAMETERS]
    ]


def _error_text(error: BaseException) -> str:
    """Return the traceback as it was in the worker; as it is here for what ran or broke here."""
    try:
        cause = error.__cause__
        if type(cause).__name__ in _REMOTE:  # around it stand only our own frames
            text = str(cause).removeprefix('\n"""\n').removesuffix('"""')
        else:
            text = "".join(traceback.format_exception(error))
    except Exception:  # the exception's own code may fail while it is being printed
        text = f"{type(error).__name__}: {said_of(error)}"
    return safe_text(text, MAX_CHARACTERS, keep="end")


def said_of(error: BaseException) -> str:
    """Return an error's message, whatever its own code does."""
    try:
        return str(error)
    except Exception:
        return "<no text: its str() raised>"


def _text_of(value: object, limit: int) -> str:
    try:
        bounded = BoundedRepr(limit, n_items=1_000)
        bounded.maxlevel = 20
        return safe_text(bounded.repr(value), limit)
    except Exception as error:  # reprlib goes by type names, which a user's class may share
        return f"<{type(value).__name__} whose repr() raised {type(error).__name__}>"
