"""Calls that run in this process: in threads, or one after the other on the loop itself."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ClassVar, ParamSpec, TypeVar

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Backend, Listener
from amltk_nb.scheduling.executors.cpus import available_cpus, checked_workers
from amltk_nb.scheduling.snapshot import WorkerRecord

__all__ = ["SequentialBackend", "SequentialExecutor", "ThreadBackend"]

P = ParamSpec("P")
R = TypeVar("R")

_REPORT_EVERY_S = 0.005


class SequentialExecutor(Executor):
    """Runs each call inside `submit` and returns a future that is done.

    A scheduler over it runs one call per turn of the loop, so stopping, timeouts and callbacks
    act between two calls.
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
    cannot_end = (
        "a sequential call runs in the kernel itself and cannot be ended by the scheduler; "
        "interrupt the kernel, or use with_processes()"
    )

    def __init__(self) -> None:
        """Make it; there is nothing to set."""
        self.options: Mapping[str, Any] = {}
        self._next: Call | None = None  # handed over, not begun
        self._lock = threading.Lock()  # of `_next`: any thread may end a call, the loop begins it
        self._busy = False
        self._listener: Listener | None = None

    def open(self, listener: Listener) -> None:
        """Get ready to run calls."""
        self._listener = listener
        self._busy = False

    def slots(self) -> int:
        """One, or none while a call is under way."""
        return 0 if self._busy else 1

    def start(self, calls: Sequence[Call]) -> None:
        """Have the loop run the call at its next turn."""
        self._busy = True
        (self._next,) = calls
        self._next.worker = "main"
        assert self._listener is not None
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
        with self._lock:
            call, self._next = self._next, None
        if call is not None:
            self._report(_invoke(call, "main", run=_run_aside))

    def _report(self, outcome: Outcome) -> None:
        self._busy = False
        assert self._listener is not None
        self._listener.ended((outcome,))


class _Thread:
    """One worker thread and the queue that feeds it; None ends it."""

    def __init__(self, name: str, work: Callable[[_Thread, Sequence[Call]], None]) -> None:
        self.name = name
        self.batch: list[Call] = []  # handed over and not reported yet
        self.running: Call | None = None
        self._inbox: SimpleQueue[Sequence[Call] | None] = SimpleQueue()
        self._work = work
        # Daemonic: a call that never ends must not keep the interpreter from exiting.
        self._thread = threading.Thread(target=self._loop, name=f"amltk-nb-{name}", daemon=True)
        self._thread.start()

    def give(self, calls: Sequence[Call] | None) -> None:
        self._inbox.put(calls)

    def join(self) -> None:
        self._thread.join()

    def _loop(self) -> None:
        while (calls := self._inbox.get()) is not None:
            self._work(self, calls)


class ThreadBackend(Backend):
    """Runs calls in threads of this process; they share its memory and its interpreter lock."""

    name = "ThreadExecutor"
    batches = True
    cannot_end = (
        "Python cannot end a running thread; use with_processes() for calls that you may end"
    )

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
        """Give the batch to an idle thread, or to a new one."""
        with self._lock:
            thread = self._idle.pop() if self._idle else self._grow()
            thread.batch = list(calls)
        for call in calls:
            call.worker = thread.name
        thread.give(calls)

    def close(self, *, end_running: bool) -> None:
        """End the threads; with `end_running` without waiting for calls that run on."""
        with self._lock:
            threads, self._threads, self._idle = self._threads, [], []
            abandoned = [call for thread in threads for call in thread.batch] if end_running else []
            if end_running:
                for thread in threads:
                    thread.batch = []
        for thread in threads:
            thread.give(None)
        if abandoned and self._listener is not None:
            self._listener.ended([Outcome(c, cancelled=True, worker=c.worker) for c in abandoned])
        if not end_running:
            for thread in threads:
                thread.join()

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Show each thread."""
        return tuple(
            WorkerRecord(
                name=t.name,
                state="busy" if t.batch else "idle",
                call=t.running.id if t.running else None,
            )
            for t in list(self._threads)
        )

    def _grow(self) -> _Thread:
        thread = _Thread(f"worker-{len(self._threads) + 1}", self._work)
        self._threads.append(thread)
        return thread

    def _work(self, thread: _Thread, calls: Sequence[Call]) -> None:
        outcomes: list[Outcome] = []
        report_at = time.perf_counter() + _REPORT_EVERY_S
        for n_left, call in zip(range(len(calls) - 1, -1, -1), calls, strict=True):
            if not thread.batch:  # abandoned by close()
                return
            thread.running = call
            outcomes.append(_invoke(call, thread.name, run=asyncio.run))
            if n_left and time.perf_counter() > report_at:
                self._report(thread, outcomes, over=False)
                outcomes = []
                report_at = time.perf_counter() + _REPORT_EVERY_S
        thread.running = None
        self._report(thread, outcomes, over=True)

    def _report(self, thread: _Thread, outcomes: list[Outcome], *, over: bool) -> None:
        with self._lock:
            if not thread.batch:
                return
            thread.batch = [] if over else thread.batch[len(outcomes) :]
            if over:
                self._idle.append(thread)
        assert self._listener is not None
        self._listener.ended(outcomes)


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
        error = raised
    return Outcome(
        call,
        value=value,
        error=error,
        started_at=started_at,
        seconds=time.perf_counter() - began,
        worker=worker,
    )


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
