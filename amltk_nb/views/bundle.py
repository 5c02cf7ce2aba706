"""What a saved notebook keeps of things: static HTML and plain text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amltk_nb import host

if TYPE_CHECKING:
    from amltk_nb.host import Showable
    from amltk_nb.scheduling.snapshot import Snapshot

__all__ = ["is_static", "static_bundle", "views_bundle"]


def is_static() -> bool:
    """Say whether only static output is wanted: AMLTK_NB_STATIC=1, as in CI and book builds."""
    return os.environ.get("AMLTK_NB_STATIC") == "1"


def static_bundle(thing: Showable, *, styled: bool = True) -> dict[str, Any]:
    """Render a scheduler, task, future, batch or run as `text/html` and `text/plain`.

    The plain text, and in static mode the HTML too, hold nothing that differs from one equal
    run to the next: no times, rates, process ids or order of workers.

    Args:
        thing: what to render.
        styled: whether the line of a future, batch or run brings its style sheet, which is ten
            times as long as the line; one of them in an output serves all.
    """
    from amltk_nb.scheduling.batch import Batch
    from amltk_nb.scheduling.call import Future
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.task import Task
    from amltk_nb.views import html, objects, text

    stable = is_static()
    if isinstance(thing, Task):
        task = thing.record()
        return _bundle(html.render_task(task, stable=stable), text.plain_task(task, stable=True))
    if isinstance(thing, Future):
        line = str(objects.future_text(thing, stable=True))
        return _bundle(objects.render_future(thing, stable=stable, styled=styled), line)
    if isinstance(thing, Batch):
        batch = thing.record()
        line = str(objects.batch_text(batch, stable=True))
        return _bundle(objects.render_batch(batch, stable=stable, styled=styled), line)
    if isinstance(thing, Run):
        return _bundle(objects.render_run(thing, stable=stable, styled=styled), repr(thing))
    snapshot = thing.snapshot()
    return _bundle(html.render(snapshot, stable=stable), text.plain(snapshot, stable=True))


def views_bundle(snapshot: Snapshot, views: Sequence[str], task: str | None) -> dict[str, Any]:
    """Render some views; all of them as a whole.

    Args:
        snapshot: what they show.
        views: their names.
        task: the ref of the task that the snapshot is of; None: of the scheduler.
    """
    from amltk_nb.views import html, text
    from amltk_nb.views.alone import plain_views, render_views
    from amltk_nb.views.widget import VIEWS

    stable = is_static()
    compared = stable or host.current().saves_output
    if task is None and set(VIEWS) <= set(views):
        return _bundle(html.render(snapshot, stable=stable), text.plain(snapshot, stable=compared))
    return _bundle(
        render_views(snapshot, views, task=task, stable=stable),
        plain_views(snapshot, views, task=task, stable=compared),
    )


def _bundle(html: str, text: str) -> dict[str, Any]:
    return {"text/html": html, "text/plain": text}
