"""What can be read of a scheduler: true, bounded, and told to observers when it changes."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from amltk_nb import Plugin, Scheduler
from amltk_nb.errors import CallNotFoundError, MissingExtraError
from amltk_nb.scheduling import reading
from amltk_nb.scheduling.states import CallState
from tests.scheduling.conftest import ByHand, settled

COLUMNS = [
    "id",
    "task",
    "function",
    "args",
    "state",
    "submitted",
    "started",
    "ended",
    "seconds",
    "worker",
    "attempt",
    "resubmitted_from",
    "error",
]


def f(x: int = 0, *, y: Any = None) -> int:
    return x


def test_before_the_first_run():
    snapshot = Scheduler.with_threads(2, name="mine").snapshot()
    assert (snapshot.name, snapshot.run.state, snapshot.run.n) == ("mine", "idle", 0)
    assert (snapshot.run.started_at, snapshot.run.code) == (None, None)
    assert snapshot.counts == dict.fromkeys(CallState, 0)
    assert (snapshot.calls, snapshot.tasks, snapshot.n_calls_hidden) == ((), (), 0)
    assert (snapshot.backend.name, snapshot.backend.n_workers) == ("ThreadExecutor", 2)
    assert [event.name for event in snapshot.events] == [
        "on_start",
        "on_finishing",
        "on_finished",
        "on_stop",
        "on_timeout",
        "on_empty",
        "on_future_submitted",
        "on_future_done",
        "on_future_cancelled",
        "on_future_exception",
        "on_future_result",
    ]


async def test_a_run_under_way(by_hand: ByHand):
    task = by_hand.scheduler.task(f)
    run = by_hand.start()
    by_hand.clock.advance(5)
    done, failed, waiting = task.submit(1), task.submit(2, y="b"), task.submit(3)
    by_hand.clock.advance(1)
    by_hand.backend.finish(done, 1, seconds=0.25, started_at=1005.5)
    by_hand.backend.fail(failed, ValueError("bad\nvery"))
    await settled()
    snapshot = by_hand.scheduler.snapshot()
    assert (snapshot.run.started_at, snapshot.run.elapsed_s, snapshot.now) == (1000, 6, 1006)
    assert {str(k): n for k, n in snapshot.counts.items()} == {
        "queued": 0,
        "running": 1,
        "done": 1,
        "failed": 1,
        "cancelled": 0,
    }
    running, bad, good = snapshot.calls  # running ones, then failures, then the others
    assert (running.id, running.state, running.started_at) == (3, "running", 1006)
    assert (running.worker, running.ended_at) == ("worker-1", None)
    assert (bad.id, bad.error, bad.args, bad.ended_at) == (2, "ValueError: bad", "2, y='b'", 1006)
    assert (good.id, good.seconds, good.started_at) == (1, 0.25, 1005.5)
    (record,) = snapshot.tasks
    assert (record.ref, record.signature) == ("Task-f-1", "f(x: int = 0, *, y: Any = None) -> int")
    assert record.counts == snapshot.counts
    assert [w.state for w in snapshot.workers] == ["busy", "idle"]
    by_hand.scheduler.stop()
    by_hand.clock.advance(2)
    assert by_hand.scheduler.snapshot().run.stopping_since == 1006
    by_hand.backend.finish(waiting)
    await run
    ended = by_hand.scheduler.snapshot().run
    assert (ended.state, ended.code, ended.elapsed_s) == ("finished", "stopped", 8)
    assert (ended.reason, ended.stopping_since) == ("stop() was called", None)
    by_hand.clock.advance(100)
    assert by_hand.scheduler.snapshot().run.elapsed_s == 8


async def test_it_shows_a_bounded_choice_of_calls(make_by_hand: Callable[..., ByHand]):
    by_hand = make_by_hand(1, history=1_000)
    by_hand.start()
    for n in range(500):
        future = by_hand.scheduler.submit(f, n)
        if n == 3:
            by_hand.backend.fail(future, ValueError())
        else:
            by_hand.backend.finish(future)
        await settled()
    by_hand.scheduler.map(f, range(400))
    snapshot = by_hand.scheduler.snapshot()
    ids = [call.id for call in snapshot.calls]
    assert len(ids) == len(set(ids)) == 300
    assert ids == [501, *range(502, 652), 4, *range(500, 352, -1)]
    assert snapshot.n_calls_hidden == 600
    assert len(by_hand.scheduler.snapshot(max_calls=7).calls) == 7
    assert [c.id for c in by_hand.scheduler.calls(limit=2)] == [900, 899]
    assert [c.id for c in by_hand.scheduler.calls("failed")] == [4]
    assert [c.id for c in by_hand.scheduler.calls("done", before=6, limit=3)] == [5, 3, 2]


async def test_a_crowd_of_running_calls_leaves_room_for_the_others(
    make_by_hand: Callable[..., ByHand],
):
    by_hand = make_by_hand(400)
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(1_000))
    await settled()
    for future in futures[:150]:
        by_hand.backend.finish(future)
    await settled()
    states = Counter(str(call.state) for call in by_hand.scheduler.snapshot().calls)
    assert states == {"running": 150, "queued": 75, "done": 75}
    everything = by_hand.scheduler.snapshot(max_calls=10_000)
    assert Counter(str(call.state) for call in everything.calls) == {
        "running": 400, "queued": 450, "done": 150
    }  # fmt: skip


async def test_a_call_that_left_the_history_is_not_found(make_by_hand: Callable[..., ByHand]):
    by_hand = make_by_hand(1, history=1)
    by_hand.start()
    first = by_hand.scheduler.submit(f)
    assert by_hand.scheduler.find_call(1) is first.call
    by_hand.backend.finish(first)
    by_hand.backend.finish(by_hand.scheduler.submit(f))
    await settled()
    assert by_hand.scheduler.find_call(2).state is CallState.DONE
    for id in (1, 99):
        with pytest.raises(CallNotFoundError, match=f"No call {id} is known.*history="):
            by_hand.scheduler.find_call(id)
    assert by_hand.scheduler.snapshot().counts[CallState.DONE] == 2


async def test_an_ended_call_lets_go_of_its_result(by_hand: ByHand):
    by_hand.start()
    future = by_hand.scheduler.submit(f)
    call = future.call
    by_hand.backend.finish(future, [1, 2, 3])
    await settled()
    assert (call.future, call.payload, call.result_text) == (None, None, "[1, 2, 3]")
    assert future.result() == [1, 2, 3]


def test_a_snapshot_is_frozen_and_does_not_change():
    scheduler = Scheduler.with_threads(1)
    snapshot = scheduler.snapshot()
    with pytest.raises(AttributeError):
        snapshot.name = "other"  # type: ignore[misc]
    scheduler.log("me", "info", "later")
    assert snapshot.log == ()


async def test_counts_of_callbacks_and_events(by_hand: ByHand):
    @by_hand.scheduler.on_future_result(max_calls=1)
    def note(result: int) -> None: ...

    @by_hand.scheduler.on_future_result
    def broken() -> None:
        raise ValueError

    by_hand.start()
    for _ in range(2):
        by_hand.backend.finish(by_hand.scheduler.submit(f))
        await settled()
    events = {event.name: event for event in by_hand.scheduler.snapshot().events}
    recorder, first, second = events["on_future_result"].callbacks
    assert (events["on_future_result"].count, recorder.hidden) == (2, True)
    assert (first.text, first.n_calls) == ("def note(result: int) -> None", 1)
    assert (second.name, second.n_calls, second.n_errors) == ("broken", 2, 2)
    assert by_hand.scheduler.event_counts["on_future_result"] == 2
    assert by_hand.scheduler.event_counts[Scheduler.FUTURE_RESULT] == 2
    assert by_hand.scheduler.on_future_result.event_counts == 2


async def test_a_plugin_whose_state_fails_is_shown_so(by_hand: ByHand):
    class Odd(Plugin):
        name = "odd"

        def state(self) -> Any:
            raise RuntimeError("no state")

    by_hand.scheduler.task(f, plugins=Odd())
    (plugin,) = by_hand.scheduler.snapshot().tasks[0].plugins
    assert plugin.state == {"state() failed": "RuntimeError: no state"}


def test_its_repr_is_one_honest_line():
    scheduler = Scheduler.with_threads(2)
    assert repr(scheduler) == "<Scheduler 'scheduler': idle, ThreadExecutor(2), no calls>"
    scheduler.on_start(lambda: scheduler.map(f, range(3)))
    scheduler.run()
    assert repr(scheduler) == "<Scheduler 'scheduler': finished, ThreadExecutor(2), 3 done>"


async def test_snapshots_from_other_threads_while_calls_end(by_hand: ByHand):
    by_hand.start()
    over, seen, wrong = threading.Event(), [0], list[Any]()

    def look() -> None:
        while not over.is_set():
            snapshot = by_hand.scheduler.snapshot()
            seen[0] += 1
            for call in snapshot.calls:
                if (call.ended_at is not None) != (call.state in ("done", "failed")):
                    wrong.append(call)

    thread = threading.Thread(target=look)
    thread.start()
    for n in range(300):
        future = by_hand.scheduler.submit(f, n)
        if n % 2:
            by_hand.backend.finish(future, n)
        else:
            by_hand.backend.fail(future, ValueError(n))
        await settled()
    over.set()
    thread.join()
    assert wrong == []
    assert seen[0] > 0
    final = by_hand.scheduler.snapshot()
    assert all(call.error == f"ValueError: {call.id - 1}" for call in final.calls if call.id % 2)


# ------------------------------------------------------------ records


async def test_records_have_plain_values(by_hand: ByHand):
    task = by_hand.scheduler.task(f)
    by_hand.start()
    future = task.submit(1)
    by_hand.clock.advance(3)
    by_hand.backend.finish(future, seconds=0.5)
    await settled()
    (row,) = by_hand.scheduler.records()
    assert list(row) == COLUMNS
    assert (row["id"], row["task"], row["function"], row["args"]) == (1, "Task-f-1", "f", "1")
    assert row["submitted"] == datetime.fromtimestamp(1000, tz=UTC)
    assert row["ended"] == datetime.fromtimestamp(1003, tz=UTC)
    assert (row["state"], row["seconds"], row["error"]) == ("done", 0.5, None)
    assert {type(value) for value in row.values()} <= {int, str, float, datetime, type(None)}


async def test_records_as_a_frame(by_hand: ByHand):
    pytest.importorskip("pandas")
    by_hand.start()
    for n in range(3):
        by_hand.backend.finish(by_hand.scheduler.submit(f, n))
    await settled()
    frame = by_hand.scheduler.to_frame()
    assert list(frame.columns) == COLUMNS
    assert list(frame["args"]) == ["0", "1", "2"]
    assert str(frame["submitted"].dtype).endswith("UTC]")


def test_an_empty_frame_has_its_columns():
    pytest.importorskip("pandas")
    frame = Scheduler.with_threads(1).to_frame()
    assert (len(frame), list(frame.columns)) == (0, COLUMNS)


def test_a_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amltk-nb\[pandas\]'.*records\(\)"):
        Scheduler.with_threads(1).to_frame()


# ------------------------------------------------------------ observers and versions


class Watcher:
    def __init__(self, error: Exception | None = None) -> None:
        self.n_told = 0
        self.error = error

    def changed(self) -> None:
        self.n_told += 1
        if self.error is not None:
            raise self.error


async def test_an_observer_is_told_once_until_somebody_looks(by_hand: ByHand):
    watcher = Watcher()
    by_hand.scheduler.observe(watcher)
    by_hand.start()
    by_hand.backend.finish(by_hand.scheduler.submit(f))
    await settled()
    assert watcher.n_told == 1
    version = by_hand.scheduler.snapshot().version
    by_hand.scheduler.log("me", "info", "one")
    by_hand.scheduler.log("me", "info", "two")
    assert watcher.n_told == 2
    assert by_hand.scheduler.snapshot().version > version
    by_hand.scheduler.unobserve(watcher)
    by_hand.scheduler.log("me", "info", "three")
    assert watcher.n_told == 2


async def test_a_look_at_one_task_counts_as_a_look(by_hand: ByHand):
    task, watcher = by_hand.scheduler.task(divmod), Watcher()
    by_hand.scheduler.observe(watcher)
    reading.task_snapshot(by_hand.scheduler, task.ref)
    for n in range(1, 4):
        by_hand.scheduler.touch()
        assert watcher.n_told == n
        reading.task_snapshot(by_hand.scheduler, task.ref)


async def test_an_observer_that_raises_is_dropped_and_the_run_goes_on(by_hand: ByHand):
    bad, good = Watcher(ValueError("no")), Watcher()
    by_hand.scheduler.observe(bad)
    by_hand.scheduler.observe(good)
    run = by_hand.start(end_on_empty=True, on_exception="raise")
    by_hand.scheduler.snapshot()
    by_hand.backend.finish(by_hand.scheduler.submit(f))
    await run
    assert bad.n_told == 1
    assert good.n_told == 2
    assert "a view failed and was dropped" in by_hand.scheduler.snapshot().log[0].text


@pytest.mark.parametrize("verb", ["pause", "resume", "submit", "cancel", "end", "task", "stop"])
async def test_the_version_grows_with_whatever_can_be_seen(by_hand: ByHand, verb: str):
    by_hand.start()
    by_hand.scheduler.map(f, range(3))
    if verb == "resume":
        by_hand.scheduler.pause()
    before = by_hand.scheduler.snapshot().version
    {
        "pause": by_hand.scheduler.pause,
        "resume": by_hand.scheduler.resume,
        "submit": lambda: by_hand.scheduler.submit(f),
        "cancel": by_hand.scheduler.cancel_pending,
        "end": lambda: by_hand.backend.finish(by_hand.backend.calls[0]),
        "task": lambda: by_hand.scheduler.task(f),
        "stop": by_hand.scheduler.stop,
    }[verb]()
    if verb in ("end", "cancel"):
        await settled()
    assert by_hand.scheduler.snapshot().version > before


async def test_the_version_never_goes_back(by_hand: ByHand):
    versions = []
    for _ in range(3):
        run = by_hand.start(end_on_empty=True)
        by_hand.backend.finish(by_hand.scheduler.submit(f))
        versions.append(by_hand.scheduler.snapshot().version)
        await run
        versions.append(by_hand.scheduler.snapshot().version)
    assert versions == sorted(set(versions))
