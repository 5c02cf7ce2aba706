"""Calls that run in this process: in threads, or one after the other on the loop itself."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, ClassVar, ParamSpec, TypeVar

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Backend, Listener
from amltk_nb.scheduling.executors.cpus import available_cpus, checked_workers
from amltk_nb.scheduling.snapshot import WorkerRecord

__all__ = ["SequentialBackend", "SequentialExecutor", "ThreadBackend"]

P = ParamSpec("P")
R = TypeVar("R")

_TURN_S = 0.0025  # as long as the engine holds the loop in one go

_IN_THIS_PROCESS = (
    "its calls run in this process, where importlib.reload() has an edited module imported anew"
)


class SequentialExecutor(Executor):
    """Runs each call inside `submit` and returns a future that is done.

    A scheduler over it leaves the loop to others every few milliseconds, so stopping, timeouts and
    callbacks act between two calls.
    """

    is_sequential: ClassVar[bool] = True

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run the call now."""
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class SequentialBackend(Backend):
    """Runs one call at a time on the loop's thread."""

    name = "SequentialExecutor"
    n_workers = 1
    holds_loop = True
    cannot_end = (
        "a sequential call runs in the kernel itself and cannot be ended by the scheduler; "
        "interrupt the kernel, or use with_processes()"
    )
    cannot_restart = _IN_THIS_PROCESS

    def __init__(self) -> None:
        """Make it; there is nothing to set."""
        self.options: Mapping[str, Any] = {}
        self._next: Call | None = None  # handed over, not begun
        self._lock = threading.Lock()  # of `_next`: any thread may end a call, the loop begins it
        self._busy = False
        self._is_due = False  # whether the loop has been asked to run calls
        self._listener: Listener | None = None

    def open(self, listener: Listener) -> None:
        """Get ready to run calls."""
        self._listener = listener
        self._busy = self._is_due = False

    def slots(self) -> int:
        """One, or none while a call is under way."""
        return 0 if self._busy else 1

    def start(self, calls: Sequence[Call]) -> None:
        """Have the loop run the call at its next turn, or in this one if there is time left."""
        self._busy = True
        (self._next,) = calls
        self._next.worker = "main"
        assert self._listener is not None
        if not self._is_due:
            self._is_due = True
            self._listener.call_soon(self._run)

    def end(self, call: Call) -> bool:
        """Take a call back that was handed over and has not begun."""
        with self._lock:
            if self._next is not call:
                return False
            self._next = None
        assert self._listener is not None
        self._listener.call_soon(lambda: self._report(Outcome(call, cancelled=True)))
        return True

    def close(self, *, end_running: bool) -> None:
        """Give back a call that has not begun; one that has ends by itself, on the loop."""
        if end_running and (call := self._next) is not None:
            self.end(call)

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Show the one place where calls run."""
        return (WorkerRecord(name="main", state="busy" if self._busy else "idle"),)

    def _run(self) -> None:
        """Run calls for one turn of the loop: a turn for each would cost as much as the call."""
        until = time.perf_counter() + _TURN_S
        # So the first call that follows asks for a turn of its own: there it goes on when time is
        # up, or when a callback has the loop turn meanwhile.
        self._is_due = False
        while self._run_next() and time.perf_counter() < until:
            pass

    def _run_next(self) -> bool:
        with self._lock:
            call, self._next = self._next, None
        if call is None:
            return False
        self._report(_invoke(call, "main", run=_run_aside))
        return True

    def _report(self, outcome: Outcome) -> None:
        self._busy = False
        assert self._listener is not None
        self._listener.ended_here((outcome,))  # callbacks act between two calls


class _Thread:
    """One worker thread and the queue that feeds it; None ends it."""

    def __init__(self, name: str, work: Callable[[_Thread, Call], None]) -> None:
        self.name = name
        self.call: Call | None = None  # handed over and not reported yet
        self._inbox: SimpleQueue[Call | None] = SimpleQueue()
        self._work = work
        # Daemonic: a call that never ends must not keep the interpreter from exiting.
        self._thread = threading.Thread(target=self._loop, name=f"amltk-nb-{name}", daemon=True)
        self._thread.start()

    def give(self, call: Call | None) -> None:
        self._inbox.put(call)

    def join(self) -> None:
        self._thread.join()

    def _loop(self) -> None:
        while (call := self._inbox.get()) is not None:
            self._work(self, call)


class ThreadBackend(Backend):
    """Runs calls in threads of this process; they share its memory and its interpreter lock.

    Nothing travels, so batches would gain little, and a call might wait behind a long one: a
    thread that reports the end of a call is handed its next one in the same breath.
    """

    name = "ThreadExecutor"
    cannot_end = (
        "Python cannot end a running thread; use with_processes() for calls that you may end"
    )
    cannot_restart = _IN_THIS_PROCESS

    def __init__(self, max_workers: int | None = None) -> None:
        """Set the number of threads; they start when first needed.

        Args:
            max_workers: at least 1; None: as many as there are CPUs for this process.

        Raises:
            ValueError, TypeError: not a whole number of at least 1.
        """
        self.n_workers = checked_workers(max_workers) or available_cpus()
        self.options: Mapping[str, Any] = {"max_workers": self.n_workers}
        self._lock = threading.Lock()
        self._threads: list[_Thread] = []
        self._idle: list[_Thread] = []
        self._listener: Listener | None = None

    def open(self, listener: Listener) -> None:
        """Get ready to run calls."""
        self._listener = listener

    def slots(self) -> int:
        """Count idle threads and those not started yet."""
        return len(self._idle) + self.n_workers - len(self._threads)

    def start(self, calls: Sequence[Call]) -> None:
        """Give the call to an idle thread, or to a new one."""
        (call,) = calls
        with self._lock:
            thread = self._idle.pop() if self._idle else self._grow()
            thread.call = call
        call.worker = thread.name
        thread.give(call)

    def close(self, *, end_running: bool) -> None:
        """End the threads; with `end_running` without waiting for calls that run on."""
        with self._lock:
            threads, self._threads, self._idle = self._threads, [], []
            running = [thread.call for thread in threads if thread.call is not None]
            if end_running:
                for thread in threads:
                    thread.call = None
        for thread in threads:
            thread.give(None)
        if not end_running:
            for thread in threads:
                thread.join()
        elif running and self._listener is not None:
            self._listener.ended([Outcome(c, cancelled=True, worker=c.worker) for c in running])

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Show each thread."""
        running = [(thread.name, thread.call) for thread in list(self._threads)]
        return tuple(
            WorkerRecord(
                name=name, state="busy" if call else "idle", call=call.id if call else None
            )
            for name, call in running
        )

    def _grow(self) -> _Thread:
        thread = _Thread(f"worker-{len(self._threads) + 1}", self._work)
        self._threads.append(thread)
        return thread

    def _work(self, thread: _Thread, call: Call) -> None:
        outcome = _invoke(call, thread.name, run=asyncio.run)
        with self._lock:
            if thread.call is not call:  # abandoned by close()
                return
            thread.call = None
            self._idle.append(thread)
        assert self._listener is not None
        self._listener.ended((outcome,))


def _invoke(call: Call, worker: str, *, run: Callable[[Any], Any]) -> Outcome:
    """Run a call in this process; what it raises is its outcome."""
    started_at, began = time.time(), time.perf_counter()
    value: Any = None
    error: BaseException | None = None
    try:
        fn, args, kwargs = call.work
        value = fn(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = run(value)
    except BaseException as raised:
        # Without this frame, which holds on to the error and to the arguments.
        value, error = None, raised.with_traceback(_without_ours(raised.__traceback__))
    return Outcome(
        call,
        value=value,
        error=error,
        started_at=started_at,
        seconds=time.perf_counter() - began,
        worker=worker,
    )


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    return traceback.tb_next if traceback is not None else None


def _run_aside(coroutine: Any) -> Any:
    """Run a coroutine on a loop of its own beside the one of this thread, and wait for it."""
    done: Future[Any] = Future()

    def main() -> None:
        try:
            done.set_result(asyncio.run(coroutine))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=main, name="amltk-nb-coroutine", daemon=True).start()
    return done.result()
