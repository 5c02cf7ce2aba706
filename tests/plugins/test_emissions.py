"""Energy and emissions of calls, measured by codecarbon without a network."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import MissingExtraError
from amltk_nb.scheduling.plugins.emissions import EmissionsTrackerPlugin
from amltk_nb.scheduling.plugins.retry import Retry
from tests.plugins.contract import LONG_S, OutOfLuck, PluginContract, bad_luck, double

IN_BACKGROUND_S = 10  # what a library may take to end its threads


class TestEmissionsTrackerPlugin(PluginContract):
    backends = ("threads",)  # codecarbon takes seconds to start in a process; that comes below

    def make(self) -> EmissionsTrackerPlugin:
        return EmissionsTrackerPlugin("DEU")

    @pytest.mark.may_block  # what it blocks is the call's own loop, in a worker thread
    async def test_a_coroutine_function_works_as_well(self, scheduler: Scheduler):
        await super().test_a_coroutine_function_works_as_well(scheduler)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have codecarbon find no configuration, and write nowhere else, if it does."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What this process connects to, or asks the address of."""
    noted: list[Any] = []

    def refuse(*args: Any, **_: Any) -> None:
        noted.append(args)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return noted


def count(n: int) -> int:
    return sum(i * i for i in range(n))


def note_events(task: Any) -> list[Any]:
    noted: list[Any] = []
    task.on("on_emissions", lambda future, data: noted.append(("emissions", future, data)))
    task.on_done(lambda future: noted.append(("done", future)))
    return noted


@pytest.mark.parametrize("kind", ["processes", "threads"])
async def test_what_calls_used_comes_back(kind: str, here: Path):
    scheduler = getattr(Scheduler, f"with_{kind}")(1)
    plugin = EmissionsTrackerPlugin("FRA")
    task = scheduler.task(count, plugins=plugin)
    unlucky = scheduler.task(bad_luck, plugins=plugin)
    noted, noted_of_unlucky = note_events(task), note_events(unlucky)
    run = scheduler.start(end_on_empty=True)
    future, failing = task.submit(300_000), unlucky.submit(7)
    assert await run == ExitCode.EXHAUSTED
    assert future.result() == count(300_000)
    (_, told, data), done = noted
    assert (told, done) == (future, ("done", future))  # before the other events of the call
    (_, told, data_of_failing), _ = noted_of_unlucky
    assert told is failing
    assert type(failing.exception()) is OutOfLuck
    assert vars(failing.exception()) == {}  # what came with it was taken off again

    both = [data, data_of_failing]
    assert [d["country_iso_code"] for d in both] == ["FRA", "FRA"]
    assert [d["tracking_mode"] for d in both] == ["process", "process"]
    for measured in both:
        assert 0 < measured["emissions"] < 0.001  # kg, for a moment of one process
        assert 0 < measured["energy_consumed"] < 0.01
        assert 0 < measured["duration"] < LONG_S
    assert plugin.n_measured == 2
    assert plugin.emissions_kg == sum(d["emissions"] for d in both)
    assert plugin.energy_kwh == sum(d["energy_consumed"] for d in both)
    assert plugin.state() == {
        "Country": "FRA",
        "Measured calls": 2,
        "CO2eq": f"{plugin.emissions_kg * 1e3:.3g} g",
        "Energy": f"{plugin.energy_kwh * 1e3:.3g} Wh",
    }
    assert (future.call.output, failing.call.output) == ("", "")
    assert list(here.iterdir()) == []


async def test_no_network_and_nothing_left_in_the_kernel(connected: list[Any]):
    before, threads = (dict(os.environ), sys.exit, sys.excepthook), set(threading.enumerate())
    scheduler = Scheduler.with_threads(2)
    task = scheduler.task(count, plugins=EmissionsTrackerPlugin())
    run = scheduler.start(end_on_empty=True)
    task.map([1, 2, 3])
    await run
    assert task.event_counts["on_emissions"] == 3
    assert connected == []
    for thread in set(threading.enumerate()) - threads:
        await asyncio.to_thread(thread.join, IN_BACKGROUND_S)
        assert not thread.is_alive()
    assert (dict(os.environ), sys.exit, sys.excepthook) == before


async def test_a_configured_token_does_not_make_it_ask(
    connected: list[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CODECARBON_ELECTRICITYMAPS_API_TOKEN", "secret")
    monkeypatch.setenv("CODECARBON_SAVE_TO_API", "true")
    scheduler = Scheduler.with_threads(1)
    task = scheduler.task(count, plugins=EmissionsTrackerPlugin("DEU"))
    run = scheduler.start(end_on_empty=True)
    task.submit(1)
    await run
    assert task.event_counts["on_emissions"] == 1
    assert connected == []


async def test_each_attempt_counts():
    scheduler = Scheduler.with_threads(1)
    plugin = EmissionsTrackerPlugin("DEU")
    task = scheduler.task(bad_luck, plugins=[plugin, Retry(3, wait=0)])
    noted = note_events(task)
    run = scheduler.start(end_on_empty=True)
    future = task.submit(1)
    await run
    assert [(kind, told) for kind, told, *_ in noted] == [("emissions", future)] * 3 + [
        ("done", future)
    ]
    assert plugin.n_measured == 3


async def test_a_file_is_written_on_demand(here: Path):
    scheduler = Scheduler.with_threads(1)
    plugin = EmissionsTrackerPlugin("DEU", output_methods=["csv"], output_dir=str(here))
    task = scheduler.task(double, plugins=plugin)
    run = scheduler.start(end_on_empty=True)
    task.submit(1)
    await run
    assert [path.name for path in here.iterdir()] == ["emissions.csv"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"country_iso_code": "XYZ"}, ValueError, "codecarbon knows no such country"),
        ({"colour": "green"}, TypeError, "has no option colour"),
    ],
)
async def test_options_that_codecarbon_does_not_know(
    options: dict[str, Any], error: type[Exception], message: str
):
    scheduler = Scheduler.with_threads(1)
    plugin = EmissionsTrackerPlugin(**options)
    task = scheduler.task(double, plugins=plugin)
    run = scheduler.start(end_on_empty=True)
    future = task.submit(1)
    await run
    with pytest.raises(error, match=message):
        future.result()
    assert plugin.n_measured == 0


@pytest.mark.parametrize("code", ["de", "deu", "DE", "GERMANY", "", 49])
def test_no_code_of_a_country(code: Any):
    with pytest.raises(ValueError, match="three capital letters"):
        EmissionsTrackerPlugin(code)


def test_trackers_cannot_exclude_each_other():
    with pytest.raises(ValueError, match="calls run side by side"):
        EmissionsTrackerPlugin("DEU", allow_multiple_runs=False)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(MissingExtraError, match=r"needs codecarbon.*amltk-nb\[codecarbon\]"):
        EmissionsTrackerPlugin("DEU")
