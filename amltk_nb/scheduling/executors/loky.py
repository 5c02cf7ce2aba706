"""Calls in worker processes of loky, on this machine.

Its executor is one of our own, not the one that loky shares with everybody in the process (that
one is replaced when somebody asks for another size). A worker that dies breaks such an executor
for good, so a new one takes its place: the calls that were under way fail, the others run.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import BrokenExecutor, Future
from typing import Any
from weakref import WeakSet

from amltk_nb.errors import BackendStartError, MissingExtraError, WorkerDiedError
from amltk_nb.scheduling.executors.cpus import available_cpus, checked_workers
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Death,
    Done,
    Handle,
    NeverRanError,
    News,
    RemoteBackend,
    RemoteWorker,
)
from amltk_nb.scheduling.executors.tickets import DROPPED, Tickets, take
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["LokyBackend"]


class LokyBackend(RemoteBackend):
    """Runs calls in a `loky.ProcessPoolExecutor` that it opens for each run."""

    name = "LokyExecutor"
    n_ahead = None
    cannot_end = (
        "loky offers no way to end one running call, only all of them (stop now); "
        "use Scheduler.with_processes() for that"
    )

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        timeout: float | None = None,
        context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """Choose how the executor will be.

        Args:
            max_workers: at least 1; None: as many as this process may use CPUs.
            timeout: seconds after which an idle worker leaves; None: never.
            context: how workers start, "loky" if None; see loky.
            initializer: called in each worker before any call.
            initargs: its arguments.
            env: environment variables that workers get besides those of this process.

        Raises:
            ValueError, TypeError: an argument that makes no sense.
            MissingExtraError: loky is not installed.
        """
        _loky()
        self._n_wanted = checked_workers(max_workers) or available_cpus()
        super().__init__(options={"max_workers": self._n_wanted})
        self._given = {
            "timeout": timeout,
            "context": context,
            "initializer": Portable(_begin_worker),
            "initargs": (os.getpid(), initializer, initargs),
            "env": env,
        }

    def connect(self, news: News) -> Connection:
        """Make an executor; its workers start with the first call."""
        try:
            return _LokyConnection(self._n_wanted, self._given)
        except (ValueError, TypeError) as error:
            raise BackendStartError(f"loky takes no such options: {error}") from error


class _LokyConnection(Connection):
    """An executor, and the one that takes its place when a worker has died."""

    def __init__(self, n_workers: int, options: dict[str, Any]) -> None:
        self._n_workers = n_workers
        self._options = options
        self._run = Portable(_run_in_worker)
        self._lock = threading.Lock()  # of the swap for a new executor
        self._executor = self._new()
        self._tickets = Tickets()
        self._ticket_of: dict[Any, str] = {}  # of calls under way
        self._useful: WeakSet[Any] = WeakSet()  # executors that have given an answer

    def _new(self) -> Any:
        return _loky().ProcessPoolExecutor(self._n_workers, **self._options)

    def submit(self, packed: bytes, done: Done) -> Handle:
        executor, ticket = self._working(), self._tickets.new()
        future: Future[bytes] = executor.submit(self._run, packed, ticket)
        self._ticket_of[future] = ticket

        def ended(_: Future[bytes]) -> None:
            del self._ticket_of[future]
            done(self._answer(future, ticket, executor))
            self._tickets.gone(ticket)

        future.add_done_callback(ended)
        return future

    def _answer(
        self, future: Future[bytes], ticket: str, executor: Any
    ) -> bytes | BaseException | Death:
        answer = _answer(future)
        if isinstance(answer, bytes):
            self._useful.add(executor)
            return NeverRanError() if answer == DROPPED else answer
        # One whose workers never get as far as a call would have it again and again.
        if isinstance(answer, WorkerDiedError) and executor in self._useful and take(ticket):
            return NeverRanError()
        return answer

    def drop(self, handles: Collection[Handle]) -> Collection[Handle]:
        """Take their tickets; loky itself may have given them to a worker that has another one."""
        dropped = []
        for handle in handles:
            ticket = self._ticket_of.get(handle)
            if ticket is not None and take(ticket):
                dropped.append(handle)
        return dropped

    def _working(self) -> Any:
        with self._lock:
            if self._executor._flags.broken is not None:
                self._executor.shutdown(wait=False, kill_workers=True)
                self._executor = self._new()
            return self._executor

    def workers(self) -> Sequence[RemoteWorker]:
        # They start with the first call and leave when idle; what counts is how many may be.
        pids = sorted(self._executor._processes or ())[: self._n_workers]
        there = [RemoteWorker(name=f"pid-{pid}", pid=pid) for pid in pids]
        to_come = range(self._n_workers - len(pids))
        return [*there, *(RemoteWorker(name=f"to-come-{n}", is_there=False) for n in to_come)]

    def disconnect(self, running: Collection[Handle]) -> None:
        self._executor.shutdown(wait=True, kill_workers=bool(running))
        self._tickets.close()


def _begin_worker(
    parent_pid: int, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    from amltk_nb.scheduling.process_life import stand_alone

    stand_alone()
    # loky's workers notice no end of their parent: they would wait for its calls for ever.
    threading.Thread(target=_end_with, args=(parent_pid,), daemon=True).start()
    # The ■ button interrupts the whole process group of the kernel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Else processes that a call starts the standard way are told of a way named "loky", which
    # they do not know.
    multiprocessing.set_start_method(None, force=True)
    if initializer is not None:
        initializer(*initargs)


def _end_with(parent_pid: int) -> None:
    """End this worker and what its calls have started when its parent is gone."""
    from amltk_nb.scheduling.process_life import die, while_alive

    for _ in while_alive(parent_pid):
        pass
    die(1)


def _run_in_worker(packed: bytes, ticket: str) -> bytes:
    if not take(ticket):
        return DROPPED
    return run_call(packed, f"pid-{os.getpid()}")


def _answer(future: Future[bytes]) -> bytes | BaseException:
    error: BaseException | None = future.exception()
    if error is None:
        return future.result()
    if not isinstance(error, BrokenExecutor):
        return error
    died = WorkerDiedError(
        "A worker of loky died while this call was under way, and all calls that were under way "
        f"with it ended: {_exit_codes(error)}. Often that is too much memory, or a crash in "
        "compiled code; Scheduler.with_processes() loses only the call that did it."
    )
    died.__cause__ = error
    return died


def _exit_codes(error: BaseException) -> str:
    """Find in loky's long text what is particular to this case."""
    found = re.search(r"exit codes of the workers are \{(.*?)\}", str(error))
    return f"exit codes {found[1]}" if found else (str(error).strip().splitlines() or ["?"])[0]


def _loky() -> Any:
    try:
        import loky
    except ImportError:
        raise MissingExtraError(
            "Scheduler.with_loky() needs loky, which is not installed: "
            "pip install 'amltk-nb[loky]'. Without it, Scheduler.with_processes() runs calls in "
            "processes as well."
        ) from None
    return loky
