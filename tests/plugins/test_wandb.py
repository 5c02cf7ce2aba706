"""Calls as runs of wandb: written for real, offline, and read back from its own files."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb  # here, lest it takes functions for its own that a test has replaced meanwhile

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import MissingExtraError, PluginError
from amltk_nb.scheduling.plugins.retry import Retry
from amltk_nb.scheduling.plugins.wandb import WandbPlugin
from tests.plugins.contract import LONG_S, OutOfLuck, PluginContract

IN_BACKGROUND_S = 10  # what a library may take to end its threads and processes


class TestWandbPlugin(PluginContract):
    backends = ("threads",)  # a worker process takes seconds to load wandb; those come below

    def make(self) -> WandbPlugin:
        return WandbPlugin("a project", mode="disabled")

    @pytest.mark.may_block  # what it blocks is the call's own loop, in a worker thread
    async def test_a_coroutine_function_works_as_well(self, scheduler: Scheduler):
        await super().test_a_coroutine_function_works_as_well(scheduler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have wandb write into the test's own directory only."""
    for name in ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def train(lr: float, layers: list[int], *, note: str = "none") -> str:
    for step in range(3):
        wandb.log({"loss": lr / (step + 1)})
    if lr > 1:
        raise OutOfLuck("diverged")
    assert wandb.run is not None
    return wandb.run.name


async def train_later(lr: float) -> str:
    await asyncio.sleep(0)
    return train(lr, [])


# --- reading a run --------------------------------------------------------------------------

_BLOCK_BYTES = 1 << 15
_HEADER_BYTES = 7
_WHOLE, _LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """Read what wandb wrote: protobuf messages in the log format of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, parts = _HEADER_BYTES, b""
    while at < len(data):
        left = _BLOCK_BYTES - at % _BLOCK_BYTES
        if left < _HEADER_BYTES:  # the rest of a block that holds no header
            at += left
            continue
        _, n_bytes, kind = struct.unpack("<IHB", data[at : at + _HEADER_BYTES])
        at += _HEADER_BYTES
        parts += data[at : at + n_bytes]
        at += n_bytes
        if kind in (_WHOLE, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def read_run(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"losses": []}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.update(name=run.display_name, project=run.project, group=run.run_group)
            found["tags"] = list(run.tags)
            found["config"] = {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            items = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            found["losses"].append(json.loads(items["loss"]))
        elif kind == "exit":
            found["exit code"] = record.exit.exit_code
    found["config"].pop("_wandb", None)
    return found


def read_runs(directory: Path) -> dict[str, dict[str, Any]]:
    runs = [read_run(path) for path in directory.glob("wandb/offline-run-*/*.wandb")]
    return {run["name"]: run for run in runs}


# --- real runs ------------------------------------------------------------------------------


@pytest.mark.may_block  # what it blocks is the call's own loop, in a worker thread
@pytest.mark.parametrize("kind", ["processes", "threads"])
async def test_each_call_is_a_run_on_disk(kind: str, home: Path):
    scheduler = getattr(Scheduler, f"with_{kind}")(2, name="search")
    plugin = WandbPlugin("numbers", mode="offline", dir=str(home), tags=["x"], config={"seed": 1})
    task = scheduler.task(train, plugins=plugin)
    later = scheduler.task(train_later, name="later", plugins=WandbPlugin("n", mode="offline"))
    run = scheduler.start()
    futures = [task.submit(0.5, [1, 2]), task.submit(2.0, [], note="x" * 300), later.submit(1.0)]
    results = await asyncio.wait_for(scheduler.gather(futures, return_exceptions=True), LONG_S)
    run.stop()
    assert await run == ExitCode.STOPPED
    assert (results[0], type(results[1]), results[2]) == ("train-1", OutOfLuck, "later-3")

    runs = await asyncio.to_thread(read_runs, home)
    assert sorted(runs) == ["later-3", "train-1", "train-2"]
    assert runs["train-1"] == {
        "name": "train-1",
        "project": "numbers",
        "group": runs["later-3"]["group"],
        "tags": ["x"],
        "config": {"seed": 1, "lr": 0.5, "layers": "[1, 2]"},
        "losses": [0.5, 0.25, 0.5 / 3],
        "exit code": 0,
    }
    assert runs["train-2"]["exit code"] == 1
    assert runs["train-2"]["config"]["note"] == "x" * 199 + "…"
    assert runs["later-3"]["losses"] == [1.0, 0.5, 1 / 3]
    assert runs["train-1"]["group"].startswith("search-1-20")
    assert plugin.state() == {"Project": "numbers", "Runs": 2, "Mode": "offline"}
    assert [future.call.output for future in futures] == ["", "", ""]


def surroundings() -> tuple[Any, ...]:
    """What a library may change around it."""
    return dict(os.environ), sys.exit, sys.excepthook


async def test_nothing_stays_in_the_kernel(home: Path, monkeypatch: pytest.MonkeyPatch):
    connected: list[Any] = []
    connect = socket.socket.connect

    def noting(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            connected.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noting)
    before, threads = surroundings(), set(threading.enumerate())
    processes = set(psutil.Process().children(recursive=True))
    scheduler = Scheduler.with_threads(2)
    task = scheduler.task(train, plugins=WandbPlugin("n", mode="offline"))
    run = scheduler.start(end_on_empty=True)
    futures = [task.submit(lr, []) for lr in (0.1, 0.2, 3.0)]
    await run
    assert [future.exception() is None for future in futures] == [True, True, False]
    assert connected == []
    for thread in set(threading.enumerate()) - threads:
        await asyncio.to_thread(thread.join, IN_BACKGROUND_S)
        assert not thread.is_alive()
    assert surroundings() == before
    left = set(psutil.Process().children(recursive=True)) - processes
    assert await asyncio.to_thread(psutil.wait_procs, left, IN_BACKGROUND_S) == (list(left), [])


async def test_each_attempt_of_a_call_is_a_run(home: Path):
    scheduler = Scheduler.with_threads(1)
    plugins = [WandbPlugin("n", mode="offline", dir=str(home)), Retry(2, wait=0)]
    task = scheduler.task(train, plugins=plugins)
    run = scheduler.start(end_on_empty=True)
    task.submit(3.0, [])
    await run
    runs = await asyncio.to_thread(read_runs, home)
    assert {name: each["exit code"] for name, each in runs.items()} == {"train-1": 1, "train-2": 1}
    assert plugins[0].state()["Runs"] == 2


def test_a_run_of_the_users_own_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    mine = wandb.init(project="mine", mode="disabled")
    task = Scheduler.with_sequential().task(train, plugins=WandbPlugin("n", mode="disabled"))
    try:
        futures: list[Any] = []
        task.scheduler.on_start(lambda: futures.append(task.submit(0.1, [])))
        task.scheduler.run(on_exception="continue", display=False)
        with pytest.raises(PluginError, match=r"active in this process already.*wandb\.finish"):
            futures[0].result()
        assert wandb.run is mine
    finally:
        mine.finish()
        wandb.teardown()


def test_two_of_them_on_a_task():
    with pytest.raises(PluginError, match=r"Task-train-1 has a WandbPlugin already"):
        Scheduler.with_sequential().task(train, plugins=[WandbPlugin("a"), WandbPlugin("b")])


# --- what it is made of ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"project": ""}, ValueError, "needs the name of a project"),
        ({"project": 3}, TypeError, "project=3"),
        ({"project": "p", "reinit": True}, ValueError, "reinit=True: each call is a new run"),
        ({"project": "p", "id": "x"}, ValueError, "id='x'"),
        ({"project": "p", "resume": "must"}, ValueError, "resume='must'"),
        ({"project": "p", "config": [1]}, TypeError, r"config=\[1\]: pass a mapping"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        WandbPlugin(**options)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"WandbPlugin needs wandb.*amltk-nb\[wandb\]"):
        WandbPlugin("p")
