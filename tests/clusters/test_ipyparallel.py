"""Calls on engines of ipyparallel: those of the user, and those of a cluster of our own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel
import psutil
import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import BackendStartError, MissingExtraError, WorkerDiedError
from tests.executors.contract import (
    LONG_S,
    Contract,
    Gate,
    open_gate,
    own_threads,
    square,
    wait_at,
)
from tests.executors.driver import survivors

pytestmark = [
    pytest.mark.timeout(120),  # engines take seconds to start, more on a busy machine
    pytest.mark.skipif(
        not os.environ.get("AMLTK_NB_WHOLE_CONTRACT"), reason="a part of make test-clusters"
    ),
]


@pytest.fixture(scope="class")
def users_client() -> Iterator[Any]:
    cluster = ipyparallel.Cluster(n=2, log_level=40)
    cluster.start_cluster_sync()
    client = cluster.connect_client_sync()
    client.wait_for_engines(2, interactive=False, timeout=100)
    yield client
    assert client.ids  # they are the user's to stop
    assert client[:].apply_sync(os.getpid)
    client.close()
    cluster.stop_cluster_sync()


def mark_and_wait(marks: str, gate: str, text: str) -> str:
    """Leave the pids of this engine and of a child, wait at a gate, and leave a mark again."""
    child = subprocess.Popen(["sleep", "600"])
    note(marks, f"{text} {os.getpid()} {child.pid}")
    wait_at(gate)
    child.kill()
    child.wait()
    note(marks, f"{text} went on")
    return text


def note(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def begun(marks: Path) -> dict[str, list[int]]:
    lines = [line.split() for line in marks.read_text().splitlines()]
    return {text: [int(pid) for pid in pids] for text, *pids in lines if pids != ["went", "on"]}


class TestUsersEngines(Contract):
    @pytest.fixture(autouse=True)
    def take_client(self, users_client: Any) -> None:
        self.client = users_client

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_ipyparallel(self.client)

    def test_nothing_is_left_behind(self):
        # Its processes are the user's; those of our own are counted further down.
        threads = own_threads()
        for _ in range(3):
            with self.open() as scheduler:
                scheduler.on_start(lambda: scheduler.map(square, range(20)))
                assert scheduler.run() == ExitCode.EXHAUSTED
        assert own_threads() <= threads

    async def test_an_edited_global_counts_from_the_next_call_on(self, scheduler: Scheduler):
        space: dict[str, Any] = {"__name__": "__main__"}  # as a notebook's functions are
        exec("FACTOR = 2\ndef scaled(x):\n    return x * FACTOR", space)
        run = scheduler.start(end_on_empty=True)
        first = scheduler.submit(space["scaled"], 21)
        space["FACTOR"] = 3
        second = scheduler.submit(space["scaled"], 21)
        assert await scheduler.gather([first, second]) == [42, 63]
        assert await run == ExitCode.EXHAUSTED

    async def test_what_it_says_of_itself(self, scheduler: Scheduler):
        run = scheduler.start()
        assert await scheduler.submit(square, 3) == 9
        names = {worker.name for worker in scheduler.backend.workers()}
        assert names == {f"engine-{engine}" for engine in self.client.ids}
        assert scheduler.records()[0]["worker"] in names
        backend = scheduler.snapshot().backend
        assert (backend.name, backend.n_workers) == ("IPyParallelExecutor", 2)
        assert "engine that runs it is yours" in str(backend.cannot_end)
        run.stop()
        await run

    async def test_a_dead_engine_is_an_error_and_not_waited_for(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        # The last one of this class: the user's engine is gone for good.
        marks = tmp_path / "marks"
        run = scheduler.start(end_on_empty=True)
        victim, other = (
            scheduler.submit(mark_and_wait, str(marks), gate.path, name) for name in ("a", "b")
        )
        await gate.arrived(2)
        os.kill(begun(marks)["a"][0], signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match=r"ipyparallel: engine-\d died"):
            await asyncio.wait_for(victim, LONG_S)
        gate.open()
        assert await other == "b"
        assert await run == ExitCode.EXHAUSTED
        assert len(marks.read_text().splitlines()) == 3  # two began, one went on
        os.kill(begun(marks)["a"][1], signal.SIGKILL)  # what it had started is nobody's now


def our_children() -> list[psutil.Process]:
    alive = psutil.Process().children(recursive=True)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.may_block  # ipyparallel starts processes on a loop of its own, in a thread of ours
async def test_engines_of_our_own_from_start_to_end(tmp_path: Path):
    before, threads = set(our_children()), own_threads()
    marks = tmp_path / "marks"
    scheduler = Scheduler.with_ipyparallel(n=2)
    async with open_gate() as gate:
        run = scheduler.start()
        assert scheduler.snapshot().backend.waiting_for == "IPyParallelExecutor to start"
        a, b = (scheduler.submit(mark_and_wait, str(marks), gate.path, name) for name in ("a", "b"))
        await gate.arrived(2)
        assert a.cancel() is True
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(a, LONG_S)
        assert await asyncio.to_thread(survivors, begun(marks)["a"], 5.0) == []
        c = scheduler.submit(mark_and_wait, str(marks), gate.path, "c")  # on the one in its place
        await gate.arrived(3)
        assert begun(marks)["c"][0] not in (begun(marks)["a"][0], begun(marks)["b"][0])
        gate.open()
        assert await scheduler.gather([b, c]) == ["b", "c"]
    async with open_gate() as gate:
        d = scheduler.submit(mark_and_wait, str(marks), gate.path, "d")
        await gate.arrived(1)
        scheduler.stop(wait=False)
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
    assert d.cancelled()
    assert await asyncio.to_thread(survivors, begun(marks)["d"], 5.0) == []
    went_on = [line for line in marks.read_text().splitlines() if line.endswith("went on")]
    assert sorted(went_on) == ["b went on", "c went on"]
    assert set(our_children()) <= before
    assert own_threads() <= threads


async def test_a_profile_where_nothing_runs_is_an_error_within_seconds():
    scheduler = Scheduler.with_ipyparallel("nobody-has-this-profile", connect_timeout=0.5)
    run = scheduler.start()
    state = await asyncio.wait_for(run.wait(), LONG_S)
    assert state == ExitCode.EXCEPTION
    assert isinstance(state.exception, BackendStartError)
    assert "ipcluster start --profile=nobody-has-this-profile" in str(state.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n=0 leaves nobody"),
        ({"client_or_profile": "default", "n": 2}, "for a cluster that the scheduler starts"),
        ({"client_or_profile": 3}, r"pass an ipyparallel\.Client"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        Scheduler.with_ipyparallel(**arguments)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "amltk_nb.scheduling.executors.ipyparallel.find_spec",
        lambda name: None if name == "ipyparallel" else 1,
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'amltk-nb\[ipyparallel\]'"):
        Scheduler.with_ipyparallel()
