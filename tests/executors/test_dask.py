"""Calls on Dask: a cluster of our own, one from the command line, a client of the user's."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import distributed
import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import (
    BackendError,
    BackendLostError,
    BackendStartError,
    MissingExtraError,
    WorkerDiedError,
)
from amltk_nb.scheduling.executors.dask_local import LocalDask
from tests.executors.contract import LONG_S, Contract, Gate, open_gate, square, wait_at
from tests.executors.dask_processes import DaskProcesses, dask_processes, free_port
from tests.executors.driver import survivors

FACTOR = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask"), 2) as processes:
        yield processes


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async with open_gate() as gate:
        yield gate


def mark_and_wait(marks: str, gate: str, text: str) -> str:
    with open(marks, "a") as file:
        file.write(f"{text} {os.getpid()}\n")
    return wait_at(gate, text)


def started(marks: Path) -> list[list[str]]:
    return [line.split() for line in marks.read_text().splitlines()]


async def a_worker_dies(scheduler: Scheduler, gate: Gate, marks: Path) -> None:
    """Two calls run; the worker of one is killed: only that call fails, and it runs only once."""
    run = scheduler.start(end_on_empty=True)
    victim, other = (scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "vo")
    queued = scheduler.map(square, range(5))
    await gate.arrived(2)
    os.kill(int(dict(started(marks))["v"]), signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match=r"The Dask worker tcp://127\.0\.0\.1:\d+ died"):
        await asyncio.wait_for(victim, LONG_S)
    gate.open()
    assert await asyncio.wait_for(other, LONG_S) == "o"
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.EXHAUSTED
    assert [future.result() for future in queued] == [0, 1, 4, 9, 16]
    assert sorted(name for name, _ in started(marks)) == ["o", "v"]


class TestDaskOfOurOwn(Contract):
    can_end = True

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_dask(n_workers=2)

    async def test_a_dead_worker_costs_its_call_and_is_replaced(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        await a_worker_dies(scheduler, gate, tmp_path / "marks")

    async def test_a_call_in_compiled_code_is_ended_and_its_slot_comes_back(
        self, gate: Gate, tmp_path: Path
    ):
        def hold_the_interpreter(marks: str) -> None:
            wait_at(gate_path)
            with open(marks, "a") as file:
                file.write("began\n")
            ctypes.PyDLL(None).sleep(600)  # nothing else runs in its process meanwhile

        gate_path, marks = gate.path, tmp_path / "marks"
        scheduler = Scheduler.with_dask(n_workers=1)
        run = scheduler.start(end_on_empty=True)
        victim = scheduler.submit(hold_the_interpreter, str(marks))
        behind = scheduler.submit(square, 4)
        await gate.arrived(1)
        gate.open()
        assert scheduler.cancel(victim) is True
        assert await asyncio.wait_for(behind, LONG_S) == 16
        assert victim.cancelled()
        assert await run == ExitCode.EXHAUSTED

    async def test_the_port_of_another_ones_dashboard_is_left_alone(self, scheduler: Scheduler):
        with socket.socket() as theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # somebody on this machine has one: just as well
                theirs.bind(("127.0.0.1", 8787))
                theirs.listen()
            run = scheduler.start(end_on_empty=True)  # Dask would warn, which fails tests
            assert await asyncio.wait_for(scheduler.submit(square, 3), LONG_S) == 9
            assert await run == ExitCode.EXHAUSTED

    async def test_answers_may_come_before_the_submission_has_returned(
        self, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
    ):
        submitted = distributed.Client.map

        def slow(*args: Any, **options: Any) -> Any:
            futures = submitted(*args, **options)
            time.sleep(0.2)
            return futures

        monkeypatch.setattr(distributed.Client, "map", slow)
        run = scheduler.start(end_on_empty=True)
        futures = [scheduler.submit(square, n) for n in range(6)]
        gathered = scheduler.gather(futures)
        assert await asyncio.wait_for(gathered, LONG_S) == [0, 1, 4, 9, 16, 25]
        assert await run == ExitCode.EXHAUSTED

    async def test_each_call_says_where_it_ran(self, scheduler: Scheduler, gate: Gate):
        assert scheduler.snapshot().backend.n_workers == 0
        run = scheduler.start()
        assert scheduler.snapshot().backend.waiting_for is not None
        futures = [scheduler.submit(wait_at, gate.path) for _ in range(2)]
        await gate.arrived(2)
        workers = scheduler.snapshot().workers
        gate.open()
        await scheduler.gather(futures)
        names = {record["worker"] for record in scheduler.records()}
        assert names == {worker.name for worker in workers}
        assert len(names) == 2
        assert {worker.where for worker in workers} == {"127.0.0.1"}
        backend = scheduler.snapshot().backend
        assert (backend.n_workers, backend.waiting_for, backend.reports_start) == (2, None, False)
        run.stop()
        await run

    def test_a_script_needs_no_main_guard(self, tmp_path: Path):
        script = tmp_path / "script.py"
        script.write_text(
            "from amltk_nb import Scheduler\n"
            "print('once')\n"
            "factor = 3\n"
            "scheduler = Scheduler.with_dask(n_workers=1)\n"
            "@scheduler.on_start\n"
            "def go():\n"
            "    scheduler.submit(lambda x: factor * x, 14).add_done_callback(\n"
            "        lambda f: print(f.result()))\n"
            "print(scheduler.run())\n"
        )
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=LONG_S, check=True
        )
        assert done.stdout.split() == ["once", "42", "exhausted"]
        assert done.stderr == ""

    def test_workers_end_with_a_process_that_is_killed(self, tmp_path: Path):
        script = tmp_path / "script.py"
        script.write_text(
            "import os, signal, time\n"
            "from amltk_nb import Scheduler\n"
            "scheduler = Scheduler.with_dask(n_workers=2)\n"
            "@scheduler.on_start\n"
            "def go():\n"
            "    scheduler.submit(os.getpid)\n"
            "@scheduler.on_future_result\n"
            "def told():\n"
            "    scheduler.submit(time.sleep, 600)\n"
            "    print(*(w.pid for w in scheduler.backend.workers()), flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "scheduler.run()\n"
        )
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=LONG_S, check=False
        )
        assert done.returncode == -signal.SIGKILL
        pids = [int(pid) for pid in done.stdout.split()]
        assert len(pids) >= 1
        assert survivors(pids, 10) == []


class TestDaskFromTheCommandLine(Contract):
    @pytest.fixture(autouse=True)
    def keep_cluster(self, cluster: DaskProcesses) -> None:
        self.cluster = cluster

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_dask(self.cluster.address)

    async def test_a_dead_worker_costs_its_call(
        self, scheduler: Scheduler, gate: Gate, tmp_path: Path
    ):
        try:
            await a_worker_dies(scheduler, gate, tmp_path / "marks")
        finally:
            self.cluster.add_worker()

    async def test_equal_calls_all_run(self, scheduler: Scheduler, tmp_path: Path):
        def mark(path: str) -> None:
            with open(path, "a") as file:
                file.write("x")

        marks = tmp_path / "marks"
        run = scheduler.start(end_on_empty=True)
        for _ in range(20):
            scheduler.submit(mark, str(marks))
        await run
        assert marks.read_text() == 20 * "x"

    async def test_names_that_dask_keeps_for_itself_reach_the_function(self, scheduler: Scheduler):
        def told(**kwargs: Any) -> dict[str, Any]:
            return kwargs

        names = {"pure": None, "retries": 1, "workers": "w", "key": "k", "priority": 2}
        run = scheduler.start(end_on_empty=True)
        assert await scheduler.submit(told, **names) == names
        await run

    async def test_a_global_that_changes_between_calls(self, scheduler: Scheduler):
        space: dict[str, Any] = {"__name__": "__main__"}
        exec("factor = 3\ndef times(x): return factor * x", space)
        run = scheduler.start(end_on_empty=True)
        first = scheduler.submit(space["times"], 5)
        space["factor"] = 4
        second = scheduler.submit(space["times"], 5)
        assert await scheduler.gather([first, second]) == [15, 20]
        await run


async def test_a_client_of_yours_stays_open(cluster: DaskProcesses):
    client = await asyncio.to_thread(distributed.Client, cluster.address, set_as_default=False)
    scheduler = Scheduler.with_dask(client)
    for n in (1, 2):
        run = scheduler.start(end_on_empty=True)
        assert await scheduler.submit(square, n) == n * n
        assert await run == ExitCode.EXHAUSTED
        assert client.status == "running"
    await asyncio.to_thread(client.close)
    with pytest.raises(
        BackendStartError, match="The Dask client passed to the scheduler is closed"
    ):
        await scheduler.async_run()


async def test_an_asynchronous_client_is_refused(cluster: DaskProcesses):
    async with distributed.Client(
        cluster.address, asynchronous=True, set_as_default=False
    ) as client:
        with pytest.raises(TypeError, match="asynchronous client"):
            Scheduler.with_dask(client)


@pytest.mark.parametrize("policy", ["raise", "end", "continue"])
async def test_nobody_at_the_address(policy: Any):
    scheduler = Scheduler.with_dask(f"tcp://127.0.0.1:{free_port()}", connect_timeout=0.3)
    run = scheduler.start(on_exception=policy)
    waiting = scheduler.submit(square, 3)
    if policy == "raise":
        with pytest.raises(BackendStartError, match=r"No Dask scheduler answers at tcp://127"):
            await asyncio.wait_for(run.wait(), LONG_S)
    else:
        state = await asyncio.wait_for(run.wait(), LONG_S)
        assert state == ExitCode.EXCEPTION
        assert isinstance(state.exception, BackendStartError)
    assert waiting.cancelled()


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"])
async def test_somebody_else_at_the_address(greeting: bytes):
    """What is no Dask scheduler may say nothing at all, or something else."""
    leaving: list[asyncio.StreamWriter] = []

    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        leaving.append(writer)

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    scheduler = Scheduler.with_dask(f"tcp://127.0.0.1:{port}", connect_timeout=0.5)
    state = await asyncio.wait_for(scheduler.start().wait(), LONG_S)
    assert isinstance(state.exception, BackendStartError)
    assert "is no Dask scheduler" in str(state.exception)

    patient = Scheduler.with_dask(f"tcp://127.0.0.1:{port}", connect_timeout=600)
    run = patient.start()
    run.stop()  # it does not wait for somebody who may never speak
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
    for writer in leaving:
        writer.close()
    server.close()


async def test_an_address_with_tls_needs_certificates():
    scheduler = Scheduler.with_dask("tls://127.0.0.1:8786", connect_timeout=0.5)
    state = await asyncio.wait_for(scheduler.start().wait(), LONG_S)
    assert isinstance(state.exception, BackendStartError)
    assert "with_dask(Client(" in str(state.exception)


def test_a_client_is_no_executor():
    client = distributed.Client.__new__(distributed.Client)  # as good as one that is connected
    with pytest.raises(TypeError, match=r"use Scheduler.with_dask\(client\)"):
        Scheduler(client)


@pytest.mark.parametrize("wrong", [3, object, [1]])
def test_what_is_no_cluster_is_refused(wrong: Any):
    with pytest.raises(TypeError, match="pass an address such as"):
        Scheduler.with_dask(wrong)


def test_workers_of_somebody_elses_cluster_cannot_be_wished_for():
    with pytest.raises(TypeError, match="the number of workers is that of the cluster there"):
        Scheduler.with_dask("tcp://127.0.0.1:8786", n_workers=3)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"memory_limit": "6 gigs"}, ValueError, "Write it as '6 GB'"),
        ({"connect_timeout": "10"}, TypeError, "connect_timeout='10' must be a number: seconds to"),
        ({"connect_timeout": 0}, ValueError, "connect_timeout=0 must be positive"),
        ({"no_workers_after": "1m"}, TypeError, "no_workers_after='1m' must be a number"),
    ],
)
def test_times_and_sizes_that_make_no_sense_are_refused(
    options: dict[str, Any], kind: type[Exception], says: str
):
    with pytest.raises(kind, match=says):
        Scheduler.with_dask(**options)


@pytest.mark.parametrize("limit", [0, None, "auto", 0.5, "6 GB", 10**9])
def test_memory_limits_as_dask_takes_them(limit: Any):
    Scheduler.with_dask(memory_limit=limit)


async def test_workers_that_never_get_up_end_the_run(monkeypatch: pytest.MonkeyPatch):
    settings = LocalDask._settings

    def wrong(self: LocalDask, name: str) -> dict[str, Any]:
        told = settings(self, name)
        told["worker"]["local_directory"] = "/dev/null/nowhere"
        return told

    monkeypatch.setattr(LocalDask, "_settings", wrong)
    monkeypatch.setattr("amltk_nb.scheduling.executors.dask_local._MAX_QUICK_DEATHS", 1)
    scheduler = Scheduler.with_dask(n_workers=1)
    run = scheduler.start()
    waiting = scheduler.submit(square, 2)
    state = await asyncio.wait_for(run.wait(), LONG_S)
    assert isinstance(state.exception, BackendLostError)
    assert "end as soon as they start (exit code 1)" in str(state.exception)
    assert "/dev/null/nowhere" in str(state.exception)  # the worker's own last words
    assert waiting.cancelled()


@pytest.mark.parametrize("name", ["n_workers", "threads_per_worker"])
def test_too_few_workers_are_named_as_the_user_did(name: str):
    with pytest.raises(ValueError, match=f"^{name}=0 leaves nobody"):
        Scheduler.with_dask(**{name: 0})


@pytest.mark.parametrize("wrong", [-1, 0.5, True])
def test_a_wrong_number_of_calls_ahead_is_refused(wrong: Any):
    with pytest.raises(ValueError, match="n_ahead="):
        Scheduler.with_dask(n_ahead=wrong)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, None),
        ({"n_ahead": 1}, None),
        ({"threads_per_worker": 2}, "with threads_per_worker above 1"),
        ({"address_or_client": "tcp://127.0.0.1:1"}, "these workers are not ours to end"),
    ],
)
def test_when_a_running_call_cannot_be_ended(options: dict[str, Any], why: str | None):
    cannot_end = Scheduler.with_dask(**options).snapshot().backend.cannot_end
    assert (cannot_end is None) if why is None else (why in (cannot_end or ""))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'amltk-nb\[dask\]'"):
        Scheduler.with_dask()


async def test_a_worker_without_this_package_runs_calls(tmp_path: Path, gate: Gate):
    def here(path: str) -> tuple[bool, int]:
        wait_at(path)
        return sys.modules["amltk_nb"] is None, FACTOR * 2

    def wait_at(path: str) -> None:
        import socket

        with socket.socket(socket.AF_UNIX) as line:
            line.connect(path)
            line.recv(1)

    def fail() -> None:
        raise KeyError("nobody")

    here.__module__ = wait_at.__module__ = fail.__module__ = "__main__"  # as in a notebook
    with DaskProcesses(tmp_path) as processes:
        processes.add_worker(without_package=True)
        scheduler = Scheduler.with_dask(processes.address, connect_timeout=LONG_S)
        run = scheduler.start()
        answer = scheduler.submit(here, gate.path)
        await gate.arrived(1)
        gate.open()
        assert await answer == (True, 6)
        with pytest.raises(KeyError, match="nobody"):
            await scheduler.submit(fail)
        run.stop()
        await run


async def test_a_worker_of_another_version_is_an_error_that_says_so(tmp_path: Path):
    with DaskProcesses(tmp_path) as processes:
        processes.add_worker(other_version=True)
        scheduler = Scheduler.with_dask(processes.address, connect_timeout=LONG_S)
        run = scheduler.start()
        call = scheduler.submit(square, 3)
        with pytest.raises(BackendError, match="needs the Python and the cloudpickle of here"):
            await asyncio.wait_for(call, LONG_S)
        run.stop()
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED


async def test_all_workers_gone_and_the_scheduler_too(tmp_path: Path, gate: Gate):
    with DaskProcesses(tmp_path) as processes:
        worker = processes.add_worker()
        scheduler = Scheduler.with_dask(
            processes.address, connect_timeout=LONG_S, no_workers_after=0.5
        )
        scheduler.backend.poll_s = 0.1
        alone = asyncio.Event()
        told: list[float] = []

        @scheduler.on_no_workers
        def no_workers(seconds: float) -> None:
            told.append(seconds)
            alone.set()

        run = scheduler.start()
        await asyncio.wait_for(scheduler.submit(square, 2), LONG_S)
        n_before = len(told)
        alone.clear()
        worker.kill()
        waiting = scheduler.submit(square, 3)
        await asyncio.wait_for(alone.wait(), LONG_S)
        assert told[n_before] >= 0.5
        backend = scheduler.snapshot().backend
        assert (backend.n_workers, backend.waiting_for) == (0, "workers of DaskExecutor")
        processes.add_worker()
        try:
            assert await asyncio.wait_for(waiting, LONG_S) == 9
        except WorkerDiedError:  # it was handed over before its worker's death was known
            assert await asyncio.wait_for(scheduler.submit(square, 3), LONG_S) == 9
        under_way, queued = (scheduler.submit(wait_at, gate.path) for _ in range(2))
        await gate.arrived(1)
        processes.scheduler.kill()
        with pytest.raises(BackendLostError, match="The connection to the Dask scheduler at tcp"):
            await asyncio.wait_for(under_way, LONG_S)
        state = await asyncio.wait_for(run.wait(), LONG_S)
        assert state == ExitCode.EXCEPTION
        assert isinstance(state.exception, BackendLostError)
        assert queued.cancelled()
        assert gate.n_arrived == 1


@pytest.mark.parametrize(
    "wrong", ["nonsense", "tcp://127.0.0.1", "127.0.0.1:http", "http://127.0.0.1:8787/status"]
)
async def test_what_is_no_address_is_said_at_once(wrong: str):
    scheduler = Scheduler.with_dask(wrong, connect_timeout=LONG_S)
    state = await asyncio.wait_for(scheduler.start().over(), LONG_S / 2)
    assert state == ExitCode.EXCEPTION
    assert "an address is written like tcp://127.0.0.1:8786" in str(state.exception)
    assert "answers" not in str(state.exception)  # nobody was asked


async def test_stopping_while_nobody_answers_does_not_wait_for_the_time_to_connect():
    scheduler = Scheduler.with_dask(f"tcp://127.0.0.1:{free_port()}", connect_timeout=600)
    run = scheduler.start()
    waiting = scheduler.submit(square, 2)
    run.stop()
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
    assert waiting.cancelled()
