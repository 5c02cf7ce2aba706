"""The one interface between the scheduler and whatever runs its calls.

The engine hands over batches of calls and is told of each call's end, exactly once, on any
thread. A backend owns its workers from `open` to `close` and can be opened again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Protocol

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.snapshot import BackendRecord, WorkerRecord

__all__ = ["Backend", "Listener", "adopt", "open_backend"]

# The family's members, loaded on use: each may need a library of its own.
_MEMBERS = {
    "processes": ("amltk_nb.scheduling.executors.process", "ProcessBackend"),
    "threads": ("amltk_nb.scheduling.executors.local", "ThreadBackend"),
    "sequential": ("amltk_nb.scheduling.executors.local", "SequentialBackend"),
    "loky": ("amltk_nb.scheduling.executors.loky", "LokyBackend"),
    "dask": ("amltk_nb.scheduling.executors.dask", "DaskBackend"),
    "ray": ("amltk_nb.scheduling.executors.ray", "RayBackend"),
    "jobqueue": ("amltk_nb.scheduling.executors.jobqueue", "JobQueueBackend"),
    "ipyparallel": ("amltk_nb.scheduling.executors.ipyparallel", "IPyParallelBackend"),
    "airflow": ("amltk_nb.scheduling.executors.airflow", "AirflowBackend"),
    "foreign": ("amltk_nb.scheduling.executors.foreign", "ForeignBackend"),
}


class Listener(Protocol):
    """What a backend may tell the engine. Every method may be called from any thread."""

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Report the ends of calls, which frees their slots; the next calls may start at once.

        The engine may call `slots` and `start` from within, on this thread.
        """

    def ended_here(self, outcomes: Sequence[Outcome]) -> None:
        """Report the ends of calls that ran on the loop's thread, which this is.

        As `ended`, and callbacks are told before it returns.
        """

    def returned(self, calls: Sequence[Call]) -> None:
        """Give back calls that never began (their worker died first): they run elsewhere."""

    def changed(self) -> None:
        """Say that slots or workers changed."""

    def lost(self, error: BaseException) -> None:
        """Say that nothing can run any more, so the run must end; calls under way have failed."""

    def no_workers(self, seconds: float) -> None:
        """Say that for so long nobody has been there to run calls; it may change."""

    def log(self, source: str, level: str, text: str) -> None:
        """Add to the log: what a worker logged or warned of outside of any call's output."""

    def call_soon(self, fn: Callable[[], None]) -> None:
        """Run `fn` on the loop's thread, soon."""

    def watch(self, fd: int, on_readable: Callable[[], None]) -> bool:
        """Have the loop call something while a descriptor has something to read.

        Called from within `Backend.open`, on the loop's thread; ends before `Backend.close`.

        Returns:
            Whether it will. False: this loop cannot, or there is none.
        """


class Backend(ABC):
    """Runs calls somewhere.

    `slots`, `start` and `end` are called under the engine's dispatch lock, so they must be quick,
    must not block on a worker and must not call the listener on the same thread.
    """

    name: str  # shown in the views: "ProcessExecutor"
    options: Mapping[str, Any]  # shown beside it: {"max_workers": 2}
    n_workers: int  # how many calls can run at the same time; may change during a run
    cannot_end: str | None = None  # why a running call cannot be ended; None: it can
    cannot_restart: str | None = None  # why `restart` cannot replace workers; None: it can
    batches: ClassVar[bool] = False  # whether several calls may travel in one `start`
    holds_loop: ClassVar[bool] = False  # whether the loop stands still while a call runs
    reports_start: ClassVar[bool] = True  # False: "running" may mean handed over and not begun
    transport: ClassVar[str] = "local"  # how its running calls can be talked with
    captures_output: bool = True  # whether to take what calls print in other processes

    def reach(self) -> str | None:
        """Say by which address its workers reach this machine; None: all of them are on it."""
        return None

    @abstractmethod
    def open(self, listener: Listener) -> None:
        """Get ready to run calls; returns at once, anything slow goes on elsewhere.

        Raises:
            ExecutorClosedError: the user's executor behind it was shut down.
        """

    def prepare(self, call: Call) -> None:  # noqa: B027 - nothing to do is right for most
        """Make what travels (`call.payload`) at submission, so that later edits do not matter.

        Raises:
            NotPicklableError: naming the function or the argument that cannot travel.
        """

    def packed(self, call: Call) -> tuple[Any, Any] | None:
        """Return the shipped function and the packed arguments of a call, if it made just these."""
        return None

    @abstractmethod
    def slots(self) -> int:
        """How many more batches it takes at this moment; those on starting workers count."""

    @abstractmethod
    def start(self, calls: Sequence[Call]) -> None:
        """Take over one batch, to be run in order by one worker. Sets each call's `worker`."""

    def reclaim(self) -> list[Call]:
        """Give back calls of batches that are late and that have not begun, in their order."""
        return []

    def end(self, call: Call) -> bool:
        """End one running call, and no other; its outcome comes as cancelled.

        Returns:
            Whether it is being ended. False: its end is already on the way, or cannot be caused.
        """
        return False

    @abstractmethod
    def close(self, *, end_running: bool) -> None:
        """Give everything back; blocks until that is done, so the engine calls it off the loop.

        Args:
            end_running: end running calls, their child processes included, within 2 s, and
                report them as cancelled; else wait for them. Where they cannot be ended, they
                are reported as cancelled and left to finish unseen.
        """

    def restart(self) -> None:  # noqa: B027 - nothing to do is right for most
        """Replace the workers, so that edited modules are imported anew; running calls finish.

        Nothing to do where workers share this process: `importlib.reload` does it there.
        """

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Say what each worker does now."""
        return ()

    def describe(self) -> BackendRecord:
        """Say what it is, for the views."""
        return BackendRecord(
            name=self.name,
            options=dict(self.options),
            n_workers=self.n_workers,
            cannot_end=self.cannot_end,
            cannot_restart=self.cannot_restart,
        )


def open_backend(kind: str, **options: Any) -> Backend:
    """Make a backend by the name of its kind.

    Args:
        kind: what the member is called in the table above.
        options: what that backend's constructor takes.
    """
    module, name = _MEMBERS[kind]
    backend: Backend = getattr(import_module(module), name)(**options)
    return backend


def adopt(
    executor: Any, *, terminate: bool | Callable[[Any], object], capture_output: bool
) -> Backend:
    """Make a backend of whatever the user passed as executor.

    Args:
        executor: a backend, any `concurrent.futures.Executor`, or None for local processes.
        terminate: see `Scheduler`.
        capture_output: see `Scheduler`.

    Raises:
        TypeError: something that runs nothing.
    """
    if not isinstance(executor, type) and hasattr(executor, "scheduler_backend"):
        executor = executor.scheduler_backend()  # one of ours that is more than its `submit`
    if isinstance(executor, Backend):
        executor.captures_output = executor.captures_output and capture_output
        return executor
    if type(executor).__name__ == "Client" and type(executor).__module__.startswith("distributed"):
        raise TypeError(
            "Scheduler(client): a Dask client is no executor; use Scheduler.with_dask(client)."
        )
    if executor is None or executor is Ellipsis:
        return open_backend("processes", capture_output=capture_output)
    if getattr(executor, "is_sequential", False):
        return open_backend("sequential")
    if not callable(getattr(executor, "submit", None)) or isinstance(executor, type):
        raise TypeError(
            f"Scheduler({executor!r}): pass a concurrent.futures.Executor, or use "
            "Scheduler.with_processes(2), .with_threads(2) or .with_sequential()."
        )
    return open_backend("foreign", executor=executor, terminate=terminate)
