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
from amltk_nb.views.markup import Markup, el, joined
from amltk_nb.views.style import ROOT_CLASS, STYLE
from amltk_nb.views.timeline import chart

__all__ = [
    "N_ROWS",
    "N_ROWS_STABLE",
    "N_WORKERS",
    "STYLE",
    "draw_bar",
    "draw_calls",
    "draw_head",
    "draw_log",
    "draw_plugin",
    "draw_progress",
    "draw_state",
    "draw_task",
    "draw_timeline",
    "draw_tree",
    "draw_workers",
    "more",
    "render",
    "render_task",
    "root",
    "section",
    "table",
]

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
    **dict.fromkeys(("Done", "Failed", "Cancelled", "Median", "95 % within"), "num"),
    **dict.fromkeys(("Longest", "In all"), "num"),
    "Machine": "name",
    "Arguments": "args",
    "Error": "text",
    "Progress": "progress",
    "Worker": "name",
    "Source": "name",
    "Call": "name rest",
    "Message": "text rest",
}


def render(snapshot: Snapshot, *, stable: bool = False, title: str | None = None) -> str:
    """Draw a scheduler as one self-contained HTML fragment.

    Args:
        snapshot: what to draw.
        stable: leave out what differs between two equal runs (times, workers, order of ends).
        title: shown instead of the scheduler's name.
    """
    name = words.visible(title, words.ONE_LINE_CHARS) if title else words.title_of(snapshot)
    parts = [
        draw_head(snapshot, name, stable=stable),
        draw_progress(snapshot),
        draw_calls(snapshot, stable=stable),
        draw_timeline(snapshot) if not stable else "",
        draw_workers(snapshot) if not stable else "",
        section("Events", None, draw_tree(snapshot.events, wide=True, stable=stable)),
        *(draw_task(task, snapshot.backend, stable=stable) for task in snapshot.tasks),
        draw_log(snapshot, stable=stable),
    ]
    return root(name, parts)


def render_task(task: TaskRecord, *, stable: bool = False) -> str:
    """Draw one task as a self-contained HTML fragment; arguments as for `render`."""
    name = words.said("Task " + task.signature, stable=stable)
    return root(name, [draw_task(task, _ANY_ENGINE, stable=stable)])


def root(label: str, parts: Iterable[str], *, style: str = STYLE) -> str:
    """Put parts together in the element that all the styles are for."""
    # `class` carries the whole scope, so it is written here and not by `_el`. The others are what
    # MathJax goes by, in notebooks and exports: dollars in a string are not formulas.
    body = "".join(part for part in parts if part)
    # A group and no landmark: a notebook may hold dozens of them, and the same one twice.
    names = f'class="{ROOT_CLASS} mathjax_ignore tex2jax_ignore" aria-label="{escape(label)}"'
    return f'<div {names} role="group">{style}{body}</div>'


def draw_state(icon: str, word: str, tone: str) -> Markup:
    """Draw a state by icon, word and colour."""
    icon_and_word = el("span", icon, aria_hidden="true"), f"{_NBSP}{word}"
    return el("span", *icon_and_word, cls=f"state {tone}")


def section(title: str, n: int | None, *content: str, opened: bool = True) -> Markup:
    """Put content under a heading that closes and opens it; `n` is how much of it there is."""
    count = [" ", el("span", words.number(n), cls="n")] if n is not None else []
    summary = el("summary", el("strong", title), *count)
    return el("details", summary, *content, **({"open": ""} if opened else {}))


def draw_head(snapshot: Snapshot, name: str, *, stable: bool) -> Markup:
    """Draw the name, the state and what runs the calls."""
    run, backend = snapshot.run, snapshot.backend
    icon, tone = words.run_icon(run)
    options = words.said(words.options_text(backend.options), stable=stable)
    about = [
        el("span", words.said(backend.name, stable=stable), " ", el("code", options), cls="muted"),
        *(el("span", note, cls="muted") for note in words.run_notes(snapshot, stable=stable)),
    ]
    if not stable:
        notes = filter(None, (engine.waiting_text(snapshot), engine.jobs_text(backend)))
        about += [el("span", note, cls="cancelled") for note in notes]
    state = draw_state(icon, words.outcome(run), tone)
    parts = [el("p", joined([el("strong", name, cls="title"), state, *about]))]
    reason = words.reason_of(run, stable=stable)
    if reason:
        parts.append(el("p", reason, cls="failed" if run.code == "exception" else "muted"))
    if warning := words.journal_warning(snapshot, stable=stable):
        parts.append(el("p", warning, cls="cancelled"))
    if not stable and engine.is_long(snapshot):
        parts.append(el("p", engine.waiting_hint(backend) or "", cls="muted"))
    return Markup("".join(parts))


def draw_progress(snapshot: Snapshot) -> Markup:
    """Draw how many calls ended, and how."""
    _, n_all = words.totals(snapshot.counts)
    if not n_all:
        over = snapshot.run.state is RunState.FINISHED
        hint = "No calls were made." if over else "No calls yet: submit one with task.submit(…)."
        return el("p", hint, cls="more")
    return draw_bar(snapshot.counts, n_all, snapshot.backend)


def draw_bar(counts: Mapping[CallState, int], n_all: int, backend: BackendRecord) -> Markup:
    """Draw how many of `n_all` calls ended, and how, as a bar and in words."""
    n_ended, _ = words.totals(counts)
    text = f"{words.number(n_ended)} of {words.plural(n_all, 'call')} ended"
    bar = [
        el("span", cls=state, style=f"flex:{n}")
        for state in ("done", "failed", "cancelled", "running", "queued")
        if (n := counts.get(CallState(state), 0))
    ]
    limits = {"aria_valuemin": 0, "aria_valuemax": n_all, "aria_valuenow": n_ended}
    drawn = el(
        "div", *bar, cls="bar", role="progressbar", aria_label="Progress", aria_valuetext=text,
        **limits,
    )  # fmt: skip
    return Markup(drawn + el("p", joined([text, *_counts(counts, backend, zeros=True)])))


def _counts(
    counts: Mapping[CallState, int], backend: BackendRecord, *, zeros: bool
) -> list[Markup]:
    return [
        draw_state(words.ICONS[state], f"{words.number(n)} {word}", state if n else "muted")
        for state, n, word in engine.counted_words(counts, backend)
        if n or zeros
    ]


def draw_calls(snapshot: Snapshot, *, stable: bool, n_rows: int = N_ROWS) -> str:
    """Draw the table of calls; the first `n_rows` of them where it is not stable."""
    if not snapshot.calls:
        return ""
    n_all = len(snapshot.calls) + snapshot.n_calls_hidden
    chosen = _chosen_stable(snapshot) if stable else _chosen(snapshot, n_rows)
    twins = Counter(task.function for task in snapshot.tasks)
    rows = [_call(call, snapshot, twins, stable=stable) for call in chosen]
    waiting = "" if stable else engine.queue_text(snapshot)
    said = el("p", waiting, cls="more") if waiting else ""
    return section("Calls", n_all, said, table("Calls", rows), more(n_all - len(rows), "call"))


def _chosen(snapshot: Snapshot, n_rows: int) -> list[CallRecord]:
    """Choose the calls to show: failures first, then what goes on, then the latest ended."""

    def order(call: CallRecord) -> tuple[int, float, int]:
        if call.state in _FIRST:
            return _FIRST.index(call.state), 0.0, call.id
        return len(_FIRST), -(call.ended_at or 0.0), -call.id

    return sorted(snapshot.calls, key=order)[:n_rows]


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
    task = [el("code", words.said(name, stable=stable))]
    if call.resubmitted_from is not None:
        task.append(el("span", f" resubmit of {words.number(call.resubmitted_from)}", cls="muted"))
    word = engine.state_word(call, snapshot.backend)
    row = {
        "Id": words.number(call.id),
        "Task": Markup("".join(task)),
        "Arguments": el("code", words.said(call.args, stable=stable)),
        "State": draw_state(words.ICONS[call.state], word.replace(" ", _NBSP), call.state),
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
    done = el("span", cls="running", style=f"flex:{fraction:.3f}")
    left = el("span", cls="queued", style=f"flex:{1 - fraction:.3f}")
    return Markup(el("div", done, left, cls="bar small", aria_hidden="true") + escape(text))


def table(label: str, rows: Sequence[Mapping[str, str]]) -> Markup:
    """Make a table of equal rows; columns that are empty in all of them are left out."""
    columns = [column for column in rows[0] if any(row[column] for row in rows)]
    head = [el("th", c, scope="col", cls=_CLASSES.get(c, "")) for c in columns]
    body = [el("tr", *(el("td", row[c], cls=_CLASSES.get(c, "")) for c in columns)) for row in rows]
    table = el("table", el("thead", el("tr", *head)), el("tbody", *body), aria_label=label)
    # What scrolls has to be reachable by keyboard.
    return el("div", table, cls="scroll", role="group", aria_label=label, tabindex=0)


def more(n: int, noun: str) -> str:
    """Say how many are left out, if any."""
    return el("p", f"… and {words.number(n)} more {noun}{'s' * (n != 1)}", cls="more") if n else ""


def draw_timeline(snapshot: Snapshot) -> str:
    """Draw what each worker ran when, if anything."""
    drawn = chart(snapshot.calls, snapshot.now)
    return section("Timeline", None, drawn) if drawn else ""


def draw_workers(snapshot: Snapshot, *, opened: bool = False) -> str:
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
        parts += [table("Machines", rows), more(len(machines) - len(rows), "machine")]
    calls = {call.id: call for call in snapshot.calls}
    workers = [_worker(worker, calls, snapshot.now) for worker in there[:N_WORKERS]]
    parts += [table("Workers", workers), more(len(there) - len(workers), "worker")]
    return section("Workers", len(there), *parts, opened=opened)


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


def draw_tree(events: Iterable[EventRecord], *, wide: bool = False, stable: bool) -> Markup:
    """Draw events with their callbacks."""
    items = [_event(event, stable=stable) for event in events]
    return el("ul", *items, cls="tree wide" if wide else "tree")


def _event(event: EventRecord, *, stable: bool) -> Markup:
    name = el(
        "code", f"@{words.said(event.name, stable=stable)}", cls="" if event.count else "muted"
    )
    count = el("span", f" {words.number(event.count)}", cls="n") if event.count else ""
    callbacks = [_callback(c, stable=stable) for c in words.visible_callbacks(event)]
    return el("li", name, count, el("ul", *callbacks) if callbacks else "")


def _callback(callback: CallbackRecord, *, stable: bool) -> Markup:
    parts: list[str] = [el("code", words.said(callback.text, stable=stable))]
    if callback.n_calls:
        parts.append(el("span", f" ({words.number(callback.n_calls)})", cls="n"))
    if callback.n_errors:
        text = words.plural(callback.n_errors, "error")
        parts.extend([" ", draw_state(words.ICONS["failed"], text, "failed")])
    if note := words.cell_note(callback, stable=stable):
        parts.append(el("span", f" {note}", cls="muted"))
    return el("li", *parts)


def draw_task(task: TaskRecord, backend: BackendRecord, *, stable: bool) -> Markup:
    """Draw a task with its plugins and events."""
    ref = el("code", words.said(task.ref, stable=stable))
    about = [el("span", "Ref: ", ref, cls="muted"), *_counts(task.counts, backend, zeros=False)]
    summary = el(
        "summary", el("strong", "Task "), el("code", words.said(task.signature, stable=stable))
    )
    cards = [draw_plugin(plugin, stable=stable) for plugin in task.plugins]
    events = words.with_something(task.events)
    return el(
        "details",
        summary,
        el("p", joined(about)),
        el("div", *cards, cls="cards") if cards else "",
        draw_tree(events, wide=True, stable=stable) if events else "",
        open="",
    )


def draw_plugin(plugin: PluginRecord, *, stable: bool) -> Markup:
    """Draw the card of a plugin."""
    rows = [
        el("tr", el("th", label, scope="row"), el("td", value))
        for label, value in words.plugin_rows(plugin, stable=stable)
    ]
    caption = el("caption", words.said(plugin.name, stable=stable))
    table = el("table", caption, el("tbody", *rows))
    return el("div", table, cls="card")


def draw_log(snapshot: Snapshot, *, stable: bool, opened: bool = False) -> str:
    """Draw the log; its last messages, or the first where it is stable."""
    if not snapshot.log:
        return ""
    told = words.stable_log(snapshot.log) if stable else snapshot.log
    rows = [_message(record, stable=stable) for record in told]
    n_all = len(rows)
    shown = rows[:N_ROWS_STABLE] if stable else rows[-N_ROWS:]
    if not shown:
        return ""
    rest = more(n_all - len(shown), "message")
    return section("Log", n_all, table("Log", shown), rest, opened=opened)


def _message(record: LogRecord, *, stable: bool) -> dict[str, str]:
    time = f"{datetime.fromtimestamp(record.at, UTC):%H:%M:%S}"
    text = words.said(record.text.rstrip("\n"), words.LOG_CHARS, stable=stable, lines=True)
    row = {
        "Time (UTC)": time,
        "Source": words.said(record.source, _NAME_CHARS, stable=stable),
        "Level": "" if record.level == "print" else words.visible(record.level, _NAME_CHARS),
        "Message": el("pre", text),
    }
    return {key: row[key] for key in row if not (stable and key in _TIMED_COLUMNS)}
