"""A run as one HTML file to keep or to send: no script, no network, dark and light.

The parts are those of the static view; here are more rows of them, how long calls took, and of
each failure all that is known.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from html import escape
from statistics import median
from typing import TYPE_CHECKING

from amltk_nb.scheduling.snapshot import CallRecord, Snapshot
from amltk_nb.scheduling.states import CallState
from amltk_nb.views import html, words
from amltk_nb.views.detail import detail_of
from amltk_nb.views.markup import Markup, el, joined

if TYPE_CHECKING:
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["N_CALLS", "N_FAILURES", "render_report"]

N_CALLS = 10_000  # rows, some 3 MB
N_FAILURES = 200  # with all that is known of them
_TEXT = 20_000  # characters of a traceback or of what a call printed

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>body{{margin:16px;background:Canvas}}main>div{{margin-inline:auto!important}}</style>
</head>
<body><main>{body}</main></body>
</html>
"""


def render_report(scheduler: Scheduler, *, title: str | None = None) -> str:
    """Draw all that a scheduler remembers as one HTML page.

    Args:
        scheduler: running or not; of a running one the page shows this moment.
        title: of the page; None: the scheduler's name.
    """
    snapshot = scheduler.snapshot(max_calls=N_CALLS)
    name = words.visible(title, words.ONE_LINE_CHARS) if title else words.title_of(snapshot)
    written = f"written {datetime.fromtimestamp(snapshot.now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    parts = [
        html.draw_head(snapshot, name, stable=False),
        el("p", written, cls="muted"),
        html.draw_progress(snapshot),
        _summary(snapshot),
        html.draw_timeline(snapshot),
        _failures(scheduler, snapshot),
        html.draw_log(snapshot, stable=False),
        html.draw_calls(snapshot, stable=False, n_rows=N_CALLS),
        html.draw_workers(snapshot),
        html.section("Events", None, html.draw_tree(snapshot.events, wide=True, stable=False)),
        *(html.draw_task(task, snapshot.backend, stable=False) for task in snapshot.tasks),
    ]
    return _PAGE.format(title=escape(name), body=html.root(name, parts))


def _summary(snapshot: Snapshot) -> str:
    """Say of each function how its calls ended and how long they took."""
    by_function: defaultdict[str, list[CallRecord]] = defaultdict(list)
    for call in snapshot.calls:
        by_function[call.function].append(call)
    rows = [_summed(name, calls) for name, calls in by_function.items()]
    return html.section("Summary", None, html.table("Summary", rows)) if rows else ""


def _summed(name: str, calls: list[CallRecord]) -> dict[str, str]:
    seconds = sorted(call.seconds for call in calls if call.seconds is not None)
    n = {state: sum(call.state is state for call in calls) for state in CallState}

    def took(share: float) -> str:
        return words.duration(seconds[round(share * (len(seconds) - 1))]) if seconds else ""

    return {
        "Task": el("code", words.visible(name, words.ONE_LINE_CHARS)),
        "Done": words.number(n[CallState.DONE]),
        "Failed": words.number(n[CallState.FAILED]),
        "Cancelled": words.number(n[CallState.CANCELLED]),
        "Median": words.duration(median(seconds)) if seconds else "",
        "95 % within": took(0.95),
        "Longest": took(1.0),
        "In all": words.duration(sum(seconds)) if seconds else "",
    }


def _failures(scheduler: Scheduler, snapshot: Snapshot) -> str:
    failed = [call for call in snapshot.calls if call.state is CallState.FAILED]
    if not failed:
        return ""
    shown = sorted(failed, key=lambda call: call.id)[:N_FAILURES]
    parts = [_failure(scheduler, call) for call in shown]
    return html.section(
        "Failures", len(failed), *parts, html.more(len(failed) - len(shown), "failure")
    )


def _failure(scheduler: Scheduler, record: CallRecord) -> Markup:
    head = el(
        "summary",
        joined(
            [
                f"Call {words.number(record.id)}",
                el("code", words.visible(record.function, words.ONE_LINE_CHARS)),
                el("span", words.visible(record.error or "", words.ONE_LINE_CHARS), cls="failed"),
            ]
        ),
    )
    detail = detail_of(scheduler.find_call(record.id))
    named = ", ".join(f"{argument['name']}={argument['text']}" for argument in detail["arguments"])
    return el(
        "details",
        head,
        _block("Arguments", named),
        _block("Traceback", detail["error"]),
        _block("Output", detail["output"]),
    )


def _block(title: str, text: str | None) -> str:
    if not text:
        return ""
    shown = el("pre", words.visible(text, _TEXT, lines=True))
    return Markup(el("p", title, cls="muted") + shown)
