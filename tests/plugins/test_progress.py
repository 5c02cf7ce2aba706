"""Reports of running calls: by hand and by tqdm, on every kind of worker, in every view."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from math import nan
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Progress, ResourceLimits, Scheduler, WarningFilter, report
from amltk_nb.errors import PluginError, WorkerDiedError
from amltk_nb.scheduling import reporting
from amltk_nb.scheduling.functions import ship_function
from amltk_nb.scheduling.plugins.retry import Retry
from amltk_nb.scheduling.snapshot import CallRecord, ProgressRecord
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import FakeClock
from amltk_nb.views.html import render as as_html
from amltk_nb.views.model import call_record
from amltk_nb.views.text import plain
from amltk_nb.views.words import progress_text
from tests.plugins import talkers
from tests.plugins.contract import LONG_S, PluginContract
from tests.views.snapshots import running

KINDS = ("forkserver", "spawn", "threads", "pool", "sequential")

# Sequential calls run on the loop, and a pool of the user's starts its processes there.
pytestmark = pytest.mark.may_block


class TestProgress(PluginContract):
    def make(self) -> Progress:
        return Progress()


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """An executor of a user's, for all tests: its workers take long to start."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        yield executor
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # it would live as long as we do


@pytest.fixture(params=KINDS)
async def scheduler(request: pytest.FixtureRequest) -> AsyncIterator[Scheduler]:
    makers: dict[str, Callable[[], Scheduler]] = {
        "threads": lambda: Scheduler.with_threads(2),
        "sequential": Scheduler.with_sequential,
        "pool": lambda: Scheduler(request.getfixturevalue("pool")),
    }
    kind = request.param
    scheduler = makers[kind]() if kind in makers else Scheduler.with_processes(2, mp_context=kind)
    yield scheduler
    if scheduler.running():
        scheduler.stop(wait=False)
        await scheduler.last_run.over()


def kinds(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scheduler", names, indirect=True)


one_of_each = kinds("forkserver", "threads")


def reporting_task(scheduler: Scheduler, fn: Callable[..., Any]) -> tuple[Any, list[Any]]:
    """Make a task whose calls report, and a list that gets (call id, record) of each report."""
    task = scheduler.task(fn, plugins=Progress())
    told: list[Any] = []
    task.on("on_progress", lambda future, progress: told.append((future.call.id, progress)))
    return task, told


async def ended(future: Any) -> Any:
    return await asyncio.wait_for(future, LONG_S)


# --- reports


async def test_the_last_report_always_comes_and_comes_before_the_end(scheduler: Scheduler):
    task, told = reporting_task(scheduler, talkers.count_up)
    at_end: list[Any] = []
    task.on_result(lambda future, _: at_end.append(future.call.progress))
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit(1_000 * n, loss=0.5) for n in (1, 2)]
    assert await asyncio.wait_for(scheduler.gather(futures), LONG_S) == [1_000, 2_000]
    assert await run == ExitCode.EXHAUSTED
    last = [ProgressRecord(n=n, total=n, metrics={"loss": 0.5}) for n in (1_000, 2_000)]
    assert [future.call.progress for future in futures] == last
    assert sorted(at_end, key=lambda progress: progress.n) == last
    for future in futures:
        ns = [progress.n for call_id, progress in told if call_id == future.call.id]
        assert (ns[0], ns[-1]) == (1, future.result())
        assert ns == sorted(set(ns))
    assert [
        call.progress for call in sorted(scheduler.snapshot().calls, key=lambda c: c.id)
    ] == last
    assert dict(task.plugins[0].state()) == {"Progress": "3000/3000", "Reporting": 0}
    assert task.event_counts["on_progress"] == len(told)


def test_at_most_ten_a_second_are_sent(monkeypatch: pytest.MonkeyPatch):
    clock = FakeClock(100.0)
    monkeypatch.setattr(reporting, "monotonic", clock)
    scheduler = Scheduler.with_threads(1)

    def count_by_the_clock() -> None:
        for n in range(100):  # four reports in each tenth of a second
            report(n)
            clock.advance(0.025)

    task, told = reporting_task(scheduler, count_by_the_clock)
    scheduler.on_start(task.submit)
    assert scheduler.run() == ExitCode.EXHAUSTED
    assert [progress.n for _, progress in told] == [*range(0, 100, 4), 99]


async def test_ten_thousand_reports_cost_little(scheduler: Scheduler):
    task, told = reporting_task(scheduler, talkers.time_reports)
    run = scheduler.start(end_on_empty=True)
    with_reports_s, without_s = await ended(task.submit(10_000))
    await run
    cost_us = (with_reports_s - without_s) / 10_000 * 1e6
    print(f"{cost_us:.2f} µs per report")
    assert cost_us < 50  # some 0.4 where nothing else runs
    assert told[-1][1].n == 10_000
    assert len(told) <= 3 + 10 * with_reports_s


def test_elsewhere_a_report_does_nothing():
    assert report(1, total=2, loss=3) is None
    assert report("nobody looks at it") is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "told"),
    [(("a",), r"report\(n='a'\): use a number"), ((1, "b"), r"report\(total='b'\)")],
)
async def test_a_report_of_no_number(args: Any, told: str):
    scheduler = Scheduler.with_threads(1)
    task, reports = reporting_task(scheduler, talkers.report_once)
    run = scheduler.start(end_on_empty=True)
    with pytest.raises(TypeError, match=told):
        await ended(task.submit(*args))
    await run
    assert reports == []


class Odd:
    def __str__(self) -> str:
        raise ValueError("no text")


async def test_metrics_become_plain_values():
    import numpy as np

    scheduler = Scheduler.with_processes(1)
    task, told = reporting_task(scheduler, talkers.report_once)
    run = scheduler.start(end_on_empty=True)
    metrics = {
        "loss": np.float32(0.5),
        "step": np.int64(3),
        "best": True,
        "what": "x" * 500,
        "where": Path("/tmp"),
        "odd": Odd(),
        "none": None,
    }
    await ended(task.submit(np.int32(3), np.float64(4.5), **metrics))
    await run
    ((_, progress),) = told
    assert (progress.n, progress.total) == (3, 4.5)
    assert {name: type(value) for name, value in progress.metrics.items()} == {
        "loss": float,
        "step": float,
        "best": bool,
        "what": str,
        "where": str,
        "odd": str,
        "none": type(None),
    }
    assert progress.metrics["what"] == "x" * 199 + "…"
    assert progress.metrics["odd"] == "<Odd whose str() raised ValueError>"


async def test_reports_wait_for_a_blocked_loop_and_calls_do_not():
    scheduler = Scheduler.with_threads(1)
    has_ended = threading.Event()

    def count_and_say() -> None:
        talkers.count_up(5_000)

    task, told = reporting_task(scheduler, count_and_say)
    last = scheduler.task(has_ended.set)
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit() for _ in range(20)]
    last.submit()
    assert has_ended.wait(LONG_S)  # on the loop's thread, as a cell that computes for long
    assert told == []
    await run
    assert [future.call.progress.n for future in futures] == [5_000] * 20


@kinds("forkserver", "spawn")
async def test_a_worker_that_dies_leaves_what_it_said(scheduler: Scheduler):
    task, told = reporting_task(scheduler, talkers.report_and_die)
    run = scheduler.start(end_on_empty=True)
    future = task.submit(4)
    with pytest.raises(WorkerDiedError, match="exit code 3"):
        await ended(future)
    await run
    assert future.call.progress == ProgressRecord(n=4, total=10)
    assert [progress.n for _, progress in told] == [4]
    assert task.plugins[0].state()["Progress"] == "4/10"


@one_of_each
async def test_an_attempt_begins_anew(scheduler: Scheduler, tmp_path: Path):
    path = str(tmp_path / "was here")
    plugins = [Progress(), Retry(max_attempts=2)]
    task = scheduler.task(talkers.report_and_fail, plugins=plugins)
    run = scheduler.start(end_on_empty=True)
    assert await ended(task.submit(path)) == "the second time"
    await run
    calls = sorted(scheduler.snapshot().calls, key=lambda call: call.id)
    assert [call.state for call in calls] == [CallState.FAILED, CallState.DONE]
    assert [call.progress for call in calls] == [ProgressRecord(n=7, total=10), None]
    assert task.plugins[0].state()["Progress"] == "0/0"


async def test_the_state_is_over_all_calls_and_shows_what_goes_on():
    scheduler = Scheduler.with_threads(2)
    plugin = Progress()
    goes_on = threading.Event()

    def work(n: int, total: int | None, loss: float) -> None:
        report(n, total, loss=loss)
        assert goes_on.wait(LONG_S)

    task = scheduler.task(work, plugins=plugin)
    states: list[dict[str, Any]] = []
    task.on("on_progress", lambda: states.append(dict(plugin.state())))
    task.on("on_progress", lambda: goes_on.set() if len(states) == 2 else None)
    run = scheduler.start(end_on_empty=True)
    task.submit(3, 10, 0.25)
    first = asyncio.get_running_loop().create_future()
    task.on("on_progress", lambda: first.done() or first.set_result(None))
    await ended(first)
    task.submit(2, None, 0.123456)
    await run
    assert states == [
        {"Progress": "3/10", "Reporting": 1, "Latest": "loss=0.25"},
        {"Progress": "5/12", "Reporting": 2, "Latest": "loss=0.1235"},
    ]
    assert dict(plugin.state()) == {"Progress": "5/12", "Reporting": 0}


async def test_the_function_travels_once_and_the_task_shows_nothing_of_it():
    assert ship_function(reporting.Reported(talkers.count_up)).key == (
        ship_function(reporting.Reported(talkers.count_up)).key
    )
    scheduler = Scheduler.with_threads(1)
    task, _ = reporting_task(scheduler, talkers.count_up)
    seen: list[Any] = []
    task.on_submitted(lambda future, *args, **kwargs: seen.append((args, kwargs)))
    run = scheduler.start(end_on_empty=True)
    task.submit(3, loss=1)
    await run
    assert seen == [((3,), {"loss": 1})]


def test_two_of_them_on_a_task():
    scheduler = Scheduler.with_threads(1)
    with pytest.raises(PluginError, match="report to another progress plugin already"):
        scheduler.task(talkers.count_up, plugins=[Progress(), Progress()])


# --- tqdm


async def test_a_tqdm_loop_reports_by_itself(scheduler: Scheduler):
    task, told = reporting_task(scheduler, talkers.count_with_tqdm)
    later = scheduler.task(talkers.count_with_tqdm_later, plugins=Progress())
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit(50), later.submit(20)]
    assert await asyncio.wait_for(scheduler.gather(futures), LONG_S) == [50, 20]
    await run
    assert [future.call.progress for future in futures] == [
        ProgressRecord(n=50, total=50, metrics={"loss": "1.0"}),
        ProgressRecord(n=20, total=20, metrics={"loss": "0.9"}),
    ]
    assert told[0][1] == ProgressRecord(n=0, total=50)


@one_of_each
@pytest.mark.parametrize("comes_first", [True, False])
async def test_calls_within_limits_report_from_their_own_process(
    scheduler: Scheduler, comes_first: bool
):
    limits = ResourceLimits(wall_time=60)
    around = WarningFilter("ignore")
    plugins = [Progress(), around, limits] if comes_first else [limits, around, Progress()]
    count = scheduler.task(talkers.count_up, plugins=plugins)
    run = scheduler.start(end_on_empty=True)
    future = count.submit(300)
    assert await ended(future) == 300
    await run
    assert future.call.progress == ProgressRecord(n=300, total=300)


async def test_a_bar_leaves_one_line_in_the_output():
    scheduler = Scheduler.with_processes(1)
    task, _ = reporting_task(scheduler, talkers.count_with_tqdm)
    run = scheduler.start(end_on_empty=True)
    future = task.submit(50)
    await run
    assert future.call.output.count("\r") == 1
    assert "50/50" in future.call.output


@one_of_each
async def test_the_outermost_bar_counts(scheduler: Scheduler):
    task, told = reporting_task(scheduler, talkers.nested_bars)
    run = scheduler.start(end_on_empty=True)
    assert await ended(task.submit(3)) == "both"
    await run
    totals = [progress.total for _, progress in told]
    assert totals[0] == 3
    assert set(totals) <= {3, 5}
    assert told[-1][1] == ProgressRecord(n=5, total=5)


async def test_other_bars_of_the_process_are_left_alone_and_all_is_put_back():
    from tqdm import std

    before = std.tqdm.refresh, std.tqdm.close
    scheduler = Scheduler.with_threads(1)
    is_held, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        is_held.set()
        assert goes_on.wait(LONG_S)

    task, told = reporting_task(scheduler, hold)
    run = scheduler.start(end_on_empty=True)
    task.submit()
    assert await asyncio.to_thread(is_held.wait, LONG_S)
    assert (std.tqdm.refresh, std.tqdm.close) != before
    file = io.StringIO()
    for _ in std.tqdm(range(3), file=file, mininterval=0):
        pass
    goes_on.set()
    await run
    assert file.getvalue().count("\r") == 5  # the empty one, three steps and the end
    assert told == []
    assert (std.tqdm.refresh, std.tqdm.close) == before
    assert reporting._bars not in sys.meta_path


def test_nothing_is_patched_or_loaded_on_import():
    code = "import sys; n = len(sys.meta_path); from amltk_nb import report; report(1); "
    code += "print(len(sys.meta_path) - n, 'tqdm' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["0", "False"]


# --- views


@pytest.mark.parametrize(
    ("record", "fraction", "text"),
    [
        (ProgressRecord(n=37, total=100, metrics={"loss": 0.12345}), 0.37, "37/100, loss=0.1235"),
        (ProgressRecord(n=1_500), None, "1500"),
        (ProgressRecord(n=2.5, total=10.0), 0.25, "2.5/10"),
        (ProgressRecord(n=12, total=10, metrics={"ok": True}), 1.0, "12/10, ok=yes"),
        (ProgressRecord(n=-1, total=10), 0.0, "-1/10"),
        (ProgressRecord(n=nan, total=10), None, "nan/10"),
        (
            ProgressRecord(n=0, total=0, metrics={"a\x1b[31m": "b\nc"}),
            None,
            "0/0, a\\x1b[31m=b\\nc",
        ),
    ],
)
def test_how_far_a_call_is_in_words(record: ProgressRecord, fraction: float | None, text: str):
    assert record.fraction == fraction
    assert progress_text(record) == text


def call(state: CallState, **fields: Any) -> CallRecord:
    return CallRecord(
        id=1, task=None, function="f", args="", state=state, submitted_at=0.0, **fields
    )


def test_the_page_gets_a_text_and_a_share():
    progress = ProgressRecord(n=1, total=3, metrics={"loss": 2.0})
    sent = call_record(call(CallState.RUNNING, progress=progress))
    assert sent["progress"] == {"text": "1/3, loss=2", "share": 0.3333}
    sent = call_record(call(CallState.RUNNING, progress=ProgressRecord(n=1)))
    assert sent["progress"] == {"text": "1"}
    assert "progress" not in call_record(call(CallState.RUNNING))


def shown(state: CallState, **fields: Any) -> Any:
    from dataclasses import replace

    record = call(state, progress=ProgressRecord(n=1, total=4, metrics={"<b>": 1}), **fields)
    return replace(running(), calls=(record,), n_calls_hidden=0)


def test_text_and_html_show_it_live():
    snapshot = shown(CallState.RUNNING)
    assert "RUNNING f()  1/4, <b>=1" in plain(snapshot)
    html = as_html(snapshot)
    assert "1/4, &lt;b&gt;=1" in html
    assert 'style="flex:0.250"' in html
    assert "Progress</th>" in html


@pytest.mark.parametrize(
    ("state", "is_shown"),
    [(CallState.DONE, True), (CallState.FAILED, True), (CallState.CANCELLED, False)],
)
def test_the_stable_form_shows_only_what_a_second_run_would_show(state: CallState, is_shown: bool):
    html = as_html(shown(state), stable=True)
    assert ("1/4" in html) is is_shown
    assert "flex:0.250" not in html
