"""How a call travels through an executor that is not ours.

`Shipment` is what is submitted, `Parcel` what comes back. Both pickle themselves by value with
cloudpickle, and only if the executor pickles at all: in a thread pool nothing is copied. So
functions and classes of a notebook work in any executor, whose workers need only this module.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import cloudpickle

from amltk_nb.errors import NotPicklableError

__all__ = ["Parcel", "Shipment"]


class Shipment:
    """A function with its arguments; calling it runs it."""

    __slots__ = ("work",)

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Pack a call."""
        self.work = (fn, args, kwargs)

    def __call__(self) -> Parcel:
        """Run the call; what it raises is in the parcel, so that its type survives any executor."""
        fn, args, kwargs = self.work
        started_at, began = time.time(), time.perf_counter()
        value, error = None, None
        try:
            value = fn(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        except Exception as raised:
            value, error = None, raised  # a coroutine that failed cannot travel
        return Parcel(value, error, started_at, time.perf_counter() - began)

    def __dask_tokenize__(self) -> str:
        # The executor of a Dask client runs what has the same token once, for all who ask.
        return uuid4().hex

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _unpack, (_dumped(self.work, f"the function {_name(self.work[0])} or an argument"),)


class Parcel:
    """The outcome of a shipment."""

    __slots__ = ("error", "seconds", "started_at", "value")

    def __init__(
        self, value: Any, error: BaseException | None, started_at: float, seconds: float
    ) -> None:
        """Pack an outcome; times are seconds since the epoch and seconds."""
        self.value = value
        self.error = error
        self.started_at = started_at
        self.seconds = seconds

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        times = (self.started_at, self.seconds)
        try:
            blob = _dumped((self.value, self.error), f"the result, a {type(self.value).__name__},")
        except NotPicklableError as error:
            blob = cloudpickle.dumps((None, error))
        return _unpack_parcel, (blob, *times)


def _dumped(value: Any, what: str) -> bytes:
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        raise NotPicklableError(
            f"{what} cannot be sent between processes: {error}. Send plain data and open files, "
            "locks and connections inside the function."
        ) from error


def _unpack(blob: bytes) -> Shipment:
    return Shipment(*pickle.loads(blob))


def _unpack_parcel(blob: bytes, started_at: float, seconds: float) -> Parcel:
    value, error = pickle.loads(blob)
    return Parcel(value, error, started_at, seconds)


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", None) or type(fn).__name__
