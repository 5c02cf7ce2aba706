"""Calls as tasks of Ray: on one that the user has initialised, and on one of the scheduler's own.

Ray is one per process and takes seconds to start, so the contract runs on one for all, which is
the user's; what becomes of one of our own is seen in processes of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import BackendStartError, MissingExtraError, WorkerDiedError
from amltk_nb.scheduling.executors.ray_process import Settings, is_of_this_process
from tests.executors.contract import (
    LONG_S,
    Contract,
    Gate,
    own_threads,
    square,
    wait_at,
)
from tests.executors.driver import survivors

INIT = {
    "num_cpus": 2,
    "include_dashboard": False,
    "log_to_driver": False,
    "object_store_memory": 100 * 2**20,
}
SCRIPT_S = 150  # the longest a process of its own may take on a busy machine


@pytest.fixture(scope="class")
def users_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(**INIT)
    yield
    assert ray.is_initialized()  # it is the user's to close
    ray.shutdown()


def mark_and_wait(marks: str, gate: str, text: str) -> str:
    """Leave the pids of this worker and of a child, wait at a gate, and leave a mark again."""
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


@pytest.mark.timeout(120)  # of which Ray takes a good part to start
@pytest.mark.usefixtures("users_ray")
class TestRay(Contract):
    can_end = True

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_ray()

    def test_nothing_is_left_behind(self):
        # Its processes are the user's; those of our own are counted further down.
        threads = own_threads()
        for _ in range(3):
            with self.open() as scheduler:
                scheduler.on_start(lambda: scheduler.map(square, range(20)))
                assert scheduler.run() == ExitCode.EXHAUSTED
        assert own_threads() <= threads

    async def test_what_is_ended_runs_no_more_with_what_it_started(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        marks = tmp_path / "marks"
        run = scheduler.start(end_on_empty=True)
        victim, other = (
            scheduler.submit(mark_and_wait, str(marks), gate.path, name) for name in ("a", "b")
        )
        await gate.arrived(2)
        assert victim.cancel() is True
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(victim, LONG_S)
        assert await asyncio.to_thread(survivors, begun(marks)["a"], 5.0) == []
        gate.open()
        assert await other == "b"
        assert await run == ExitCode.EXHAUSTED
        assert [line for line in marks.read_text().splitlines() if "went on" in line] == [
            "b went on"
        ]

    async def test_stopping_now_ends_running_calls(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        marks = tmp_path / "marks"
        run = scheduler.start()
        scheduler.submit(mark_and_wait, str(marks), gate.path, "a")
        await gate.arrived(1)
        scheduler.stop(wait=False)
        await asyncio.wait_for(run.wait(), LONG_S)
        assert await asyncio.to_thread(survivors, begun(marks)["a"], 5.0) == []

    async def test_a_dead_worker_costs_its_call_only_and_nothing_runs_twice(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        marks = tmp_path / "marks"
        run = scheduler.start(end_on_empty=True)
        victim, other = (
            scheduler.submit(mark_and_wait, str(marks), gate.path, name) for name in ("a", "b")
        )
        await gate.arrived(2)
        os.kill(begun(marks)["a"][0], signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match=r"Ray: WorkerCrashedError: .* not tried again"):
            await asyncio.wait_for(victim, LONG_S)
        gate.open()
        assert await other == "b"
        assert await run == ExitCode.EXHAUSTED
        assert len(marks.read_text().splitlines()) == 3  # two began, one went on

    async def test_a_call_that_ray_has_not_begun_never_runs(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        marks = tmp_path / "marks"
        theirs = ray.remote(num_cpus=2)(wait_at).remote(gate.path)  # somebody else's, takes all
        await gate.arrived(1)
        run = scheduler.start(end_on_empty=True)
        future = scheduler.submit(note, str(marks), "ran")
        while not scheduler.backend._session._flights:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        assert future.cancel() is True
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
        gate.open()
        await asyncio.to_thread(ray.get, theirs)
        assert future.cancelled()
        assert not marks.exists()

    async def test_what_it_says_of_itself(self, scheduler: Scheduler):
        run = scheduler.start()
        assert await scheduler.submit(square, 3) == 9
        (worker,) = scheduler.backend.workers()
        backend = scheduler.snapshot().backend
        assert (backend.name, backend.n_workers, backend.cannot_end) == ("RayExecutor", 2, None)
        assert backend.waiting_since is None
        assert not backend.reports_start
        (node,) = ray.nodes()
        assert worker.name == f"{socket.gethostname()}-{node['NodeID'][:6]}"
        assert worker.where == node["NodeManagerAddress"]
        assert scheduler.records()[0]["worker"] == worker.name
        run.stop()
        await run
        assert scheduler.backend.workers() == ()

    async def test_as_many_run_at_a_time_as_their_needs_allow(self):
        scheduler = Scheduler.with_ray(cpus_per_call=0.1)
        run = scheduler.start()
        assert await scheduler.submit(square, 3) == 9
        assert scheduler.snapshot().backend.n_workers == 20
        run.stop()
        await run

    async def test_without_room_for_a_call_it_says_that_nobody_is_there(self):
        scheduler = Scheduler.with_ray(cpus_per_call=3, no_workers_after=0.5)
        told: list[float] = []
        scheduler.on_no_workers(told.append)
        scheduler.on_no_workers(scheduler.stop, max_calls=1)
        run = scheduler.start()
        future = scheduler.submit(square, 3)
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
        assert future.cancelled()
        assert told[0] >= 0.5

    async def test_another_ray_than_the_one_of_this_process_is_refused(self):
        scheduler = Scheduler.with_ray("192.0.2.1:6379")
        run = scheduler.start(on_exception="raise")
        with pytest.raises(BackendStartError, match=r"call ray\.shutdown\(\) first"):
            await asyncio.wait_for(run.wait(), LONG_S)


# --- a Ray of the scheduler's own -------------------------------------------------------------

OWN = """
import asyncio, json, os, signal, sys, threading
import psutil
from amltk_nb import Scheduler
from amltk_nb.errors import WorkerDiedError

INIT = {"object_store_memory": 100 * 2**20}

def children():
    alive = psutil.Process().children(recursive=True)
    return [p.name() for p in alive if p.status() != psutil.STATUS_ZOMBIE]

def ours():
    return [t.name for t in threading.enumerate() if t.name.startswith("amltk")]

FACTOR = 2
def scaled(x):
    return x * FACTOR

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""

TWO_SCHEDULERS = """
async def main():
    global FACTOR
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    told = {}
    one = Scheduler.with_ray(num_cpus=2, init_options=INIT)
    first = one.start()
    told["waiting_for"] = one.snapshot().backend.waiting_for
    future = one.submit(scaled, 21)
    FACTOR = 3  # what was submitted does not change
    told["scaled"] = [await future, await one.submit(scaled, 21)]
    other = Scheduler.with_ray()
    second = other.start()
    told["shared"] = await other.submit(scaled, 1)
    first.stop()  # who started it leaves first
    await first
    told["after_first"] = await asyncio.gather(*(other.submit(scaled, n) for n in range(5)))
    died = (await other.gather([other.submit(die)], return_exceptions=True))[0]
    told["died"] = type(died).__name__
    told["after_death"] = await other.submit(scaled, 5)
    told["had_raylet"] = "raylet" in children()
    second.stop()
    await second
    told["left"] = [children(), ours(), "RAY_USAGE_STATS_ENABLED" in os.environ]
    told["same_handlers"] = handlers == [
        signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)
    ]
    print("told", json.dumps(told))

asyncio.run(main())
"""

LOST = """
async def main():
    told = {}
    scheduler = Scheduler.with_ray(num_cpus=1, init_options=INIT)
    scheduler.on_start(lambda: None)
    run = scheduler.start()
    await scheduler.submit(scaled, 1)
    running, queued = scheduler.submit(signal.pause), scheduler.submit(scaled, 1)
    (victim,) = [p for p in psutil.Process().children() if p.name() == sys.argv[1]]
    victim.kill()
    state = await asyncio.wait_for(run.wait(), 60)
    told["code"], told["error"] = state.code.name, repr(state.exception)
    told["running"] = type(running.exception()).__name__
    told["queued"] = queued.cancelled()
    told["left"] = [children(), ours()]
    print("told", json.dumps(told))

asyncio.run(main())
"""


def run_alone(code: str, tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Run a script in a session of its own; all it prints is one line, which is returned."""
    (tmp_path / "script.py").write_text(OWN + code)
    out = tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "script.py", *arguments],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status = process.wait(SCRIPT_S)
    finally:
        process.kill()
        process.wait()
    text = out.read_text()
    assert (status, text.splitlines()[0].split()[0], len(text.splitlines())) == (0, "told", 1), text
    told: dict[str, Any] = json.loads(text.removeprefix("told "))
    return told


@pytest.mark.timeout(SCRIPT_S + 30)
def test_one_of_our_own_is_shared_and_shut_down_by_the_last(tmp_path: Path):
    assert run_alone(TWO_SCHEDULERS, tmp_path) == {
        "waiting_for": "RayExecutor to start",
        "scaled": [42, 63],
        "shared": 3,
        "after_first": [0, 3, 6, 9, 12],
        "died": "WorkerDiedError",
        "after_death": 15,
        "had_raylet": True,
        "left": [[], [], False],
        "same_handlers": True,
    }


@pytest.mark.timeout(SCRIPT_S + 30)
@pytest.mark.parametrize("process", ["gcs_server", "raylet"])
def test_a_ray_that_is_gone_ends_the_run_and_not_the_kernel(process: str, tmp_path: Path):
    told = run_alone(LOST, tmp_path, process)
    assert "BackendLostError('Ray does not answer any more" in told.pop("error")
    assert told == {
        "code": "EXCEPTION",
        "running": "BackendLostError",
        "queued": True,
        "left": [[], []],
    }


# --- before anything is started ---------------------------------------------------------------


async def test_a_wrong_address_is_an_error_within_seconds():
    with socket.socket() as listener:  # a port that is surely free once it is closed
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    scheduler = Scheduler.with_ray(f"127.0.0.1:{port}")
    run = scheduler.start()
    future = scheduler.submit(square, 3)
    state = await asyncio.wait_for(run.wait(), LONG_S)
    assert state == ExitCode.EXCEPTION
    assert isinstance(state.exception, BackendStartError)
    assert f"Nothing answers at 127.0.0.1:{port}" in str(state.exception)
    assert f"ray start --head --port {port}" in str(state.exception)
    assert future.cancelled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_cpus": 0}, "num_cpus=0 leaves nobody"),
        ({"address": 2}, "num_cpus=2"),
        ({"num_cpus": 2, "address": "10.0.0.1:6379"}, "num_cpus= is for a new one"),
        ({"cpus_per_call": 0}, "more than 0"),
        ({"cpus_per_call": "1"}, "must be a number"),
        ({"call_options": {"max_retries": 3}}, "cannot set max_retries"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        Scheduler.with_ray(**arguments)


def test_a_ray_that_is_being_imported_on_another_thread_is_none_yet(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    assert is_of_this_process(Settings())  # calls that report are packed meanwhile


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "amltk_nb.scheduling.executors.ray.find_spec", lambda name: None if name == "ray" else 1
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'amltk-nb\[ray\]'"):
        Scheduler.with_ray()
