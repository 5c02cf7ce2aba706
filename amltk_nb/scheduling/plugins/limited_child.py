"""What runs in a process that is made for one call within limits, and that call.

It loads little, because each such call has to wait for it.
"""

from __future__ import annotations

import ctypes  # here, not on use: it would be loaded within the limits
import os
import signal
import sys
from multiprocessing import forkserver, parent_process
from types import CoroutineType
from typing import Any, cast

import cloudpickle

from amltk_nb.scheduling.shipping import error_parts, reason, type_name

__all__ = ["Parcel", "answer"]

_PR_SET_PDEATHSIG = 1  # of sys/prctl.h


class Parcel:
    """A call on its way into the child."""

    def __init__(self, name: str, function: bytes, arguments: Any, output: str | None) -> None:
        """Pack it.

        Args:
            name: of the function, for messages.
            function: its pickle.
            arguments: the packed pair of positional and keyword arguments.
            output: the file that takes what is printed; None: it goes where the parent's goes.
        """
        self.name = name
        self.function = function
        self.arguments = arguments
        self.output = output
        self.environ = dict(os.environ)  # the fork server has that of its own start

    def __str__(self) -> str:
        return "…"  # pynisher writes all arguments into its messages


def answer(parcel: Parcel) -> tuple[str, Any]:
    """Run a call in this process, which is there for nothing else.

    Returns:
        A kind and what belongs to it: "value" with the pickled result, "error" or "memory" with
        the parts of the error, "unpicklable" with a message.
    """
    _settle_in(parcel)
    try:
        args, kwargs = cloudpickle.loads(parcel.arguments[0], buffers=parcel.arguments[1])
        value = cloudpickle.loads(parcel.function)(*args, **kwargs)
        if type(value) is CoroutineType:
            value = _run_coroutine(value)
    except BaseException as error:  # what ends the process elsewhere is this call's alone
        _hang_up()
        is_limited = _lift_memory_limit()
        kind = "memory" if is_limited and isinstance(error, MemoryError) else "error"
        return kind, error_parts(error, skip_frames=1)
    _hang_up()
    _lift_memory_limit()  # the way back is not what was limited
    try:
        return "value", cloudpickle.dumps(value, 5)
    except Exception as error:  # anything a value's own __reduce__ may raise
        return "unpicklable", (
            f"the result of {parcel.name}() (a {type_name(value)}) cannot be pickled, so it cannot "
            f"travel back from its process: {reason(error)}. Return plain values, or write it to a "
            "file and return the file's name."
        )


def _hang_up() -> None:
    """See that all is heard that the call has said to a scheduler on another machine."""
    talk = sys.modules.get("amltk_nb.scheduling.transports.remote_end")
    if talk is not None:
        talk.call_over()


def _settle_in(parcel: Parcel) -> None:
    os.setsid()  # what the call starts can be found when this process is gone
    _end_with_parent()
    # pynisher's handler in a child would keep SIGTERM, its own way to end one, from ending it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interrupt button means the cell only
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for name in set(os.environ) - set(parcel.environ):
        del os.environ[name]
    os.environ.update(parcel.environ)
    if parcel.output is not None:
        descriptor = os.open(parcel.output, os.O_WRONLY | os.O_APPEND)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        # Unbuffered: the last words of a call that is ended are not lost.
        cast(Any, stream).reconfigure(
            encoding="utf-8", errors="backslashreplace", write_through=True
        )


def _end_with_parent() -> None:
    """Have this process ended when its parent is gone, whatever ended that.

    Its real parent is the fork server, which lives as long as anybody holds a certain pipe: so
    it must be nobody but the parent of both. A thread that watches would cost some 70 MB of
    addresses, which a memory limit counts.
    """
    server = cast(Any, forkserver)._forkserver
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)
        server._forkserver_alive_fd = None
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):  # no Linux
        return
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)


def _lift_memory_limit() -> bool:
    """Have enough memory again to report what happened; returns whether there was a limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return soft != hard


def _run_coroutine(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)
