"""Threads of BLAS and OpenMP inside a call, asked of numpy's own BLAS."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from amltk_nb import Scheduler
from amltk_nb.errors import MissingExtraError
from amltk_nb.scheduling.plugins.threadpools import ThreadPoolCTLPlugin
from tests.plugins.contract import LONG_S, PluginContract


class TestThreadPoolCTLPlugin(PluginContract):
    def make(self) -> ThreadPoolCTLPlugin:
        return ThreadPoolCTLPlugin(1)

    @pytest.mark.may_block  # what it blocks is the call's own loop, in a worker thread
    async def test_a_coroutine_function_works_as_well(self, scheduler: Scheduler):
        await super().test_a_coroutine_function_works_as_well(scheduler)


def blas_threads(_: object = None) -> list[int]:
    """How many threads each BLAS library of this process would use now."""
    np.dot(np.ones(2), np.ones(2))
    return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]


@pytest.fixture(autouse=True)
def three_threads():
    """A number of its own to begin with, whatever the machine has."""
    with threadpool_limits(3, user_api="blas"):
        yield


async def test_in_a_worker_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    scheduler = Scheduler.with_processes(1)
    limited = scheduler.task(blas_threads, plugins=ThreadPoolCTLPlugin(1))
    by_name = scheduler.task(blas_threads, plugins=ThreadPoolCTLPlugin({"blas": 1}))
    free = scheduler.task(blas_threads, plugins=ThreadPoolCTLPlugin())
    other = scheduler.task(blas_threads, plugins=ThreadPoolCTLPlugin(1, "openmp"))
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit() for task in (free, limited, by_name, free, other)]
    counts = await asyncio.wait_for(scheduler.gather(futures), LONG_S)
    before, *_ = counts
    assert before
    assert set(before) == {2}
    ones = [1] * len(before)
    assert counts == [before, ones, ones, before, before]
    await run


async def test_on_a_thread():
    scheduler = Scheduler.with_threads(1)
    limited = scheduler.task(blas_threads, plugins=ThreadPoolCTLPlugin(1, "blas"))
    run = scheduler.start(end_on_empty=True)
    assert set(await asyncio.wait_for(limited.submit(), LONG_S)) == {1}
    assert set(blas_threads()) == {3}
    await run


async def test_overlapping_calls_leave_nothing_behind():
    """The first to begin ends first: if each restored what it found, the limit would stay."""
    scheduler = Scheduler.with_threads(2)
    began, may_end = threading.Event(), threading.Event()
    seen: dict[str, set[int]] = {}

    def first() -> None:
        seen["first alone"] = set(blas_threads())
        began.set()
        assert may_end.wait(LONG_S)

    def second() -> None:
        seen["both"] = set(blas_threads())

    def last() -> None:
        seen["last"] = set(blas_threads())

    one = scheduler.task(first, plugins=ThreadPoolCTLPlugin(1))
    two = scheduler.task(second, plugins=ThreadPoolCTLPlugin(2))
    three = scheduler.task(last, plugins=ThreadPoolCTLPlugin(2))
    run = scheduler.start()
    ending = one.submit()
    # Only then: the limit of a call holds before its function runs.
    assert await asyncio.to_thread(began.wait, LONG_S)
    await asyncio.wait_for(two.submit(), LONG_S)
    seen["second has ended"] = set(blas_threads())
    may_end.set()
    await asyncio.wait_for(ending, LONG_S)
    await asyncio.wait_for(three.submit(), LONG_S)
    run.stop()
    await run
    assert seen == {"first alone": {1}, "both": {2}, "second has ended": {1}, "last": {2}}
    assert set(blas_threads()) == {3}


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, {"blas": 0}])
def test_a_limit_that_means_nothing(value: Any):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        ThreadPoolCTLPlugin(value)


def test_an_unknown_api():
    with pytest.raises(ValueError, match=r"user_api='cuda': use 'blas', 'openmp'"):
        ThreadPoolCTLPlugin(1, "cuda")


def test_state_shows_the_limit():
    assert ThreadPoolCTLPlugin(2).state() == {"Max threads": 2, "API": "all"}
    both = ThreadPoolCTLPlugin({"mkl": 1, "openmp": 2})
    assert both.state() == {"Max threads": "mkl: 1, openmp: 2", "API": "all"}


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(MissingExtraError, match=r"needs threadpoolctl.*\[threadpoolctl\]"):
        ThreadPoolCTLPlugin(1)
