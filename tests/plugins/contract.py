"""What every plugin owes a task, wherever its calls run; a subclass says how to make one."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

import amltk_nb.scheduling.executors.process  # noqa: F401 - reads files when first imported
from amltk_nb import ExitCode, Plugin, Retry, Scheduler
from amltk_nb.errors import PluginError
from amltk_nb.scheduling.plugins.base import Submission
from amltk_nb.views.html import render

LONG_S = 30  # far more than anything here takes; a wait of this length is a failure


class OutOfLuck(Exception):
    """What a call raises here."""


# A plugin may give a function further keyword arguments.


def double(x: int, **_: Any) -> int:
    return 2 * x


def bad_luck(x: int, **_: Any) -> int:
    raise OutOfLuck(x)


def double_at_last(x: int, path: str, **_: Any) -> int:
    """Fail at first, in whatever process it runs."""
    if not os.path.exists(path):
        Path(path).touch()
        raise OutOfLuck(x)
    return 2 * x


async def double_later(x: int, **_: Any) -> int:
    await asyncio.sleep(0)
    return 2 * x


class Refuses(Plugin):
    """Refuses everything, or fails, behind whatever stands before it."""

    name = "refuses"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        if self.error is not None:
            raise self.error
        return None


class PluginContract:
    """Subclass it, say how to `make` one, and add what is the plugin's own."""

    backends: ClassVar[Sequence[str]] = ("processes", "threads")
    runs_coroutines: ClassVar[bool] = True

    def make(self) -> Plugin:
        raise NotImplementedError

    def open_scheduler(self, backend: str) -> Scheduler:
        """Make a scheduler with two workers of a kind."""
        scheduler: Scheduler = getattr(Scheduler, f"with_{backend}")(2)
        return scheduler

    @pytest.fixture
    async def scheduler(self, backend: str) -> AsyncIterator[Scheduler]:
        scheduler = self.open_scheduler(backend)
        yield scheduler
        if scheduler.running():
            run = scheduler.last_run
            scheduler.stop(wait=False)
            await run.over()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run what needs a backend on each of them."""
        if "backend" in metafunc.fixturenames:
            metafunc.parametrize("backend", self.backends)

    async def test_a_call_returns_what_it_would_return_without(self, scheduler: Scheduler):
        task = scheduler.task(double, plugins=self.make())
        run = scheduler.start(end_on_empty=True)
        futures = [task.submit(n) for n in range(3)]
        assert await asyncio.wait_for(scheduler.gather(futures), LONG_S) == [0, 2, 4]
        assert await run == ExitCode.EXHAUSTED

    async def test_a_coroutine_function_works_as_well(self, scheduler: Scheduler):
        if not self.runs_coroutines:
            pytest.skip("its library wraps plain functions only, and it says so")
        task = scheduler.task(double_later, plugins=self.make())
        run = scheduler.start(end_on_empty=True)
        assert await asyncio.wait_for(task.submit(4), LONG_S) == 8
        await run

    async def test_an_error_keeps_its_type_and_cause(self, scheduler: Scheduler):
        task = scheduler.task(bad_luck, plugins=self.make())
        run = scheduler.start(end_on_empty=True)
        with pytest.raises(OutOfLuck, match="7"):
            await asyncio.wait_for(task.submit(7), LONG_S)
        await run

    @pytest.mark.parametrize("comes_first", [True, False])
    async def test_a_call_that_is_tried_again_is_one_call_to_it(
        self, scheduler: Scheduler, tmp_path: Path, comes_first: bool
    ):
        plugin = self.make()
        plugins = [plugin] if isinstance(plugin, Retry) else [plugin, Retry(2, wait=0)]
        task = scheduler.task(double_at_last, plugins=plugins if comes_first else plugins[::-1])
        run = scheduler.start(end_on_empty=True)
        future = task.submit(3, str(tmp_path / "tried"))
        assert await asyncio.wait_for(asyncio.shield(future), LONG_S) == 6
        assert await run == ExitCode.EXHAUSTED
        assert (future.call.attempt, task.event_counts["on_retry"]) == (2, 1)

    async def test_a_function_of_a_notebook_works_as_well(self, scheduler: Scheduler):
        names: dict[str, Any] = {"__name__": "__main__"}
        exec("def triple(x, **_):\n    return 3 * x\n", names)
        task = scheduler.task(names["triple"], plugins=self.make())
        run = scheduler.start(end_on_empty=True)
        assert await asyncio.wait_for(task.submit(5), LONG_S) == 15
        await run

    async def test_two_tasks_share_it(self, scheduler: Scheduler):
        plugin = self.make()
        first = scheduler.task(double, plugins=plugin)
        second = scheduler.task(bad_luck, plugins=plugin)
        run = scheduler.start(end_on_empty=True)
        futures = [first.submit(1), second.submit(2)]
        assert await asyncio.wait_for(futures[0], LONG_S) == 2
        with pytest.raises(OutOfLuck):
            await asyncio.wait_for(futures[1], LONG_S)
        assert await run == ExitCode.EXHAUSTED

    async def test_what_it_took_is_given_back_when_a_later_one_refuses(self):
        scheduler = Scheduler.with_threads(1)
        plugin = self.make()
        task = scheduler.task(double, plugins=[plugin, Refuses()])
        run = scheduler.start()
        before = dict(plugin.state())
        assert task.submit(1) is None
        assert dict(plugin.state()) == before
        run.stop()
        await run

    async def test_what_it_took_is_given_back_when_a_later_one_fails(self):
        scheduler = Scheduler.with_threads(1)
        plugin = self.make()
        task = scheduler.task(double, plugins=[plugin, Refuses(OSError("no disk"))])
        run = scheduler.start()
        before = dict(plugin.state())
        with pytest.raises(PluginError, match="no disk"):
            task.submit(1)
        assert dict(plugin.state()) == before
        run.stop()
        await run

    def test_its_events_are_the_tasks(self):
        plugin = self.make()
        task = Scheduler.with_sequential().task(double, plugins=plugin)
        for event in plugin.events():
            name = str(event.name)
            task.on(name, lambda *_: None)
            assert len(task.handlers(name)) == 1

    def test_its_state_is_plain_and_shown_everywhere(self):
        plugin = self.make()
        scheduler = Scheduler.with_sequential()
        scheduler.task(double, plugins=plugin)
        state = plugin.state()
        assert isinstance(state, Mapping)
        for key, value in state.items():
            assert isinstance(key, str)
            assert isinstance(value, (str, int, float, bool, type(None))), (key, value)
        (record,) = scheduler.snapshot().tasks[0].plugins
        assert (record.name, dict(record.state)) == (plugin.name, dict(state))
        for shown in (as_text(scheduler), as_html(scheduler)):
            assert plugin.name in shown
            assert all(key in shown for key in state)

    def test_the_same_one_twice_on_a_task_is_refused(self):
        plugin = self.make()
        scheduler = Scheduler.with_sequential()
        with pytest.raises(PluginError, match="attached to Task-double-1 already"):
            scheduler.task(double, plugins=[plugin, plugin])
        assert scheduler.tasks == []

    def test_one_of_another_scheduler_is_refused(self):
        plugin = self.make()
        owner = Scheduler.with_sequential(name="first")
        owner.task(double, plugins=plugin)
        with pytest.raises(PluginError, match=r"belongs to the scheduler 'first'.*make another"):
            Scheduler.with_sequential().task(double, plugins=plugin)


def as_text(scheduler: Scheduler) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(scheduler)
    return console.export_text()


def as_html(scheduler: Scheduler) -> str:
    return render(scheduler.snapshot())
