"""The dashboard's kernel side: what is sent and when, and on which thread things are done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comm
import pytest

from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.snapshot import LogRecord, RunRecord
from amltk_nb.scheduling.states import CallState, RunState
from amltk_nb.views.model import apply, to_model
from amltk_nb.views.widget import N_FROZEN, VIEWS, Dashboard, Feed, _keep_to_the_pages_subshell
from tests.views.standin import RecordingComm, StandInScheduler, call_record


class Page:
    """The pages' side of a feed: keeps what came and computes the model from it."""

    def __init__(self) -> None:
        self.scheduler = StandInScheduler()
        self.messages: list[dict[str, Any]] = []
        self.feed = Feed(self.scheduler.snapshot, self.messages.append)
        self.now = 0.0
        self.due: float | None = None

    def step(self) -> list[str]:
        n = len(self.messages)
        delay = self.feed.step(self.now, 1e9 + self.now)
        self.due = None if delay is None else self.now + delay
        return [message["kind"] for message in self.messages[n:]]

    def show(self, **fields: Any) -> None:
        self.scheduler.show(**fields)
        self.feed.mark()

    def run_for(self, seconds: float, each: Callable[[], None] = lambda: None) -> list[str]:
        """Step when due, and after each tenth of a second in which `each` changed something."""
        kinds: list[str] = []
        for _ in range(round(seconds * 10)):
            self.now = round(self.now + 0.1, 3)
            each()
            kinds += self.step()
        return kinds

    def model(self) -> Any:
        model: Any = None
        for message in self.messages:
            if message["kind"] in ("full", "final"):
                model = message["model"]
            elif message["kind"] == "patch":
                assert message["base"] == message["version"] - 1
                model = apply(message["patch"], model)
        return model


@pytest.fixture
def page() -> Page:
    return Page()


def count_up(page: Page) -> Callable[[], None]:
    def change() -> None:
        n = page.scheduler.shown.counts[CallState.DONE] + 1
        page.show(counts=page.scheduler.shown.counts | {CallState.DONE: n})

    return change


def test_nothing_is_sent_or_computed_while_nobody_listens(page: Page) -> None:
    assert page.feed.mark() is False
    assert page.run_for(5, count_up(page)) == []
    assert page.scheduler.n_snapshots == 0


def test_hello_is_answered_by_everything(page: Page) -> None:
    page.feed.hello()
    assert page.step() == ["full"]
    message = page.messages[0]
    assert (message["schema"], message["version"], message["at"]) == (1, 1, 1e9)
    assert message["model"] == to_model(page.scheduler.shown)


def test_at_most_five_patches_a_second_and_none_lost(page: Page) -> None:
    page.feed.hello()
    page.step()
    kinds = page.run_for(10, count_up(page))
    assert kinds == ["patch"] * 50
    page.run_for(1)
    assert page.model() == to_model(page.scheduler.shown)
    assert page.model()["counts"]["done"] == {"n": 102}


def test_a_live_run_beats_once_a_second_and_an_idle_one_is_silent(page: Page) -> None:
    page.feed.hello()
    page.step()
    assert page.run_for(5) == ["beat"] * 5
    page.show(run=RunRecord(state=RunState.FINISHED, n=1))
    assert page.run_for(5) == ["patch"]
    assert page.due is None


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.PAUSED, RunState.STOPPING])
def test_every_live_state_beats(page: Page, state: RunState) -> None:
    page.scheduler.shown = replace(page.scheduler.shown, run=RunRecord(state=state, n=1))
    page.feed.hello()
    page.step()
    assert page.due == 1.0


def test_marks_that_change_nothing_cost_one_look_a_second_after_a_minute(page: Page) -> None:
    page.feed.hello()
    page.step()
    page.run_for(61, page.feed.mark)
    looks = page.scheduler.n_snapshots
    page.run_for(10, page.feed.mark)
    assert page.scheduler.n_snapshots - looks == 10


def test_only_the_first_mark_since_a_look_asks_for_one(page: Page) -> None:
    page.feed.hello()
    page.step()
    assert [page.feed.mark(), page.feed.mark()] == [True, False]


def test_a_flood_of_rows_is_held_back_but_never_for_longer_than_a_second(page: Page) -> None:
    page.feed.hello()
    page.step()
    first = 10

    def flood() -> None:
        nonlocal first
        first += 100
        done = page.scheduler.shown.counts[CallState.DONE] + 100
        page.show(
            calls=tuple(call_record(i, seconds=0.001) for i in range(first, first + 100)),
            counts=page.scheduler.shown.counts | {CallState.DONE: done},
        )

    kinds = page.run_for(10, flood)
    assert kinds == ["patch"] * 50
    with_rows = [m for m in page.messages if m["kind"] == "patch" and "calls" in m["patch"]]
    assert len(with_rows) == 25  # 100 rows are some 20 kB: each holds the next back for 0.4 s
    page.run_for(2)
    assert page.model() == to_model(page.scheduler.shown)


def test_a_flood_of_the_log_is_held_back_for_a_second(page: Page) -> None:
    page.feed.hello()
    page.step()
    first = 0

    def flood() -> None:
        nonlocal first
        first += 300
        page.show(
            log=tuple(
                LogRecord(id=i, at=0.0, source="s", level="info", text="x" * 1_000)
                for i in range(first, first + 300)
            )
        )

    page.run_for(10, flood)
    patches = [m for m in page.messages if m["kind"] == "patch"]
    assert len(patches) == 10


def test_the_end_is_everything_once_more_and_then_silence(page: Page) -> None:
    page.feed.hello()
    page.step()
    page.feed.end(at=1e9)
    assert page.messages[-1]["kind"] == "final"
    assert page.messages[-1]["model"] == to_model(page.scheduler.shown)
    assert page.run_for(5, count_up(page)) == []


def test_a_page_that_comes_after_the_end_gets_the_end(page: Page) -> None:
    page.feed.end(at=1e9)
    assert page.messages == []
    page.feed.hello()
    assert page.step() == ["final"]
    assert page.run_for(5, count_up(page)) == []


# --- the widget over a comm


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


def test_without_a_loop_a_hello_is_answered_at_once(comms: list[RecordingComm]) -> None:
    dashboard = Dashboard(StandInScheduler())
    comms[0].click("snapshot")
    assert len(comms[0].custom("full")) == 1
    dashboard.close()


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
    assert len(comms[0].custom("final")) == 1
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


def test_the_pages_choice_of_subshell_is_kept(comms: list[RecordingComm]) -> None:
    dashboard = Dashboard(StandInScheduler())
    assert not hasattr(comms[0], "_reply_subshell_for")  # nothing is added to other kernels' comms
    line = dashboard.comm = BaseComm74()
    _keep_to_the_pages_subshell(line)
    assert line._reply_subshell_for({}, "the page's own") == "the page's own"
