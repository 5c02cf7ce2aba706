"""A future, a batch and a run by themselves: a few lines each, as static HTML and as text.

Their stable form says nothing that depends on the moment: a call is under way or has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from amltk_nb.scheduling import reading
from amltk_nb.scheduling.batch import Batch
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.run import Run
from amltk_nb.scheduling.snapshot import BackendRecord, BatchRecord, CallRecord
from amltk_nb.scheduling.states import ENDED, CallState, RunState
from amltk_nb.scheduling.task import Task
from amltk_nb.views import html, text, words
from amltk_nb.views.markup import el, joined
from amltk_nb.views.style import LINE_STYLE

if TYPE_CHECKING:
    from amltk_nb.host import Showable

__all__ = [
    "batch_text",
    "future_text",
    "render_batch",
    "render_future",
    "render_run",
    "rich_form",
    "run_text",
]

_UNDER_WAY = "under way"
_ANY_ENGINE = BackendRecord(name="")


def rich_form(thing: Showable) -> RenderableType:
    """Draw anything of the engine for a rich console: what terminals show."""
    if isinstance(thing, Task):
        return text.render_task(thing.record())
    if isinstance(thing, Future):
        return future_text(thing)
    if isinstance(thing, Batch):
        return Group(batch_text(thing.record()), text.render_task(thing.task.record()))
    if isinstance(thing, Run):
        return run_text(thing)
    return text.render(thing.snapshot(), extra=tuple(thing.renderables))


def render_future(future: Future[object], *, stable: bool = False, styled: bool = True) -> str:
    """Draw a future: what was called, how that stands, and its result or error.

    Args:
        future: which.
        stable: leave out what differs between two equal runs.
        styled: whether it brings its style sheet; one in an output serves all others there.
    """
    call = future.call
    record = reading.call_record(call)
    name = _called(record, stable=stable)
    about = [f"call {words.number(record.id)}"]
    if not stable:
        about += [_took(record), words.visible(record.worker or "", words.ONE_LINE_CHARS)]
    about += [words.progress_text(record.progress)] if record.progress and not stable else []
    head = [
        _state(record, stable=stable),
        el("code", name),
        *(el("span", note, cls="muted") for note in about if note),
    ]
    parts = [el("p", joined(head))]
    if ending := _ending(call, record, stable=stable):
        parts.append(el("p", el("code", ending), cls="failed" if record.error else ""))
    return html.root(f"Call {record.id}", parts, style=LINE_STYLE * styled)


def future_text(future: Future[object], *, stable: bool = False) -> Text:
    """Say in one line how a call stands: "Future of call 3, f(12): done: 144"."""
    call = future.call
    record = reading.call_record(call)
    said = text.literal(f"Future of call {record.id}, {_called(record, stable=stable)}: ")
    said.append(_word(record, stable=stable), text.STYLES[record.state])
    if not stable and (took := _took(record)):
        said.append(f" {took}", "dim")
    if ending := _ending(call, record, stable=stable):
        said.append(f": {ending}", "red" if record.error else "")
    return said


def render_batch(batch: BatchRecord, *, stable: bool = False, styled: bool = True) -> str:
    """Draw a batch: of which task, how far its calls are, and how they ended; see above."""
    title = el("span", el("strong", "Batch of "), el("code", words.said(batch.task, stable=stable)))
    about = [el("span", _batch_state(batch), cls="muted")]
    if batch.n_refused:
        about.append(el("span", f"{words.number(batch.n_refused)} refused", cls="failed"))
    parts = [el("p", joined([title, *about]))]
    if not stable or batch.state == "done":
        parts.append(html.draw_bar(batch.counts, batch.n_calls, _ANY_ENGINE))
    return html.root("Batch", parts, style=LINE_STYLE * styled)


def batch_text(batch: BatchRecord, *, stable: bool = False) -> Text:
    """Say in one line how a batch stands."""
    said = text.literal(f"Batch of {words.said(batch.task, stable=stable)}: {_batch_state(batch)}")
    if batch.n_refused:
        said.append(f", {words.number(batch.n_refused)} refused", "red")
    if sum(batch.counts.values()) and (not stable or batch.state == "done"):
        said.append(": ")
        said.append(text.draw_counts(batch.counts, _ANY_ENGINE))
    return said


def render_run(run: Run, *, stable: bool = False, styled: bool = True) -> str:
    """Draw a run: of which scheduler, its state, and how and why it ended; see above."""
    icon, tone, word = _run_state(run)
    name = words.visible(run.scheduler.name, words.ONE_LINE_CHARS)
    head = [el("strong", f"Run of {name!r}"), html.draw_state(icon, word, tone)]
    if not stable and run.ended_at is not None:
        took = f"took {words.duration(run.ended_at - run.started_at)}"
        head.append(el("span", took, cls="muted"))
    parts = [el("p", joined(head))]
    if reason := _reason(run, stable=stable):
        parts.append(el("p", reason, cls="failed" if tone == "failed" else "muted"))
    return html.root(f"Run of {name}", parts, style=LINE_STYLE * styled)


def run_text(run: Run, *, stable: bool = False) -> Text:
    """Say in one line how a run stands."""
    _, tone, word = _run_state(run)
    name = words.visible(run.scheduler.name, words.ONE_LINE_CHARS)
    said = text.literal(f"Run of {name!r}: ")
    said.append(word, text.STYLES[tone])
    if reason := _reason(run, stable=stable):
        said.append(f": {reason}", "dim")
    return said


def _called(record: CallRecord, *, stable: bool) -> str:
    return words.said(f"{record.function}({record.args})", words.ONE_LINE_CHARS, stable=stable)


def _word(record: CallRecord, *, stable: bool) -> str:
    return _UNDER_WAY if stable and record.state not in ENDED else str(record.state)


def _state(record: CallRecord, *, stable: bool) -> str:
    # Queued or running: the stable form cannot tell, so it shows the same icon for both.
    shown = CallState.RUNNING if stable and record.state not in ENDED else record.state
    return html.draw_state(words.ICONS[shown], _word(record, stable=stable), shown)


def _ending(call: Call, record: CallRecord, *, stable: bool) -> str:
    told = record.error or call.result_text or ""
    return words.said(told, words.ONE_LINE_CHARS, stable=stable)


def _took(record: CallRecord) -> str:
    # Of a call under way it would be wrong a second later: these lines have no clock.
    return "" if record.seconds is None else words.duration(record.seconds)


def _batch_state(batch: BatchRecord) -> str:
    return f"{words.plural(batch.n_calls, 'call')}, {batch.state}"


def _run_state(run: Run) -> tuple[str, str, str]:
    """Return icon, tone and word; another run of the same scheduler does not change this one."""
    if run.exit_state is not None:
        code = str(run.exit_state.code)
        tone = {"exception": "failed", "cancelled": "cancelled"}.get(code, "done")
        return words.ICONS[tone], tone, f"finished ({code})"
    state = run.scheduler.state
    tones = {RunState.RUNNING: "running", RunState.IDLE: "queued"}
    return words.ICONS[state], tones.get(state, "cancelled"), str(state)


def _reason(run: Run, *, stable: bool) -> str:
    return words.said(run.reason or "", words.REASON_CHARS, stable=stable)
