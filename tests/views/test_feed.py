"""What is sent to the pages and when, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from amltk_nb.scheduling.snapshot import EventRecord, LogRecord, RunRecord, TaskRecord
from amltk_nb.scheduling.states import CallState, RunState
from amltk_nb.views.feed import Feed
from amltk_nb.views.fitting import n_bytes
from amltk_nb.views.model import apply, to_model
from tests.views.standin import StandInScheduler, call_record


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
    assert page.messages[-1] == {"kind": "beat", "version": 1, "at": 1e9 + 5}
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
    assert len(with_rows) == 25  # 100 rows are some 12 kB: each holds the next back for 0.4 s
    page.run_for(2)
    assert page.model() == to_model(page.scheduler.shown)


def lines(first: int, n: int, text: str = "x" * 1_000) -> tuple[LogRecord, ...]:
    ids = range(first, first + n)
    return tuple(LogRecord(id=i, at=0.0, source="s", level="info", text=text) for i in ids)


def test_of_a_flood_of_the_log_the_latest_lines_are_sent(page: Page) -> None:
    page.feed.hello()
    page.step()
    first = 0

    def flood() -> None:
        nonlocal first
        first += 300
        page.show(log=lines(first, 300))

    page.run_for(10, flood)
    patches = [m for m in page.messages if m["kind"] == "patch"]
    assert max(n_bytes(m) for m in patches) < 12_000
    for message in patches:
        sent = sorted(map(int, message["patch"]["log"]["upsert"]))
        newest = 300 * (1 + sent[0] // 300) - 1
        assert sent == list(range(newest - len(sent) + 1, newest + 1))
    page.run_for(15)
    assert page.model() == to_model(page.scheduler.shown), "what was left out comes when it is calm"


def test_rows_and_lines_leave_each_other_room(page: Page) -> None:
    page.feed.hello()
    page.step()
    calls = [call_record(i, CallState.RUNNING, args="y" * 240) for i in range(100, 200)]
    page.show(log=lines(0, 300), calls=tuple(calls))
    page.run_for(0.2)
    patch = page.messages[-1]["patch"]
    assert len(patch["log"]["upsert"]) == 9
    assert len(patch["calls"]["upsert"]) == 60
    assert n_bytes(patch) < 31_000
    page.run_for(15)
    assert page.model() == to_model(page.scheduler.shown)


def test_what_is_longer_than_may_be_sent_at_once_is_sent_alone(page: Page) -> None:
    page.feed.hello()
    page.step()
    page.show(log=lines(0, 3, "💥" * 4_000))  # 16 kB each
    page.run_for(5)
    sent = [list(m["patch"]["log"]["upsert"]) for m in page.messages if m["kind"] == "patch"]
    assert sent == [["2"], ["1"], ["0"]]


def test_events_of_many_tasks_are_held_back(page: Page) -> None:
    page.feed.hello()
    page.step()
    n = 0

    def flood() -> None:
        nonlocal n
        n += 1
        tasks = [
            TaskRecord(
                ref=f"Task-{i}", function="f", signature="f(x: int) -> int",
                events=tuple(EventRecord(name=f"on_{k}", count=n) for k in range(6)),
            )
            for i in range(30)
        ]  # fmt: skip
        done = page.scheduler.shown.counts | {CallState.DONE: n}
        page.show(tasks=tuple(tasks), counts=done)

    kinds = page.run_for(20, flood)
    assert kinds == ["patch"] * 100  # the counts go on
    with_events = [m for m in page.messages[1:] if "events" in m["patch"]]
    assert sum(n_bytes(m) for m in page.messages[1:]) < 20 * 12_000
    assert len(with_events) == 11  # some 14 kB hold the next ones back for 1.8 s


def test_the_end_is_everything_once_more_and_then_silence(page: Page) -> None:
    page.feed.hello()
    page.step()
    page.feed.end(at=1e9, frozen={"model_id": "x", "bundle": {}})
    assert page.messages[-1]["kind"] == "final"
    assert page.messages[-1]["frozen"] == {"model_id": "x", "bundle": {}}
    assert page.messages[-1]["model"] == to_model(page.scheduler.shown)
    assert page.run_for(5, count_up(page)) == []


def test_a_page_that_comes_after_the_end_gets_the_end(page: Page) -> None:
    page.feed.end(at=1e9)
    assert page.messages == []
    page.feed.hello()
    assert page.step() == ["final"]
    assert page.run_for(5, count_up(page)) == []
