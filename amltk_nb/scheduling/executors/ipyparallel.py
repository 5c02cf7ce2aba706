"""Calls on engines of ipyparallel, one at a time on each.

Each call goes to one engine by name, so it is known who runs what. Only bytes and one function
of ours travel: how the user's client pickles other things stays as it is.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from amltk_nb.errors import (
    BackendError,
    BackendLostError,
    BackendStartError,
    CannotEndError,
    MissingExtraError,
    WorkerDiedError,
)
from amltk_nb.scheduling.executors.cpus import available_cpus, checked_workers
from amltk_nb.scheduling.executors.reach import own_address
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Done,
    Handle,
    News,
    RemoteBackend,
    RemoteWorker,
)
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["IPyParallelBackend"]

_ANSWER_S = 5.0  # for an idle engine to say its pid, and for the controller to be knocked at
_STOP_S = 10.0  # for a cluster of ours to stop in good order; then it is killed
_KILL_S = 10.0  # for a killed process to be gone
_MOST_MISSED = 3  # knocks in a row without an answer, then the controller is gone


class IPyParallelBackend(RemoteBackend):
    """Runs calls on the engines of a client, of a profile, or of a cluster of its own."""

    name = "IPyParallelExecutor"

    def __init__(
        self,
        client_or_profile: Any = None,
        n: int | None = None,
        *,
        connect_timeout: float = 10.0,
        no_workers_after: float = 30.0,
    ) -> None:
        """Choose the engines; nothing is started.

        Args:
            client_or_profile: an `ipyparallel.Client`, which stays yours, or the profile of a
                running cluster; None: a cluster of its own on this machine, for each run.
            n: how many engines its own has; None: as many as this process may use CPUs.
            connect_timeout: seconds until the controller of a profile must have answered.
            no_workers_after: see `RemoteBackend`.

        Raises:
            ValueError, TypeError: an argument that makes no sense.
            MissingExtraError: ipyparallel is not installed.
        """
        _require_ipyparallel()
        if client_or_profile is not None and n is not None:
            raise ValueError(
                f"n={n!r} is for a cluster that the scheduler starts; this one has the engines "
                "that it has. Leave one of the two out."
            )
        self._profile = client_or_profile if isinstance(client_or_profile, str) else None
        self._client = _checked_client(client_or_profile) if self._profile is None else None
        self._n = (
            None if client_or_profile is not None else checked_workers(n, "n") or available_cpus()
        )
        self._connect_timeout_s = connect_timeout
        self._ledger = _Ledger()
        if self._n is None:
            self.cannot_end = (
                "the engine that runs it is yours, and ending the call would end the engine; "
                "Scheduler.with_ipyparallel(n=4) has engines of its own"
            )
        shown = {"profile": self._profile, "n": self._n}
        super().__init__(
            options={name: value for name, value in shown.items() if value is not None},
            no_workers_after_s=no_workers_after,
        )

    def reach(self) -> str | None:
        """Engines of our own are here; where others are, nobody knows before they are asked."""
        return own_address() if self._n is None else None

    def connect(self, news: News) -> Connection:
        """Start a cluster, or find the one that was asked for.

        Raises:
            BackendStartError: it cannot be had.
        """
        if self._n is not None:
            return _OwnEngines(news, self._n)
        if self._client is not None:
            return _Engines(news, self._client, self._ledger)
        client = _client_of(str(self._profile), self._connect_timeout_s)
        return _Engines(news, client, _Ledger(), leave=client.close)


@dataclass(slots=True)
class _Given:
    """A call that an engine has."""

    engine: int
    done: Done
    run: object  # of which run: one that was abandoned keeps its engine busy in the next


class _Ledger:
    """What the engines of one client have, over all runs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.given: dict[str, _Given] = {}  # by the engine's name for the call


class _Engines(Connection):
    """Engines that somebody else has started."""

    def __init__(
        self,
        news: News,
        client: Any,
        ledger: _Ledger,
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        self.news = news
        self.client = client
        self._leave = leave
        self._run = Portable(run_call)
        self._controller = _address(client)
        self._n_missed = 0
        self.lock, self.given = ledger.lock, ledger.given
        self.barred: set[int] = set()  # engines that get no more calls

    def submit(self, packed: bytes, done: Done) -> Handle:
        with self.lock:
            engine = self._free_engine()
            result = self.client[engine].apply_async(self._run, packed, _name(engine))
            handle: str = result.msg_ids[0]
            self.given[handle] = _Given(engine, done, run=self)
        # Outside of the lock: one that has ended already is told of here and now.
        result.add_done_callback(lambda ended: self._ended(handle, ended))
        return handle

    def _free_engine(self) -> int:
        busy = {given.engine for given in self.given.values()}
        for engine in self.client.ids:
            if engine not in busy and engine not in self.barred:
                return int(engine)
        raise BackendError(
            "No engine is free any more: one has gone since the call was handed over. Other calls "
            "are not affected; submit it again."
        )

    def _ended(self, handle: str, result: Any) -> None:
        with self.lock:
            given = self.given.pop(handle, None)
        if given is not None:
            given.done(_answer(result, given.engine))

    def workers(self) -> Sequence[RemoteWorker]:
        self._check_controller()
        with self.lock:
            running = {g.engine: handle for handle, g in self.given.items() if g.run is self}
            abandoned = {g.engine for g in self.given.values() if g.run is not self}
        return [
            RemoteWorker(
                name=_name(engine),
                pid=self.pid(engine),
                running=(running[engine],) if engine in running else (),
            )
            for engine in self.client.ids
            if engine not in self.barred | abandoned
        ]

    def pid(self, engine: int) -> int | None:
        """Say which process an engine is, if it is on this machine and known."""
        return None

    def _check_controller(self) -> None:
        self._n_missed = 0 if _answers(self._controller) else self._n_missed + 1
        if self._n_missed >= _MOST_MISSED:
            raise BackendLostError(
                "The controller of ipyparallel does not answer any more: it was stopped or "
                "killed, or the network is gone. Calls under way are lost; start it and the "
                "scheduler again."
            )

    def disconnect(self, running: Collection[Handle]) -> None:
        self._leave()


class _OwnEngines(_Engines):
    """A controller and engines of ours, on this machine; engines that are gone are replaced."""

    def __init__(self, news: News, n: int) -> None:
        import logging

        import ipyparallel

        self._n_wanted = n
        self._pids: dict[int, int] = {}
        self._n_asked_for = n  # engines, ever
        self._seen: set[int] = set()
        self._cluster = ipyparallel.Cluster(n=n, log_level=logging.ERROR)
        try:
            self._cluster.start_cluster_sync()
            client = self._cluster.connect_client_sync()
        except BaseException:
            self._stop()
            raise
        super().__init__(news, client, _Ledger())

    def workers(self) -> Sequence[RemoteWorker]:
        here = set(self.client.ids)
        for engine in here - self._seen:
            self._pids[engine] = self.client[engine].apply_async(os.getpid).get(_ANSWER_S)
        self._seen |= here
        n_gone = len((self._seen - here) | self.barred)
        n_missing = self._n_wanted - (self._n_asked_for - n_gone)
        if n_missing > 0:
            self._n_asked_for += n_missing
            self._cluster.start_engines_sync(n_missing)
        return super().workers()

    def pid(self, engine: int) -> int | None:
        return self._pids.get(engine)

    def kill(self, handle: Handle) -> None:
        with self.lock:  # no other call is given to this engine from here on
            given = self.given.get(str(handle))
            if given is None:
                return
            self.barred.add(given.engine)
        if not _killed(self._pids[given.engine]):
            raise CannotEndError(f"{_name(given.engine)} is still there after {_KILL_S:.0f} s.")
        self.news.changed()

    def disconnect(self, running: Collection[Handle]) -> None:
        for handle in running:
            given = self.given.get(str(handle))
            if given is not None:
                _killed(self._pids[given.engine])
        with suppress(Exception):  # a controller that is gone must not keep the rest
            self.client.close()
        self._stop()

    def _stop(self) -> None:
        """Stop the cluster in good order if it can, and kill what is left of it."""
        import psutil

        name = self._cluster.cluster_id
        stopping = threading.Thread(
            target=self._stop_in_order, name="amltk-nb-ipyparallel stops", daemon=True
        )
        stopping.start()
        stopping.join(_STOP_S)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if any(name in word for word in process.cmdline()):
                    _killed(process.pid)

    def _stop_in_order(self) -> None:
        with suppress(Exception):
            self._cluster.stop_cluster_sync()


# --- processes and ports ----------------------------------------------------------------------


def _killed(pid: int) -> bool:
    """Kill a process and all it has started; returns whether they are gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *(p for p in process.children(recursive=True) if not _is_nanny(p))]
    except psutil.NoSuchProcess:
        return True
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    until = time.monotonic() + _KILL_S
    while any(map(_lives, family)):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _is_nanny(process: Any) -> bool:
    """Know the process that tells the controller of its engine's end, and ends then by itself."""
    import psutil

    try:
        return any("nanny" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _lives(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _address(client: Any) -> tuple[str, int] | None:
    """Find where a controller listens; None where it is not by TCP, as over an SSH tunnel."""
    url = str(getattr(client, "_config", {}).get("registration", ""))
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return (host, int(port)) if url.startswith("tcp://") and port.isdigit() else None


def _answers(address: tuple[str, int] | None) -> bool:
    if address is None:
        return True
    try:
        socket.create_connection(address, _ANSWER_S).close()
    except OSError:
        return False
    return True


# --- what ipyparallel says --------------------------------------------------------------------


def _name(engine: int) -> str:
    return f"engine-{engine}"


def _answer(result: Any, engine: int) -> bytes | BaseException:
    """Make of a result what the family understands; what the call raised is in the bytes."""
    try:
        answer: bytes = result.get(0)
    except CancelledError as error:
        return error
    except Exception as error:
        return _explained(error, engine)
    return answer


def _explained(error: Exception, engine: int) -> BaseException:
    kind = getattr(error, "ename", type(error).__name__)
    told: BaseException
    if kind == "TaskAborted":
        return CancelledError()
    if kind == "EngineError":
        told = WorkerDiedError(
            f"ipyparallel: {_name(engine)} died while it ran this call. It was killed, often for "
            "want of memory, or crashed in compiled code. The call was not tried again; the "
            "Retry plugin does that."
        )
    else:
        told = BackendError(
            f"ipyparallel: {_name(engine)} could not run the call: {kind}: {error}. It needs the "
            "Python and the cloudpickle of here."
        )
    told.__cause__ = error
    return told


# --- what was asked for -----------------------------------------------------------------------


def _require_ipyparallel() -> None:
    if find_spec("ipyparallel") is None:
        raise MissingExtraError(
            "Scheduler.with_ipyparallel() needs ipyparallel, which is not installed: "
            "pip install 'amltk-nb[ipyparallel]'."
        )


def _checked_client(client: Any) -> Any:
    if client is not None and not callable(getattr(client, "direct_view", None)):
        raise TypeError(
            f"with_ipyparallel({client!r}): pass an ipyparallel.Client, the name of the profile "
            "of a running cluster, or nothing for engines of its own."
        )
    return client


def _client_of(profile: str, timeout_s: float) -> Any:
    import ipyparallel

    try:
        return ipyparallel.Client(profile=profile, timeout=timeout_s)
    except Exception as error:
        raise BackendStartError(
            f"No cluster of ipyparallel answers for the profile {profile!r}: {error}. Start one "
            f"(ipcluster start --profile={profile} -n 4), or use Scheduler.with_ipyparallel(n=4)."
        ) from error
