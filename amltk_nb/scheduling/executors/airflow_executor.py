"""A `concurrent.futures.Executor` over Airflow, for those who have no scheduler of ours."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from amltk_nb.errors import ExecutorClosedError
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.airflow_call import DAG_ID
from amltk_nb.scheduling.executors.base import Backend, open_backend

if TYPE_CHECKING:
    from amltk_nb.scheduling.executors.airflow_rest import Auth

__all__ = ["AirflowExecutor"]

P = ParamSpec("P")
R = TypeVar("R")


class AirflowExecutor(Executor):
    """Runs calls as runs of one DAG of Airflow; `Scheduler(AirflowExecutor(...))` works as well.

    By itself it keeps what Airflow has not been given yet: at most `max_active` calls are under
    way. A future that is running, as `concurrent.futures` has it, may still wait in Airflow.
    """

    def __init__(
        self, base_url: str, dag_id: str = DAG_ID, auth: Auth = None, **options: Any
    ) -> None:
        """Choose an Airflow; it is asked when the first call comes.

        Args:
            base_url: of its web page: "http://localhost:8080".
            dag_id: of the DAG that `python -m amltk_nb.airflow_dag` has put there.
            auth: a token, (user, password), or a function that returns a token.
            options: secret, max_active, max_bytes, poll and more: see `Scheduler.with_airflow`.

        Raises:
            ValueError, TypeError: an argument that makes no sense.
            MissingExtraError: httpx is not installed.
        """
        self._options = {"base_url": base_url, "dag_id": dag_id, "auth": auth, **options}
        self._desk = _Desk(open_backend("airflow", **self._options))

    def scheduler_backend(self) -> Backend:
        """Make what a scheduler runs calls with; it has its own calls, and its own end.

        Raises:
            ExecutorClosedError: after `shutdown`.
        """
        self._desk.check_open()
        return open_backend("airflow", **self._options)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a call run on Airflow.

        Raises:
            ExecutorClosedError: after `shutdown`, or when Airflow is gone.
            NotPicklableError: the function or an argument cannot travel, or is too large.
        """
        return self._desk.accept(fn, args, kwargs)

    def end(self, future: Future[Any]) -> bool:
        """End a call, whether it waits or runs; `cancel()` of a future ends waiting ones only.

        Returns:
            Whether it is being ended; its `result()` raises a CancelledError then. Airflow stops
            what runs at the task's next heartbeat. False: it has ended, or is not from here.
        """
        return self._desk.end(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let go of Airflow when those under way have ended.

        Args:
            wait: return only then.
            cancel_futures: cancel those that Airflow has not been given yet.
        """
        leaving = self._desk.close(cancel_waiting=cancel_futures)
        if wait:
            leaving.join()


class _Desk:
    """Keeps calls until there is room for them, and settles their futures; a `Listener`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # told when a call has ended
        self._queue: deque[Call] = deque()  # not with Airflow yet
        self._futures: dict[Call, Future[Any]] = {}  # of all calls that have not ended
        self._is_open = False
        self._leaving: threading.Thread | None = None
        self._lost: BaseException | None = None

    # ---------------------------------------------------------------- for the user's thread

    def accept(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        self.check_open()
        call = Call(next(self._ids), fn, args, kwargs)
        self._backend.prepare(call)
        future: Future[Any] = Future()
        with self._lock:
            self.check_open()
            if not self._is_open:
                self._backend.open(self)
                self._is_open = True
            self._futures[call] = future
            self._queue.append(call)
            self._fill()
        future.add_done_callback(lambda _: self._drop(call))
        return future

    def end(self, future: Future[Any]) -> bool:
        if future.cancel():
            return True
        with self._lock:
            calls = [call for call, its in self._futures.items() if its is future]
            return bool(calls) and self._backend.end(calls[0])

    def check_open(self) -> None:
        if self._lost is not None:
            raise ExecutorClosedError(
                f"This AirflowExecutor runs nothing any more: {self._lost} Then make a new one."
            ) from self._lost
        if self._leaving is not None:
            raise ExecutorClosedError(
                "This AirflowExecutor has been shut down; make a new one for more calls."
            )

    def close(self, *, cancel_waiting: bool) -> threading.Thread:
        """Take no more calls; the thread that is returned ends when all have ended."""
        with self._lock:
            if self._leaving is None:
                name = "amltk-nb-AirflowExecutor leaves"
                self._leaving = threading.Thread(target=self._leave, name=name, daemon=True)
                self._leaving.start()
            waiting = [self._futures[call] for call in self._queue] if cancel_waiting else []
        for future in waiting:
            future.cancel()
        return self._leaving

    def _leave(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._futures)
        if self._is_open:
            self._backend.close(end_running=False)

    def _fill(self) -> None:
        """Hand over as many calls as there is room for; under the lock."""
        while self._queue and self._backend.slots() > 0:
            call = self._queue.popleft()
            if self._futures[call].set_running_or_notify_cancel():
                self._backend.start([call])
            else:
                self._forget(call)

    def _drop(self, call: Call) -> None:
        """Take a cancelled call out of the queue; those who wait for it are told."""
        with self._lock:
            if call in self._queue:
                self._queue.remove(call)
                self._futures[call].set_running_or_notify_cancel()
                self._forget(call)

    def _forget(self, call: Call) -> None:
        self._futures.pop(call, None)
        self._changed.notify_all()

    # ---------------------------------------------------------------- for the backend's threads

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            error = CancelledError() if outcome.cancelled else outcome.error
            self._settle(outcome.call, outcome.value, error)

    ended_here = ended

    def lost(self, error: BaseException) -> None:
        """Fail what waits: nobody will run it."""
        with self._lock:
            self._lost = error
            waiting = list(self._queue)
            self._queue.clear()
            running = [c for c in waiting if self._futures[c].set_running_or_notify_cancel()]
            for call in set(waiting) - set(running):
                self._forget(call)
        for call in running:
            self._settle(call, None, error)

    def changed(self) -> None:
        with self._lock:
            self._fill()

    def returned(self, calls: Sequence[Call]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(calls))

    def no_workers(self, seconds: float) -> None:
        logging.getLogger(__name__).warning("Airflow has run nothing for %.0f s", seconds)

    def log(self, source: str, level: str, text: str) -> None:
        number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
        logging.getLogger(__name__).log(number, "%s: %s", source, text)

    def call_soon(self, fn: Callable[[], None]) -> None:
        fn()

    def watch(self, fd: int, on_readable: Callable[[], None]) -> bool:
        return False

    def _settle(self, call: Call, value: Any, error: BaseException | None) -> None:
        """Settle a future outside of the lock, because callbacks may take their time."""
        with self._lock:
            future = self._futures[call]
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
        with self._lock:
            self._forget(call)
            self._fill()
