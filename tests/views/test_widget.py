"""The dashboard's kernel side: what is sent and when, and on which thread things are done."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from dataclasses import replace
from typing import Any

import comm
import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling.call import Call
from amltk_nb.views import widget
from amltk_nb.views.model import SCHEMA
from amltk_nb.views.source import GONE
from amltk_nb.views.widget import N_FROZEN, PANEL, VIEWS, Dashboard, _keep_to_the_pages_subshell
from tests.views.standin import RecordingComm, StandInScheduler


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> list[RecordingComm]:
    made: list[RecordingComm] = []

    def create(*args: Any, **keys: Any) -> RecordingComm:
        line = RecordingComm(*args, **keys)
        if keys["data"]["state"]["_model_name"] == "AnyModel":  # the layout has one as well
            made.append(line)
        return line

    monkeypatch.setattr(comm, "create_comm", create)
    return made


class BaseComm74(RecordingComm):
    """Chooses the shell of a message by itself, as ipykernel 7.4 does."""

    def _reply_subshell_for(self, data: Any, default: Any) -> Any:
        return "the main shell"


def double(n: int) -> int:
    return n + n


async def until(line: RecordingComm, kind: str, n: int = 1) -> list[dict[str, Any]]:
    """Return the messages of a kind as soon as there are n; the loop goes on meanwhile."""

    def wait() -> None:
        with line.arrived:
            assert line.arrived.wait_for(lambda: len(line.custom(kind)) >= n, timeout=20)

    await asyncio.to_thread(wait)
    return line.custom(kind)


@pytest.mark.may_block  # ipywidgets reads the bundle's files when the first one is made
async def test_a_page_that_says_hello_gets_all_and_then_every_change(
    comms: list[RecordingComm],
) -> None:
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    line = comms[0]
    scheduler.show(name="nobody listens")
    assert line.custom("full") == line.custom("patch") == []
    line.click("snapshot", id=9)
    [full] = await until(line, "full")
    assert full["model"]["run"]["run"]["name"] == "nobody listens"
    [reply] = await until(line, "reply")
    assert (reply["id"], reply["ok"]) == (9, True)
    scheduler.show(name="heard")
    [patch] = await until(line, "patch")
    assert patch["patch"]["run"]["upsert"]["run"]["name"] == "heard"
    await until(line, "beat")
    dashboard.close()
    assert len(line.custom("final")) == 1
    assert scheduler.observers == []


@pytest.mark.may_block
async def test_stop_acts_on_the_handlers_thread_and_start_on_the_loops(
    comms: list[RecordingComm],
) -> None:
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    line = comms[0]

    def handler() -> int:
        for name in ("stop", "start", "pause"):
            line.click(name)
        return threading.get_ident()

    thread = threading.get_ident()
    with_loop_blocked: list[tuple[Any, ...]] = []
    worker = threading.Thread(target=lambda: with_loop_blocked.append((handler(),)))
    worker.start()
    worker.join()  # blocks the loop, as a cell would
    assert [asked[0] for asked in scheduler.asked] == ["stop", "pause"]
    assert len(line.custom("reply")) == 2
    await until(line, "reply", 3)
    assert [asked[0] for asked in scheduler.asked] == ["stop", "pause", "start"]
    other = with_loop_blocked[0][0]
    assert scheduler.threads == [other, other, thread]
    dashboard.close()


@pytest.mark.may_block
async def test_changes_on_many_threads_are_sent_from_the_loops(comms: list[RecordingComm]) -> None:
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    line = comms[0]
    line.click("snapshot")
    await until(line, "full")

    def change() -> None:
        for n in range(200):
            scheduler.shown = replace(scheduler.shown, name=f"name {n}")
            dashboard.changed()

    await asyncio.gather(*(asyncio.to_thread(change) for _ in range(4)))
    scheduler.show(name="last")
    while line.custom("patch")[-1:] == [] or "last" not in str(line.custom("patch")[-1]):
        await until(line, "patch", len(line.custom("patch")) + 1)
    assert set(line.threads) == {threading.get_ident()}
    dashboard.close()


@pytest.mark.may_block
async def test_a_snapshot_that_fails_is_tried_again(
    comms: list[RecordingComm], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    line = comms[0]
    works = scheduler.snapshot

    def fails() -> Any:
        scheduler.snapshot = works  # type: ignore[method-assign]
        dashboard._feed._snapshot = works
        raise ZeroDivisionError("once")

    dashboard._feed._snapshot = fails
    line.click("snapshot")
    await until(line, "reply")
    assert "trying again" in caplog.text
    scheduler.show(name="works")
    dashboard.close()


@pytest.mark.may_block
async def test_what_cannot_be_asked_for_is_offered_until_a_page_is_heard(
    comms: list[RecordingComm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widget, "OFFER_S", 0.001)
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    line = comms[0]
    asked: list[bool] = []
    late = [False, True]

    def may_be_late() -> bool:
        asked.append(late[0])
        return late.pop(0) if len(late) > 1 else late[0]

    dashboard.offer(may_be_late)
    await until(line, "full", 2)
    assert asked[0] is False, "nobody can be waiting between cells"
    line.click("snapshot", id=1)
    await until(line, "reply")
    n_asked = len(asked)
    for _ in range(5):  # turns of the loop, behind an offer that was due
        await asyncio.sleep(0.002)
    assert len(asked) == n_asked
    dashboard.close()


def test_without_a_loop_a_hello_is_answered_at_once(comms: list[RecordingComm]) -> None:
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    comms[0].click("snapshot")
    assert len(comms[0].custom("full")) == 1
    dashboard.close()


def test_a_page_of_another_version_gets_no_model_but_what_to_do(
    comms: list[RecordingComm],
) -> None:
    scheduler = StandInScheduler()
    Dashboard(scheduler)
    for schema, old in ((SCHEMA - 1, "reload the page."), (SCHEMA + 1, "restart the kernel.")):
        comms[0].click("snapshot", schema=schema)
        reply = comms[0].custom("reply")[-1]
        assert not reply["ok"]
        assert reply["error"].endswith(old)
    assert comms[0].custom("full") == []
    comms[0].click("snapshot", schema=SCHEMA, theme="of a later page")
    assert comms[0].custom("reply")[-1]["ok"]
    assert len(comms[0].custom("full")) == 1


def test_garbage_from_the_page_is_refused(comms: list[RecordingComm]) -> None:
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    data = {"method": "custom", "content": ["rm", "-rf"]}
    comms[0].handle_msg({"content": {"data": data}, "buffers": []})
    [reply] = comms[0].custom("reply")
    assert reply["ok"] is False
    assert scheduler.asked == []
    dashboard.close()


def test_its_text_is_the_same_in_every_run(comms: list[RecordingComm]) -> None:
    dashboard = Dashboard(StandInScheduler())
    assert repr(dashboard) == "Dashboard('demo')"
    first, _ = dashboard._repr_mimebundle_()
    second, _ = Dashboard(StandInScheduler())._repr_mimebundle_()
    assert first["text/plain"] == second["text/plain"]
    assert set(first) == {
        "application/vnd.jupyter.widget-view+json",
        "text/html",
        "text/plain",
    }


class Handle:
    """A display handle that keeps what it was updated with."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def update(self, bundle: dict[str, Any], *, raw: bool) -> None:
        assert raw
        self.shown.append(bundle)


def test_freezing_replaces_each_display_and_still_answers_reloaded_pages(
    comms: list[RecordingComm],
) -> None:
    scheduler = StandInScheduler(Call(3, len, ("abc",), {}))
    dashboard = Dashboard(scheduler)
    handle = Handle()
    dashboard._handles.append(handle)
    dashboard.freeze()
    assert [set(bundle) for bundle in handle.shown] == [{"text/html", "text/plain"}]
    assert scheduler.observers == []
    comms[0].click("snapshot")
    [final] = comms[0].custom("final")
    # What such a page is to put in place of the widget: it knows no display id.
    assert final["frozen"] == {"model_id": dashboard.model_id, "bundle": handle.shown[0]}
    comms[0].click("detail", call=3)
    assert comms[0].custom("reply")[-1]["value"]["arguments"] == [{"name": "obj", "text": "'abc'"}]


def test_only_the_latest_frozen_ones_keep_their_connection(comms: list[RecordingComm]) -> None:
    dashboards = [Dashboard(StandInScheduler()) for _ in range(N_FROZEN + 1)]
    for dashboard in dashboards:
        dashboard.freeze()
    assert [d.comm is None for d in dashboards] == [True] + [False] * N_FROZEN


def test_static_mode_shows_no_widget(
    comms: list[RecordingComm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMLTK_NB_STATIC", "1")
    bundle, _ = Dashboard(StandInScheduler())._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}


def test_the_views_are_checked_and_sent(comms: list[RecordingComm]) -> None:
    assert Dashboard(StandInScheduler(), views=("queue",)).views == ["queue"]
    assert Dashboard(StandInScheduler()).views == list(VIEWS)
    state = comms[0].messages[0][1]["state"]
    assert state["views"] == ["queue"]
    assert len(state["_esm"]) > 1_000
    assert len(state["_css"]) > 1_000
    with pytest.raises(ValueError, match=r"views must be some of header, .*got \['tail'\]"):
        Dashboard(StandInScheduler(), views=["tail"])
    with pytest.raises(ValueError, match="views must be some of"):
        Dashboard(StandInScheduler(), views=[])


@pytest.mark.may_block
async def test_a_dropped_scheduler_is_let_go_and_told_of(comms: list[RecordingComm]) -> None:
    scheduler = StandInScheduler()
    dashboard = Dashboard(scheduler)
    line = comms[0]
    line.click("snapshot")
    await until(line, "full")
    dead = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert dead() is None
    [final] = await until(line, "final")
    assert final["model"]["run"]["run"]["name"] == "demo"  # as it was seen last
    assert final["model"]["run"]["run"]["cannot_start"] == GONE
    line.click("stop", id=2)
    reply = line.custom("reply")[-1]
    assert (reply["id"], reply["ok"], reply["error"]) == (2, False, GONE)
    assert dashboard.ended
    dashboard.freeze()  # which must not fail either
    dashboard.close()


def test_a_page_that_comes_after_its_scheduler_is_told(comms: list[RecordingComm]) -> None:
    dashboard = Dashboard(StandInScheduler())  # and there is no loop to send anything from
    gc.collect()
    comms[0].click("snapshot")
    [final] = comms[0].custom("final")
    assert final["model"]["run"]["run"]["cannot_start"] == GONE
    assert comms[0].custom("reply")[-1]["ok"]
    dashboard.close()


def test_what_a_view_does_not_show_does_not_travel(comms: list[RecordingComm]) -> None:
    scheduler = StandInScheduler()
    models = {}
    for n, view in enumerate(VIEWS):
        dashboard = Dashboard(scheduler, views=[view])
        comms[n].click("snapshot")
        models[view] = comms[n].custom("full")[-1]["model"]
        dashboard.close()
    for name in ("events", "plugins", "log"):
        assert [view for view, model in models.items() if model[name]] == [name]
    assert all(model["calls"] and model["counts"] for model in models.values())


def test_the_panel_of_a_task_reaches_only_its_calls(comms: list[RecordingComm]) -> None:
    scheduler = Scheduler.with_sequential(name="two")
    one, other = scheduler.task(double, name="one"), scheduler.task(double, name="other")
    held = scheduler.on_start(lambda: [one.submit(1), other.submit(2), other.submit(None)])
    assert held is not None
    scheduler.run(on_exception="continue", display=False)
    dashboard = other.panel()
    assert repr(dashboard) == "Dashboard('two', task='Task-other-1')"
    assert (dashboard.views, dashboard.task) == (list(PANEL), "Task-other-1")
    comms[0].click("snapshot")
    model = comms[0].custom("full")[0]["model"]
    assert sorted(model["calls"]) == ["2", "3"]
    assert list(model["tasks"]) == ["Task-other-1"]
    assert {event["emitter"] for event in model["events"].values()} == {"Task-other-1"}
    comms[0].click("rows", id=2)
    assert [row["id"] for row in comms[0].custom("reply")[-1]["value"]["rows"]] == [3, 2]
    scheduler.tasks.remove(other)
    comms[0].click("rows", id=3)
    error = comms[0].custom("reply")[-1]["error"]
    assert error == "Task-other-1 is no task of the scheduler any more."
    dashboard.close()


def test_every_view_has_a_method_and_two_of_them_a_second_use(comms: list[RecordingComm]) -> None:
    scheduler = Scheduler.with_sequential()
    names = ("controls", "progress", "events", "queue", "timeline", "plugins", "log")
    made = [getattr(scheduler, name)() for name in names]
    assert [dashboard.views for dashboard in made] == [[name] for name in names]
    assert scheduler.queue == {}
    assert not scheduler.queue
    scheduler.log("here", "info", "a line")
    assert [record.text for record in scheduler.snapshot().log] == ["a line"]
    with pytest.raises(TypeError, match="nothing, and shows the log, or all of source, level and"):
        scheduler.log("here")  # type: ignore[call-overload]
    for dashboard in made:
        dashboard.close()


def test_the_pages_choice_of_subshell_is_kept(comms: list[RecordingComm]) -> None:
    dashboard = Dashboard(StandInScheduler())
    assert not hasattr(comms[0], "_reply_subshell_for")  # nothing is added to other kernels' comms
    line = dashboard.comm = BaseComm74()
    _keep_to_the_pages_subshell(line)
    assert line._reply_subshell_for({}, "the page's own") == "the page's own"
