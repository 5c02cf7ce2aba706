"""What can be read of a scheduler: one frozen tree of plain records, and who is told of changes.

Whatever shows a scheduler (text, HTML, the live widget, `records()`) reads a `Snapshot` and
nothing else. Times are seconds since the epoch, UTC; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from amltk_nb.scheduling.states import CallState, RunState

__all__ = [
    "BackendRecord",
    "BatchRecord",
    "CallRecord",
    "CallbackRecord",
    "EventRecord",
    "JournalRecord",
    "LogRecord",
    "Observer",
    "PluginRecord",
    "ProgressRecord",
    "RunRecord",
    "Snapshot",
    "TaskRecord",
    "WorkerRecord",
    "utc",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRecord:
    """One registered callback of one event."""

    text: str  # as its author would write it: "def print_hello() -> None"
    name: str  # "print_hello"
    n_calls: int = 0  # rounds it was called; a round of repeat=3 counts once
    n_errors: int = 0
    cell: str | None = None  # the label of the notebook cell it comes from: "[3]"
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One event of one emitter."""

    name: str  # as shown after the @: "on_start"
    count: int = 0
    callbacks: tuple[CallbackRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """One plugin of one task; `state` is what its `state()` returned, plain values only."""

    name: str
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """One registered function."""

    ref: str  # "Task-collatz-1"
    function: str  # "collatz"
    signature: str  # "collatz(n: int) -> int"
    events: tuple[EventRecord, ...] = ()
    plugins: tuple[PluginRecord, ...] = ()
    counts: Mapping[CallState, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressRecord:
    """How far a call is, by its own report."""

    n: float  # done, in whatever unit
    total: float | None = None  # to do in the same unit; None: unknown
    metrics: Mapping[str, Any] = field(default_factory=dict)  # plain values, as reported with it

    @property
    def fraction(self) -> float | None:
        """How much of it is done, from 0 to 1; None: unknown."""
        if self.total is None or not self.total > 0 or self.n != self.n:
            return None
        return min(1.0, max(0.0, self.n / self.total))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call; short texts only, so that a thousand of them stay small."""

    id: int  # counts up from 1 per scheduler, in order of submission
    task: str | None  # the task's ref; None for a bare scheduler.submit
    function: str
    args: str  # "12, depth=3", at most some 120 characters
    state: CallState
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float | None = None  # of running, as measured by the worker
    worker: str | None = None  # "worker-1"
    attempt: int = 1
    error: str | None = None  # "ValueError: bad C", one line
    resubmitted_from: int | None = None
    not_before: float | None = None  # of a queued call that waits for its time, as in a retry
    progress: ProgressRecord | None = None  # what it reported last, if it does


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """Several calls that were, or will be, submitted together."""

    task: str  # the signature of their task: "collatz(n: int) -> int"
    n_calls: int  # in all
    n_refused: int = 0  # submissions
    counts: Mapping[CallState, int] = field(default_factory=dict)  # of those that were accepted
    state: str = "not submitted"  # "submitted", "cancelled" (not all have ended yet), "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """One worker of the backend."""

    name: str
    # "starting", "idle", "busy"; "up" if nobody says which of the two; "to come" for one that
    # starts once it is given a call.
    state: str
    pid: int | None = None
    call: int | None = None  # the id of the call it runs, or of the first of several
    n_calls: int = 0  # how many it has been given, if the engine tells; `call` is one of them
    where: str | None = None  # its machine or address, if that is not this machine's


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRecord:
    """What runs the calls, and what can be asked of it."""

    name: str  # "ProcessExecutor"
    options: Mapping[str, Any] = field(default_factory=dict)  # {"max_workers": 2}
    n_workers: int = 0
    cannot_end: str | None = None  # why a running call cannot be ended; None: it can
    cannot_restart: str | None = None  # why workers cannot be replaced; None: they can
    reports_start: bool = True  # False: "running" may mean handed over and not begun
    waiting_for: str | None = None  # "workers of DaskExecutor", while nothing can run for that
    waiting_since: float | None = None
    no_workers_after_s: float | None = None  # how long a wait may be before it is told of
    n_jobs_waiting: int | None = None  # jobs in a batch queue; None: it has none


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One line block of the log: what a callback printed, a worker logged, or the engine says."""

    id: int
    at: float
    source: str  # "on_result · record", "worker-1", "scheduler"
    level: str  # "print", "debug", "info", "warning", "error"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRecord:
    """The file in which calls are recorded."""

    name: str  # without its folder: "run.db"
    n_unwritten: int = 0  # entries that it lacks for good
    is_failing: bool = False  # it cannot be written for now, and what is new waits
    is_closed: bool = False  # nothing is recorded any more


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The present run, or the last one."""

    state: RunState
    n: int = 0  # which run of this scheduler; 0: none yet
    started_at: float | None = None
    ended_at: float | None = None
    elapsed_s: float = 0.0
    code: str | None = None  # "exhausted", "stopped", …, once finished
    reason: str | None = None  # stop_msg, or the error in one line
    stopping_since: float | None = None
    grace_s: float | None = None  # what a plain stop gives running calls; None: all they take
    grace_ends_at: float | None = None  # while stopping: when running calls are ended; None: never
    cannot_start: str | None = None  # why a start button would fail; None: it would work


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A scheduler at one moment. `version` grows with every change that could be seen."""

    version: int
    name: str
    run: RunRecord
    backend: BackendRecord
    counts: Mapping[CallState, int]  # over all runs, all five states
    events: tuple[EventRecord, ...]  # the scheduler's own
    tasks: tuple[TaskRecord, ...] = ()
    calls: tuple[
        CallRecord, ...
    ] = ()  # bounded: running, then next in the queue, then latest ended
    workers: tuple[WorkerRecord, ...] = ()
    log: tuple[LogRecord, ...] = ()  # the bounded tail, oldest first
    now: float = 0.0  # when it was taken
    n_calls_hidden: int = 0  # calls that exist and are not among `calls`
    journal: JournalRecord | None = None


class Observer(Protocol):
    """Something that wants to know that a snapshot would look different now."""

    def changed(self) -> None:
        """Be told, on any thread; must return at once and must not call the scheduler."""


def utc(at: float | None) -> datetime | None:
    """Make a date of seconds since the epoch."""
    return None if at is None else datetime.fromtimestamp(at, tz=UTC)
