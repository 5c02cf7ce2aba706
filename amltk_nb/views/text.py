"""A scheduler as text: boxes and a tree for terminals, and one honest line for its repr.

The picture is that of the guides: a box with executor and queue, below it every event with its
count and the callbacks on it, below them a box per task. A task's own events are drawn as well.
Words, not icons, tell the state: they survive any font, any encoding and any screen reader.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from amltk_nb.scheduling.snapshot import (
    BackendRecord,
    CallbackRecord,
    CallRecord,
    EventRecord,
    PluginRecord,
    Snapshot,
    TaskRecord,
)
from amltk_nb.scheduling.states import ENDED, CallState, RunState
from amltk_nb.views import words

__all__ = ["PLAIN_WIDTH", "line", "plain", "plain_task", "render", "render_task"]

PLAIN_WIDTH = 80  # columns of `plain`
_N_QUEUE_ROWS = 6  # calls named in the box

_STYLES = {
    "queued": "dim",
    "running": "blue",
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
}


def render(
    snapshot: Snapshot, *, stable: bool = False, extra: Iterable[RenderableType] = ()
) -> RenderableType:
    """Draw a scheduler for a rich console.

    Args:
        snapshot: what to draw.
        stable: leave out what differs between two equal runs (times, workers, single calls).
        extra: what else the user wants to see below it.
    """
    tree = Tree(_head(snapshot, stable=stable), guide_style="bold")
    if snapshot.events:
        tree.add(Group(*(_event(event, stable=stable) for event in snapshot.events)))
    for task in snapshot.tasks:
        tree.add(render_task(task, stable=stable))
    for thing in extra:
        tree.add(thing)
    return tree


def render_task(task: TaskRecord, *, stable: bool = False) -> RenderableType:
    """Draw one task: counts, plugins, and the events that happened or have callbacks."""
    parts: list[RenderableType] = []
    if sum(task.counts.values()):
        parts.append(_counts(task.counts))
    parts.extend(_plugin(plugin, stable=stable) for plugin in task.plugins)
    parts.extend(_event(event, stable=stable) for event in words.with_something(task.events))
    return Panel(
        Group(*parts),
        title=_text("Task " + words.said(task.signature, stable=stable), "bold"),
        title_align="left",
        subtitle=_text("Ref: " + words.said(task.ref, stable=stable), "dim"),
        border_style="blue",
    )


def plain(snapshot: Snapshot, *, stable: bool = False) -> str:
    """Draw a scheduler without colours, 80 columns wide, the same on every terminal.

    Args:
        snapshot: what to draw.
        stable: leave out what differs between two equal runs; saved notebooks hold this form.
    """
    return _printed(render(snapshot, stable=stable))


def plain_task(task: TaskRecord, *, stable: bool = False) -> str:
    """Draw one task like `plain` draws a scheduler."""
    return _printed(render_task(task, stable=stable))


def line(snapshot: Snapshot) -> str:
    """Say in one line what a scheduler is and how far it got, for its repr."""
    backend = snapshot.backend
    counts = [f"{words.number(n)} {state}" for state, n in words.counted(snapshot.counts) if n]
    said = [
        words.outcome(snapshot.run),
        f"{words.visible(backend.name, 60)}({backend.n_workers})",
        *(counts or ["no calls"]),
    ]
    return f"<{words.title_of(snapshot)}: {', '.join(said)}>"


def _printed(thing: RenderableType) -> str:
    """Print in black and white; everything that rich would ask the environment for is given."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=PLAIN_WIDTH,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        force_interactive=False,
        legacy_windows=False,
        emoji=False,
        highlight=False,
    )
    console.print(thing)
    return "\n".join(row.rstrip() for row in file.getvalue().rstrip().split("\n"))


def _text(text: str, style: str = "") -> Text:
    """Wrap a string that is already visible; a Text is never read as markup."""
    return Text(text, style, overflow="fold")


def _head(snapshot: Snapshot, *, stable: bool) -> Panel:
    run = snapshot.run
    title = _text(words.title_of(snapshot), "bold")
    if run.state is not RunState.IDLE:
        title.append(f": {words.outcome(run)}", _STYLES[words.run_icon(run)[1]])
    notes = words.run_notes(snapshot, stable=stable)
    reason = words.reason_of(run, stable=stable)
    n_waiting = sum(snapshot.counts.get(s, 0) for s in (CallState.QUEUED, CallState.RUNNING))
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("Executor", ratio=1)
    table.add_column(f"Queue: ({words.number(n_waiting)})", ratio=2)
    queue = Group(_counts(snapshot.counts), *([] if stable else _queue(snapshot)))
    table.add_row(_executor(snapshot.backend, stable=stable), queue)
    # In the box and not on its edge: an edge would cut the error that ended the run.
    said = _text(reason, "red" if run.code == "exception" else "dim")
    return Panel(
        Group(table, said) if reason else table,
        title=title,
        title_align="left",
        subtitle=_text(" · ".join(notes), "dim") if notes else None,
        subtitle_align="right",
        border_style="magenta",
    )


def _executor(backend: BackendRecord, *, stable: bool) -> Panel:
    options = _text(words.said(words.options_text(backend.options), stable=stable))
    name = _text(words.said(backend.name, stable=stable))
    return Panel.fit(options, title=name, title_align="left")


def _counts(counts: Mapping[CallState, int]) -> Text:
    text = _text("")
    for state, n in words.counted(counts):
        if n:
            text.append("  " if text else "")
            text.append(f"{words.number(n)} {state}", _STYLES[state])
    return text or _text("no calls", "dim")


def _queue(snapshot: Snapshot) -> list[Text]:
    """Name what runs, what is next and what ended last, and count the rest."""
    rows = [_call(call) for call in _interesting(snapshot.calls)]
    n_more = len(snapshot.calls) + snapshot.n_calls_hidden - len(rows)
    if n_more:
        rows.append(_text(f"… and {words.number(n_more)} more", "dim"))
    return rows


def _interesting(calls: Sequence[CallRecord]) -> list[CallRecord]:
    running = [call for call in calls if call.state is CallState.RUNNING][:3]
    queued = [call for call in calls if call.state is CallState.QUEUED][:2]
    ended = sorted(
        (call for call in calls if call.state in ENDED),
        key=lambda call: (call.ended_at or 0.0, call.id),
        reverse=True,
    )
    return running + queued + ended[: _N_QUEUE_ROWS - len(running) - len(queued)]


def _call(call: CallRecord) -> Text:
    shown = f"{words.visible(call.function, 60)}({words.visible(call.args, words.ONE_LINE_CHARS)})"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(call.state.upper(), _STYLES[call.state])
    text.append(f" {shown}")
    if call.progress is not None:
        text.append(f"  {words.progress_text(call.progress)}", "blue")
    if call.error:
        text.append(f"  {words.visible(call.error, words.ONE_LINE_CHARS)}", "red")
    return text


def _event(event: EventRecord, *, stable: bool) -> RenderableType:
    text = _text(f"@{words.said(event.name, stable=stable)}", "magenta" if event.count else "dim")
    if event.count:
        text.append(f" {words.number(event.count)}", "yellow")
    callbacks = words.visible_callbacks(event)
    if not callbacks:
        return text
    tree = Tree(text, guide_style="dim")
    for callback in callbacks:
        tree.add(_callback(callback, stable=stable))
    return tree


def _callback(callback: CallbackRecord, *, stable: bool) -> Text:
    text = _text(words.said(callback.text, stable=stable))
    if note := words.cell_note(callback, stable=stable):
        text.append(f" {note}", "dim")
    if callback.n_calls:
        text.append(f" ({words.number(callback.n_calls)})", "yellow")
    if callback.n_errors:
        text.append(f" {words.plural(callback.n_errors, 'error')}", "red")
    return text


def _plugin(plugin: PluginRecord, *, stable: bool) -> Panel:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    for label, value in words.plugin_rows(plugin, stable=stable):
        table.add_row(_text(label), _text(value))
    title = _text(f"Plugin {words.said(plugin.name, stable=stable)}")
    return Panel.fit(table, title=title, title_align="left")
