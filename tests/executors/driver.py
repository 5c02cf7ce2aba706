"""A small engine for backends: it keeps a queue, starts what there is room for, records ends."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Backend

TIMEOUT_S = 30.0


def survivors(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Wait for processes to end and return those that did not.

    A zombie counts as ended: whether anybody reaps orphans is up to the machine's init process.
    """
    left = []
    until = time.monotonic() + timeout_s
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            left.append(pid)
        os.close(fd)
    return left


class Driver:
    """Listens to one backend and feeds it, as the scheduler does."""

    def __init__(self, backend: Backend, *, batch: int = 1) -> None:
        self.backend = backend
        self.batch = batch
        self.outcomes: list[Outcome] = []
        self.returned_ids: list[int] = []
        self.logs: list[tuple[str, str, str]] = []
        self.threads: set[str] = set()  # who called `ended`
        self.lost_errors: list[BaseException] = []
        self.no_workers_s: list[float] = []
        self._n_calls = 0
        self._waiting: list[Call] = []
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)

    def __enter__(self) -> Self:
        self.backend.open(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.backend.close(end_running=True)

    # What a test does.

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
        call = self.make(fn, *args, **kwargs)
        with self._lock:
            self._waiting.append(call)
            self._pump()
        return call

    def submit_batch(self, *works: tuple[Callable[..., Any], tuple[Any, ...]]) -> list[Call]:
        """Hand over exactly one batch; there must be room for it."""
        calls = [self.make(fn, *args) for fn, args in works]
        with self._lock:
            assert self.backend.slots() > 0
            self.backend.start(calls)
        return calls

    def make(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Call:
        with self._lock:
            self._n_calls += 1
            call = Call(self._n_calls, fn, args, kwargs)
        self.backend.prepare(call)
        return call

    def end(self, call: Call) -> bool:
        with self._lock:
            return self.backend.end(call)

    def outcome(self, call: Call) -> Outcome:
        """Wait for the one outcome of a call."""
        self.wait_for(lambda: any(each.call is call for each in self.outcomes))
        (only,) = (each for each in self.outcomes if each.call is call)
        return only

    def value(self, call: Call) -> Any:
        outcome = self.outcome(call)
        assert outcome.error is None, outcome.error
        assert not outcome.cancelled
        return outcome.value

    def error(self, call: Call) -> BaseException:
        outcome = self.outcome(call)
        assert outcome.error is not None
        return outcome.error

    def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.value(self.submit(fn, *args, **kwargs))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(condition, TIMEOUT_S), "it never happened"

    def log_texts(self, level: str) -> list[str]:
        with self._lock:
            return [text for _, its_level, text in self.logs if its_level == level]

    # What a backend tells.

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        with self._news:
            self.threads.add(threading.current_thread().name)
            self.outcomes += outcomes
            self._pump()
            self._news.notify_all()

    def ended_here(self, outcomes: Sequence[Outcome]) -> None:
        self.ended(outcomes)

    def returned(self, calls: Sequence[Call]) -> None:
        with self._news:
            self.returned_ids += [call.id for call in calls]
            self._waiting[:0] = calls
            self._pump()
            self._news.notify_all()

    def changed(self) -> None:
        with self._news:
            self._pump()
            self._news.notify_all()

    def lost(self, error: BaseException) -> None:
        with self._news:
            self.lost_errors.append(error)
            self._news.notify_all()

    def no_workers(self, seconds: float) -> None:
        with self._news:
            self.no_workers_s.append(seconds)
            self._news.notify_all()

    def log(self, source: str, level: str, text: str) -> None:
        with self._news:
            self.logs.append((source, level, text))
            self._news.notify_all()

    def call_soon(self, fn: Callable[[], None]) -> None:
        fn()

    def watch(self, fd: int, on_readable: Callable[[], None]) -> bool:
        return False

    def _pump(self) -> None:
        while self._waiting and self.backend.slots() > 0:
            calls, self._waiting = self._waiting[: self.batch], self._waiting[self.batch :]
            self.backend.start(calls)
