"""Views alone and single things, static: exact forms, harmless, the same in equal runs."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from amltk_nb import Scheduler, Task
from amltk_nb.scheduling import reading
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import ManualBackend
from amltk_nb.views import alone, objects
from amltk_nb.views.bundle import static_bundle, views_bundle
from amltk_nb.views.style import LINE_STYLE, ROOT_CLASS, STYLE
from tests.scheduling.conftest import settled
from tests.views.snapshots import ALONE, GOLDEN, expected_outputs, running
from tests.views.test_html import ALLOWED, Node, attribute_values, parse
from tests.views.test_text import retimed

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\x1b[31mred", "\ud800"]


class Odd(str):
    """Shown by its own text, as a user's class may be."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def double(n: Any) -> Any:
    return 2 * n


# --- views


@pytest.mark.parametrize("file_name", [f"alone.{f}.{e}" for f in ("full", "stable") for e in ("txt", "html")])  # fmt: skip # noqa: E501
def test_golden(file_name: str) -> None:
    assert expected_outputs()[file_name] == (GOLDEN / file_name).read_text("utf-8")


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("name", sorted(ALONE))
def test_only_known_harmless_elements(name: str, stable: bool) -> None:
    snapshot, views, task = ALONE[name]
    check_harmless(alone.render_views(snapshot, views, task=task, stable=stable), style=STYLE)


def check_harmless(fragment: str, *, style: str) -> Node:
    assert fragment.count("<style>") == (1 if style else 0)
    root = parse(fragment)
    (outer,) = root.children
    assert isinstance(outer, Node)
    assert outer.attributes["class"] == f"{ROOT_CLASS} mathjax_ignore tex2jax_ignore"
    odd = [(n.tag, set(n.attributes) - ALLOWED.get(n.tag, {"?"})) for n in root.all()]
    assert [entry for entry in odd if entry[0] not in ALLOWED or entry[1]] == []
    assert [v for n in root.all() for v in attribute_values(n) if "alert" in v] == []
    return root


@pytest.mark.parametrize("name", sorted(ALONE))
def test_the_stable_form_does_not_depend_on_timing(name: str) -> None:
    snapshot, views, task = ALONE[name]
    other = retimed(snapshot, Random(7))
    for draw in (alone.render_views, alone.plain_views):
        texts = [draw(s, views, task=task, stable=True) for s in (snapshot, other)]
        assert texts[0] == texts[1]


def test_all_views_together_are_the_whole() -> None:
    from amltk_nb.views import html
    from amltk_nb.views.widget import VIEWS

    assert views_bundle(running(), VIEWS, None)["text/html"] == html.render(running())
    assert views_bundle(running(), VIEWS[1:], None)["text/html"] != html.render(running())


# --- one task


async def test_a_task_alone_has_its_own_calls_and_counts() -> None:
    scheduler = Scheduler(ManualBackend())
    one, other = scheduler.task(double), scheduler.task(double, name="other")
    scheduler.start(display=False)
    for n in range(400):
        (one if n % 8 == 0 else other).submit(n)
    await settled()
    shot = reading.task_snapshot(scheduler, one.ref)
    assert {call.task for call in shot.calls} == {one.ref}
    assert (len(shot.calls), shot.n_calls_hidden) == (50, 0)
    assert (shot.counts[CallState.RUNNING], shot.counts[CallState.QUEUED]) == (1, 49)
    assert [task.ref for task in shot.tasks] == [one.ref]
    rows = reading.calls(scheduler, None, before=100, limit=3, task=one)
    assert [row.id for row in rows] == [97, 89, 81]
    assert reading.task_snapshot(scheduler, "Task-nobody-1").calls == ()
    scheduler.stop(wait=False)


# --- single things


async def started() -> tuple[Scheduler, Task[[Any], Any], ManualBackend]:
    backend = ManualBackend()
    scheduler = Scheduler(backend, name="seeds")
    task = scheduler.task(double)
    scheduler.start(display=False)
    return scheduler, task, backend


async def test_what_a_future_says_from_first_to_last() -> None:
    scheduler, task, backend = await started()
    first, second, third = task.map([1, 2, Odd("x" * 500)])
    await settled()
    words = [str(objects.future_text(future)) for future in (first, third)]
    assert words[0] == "Future of call 1, double(1): running"
    assert re.fullmatch(r"Future of call 3, double\(x+….*\): queued", words[1])
    assert str(objects.future_text(first, stable=True)) == "Future of call 1, double(1): under way"
    backend.finish(first, 2)
    backend.fail(second, ValueError("no <b>two</b>"))
    await settled()
    assert str(objects.future_text(first, stable=True)) == "Future of call 1, double(1): done: 2"
    failed = objects.render_future(second, stable=True)
    assert "failed" in check_harmless(failed, style=LINE_STYLE).text
    assert "ValueError: no <b>two</b>" in check_harmless(failed, style=LINE_STYLE).text
    third.cancel()
    await settled()
    assert str(objects.future_text(third, stable=True)).endswith("): cancelled")
    assert repr(first) == "<Future of call 1, double: done>"
    scheduler.stop(wait=False)


async def test_what_a_batch_says_from_first_to_last() -> None:
    scheduler, task, backend = await started()
    batch = task.batch([(1,), (2,), (3,)])
    assert str(objects.batch_text(batch.record())) == (
        "Batch of double(n: Any) -> Any: 3 calls, not submitted"
    )
    futures = batch.submit()
    await settled()
    text = str(objects.batch_text(batch.record()))
    assert text == "Batch of double(n: Any) -> Any: 3 calls, submitted: 1 queued  2 running"
    stable = str(objects.batch_text(batch.record(), stable=True))
    assert stable == "Batch of double(n: Any) -> Any: 3 calls, submitted"
    for future in futures:
        backend.finish(future, 0)
        await settled()
    text = str(objects.batch_text(batch.record(), stable=True))
    assert text == "Batch of double(n: Any) -> Any: 3 calls, done: 3 done"
    root = check_harmless(objects.render_batch(batch.record()), style=LINE_STYLE)
    (bar,) = [node for node in root.all() if node.attributes.get("role") == "progressbar"]
    assert bar.attributes["aria-valuetext"] == "3 of 3 calls ended"
    scheduler.stop(wait=False)


async def test_a_batch_that_was_refused_says_how_many() -> None:
    scheduler, task, _ = await started()
    batch = replace(task.batch([(1,)]).record(), n_refused=2, state="cancelled")
    assert str(objects.batch_text(batch)).endswith("1 call, cancelled, 2 refused")
    assert "2 refused" in objects.render_batch(batch)
    scheduler.stop(wait=False)


async def test_what_a_run_says_from_first_to_last() -> None:
    scheduler, _, _ = await started()
    run = scheduler.last_run
    assert run is not None
    assert str(objects.run_text(run)) == "Run of 'seeds': running"
    assert static_bundle(run)["text/plain"] == "<Run of 'seeds': running>"
    scheduler.stop(stop_msg="enough")
    await run
    assert str(objects.run_text(run)) == "Run of 'seeds': finished (stopped): enough"
    assert "took" in objects.render_run(run)
    assert "took" not in objects.render_run(run, stable=True)
    scheduler.start(display=False)  # another run of the same scheduler
    assert str(objects.run_text(run)) == "Run of 'seeds': finished (stopped): enough"
    scheduler.stop(wait=False)


@pytest.mark.parametrize("styled", [True, False])
@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_texts_are_texts(text: str, styled: bool) -> None:
    backend = ManualBackend()
    scheduler = Scheduler(backend, name=text)
    task = scheduler.task(double)
    run = scheduler.start(display=False)
    good, bad = task.submit(Odd(text)), task.submit(Odd(text))
    backend.finish(good, Odd(text))
    backend.fail(bad, ValueError(text))
    await settled()
    style = LINE_STYLE if styled else ""
    for thing in (good, bad, run):
        bundle = static_bundle(thing, styled=styled)
        root = check_harmless(bundle["text/html"], style=style)
        assert [n.tag for n in root.all() if n.tag in ("script", "img")] == []
        bundle["text/html"].encode()
        bundle["text/plain"].encode()
        assert "\x1b" not in bundle["text/html"] + bundle["text/plain"]
    scheduler.stop(wait=False)
    await run
