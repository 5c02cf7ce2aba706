"""A scheduler as static HTML: what stays in a saved notebook, a report, a page without a kernel.

The same parts in the same order as the live dashboard. The fragment needs nothing from outside
and no script. It also has to read well where its style sheet is taken away (GitHub does that):
hence real tables, lists and details, and separators that are text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from amltk_nb.scheduling.snapshot import (
    BackendRecord,
    CallbackRecord,
    CallRecord,
    EventRecord,
    LogRecord,
    PluginRecord,
    Snapshot,
    TaskRecord,
    WorkerRecord,
)
from amltk_nb.scheduling.states import ENDED, CallState, RunState
from amltk_nb.views import engine, words
from amltk_nb.views.style import ROOT_CLASS, STYLE

__all__ = ["N_ROWS", "N_ROWS_STABLE", "N_WORKERS", "STYLE", "render", "render_task"]

N_ROWS = 50  # of a table; a saved notebook should stay small
N_ROWS_STABLE = 20
N_WORKERS = 30
_NBSP = "\N{NO-BREAK SPACE}"
_NAME_CHARS = 60  # of a worker's name or a log's source

_ANY_ENGINE = BackendRecord(name="")  # of a task that is shown alone

_FIRST = (CallState.FAILED, CallState.RUNNING, CallState.QUEUED)
_TIMED_COLUMNS = frozenset({"Time", "Time (UTC)", "Worker"})
_CLASSES = {
    "Id": "num",
    "Time": "num",
    "Attempt": "num",
    "Process": "num",
    "Workers": "num",
    "Busy": "num",
    "Machine": "name",
    "Arguments": "args",
    "Error": "text",
    "Progress": "progress",
    "Worker": "name",
    "Source": "name",
    "Call": "name rest",
    "Message": "text rest",
}


class _Markup(str):
    """HTML that this module made; any other string is escaped when it is put into an element."""

    __slots__ = ()


def render(snapshot: Snapshot, *, stable: bool = False, title: str | None = None) -> str:
    """Draw a scheduler as one self-contained HTML fragment.

    Args:
        snapshot: what to draw.
        stable: leave out what differs between two equal runs (times, workers, order of ends).
        title: shown instead of the scheduler's name.
    """
    name = words.visible(title, words.ONE_LINE_CHARS) if title else words.title_of(snapshot)
    parts = [
        _head(snapshot, name, stable=stable),
        _progress(snapshot),
        _calls(snapshot, stable=stable),
        _workers(snapshot) if not stable else "",
        _section("Events", None, _tree(snapshot.events, wide=True, stable=stable)),
        *(_task(task, snapshot.backend, stable=stable) for task in snapshot.tasks),
        _log(snapshot, stable=stable),
    ]
    return _root(name, parts)


def render_task(task: TaskRecord, *, stable: bool = False) -> str:
    """Draw one task as a self-contained HTML fragment; arguments as for `render`."""
    name = words.said("Task " + task.signature, stable=stable)
    return _root(name, [_task(task, _ANY_ENGINE, stable=stable)])


def _root(label: str, parts: Iterable[str]) -> str:
    # `class` carries the whole scope, so it is written here and not by `_el`.
    body = "".join(part for part in parts if part)
    # A group and no landmark: a notebook may hold dozens of them, and the same one twice.
    label = escape(label)
    return f'<div class="{ROOT_CLASS}" role="group" aria-label="{label}">{STYLE}{body}</div>'


def _el(tag: str, *children: str, cls: str = "", **attributes: str | int) -> _Markup:
    """Make an element. Children that are not markup are escaped; attributes always are.

    Args:
        tag: its name.
        children: markup or text.
        cls: classes, without the prefix they all have.
        attributes: underscores stand for dashes.
    """
    classes = " ".join(f"amltk-nb-{name}" for name in cls.split())
    named = {"class": classes} if cls else {}
    pairs = named | {key.replace("_", "-"): str(value) for key, value in attributes.items()}
    head = tag + "".join(f' {key}="{escape(value)}"' for key, value in pairs.items())
    inner = "".join(c if isinstance(c, _Markup) else escape(c, quote=False) for c in children)
    return _Markup(f"<{head}>{inner}</{tag}>")


def _joined(parts: Iterable[str]) -> _Markup:
    """Put inline parts in a row with separators that also stand where no style sheet does."""
    sep = _el("span", " · ", cls="sep")
    shown = (p if isinstance(p, _Markup) else _Markup(escape(p, quote=False)) for p in parts)
    return _Markup(sep.join(shown))


def _state(icon: str, word: str, tone: str) -> _Markup:
    icon_and_word = _el("span", icon, aria_hidden="true"), f"{_NBSP}{word}"
    return _el("span", *icon_and_word, cls=f"state {tone}")


def _section(title: str, n: int | None, *content: str, opened: bool = True) -> _Markup:
    count = [" ", _el("span", words.number(n), cls="n")] if n is not None else []
    summary = _el("summary", _el("strong", title), *count)
    return _el("details", summary, *content, **({"open": ""} if opened else {}))


def _head(snapshot: Snapshot, name: str, *, stable: bool) -> _Markup:
    run, backend = snapshot.run, snapshot.backend
    icon, tone = words.run_icon(run)
    options = words.said(words.options_text(backend.options), stable=stable)
    about = [
        _el(
            "span", words.said(backend.name, stable=stable), " ", _el("code", options), cls="muted"
        ),
        *(_el("span", note, cls="muted") for note in words.run_notes(snapshot, stable=stable)),
    ]
    if not stable:
        notes = filter(None, (engine.waiting_text(snapshot), engine.jobs_text(backend)))
        about += [_el("span", note, cls="cancelled") for note in notes]
    state = _state(icon, words.outcome(run), tone)
    parts = [_el("p", _joined([_el("strong", name, cls="title"), state, *about]))]
    reason = words.reason_of(run, stable=stable)
    if reason:
        parts.append(_el("p", reason, cls="failed" if run.code == "exception" else "muted"))
    if warning := words.journal_warning(snapshot, stable=stable):
        parts.append(_el("p", warning, cls="cancelled"))
    if not stable and engine.is_long(snapshot):
        parts.append(_el("p", engine.waiting_hint(backend) or "", cls="muted"))
    return _Markup("".join(parts))


def _progress(snapshot: Snapshot) -> _Markup:
    n_ended, n_all = words.totals(snapshot.counts)
    if not n_all:
        over = snapshot.run.state is RunState.FINISHED
        hint = "No calls were made." if over else "No calls yet: submit one with task.submit(…)."
        return _el("p", hint, cls="more")
    text = f"{words.number(n_ended)} of {words.plural(n_all, 'call')} ended"
    bar = [
        _el("span", cls=state, style=f"flex:{n}")
        for state in ("done", "failed", "cancelled", "running", "queued")
        if (n := snapshot.counts.get(CallState(state), 0))
    ]
    limits = {"aria_valuemin": 0, "aria_valuemax": n_all, "aria_valuenow": n_ended}
    drawn = _el(
        "div", *bar, cls="bar", role="progressbar", aria_label="Progress", aria_valuetext=text,
        **limits,
    )  # fmt: skip
    counts = _counts(snapshot.counts, snapshot.backend, zeros=True)
    return _Markup(drawn + _el("p", _joined([text, *counts])))


def _counts(
    counts: Mapping[CallState, int], backend: BackendRecord, *, zeros: bool
) -> list[_Markup]:
    return [
        _state(words.ICONS[state], f"{words.number(n)} {word}", state if n else "muted")
        for state, n, word in engine.counted_words(counts, backend)
        if n or zeros
    ]


def _calls(snapshot: Snapshot, *, stable: bool) -> str:
    if not snapshot.calls:
        return ""
    n_all = len(snapshot.calls) + snapshot.n_calls_hidden
    chosen = _chosen_stable(snapshot) if stable else _chosen(snapshot)
    twins = Counter(task.function for task in snapshot.tasks)
    rows = [_call(call, snapshot, twins, stable=stable) for call in chosen]
    waiting = "" if stable else engine.queue_text(snapshot)
    said = _el("p", waiting, cls="more") if waiting else ""
    return _section("Calls", n_all, said, _table("Calls", rows), _more(n_all - len(rows), "call"))


def _chosen(snapshot: Snapshot) -> list[CallRecord]:
    """Choose the calls to show: failures first, then what goes on, then the latest ended."""

    def order(call: CallRecord) -> tuple[int, float, int]:
        if call.state in _FIRST:
            return _FIRST.index(call.state), 0.0, call.id
        return len(_FIRST), -(call.ended_at or 0.0), -call.id

    return sorted(snapshot.calls, key=order)[:N_ROWS]


def _chosen_stable(snapshot: Snapshot) -> list[CallRecord]:
    """Choose by id alone what two equal runs both hold, failures first.

    Where the snapshot holds only some of the calls, which of the older ones are among them
    depends on timing; the latest submitted are always there.
    """
    calls = sorted(snapshot.calls, key=lambda call: call.id)
    failed = [call for call in calls if call.state is CallState.FAILED]
    if len(failed) != snapshot.counts.get(CallState.FAILED, 0):
        failed = []
    first = failed[:N_ROWS_STABLE]
    rest = [call for call in calls if call not in failed]
    n_rest = min(N_ROWS_STABLE - len(first), len(rest))
    return first + (rest[len(rest) - n_rest :] if snapshot.n_calls_hidden else rest[:n_rest])


def _call(
    call: CallRecord, snapshot: Snapshot, twins: Mapping[str, int], *, stable: bool
) -> dict[str, str]:
    """Return what each column says of a call; an empty string is an empty cell."""
    name = call.task if call.task and twins.get(call.function, 0) > 1 else call.function
    task = [_el("code", words.said(name, stable=stable))]
    if call.resubmitted_from is not None:
        task.append(_el("span", f" resubmit of {words.number(call.resubmitted_from)}", cls="muted"))
    word = engine.state_word(call, snapshot.backend)
    row = {
        "Id": words.number(call.id),
        "Task": _Markup("".join(task)),
        "Arguments": _el("code", words.said(call.args, stable=stable)),
        "State": _state(words.ICONS[call.state], word.replace(" ", _NBSP), call.state),
        "Progress": _call_progress(call, stable=stable),
        "Time": words.time_text(call, snapshot.now).replace(" ", _NBSP),
        "Worker": words.visible(call.worker or "", _NAME_CHARS),
        "Attempt": words.number(call.attempt) if call.attempt > 1 else "",
        "Error": words.said(call.error or "", stable=stable),
    }
    return {key: row[key] for key in row if not (stable and key in _TIMED_COLUMNS)}


def _call_progress(call: CallRecord, *, stable: bool) -> str:
    """Say how far a call is; how far a cancelled one came depends on timing."""
    if call.progress is None or (stable and call.state not in (CallState.DONE, CallState.FAILED)):
        return ""
    text, fraction = words.progress_text(call.progress), call.progress.fraction
    if fraction is None or call.state in ENDED:
        return text
    done = _el("span", cls="running", style=f"flex:{fraction:.3f}")
    left = _el("span", cls="queued", style=f"flex:{1 - fraction:.3f}")
    return _Markup(_el("div", done, left, cls="bar small", aria_hidden="true") + escape(text))


def _table(label: str, rows: Sequence[Mapping[str, str]]) -> _Markup:
    """Make a table of equal rows; columns that are empty in all of them are left out."""
    columns = [column for column in rows[0] if any(row[column] for row in rows)]
    head = [_el("th", c, scope="col", cls=_CLASSES.get(c, "")) for c in columns]
    body = [
        _el("tr", *(_el("td", row[c], cls=_CLASSES.get(c, "")) for c in columns)) for row in rows
    ]
    table = _el("table", _el("thead", _el("tr", *head)), _el("tbody", *body), aria_label=label)
    # What scrolls has to be reachable by keyboard.
    return _el("div", table, cls="scroll", role="group", aria_label=label, tabindex=0)


def _more(n: int, noun: str) -> str:
    return _el("p", f"… and {words.number(n)} more {noun}{'s' * (n != 1)}", cls="more") if n else ""


def _workers(snapshot: Snapshot) -> str:
    """List the workers; of a crowd, how many each machine has and the first ones."""
    there = engine.who_is_there(snapshot.workers)
    if not there:
        return ""
    parts = []
    if len(there) > N_WORKERS:
        machines = engine.machines(there)
        rows = [
            {
                "Machine": words.visible(machine.name, _NAME_CHARS),
                "Workers": words.number(machine.n_workers),
                "Busy": words.number(machine.n_busy),
            }
            for machine in machines[:N_WORKERS]
        ]
        parts += [_table("Machines", rows), _more(len(machines) - len(rows), "machine")]
    calls = {call.id: call for call in snapshot.calls}
    workers = [_worker(worker, calls, snapshot.now) for worker in there[:N_WORKERS]]
    parts += [_table("Workers", workers), _more(len(there) - len(workers), "worker")]
    return _section("Workers", len(there), *parts, opened=False)


def _worker(worker: WorkerRecord, calls: Mapping[int, CallRecord], now: float) -> dict[str, str]:
    call = None if worker.call is None else calls.get(worker.call)
    return {
        "Worker": words.visible(worker.name, _NAME_CHARS),
        "Machine": words.visible(worker.where or "", _NAME_CHARS),
        "Process": "" if worker.pid is None else str(worker.pid),
        "State": words.visible(worker.state, _NAME_CHARS),
        "Call": _call_of(worker, call),
        "Time": words.time_text(call, now).replace(" ", _NBSP) if call else "",
    }


def _call_of(worker: WorkerRecord, call: CallRecord | None) -> str:
    """Say what a worker runs: "12 · evaluate (and 2 more)"."""
    if worker.call is None:
        return ""
    name = f" · {words.visible(call.function, _NAME_CHARS)}" if call else ""
    more = f" (and {words.number(worker.n_calls - 1)} more)" if worker.n_calls > 1 else ""
    return f"{words.number(worker.call)}{name}{more}"


def _tree(events: Iterable[EventRecord], *, wide: bool = False, stable: bool) -> _Markup:
    items = [_event(event, stable=stable) for event in events]
    return _el("ul", *items, cls="tree wide" if wide else "tree")


def _event(event: EventRecord, *, stable: bool) -> _Markup:
    name = _el(
        "code", f"@{words.said(event.name, stable=stable)}", cls="" if event.count else "muted"
    )
    count = _el("span", f" {words.number(event.count)}", cls="n") if event.count else ""
    callbacks = [_callback(c, stable=stable) for c in words.visible_callbacks(event)]
    return _el("li", name, count, _el("ul", *callbacks) if callbacks else "")


def _callback(callback: CallbackRecord, *, stable: bool) -> _Markup:
    parts: list[str] = [_el("code", words.said(callback.text, stable=stable))]
    if callback.n_calls:
        parts.append(_el("span", f" ({words.number(callback.n_calls)})", cls="n"))
    if callback.n_errors:
        text = words.plural(callback.n_errors, "error")
        parts.extend([" ", _state(words.ICONS["failed"], text, "failed")])
    if note := words.cell_note(callback, stable=stable):
        parts.append(_el("span", f" {note}", cls="muted"))
    return _el("li", *parts)


def _task(task: TaskRecord, backend: BackendRecord, *, stable: bool) -> _Markup:
    ref = _el("code", words.said(task.ref, stable=stable))
    about = [_el("span", "Ref: ", ref, cls="muted"), *_counts(task.counts, backend, zeros=False)]
    summary = _el(
        "summary", _el("strong", "Task "), _el("code", words.said(task.signature, stable=stable))
    )
    cards = [_plugin(plugin, stable=stable) for plugin in task.plugins]
    events = words.with_something(task.events)
    return _el(
        "details",
        summary,
        _el("p", _joined(about)),
        _el("div", *cards, cls="cards") if cards else "",
        _tree(events, wide=True, stable=stable) if events else "",
        open="",
    )


def _plugin(plugin: PluginRecord, *, stable: bool) -> _Markup:
    rows = [
        _el("tr", _el("th", label, scope="row"), _el("td", value))
        for label, value in words.plugin_rows(plugin, stable=stable)
    ]
    caption = _el("caption", words.said(plugin.name, stable=stable))
    table = _el("table", caption, _el("tbody", *rows))
    return _el("div", table, cls="card")


def _log(snapshot: Snapshot, *, stable: bool) -> str:
    if not snapshot.log:
        return ""
    told = words.stable_log(snapshot.log) if stable else snapshot.log
    rows = [_message(record, stable=stable) for record in told]
    n_all = len(rows)
    shown = rows[:N_ROWS_STABLE] if stable else rows[-N_ROWS:]
    if not shown:
        return ""
    more = _more(n_all - len(shown), "message")
    return _section("Log", n_all, _table("Log", shown), more, opened=False)


def _message(record: LogRecord, *, stable: bool) -> dict[str, str]:
    time = f"{datetime.fromtimestamp(record.at, UTC):%H:%M:%S}"
    text = words.said(record.text.rstrip("\n"), words.LOG_CHARS, stable=stable, lines=True)
    row = {
        "Time (UTC)": time,
        "Source": words.said(record.source, _NAME_CHARS, stable=stable),
        "Level": "" if record.level == "print" else words.visible(record.level, _NAME_CHARS),
        "Message": _el("pre", text),
    }
    return {key: row[key] for key in row if not (stable and key in _TIMED_COLUMNS)}
