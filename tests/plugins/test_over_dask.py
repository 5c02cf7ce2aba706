"""Every plugin over a Dask from the command line, as over processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import warnings
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
from tests.executors.dask_processes import DaskProcesses, dask_processes
from tests.plugins import talkers
from tests.plugins.contract import LONG_S, PluginContract
from tests.plugins.talk_contract import TalkContract, ended

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


class TestTalkOverDask(TalkContract):
    @pytest.fixture(autouse=True)
    def keep(self, cluster: DaskProcesses) -> None:
        self.cluster = cluster

    def open(self) -> Scheduler:
        return Scheduler.with_dask(self.cluster.address, connect_timeout=LONG_S)

    def a_worker_is_gone(self) -> None:
        self.cluster.add_worker()


async def test_two_threads_of_a_worker_do_not_mix_what_they_print():
    scheduler = Scheduler.with_dask(n_workers=1, threads_per_worker=2)
    run = scheduler.start(end_on_empty=True)
    futures = [scheduler.submit(talkers.say_in_turns, name, 100) for name in ("left", "right")]
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
    for future, name in zip(futures, ("left", "right"), strict=True):
        assert future.call.output.splitlines() == [f"{name} {i}" for i in range(100)]


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
