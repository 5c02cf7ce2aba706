"""How a scheduler is read: builds the frozen records of `snapshot` from its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import isinf
from typing import TYPE_CHECKING, Any, cast

from amltk_nb.errors import MissingExtraError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.history import args_text, error_line
from amltk_nb.scheduling.snapshot import (
    BatchRecord,
    CallbackRecord,
    CallRecord,
    EventRecord,
    PluginRecord,
    RunRecord,
    Snapshot,
    TaskRecord,
    utc,
)
from amltk_nb.scheduling.states import CallState, RunState

if TYPE_CHECKING:
    import pandas as pd

    from amltk_nb.events import Emitter
    from amltk_nb.scheduling.batch import Batch
    from amltk_nb.scheduling.core import SchedulerCore
    from amltk_nb.scheduling.plugins.base import Plugin
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.task import Task

__all__ = [
    "batch_record",
    "call_record",
    "calls",
    "find_task",
    "frame",
    "line",
    "rows",
    "snapshot",
    "task_record",
    "task_snapshot",
]

_FAILURES_SHOWN = 50
_N_LOOKED_THROUGH = 10_000  # queued calls, for the next ones of one task


def snapshot(scheduler: SchedulerCore, *, max_calls: int) -> Snapshot:
    """Build the record tree; see `Scheduler.snapshot`."""
    version = scheduler.version  # read first: a change meanwhile makes a newer one
    counts = _counts(scheduler)
    shown = [call_record(call) for call in _shown(scheduler, max_calls)]
    return Snapshot(
        version=version,
        name=scheduler.name,
        run=_run_record(scheduler),
        backend=scheduler.backend.describe(),
        counts=counts,
        events=_events(scheduler.emitter),
        tasks=tuple(task_record(task) for task in list(scheduler.tasks)),
        calls=tuple(shown),
        workers=scheduler.backend.workers(),
        log=tuple(scheduler.history.log_tail),
        now=scheduler.clock(),
        n_calls_hidden=max(0, sum(counts.values()) - len(shown)),
        journal=scheduler.journal.describe() if scheduler.journal is not None else None,
    )


def task_snapshot(scheduler: SchedulerCore, ref: str, *, max_calls: int = 300) -> Snapshot:
    """Build the record tree of one task: its calls, counts, events and plugins, and the run.

    Args:
        scheduler: whose task it is, or was: of one that left there are no records.
        ref: of the task; of a re-run cell the newest.
        max_calls: as in `snapshot`.
    """
    scheduler.note_look()
    version = scheduler.version
    task = find_task(scheduler, ref)
    record = task_record(task) if task is not None else None
    counts = record.counts if record is not None else dict.fromkeys(CallState, 0)
    shown = [call_record(call) for call in _shown(scheduler, max_calls, task)] if task else []
    return Snapshot(
        version=version,
        name=scheduler.name,
        run=_run_record(scheduler),
        backend=scheduler.backend.describe(),
        counts=counts,
        events=(),
        tasks=(record,) if record is not None else (),
        calls=tuple(shown),
        now=scheduler.clock(),
        n_calls_hidden=max(0, sum(counts.values()) - len(shown)),
    )


def find_task(scheduler: SchedulerCore, ref: str) -> Task[..., Any] | None:
    """Return the task of this ref, if it is still one of the scheduler's."""
    return next((task for task in list(scheduler.tasks) if task.ref == ref), None)


def calls(
    scheduler: SchedulerCore,
    state: CallState | str | None,
    *,
    before: int | None,
    limit: int,
    task: Task[..., Any] | None = None,
) -> list[CallRecord]:
    """List calls, newest first; see `Scheduler.calls`. With a task: only that one's."""
    wanted = None if state is None else CallState(state)
    found = (
        call
        for call in sorted(_all(scheduler), key=lambda c: -c.id)
        if (wanted is None or call.state is wanted)
        and (before is None or call.id < before)
        and (task is None or call.task is task)
    )
    return [call_record(call) for call in islice(found, limit)]


def rows(scheduler: SchedulerCore) -> list[dict[str, Any]]:
    """List every remembered call; see `Scheduler.records`."""
    return [_row(call_record(call)) for call in sorted(_all(scheduler), key=lambda c: c.id)]


def frame(scheduler: SchedulerCore) -> pd.DataFrame:
    """Return the rows as a DataFrame; see `Scheduler.to_frame`."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError(
            "to_frame() needs pandas, which is not installed: pip install 'amltk-nb[pandas]'. "
            "Without it, records() gives the same rows as dicts."
        ) from None
    columns = [
        *_row(
            CallRecord(
                id=0, task=None, function="", args="", state=CallState.DONE, submitted_at=0.0
            )
        )
    ]
    return pd.DataFrame(rows(scheduler), columns=columns)


def line(scheduler: SchedulerCore) -> str:
    """Say in one line how it stands."""
    backend, counts = scheduler.backend, _counts(scheduler)
    waiting_for = backend.describe().waiting_for
    told = ", ".join(
        [f"{n} {state}" for state, n in counts.items() if n]
        + ([f"waiting for {waiting_for}"] if waiting_for is not None else [])
    )
    runs_on = f"{backend.name}({backend.n_workers})"
    return f"<Scheduler {scheduler.name!r}: {scheduler.state}, {runs_on}, {told or 'no calls'}>"


def _all(scheduler: SchedulerCore) -> list[Call]:
    active = list(scheduler.last_run.traffic.active.values()) if scheduler.last_run else []
    return [*active, *scheduler.history.latest()]


def _shown(
    scheduler: SchedulerCore, most: int, task: Task[..., Any] | None = None
) -> Iterator[Call]:
    """Running ones, then the next in the queue, then failures, then those that ended last.

    Batches of short calls make hundreds run at once, and still some of each kind are wanted: so
    running ones get half of the room first, and what runs or waits no more than three quarters.
    """
    history, run = scheduler.history, scheduler.last_run
    n_upcoming = most // 2 if task is None else _N_LOOKED_THROUGH
    queue = run.traffic.dispatch.upcoming(n_upcoming) if run else ()
    running, upcoming = list(_of(task, _running(run))), list(islice(_of(task, queue), most // 2))
    chosen: dict[int, Call] = {}
    _take(chosen, running, most // 2)
    _take(chosen, upcoming, most - most // 4)
    _take(chosen, islice(_of(task, reversed(history.failed())), _FAILURES_SHOWN), most)
    _take(chosen, _of(task, history.latest()), most)
    _take(chosen, running, most)
    _take(chosen, upcoming, most)
    return iter(chosen.values())


def _of(task: Task[..., Any] | None, calls: Iterable[Call]) -> Iterator[Call]:
    return (call for call in calls if task is None or call.task is task)


def _take(chosen: dict[int, Call], more: Iterable[Call], most: int) -> None:
    for call in more:
        if len(chosen) >= most:
            return
        chosen.setdefault(call.id, call)


def _active(run: Run | None) -> list[Call]:
    return list(run.traffic.active.values()) if run else []


def _running(run: Run | None) -> list[Call]:
    """Find the running calls; they are among the first, so this rarely looks at all."""
    n_running = run.traffic.dispatch.n_running if run is not None else 0
    return list(islice((c for c in _active(run) if c.state is CallState.RUNNING), n_running))


def _counts(scheduler: SchedulerCore) -> dict[CallState, int]:
    run, ended = scheduler.last_run, scheduler.history.counts
    live: Counter[CallState] = Counter()
    if run is not None and run.traffic.active:
        n_running = run.traffic.dispatch.n_running
        live = _live(run, len(run.traffic.active), n_running) or _states(_active(run))
    return {state: live[state] + ended[state] for state in CallState}


def _live(run: Run, n_live: int, n_running: int) -> Counter[CallState] | None:
    """Count without a look at each call; None: some were cancelled and not announced yet."""
    dispatch = run.traffic.dispatch
    if dispatch.n_queued + dispatch.n_running != len(run.traffic.active):
        return None
    return Counter({CallState.QUEUED: n_live - n_running, CallState.RUNNING: n_running})


def _states(calls: Iterable[Call]) -> Counter[CallState]:
    return Counter(call.state for call in calls)


def _run_record(scheduler: SchedulerCore) -> RunRecord:
    run = scheduler.last_run
    if run is None:
        return RunRecord(state=scheduler.state)
    state, stopping = run.exit_state, scheduler.state is RunState.STOPPING
    return RunRecord(
        state=scheduler.state,
        n=scheduler.n_runs,
        started_at=run.started_at,
        ended_at=run.ended_at,
        elapsed_s=(run.ended_at or scheduler.clock()) - run.started_at,
        code=str(state.code) if state else None,
        reason=run.reason,
        stopping_since=run.stopping_since if stopping else None,
        grace_s=None if isinf(run.options.grace_s) else run.options.grace_s,
        grace_ends_at=run.grace_ends_at if stopping else None,
    )


def _events(emitter: Emitter) -> tuple[EventRecord, ...]:
    counts = emitter.event_counts
    return tuple(
        EventRecord(
            name=str(getattr(event, "name", event)),
            count=counts[event],
            callbacks=tuple(
                CallbackRecord(
                    text=h.text,
                    name=h.name,
                    n_calls=h.n_calls,
                    n_errors=h.n_errors,
                    cell=h.cell,
                    hidden=h.hidden,
                )
                for h in emitter.handlers(event)
            ),
        )
        for event in cast("tuple[Any, ...]", emitter.events)
        if counts[event] or emitter.handlers(event) or not _is_rare(emitter, event)
    )


def _is_rare(emitter: Emitter, event: Any) -> bool:
    spec = emitter.channel(event).spec
    return spec is not None and spec.is_rare


def task_record(task: Task[..., Any]) -> TaskRecord:
    """Record how a task stands."""
    run, live = task.scheduler.last_run, Counter[CallState]()
    if run is not None and task.n_running:
        n_running = sum(call.task is task for call in _running(run))
        live = _live(run, task.n_running, n_running) or _states(task.live_calls())
    return TaskRecord(
        ref=task.ref,
        function=task.name,
        signature=task.signature,
        events=_events(task),
        plugins=tuple(_plugin(plugin) for plugin in task.plugins),
        counts={state: live[state] + task.counts[state] for state in CallState},
    )


def batch_record(batch: Batch[Any]) -> BatchRecord:
    """Record how a batch stands."""
    states = _states(future.call for future in list(batch.futures))
    return BatchRecord(
        task=batch.task.signature,
        n_calls=len(batch.args),
        n_refused=batch.n_refused,
        counts={state: states[state] for state in CallState},
        state=batch.state,
    )


def _plugin(plugin: Plugin) -> PluginRecord:
    try:
        state: Mapping[str, Any] = dict(plugin.state())
    except Exception as error:
        state = {"state() failed": f"{type(error).__name__}: {error}"}
    return PluginRecord(name=plugin.name, state=state)


def call_record(call: Call) -> CallRecord:
    """Record a call; what has ended is recorded once."""
    if call.record is not None:
        return call.record
    ended_at = call.ended_at  # read first, because it is written last: what follows is complete
    record = CallRecord(
        id=call.id,
        task=call.task.ref if call.task is not None else None,
        function=call.describe(),
        args=args_text(call),
        state=_seen_state(call, ended_at),
        submitted_at=call.submitted_at,
        started_at=call.started_at,
        ended_at=ended_at,
        seconds=call.seconds,
        worker=call.worker,
        attempt=call.attempt,
        error=error_line(call.error) if call.error is not None else None,
        resubmitted_from=call.resubmitted_from,
        not_before=call.not_before,
        progress=call.progress,
    )
    if ended_at is not None:
        call.record = record
    return record


def _seen_state(call: Call, ended_at: float | None) -> CallState:
    """Say its state; one whose end is being written on another thread has not ended yet."""
    state = call.state
    if ended_at is None and state in (CallState.DONE, CallState.FAILED):
        return CallState.QUEUED if call.started_at is None else CallState.RUNNING
    return state


def _row(record: CallRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "task": record.task,
        "function": record.function,
        "args": record.args,
        "state": str(record.state),
        "submitted": utc(record.submitted_at),
        "started": utc(record.started_at),
        "ended": utc(record.ended_at),
        "seconds": record.seconds,
        "worker": record.worker,
        "attempt": record.attempt,
        "resubmitted_from": record.resubmitted_from,
        "error": record.error,
    }
