"""Every plugin over a Dask from the command line, as over processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import warnings
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from amltk_nb import (
    Cache,
    Comm,
    EmissionsTrackerPlugin,
    ExitCode,
    Limiter,
    Plugin,
    Progress,
    ResourceLimits,
    Retry,
    Scheduler,
    ThreadPoolCTLPlugin,
    WandbPlugin,
    WarningFilter,
)
from amltk_nb.errors import PluginError, WorkerDiedError
from amltk_nb.scheduling.snapshot import ProgressRecord
from amltk_nb.scheduling.transports.remote import HOST_VARIABLE
from tests.executors.dask_processes import DaskProcesses, dask_processes
from tests.plugins import talkers
from tests.plugins.contract import LONG_S, PluginContract

EVENTS = ("comm-open", "comm-message", "comm-request", "comm-close")

# What is blocked here and there is a call's own loop, in a thread of its worker.
pytestmark = pytest.mark.may_block


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask"), 2) as processes:
        yield processes


class OverDask(PluginContract):
    backends = ("dask",)

    @pytest.fixture(autouse=True)
    def keep(self, cluster: DaskProcesses, tmp_path: Path) -> None:
        self.cluster = cluster
        self.folder = tmp_path

    def open_scheduler(self, backend: str) -> Scheduler:
        return Scheduler.with_dask(self.cluster.address, connect_timeout=LONG_S)


class TestCommOverDask(OverDask):
    def make(self) -> Plugin:
        return Comm.Plugin()


class TestProgressOverDask(OverDask):
    def make(self) -> Plugin:
        return Progress()


class TestResourceLimitsOverDask(OverDask):
    def make(self) -> Plugin:
        return ResourceLimits(memory="4 GB", cpu_time=60, wall_time=60)


class TestRetryOverDask(OverDask):
    def make(self) -> Plugin:
        return Retry(2, wait=0)


class TestCacheOverDask(OverDask):
    def make(self) -> Plugin:
        return Cache(self.folder / "cache")


class TestLimiterOverDask(OverDask):
    def make(self) -> Plugin:
        return Limiter(max_calls=5, max_concurrent=4)


class TestWarningFilterOverDask(OverDask):
    def make(self) -> Plugin:
        return WarningFilter("ignore", message="old", category=DeprecationWarning)


class TestThreadPoolsOverDask(OverDask):
    def make(self) -> Plugin:
        return ThreadPoolCTLPlugin(1)


# --- what they do there


@pytest.fixture
async def scheduler(cluster: DaskProcesses) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler.with_dask(cluster.address, connect_timeout=LONG_S)
    yield scheduler
    if scheduler.running():
        scheduler.stop(wait=False)
        await scheduler.last_run.over()


@pytest.fixture(params=["on this machine", "by network"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have calls take the socket of this machine, or TCP as from another one."""
    if request.param == "by network":
        monkeypatch.setenv(HOST_VARIABLE, "127.0.0.1")
    return str(request.param)


both_ways = pytest.mark.usefixtures("way")


async def ended(future: Any) -> Any:
    return await asyncio.wait_for(future, LONG_S)


def sleep_long() -> None:
    print("before")
    threading.Event().wait(LONG_S)


def take_memory() -> int:
    return len(bytearray(3 << 30))


async def test_a_limit_ends_its_call_and_the_worker_goes_on(scheduler: Scheduler):
    slow = scheduler.task(sleep_long, plugins=ResourceLimits(wall_time=3))
    large = scheduler.task(take_memory, plugins=ResourceLimits(memory="2 GB"))
    told: list[str] = []
    slow.on("wall-time-limit", lambda _: told.append("wall time"))
    large.on("memory-limit", lambda _: told.append("memory"))
    run = scheduler.start()
    futures = [slow.submit(), large.submit()]
    with pytest.raises(ResourceLimits.WallTimeoutException, match="3 s, its limit of wall time"):
        await ended(futures[0])
    with pytest.raises(ResourceLimits.MemoryLimitException, match="limit of memory"):
        await ended(futures[1])
    pids = await ended(scheduler.gather([scheduler.submit(os.getpid) for _ in range(8)]))
    run.stop()
    await run
    assert sorted(told) == ["memory", "wall time"]
    assert futures[0].call.output == "before\n"
    assert len(set(pids)) <= 2


def compute(x: int, path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    return x * x


async def test_a_stored_result_spares_the_call(scheduler: Scheduler, tmp_path: Path):
    marks = tmp_path / "marks"
    plugin = Cache(tmp_path / "cache", ignore=("path",))
    task = scheduler.task(compute, plugins=plugin)
    for n in (1, 2):
        run = scheduler.start(end_on_empty=True)
        futures = [task.submit(x, str(marks)) for x in (2, 3)]
        await run
        assert [future.result() for future in futures] == [4, 9]
        assert (plugin.n_hits, plugin.n_misses) == (2 * (n - 1), 2)
    assert marks.read_text() == "xx"


def die_at_first(path: str) -> str:
    if not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


async def test_a_call_whose_worker_died_is_tried_again(
    scheduler: Scheduler, cluster: DaskProcesses, tmp_path: Path
):
    task = scheduler.task(die_at_first, plugins=Retry(3, retry_on=WorkerDiedError, wait=0))
    run = scheduler.start(end_on_empty=True)
    future = task.submit(str(tmp_path / "died"))
    try:
        assert await ended(asyncio.shield(future)) == "alive"
    finally:
        cluster.add_worker()
    await run
    assert future.call.attempt == 2


def warn() -> str:
    warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    return "went on"


async def test_a_filter_holds_in_its_calls_and_no_others(scheduler: Scheduler):
    strict = scheduler.task(
        warn, plugins=WarningFilter("error", "old", category=DeprecationWarning)
    )
    run = scheduler.start(end_on_empty=True)
    futures = [strict.submit(), scheduler.submit(warn)]
    with pytest.raises(DeprecationWarning, match="old ways"):
        await ended(futures[0])
    assert await ended(futures[1]) == "went on"
    await run


def blas_threads() -> set[int]:
    np.dot(np.ones(2), np.ones(2))
    return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}


async def test_blas_has_as_many_threads_as_it_may_have(scheduler: Scheduler):
    task = scheduler.task(blas_threads, plugins=ThreadPoolCTLPlugin(1))
    run = scheduler.start(end_on_empty=True)
    scheduler.submit(blas_threads)
    assert await ended(task.submit()) == {1}
    await run


def logs_to_wandb(home: str) -> str:
    import wandb

    wandb.log({"loss": 1.0})
    return str(wandb.run.name)


async def test_wandb_and_codecarbon_go_along(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    logged = scheduler.task(logs_to_wandb, plugins=WandbPlugin("a project", mode="disabled"))
    measured = scheduler.task(compute, plugins=EmissionsTrackerPlugin("DEU"))
    told: list[Any] = []
    measured.on("on_emissions", lambda _, data: told.append(data["country_iso_code"]))
    run = scheduler.start(end_on_empty=True)
    futures = [logged.submit(str(tmp_path)), measured.submit(2, str(tmp_path / "marks"))]
    await asyncio.wait_for(run.over(), 2 * LONG_S)
    assert futures[0].exception() is None
    assert futures[1].result() == 4
    assert told == ["DEU"]


# --- the talk


def talking(scheduler: Scheduler, fn: Any, *more: Plugin) -> tuple[Any, list[Any]]:
    task = scheduler.task(fn, plugins=[Comm.Plugin(), *more])
    told: list[Any] = []
    for name in EVENTS:
        task.on(name, lambda msg, name=name: told.append((name, msg.data)), hidden=True)  # type: ignore[misc]
    task.on_f_returned(lambda _, value: told.append(("returned", value)))
    task.on_f_exception(lambda _, error: told.append(("failed", type(error))))
    return task, told


@both_ways
async def test_it_opens_sends_asks_and_closes_in_this_order(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.ask_thrice)
    task.on("comm-request", lambda msg: msg.respond(msg.data * 2))
    run = scheduler.start(end_on_empty=True)
    assert await ended(task.submit(2)) == [1.0, 3.0]
    assert await run == ExitCode.EXHAUSTED
    assert told == [
        ("comm-open", "hello"),
        ("comm-message", 0),
        ("comm-request", 0.5),
        ("comm-message", 1),
        ("comm-request", 1.5),
        ("comm-close", None),
        ("returned", [1.0, 3.0]),
    ]


@both_ways
@pytest.mark.parametrize(("n_calls", "n_messages"), [(4, 3_000), (100, 1)])
async def test_all_that_was_said_comes_in_order_and_before_the_end(
    scheduler: Scheduler, n_calls: int, n_messages: int
):
    """Nobody closes here; more is sent than any buffer holds, or a call ends with its word."""
    task, _ = talking(scheduler, talkers.pour)
    heard: dict[int, list[int]] = defaultdict(list)
    at_end: dict[int, int] = {}
    task.on("comm-message", lambda msg: heard[msg.future.call.args[0]].append(msg.data))
    task.on_f_returned(lambda _, first: at_end.update({first: len(heard[first])}))
    run = scheduler.start(end_on_empty=True)
    firsts = range(0, n_calls * n_messages, n_messages)
    for first in firsts:
        task.submit(first, n_messages)
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
    assert at_end == dict.fromkeys(firsts, n_messages)
    assert heard == {first: list(range(first, first + n_messages)) for first in firsts}


@both_ways
async def test_the_scheduler_sends_as_well_and_much(scheduler: Scheduler):
    listening, _ = talking(scheduler, talkers.listen)
    echoing, _ = talking(scheduler, talkers.echo)
    echoing.on("comm-request", lambda msg: msg.respond(msg.data))

    @listening.on("comm-request")
    def tell(msg: Any) -> None:
        assert [msg.comm.send(text) for text in ("one", "two")] == [True, True]
        msg.respond("zero")

    run = scheduler.start(end_on_empty=True)
    futures = [listening.submit(), echoing.submit(5_000_000)]
    assert (await ended(futures[0]))[:3] == ["zero", "one", "two"]
    assert await ended(futures[1]) is True
    await run


@both_ways
async def test_a_worker_killed_in_the_midst_of_a_request(
    scheduler: Scheduler, cluster: DaskProcesses
):
    task, told = talking(scheduler, talkers.ask_with_pid)
    asked: list[Any] = []
    task.on("comm-request", asked.append)
    task.on("comm-request", lambda msg: os.kill(msg.data, signal.SIGKILL))
    run = scheduler.start(end_on_empty=True)
    try:
        with pytest.raises(WorkerDiedError, match="died while it had this call"):
            await ended(task.submit())
        await run
    finally:
        cluster.add_worker()
    assert told == [
        ("comm-open", None),
        ("comm-request", asked[0].data),
        ("comm-close", None),
        ("failed", WorkerDiedError),
    ]
    assert asked[0].respond("too late") is False
    assert task.plugins[0].state()["Open"] == 0


@both_ways
async def test_a_call_that_is_tried_again_talks_again(scheduler: Scheduler, tmp_path: Path):
    task, _ = talking(scheduler, talkers.fail_first, Retry(2, wait=0))
    told: list[Any] = []
    for name in EVENTS:
        task.on(name, lambda msg: told.append((str(msg.kind), msg.future.call.attempt)))
    task.on("comm-request", lambda msg: msg.respond(f"been there: {msg.data}"))
    run = scheduler.start(end_on_empty=True)
    assert await ended(task.submit(str(tmp_path / "was here"))) == "been there: True"
    await run
    assert told == [(kind, n) for n in (1, 2) for kind in ("open", "request", "close")]


@both_ways
async def test_a_run_that_stops_leaves_nobody_waiting(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.ask)
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task.on("comm-request", asked.set_result)
    run = scheduler.start()
    future = task.submit("?")
    await ended(asked)
    run.stop()
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.STOPPED
    assert future.result()[0] == "CommClosedError"
    assert [name for name, _ in told] == ["comm-open", "comm-request", "comm-close", "returned"]


@both_ways
async def test_a_callback_may_close_it(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.listen_until_closed)
    task.on("comm-open", lambda msg: msg.comm.close())
    run = scheduler.start(end_on_empty=True)
    assert await ended(task.submit()) == ["CommClosedError", "CommClosedError"]
    await run
    assert [name for name, _ in told] == ["comm-open", "comm-close", "returned"]


@both_ways
async def test_progress_comes_to_its_last_report_and_bars_report(scheduler: Scheduler):
    count = scheduler.task(talkers.count_up, plugins=Progress())
    bars = scheduler.task(talkers.count_with_tqdm, plugins=Progress())
    run = scheduler.start(end_on_empty=True)
    futures = [count.submit(1_000, loss=0.5), bars.submit(50)]
    assert await ended(scheduler.gather(futures)) == [1_000, 50]
    await run
    assert [future.call.progress for future in futures] == [
        ProgressRecord(n=1_000, total=1_000, metrics={"loss": 0.5}),
        ProgressRecord(n=50, total=50, metrics={"loss": "1.0"}),
    ]
    assert "50/50" in futures[1].call.output


def count_and_mark(fifo: str) -> None:
    talkers.count_up(5_000)
    talkers.write_to(fifo)


@both_ways
async def test_a_blocked_loop_does_not_hold_up_what_only_reports(
    scheduler: Scheduler, tmp_path: Path
):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    task = scheduler.task(talkers.count_up, plugins=Progress())
    last = scheduler.task(count_and_mark, plugins=Progress())
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit(5_000), last.submit(fifo)]
    with open(fifo) as file:  # on the loop's thread, as a cell that computes for long
        assert file.read() == "here"
    await run
    assert [future.call.progress.n for future in futures] == [5_000, 5_000]


# --- what they print


async def test_what_a_call_prints_is_in_its_record_and_in_every_view(scheduler: Scheduler):
    def say(x: int) -> None:
        print("said", x)
        print("wrong", x, file=sys.stderr)
        if x == 2:
            raise KeyError(x)

    run = scheduler.start(end_on_empty=True)
    futures = [scheduler.submit(say, x) for x in (1, 2)]
    await run
    assert [future.call.output for future in futures] == ["said 1\nwrong 1\n", "said 2\nwrong 2\n"]
    assert isinstance(futures[1].exception(), KeyError)


# --- a worker without the package


async def test_a_worker_without_this_package_says_what_the_plugin_needs(tmp_path: Path):
    with DaskProcesses(tmp_path) as processes:
        processes.add_worker(without_package=True)
        scheduler = Scheduler.with_dask(processes.address, connect_timeout=LONG_S)
        task = scheduler.task(talkers.count_up, plugins=Progress())
        run = scheduler.start(end_on_empty=True)
        with pytest.raises(
            PluginError, match=r"count_up\(\) could not begin on the worker tcp://.* install it"
        ):
            await ended(task.submit(3))
        await run
