"""One run's connection to a Dask cluster, whoever started it: a client, and the calls on it.

Dask never says that a call runs, takes back nothing that runs, and calls equal calls one; so each
call gets a key of its own, and only ends are believed. Calls' ends are awaited on the client's
own event loop, which saves a thread's turn for each.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any
from uuid import uuid4

import cloudpickle

from amltk_nb.errors import (
    BackendError,
    BackendLostError,
    CannotEndError,
    WorkerDiedError,
)
from amltk_nb.scheduling.executors.dask_client import close_quietly
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Death,
    Done,
    Handle,
    NeverRanError,
    News,
    RemoteWorker,
)
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["DaskConnection"]

_ASK_S = 5.0  # the longest that a question to Dask's scheduler may take
_KILL_S = 1.0  # a worker that does not answer for so long holds the interpreter's lock
_LOOK_AGAIN_S = 0.01
_PREFIX = "amltk_nb"
_DROPPED = b""  # an answer: the call was left out
_N_KEPT = 10_000  # calls that a worker remembers; an answer comes long before so many others
_MOST_SENT_BYTES = 1 << 20  # larger answers are fetched, and do not hold up other news


class DaskConnection(Connection):
    """Hands calls to a Dask cluster through a client."""

    def __init__(
        self,
        client: Any,
        news: News,
        *,
        is_ours: bool = True,
        pid_of: Callable[[str], int | None] | None = None,
        scheduler: Any = None,
    ) -> None:
        """Take a client that is connected.

        Args:
            client: a synchronous `distributed.Client`.
            news: who is told when the connection breaks.
            is_ours: whether to close the client at the end.
            pid_of: finds a worker's process by its address, where it is one of this machine.
            scheduler: Dask's, where it is in this process: workers then send answers with the
                news that a call has ended, instead of keeping them until they are asked for.
        """
        self.client = client
        self._news = news
        self._is_ours = is_ours
        self._pid_of = pid_of or (lambda address: None)
        self._run = Portable(_run_on_worker)
        self._kill_running = Portable(_kill_if_running)
        self._drop_waiting = Portable(_drop_if_waiting)
        self._calls: dict[str, tuple[Any, Done]] = {}  # futures of those without an answer, or None
        self._to_fetch: dict[str, str] = {}  # which worker has an answer that was not sent
        self._run_id = uuid4().hex[:12]
        self._n_submitted = 0
        self._is_closing = False
        self._scheduler = scheduler
        self._news_op: str | None = None
        if scheduler is not None:
            self._news_op = f"{_PREFIX}-{self._run_id}"
            scheduler.stream_handlers[self._news_op] = self._sent
            scheduler.add_plugin(_when_a_worker_goes(self._gone), name=self._news_op)

    def submit(self, packed: bytes, done: Done) -> Handle:
        """Submit one call; see `submit_many`."""
        (handle,) = self.submit_many([(packed, done)])
        if isinstance(handle, Exception):
            raise handle
        return handle

    def submit_many(self, calls: Sequence[tuple[bytes, Done]]) -> Sequence[Handle | Exception]:
        """Submit under keys that nobody else has: equal keys would run once.

        All in one go: each message costs Dask's scheduler about as much as a call.
        """
        keys = [self._new_key() for _ in calls]
        works = [
            pickle.dumps(_Deferred(self._run, (packed, key, self._news_op)))
            for key, (packed, _) in zip(keys, calls, strict=True)
        ]
        # Before they are submitted: the first answer may come while the last one is noted.
        self._calls.update((key, (None, done)) for key, (_, done) in zip(keys, calls, strict=True))
        try:
            futures = self.client.map(pickle.loads, works, key=keys, pure=False, retries=0)
        except Exception as error:
            for key in keys:
                self._calls.pop(key, None)
            return [error] * len(calls)
        for key, future, (_, done) in zip(keys, futures, calls, strict=True):
            if key in self._calls:  # should its answer come just now, `_await` takes it out again
                self._calls[key] = future, done
        self.client.loop.add_callback(self._await_all, list(zip(keys, futures, strict=True)))
        return keys

    def _new_key(self) -> str:
        self._n_submitted += 1
        return f"{_PREFIX}-{self._run_id}-{self._n_submitted}"

    def _await_all(self, futures: list[tuple[str, Any]]) -> None:
        for key, future in futures:
            self.client.loop.add_callback(self._await, key, future)

    async def _await(self, key: str, future: Any) -> None:
        try:
            answer = await future
        except BaseException as error:  # the call's own errors are in the answer; this is Dask's
            answer = self._explained(error)
        self._answered(key, NeverRanError() if answer == _DROPPED else answer)

    def _sent(self, key: str, answer: bytes | None, worker: str, **_: Any) -> None:
        """Take an answer from the stream of a worker's news, on the scheduler's loop.

        None: the call has ended, and its answer is to be fetched. Should that worker die now, Dask
        would run the call again, if it still knew how.
        """
        if task := self._scheduler.tasks.get(key):
            task.run_spec = None
        if answer is None:
            self._to_fetch[key] = worker
        else:
            self._answered(key, answer)

    def _gone(self, worker: str) -> None:
        """Tell of calls whose answers died with a worker; on the scheduler's loop."""
        for key in [key for key, where in self._to_fetch.items() if where == worker]:
            lost = WorkerDiedError(
                f"The Dask worker {worker} died after this call had run to its end there, and "
                "before its answer was fetched. The call is not repeated by itself: attach Retry() "
                "for that, or use scheduler.resubmit(future)."
            )
            self._answered(key, lost)

    def _answered(self, key: str, answer: bytes | BaseException | Death) -> None:
        call = self._calls.pop(key, None)
        self._to_fetch.pop(key, None)
        if call is not None:  # else it was answered or dropped before
            future, done = call
            if future is not None:
                future.release()
            done(answer)

    def _explained(self, error: BaseException) -> BaseException | Death:
        if type(error).__name__ == "KilledWorker":
            return self._death(error)
        if isinstance(error, (CancelledError, _cancelled_error())):
            if not self._is_closing and self.client.status != "running":
                self._news.lost(self._lost_error(error))
            return CancelledError(str(error))
        if not isinstance(error, Exception):
            return error
        told = BackendError(
            f"Dask: a worker could not begin the call: {type(error).__name__}: {error}. It needs "
            "the Python and the cloudpickle of here (pip install cloudpickle=="
            f"{cloudpickle.__version__}); client.get_versions() compares them. Other calls are not "
            "affected."
        )
        told.__cause__ = error
        return told

    def _death(self, error: Any) -> Death:
        last = getattr(error, "last_worker", None)
        worker = str(getattr(last, "address", "a worker"))
        died = WorkerDiedError(
            f"The Dask worker {worker} died while it had this call, so the call has no result. "
            "Often that is too much memory, or a crash in compiled code; the worker's own log may "
            "say more. The call is not repeated by itself: attach Retry() for that, or use "
            "scheduler.resubmit(future)."
        )
        died.__cause__ = error
        return Death(died, worker, n_slots=getattr(last, "nthreads", 1))

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

    def drop(self, handles: Collection[Handle]) -> Collection[Handle]:
        """Forget those calls that no worker has begun.

        Dask itself says of none whether it has begun. Workers keep account of it, and leave a call
        out that was forgotten; should one of them not answer, all calls stay.
        """
        keys = [str(handle) for handle in handles if str(handle) in self._calls]
        if not keys:
            return ()
        told = self.client.sync(
            self.client._run, self._drop_waiting, keys, callback_timeout=_KILL_S
        )
        begun = {key for each in told.values() for key in each}
        dropped = {key: self._calls.pop(key, None) for key in keys if key not in begun}
        left = [call[0] for call in dropped.values() if call is not None]
        self.client.cancel(left, force=True)
        return [key for key, call in dropped.items() if call is not None]

    def kill(self, handle: Handle) -> None:
        """Kill the worker process that runs a call; only for workers of one thread each.

        The worker itself looks whether it still runs the call, on the thread that starts calls:
        so none that came after it is hit. One that did not run may have begun until it is dropped.
        """
        until = time.monotonic() + _ASK_S
        while handle in self._calls:
            worker = self._worker_of(handle)
            if worker is not None and self._kill_by_itself(worker, handle):
                return self._wait_until_gone(worker)
            if self.drop([handle]) or self._news.closing.wait(_LOOK_AGAIN_S):
                return None
            if time.monotonic() > until:
                raise CannotEndError("Dask does not tell which worker runs it")

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
        left = [self._calls[str(key)][0] for key in running if str(key) in self._calls]
        self._calls.clear()
        if left and self.client.status == "running":
            self.client.cancel(left, force=True)
        if self._is_ours:
            close_quietly(self.client)


def _cancelled_error() -> type[BaseException]:
    import asyncio

    return asyncio.CancelledError


def _when_a_worker_goes(tell: Callable[[str], None]) -> Any:
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Gone(SchedulerPlugin):  # type: ignore[misc]  # its base is not looked into
        def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
            tell(worker)

    return Gone()


class _Deferred:
    """A pickle that runs a function when it is loaded.

    So that Dask's scheduler passes bytes on and a function that it knows. Ours would be made there
    for each call, and pickled by value once more, which takes longer than all else that it does.
    """

    def __init__(self, fn: Portable, arguments: tuple[Any, ...]) -> None:
        self._what = fn, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._what


# --- what runs on a worker; sent by value -----------------------------------------------------


def _run_on_worker(packed: bytes, key: str, news_op: str | None) -> bytes | None:
    """Run a call unless it was dropped.

    Args:
        packed: from `pack_call`.
        key: Dask's name for the call.
        news_op: what the scheduler's handler of answers is called; None: there is none.
    """
    from distributed import get_worker

    worker = get_worker()
    account = _account(worker)
    with account.lock:
        if key in account.dropped:
            return _DROPPED
        account.begun[key] = None
        if len(account.begun) > _N_KEPT:
            del account.begun[next(iter(account.begun))]
    answer = run_call(packed, worker.address)
    if news_op is None:
        return answer
    # Before the worker's own news that the call has ended: both go the same way, in this order.
    is_sent = len(answer) <= _MOST_SENT_BYTES
    news = {"op": news_op, "key": key, "answer": answer if is_sent else None}
    worker.loop.add_callback(worker.batched_send, news)
    return None if is_sent else answer


def _drop_if_waiting(keys: list[str], dask_worker: Any) -> list[str]:
    """Drop those calls that this worker has not begun; returns those that it has."""
    account = _account(dask_worker)
    with account.lock:
        begun = [key for key in keys if key in account.begun]
        account.dropped.update(dict.fromkeys(keys))
        while len(account.dropped) > _N_KEPT:
            del account.dropped[next(iter(account.dropped))]
        return begun


def _account(worker: Any) -> Any:
    """Find what a worker remembers of our calls: this code is new there with each of them."""
    import types

    account = vars(worker).get("amltk_nb")
    if account is None:
        new = types.SimpleNamespace(lock=threading.Lock(), begun={}, dropped={})
        account = vars(worker).setdefault("amltk_nb", new)
    return account


def _kill_if_running(key: str, dask_worker: Any) -> bool:
    """Kill this worker's process and its children if it runs a call; on the worker's loop."""
    import os
    import signal

    import psutil  # Dask itself needs it

    task = dask_worker.state.tasks.get(key)
    if task is None or task.state not in ("executing", "long-running"):
        return False
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may have ended by itself just now
            child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
    return True
