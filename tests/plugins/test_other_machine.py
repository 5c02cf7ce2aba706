"""Workers on another machine: a network of their own, from which only addresses lead here.

A network namespace has its own interfaces and its own sockets, so that of this machine (an
abstract AF_UNIX one) is not found from there: what is said goes over TCP, as between machines.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from amltk_nb import ExitCode, Progress, Scheduler
from amltk_nb.errors import WorkerDiedError
from amltk_nb.scheduling.snapshot import ProgressRecord
from amltk_nb.scheduling.transports.remote import HOST_VARIABLE
from tests.executors.dask_processes import ROOT
from tests.plugins import talkers
from tests.plugins.contract import LONG_S
from tests.plugins.talk_contract import ended, talking

# Of a range that is set apart for tests of networks; two runs at a time are to get along.
HERE, THERE = (f"198.18.{os.getpid() % 250}.{n}" for n in (1, 2))

pytestmark = pytest.mark.may_block


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=LONG_S)


@contextmanager
def process(*command: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start something in a session of its own, and end it with all it has started."""
    with (folder / f"{len(list(folder.iterdir()))}.log").open("wb") as log:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
                "DASK_TEMPORARY_DIRECTORY": str(folder),
            },
            start_new_session=True,
        )
    try:
        yield started
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextmanager
def other_machine(folder: Path) -> Iterator[list[str]]:
    """Make a network that is joined to ours by one cable; yields how to start something in it."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        pytest.skip("a network namespace needs root and the commands ip, unshare and nsenter")
    with ExitStack() as undo:
        holder = undo.enter_context(process("unshare", "--net", "sleep", "600", folder=folder))
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{holder.pid}/ns/net").st_ino == own:
            assert holder.poll() is None, "network namespaces are not allowed here"
            os.sched_yield()
        inside = ["nsenter", "--target", str(holder.pid), "--net"]
        near, far = f"amltk{holder.pid % 10**6}a", f"amltk{holder.pid % 10**6}b"
        try:
            ip("link", "add", near, "type", "veth", "peer", "name", far)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no virtual cable can be laid here: {error.stderr.strip()}")
        undo.callback(subprocess.run, ["ip", "link", "del", near], check=False, capture_output=True)
        ip("link", "set", far, "netns", str(holder.pid))
        ip("addr", "add", f"{HERE}/30", "dev", near)
        ip("link", "set", near, "up")
        for words in (("addr", "add", f"{THERE}/30", "dev", far), ("link", "set", far, "up")):
            subprocess.run([*inside, "ip", *words], check=True, timeout=LONG_S)
        yield inside


class Cluster:
    """Dask's scheduler on this machine, its worker on the other one."""

    def __init__(self, inside: list[str], folder: Path, undo: ExitStack) -> None:
        self._inside, self._folder, self._undo = inside, folder, undo
        with socket.create_server((HERE, 0)) as found:
            port = str(found.getsockname()[1])
        self.address = f"tcp://{HERE}:{port}"
        self._start("dask_scheduler", "--host", HERE, "--port", port)
        self.add_worker()

    def add_worker(self) -> None:
        options = ["--nthreads", "1", "--no-nanny", "--host", THERE]
        self._start("dask_worker", self.address, *options, prefix=self._inside)

    def _start(self, what: str, *options: str, prefix: list[str] | None = None) -> None:
        module = f"distributed.cli.{what}"
        command = [*(prefix or []), sys.executable, "-m", module, *options, "--no-dashboard"]
        self._undo.enter_context(process(*command, folder=self._folder))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("other")
    with other_machine(folder) as inside, ExitStack() as undo:
        yield Cluster(inside, folder, undo)


@pytest.fixture
async def scheduler(cluster: Cluster) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler.with_dask(cluster.address, connect_timeout=LONG_S)
    yield scheduler
    if scheduler.running():
        scheduler.stop(wait=False)
        await scheduler.last_run.over()


def listening_on() -> set[str]:
    connections = psutil.Process().net_connections("tcp")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


async def test_a_call_there_talks_and_all_it_says_comes_before_its_end(scheduler: Scheduler):
    asking, told = talking(scheduler, talkers.ask_thrice)
    pouring, poured = talking(scheduler, talkers.pour)
    asking.on("comm-request", lambda msg: msg.respond(msg.data * 2))
    before = listening_on()
    run = scheduler.start(end_on_empty=True)
    futures = [asking.submit(2), pouring.submit(0, 3_000), *(pouring.submit(0, 1),) * 1]
    assert listening_on() - before == {HERE}
    assert await ended(futures[0]) == [1.0, 3.0]
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
    assert [name for name, _ in told] == [
        "comm-open",
        *["comm-message", "comm-request"] * 2,
        "comm-close",
        "returned",
    ]
    assert [data for name, data in poured if name == "comm-message"] == [*range(3_000), 0]
    assert [name for name, _ in poured].index("returned") == 3_002
    assert listening_on() == before


async def test_its_progress_and_what_it_prints_come_as_well(scheduler: Scheduler):
    task = scheduler.task(talkers.count_with_tqdm, plugins=Progress())
    run = scheduler.start(end_on_empty=True)
    future = task.submit(50)
    assert await ended(future) == 50
    await run
    assert future.call.progress == ProgressRecord(n=50, total=50, metrics={"loss": "1.0"})
    assert "50/50" in future.call.output


async def test_its_worker_is_killed_in_the_midst_of_a_request(
    scheduler: Scheduler, cluster: Cluster
):
    task, told = talking(scheduler, talkers.ask_with_pid)
    task.on("comm-request", lambda msg: os.kill(msg.data, signal.SIGKILL))
    run = scheduler.start(end_on_empty=True)
    try:
        with pytest.raises(WorkerDiedError):
            await ended(task.submit())
        await run
    finally:
        cluster.add_worker()
    names = [name for name, _ in told]
    assert names == ["comm-open", "comm-request", "comm-close", "failed"]


async def test_what_cannot_be_reached_from_there_is_said_in_the_call(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(HOST_VARIABLE, "127.0.0.1")  # which leads nowhere from there
    asking, _ = talking(scheduler, talkers.open_with_ack)
    counting = scheduler.task(talkers.count_up, plugins=Progress())
    run = scheduler.start(end_on_empty=True)
    asked, counted = asking.submit(), counting.submit(1_000)
    kind, text = await ended(asked)
    assert kind == "CommClosedError"
    assert "cannot reach the scheduler at 127.0.0.1:" in text
    assert f"the environment variable {HOST_VARIABLE} names the address" in text
    assert await ended(counted) == 1_000
    await run
    assert counted.call.progress is None
    assert "no progress is shown of this worker's calls" in counted.call.output
