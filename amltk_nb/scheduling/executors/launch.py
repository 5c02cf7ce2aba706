"""Starting worker processes that never import the user's main module.

The standard library's child processes run the main script again (or import the module given to
`-m`) before they do anything else: that is why scripts need a main guard and why `-c` and stdin
misbehave. Our functions travel by value, so nobody needs the main module there. The contexts of
this module start processes the standard way with one difference: the preparation data has no word
about the main module. Nothing of the standard library is changed: its launch functions are bound
anew over other globals.

The fork server is a private one. It preloads what a worker needs to begin and nothing else
(numpy would give all workers one random state).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import (
    connection,
    context,
    forkserver,
    popen_fork,
    popen_forkserver,
    popen_spawn_posix,
    process,
    resource_tracker,
    spawn,
)
from types import FunctionType, SimpleNamespace
from typing import Any, cast

__all__ = [
    "WorkerForkContext",
    "WorkerForkServerContext",
    "WorkerSpawnContext",
    "exit_code",
    "forking",
    "has_ended",
    "preload",
    "start",
    "warm_fork_server",
    "worker_context",
]

_PRELOAD = [
    "cloudpickle",
    "amltk_nb.scheduling.executors.launch",
    "amltk_nb.scheduling.worker",
    "amltk_nb.scheduling.executors.warden",
]

# Two threads may ask for the same exit code at the same time (every start of a process makes the
# standard library look at all of them), but it can be read only once.
_POLL_LOCK = threading.Lock()

# A forked child inherits every descriptor that is open at that moment. Making the two ends of a
# channel and forking exclude each other, so the child knows all the ends it has to close.
forking = threading.Lock()


class _Server(forkserver.ForkServer):
    """A fork server that survives its own death, and being copied by a fork."""

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(_PRELOAD)

    def ensure_running(self) -> None:
        """Start it, unless it runs."""
        try:
            super().ensure_running()
        except ChildProcessError:
            # It is gone and somebody else has seen to its exit code.
            self.forget()
            super().ensure_running()

    def connect_to_new_process(self, fds: Sequence[int]) -> tuple[int, int]:
        """Ask it for a process, or another one if nobody listens there any more.

        Raises:
            OSError: no processes, no memory or no descriptors.
        """
        pid = cast(Any, self)._forkserver_pid
        try:
            return super().connect_to_new_process(fds)
        except (ConnectionError, FileNotFoundError):
            # It is ending, which may take it a while, or somebody has tidied up its socket.
            self._end(pid)
            return super().connect_to_new_process(fds)

    def _end(self, pid: int | None) -> None:
        state = cast(Any, self)
        with state._lock:
            if pid is not None and state._forkserver_pid == pid:
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                self.forget()

    def forget(self) -> None:
        """Drop a server that is gone or, in a forked copy of this process, not ours."""
        state = cast(Any, self)
        if state._forkserver_alive_fd is not None:
            os.close(state._forkserver_alive_fd)
        state._forkserver_alive_fd = state._forkserver_pid = state._forkserver_address = None

    def forget_after_fork(self) -> None:
        """In a forked copy of this process: threads that held locks do not exist there."""
        self.forget()
        cast(Any, self)._lock = threading.Lock()


_SERVER = _Server()
os.register_at_fork(after_in_child=_SERVER.forget_after_fork)


def warm_fork_server() -> None:
    """Start the fork server, unless it runs: some 50 ms, mostly spent in the server.

    It then stays, like the standard library's, until this process is gone: so the second run of
    a scheduler starts at once.

    Raises:
        OSError: no processes, no memory or no descriptors.
    """
    with _interrupts_blocked():
        _SERVER.ensure_running()


def preload(*modules: str) -> None:
    """Have the fork server load more before it makes its first process; later it is too late."""
    _SERVER.set_forkserver_preload([*_PRELOAD, *modules])


def _preparation(name: str) -> dict[str, Any]:
    data = spawn.get_preparation_data(name)
    return {key: value for key, value in data.items() if not key.startswith("init_main_from")}


def _rebound(function: Any, **names: Any) -> Any:
    """Copy a function, with some of its globals replaced."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


_SPAWN = SimpleNamespace(**{**vars(spawn), "get_preparation_data": _preparation})
_FORKSERVER = SimpleNamespace(
    connect_to_new_process=_SERVER.connect_to_new_process, read_signed=forkserver.read_signed
)


class _ForkPopen(popen_fork.Popen):
    def poll(self, flag: int = os.WNOHANG) -> int | None:
        with _POLL_LOCK:
            return super().poll(flag)


class _SpawnPopen(popen_spawn_posix.Popen):
    _launch = _rebound(cast(Any, popen_spawn_posix.Popen)._launch, spawn=_SPAWN)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        with _POLL_LOCK:
            return super().poll(flag)


class _ForkServerPopen(popen_forkserver.Popen):
    _launch = _rebound(
        cast(Any, popen_forkserver.Popen)._launch, spawn=_SPAWN, forkserver=_FORKSERVER
    )
    server_died = False

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        timeout_s = 0 if flag == os.WNOHANG else None
        with _POLL_LOCK:
            if self.returncode is None and connection.wait([self.sentinel], timeout_s):
                try:
                    self.returncode = forkserver.read_signed(self.sentinel)
                except (OSError, EOFError):
                    # Without the server nobody can tell; the worker itself may well be alive.
                    self.returncode, self.server_died = 255, True
        return self.returncode


# The classes stand at module level because the child unpickles its Process by name. A start
# method of None leaves the user's own default in force for what a call itself starts.
class _ForkProcess(context.ForkProcess):
    """A worker made by fork."""

    _start_method = cast(Any, None)
    _Popen = cast(Any, staticmethod(_ForkPopen))


class _SpawnProcess(context.SpawnProcess):
    """A worker made by spawn."""

    _start_method = cast(Any, None)
    _Popen = cast(Any, staticmethod(_SpawnPopen))


class _ForkServerProcess(context.ForkServerProcess):
    """A worker made by our fork server."""

    _start_method = cast(Any, None)
    _Popen = cast(Any, staticmethod(_ForkServerPopen))


class WorkerForkContext(context.ForkContext):
    """The `fork` context: its children are copies of this process."""

    Process = cast(Any, _ForkProcess)


class WorkerSpawnContext(context.SpawnContext):
    """The `spawn` context, whose children do not import the main module."""

    Process = cast(Any, _SpawnProcess)


class WorkerForkServerContext(context.ForkServerContext):
    """The `forkserver` context, whose children do not import the main module."""

    Process = cast(Any, _ForkServerProcess)


_CONTEXTS: dict[str, type[context.BaseContext]] = {
    "forkserver": WorkerForkServerContext,
    "spawn": WorkerSpawnContext,
    "fork": WorkerForkContext,
}


def worker_context(wanted: str | context.BaseContext | None = None) -> context.BaseContext:
    """Return our context for a start method.

    Args:
        wanted: "forkserver", "spawn", "fork", a context of one of these, or None for
            "forkserver".

    Raises:
        ValueError: no such start method.
        TypeError: neither a name nor a context.
    """
    method = "forkserver" if wanted is None else wanted
    if not isinstance(method, str) and hasattr(method, "get_start_method"):
        method = method.get_start_method()
    if not isinstance(method, str):
        raise TypeError(
            f"mp_context={wanted!r} is a {type(wanted).__name__}; pass the name of a start method "
            f"({', '.join(_CONTEXTS)}) or what multiprocessing.get_context(name) returns."
        )
    if method not in _CONTEXTS:
        raise ValueError(
            f"mp_context={wanted!r}: there is no start method {method!r}; "
            f"pass one of {', '.join(_CONTEXTS)}, or None for forkserver."
        )
    return _CONTEXTS[method]()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Have children begin with SIGINT blocked, until they have made themselves immune.

    The interrupt button of a notebook signals the whole process group, young children included.
    Only this thread's mask is touched, which children inherit.
    """
    # Starting the tracker unblocks SIGINT in this thread, so that comes first.
    cast(Any, resource_tracker).ensure_running()
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def start(child: process.BaseProcess) -> None:
    """Start a worker made by one of our contexts.

    Raises:
        OSError, EOFError: no process, no memory, no descriptors, or the fork server died.
    """
    with _interrupts_blocked():
        if isinstance(child, _ForkProcess):
            with forking:
                child.start()
        else:
            child.start()


def has_ended(child: process.BaseProcess) -> bool:
    """Whether a child is gone, or nobody can tell any more."""
    return cast(Any, child)._popen.poll() is not None


def exit_code(child: process.BaseProcess) -> int | None:
    """Return an ended child's exit code; None: its fork server died before it could tell."""
    popen = cast(Any, child)._popen
    code: int | None = popen.poll()
    return None if getattr(popen, "server_died", False) else code
