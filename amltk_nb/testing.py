"""Doubles for tests: calls that end when the test says so, a clock that moves when it says so.

A test of callbacks needs neither workers nor waiting::

    backend = ManualBackend(n_workers=2)
    scheduler = Scheduler(backend)
    recorder = EventRecorder(scheduler)
    run = scheduler.start()
    future = scheduler.submit(print, "never printed")
    backend.finish(future, "the result")
    assert await future == "the result"

`ManualBackend` is the usual one. `ManualExecutor` stands for an executor that somebody else made:
the scheduler sees its futures only, so it can also be used to play that somebody.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, InvalidStateError
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from amltk_nb.errors import CallNotFoundError
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.call import Future as CallFuture
from amltk_nb.scheduling.executors.base import Backend, Listener
from amltk_nb.scheduling.snapshot import WorkerRecord

if TYPE_CHECKING:
    from amltk_nb.events import Emitter
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.task import Task

__all__ = ["EventRecorder", "FakeClock", "ManualBackend", "ManualExecutor", "Recorded"]

P = ParamSpec("P")
R = TypeVar("R")


class FakeClock:
    """A clock for `Scheduler(clock=…)`: calling it tells the time in seconds."""

    def __init__(self, start_s: float = 0.0) -> None:
        """Set it; it stands still from then on."""
        self.now_s = start_s

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Move it forward.

        Raises:
            ValueError: a negative number of seconds.
        """
        if not seconds >= 0:
            raise ValueError(f"advance({seconds!r}): time goes forward only; use 0 or more.")
        self.now_s += seconds


class ManualBackend(Backend):
    """Takes calls and runs none: `finish`, `fail`, `cancel` and `give_back` end them.

    These may be called on any thread, with a call or its future; what they report is dealt with
    when the loop turns next.
    """

    name = "ManualBackend"

    def __init__(
        self, n_workers: int = 2, *, cannot_end: str | None = None, batches: bool = False
    ) -> None:
        """Make it with free workers.

        Args:
            n_workers: how many batches it takes at the same time.
            cannot_end: why it cannot end running calls; None: it can.
            batches: whether it takes several calls at once.
        """
        self.n_workers = n_workers
        self.cannot_end = cannot_end
        self.batches = batches  # type: ignore[misc]  # of the class elsewhere
        self.options: Mapping[str, Any] = {"n_workers": n_workers}
        self.n_opened = 0
        self.n_closed = 0
        self.started: list[list[int]] = []  # the ids of each batch, in order of starting
        self._batches: dict[str, list[Call]] = {}  # worker → what it has not ended
        self._free: list[int] = []  # numbers of workers that ended what they had; a heap
        self._n_needed = 0  # workers that were ever needed
        self._ending: set[Call] = set()  # being ended; their workers are taken until it is told
        self._changed = threading.Condition()
        self._listener: Listener | None = None

    @property
    def calls(self) -> list[Call]:
        """What it has and has not ended, worker by worker."""
        with self._changed:
            return self._open_calls()

    def _open_calls(self) -> list[Call]:
        batches = self._batches.values()
        return [call for batch in batches for call in batch if call not in self._ending]

    # ---------------------------------------------------------------- for the test

    def finish(self, call: Call | CallFuture[Any], value: Any = None, **measured: Any) -> None:
        """Have a call return.

        Args:
            call: one that was started here.
            value: its result.
            measured: `seconds`, `started_at`, `output` of its `Outcome`.

        Raises:
            CallNotFoundError: it is not running here.
        """
        call = self._taken(call)
        self._report(Outcome(call, value=value, worker=call.worker, **measured))

    def fail(self, call: Call | CallFuture[Any], error: BaseException, **measured: Any) -> None:
        """Have a call raise; see `finish`."""
        call = self._taken(call)
        self._report(Outcome(call, error=error, worker=call.worker, **measured))

    def cancel(self, call: Call | CallFuture[Any]) -> None:
        """Have a call end as cancelled though nobody asked the scheduler for it; see `finish`."""
        call = self._taken(call)
        self._report(Outcome(call, cancelled=True, worker=call.worker))

    def give_back(self, *calls: Call | CallFuture[Any]) -> None:
        """Have a worker die before it began these; they wait again. See `finish`."""
        given = [self._taken(call) for call in calls]
        assert self._listener is not None
        self._listener.returned(given)

    # ---------------------------------------------------------------- for the scheduler

    def open(self, listener: Listener) -> None:
        """Get ready."""
        self._listener = listener
        self.n_opened += 1

    def slots(self) -> int:
        """Count the workers without a batch."""
        return self.n_workers - len(self._batches)

    def start(self, calls: Sequence[Call]) -> None:
        """Keep a batch for the test to end."""
        with self._changed:
            if self._free:
                number = heappop(self._free)
            else:
                number = self._n_needed = self._n_needed + 1
            worker = f"worker-{number}"
            self._batches[worker] = list(calls)
        self.started.append([call.id for call in calls])
        for call in calls:
            call.worker = worker

    def end(self, call: Call) -> bool:
        """End one running call soon, unless it was made without that ability."""
        with self._changed:
            if self.cannot_end is not None or call not in self._open_calls():
                return False
            self._ending.add(call)
        assert self._listener is not None
        self._listener.call_soon(lambda: self._end(call))
        return True

    def _end(self, call: Call) -> None:
        with self._changed:
            if call not in self._ending:  # closing came first
                return
            self._ending.discard(call)
        self.cancel(call)

    def close(self, *, end_running: bool) -> None:
        """Cancel what it has, or wait until the test has ended it."""
        if end_running:
            with self._changed:
                self._ending.clear()
            for call in self.calls:
                self.cancel(call)
        with self._changed:
            self._changed.wait_for(lambda: not self._batches)
        self.n_closed += 1

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Show each worker that was ever needed, the first call of its batch as the one it runs."""
        with self._changed:
            first = {name: batch[0].id for name, batch in self._batches.items()}
        names = (f"worker-{n}" for n in range(1, self.n_workers + 1))
        return tuple(
            WorkerRecord(name=name, state="busy" if name in first else "idle", call=first.get(name))
            for name in names
        )

    def _taken(self, call: Call | CallFuture[Any]) -> Call:
        call = call if isinstance(call, Call) else call.call
        with self._changed:
            batch = self._batches.get(call.worker or "", [])
            if call not in batch or call in self._ending:
                has = ", ".join(str(other.id) for other in self._open_calls()) or "none"
                raise CallNotFoundError(
                    f"call {call.id} is {call.state} and not running on this backend; "
                    f"running here: {has}."
                )
            batch.remove(call)
            if not batch:
                del self._batches[call.worker or ""]
                heappush(self._free, int(str(call.worker).rpartition("-")[2]))
            self._changed.notify_all()
        return call

    def _report(self, outcome: Outcome) -> None:
        assert self._listener is not None
        self._listener.ended((outcome,))


class ManualExecutor(Executor):
    """An executor that runs what was submitted to it when the test says so."""

    def __init__(self, max_workers: int = 2) -> None:
        """Make it; `max_workers` is how many calls a scheduler will hand over at a time."""
        self._max_workers = max_workers
        self._shutdown = False
        self._work: dict[Future[Any], Callable[[], Any]] = {}

    @property
    def futures(self) -> list[Future[Any]]:
        """What was submitted and has not ended, in order."""
        return [future for future in self._work if not future.done()]

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Keep a call.

        Raises:
            RuntimeError: after `shutdown`.
        """
        if self._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[R] = Future()
        self._work[future] = lambda: fn(*args, **kwargs)
        return future

    def run(self, future: Future[Any] | None = None) -> Any:
        """Run one submitted call on this thread, for its future.

        Args:
            future: which; the oldest if None.

        Raises:
            InvalidStateError: there is nothing left to run.
        """
        if future is None:
            future = next(iter(self.futures), None)
        if future is None or not future.set_running_or_notify_cancel():
            raise InvalidStateError("nothing is left to run: all that was submitted has ended")
        try:
            future.set_result(self._work.pop(future)())
        except BaseException as error:
            future.set_exception(error)

    def run_all(self) -> None:
        """Run everything, including what is submitted meanwhile."""
        while self.futures:
            self.run()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; it never waits, for only the test could end the calls."""
        self._shutdown = True
        if cancel_futures:
            for future in self.futures:
                future.cancel()


@dataclass(frozen=True, slots=True)
class Recorded:
    """One emission."""

    source: str | None  # the ref of a task; None: the scheduler itself
    event: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The event, behind the task's ref if it is one of a task: "Task-f-1.on_done"."""
        return self.event if self.source is None else f"{self.source}.{self.event}"


class EventRecorder:
    """Writes down the events of a scheduler and its tasks, in order of emission."""

    def __init__(self, scheduler: Scheduler, *, hidden: bool = True) -> None:
        """Listen to a scheduler and the tasks it has; `watch` adds later ones.

        Args:
            scheduler: whose events.
            hidden: whether views leave the recorder's callbacks out.
        """
        self.events: list[Recorded] = []
        self._hidden = hidden
        self._listen(scheduler.emitter, None)
        self.watch(*scheduler.tasks)

    def watch(self, *tasks: Task[..., Any]) -> None:
        """Listen to more tasks."""
        for task in tasks:
            self._listen(task, task.ref)

    @property
    def names(self) -> list[str]:
        """The names of all that was recorded, in order."""
        return [recorded.name for recorded in self.events]

    @property
    def counts(self) -> Counter[str]:
        """How often each name was recorded."""
        return Counter(self.names)

    def of(self, future: CallFuture[Any], *more: CallFuture[Any]) -> list[str]:
        """Return the names of what had these futures in its payload, in order."""
        wanted = (future, *more)
        return [
            recorded.name
            for recorded in self.events
            if any(argument is one for argument in recorded.args for one in wanted)
        ]

    def clear(self) -> None:
        """Forget what was recorded."""
        self.events.clear()

    def _listen(self, emitter: Emitter, source: str | None) -> None:
        for event in _names(emitter.events):
            emitter.on(event, self._noted(source, event), hidden=self._hidden, name="recorder")

    def _noted(self, source: str | None, event: str) -> Callable[..., None]:
        def note(*args: Any, **kwargs: Any) -> None:
            self.events.append(Recorded(source, event, args, kwargs))

        return note


def _names(events: Iterable[Any]) -> list[str]:
    return [str(getattr(event, "name", event)) for event in events]
