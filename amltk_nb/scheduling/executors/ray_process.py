"""Ray in this process: there is one at most, so schedulers that use it at a time share it.

It lives in a thread of its own from start to end. The kernel kills what Ray has started when the
*thread* that started it ends, and Ray ends a whole process whose cluster does not answer for a
minute: no short-lived thread may start it, and one that is lost has to be let go of in time. So
this thread starts or joins it, looks every second whether it still answers, and lets go of it
when the last one has left. A Ray that the user has initialised is left as it was found.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from amltk_nb.errors import BackendError, BackendLostError, BackendStartError

__all__ = ["RayProcess", "Settings", "is_of_this_process", "join_ray"]

_CHECK_S = 1.0  # between two looks at whether it answers
_MOST_MISSED = 3  # looks in a row without an answer, then it is lost
_NODES_S = 2.0  # how old may be what is known of the machines of somebody else's
_ANSWER_S = 2.0  # for a connection to its ports


class _User(Protocol):
    """Who is told of what happens to it; a `News`."""

    closing: threading.Event

    def lost(self, error: BaseException) -> None: ...
    def log(self, level: str, text: str) -> None: ...


@dataclass(frozen=True)
class Settings:
    """Which Ray is wanted."""

    address: str | None = None  # None: one of our own on this machine
    num_cpus: int | None = None  # of our own; None: those of the machine
    start_timeout_s: float = 120.0
    init_options: Mapping[str, Any] = field(default_factory=dict)  # more for `ray.init`


class RayProcess:
    """Ray as this process uses it, until the last of its users has left."""

    def __init__(self, settings: Settings, former: RayProcess | None) -> None:
        """Start to start it.

        Args:
            settings: which one.
            former: what may still have to end before.
        """
        self._settings = settings
        self._former = former
        self._users: set[_User] = set()
        self._lock = threading.Lock()
        self._ready = threading.Event()  # started, or failed to
        self._left = threading.Event()
        self._error: BaseException | None = None
        self._is_ours = False  # to shut down
        self._ports: list[tuple[str, int]] = []  # that answer as long as it lives
        self._nodes: list[dict[str, Any]] = []
        self._nodes_at = 0.0
        self.is_over = False
        self._thread = threading.Thread(target=self._live, name="amltk-nb-Ray lives", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- for its users

    def join(self, user: _User) -> bool:
        """Become a user of it; returns whether that is still possible."""
        with self._lock:
            if self.is_over:
                return False
            self._users.add(user)
            return True

    def wait(self, user: _User) -> None:
        """Wait until it is there.

        Raises:
            BackendStartError: it cannot be had, takes too long, or nobody wants it any more.
        """
        left_s = self._settings.start_timeout_s
        while not self._ready.wait(0.1):
            left_s -= 0.1
            if left_s > 0 and not user.closing.is_set():
                continue
            self.leave(user, wait=False)
            raise BackendStartError(
                f"{self._named()} was not ready after {self._settings.start_timeout_s:.0f} s. If "
                "the address is right, its machines may be busy or of another version of Ray or "
                "Python; a longer start_timeout= waits longer."
            )
        if self._error is not None:
            raise self._error

    def leave(self, user: _User, *, wait: bool = True) -> None:
        """Use it no more; the last one ends it, if it is ours.

        Args:
            user: who leaves.
            wait: until it has ended, its processes included.
        """
        with self._lock:
            self._users.discard(user)
            last = not self._users
            self.is_over = self.is_over or last
        if last:
            self._left.set()
            if wait:
                self._thread.join()

    def nodes(self) -> list[dict[str, Any]]:
        """Say which machines it has, as Ray tells of them.

        To ask a cluster that is gone blocks for a minute and ends the process then, so it is asked
        seldom and only after a knock; one of our own is this machine and stays so.
        """
        import ray

        is_old = not self._is_ours and time.monotonic() - self._nodes_at > _NODES_S
        if not self._nodes or (is_old and self._answers()):
            self._nodes, self._nodes_at = ray.nodes(), time.monotonic()
        return [node for node in self._nodes if node["Alive"]]

    def is_as(self, settings: Settings) -> bool:
        """Say whether it has as many CPUs as settings want."""
        here = self._settings.num_cpus if self._is_ours else None
        return settings.num_cpus in (None, here)

    # ---------------------------------------------------------------- its thread

    def _live(self) -> None:
        if self._former is not None:
            self._former._thread.join()
            self._former = None
        with ExitStack() as undo:
            try:
                self._start(undo)
            except BaseException as error:
                self.is_over = True
                self._error = _start_error(error, self._named())
                self._ready.set()
                return
            self._ready.set()
            wrong = self._watch()
            if wrong is not None:
                self._tell_lost(wrong)

    def _start(self, undo: ExitStack) -> None:
        import ray

        if ray.is_initialized():
            self._check_address(ray.get_runtime_context().gcs_address)
        else:
            undo.enter_context(_quiet(self))
            if self._settings.address is not None:
                _check_answers(self._settings.address)
            with _environment(RAY_USAGE_STATS_ENABLED="0"):
                ray.init(**self._init_arguments())
            self._is_ours = True
            undo.callback(self._let_go)
        self._ports = _ports(self._settings.address, self.nodes())

    def _init_arguments(self) -> dict[str, Any]:
        given = dict(self._settings.init_options)
        if self._settings.address is not None:
            return {"address": self._settings.address, "log_to_driver": False, **given}
        return {
            "address": "local",
            "num_cpus": self._settings.num_cpus,
            "include_dashboard": False,
            "log_to_driver": False,
            **given,
        }

    def _check_address(self, found: str) -> None:
        """Refuse to use another Ray than the one that was asked for."""
        wanted = self._settings.address
        if wanted not in (None, "auto", "local", found):
            raise BackendStartError(
                f"This process is connected to the Ray at {found} already, and it can use only "
                f"one at a time. To use the one at {wanted}, call ray.shutdown() first."
            )

    def _watch(self) -> BaseException | None:
        """Look again and again whether it answers, until nobody needs it; returns what is wrong."""
        import ray

        n_missed = 0
        while not self._left.wait(_CHECK_S):
            if not ray.is_initialized():
                self._is_ours = False  # it is gone already, or another one has taken its place
                return BackendLostError(
                    "Ray was shut down in this process while a scheduler was using it. Start the "
                    "scheduler again; it starts or joins Ray anew."
                )
            n_missed = 0 if self._answers() else n_missed + 1
            if n_missed >= _MOST_MISSED:
                return BackendLostError(
                    f"{self._named()} does not answer any more: its processes were killed, or the "
                    "network is gone. Calls under way are lost. " + self._advice()
                )
        return None

    def _answers(self) -> bool:
        return all(_answers(*port) for port in self._ports)

    def _advice(self) -> str:
        if self._is_ours:
            return "Start the scheduler again when it is back; one of its own starts anew."
        return "Call ray.shutdown() soon: Ray ends a process that has lost its cluster for long."

    def _tell_lost(self, error: BaseException) -> None:
        with self._lock:
            self.is_over = True
            users = list(self._users)
        for user in users:
            user.lost(error)

    def _let_go(self) -> None:
        if self._is_ours:
            import ray

            try:
                ray.shutdown(wait_for_processes=True)
            except TypeError:  # older ones do not know that they could wait
                ray.shutdown()

    def _named(self) -> str:
        address = self._settings.address
        return "Ray" if address is None else f"The Ray at {address}"

    def log(self, level: str, text: str) -> None:
        """Tell all users something, if it is there."""
        if self._ready.is_set() or level == "error":
            for user in list(self._users):
                user.log(level, text)


_joining = threading.Lock()
_present: RayProcess | None = None


def join_ray(settings: Settings, user: _User) -> RayProcess:
    """Use the Ray of this process, or have one.

    Args:
        settings: which one, if there is none in use.
        user: is told of what happens to it, until it leaves.

    Raises:
        BackendStartError: it cannot be had.
    """
    global _present
    with _joining:
        if _present is None or not _present.join(user):
            _present = RayProcess(settings, former=_present)
            _present.join(user)
        present = _present
    present.wait(user)
    if not present.is_as(settings):
        user.log("warning", "joined the Ray that this process has; num_cpus= has no effect on it")
    return present


def is_of_this_process(settings: Settings) -> bool:
    """Say whether settings lead to a Ray that this process has started, or will start, here."""
    if settings.address is not None:
        return settings.address == "local"
    ray = sys.modules.get("ray")
    is_initialized = getattr(ray, "is_initialized", None)  # None: not, or half, imported
    if ray is None or is_initialized is None or not is_initialized():
        return True
    node = getattr(ray._private.worker, "_global_node", None)  # None: a client of one elsewhere
    return node is not None and bool(node.is_head())


# --- whether it answers -----------------------------------------------------------------------


def _check_answers(address: str) -> None:
    """Knock first: `ray.init` tries a wrong address for minutes.

    Raises:
        BackendStartError: nobody listens there.
    """
    place = _place(address)
    if place is not None and not _answers(*place):
        raise BackendStartError(
            f"Nothing answers at {address}. Check that Ray runs there (ray start --head --port "
            f"{place[1]}) and that this machine can reach it; Scheduler.with_ray() without an "
            "address starts one here."
        )


def _place(address: str) -> tuple[str, int] | None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    return (host, int(port)) if host and port.isdigit() else None


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), _ANSWER_S).close()
    except OSError:
        return False
    return True


def _ports(address: str | None, nodes: Iterable[dict[str, Any]]) -> list[tuple[str, int]]:
    """Find what has to answer: the head of the cluster, and this machine's part of it."""
    import ray

    if address is not None and address.startswith("ray://"):
        place = _place(address)
        return [place] if place else []
    context = ray.get_runtime_context()
    head = _place(context.gcs_address)
    here = context.get_node_id()
    own = [
        (node["NodeManagerAddress"], int(node["NodeManagerPort"]))
        for node in nodes
        if node["NodeID"] == here
    ]
    return [*([head] if head else []), *own]


def _start_error(error: BaseException, named: str) -> BaseException:
    if isinstance(error, BackendError) or not isinstance(error, Exception):
        return error
    explained = BackendStartError(
        f"{named} could not be started or joined: {type(error).__name__}: {error}. Nothing has "
        "run. `ray status` tells of a running one; its version and Python's must be those here."
    )
    explained.__cause__ = error
    return explained


# --- manners ----------------------------------------------------------------------------------


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables where the user has not, for as long as processes are started."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _quiet(process: RayProcess) -> Iterator[None]:
    """Have what Ray says go to the scheduler's log: in a notebook it would land in any cell."""

    def to_log(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            process.log(record.levelname.lower(), record.getMessage())
        return False

    handlers = list(logging.getLogger("ray").handlers)
    for handler in handlers:
        handler.addFilter(to_log)
    try:
        with _no_news_of_raylets():
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(to_log)


@contextmanager
def _no_news_of_raylets() -> Iterator[None]:
    """Stop Ray from printing what its processes say of each other.

    It prints that even with `log_to_driver=False`; its own debugger turns it off like this.
    """
    import ray._private.worker as private

    before = getattr(private, "_worker_logs_enabled", None)
    if before is not None:
        private._worker_logs_enabled = False
    try:
        yield
    finally:
        with suppress(AttributeError):
            if before is not None:
                private._worker_logs_enabled = before
