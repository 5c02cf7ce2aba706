"""From a snapshot to what travels to the page: flat records by id, and their differences.

::

    Snapshot ──to_model──▶ Model ──diff──▶ Patch ──▶ page

A `Model` is a dict of collections, each a dict from id to one flat record of JSON values. The
page keeps the same dict, so a `Patch` names only the records that changed. Fields that are None
are left out: a page full of calls must stay below 50 kB a second. Nothing in a record changes by
the passing of time alone; the page ticks its own clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

from amltk_nb.scheduling.snapshot import (
    CallRecord,
    EventRecord,
    PluginRecord,
    ProgressRecord,
    Snapshot,
    TaskRecord,
)
from amltk_nb.scheduling.states import CallState
from amltk_nb.views import engine, words

__all__ = [
    "COLLECTIONS",
    "N_ENDED",
    "N_LOG",
    "N_MACHINES",
    "N_QUEUED",
    "N_RUNNING",
    "N_WORKERS",
    "SCHEMA",
    "Model",
    "Patch",
    "Record",
    "apply",
    "call_record",
    "diff",
    "safe_text",
    "to_model",
]

SCHEMA = 1  # of the messages; the page refuses any other and says so

Record: TypeAlias = dict[str, Any]
Collection: TypeAlias = dict[str, Record]
Model: TypeAlias = dict[str, Collection]
Patch: TypeAlias = dict[str, dict[str, Any]]

COLLECTIONS = (
    "run",
    "backend",
    "counts",
    "events",
    "callbacks",
    "tasks",
    "plugins",
    "calls",
    "workers",
    "machines",
    "log",
)

# How many calls of each kind travel. At 1 000 calls a second all of them are new every second,
# and 190 rows of some 230 bytes are what fits into 50 kB; the page asks for more when it scrolls.
N_RUNNING, N_QUEUED, N_ENDED = 100, 30, 60
N_LOG = 300
# Workers change with each call as well; where there are more, the page gets counts by machine.
N_WORKERS, N_MACHINES = 30, 30

_SHORT, _LINE, _TEXT = 120, 400, 4_000  # characters


def safe_text(value: object, limit: int, *, keep: str = "start") -> str:
    """Return a text that JSON can carry and that is not longer than promised.

    Args:
        value: a text, or anything else, of which the `str` is taken.
        limit: characters to keep at most; a note of what was cut comes on top.
        keep: "start" or "end", the part that matters more.
    """
    text = value if isinstance(value, str) else _to_str(value)
    if len(text) > limit:
        n_cut = len(text) - limit
        if keep == "end":
            text = f"[{n_cut} characters cut] … {text[-limit:]}"
        else:
            text = f"{text[:limit]} … [{n_cut} characters cut]"
    if text.isascii():
        return text
    # A lone surrogate has no UTF-8, so the kernel's connection could not send the whole message.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def to_model(snapshot: Snapshot) -> Model:
    """Return the records that the page shows of a snapshot."""
    calls, n_left_out = _calls(snapshot.calls)
    events, callbacks = _events(snapshot)
    return {
        "run": {"run": _run(snapshot)},
        "backend": {"backend": _backend(snapshot)},
        "counts": _counts(snapshot, n_left_out),
        "events": events,
        "callbacks": callbacks,
        "tasks": {safe_text(t.ref, _LINE): _task(t, i) for i, t in enumerate(snapshot.tasks)},
        "plugins": _plugins(snapshot.tasks),
        "calls": calls,
        "workers": _workers(snapshot),
        "machines": _machines(snapshot),
        "log": _log(snapshot),
    }


def diff(old: Model, new: Model) -> Patch | None:
    """Return what turns `old` into `new`; None when nothing does."""
    patch: Patch = {}
    for name, records in new.items():
        change = _diff_collection(old.get(name, {}), records)
        if change:
            patch[name] = change
    return patch or None


def apply(patch: Patch | None, model: Model) -> Model:
    """Return the model after a patch, as the page computes it; `model` is left as it was."""
    new = dict(model)
    for name, change in (patch or {}).items():
        collection = dict(new.get(name, {}))
        for key in change.get("remove", ()):
            collection.pop(key, None)
        collection.update(change.get("upsert", {}))
        new[name] = collection
    return new


def call_record(call: CallRecord) -> Record:
    """Return the record of one call: a row of the queue."""
    return _without_none(
        id=call.id,
        task=None if call.task is None else safe_text(call.task, _SHORT),
        function=safe_text(call.function, _SHORT),
        args=safe_text(call.args, 2 * _SHORT),
        state=str(call.state),
        submitted_at=_rounded(call.submitted_at),
        started_at=_rounded(call.started_at),
        ended_at=_rounded(call.ended_at),
        seconds=None if call.seconds is None else round(call.seconds, 6),
        worker=None if call.worker is None else safe_text(call.worker, _SHORT),
        attempt=None if call.attempt == 1 else call.attempt,
        error=_line(call.error),
        resubmitted_from=call.resubmitted_from,
        not_before=_rounded(call.not_before) if call.state is CallState.QUEUED else None,
        progress=None if call.progress is None else _progress(call.progress),
    )


def _progress(progress: ProgressRecord) -> Record:
    fraction = progress.fraction
    return _without_none(
        text=words.progress_text(progress), share=None if fraction is None else round(fraction, 4)
    )


def _diff_collection(old: Collection, new: Collection) -> dict[str, Any] | None:
    if old is new:
        return None
    upsert = {k: r for k, r in new.items() if (o := old.get(k)) is not r and o != r}
    remove = [key for key in old if key not in new]
    change: dict[str, Any] = {}
    if upsert:
        change["upsert"] = upsert
    if remove:
        change["remove"] = remove
    return change or None


def _run(snapshot: Snapshot) -> Record:
    run = snapshot.run
    ended = run.ended_at is not None
    return _without_none(
        name=safe_text(snapshot.name, _SHORT),
        state=str(run.state),
        n=run.n,
        started_at=_rounded(run.started_at),
        ended_at=_rounded(run.ended_at),
        # While it runs the page computes this; sent each time it would make every patch differ.
        elapsed_s=_rounded(run.elapsed_s) if ended else None,
        code=None if run.code is None else safe_text(run.code, _SHORT),
        reason=_line(run.reason),
        stopping_since=_rounded(run.stopping_since),
        grace_s=run.grace_s,
        grace_ends_at=_rounded(run.grace_ends_at),
        cannot_start=_line(run.cannot_start),
        journal=words.journal_note(snapshot) or None,
        journal_warning=words.journal_warning(snapshot) or None,
    )


def _backend(snapshot: Snapshot) -> Record:
    backend = snapshot.backend
    n_there = len(engine.who_is_there(snapshot.workers))
    return _without_none(
        name=safe_text(backend.name, _SHORT),
        options=_values(backend.options),
        n_workers=backend.n_workers,
        n_there=n_there,
        n_to_come=len(snapshot.workers) - n_there or None,
        cannot_end=_line(backend.cannot_end),
        cannot_restart=_line(backend.cannot_restart),
        reports_start=None if backend.reports_start else False,
        waiting_for=_line(backend.waiting_for),
        waiting_since=_rounded(backend.waiting_since),
        no_workers_after_s=backend.no_workers_after_s,
        hint=engine.waiting_hint(backend),
        n_jobs_waiting=backend.n_jobs_waiting or None,
    )


def _counts(snapshot: Snapshot, n_left_out: int) -> Collection:
    counts = {str(state): {"n": snapshot.counts.get(state, 0)} for state in CallState}
    counts["hidden"] = {"n": snapshot.n_calls_hidden + n_left_out}
    return counts


def _events(snapshot: Snapshot) -> tuple[Collection, Collection]:
    events: Collection = {}
    callbacks: Collection = {}
    emitters: Iterator[tuple[str, tuple[EventRecord, ...]]] = iter(
        [("scheduler", snapshot.events), *((task.ref, task.events) for task in snapshot.tasks)]
    )
    for emitter, records in emitters:
        for event in records:
            _add_event(safe_text(emitter, _LINE), event, events, callbacks)
    return events, callbacks


def _add_event(emitter: str, event: EventRecord, events: Collection, callbacks: Collection) -> None:
    name = safe_text(event.name, _SHORT)
    key = f"{emitter}/{name}"
    events[key] = {"emitter": emitter, "name": name, "count": event.count, "order": len(events)}
    for i, callback in enumerate(event.callbacks):
        callbacks[f"{key}/{i}"] = _without_none(
            event=key,
            text=safe_text(callback.text, _LINE),
            n_calls=callback.n_calls,
            n_errors=callback.n_errors or None,
            cell=None if callback.cell is None else safe_text(callback.cell, _SHORT),
            hidden=callback.hidden or None,
            order=i,
        )


def _task(task: TaskRecord, order: int) -> Record:
    counts = {f"n_{state}": task.counts.get(state, 0) for state in CallState}
    return {
        "function": safe_text(task.function, _SHORT),
        "signature": safe_text(task.signature, _LINE),
        "order": order,
        **counts,
    }


def _plugins(tasks: Iterable[TaskRecord]) -> Collection:
    plugins: Collection = {}
    for task in tasks:
        for i, plugin in enumerate(task.plugins):
            ref = safe_text(task.ref, _LINE)
            plugins[f"{ref}/{i}"] = _plugin(ref, plugin, len(plugins))
    return plugins


def _plugin(task: str, plugin: PluginRecord, order: int) -> Record:
    return {
        "task": task,
        "name": safe_text(plugin.name, _SHORT),
        "state": _values(plugin.state),
        "order": order,
    }


def _calls(calls: Iterable[CallRecord]) -> tuple[Collection, int]:
    room = {CallState.RUNNING: N_RUNNING, CallState.QUEUED: N_QUEUED}
    n_ended, n_left_out = N_ENDED, 0
    chosen: Collection = {}
    for call in calls:
        left = room.get(call.state, n_ended)
        if left == 0:
            n_left_out += 1
            continue
        if call.state in room:
            room[call.state] = left - 1
        else:
            n_ended = left - 1
        chosen[str(call.id)] = call_record(call)
    return chosen, n_left_out


def _workers(snapshot: Snapshot) -> Collection:
    there = engine.who_is_there(snapshot.workers)
    return {
        safe_text(worker.name, _SHORT): _without_none(
            state=safe_text(worker.state, _SHORT),
            pid=worker.pid,
            call=worker.call,
            n_calls=worker.n_calls if worker.n_calls > 1 else None,
            where=None if worker.where is None else safe_text(worker.where, _SHORT),
            order=i,
        )
        for i, worker in enumerate(there[:N_WORKERS])
    }


def _machines(snapshot: Snapshot) -> Collection:
    """Count workers by machine, where there are too many to be named one by one."""
    there = engine.who_is_there(snapshot.workers)
    if len(there) <= N_WORKERS:
        return {}
    return {
        safe_text(machine.name, _SHORT): {
            "n_workers": machine.n_workers,
            "n_busy": machine.n_busy,
            "order": i,
        }
        for i, machine in enumerate(engine.machines(there)[:N_MACHINES])
    }


def _log(snapshot: Snapshot) -> Collection:
    tail = snapshot.log[-N_LOG:]
    return {
        str(line.id): {
            "at": _rounded(line.at),
            "source": safe_text(line.source, _SHORT),
            "level": safe_text(line.level, _SHORT),
            "text": safe_text(line.text, _TEXT),
        }
        for line in tail
    }


def _values(mapping: Mapping[str, Any]) -> Record:
    """Return texts, numbers, booleans and None as they are, anything else as its text."""
    return {
        safe_text(key, _SHORT): value
        if value is None or isinstance(value, bool) or _is_plain_number(value)
        else safe_text(value, _LINE)
        for key, value in islice(mapping.items(), 50)
    }


def _is_plain_number(value: object) -> bool:
    # JSON has no nan or infinity, and a page reads integers beyond 2**53 wrongly.
    if isinstance(value, int):
        return -(2**53) < value < 2**53
    return isinstance(value, float) and value - value == 0


def _without_none(**fields: Any) -> Record:
    return {name: value for name, value in fields.items() if value is not None}


def _line(text: str | None) -> str | None:
    return None if text is None else safe_text(text, _LINE)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _to_str(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # the value is the user's, and so is its __str__
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"
