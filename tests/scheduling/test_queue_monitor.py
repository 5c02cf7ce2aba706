"""The queue monitor: every change in one row, true workers, a bounded table, plots for any page."""

from __future__ import annotations

import asyncio
import gc
import io
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from amltk_nb import ExitCode, QueueMonitor, Scheduler
from amltk_nb.errors import MissingExtraError
from amltk_nb.scheduling import queue_monitor
from amltk_nb.testing import FakeClock, ManualBackend
from tests.scheduling.conftest import ByHand, settled

COLUMNS = ["queued", "running", "busy", "idle", "finished", "failed", "cancelled"]


def f(x: int = 0) -> int:
    return x


def fails(x: int = 0) -> int:
    raise ValueError(x)


def rows(monitor: QueueMonitor) -> list[tuple[float, ...]]:
    """What was recorded: (seconds after 1000, queued, running, busy, idle, finished, failed, c.)"""
    frame = monitor.df()
    seconds = [at.timestamp() - 1_000 for at in frame.index]
    return [(s, *map(int, row)) for s, row in zip(seconds, frame.to_numpy(), strict=True)]


@pytest.fixture(autouse=True)
def figures_are_closed() -> Iterator[None]:
    mpl.use("Agg")
    yield
    plt.close("all")


# ---------------------------------------------------------------- what is recorded


async def test_every_change_is_a_row(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    assert len(monitor) == 0
    run = by_hand.start(end_on_empty=True)
    by_hand.clock.advance(1)
    futures = by_hand.scheduler.map(f, range(3))
    by_hand.clock.advance(1)
    by_hand.backend.finish(futures[0])
    await settled()
    by_hand.clock.advance(1)
    by_hand.backend.fail(futures[1], ValueError())
    await settled()
    by_hand.clock.advance(1)
    futures[2].cancel()
    await run
    assert rows(monitor) == [
        # s, queued, running, busy, idle, finished, failed, cancelled
        (0, 0, 0, 0, 2, 0, 0, 0),
        (1, 0, 1, 1, 1, 0, 0, 0),
        (1, 0, 2, 2, 0, 0, 0, 0),
        (1, 1, 2, 2, 0, 0, 0, 0),
        (2, 0, 3, 2, 0, 0, 0, 0),  # the next one runs before the end of the first is announced
        (2, 0, 2, 2, 0, 1, 0, 0),
        (3, 0, 2, 1, 1, 1, 0, 0),
        (3, 0, 1, 1, 1, 1, 1, 0),
        (4, 0, 1, 0, 2, 1, 1, 0),
        (4, 0, 0, 0, 2, 1, 1, 1),
        (4, 0, 0, 0, 0, 1, 1, 1),  # after the run there are no workers
    ]


async def test_what_starts_without_an_event_is_recorded(by_hand: ByHand):
    by_hand.start()
    by_hand.scheduler.pause()
    future = by_hand.scheduler.submit(f)
    monitor = QueueMonitor(by_hand.scheduler)
    by_hand.clock.advance(5)
    by_hand.scheduler.resume()
    by_hand.clock.advance(5)
    by_hand.backend.give_back(future)  # its worker died; the call goes to another one
    by_hand.scheduler.pause()
    by_hand.backend.give_back(future)
    assert [row[:5] for row in rows(monitor)] == [
        (0, 1, 0, 0, 2),
        (5, 0, 1, 1, 1),
        (10, 1, 0, 0, 2),
    ]


async def test_changes_are_recorded_when_they_happen_though_the_loop_is_held_up(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(4))
    n = len(monitor)
    for future in futures[:3]:  # and no turn of the loop between them
        by_hand.clock.advance(1)
        by_hand.backend.finish(future)
    assert [row[:6] for row in rows(monitor)[n:]] == [
        (1, 1, 3, 2, 0, 0),
        (2, 0, 4, 2, 0, 0),
        (3, 0, 4, 1, 1, 0),
    ]
    await settled()
    assert rows(monitor)[-1] == (3, 0, 1, 1, 1, 3, 0, 0)


async def test_a_submission_of_another_thread_is_recorded_at_once(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    by_hand.start()
    thread = threading.Thread(target=by_hand.scheduler.submit, args=(f,))
    thread.start()
    thread.join()  # the loop has not turned
    assert rows(monitor)[-1][:5] == (0, 0, 1, 1, 1)


async def test_calls_that_travel_together_keep_one_worker_busy(
    make_by_hand: Callable[..., ByHand],
):
    hand = make_by_hand(2, batches=True)
    hand.start()
    (first,) = hand.scheduler.map(f, range(1))
    hand.backend.finish(first, seconds=0.0001)
    await settled()
    hand.scheduler.pause()
    hand.scheduler.map(f, range(20))
    monitor = QueueMonitor(hand.scheduler)
    hand.scheduler.resume()
    queued, running, busy, idle = rows(monitor)[-1][1:5]
    assert [len(batch) for batch in hand.backend.started] == [1, 4, 3]
    assert (queued, running, busy, idle) == (13, 7, 2, 0)


async def test_a_monitor_made_during_a_run_begins_with_how_it_stands(by_hand: ByHand):
    by_hand.start()
    futures = by_hand.scheduler.map(f, range(3))
    by_hand.backend.finish(futures[0])
    await settled()
    assert rows(QueueMonitor(by_hand.scheduler)) == [(0, 0, 2, 2, 0, 1, 0, 0)]


def test_the_table_begins_with_the_first_run():
    scheduler = Scheduler.with_threads(2)
    monitor = QueueMonitor(scheduler)
    scheduler.task(f)  # a change, and none of the queue
    assert len(monitor) == 0
    scheduler.run()
    assert monitor.df()["idle"].tolist() == [2, 0]


async def test_it_goes_on_over_several_runs(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    for n in range(3):
        run = by_hand.start(end_on_empty=True)
        by_hand.backend.finish(by_hand.scheduler.submit(f))
        await run
        assert rows(monitor)[-1] == (10 * n, 0, 0, 0, 0, n + 1, 0, 0)
        by_hand.clock.advance(10)
    frame = monitor.df()
    assert (frame["idle"] == 2).sum() == 9  # before the call, and before and after it is announced
    assert frame["finished"].is_monotonic_increasing


@pytest.mark.parametrize("kind", ["processes", "threads", "sequential", "executor"])
def test_the_workers_of_each_backend(kind: str):
    n_workers = {"sequential": 1}.get(kind, 3)
    with ThreadPoolExecutor(3) as pool:
        made: dict[str, Callable[[], Scheduler]] = {
            "processes": lambda: Scheduler.with_processes(3),
            "threads": lambda: Scheduler.with_threads(3),
            "sequential": Scheduler.with_sequential,
            "executor": lambda: Scheduler(pool),
        }
        scheduler = made[kind]()
        monitor = QueueMonitor(scheduler)
        scheduler.on_start(lambda: (scheduler.map(f, range(20)), scheduler.map(fails, range(5))))
        assert scheduler.run(on_exception="continue") == ExitCode.EXHAUSTED
    frame = monitor.df()
    assert frame.iloc[0].tolist() == [0, 0, 0, n_workers, 0, 0, 0]
    assert frame.iloc[-1].tolist() == [0, 0, 0, 0, 20, 5, 0]
    assert frame["busy"].max() == n_workers
    assert (frame["busy"] + frame["idle"]).max() == n_workers
    assert (frame["busy"] <= frame["running"]).all()
    assert frame.index.is_monotonic_increasing


async def test_stopping_at_once_leaves_no_worker_and_no_call(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    by_hand.start()
    by_hand.scheduler.map(f, range(5))
    by_hand.scheduler.stop(wait=False)
    await by_hand.scheduler.last_run
    assert rows(monitor)[-1] == (0, 0, 0, 0, 0, 0, 0, 5)


# ---------------------------------------------------------------- on and off


async def test_a_detached_monitor_keeps_what_it_has(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    by_hand.start()
    assert monitor.attached
    monitor.detach()
    monitor.detach()
    assert not monitor.attached
    by_hand.scheduler.submit(f)
    assert rows(monitor) == [(0, 0, 0, 0, 2, 0, 0, 0)]


async def test_a_monitor_that_nobody_keeps_costs_nothing_more(by_hand: ByHand):
    monitors = [QueueMonitor(by_hand.scheduler) for _ in range(3)]  # as a cell run three times
    by_hand.start()
    assert [len(monitor) for monitor in monitors] == [1, 1, 1]
    del monitors[:2]
    gc.collect()
    assert len(by_hand.scheduler._watchers) == 1
    by_hand.scheduler.submit(f)
    assert [len(monitor) for monitor in monitors] == [2]


async def test_a_watcher_that_raises_is_dropped_and_the_run_goes_on(by_hand: ByHand):
    asked: list[int] = []

    def watcher() -> None:
        asked.append(1)
        raise OSError("no ink")

    by_hand.scheduler.watch(watcher)
    run = by_hand.start(end_on_empty=True)
    assert await run == ExitCode.EXHAUSTED
    assert asked == [1]
    (entry,) = by_hand.scheduler.snapshot().log
    assert (entry.level, entry.text) == (
        "error",
        "a watcher failed and was dropped: OSError('no ink')",
    )


def test_it_says_how_it_stands_wherever_it_is_shown():
    scheduler = Scheduler(ManualBackend(), name="[/]search")
    monitor = QueueMonitor(scheduler)
    assert repr(monitor).startswith("<QueueMonitor of '[/]search': 0 rows; 0 queued, 0 running")
    scheduler.add_renderable(monitor)
    scheduler.run(end_on_empty=True)
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(scheduler)
    assert (
        "<QueueMonitor of '[/]search': 2 rows; 0 queued, 0 running, 0 busy, 0 idle, 0 finished, "
        "0 failed, 0 cancelled>"
    ) in console.export_text().replace("\n", " ")


@pytest.mark.parametrize("max_rows", [1, 0, -3, 2.5, True, "10"])
def test_a_table_of_nothing_is_refused(max_rows: Any):
    with pytest.raises(ValueError, match=r"max_rows=.*at least 2"):
        QueueMonitor(Scheduler.with_sequential(), max_rows=max_rows)


def test_something_else_than_a_scheduler_is_refused():
    with pytest.raises(TypeError, match="pass the Scheduler"):
        QueueMonitor(ThreadPoolExecutor)  # type: ignore[arg-type]


# ---------------------------------------------------------------- a table that stays small


class Stage:
    """A run on one worker whose clock and calls are moved by hand, and two monitors of it."""

    def __init__(self, max_rows: int) -> None:
        self.clock = FakeClock(1_000.0)
        self.backend = ManualBackend(1)
        self.scheduler = Scheduler(self.backend, clock=self.clock)
        self.whole = QueueMonitor(self.scheduler, max_rows=1_000_000)
        self.small = QueueMonitor(self.scheduler, max_rows=max_rows)

    async def go(self, steps: list[tuple[str, float]]) -> None:
        run = self.scheduler.start()
        for what, seconds in steps:
            self.clock.advance(seconds)
            if what == "submit":
                self.scheduler.submit(f)
            elif self.backend.calls:
                self.backend.finish(self.backend.calls[0])
                await settled()
        self.scheduler.stop(wait=False)
        await run


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "finish"]),
        st.sampled_from([0.0, 0.0001, 0.003, 0.2, 40.0]) | st.floats(0, 10),
    ),
    max_size=60,
)


@given(STEPS, st.integers(2, 12))
@settings(max_examples=60)
def test_a_thinned_table_is_the_whole_one_seen_at_the_end_of_each_step(
    steps: list[tuple[str, float]], max_rows: int
):
    stage = Stage(max_rows)
    asyncio.run(stage.go(steps))
    whole, small = unrounded(stage.whole), unrounded(stage.small)
    resolution_s = stage.small.resolution_s
    assert len(small) <= max_rows
    assert small[-1] == whole[-1]
    if resolution_s:
        assert small == list({row[0] // resolution_s: row for row in whole}.values())
    else:
        assert small == whole


def unrounded(monitor: QueueMonitor) -> list[tuple[float, ...]]:
    """The rows as they were recorded, seconds since the epoch first."""
    times, counts = monitor._columns()
    return list(zip(times, *counts.values(), strict=True))


async def test_a_worker_that_is_busy_nine_tenths_of_the_time_stays_so_when_thinned():
    stage, rng = Stage(400), random.Random(1)
    durations_s = [(what, s * rng.uniform(0.5, 1.5)) for _ in range(1_500) for what, s in TURNS]
    await stage.go(durations_s)
    assert (len(stage.whole), len(stage.small)) == (4_502, 184)
    assert busy_share(stage.whole) == pytest.approx(0.9, abs=0.01)
    assert busy_share(stage.small) == pytest.approx(0.9, abs=0.04)


TURNS = (("submit", 0.1), ("finish", 0.9))  # changes come in turns: every second row shows idle


def busy_share(monitor: QueueMonitor) -> float:
    frame = monitor.df()
    held_s = frame.index.to_series().diff().shift(-1).dt.total_seconds().iloc[:-1]
    return float((frame["busy"].iloc[:-1] * held_s).sum() / held_s.sum())


def test_a_flood_of_calls_fills_no_memory():
    scheduler = Scheduler.with_processes(2)
    monitor = QueueMonitor(scheduler, max_rows=200)
    sizes: list[int] = []

    @scheduler.on_start
    @scheduler.on_future_result(every=1_000)
    def more() -> None:
        sizes.append(monitor._table.itemsize * len(monitor._table))
        if len(sizes) <= 5:
            scheduler.map(f, range(1_000))

    assert scheduler.run() == ExitCode.EXHAUSTED
    assert len(sizes) == 6
    assert max(sizes) <= 200 * 64
    assert monitor.df().iloc[-1].tolist() == [0, 0, 0, 0, 5_000, 0, 0]


async def test_reading_while_other_threads_record(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler, max_rows=16)
    run = by_hand.start()
    barrier, frames = threading.Barrier(4), list[pd.DataFrame]()

    def submit() -> None:
        barrier.wait()
        for _ in range(50):
            by_hand.scheduler.submit(f)
            frames.append(monitor.df())

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_hand.scheduler.stop(wait=False)
    await run
    assert len(frames) == 200
    assert max(len(frame) for frame in frames) < 16
    assert rows(monitor)[-1] == (0, 0, 0, 0, 0, 0, 0, 200)


# ---------------------------------------------------------------- as a frame, as a picture


def test_the_frame_of_nothing_has_its_columns():
    frame = QueueMonitor(Scheduler.with_sequential()).df()
    assert list(frame.columns) == COLUMNS
    assert (len(frame), frame.index.name, str(frame.index.tz)) == (0, "time", "UTC")
    assert {str(dtype) for dtype in frame.dtypes} == {"int64"}


async def test_the_frame_is_indexed_by_the_time_of_the_change(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    by_hand.start()
    by_hand.clock.advance(0.25)
    by_hand.scheduler.submit(f)
    frame = monitor.df()
    assert frame.index.name == "time"
    assert frame.index[1] == pd.Timestamp(1_000.25, unit="s", tz="UTC")
    assert {str(dtype) for dtype in frame.dtypes} == {"int64"}


def heights(ax: Any, at: float) -> list[float]:
    """How high the drawn areas are, one on the other, just after a moment."""
    found = []
    for area in ax.collections:
        points = area.get_paths()[0].vertices
        near = points[(points[:, 0] == points[points[:, 0] <= at][:, 0].max())]
        found.append(float(near[:, 1].max()))
    return found


@pytest.mark.may_block  # matplotlib looks for its fonts
@pytest.mark.parametrize(
    ("by", "labels", "stacked"),
    [
        ("calls", ["running", "queued"], [2, 5]),
        ("workers", ["busy", "idle"], [2, 2]),
        ("ended", ["finished", "failed", "cancelled"], [0, 0, 0]),
    ],
)
async def test_areas_are_stacked(by_hand: ByHand, by: Any, labels: list[str], stacked: list[int]):
    monitor = QueueMonitor(by_hand.scheduler)
    by_hand.start()
    by_hand.clock.advance(1)
    by_hand.scheduler.map(f, range(5))
    by_hand.clock.advance(7)
    ax = monitor.plot(by=by)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == labels
    assert heights(ax, 8) == stacked  # a running one is drawn until now
    assert ax.get_ylabel() == ("workers" if by == "workers" else "calls")
    assert ax.get_xlabel() == "seconds"
    assert ax.get_ylim()[0] == 0


@pytest.mark.may_block  # matplotlib looks for its fonts
async def test_a_picture_of_what_is_over_ends_with_it(by_hand: ByHand):
    monitor = QueueMonitor(by_hand.scheduler)
    run = by_hand.start(end_on_empty=True)
    by_hand.clock.advance(1)
    future = by_hand.scheduler.submit(f)
    by_hand.clock.advance(1)
    by_hand.backend.finish(future)
    await run
    by_hand.clock.advance(100)
    _, ax = plt.subplots()
    assert monitor.plot(ax) is ax
    xs = np.concatenate([area.get_paths()[0].vertices[:, 0] for area in ax.collections])
    assert (xs.min(), xs.max()) == (0, 2)


def test_a_picture_of_nothing_can_be_drawn():
    ax = QueueMonitor(Scheduler.with_sequential()).plot()
    ax.figure.canvas.draw()
    assert len(ax.get_legend().get_texts()) == 2


def test_an_unknown_picture_is_refused():
    monitor = QueueMonitor(Scheduler.with_sequential())
    with pytest.raises(ValueError, match="by='tasks': use one of 'calls', 'workers', 'ended'"):
        monitor.plot(by="tasks")  # type: ignore[arg-type]
    assert plt.get_fignums() == []


def contrast(colour: str, page: str) -> float:
    """The contrast of WCAG 2, as 21 for black on white."""

    def luminance(text: str) -> float:
        channels = np.array(mpl.colors.to_rgb(text))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(colour), luminance(page)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("page", ["white", "black"])
def test_every_area_can_be_seen_on_light_and_dark_pages(name: str, page: str):
    assert contrast(queue_monitor._COLOURS[name], page) >= 3


@pytest.mark.parametrize("by", queue_monitor._STACKS)
def test_areas_of_one_picture_have_colours_of_their_own(by: str):
    colours = [queue_monitor._COLOURS[name] for name in queue_monitor._STACKS[by]]
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_all_else_has_the_colours_of_the_users_style(style: str):
    with plt.style.context(style):
        ax = QueueMonitor(Scheduler.with_sequential()).plot()
        texts = [*ax.get_legend().get_texts(), ax.xaxis.label, ax.yaxis.label]
        wanted = {"default": "black", "dark_background": "white"}[style]
        assert {mpl.colors.to_hex(text.get_color()) for text in texts} == {
            mpl.colors.to_hex(wanted)
        }
        assert mpl.colors.to_hex(ax.get_facecolor()) != mpl.colors.to_hex(wanted)


@pytest.mark.parametrize(("verb", "library"), [("df", "pandas"), ("plot", "matplotlib")])
def test_a_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, verb: str, library: str
):
    monitor = QueueMonitor(Scheduler.with_sequential())
    for name in [n for n in sys.modules if n.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{verb}\(\) needs {library}.*amltk-nb\[plot\]"):
        getattr(monitor, verb)()
