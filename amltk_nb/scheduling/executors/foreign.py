"""Any `concurrent.futures.Executor` that the user made: it stays theirs.

Its futures do not tell the truth about running (a process pool marks one more call than it runs
as running), so at most as many calls are handed over as it has workers; the rest wait in the
scheduler's own queue, where they can be cancelled and paused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import Any

from amltk_nb.errors import ExecutorClosedError
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Backend, Listener
from amltk_nb.scheduling.executors.cpus import available_cpus
from amltk_nb.scheduling.shipment import Parcel, Shipment

__all__ = ["ForeignBackend"]

_CLOSED_MARKS = ("_shutdown", "_shutdown_thread", "_broken")  # of the standard library's pools


class ForeignBackend(Backend):
    """Hands calls to an executor through its `submit`."""

    def __init__(
        self, executor: Executor, *, terminate: bool | Callable[[Any], object] = True
    ) -> None:
        """Wrap an executor.

        Args:
            executor: runs the calls; it is never shut down here, unless a run must end at once.
            terminate: how to end its running calls then: True: kill its processes, if it shows
                them; a function: is given the executor; False: leave them running unseen.
        """
        self.name = type(executor).__name__
        self.n_workers = getattr(executor, "_max_workers", None) or 2 * available_cpus()
        self.options: Mapping[str, Any] = {"max_workers": self.n_workers}
        self.cannot_end = (
            f"a {self.name} offers no way to end one running call; "
            "use Scheduler.with_processes() for that"
        )
        self.cannot_restart = (
            f"the {self.name} is yours, and so are its workers; make a new one and a new Scheduler "
            "with it to have edited modules imported anew"
        )
        self._executor = executor
        self._terminate = terminate
        self._lock = threading.Lock()
        self._futures: dict[Call, Future[Any]] = {}
        self._ended: set[Call] = set()  # reported as cancelled; what the executor says is late
        self._listener: Listener | None = None

    def open(self, listener: Listener) -> None:
        """Check that it still takes calls."""
        if any(getattr(self._executor, mark, False) for mark in _CLOSED_MARKS):
            raise ExecutorClosedError(
                f"The {self.name} passed to the scheduler has been shut down or is broken, so "
                "nothing can run on it. Make a new one and a new Scheduler with it, or use "
                "Scheduler.with_processes(), which opens its workers anew for every run."
            )
        self._listener = listener

    def slots(self) -> int:
        """Count the workers that have nothing of ours."""
        return int(self.n_workers) - len(self._futures)

    def start(self, calls: Sequence[Call]) -> None:
        """Submit the call to the executor."""
        for call in calls:
            try:
                future = self._executor.submit(Shipment(*call.work))
            except Exception as error:
                self._report_later(call, _explained(error, self.name))
                continue
            with self._lock:
                self._futures[call] = future
            self._watch(call, future)

    def end(self, call: Call) -> bool:
        """Take a call back that the executor has not begun."""
        future = self._futures.get(call)
        return future is not None and future.cancel()

    def close(self, *, end_running: bool) -> None:
        """Let go of the executor; with `end_running` without waiting for what it runs."""
        with self._lock:
            left = list(self._futures) if end_running else []
            self._ended.update(left)
            self._futures.clear()
        if left and self._listener is not None:
            if self._terminate:
                _terminate(self._executor, self._terminate)
            self._listener.ended([Outcome(call, cancelled=True) for call in left])

    def _watch(self, call: Call, future: Future[Any]) -> None:
        # An executor that ran the call inside submit() is done already; the listener must not
        # be called from within start().
        if future.done():
            assert self._listener is not None
            self._listener.call_soon(lambda: self._done(call, future))
        else:
            future.add_done_callback(lambda f: self._done(call, f))

    def _done(self, call: Call, future: Future[Any]) -> None:
        with self._lock:
            self._futures.pop(call, None)
            late = call in self._ended
            self._ended.discard(call)
        if not late and self._listener is not None:
            self._listener.ended((_outcome(call, future),))

    def _report_later(self, call: Call, error: BaseException) -> None:
        listener = self._listener
        assert listener is not None
        listener.call_soon(lambda: listener.ended((Outcome(call, error=error),)))


def _outcome(call: Call, future: Future[Any]) -> Outcome:
    try:
        answer = future.result()
    except CancelledError:
        return Outcome(call, cancelled=True)
    except BaseException as error:
        return Outcome(call, error=error)
    if not isinstance(answer, Parcel):  # an executor that ran something else than it was given
        return Outcome(call, value=answer)
    return Outcome(
        call,
        value=answer.value,
        error=answer.error,
        started_at=answer.started_at,
        seconds=answer.seconds,
    )


def _explained(error: Exception, name: str) -> Exception:
    if isinstance(error, BrokenExecutor) or not isinstance(error, RuntimeError):
        return error
    closed = ExecutorClosedError(
        f"The {name} refused the call: {error}. It was shut down while the scheduler was "
        "running; stop the scheduler before closing its executor, or let the scheduler open "
        "its own: Scheduler.with_processes()."
    )
    closed.__cause__ = error
    return closed


def _terminate(executor: Executor, how: bool | Callable[[Any], object]) -> None:
    if callable(how):
        how(executor)
        return
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.kill()
