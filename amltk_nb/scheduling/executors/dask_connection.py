"""One run's connection to a Dask cluster, whoever started it: a client, and the calls on it.

Dask never says that a call runs, takes back nothing that runs, and calls equal calls one; so each
call gets a key of its own, and only ends are believed. Calls' ends are awaited on the client's
own event loop, which saves a thread's turn for each.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from typing import Any
from uuid import uuid4

from amltk_nb.errors import (
    BackendLostError,
    BackendStartError,
    CannotEndError,
    MissingExtraError,
    WorkerDiedError,
)
from amltk_nb.scheduling.executors.remote import Connection, Done, Handle, News, RemoteWorker
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["DaskConnection", "connected_client", "distributed"]

_ASK_S = 5.0  # the longest that a question to Dask's scheduler may take
_KILL_S = 1.0  # a worker that does not answer for so long holds the interpreter's lock
_LOOK_AGAIN_S = 0.01
_KNOCK_AGAIN_S = 0.1
_PREFIX = "amltk_nb"


class DaskConnection(Connection):
    """Hands calls to a Dask cluster through a client."""

    def __init__(
        self,
        client: Any,
        news: News,
        *,
        is_ours: bool = True,
        pid_of: Callable[[str], int | None] | None = None,
    ) -> None:
        """Take a client that is connected.

        Args:
            client: a synchronous `distributed.Client`.
            news: who is told when the connection breaks.
            is_ours: whether to close the client at the end.
            pid_of: finds a worker's process by its address, where it is one of this machine.
        """
        self.client = client
        self._news = news
        self._is_ours = is_ours
        self._pid_of = pid_of or (lambda address: None)
        self._run = Portable(_run_on_worker)
        self._kill_running = Portable(_kill_if_running)
        self._futures: dict[str, Any] = {}
        self._run_id = uuid4().hex[:12]
        self._n_submitted = 0
        self._is_closing = False

    def submit(self, packed: bytes, done: Done) -> Handle:
        """Submit under a key that nobody else has: equal keys would run once."""
        self._n_submitted += 1
        key = f"{_PREFIX}-{self._run_id}-{self._n_submitted}"
        future = self.client.submit(self._run, packed, key=key, pure=False, retries=0)
        self._futures[key] = future
        self.client.loop.add_callback(self._await, key, future, done)
        return key

    async def _await(self, key: str, future: Any, done: Done) -> None:
        try:
            answer: bytes | BaseException = await future
        except BaseException as error:  # the call's own errors are in the answer; this is Dask's
            answer = self._explained(error)
        self._futures.pop(key, None)
        future.release()
        done(answer)

    def _explained(self, error: BaseException) -> BaseException:
        if type(error).__name__ == "KilledWorker":
            return self._death(error)
        if isinstance(error, (CancelledError, _cancelled_error())):
            if not self._is_closing and self.client.status != "running":
                self._news.lost(self._lost_error(error))
            return CancelledError(str(error))
        return error

    def _death(self, error: Any) -> WorkerDiedError:
        worker = getattr(getattr(error, "last_worker", None), "address", "a worker")
        died = WorkerDiedError(
            f"The Dask worker {worker} died while it had this call, so the call has no result. "
            "Often that is too much memory, or a crash in compiled code; the worker's own log may "
            "say more. The call is not repeated by itself: attach Retry() for that, or use "
            "scheduler.resubmit(future)."
        )
        died.__cause__ = error
        return died

    def _lost_error(self, cause: BaseException | None = None) -> BackendLostError:
        lost = BackendLostError(
            f"The connection to the Dask scheduler at {self._address()} is gone, so nothing can "
            "run any more: its process ended, or the network broke. Calls under way may have run "
            "to their end unseen. Start it again, then the run: scheduler.start()."
        )
        lost.__cause__ = cause
        return lost

    def _address(self) -> str:
        return str(getattr(self.client.scheduler, "address", None) or "its address")

    # ---------------------------------------------------------------- workers

    def workers(self) -> Sequence[RemoteWorker]:
        """Ask Dask's scheduler who is there, and what they have."""
        if self.client.status != "running":
            raise self._lost_error()
        try:
            info, having = self.client.sync(self._asked, callback_timeout=_ASK_S)
        except OSError as error:
            if self.client.status == "running" and isinstance(error, TimeoutError):
                raise  # it is slow, which is no end
            raise self._lost_error(error) from error
        return [
            RemoteWorker(
                name=address,
                n_slots=worker["nthreads"],
                where=worker["host"],
                pid=self._pid_of(address),
                running=frozenset(having.get(address, ())),
            )
            for address, worker in info["workers"].items()
            if worker.get("status", "running") == "running"
        ]

    async def _asked(self) -> tuple[Any, Any]:
        scheduler = self.client.scheduler
        return await scheduler.identity(), await scheduler.processing(workers=None)

    # ---------------------------------------------------------------- taking back

    def drop(self, handle: Handle) -> None:
        """Cancel a call; its body goes on if it has begun."""
        future = self._futures.get(str(handle))
        if future is not None:
            self.client.cancel([future], force=True)

    def kill(self, handle: Handle) -> None:
        """Kill the worker process that runs a call; only for workers of one thread each.

        The worker itself looks whether it still runs the call, on the thread that starts calls:
        so none that came after it is hit.
        """
        worker = self._worker_of(handle)
        if worker is None or self._kill_by_itself(worker, handle) is False:
            self.drop(handle)
        else:
            self._wait_until_gone(worker)

    def _wait_until_gone(self, worker: str) -> None:
        """Wait until Dask knows that a worker is dead: until then it would give it calls."""
        until = time.monotonic() + _ASK_S
        while worker in self.client.sync(self._asked, callback_timeout=_ASK_S)[0]["workers"]:
            if self._news.closing.wait(_LOOK_AGAIN_S) or time.monotonic() > until:
                return

    def _worker_of(self, handle: Handle) -> str | None:
        _, having = self.client.sync(self._asked, callback_timeout=_ASK_S)
        return next((address for address, keys in having.items() if handle in keys), None)

    def _kill_by_itself(self, worker: str, handle: Handle) -> bool:
        """Have a worker kill itself if it runs a call; returns False if it does not."""
        try:
            answers = self.client.sync(
                self.client._run,
                self._kill_running,
                handle,
                workers=[worker],
                on_error="return",
                callback_timeout=_KILL_S,
            )
        except TimeoutError:
            # Compiled code keeps all its threads from running, so this call is still there.
            return self._kill_from_outside(worker)
        except OSError:
            return True
        answer = answers.get(worker)
        return answer is not False

    def _kill_from_outside(self, worker: str) -> bool:
        pid = self._pid_of(worker)
        if pid is None:
            raise CannotEndError(f"the Dask worker {worker} does not answer and is out of reach")
        os.kill(pid, signal.SIGKILL)
        return True

    # ---------------------------------------------------------------- the end

    def disconnect(self, running: Collection[Handle]) -> None:
        """Cancel what is left of ours, and close the client if it is ours."""
        self._is_closing = True
        left = [self._futures[str(key)] for key in running if str(key) in self._futures]
        if left and self.client.status == "running":
            self.client.cancel(left, force=True)
        self._futures.clear()
        if self._is_ours:
            _close_quietly(self.client)


def connected_client(
    address: Any, *, timeout_s: float, closing: threading.Event | None = None
) -> Any:
    """Connect a client to a Dask scheduler.

    Args:
        address: "tcp://host:port", or a cluster object.
        timeout_s: give up after so long.
        closing: give up when this is set.

    Raises:
        BackendStartError: nobody answers there.
    """
    try:
        if isinstance(address, str):
            _wait_for_port(address, timeout_s, closing or threading.Event())
        return distributed().Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise BackendStartError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}: {error}). Is the "
            "address right, is it running (`dask scheduler` prints its address), and can this "
            f"machine reach it? It was tried for {timeout_s:g} s; connect_timeout= gives it more."
        ) from error


def _wait_for_port(address: str, timeout_s: float, closing: threading.Event) -> None:
    """Wait until somebody listens at an address; a client that fails leaves noise behind."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address.partition("://")[0] not in ("tcp", "tls") and "://" in address:
        return
    if not host or not port.isdigit():
        raise ValueError("an address is written like tcp://127.0.0.1:8786")
    until = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
            return
        except OSError:
            if time.monotonic() >= until or closing.wait(_KNOCK_AGAIN_S):
                raise


def _close_quietly(client: Any) -> None:
    """Close a client; one that has just lost its scheduler would log how it tried to go back."""

    def drop(_: logging.LogRecord) -> bool:
        return bool(client.status == "running")

    logger = logging.getLogger("distributed.client")
    logger.addFilter(drop)
    try:
        client.close(timeout=2)
    finally:
        logger.removeFilter(drop)


def distributed() -> Any:
    """Import dask.distributed.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import distributed
    except ImportError:
        raise MissingExtraError(
            "Running calls on Dask needs dask.distributed, which is not installed: "
            "pip install 'amltk-nb[dask]'. Without it, Scheduler.with_processes() runs them here."
        ) from None
    return distributed


def _cancelled_error() -> type[BaseException]:
    import asyncio

    return asyncio.CancelledError


# --- what runs on a worker; sent by value -----------------------------------------------------


def _run_on_worker(packed: bytes) -> bytes:
    from distributed import get_worker

    return run_call(packed, get_worker().address)


def _kill_if_running(key: str, dask_worker: Any) -> bool:
    """Kill this worker's process and its children if it runs a call; on the worker's loop."""
    import os
    import signal

    import psutil  # Dask itself needs it

    task = dask_worker.state.tasks.get(key)
    if task is None or task.state not in ("executing", "long-running"):
        return False
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
    return True
