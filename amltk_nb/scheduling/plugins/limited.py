"""A call in a process of its own, which may be ended for what it uses.

This runs where the call was sent to, a worker process or a thread: it starts the child with
pynisher, which sets the limits and finds out which of them ended it; `limited_child` is the
child's side. Function, arguments, result and error travel between them as cloudpickle makes them,
since pynisher's own way needs everything to be importable.

The child comes from the private fork server of `executors.launch`: forked from a process with a
single thread, it can inherit no lock that is held for ever, and it starts without the memory of
a kernel, which a memory limit would count.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial, update_wrapper
from multiprocessing import process
from typing import Any, NamedTuple, cast

import cloudpickle

from amltk_nb.scheduling.executors.launch import exit_code, preload, start, worker_context
from amltk_nb.scheduling.functions import ship_function
from amltk_nb.scheduling.plugins.limited_child import Parcel, answer
from amltk_nb.scheduling.shipping import (
    function_name,
    not_picklable,
    rebuilt_error,
    ship_arguments,
)

__all__ = ["Limited", "Limits"]

_MAX_OUTPUT_BYTES = 1 << 16  # of what a call on a thread prints, as for one in a worker


class Limits(NamedTuple):
    """What a call may use; None is no limit."""

    memory_bytes: int | None
    cpu_time_s: int | None
    wall_time_s: float | None


class Limited:
    """A function that runs within limits, in a child of whichever process calls it."""

    is_elsewhere = True  # what acts on the process of a function must be put inside

    def __init__(self, fn: Callable[..., Any], limits: Limits) -> None:
        """Wrap a function; a coroutine function is run to its end in the child."""
        self.limits = limits
        self._children: set[_Child] = set()
        update_wrapper(self, fn, updated=())  # its name for messages, itself as __wrapped__

    def __reduce__(self) -> Any:
        return Limited, (cast(Any, self).__wrapped__, self.limits)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function.

        Raises:
            ResourceLimitError: it went over a limit.
            WorkerDiedError: its process died of something else.
            NotPicklableError: the function, an argument or the result cannot travel.
        """
        fn: Callable[..., Any] = cast(Any, self).__wrapped__
        child = _Child()
        self._children.add(child)
        try:
            with _relayed_output() as output:
                parcel = _packed(fn, args, kwargs, output)
                run = partial(_run, child, parcel, self.limits)
                on_main = threading.current_thread() is threading.main_thread()
                kind, sent = _aside(run, child) if on_main else run()
        finally:
            self._children.discard(child)
            child.close()
        if kind == "value":
            return cloudpickle.loads(sent)
        raise _error(kind, sent, parcel.name, self.limits)

    def end(self) -> None:
        """End the children that run this now; their calls fail with WorkerDiedError."""
        for child in list(self._children):
            child.end()


def _packed(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: str | None) -> Parcel:
    shipped = ship_function(fn)
    pickled, buffers = ship_arguments(fn, args, kwargs)
    # Bytearrays, since arrays over bytes would be read-only.
    arguments = bytes(pickled), [bytearray(buffer) for buffer in buffers]
    return Parcel(function_name(fn), shipped.packed, arguments, output)


def _run(child: _Child, parcel: Parcel, limits: Limits) -> tuple[str, Any]:
    """Run a call in a child; returns what kind of answer it gave, and that."""
    import psutil
    import pynisher

    limited = pynisher.Pynisher(
        answer,
        memory=limits.memory_bytes,
        cpu_time=limits.cpu_time_s,
        context=cast(Any, child),
        warnings=False,
        # It would look for children of a process that may be gone already, and where nobody reaps
        # orphans (many containers) wait for them without end. `_Child.close` ends them.
        terminate_child_processes=False,
    )
    limited.wall_time = cast(Any, limits.wall_time_s)  # its constructor takes none below 1 s
    try:
        return limited(parcel)
    except pynisher.WallTimeoutException:
        return "wall time", None
    except pynisher.CpuTimeoutException:
        return "CPU time", None
    except pynisher.MemoryLimitException:
        return "memory", None
    except psutil.NoSuchProcess:
        # It ended in the moment that pynisher wanted to end it, which then forgets what it said.
        said = child.ear.said if child.ear is not None else None
        return ("death", child.exit_code()) if said is None or said[0] is None else said[0]
    except pynisher.PynisherException:
        code = child.exit_code()
        # What C++ libraries do without memory: nobody catches std::bad_alloc.
        is_aborted = limits.memory_bytes is not None and code == -signal.SIGABRT
        return ("memory", None) if is_aborted else ("death", code)


def _aside(run: Callable[[], tuple[str, Any]], child: _Child) -> tuple[str, Any]:
    """Run on another thread; an interrupt of this one ends the child.

    On a main thread pynisher sets a handler for SIGTERM that it never takes back, and that keeps
    the process from being ended.
    """
    done: Future[tuple[str, Any]] = Future()

    def main() -> None:
        try:
            done.set_result(run())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=main, name="amltk-nb-limited", daemon=True).start()
    try:
        return done.result()
    except BaseException:
        if not done.done():
            child.end()
        raise


def _error(kind: str, sent: Any, name: str, limits: Limits) -> BaseException:
    """Make what a call raises that returned nothing."""
    if kind == "error":
        return rebuilt_error(sent)
    if kind == "unpicklable":
        return not_picklable(sent)
    if kind == "death":
        return _death(name, sent)
    from amltk_nb.scheduling.plugins import limit_errors

    if kind == "wall time":
        return limit_errors.WallTimeLimitError(
            f"{name}() had not returned after {limits.wall_time_s:g} s, its limit of wall time, "
            "and was ended with all it had started. Allow it more, or have it do less per call."
        )
    if kind == "CPU time":
        return limit_errors.CpuTimeLimitError(
            f"{name}() had computed for {limits.cpu_time_s} s, its limit of CPU time, and was "
            "ended with all it had started. Allow it more, or have it do less per call."
        )
    text = f" It was told: {sent[2] or sent[1]}." if sent is not None else ""
    error = limit_errors.MemoryLimitError(
        f"{name}() wanted more than {cast(int, limits.memory_bytes) / 2**20:,.1f} MB, its limit of "
        f"memory.{text} The limit is one of addresses: libraries, stacks of threads and "
        "reserved memory count as well. Allow it more, or have it hold less at a time."
    )
    if sent is not None:
        error.__cause__ = rebuilt_error(sent)
    return error


def _death(name: str, code: int | None) -> BaseException:
    from amltk_nb.errors import WorkerDiedError

    if code is None:
        how = "nobody can tell how, since the fork server that started it died as well"
    elif code >= 0:
        how = f"exit code {code}, so something in it ended the process"
    else:
        how = f"killed by {signal.Signals(-code).name}"
    return WorkerDiedError(
        f"the process of its own that ran {name}() within limits died: {how}. No limit ended it. "
        "All other calls go on. Submit it again once the cause is gone."
    )


class _Ear:
    """Where pynisher hears a child; remembers what that said."""

    def __init__(self, connection: Any) -> None:
        self.poll, self.close = connection.poll, connection.close
        self._receive = connection.recv
        self.said: Any = None  # what was returned, an error, its traceback

    def recv(self) -> Any:
        self.said = self._receive()
        return self.said


class _Child:
    """One child, and for pynisher the multiprocessing context that makes it."""

    def __init__(self) -> None:
        self._context = worker_context("forkserver")
        self._process: process.BaseProcess | None = None
        self.ear: _Ear | None = None
        self._lock = threading.Lock()  # it is started and ended on different threads
        self._is_ended = False

    def Pipe(self, duplex: bool) -> Any:
        receiving, sending = cast(Any, self._context).Pipe(duplex)
        self.ear = _Ear(receiving)
        return self.ear, sending

    def Process(self, **options: Any) -> _Child:
        self._process = cast(Any, self._context).Process(**options)
        return self

    def start(self) -> None:
        preload("amltk_nb.scheduling.plugins.limited_child", "pynisher.limiters.linux")
        with self._lock:
            if self._is_ended:
                raise RuntimeError("the call was ended before its process was there")
            assert self._process is not None
            start(self._process)
            _living.add(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    def exit_code(self) -> int | None:
        assert self._process is not None
        return exit_code(self._process)

    def end(self) -> None:
        """End it with all that it started, now; cheap enough for an event loop."""
        with self._lock:
            self._is_ended = True
            child = self._process
            if child is None or child.pid is None or child.exitcode is not None:
                return
            if not _end_group(child.pid):  # it is too young to have one
                os.kill(child.pid, signal.SIGKILL)

    def close(self) -> None:
        """End what a child has left behind, and forget it."""
        child = self._process
        if child is None or child.pid is None:
            return
        _end_group(child.pid)
        _living.discard(self)
        with self._lock:
            if child.exitcode is not None:
                child.join()
                child.close()
                self._process = None


_living: set[_Child] = set()


def _end_all() -> None:
    """At the end of an interpreter, which would wait for them; calls on threads may be left."""
    for child in list(_living):
        child.end()


# multiprocessing asks for its own turn when it is loaded, before this: so it comes after.
atexit.register(_end_all)


def _end_group(pid: int) -> bool:
    """End the processes of a group, which outlives the one it is named after."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextmanager
def _relayed_output() -> Iterator[str | None]:
    """Yield the file that shall take what a child prints, and print it here in the end.

    None if the child's descriptors lead where this process prints, as in a worker process: then
    nothing is to be done, and not even a child that is killed loses its words.
    """
    if _prints_to_descriptor():
        yield None
        return
    descriptor, path = tempfile.mkstemp(prefix="amltk-nb-output-")
    try:
        yield path
    finally:
        with open(descriptor, "rb") as file:
            text = file.read(_MAX_OUTPUT_BYTES).decode(errors="replace")
            n_bytes = os.fstat(descriptor).st_size
        os.unlink(path)
        if n_bytes > _MAX_OUTPUT_BYTES:
            text += f"\n… {n_bytes - _MAX_OUTPUT_BYTES:,} bytes left out …\n"
        if text:
            sys.stdout.write(text)


def _prints_to_descriptor() -> bool:
    if getattr(sys.stdout, "takes_output", False):  # see `remote_output`
        return False
    try:
        return sys.stdout.fileno() == 1
    except (AttributeError, OSError, ValueError):  # a notebook's stream, or none
        return False
