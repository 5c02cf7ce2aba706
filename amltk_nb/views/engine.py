"""What all views say of the engine behind a scheduler: who is there, what calls wait for.

Engines elsewhere do not tell all that local processes do. What they do not tell is not made up:
a call that was handed over may or may not have begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from amltk_nb.scheduling.snapshot import BackendRecord, CallRecord, Snapshot, WorkerRecord
from amltk_nb.scheduling.states import CallState
from amltk_nb.views import words

__all__ = [
    "HANDED_OVER",
    "Machine",
    "busy_text",
    "counted_words",
    "is_long",
    "jobs_text",
    "machines",
    "queue_text",
    "state_word",
    "waiting_hint",
    "waiting_text",
    "who_is_there",
]

HANDED_OVER = "handed over"
_HERE = "this machine"  # where workers are of which nobody says where

_STARTING = (
    "Starting takes long. What the engine says of it is in the log. Calls wait here meanwhile; "
    "Stop gives up and takes them back."
)
_IN_THE_QUEUE = (
    "The batch system has not begun our jobs; its own command (squeue, qstat, bjobs, condor_q, "
    "oarstat) or its pages say why. Calls wait here meanwhile; Stop takes them back, and the jobs."
)
_NOBODY = (
    "Nobody is there to run calls. Start workers, or see in their own logs why they ended. Calls "
    "wait here until somebody comes; Stop takes them back."
)


def state_word(call: CallRecord, backend: BackendRecord) -> str:
    """Say the state of a call as far as its engine knows; what reports has begun."""
    if call.state is CallState.RUNNING and not backend.reports_start and call.progress is None:
        return HANDED_OVER
    return str(call.state)


def counted_words(
    counts: Mapping[CallState, int], backend: BackendRecord
) -> list[tuple[CallState, int, str]]:
    """Return each state with its count and its word, in the order they are always shown."""
    return [(state, n, _word(state, n, backend)) for state, n in words.counted(counts)]


def _word(state: CallState, n: int, backend: BackendRecord) -> str:
    is_vague = state is CallState.RUNNING and n and not backend.reports_start
    return HANDED_OVER if is_vague else str(state)


def waiting_text(snapshot: Snapshot) -> str:
    """Say what it waits for and how long: "waiting 12 s for workers of DaskExecutor"."""
    backend = snapshot.backend
    if backend.waiting_for is None:
        return ""
    what = words.visible(backend.waiting_for, words.ONE_LINE_CHARS)
    if backend.waiting_since is None:
        return f"waiting for {what}"
    return f"waiting {words.duration(snapshot.now - backend.waiting_since)} for {what}"


def queue_text(snapshot: Snapshot) -> str:
    """Say that queued calls wait because nobody is there, if that is why."""
    n, what = snapshot.counts.get(CallState.QUEUED, 0), snapshot.backend.waiting_for
    if not n or what is None:
        return ""
    verb = "waits" if n == 1 else "wait"
    return f"{words.plural(n, 'call')} {verb} for {words.visible(what, words.ONE_LINE_CHARS)}."


def is_long(snapshot: Snapshot) -> bool:
    """Say whether it has waited for so long that something may be wrong."""
    backend = snapshot.backend
    if backend.waiting_since is None or backend.no_workers_after_s is None:
        return False
    return snapshot.now - backend.waiting_since >= backend.no_workers_after_s


def waiting_hint(backend: BackendRecord) -> str | None:
    """Say what to do when it waits for long; None while it does not wait."""
    if backend.waiting_for is None:
        return None
    if backend.n_jobs_waiting:
        return _IN_THE_QUEUE
    return _STARTING if backend.waiting_for.endswith("to start") else _NOBODY


def jobs_text(backend: BackendRecord) -> str:
    """Say how many jobs of ours the batch system has not begun: "3 jobs in the batch queue"."""
    n = backend.n_jobs_waiting
    return f"{words.plural(n, 'job')} in the batch queue" if n else ""


def who_is_there(workers: Iterable[WorkerRecord]) -> list[WorkerRecord]:
    """Leave out those that start only when they are given calls."""
    return [worker for worker in workers if worker.state != "to come"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The workers of one machine, counted."""

    name: str
    n_workers: int
    n_busy: int


def machines(workers: Sequence[WorkerRecord]) -> list[Machine]:
    """Count workers by machine, in the order in which each machine was first met."""
    counted: dict[str, list[int]] = {}
    for worker in workers:
        n = counted.setdefault(worker.where or _HERE, [0, 0])
        n[0] += 1
        n[1] += _is_busy(worker)
    return [Machine(name, *n) for name, n in counted.items()]


def busy_text(workers: Sequence[WorkerRecord]) -> str:
    """Say how many workers there are and how many have calls: "4 workers, 3 busy"."""
    n_busy = sum(map(_is_busy, workers))
    told = f", {words.number(n_busy)} busy" if _is_told(workers) else ""
    return f"{words.plural(len(workers), 'worker')}{told}"


def _is_busy(worker: WorkerRecord) -> bool:
    return worker.state == "busy"


def _is_told(workers: Iterable[WorkerRecord]) -> bool:
    return not any(worker.state == "up" for worker in workers)
