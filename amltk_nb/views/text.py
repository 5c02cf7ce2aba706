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
    WorkerRecord,
)
from amltk_nb.scheduling.states import ENDED, CallState, RunState
from amltk_nb.views import engine, words

__all__ = [
    "PLAIN_WIDTH",
    "STYLES",
    "draw_call",
    "draw_counts",
    "draw_event",
    "draw_plugin",
    "line",
    "literal",
    "plain",
    "plain_task",
    "printed",
    "render",
    "render_task",
]

PLAIN_WIDTH = 80  # columns of `plain`
_N_QUEUE_ROWS = 6  # calls named in the box
_N_MACHINES = 5

_ANY_ENGINE = BackendRecord(name="")  # of a task that is shown alone

STYLES = {
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
        tree.add(Group(*(draw_event(event, stable=stable) for event in snapshot.events)))
    for task in snapshot.tasks:
        tree.add(_task(task, snapshot.backend, stable=stable))
    for thing in extra:
        tree.add(thing)
    return tree


def render_task(task: TaskRecord, *, stable: bool = False) -> RenderableType:
    """Draw one task: counts, plugins, and the events that happened or have callbacks."""
    return _task(task, _ANY_ENGINE, stable=stable)


def _task(task: TaskRecord, backend: BackendRecord, *, stable: bool) -> RenderableType:
    parts: list[RenderableType] = []
    if sum(task.counts.values()):
        parts.append(draw_counts(task.counts, backend))
    parts.extend(draw_plugin(plugin, stable=stable) for plugin in task.plugins)
    parts.extend(draw_event(event, stable=stable) for event in words.with_something(task.events))
    return Panel(
        Group(*parts),
        title=literal("Task " + words.said(task.signature, stable=stable), "bold"),
        title_align="left",
        subtitle=literal("Ref: " + words.said(task.ref, stable=stable), "dim"),
        border_style="blue",
    )


def plain(snapshot: Snapshot, *, stable: bool = False) -> str:
    """Draw a scheduler without colours, 80 columns wide, the same on every terminal.

    Args:
        snapshot: what to draw.
        stable: leave out what differs between two equal runs; saved notebooks hold this form.
    """
    return printed(render(snapshot, stable=stable))


def plain_task(task: TaskRecord, *, stable: bool = False) -> str:
    """Draw one task like `plain` draws a scheduler."""
    return printed(render_task(task, stable=stable))


def line(snapshot: Snapshot) -> str:
    """Say in one line what a scheduler is and how far it got, for its repr."""
    backend = snapshot.backend
    states = engine.counted_words(snapshot.counts, backend)
    counts = [f"{words.number(n)} {word}" for _, n, word in states if n]
    if backend.waiting_for is not None:
        counts.append(f"waiting for {words.visible(backend.waiting_for, 60)}")
    said = [
        words.outcome(snapshot.run),
        f"{words.visible(backend.name, 60)}({backend.n_workers})",
        *(counts or ["no calls"]),
    ]
    return f"<{words.title_of(snapshot)}: {', '.join(said)}>"


def printed(thing: RenderableType) -> str:
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


def literal(text: str, style: str = "") -> Text:
    """Wrap a string that is already visible; a Text is never read as markup."""
    return Text(text, style, overflow="fold")


def _head(snapshot: Snapshot, *, stable: bool) -> Panel:
    run = snapshot.run
    title = literal(words.title_of(snapshot), "bold")
    if run.state is not RunState.IDLE:
        title.append(f": {words.outcome(run)}", STYLES[words.run_icon(run)[1]])
    notes = words.run_notes(snapshot, stable=stable)
    reason = words.reason_of(run, stable=stable)
    n_waiting = sum(snapshot.counts.get(s, 0) for s in (CallState.QUEUED, CallState.RUNNING))
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("Executor", ratio=1)
    table.add_column(f"Queue: ({words.number(n_waiting)})", ratio=2)
    counted = draw_counts(snapshot.counts, snapshot.backend)
    queue = Group(counted, *([] if stable else _queue(snapshot)))
    table.add_row(Group(*_executor(snapshot, stable=stable)), queue)
    # In the box and not on its edge: an edge would cut the error that ended the run.
    below = [literal(reason, "red" if run.code == "exception" else "dim")] if reason else []
    if warning := words.journal_warning(snapshot, stable=stable):
        below.append(literal(warning, "yellow"))
    if not stable and engine.is_long(snapshot):
        below.append(literal(engine.waiting_hint(snapshot.backend) or "", "dim"))
    return Panel(
        Group(table, *below) if below else table,
        title=title,
        title_align="left",
        subtitle=literal(" · ".join(notes), "dim") if notes else None,
        subtitle_align="right",
        border_style="magenta",
    )


def _executor(snapshot: Snapshot, *, stable: bool) -> list[RenderableType]:
    """Draw what runs the calls, and below it who is there or awaited."""
    backend = snapshot.backend
    options = literal(words.said(words.options_text(backend.options), stable=stable))
    name = literal(words.said(backend.name, stable=stable))
    panel = Panel.fit(options, title=name, title_align="left")
    if stable:
        return [panel]
    waiting = [engine.waiting_text(snapshot), engine.jobs_text(backend)]
    noted = [literal(note, "yellow") for note in waiting if note]
    return [panel, *noted, *_workers(engine.who_is_there(snapshot.workers))]


def _workers(workers: Sequence[WorkerRecord]) -> list[Text]:
    """Count the workers, and by machine where there are several."""
    if not workers:
        return []
    machines = engine.machines(workers)
    rows = [literal(engine.busy_text(workers))]
    if len(machines) == 1 and workers[0].where is None:
        return rows
    for machine in machines[:_N_MACHINES]:
        name = words.visible(machine.name, 40)
        rows.append(literal(f"  {words.number(machine.n_workers)} on {name}", "dim"))
    n_more = len(machines) - _N_MACHINES
    return [
        *rows,
        *([literal(f"  … and {words.plural(n_more, 'more machine')}", "dim")] * (n_more > 0)),
    ]


def draw_counts(counts: Mapping[CallState, int], backend: BackendRecord) -> Text:
    """Say how many calls there are in each state that has any."""
    text = literal("")
    for state, n, word in engine.counted_words(counts, backend):
        if n:
            text.append("  " if text else "")
            text.append(f"{words.number(n)} {word}", STYLES[state])
    return text or literal("no calls", "dim")


def _queue(snapshot: Snapshot) -> list[Text]:
    """Name what runs, what is next and what ended last, and count the rest."""
    rows = [draw_call(call, snapshot) for call in _interesting(snapshot.calls)]
    n_more = len(snapshot.calls) + snapshot.n_calls_hidden - len(rows)
    if n_more:
        rows.append(literal(f"… and {words.number(n_more)} more", "dim"))
    waiting = engine.queue_text(snapshot)
    return [literal(waiting, "yellow"), *rows] if waiting else rows


def _interesting(calls: Sequence[CallRecord]) -> list[CallRecord]:
    running = [call for call in calls if call.state is CallState.RUNNING][:3]
    queued = [call for call in calls if call.state is CallState.QUEUED][:2]
    ended = sorted(
        (call for call in calls if call.state in ENDED),
        key=lambda call: (call.ended_at or 0.0, call.id),
        reverse=True,
    )
    return running + queued + ended[: _N_QUEUE_ROWS - len(running) - len(queued)]


def draw_call(call: CallRecord, snapshot: Snapshot) -> Text:
    """Say in one line what is known of a call."""
    shown = f"{words.visible(call.function, 60)}({words.visible(call.args, words.ONE_LINE_CHARS)})"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(engine.state_word(call, snapshot.backend).upper(), STYLES[call.state])
    text.append(f" {shown}")
    if call.state is CallState.QUEUED and call.not_before is not None:
        text.append(f"  {words.time_text(call, snapshot.now)}", "dim")
    if call.progress is not None:
        text.append(f"  {words.progress_text(call.progress)}", "blue")
    if call.state is CallState.RUNNING and call.worker is not None:
        text.append(f"  on {words.visible(call.worker, 60)}", "dim")
    if call.error:
        text.append(f"  {words.visible(call.error, words.ONE_LINE_CHARS)}", "red")
    return text


def draw_event(event: EventRecord, *, stable: bool) -> RenderableType:
    """Draw an event with its callbacks."""
    text = literal(f"@{words.said(event.name, stable=stable)}", "magenta" if event.count else "dim")
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
    text = literal(words.said(callback.text, stable=stable))
    if note := words.cell_note(callback, stable=stable):
        text.append(f" {note}", "dim")
    if callback.n_calls:
        text.append(f" ({words.number(callback.n_calls)})", "yellow")
    if callback.n_errors:
        text.append(f" {words.plural(callback.n_errors, 'error')}", "red")
    return text


def draw_plugin(plugin: PluginRecord, *, stable: bool) -> Panel:
    """Draw the box of a plugin."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    for label, value in words.plugin_rows(plugin, stable=stable):
        table.add_row(literal(label), literal(value))
    title = literal(f"Plugin {words.said(plugin.name, stable=stable)}")
    return Panel.fit(table, title=title, title_align="left")
