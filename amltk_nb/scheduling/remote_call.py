"""How a call travels to an engine that runs it elsewhere: bytes there, bytes back.

Engines get one function of ours and one `bytes`, never the user's function: some of them swallow
keyword arguments, some take equal calls for one, some lose the globals of a notebook's functions.
That function is sent by value, with all it needs of this package, so a worker needs Python of the
same version and cloudpickle, and need not have this package at all, unless the call has plugins
that work where it runs.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from importlib import import_module
from typing import Any, NamedTuple

import cloudpickle

from amltk_nb.errors import NotPicklableError, PluginError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.remote_output import CallOutput, captured, lent
from amltk_nb.scheduling.shipping import (
    error_parts,
    function_name,
    reason,
    rebuilt_error,
    ship_arguments,
    type_name,
)

__all__ = ["Answer", "Portable", "pack_call", "read_answer", "run_call"]

_VALUE, _ERROR, _UNPICKLABLE, _NO_PACKAGE = "value", "error", "unpicklable", "no package"
_LEAVE, _CAPTURE = b"\0", b"\1"  # what is to become of prints; the first byte of a packed call


class Answer(NamedTuple):
    """What came back of a call that was run elsewhere."""

    value: Any
    error: BaseException | None
    started_at: float  # seconds since the epoch, by the clock of where it ran
    seconds: float
    host: str
    pid: int
    worker: str | None  # what the engine calls the worker, if `run_call` was told
    output: str = ""  # what it printed, bounded


def pack_call(call: Call, *, captures_output: bool = True) -> bytes:
    """Pickle a call's function and arguments as they are now.

    Args:
        call: what is to be run.
        captures_output: whether what it prints travels back with its answer.

    Raises:
        NotPicklableError: naming what cannot travel.
    """
    fn, args, kwargs = call.work
    head = _CAPTURE if captures_output else _LEAVE
    try:
        return head + bytes(cloudpickle.dumps((fn, args, kwargs)))
    except Exception as error:
        ship_arguments(fn, args, kwargs)  # names the argument, if it is one
        raise NotPicklableError(
            f"the function {function_name(fn)}() cannot be pickled, so it cannot travel to a "
            f"worker: {reason(error)}. Define what it uses inside of it, or in a module that the "
            "workers can import."
        ) from error


def run_call(packed: bytes, worker: str | None = None) -> bytes:
    """Run a call; this is what runs on the worker, and what it raises is in the answer.

    Args:
        packed: from `pack_call`.
        worker: what the engine calls the worker that this runs on.
    """
    where = (socket.gethostname(), os.getpid(), worker)
    with captured(packed[:1] == _CAPTURE) as output:
        told = _told(packed, output)
    return pickle.dumps((*told, *where, output.text()))


def _told(packed: bytes, output: CallOutput) -> tuple[str, Any, float, float]:
    """Run a call; returns the kind of its answer, that itself, when it began and for how long."""
    started_at, began = time.time(), time.perf_counter()
    try:
        fn, args, kwargs = pickle.loads(memoryview(packed)[1:])
        value = fn(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = _awaited(value, output)
    except BaseException as error:
        seconds = time.perf_counter() - began
        if (missing := _lacks_package(error)) is not None:
            return _NO_PACKAGE, missing, started_at, seconds
        return _ERROR, error_parts(error, skip_frames=1), started_at, seconds
    finally:
        _hang_up()
    seconds = time.perf_counter() - began
    try:
        return _VALUE, cloudpickle.dumps(value), started_at, seconds
    except Exception as error:
        text = (
            f"the result of {function_name(fn)}() (a {type_name(value)}) cannot travel "
            f"back: {reason(error)}. Return plain values, and open files, locks and connections "
            "inside the function."
        )
        return _UNPICKLABLE, text, started_at, seconds


def _lacks_package(error: BaseException) -> str | None:
    """Say what is missing if a call could not begin for want of this package; None: it is there."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    is_missing = isinstance(error, ModuleNotFoundError) and name == "amltk_nb"
    return reason(error) if is_missing else None


def _hang_up() -> None:
    """Close what this call has used to talk with its scheduler, all that it said included."""
    talk = sys.modules.get("amltk_nb.scheduling.transports.remote_end")
    if talk is not None:
        talk.call_over()


def _awaited(coroutine: Any, output: CallOutput) -> Any:
    """Run a coroutine to its end, in a thread of its own where this one has a loop already."""
    if asyncio._get_running_loop() is None:
        return asyncio.run(coroutine)
    ended: list[Any] = []

    def main() -> None:
        with lent(output):
            try:
                ended.append((asyncio.run(coroutine), None))
            except BaseException as error:
                ended.append((None, error))

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    value, error = ended[0]
    if error is not None:
        raise error
    return value


def read_answer(answer: bytes, what: str) -> Answer:
    """Make of an answer what the call returned or raised.

    Args:
        answer: from `run_call`; unpickling runs code, so only ever what a worker of ours sent.
        what: the function's name, for messages.
    """
    kind, body, *where = pickle.loads(answer)
    value: Any = None
    error: BaseException | None = None
    if kind == _ERROR:
        error = rebuilt_error(body)
    elif kind == _UNPICKLABLE:
        error = NotPicklableError(body)
    elif kind == _NO_PACKAGE:
        place = where[4] or where[2]
        error = PluginError(_NO_PACKAGE_THERE.format(what=what, why=body, place=place))
    else:
        try:
            value = pickle.loads(body)
        except BaseException as why:  # anything, a panic of Rust code too
            error = NotPicklableError(
                f"the result of {what}() travelled back but cannot be made again here: "
                f"{reason(why)}. Return plain values, or define its class in a module."
            )
            error.__cause__ = why
    return Answer(value, error, *where)


_NO_PACKAGE_THERE = (
    "{what}() could not begin on the worker {place}: {why}. Plugins such as Comm and Progress work "
    "where the call runs, so that worker needs amltk_nb, in the version of here: install it there "
    "(pip install amltk-nb), or leave these plugins out."
)


class Portable:
    """A function of this package that any pickler sends by value, whole.

    `Portable(run_call)` is what to give to an engine. A member of the family may wrap `run_call`
    in a function of its own module that also tells it the worker's name.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        """Pack a function that uses nothing of the package but its own module and this one."""
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self._fn = fn
        self.packed = _by_value(fn)
        key = "_amltk_nb_" + blake2b(self.packed, digest_size=16).hexdigest()
        self._names = {"key": key, "load": pickle.loads, "packed": self.packed}

    def __call__(self, *args: Any) -> Any:
        """Run it here."""
        return self._fn(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (_LOAD_ONCE, dict(self._names))


# What comes with every call is made once in each process: that takes longer than many a call, and
# a function that did it could itself only come by value. So it is an expression, which any Python
# knows how to evaluate; a short one, since it is compiled each time.
_LOAD_ONCE = "(kept := __import__('sys').__dict__).get(key) or kept.setdefault(key, load(packed))"


_registering = threading.Lock()


def _by_value(fn: Callable[..., Any]) -> bytes:
    """Pickle a function with the functions of this package that it uses."""
    # What is registered counts for the whole process, so only as long as it takes.
    with _registering:
        names = {fn.__module__, __name__, type_name.__module__, captured.__module__}
        new = [import_module(n) for n in names - cloudpickle.list_registry_pickle_by_value()]
        for module in new:
            cloudpickle.register_pickle_by_value(module)
        try:
            return bytes(cloudpickle.dumps(fn))
        finally:
            for module in new:
                cloudpickle.unregister_pickle_by_value(module)
