"""How functions, arguments, results and errors travel between a notebook and its workers.

Plain pickle sends functions and classes of `__main__` by reference, and workers have no such main
module. So cloudpickle does the work: what can be imported goes by reference, the rest by value.
Only flat values of built-in types take the short way, which is ten times quicker.

Functions have a module of their own, which workers do not need: `functions`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import cloudpickle

from amltk_nb.scheduling.buffers import copied

__all__ = [
    "SCALARS",
    "Packed",
    "RemoteError",
    "RemoteTraceback",
    "beside",
    "error_parts",
    "function_name",
    "not_picklable",
    "pack",
    "reason",
    "rebuilt_error",
    "ship_arguments",
    "type_name",
    "unpack",
    "unpicklable",
]

Fn = Callable[..., Any]
# The pickle (bytes or a buffer of them), and the large buffers of it that travel beside.
Packed = tuple[Any, list[Any]]

SCALARS = frozenset({int, float, str, bytes, bool, complex, type(None)})
_FLAT = frozenset({tuple, list, set, frozenset})
_MAX_FLAT = 64  # items; a longer list is no small call any more
_BESIDE_BYTES = 1 << 14  # buffers from this size on travel beside the pickle


class RemoteTraceback(Exception):
    """The traceback of a worker as text; the `__cause__` of what was raised there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class RemoteError(Exception):
    """Stands in for an exception that cannot travel itself; says its type and message."""


def type_name(value: object) -> str:
    """Name a value's type as its module does: "_thread.lock", "int"."""
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def function_name(fn: Fn) -> str:
    """Name a function for messages."""
    while isinstance(fn, partial):
        fn = fn.func
    return getattr(fn, "__name__", None) or type_name(fn)


# --- values ---------------------------------------------------------------------------------


def pack(value: object, *, copy: bool = False) -> Packed:
    """Pickle a value by the rules of this module.

    Args:
        value: anything.
        copy: whether large buffers are copied, so that later changes in place do not show.

    Raises:
        Exception: whatever the value's own pickling raises.
    """
    if _is_flat(value):
        return pickle.dumps(value, 5), []
    buffers: list[Any] = []

    def large(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if len(raw) < _BESIDE_BYTES:
            return True  # which means: leave it in the pickle
        # A bytearray, since arrays made over bytes would be read-only.
        buffers.append(pickle.PickleBuffer(copied(raw)) if copy and not raw.readonly else buffer)
        return False

    return beside(cloudpickle.dumps(value, 5, large)), buffers


def beside(data: bytes) -> Any:
    """Mark bytes to travel beside the pickle that holds them, if they are many."""
    return data if len(data) < _BESIDE_BYTES else pickle.PickleBuffer(data)


def unpack(packed: Packed) -> Any:
    """Make the value again; unpickling runs code, so only ever what a worker of ours sent."""
    return pickle.loads(packed[0], buffers=packed[1])


def _is_flat(value: object) -> bool:
    """Whether plain pickle does the same as cloudpickle: built-in types only, one level deep."""
    kind = type(value)
    if kind in SCALARS:
        return True
    if kind in _FLAT:
        return len(value) <= _MAX_FLAT and all(type(item) in SCALARS for item in value)  # type: ignore[arg-type,attr-defined]
    if kind is dict:
        return len(value) <= _MAX_FLAT and all(  # type: ignore[arg-type]
            type(key) in SCALARS and type(item) in SCALARS
            for key, item in value.items()  # type: ignore[attr-defined]
        )
    return False


# --- arguments ------------------------------------------------------------------------------

_NO_ARGUMENTS: Packed = (pickle.dumps(((), {}), 5), [])


def ship_arguments(fn: Fn, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """Pickle a call's arguments as they are now.

    Raises:
        NotPicklableError: naming the argument.
    """
    if not args and not kwargs:
        return _NO_ARGUMENTS
    if all(map(_is_flat, args)) and (not kwargs or all(map(_is_flat, kwargs.values()))):
        return pickle.dumps((args, kwargs), 5), []
    try:
        return pack((args, kwargs), copy=True)
    except Exception as error:
        raise _blame_argument(fn, args, kwargs, error) from error


def _blame_argument(
    fn: Fn, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> Exception:
    named = [(f"argument {i}", value) for i, value in enumerate(args, start=1)]
    named += [(f"argument {name}=", value) for name, value in kwargs.items()]
    culprits = unpicklable(named)
    what, value, why = culprits[0] if culprits else ("one of the arguments", args, error)
    advice = (
        "It is a future: pass its result, `await future`, or submit in a callback of its result."
        if _holds_future(value)
        else "Pass plain values (a path, a name, numbers) and make it inside the function."
    )
    return not_picklable(
        f"{what} (a {type_name(value)}) of {function_name(fn)}() cannot be pickled, so it cannot "
        f"travel to a worker process: {reason(why)}. {advice}"
    )


def _holds_future(value: object, depth: int = 3) -> bool:
    asyncio = sys.modules.get("asyncio")  # not loaded: nobody can have made one
    if asyncio is not None and asyncio.isfuture(value):
        return True
    items: Any = value.values() if isinstance(value, dict) else value
    if depth == 0 or not isinstance(value, (dict, list, tuple, set)):
        return False
    return any(_holds_future(item, depth - 1) for item in items)


def unpicklable(named: Iterable[tuple[str, Any]]) -> list[tuple[str, Any, Exception]]:
    """Find out which of some named values cannot be pickled, and why."""
    found = []
    for name, value in named:
        try:
            pack(value)
        except Exception as error:  # anything a value's own __reduce__ may raise
            found.append((name, value, error))
    return found


def reason(error: BaseException) -> str:
    """Say an error in one sentence without its full stop."""
    return f"{type(error).__name__}: {error}".rstrip(".")


def not_picklable(message: str) -> Exception:
    """Make a `NotPicklableError`."""
    # Workers import this module at their start and should not pay for what errors imports.
    from amltk_nb.errors import NotPicklableError

    return NotPicklableError(message)


# --- errors ---------------------------------------------------------------------------------

ErrorParts = tuple[bytes | None, str, str, str]  # pickle, type, message, traceback


def error_parts(error: BaseException, *, skip_frames: int) -> ErrorParts:
    """Take an exception apart to be sent.

    Args:
        error: what a call raised.
        skip_frames: so many outer frames of its traceback are the worker's own.
    """
    import traceback

    frames = error.__traceback__
    for _ in range(skip_frames):
        frames = frames.tb_next if frames is not None else None
    text = "".join(traceback.format_exception(type(error), error, frames))
    try:
        packed = cloudpickle.dumps(_taken_apart(error), 5)
    except Exception:  # its own __reduce__ or an argument of it: the stand-in says the rest
        packed = None
    return packed, type_name(error), _message(error), text


def _taken_apart(error: BaseException) -> Any:
    """Return type, arguments and attributes, unless the exception's type knows a better way."""
    made = error.__reduce_ex__(5)
    if isinstance(made, tuple) and made[0] is type(error) and len(made) <= 3:
        return (*made, None) if len(made) == 2 else made
    return error


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # a faulty __str__ must not hide the error
        return f"<its message cannot be shown: {reason(broken)}>"


def rebuilt_error(parts: ErrorParts) -> BaseException:
    """Make the exception again, or what stands in for it, with the remote traceback as cause."""
    packed, name, message, text = parts
    error = _loaded_error(packed) or RemoteError(f"{name}: {message}")
    error.__cause__ = RemoteTraceback(text)
    if isinstance(error, StopIteration):
        # No future can hold one: it would end the coroutine that awaits it.
        wrapped = RuntimeError(f"the call raised StopIteration({message})")
        wrapped.__cause__ = error
        return wrapped
    return error


def _loaded_error(packed: bytes | None) -> BaseException | None:
    try:
        error = pickle.loads(packed) if packed is not None else None
        if isinstance(error, tuple):
            error = _put_together(*error)
    except BaseException:  # whatever its own code may raise, a panic of Rust code too
        return None
    return error if isinstance(error, BaseException) else None


def _put_together(
    kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any] | None
) -> BaseException:
    try:
        error = kind(*args)
    except TypeError:  # its constructor does not take what its args hold; its type counts more
        error = kind.__new__(kind, *args)
    if state:
        error.__setstate__(state)
    return error
