"""Comm, Progress, limits and prints over a Ray, as over processes of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from amltk_nb import Comm, ExitCode, Plugin, Progress, ResourceLimits, Retry, Scheduler
from tests.executors.test_ray import INIT
from tests.plugins import talkers
from tests.plugins.contract import LONG_S, PluginContract
from tests.plugins.talk_contract import TalkContract, both_ways, ended, talking

# What is blocked is a call's own loop in its worker, and Ray's client while it is started.
pytestmark = [pytest.mark.may_block, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", autouse=True)
def users_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(**INIT)
    yield
    ray.shutdown()


class OverRay(PluginContract):
    backends = ("ray",)

    def open_scheduler(self, backend: str) -> Scheduler:
        return Scheduler.with_ray()


class TestCommOverRay(OverRay):
    def make(self) -> Plugin:
        return Comm.Plugin()


class TestProgressOverRay(OverRay):
    def make(self) -> Plugin:
        return Progress()


class TestResourceLimitsOverRay(OverRay):
    def make(self) -> Plugin:
        return ResourceLimits(memory="8 GB", cpu_time=60, wall_time=60)


class TestTalkOverRay(TalkContract):
    def open(self) -> Scheduler:
        return Scheduler.with_ray()

    @both_ways
    async def test_a_call_that_is_ended_while_it_asks(self, scheduler: Scheduler):
        task, told = talking(scheduler, talkers.ask, Retry(2, wait=0))
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        task.on("comm-request", asked.set_result)
        run = scheduler.start(end_on_empty=True)
        future = task.submit("?")
        await ended(asked)
        assert scheduler.cancel(future) is True
        assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
        assert future.cancelled()
        assert [name for name, _ in told] == ["comm-open", "comm-request", "comm-close"]
