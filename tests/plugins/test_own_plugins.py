"""Plugins that users write: those of the documentation do what it says, as its examples do."""

from __future__ import annotations

import contextlib
import inspect
import io
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from amltk_nb import Event, ExitCode, Limiter, Plugin, Scheduler
from amltk_nb.errors import EventNotKnownError
from amltk_nb.testing import ManualBackend
from tests.plugins.contract import PluginContract, Refuses, as_html, as_text
from tests.plugins.own import Budget, Licences, Seeds, Slow
from tests.scheduling.conftest import settled

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"


def f(x: int = 0, *, seed: int | None = None) -> int | None:
    return seed


@pytest.fixture
def backend() -> ManualBackend:
    return ManualBackend(2)


@pytest.fixture
def scheduler(backend: ManualBackend) -> Scheduler:
    return Scheduler(backend)


async def ended(scheduler: Scheduler) -> None:
    scheduler.stop(wait=False)
    await scheduler.last_run


# ---------------------------------------------------------------- a veto


class TestBudget(PluginContract):
    def make(self) -> Plugin:
        return Budget(seconds=60)


async def test_a_veto_and_nothing_is_submitted(scheduler: Scheduler, backend: ManualBackend):
    plugin = Budget(seconds=60)
    task = scheduler.task(f, plugins=plugin)
    scheduler.start()
    for seconds in (59.0, 2.0):
        backend.finish(task.submit(1), seconds=seconds)
        await settled()
    assert plugin.left_s == -1
    assert task.submit(2) is None
    assert task(2) is None
    assert (task.n_called, task.event_counts["on_submitted"]) == (2, 2)
    await ended(scheduler)


# ---------------------------------------------------------------- a changed argument


def test_a_changed_argument_reaches_the_function_and_the_callbacks():
    scheduler = Scheduler.with_processes(1)
    task = scheduler.task(f, plugins=Seeds(seed=7))
    told: list[tuple[Any, ...]] = []
    task.on_submitted(lambda future, x, **kwargs: told.append((x, kwargs)))
    results: list[Any] = []
    task.on_returned(results.append)
    scheduler.on_start(lambda: (task(1), task(2), task(3, seed=5)))
    assert scheduler.run() == ExitCode.EXHAUSTED
    rng = random.Random(7)
    first, second = rng.randrange(1000), rng.randrange(1000)
    assert results == [first, second, 5]
    assert told == [(1, {"seed": first}), (2, {"seed": second}), (3, {"seed": 5})]
    assert [call.args for call in scheduler.calls()][::-1] == ["1", "2", "3, seed=5"]


# ---------------------------------------------------------------- an added event


class TestSlow(PluginContract):
    def make(self) -> Plugin:
        return Slow(limit_s=60)


async def test_an_added_event_comes_on_the_loop_and_is_known_by_name(
    scheduler: Scheduler, backend: ManualBackend
):
    task = scheduler.task(f, plugins=Slow(limit_s=60))
    told: list[Any] = []
    task.on("slow-call", told.append)
    run = scheduler.start()
    quick, slow, cancelled = task.submit(1), task.submit(2), task.submit(3)
    backend.finish(quick, seconds=59.0)
    backend.finish(slow, seconds=61.0)
    cancelled.cancel()
    await settled()
    assert told == [slow.call]
    assert task.event_counts["slow-call"] == 1
    events = [event.name for event in scheduler.snapshot().tasks[0].events]
    assert events[-1] == "slow-call"
    scheduler.stop()
    await run


def test_the_event_belongs_to_tasks_with_the_plugin_only(scheduler: Scheduler):
    scheduler.task(f, plugins=Slow(limit_s=60))
    other = scheduler.task(f, name="other")
    with pytest.raises(EventNotKnownError, match="other has no event 'slow-call'"):
        other.on("slow-call", print)
    assert other.on(Event("slow-call"), print) is print  # one's own event of that name


# ---------------------------------------------------------------- released resources


class TestLicences(PluginContract):
    def make(self) -> Plugin:
        return Licences(8)


@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "died"])
async def test_what_was_lent_comes_back_once_however_a_call_ends(
    scheduler: Scheduler, backend: ManualBackend, end: str
):
    plugin = Licences(2)
    task = scheduler.task(f, plugins=plugin)
    scheduler.start()
    first, _ = task.submit(1), task.submit(2)
    assert task.submit(3) is None
    assert len(plugin.free) == 0
    ends: dict[str, Callable[[], Any]] = {
        "finish": lambda: backend.finish(first),
        "fail": lambda: backend.fail(first, ValueError()),
        "cancel": lambda: first.cancel(),
        "died": lambda: backend.give_back(first),  # it runs again, so nothing comes back yet
    }
    ends[end]()
    await settled()
    assert len(plugin.free) == (0 if end == "died" else 1)
    await ended(scheduler)
    assert len(plugin.free) == 2


async def test_what_was_lent_comes_back_when_a_later_plugin_refuses(scheduler: Scheduler):
    plugin = Licences(2)
    task = scheduler.task(f, plugins=[plugin, Limiter(max_calls=1), Refuses()])
    scheduler.start()
    assert [task.submit(n) for n in range(5)] == [None] * 5
    assert len(plugin.free) == 2
    await ended(scheduler)
    assert len(plugin.free) == 2


# ---------------------------------------------------------------- what it shows of itself


async def test_its_state_is_shown_as_it_changes(scheduler: Scheduler):
    task = scheduler.task(f, plugins=Licences(3))
    scheduler.start()
    for lent in range(4):
        text = f"{lent} of 3 lent"
        assert dict(scheduler.snapshot().tasks[0].plugins[0].state) == {"Licences": text}
        assert text in as_text(scheduler)
        assert text in as_html(scheduler)
        task.submit(lent)
    await ended(scheduler)


# ---------------------------------------------------------------- the page


class Example(NamedTuple):
    """One code block of the page, what it prints, and under which heading it stands."""

    heading: str
    code: str
    output: str


def examples() -> list[Example]:
    found, heading = list[Example](), ""
    pattern = r"^#+ ([^\n]*)$|^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?"
    for match in re.finditer(pattern, PAGE.read_text(), re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            found.append(Example(heading, match[2], match[3] or ""))
    return found


def is_definition(example: Example) -> bool:
    """Whether it shows a class only, which is used further down."""
    return example.code.startswith("class ")


RUNNABLE = [example for example in examples() if not is_definition(example)]


@pytest.mark.parametrize("example", RUNNABLE, ids=lambda example: example.heading)
def test_an_example_prints_what_the_page_says(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    names.update({plugin.__name__: plugin for plugin in (Budget, Seeds, Slow, Licences)})
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example.code, str(PAGE), "exec"), names)
    assert printed.getvalue() == example.output


@pytest.mark.parametrize("plugin", [Budget, Seeds, Slow, Licences])
def test_the_page_shows_the_plugins_that_are_tested_here(plugin: type[Plugin]):
    assert f"```python\n{inspect.getsource(plugin)}```" in PAGE.read_text()
    assert len([line for line in inspect.getsource(plugin).splitlines() if line]) <= 16


def test_the_page_has_an_example_of_each_plugin_on_the_shelf():
    assert len(examples()) == 19
