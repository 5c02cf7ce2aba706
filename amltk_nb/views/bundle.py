"""What a saved notebook keeps of a scheduler or a task: static HTML and plain text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.task import Task

__all__ = ["is_static", "static_bundle"]


def is_static() -> bool:
    """Say whether only static output is wanted: AMLTK_NB_STATIC=1, as in CI and book builds."""
    return os.environ.get("AMLTK_NB_STATIC") == "1"


def static_bundle(thing: Scheduler | Task[..., Any]) -> dict[str, Any]:
    """Render a scheduler or a task as `text/html` and `text/plain`.

    The plain text, and in static mode the HTML too, hold nothing that differs from one equal
    run to the next: no times, rates, process ids or order of workers.
    """
    from amltk_nb.views import html, text

    if hasattr(thing, "snapshot"):
        snapshot = thing.snapshot()
        return {
            "text/html": html.render(snapshot, stable=is_static()),
            "text/plain": text.plain(snapshot, stable=True),
        }
    record = thing.record()
    return {
        "text/html": html.render_task(record, stable=is_static()),
        "text/plain": text.plain_task(record, stable=True),
    }
