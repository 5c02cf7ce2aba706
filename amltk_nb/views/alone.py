"""Some views without the rest, as static HTML and as text: what stays of a view alone in a cell.

The parts are those of the whole dashboard. Where its header is left out, one line says of which
scheduler or task this is and how that stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from rich.console import Group, RenderableType

from amltk_nb.scheduling.snapshot import LogRecord, Snapshot, TaskRecord
from amltk_nb.views import engine, html, text, words
from amltk_nb.views.markup import Markup, el, joined

__all__ = ["plain_views", "render_views"]

_ONLY_LIVE = "Not part of what is compared: times and workers differ from run to run."
_N_CALLS = 20  # lines of text
_EMPTY = {
    "timeline": "No call has run.",
    "workers": "No workers are there.",
    "events": "No events.",
    "plugins": "No plugins.",
    "log": "The log is empty.",
}
_TIMED = ("timeline", "workers")


def render_views(
    snapshot: Snapshot, views: Iterable[str], *, task: str | None = None, stable: bool = False
) -> str:
    """Draw some views as one self-contained HTML fragment.

    Args:
        snapshot: what to draw; of a task that is meant, its own.
        views: which parts.
        task: the ref of the task that this is of; None: of the scheduler.
        stable: leave out what differs between two equal runs.
    """
    wanted = set(views)
    name = _title(snapshot, task, stable=stable)
    whole = "header" in wanted
    head = html.draw_head(snapshot, name, stable=stable) if whole else _line(snapshot, name, stable)
    draw: dict[str, Callable[[], str]] = {
        "progress": lambda: html.draw_progress(snapshot),
        "queue": lambda: _queue(snapshot, counted="progress" in wanted, stable=stable),
        "timeline": lambda: "" if stable else html.draw_timeline(snapshot),
        "workers": lambda: "" if stable else html.draw_workers(snapshot, opened=True),
        "events": lambda: _events(snapshot, with_plugins="plugins" in wanted, stable=stable),
        "plugins": lambda: _plugins(snapshot, drawn="events" in wanted, stable=stable),
        "log": lambda: html.draw_log(snapshot, stable=stable, opened=True),
    }
    parts = [draw[view]() or _nothing(view, stable) for view in draw if view in wanted]
    return html.root(name, [head, *parts])


def plain_views(
    snapshot: Snapshot, views: Iterable[str], *, task: str | None = None, stable: bool = False
) -> str:
    """Write some views as text, 80 columns wide; arguments as for `render_views`."""
    wanted = set(views)
    head = [f"{_title(snapshot, task, stable=stable)}: {words.outcome(snapshot.run)}"]
    if reason := words.reason_of(snapshot.run, stable=stable):
        head.append(reason)
    draw: dict[str, Callable[[], list[RenderableType]]] = {
        "progress": lambda: [text.draw_counts(snapshot.counts, snapshot.backend)],
        "queue": lambda: _queue_text(snapshot, counted="progress" not in wanted, stable=stable),
        "workers": lambda: [] if stable else _workers_text(snapshot),
        "events": lambda: _events_text(snapshot, stable=stable),
        "plugins": lambda: [
            text.draw_plugin(plugin, stable=stable)
            for each in snapshot.tasks
            for plugin in each.plugins
        ],
        "log": lambda: [_log_line(record, stable) for record in _told(snapshot, stable)],
    }
    rows = [text.literal(row) for row in head]
    if "timeline" in wanted:
        rows.append(text.literal("The timeline is drawn in notebooks and in reports.", "dim"))
    parts: list[RenderableType] = []
    for view in draw:
        if view in wanted:
            parts += draw[view]() or _nothing_text(view, stable)
    return text.printed(Group(*rows, *parts))


def _title(snapshot: Snapshot, task: str | None, *, stable: bool) -> str:
    if task is None:
        return words.title_of(snapshot)
    signature = next((each.signature for each in snapshot.tasks), task)
    left = "" if snapshot.tasks else " (no task of it any more)"
    return f"Task {words.said(signature, stable=stable)} of {words.title_of(snapshot)}{left}"


def _line(snapshot: Snapshot, name: str, stable: bool) -> Markup:
    """Say in one line what this is of and how it stands."""
    run = snapshot.run
    icon, tone = words.run_icon(run)
    reason = words.reason_of(run, stable=stable)
    about = [el("span", reason, cls="failed" if run.code == "exception" else "muted")]
    state = html.draw_state(icon, words.outcome(run), tone)
    return el("p", joined([el("strong", name), state, *(about if reason else [])]))


def _nothing(view: str, stable: bool) -> Markup:
    return el("p", _ONLY_LIVE if stable and view in _TIMED else _EMPTY.get(view, ""), cls="more")


def _nothing_text(view: str, stable: bool) -> list[RenderableType]:
    said = _ONLY_LIVE if stable and view in _TIMED else _EMPTY.get(view)
    return [text.literal(said, "dim")] if said else []


def _queue(snapshot: Snapshot, *, counted: bool, stable: bool) -> str:
    drawn = html.draw_calls(snapshot, stable=stable)
    return drawn or (Markup(" ") if counted else html.draw_progress(snapshot))


def _events(snapshot: Snapshot, *, with_plugins: bool, stable: bool) -> str:
    own = html.draw_tree(snapshot.events, wide=True, stable=stable) if snapshot.events else ""
    tasks = [task if with_plugins else replace(task, plugins=()) for task in snapshot.tasks]
    return _joined(html.section("Events", None, own) if own else "", snapshot, tasks, stable)


def _plugins(snapshot: Snapshot, *, drawn: bool, stable: bool) -> str:
    tasks = [replace(task, events=()) for task in snapshot.tasks if task.plugins]
    if tasks and drawn:  # each with its task
        return Markup(" ")
    return _joined("", snapshot, tasks, stable)


def _joined(first: str, snapshot: Snapshot, tasks: Iterable[TaskRecord], stable: bool) -> Markup:
    drawn = [html.draw_task(task, snapshot.backend, stable=stable) for task in tasks]
    return Markup("".join([first, *drawn]))


def _queue_text(snapshot: Snapshot, *, counted: bool, stable: bool) -> list[RenderableType]:
    rows: list[RenderableType] = []
    if counted:
        rows.append(text.draw_counts(snapshot.counts, snapshot.backend))
    if stable:  # which call is where depends on timing
        return rows
    calls = sorted(snapshot.calls, key=lambda call: -call.id)[:_N_CALLS]
    n_more = len(snapshot.calls) + snapshot.n_calls_hidden - len(calls)
    rows += [text.draw_call(call, snapshot) for call in calls]
    return rows + ([text.literal(f"… and {words.number(n_more)} more", "dim")] if n_more else [])


def _workers_text(snapshot: Snapshot) -> list[RenderableType]:
    there = engine.who_is_there(snapshot.workers)
    return [text.literal(engine.busy_text(there))] if there else []


def _events_text(snapshot: Snapshot, *, stable: bool) -> list[RenderableType]:
    rows: list[RenderableType] = [text.draw_event(e, stable=stable) for e in snapshot.events]
    for task in snapshot.tasks:
        rows.append(text.literal(f"Task {words.said(task.signature, stable=stable)}", "bold"))
        happened = words.with_something(task.events)
        rows += [text.draw_event(event, stable=stable) for event in happened]
    return rows


def _told(snapshot: Snapshot, stable: bool) -> list[LogRecord]:
    return words.stable_log(snapshot.log) if stable else list(snapshot.log)[-_N_CALLS:]


def _log_line(record: LogRecord, stable: bool) -> RenderableType:
    said = words.said(record.text.rstrip("\n"), words.LOG_CHARS, stable=stable, lines=True)
    return text.literal(f"{words.said(record.source, stable=stable)}: {said}")
