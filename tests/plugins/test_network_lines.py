"""Lines over TCP: who is heard, when anything listens, and what cannot be reached."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from amltk_nb import Comm, ExitCode, Progress, Scheduler
from amltk_nb.errors import CommClosedError
from amltk_nb.scheduling.executors import reach
from amltk_nb.scheduling.transports import remote_end, sealed
from amltk_nb.scheduling.transports.remote import HOST_VARIABLE
from amltk_nb.scheduling.transports.remote_end import RemoteTicket
from amltk_nb.scheduling.transports.socket_end import SocketTicket, message_parts
from tests.plugins import talkers
from tests.plugins.contract import LONG_S

# A loky executor starts its processes where it is made.
pytestmark = pytest.mark.may_block


@pytest.fixture
def by_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOST_VARIABLE, "127.0.0.1")


def listening() -> set[int]:
    """Return the ports on which this process listens by TCP."""
    connections = psutil.Process().net_connections("tcp")
    return {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Held:
    """A call that has a comm and leaves it to the test to speak in its place."""

    def __init__(self, ticket: Any) -> None:
        self.near, self.place, _, self.number, self.token = ticket.__reduce__()[1]
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    def frames(self, nonce: bytes, *bodies: Any, token: bytes | None = None) -> list[bytes]:
        """Make what the call would send, frame by frame, by its own code."""
        made = []
        here, there = socket.socketpair()
        with closing(here), closing(there):
            channel = sealed.called(here.fileno(), nonce, token or self.token)
            for body in bodies:
                channel.post(message_parts(("message", None), body))
                made.append(there.recv(1 << 16))
        return made

    def greeting(self, nonce: bytes) -> bytes:
        return sealed.greeting(self.number, nonce, self.token)

    async def is_hung_up_on(self, *said: bytes) -> bool:
        """Say something to the scheduler; returns whether it wants to hear no more."""
        with closing(socket.create_connection(self.place)) as line:
            line.sendall(b"".join(said))
            line.setblocking(False)
            try:
                got = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(line, 1), LONG_S)
            except ConnectionResetError:
                return True
            return got == b""


@asynccontextmanager
async def held_call(folder: Path) -> AsyncIterator[Held]:
    fifo = str(folder / "fifo")
    os.mkfifo(fifo)
    scheduler = Scheduler.with_loky(1)
    task = scheduler.task(talkers.hold, plugins=Comm.Plugin())
    run = scheduler.start(end_on_empty=True)
    future = task.submit(fifo)
    held = Held(future.call.work[2]["comm"].ticket)
    task.on("comm-message", lambda msg: held.heard.put_nowait(msg.data))
    yield held
    with open(fifo, "w"):
        pass  # the call goes on
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
    if held.place is not None:
        with closing(socket.socket()) as late, pytest.raises(ConnectionRefusedError):
            late.connect(held.place)


def nonce() -> bytes:
    return secrets.token_bytes(sealed.NONCE_BYTES)


@pytest.mark.usefixtures("by_network")
@pytest.mark.parametrize("known", ["nothing", "its number", "another line's token"])
async def test_who_does_not_know_the_token_is_not_heard(tmp_path: Path, known: str):
    async with held_call(tmp_path) as held:
        assert held.near is None
        token = held.token if known == "another line's token" else secrets.token_bytes(16)
        number = held.number + (known != "its number")
        once = nonce()
        assert await held.is_hung_up_on(
            sealed.greeting(number, once, token),
            *held.frames(once, Bomb(tmp_path / "evil"), token=token),
        )
        assert held.heard.empty()
    assert not (tmp_path / "evil").exists()


@pytest.mark.usefixtures("by_network")
async def test_what_was_overheard_cannot_be_said_again(tmp_path: Path):
    async with held_call(tmp_path) as held:
        once = nonce()
        said = held.greeting(once), *held.frames(once, "once")
        with closing(socket.create_connection(held.place)) as line:
            line.sendall(b"".join(said))
            assert await asyncio.wait_for(held.heard.get(), LONG_S) == "once"
        assert await held.is_hung_up_on(*said)
        assert held.heard.empty()


@pytest.mark.usefixtures("by_network")
@pytest.mark.parametrize("change", ["content", "order", "key", "size", "twice"])
async def test_what_was_changed_on_the_way_is_not_unpickled(tmp_path: Path, change: str):
    async with held_call(tmp_path) as held:
        once = nonce()
        first, second = held.frames(once, "first", Bomb(tmp_path / "evil"))
        (foreign,) = held.frames(once, Bomb(tmp_path / "evil"), token=secrets.token_bytes(16))
        said = {
            "content": (first, second.replace(b"evil", b"bomb")),
            "order": (second, first),
            "key": (first, foreign),
            "size": (first, (1).to_bytes(8, "little"), second[8:]),
            "twice": (first, first),
        }[change]
        assert await held.is_hung_up_on(held.greeting(once), *said)
        heard = [held.heard.get_nowait() for _ in range(held.heard.qsize())]
        assert heard == ([] if change == "order" else ["first"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo"]


@pytest.mark.usefixtures("by_network")
async def test_who_says_nothing_does_not_use_up_the_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("amltk_nb.scheduling.transports.remote._MOST_STRANGERS", 3)
    async with held_call(tmp_path) as held:
        silent = [socket.create_connection(held.place) for _ in range(5)]
        once = nonce()
        with closing(socket.create_connection(held.place)) as line:
            line.sendall(b"".join((held.greeting(once), *held.frames(once, "heard"))))
            assert await asyncio.wait_for(held.heard.get(), LONG_S) == "heard"
        silent[0].setblocking(False)
        got = asyncio.get_running_loop().sock_recv(silent[0], 1)
        assert await asyncio.wait_for(got, LONG_S) == b""
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)
        for line in silent:
            line.close()


# --- when anything listens


async def test_nothing_listens_by_network_where_all_workers_are_here(tmp_path: Path):
    before = listening()
    async with held_call(tmp_path) as held:
        assert held.place is None
        assert held.near is not None
        assert listening() <= before


def test_the_way_back_is_that_to_the_engine():
    assert reach.own_address_towards("tcp://127.0.0.1:8786") is None
    assert reach.own_address_towards("tls://localhost:8786") is None
    assert reach.own_address_towards("[::1]:6379") is None
    own = {a.address for each in psutil.net_if_addrs().values() for a in each}
    found = reach.own_address_towards("tcp://198.51.100.7:8786")
    assert found == reach.own_address()
    assert found is None or found in own
    assert reach.address_of_interface("lo") is None
    assert reach.address_of_interface("none of this name") is None


@pytest.mark.parametrize(
    ("address", "is_here"),
    [(None, True), ("tcp://127.0.0.1:8786", True), ("tcp://198.51.100.7:8786", False)],
)
def test_dask_is_met_on_the_way_to_its_scheduler(address: str | None, is_here: bool):
    pytest.importorskip("distributed", reason="engines of others run under one Python only")
    backend = Scheduler.with_dask(address).backend
    assert backend.reach() == (None if is_here else reach.own_address())


@pytest.mark.parametrize("wrong", ["10.0.0.5:http", ":7000", "10.0.0.5:70000"])
async def test_what_is_no_address_is_said_at_submission(
    wrong: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(HOST_VARIABLE, wrong)
    scheduler = Scheduler.with_loky(1)
    task = scheduler.task(talkers.count_up, plugins=Progress())
    run = scheduler.start()
    future = task.submit(1)
    with pytest.raises(Exception, match=f"{HOST_VARIABLE}='{wrong}': use an address"):
        await asyncio.wait_for(future, LONG_S)
    run.stop()
    await run


@pytest.mark.parametrize(
    "given", ["127.0.0.1", "127.0.0.1:{port}", "::1", "[::1]:{port}", "localhost", "198.51.100.7"]
)
async def test_the_user_may_name_the_way(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv(HOST_VARIABLE, given.format(port=port))
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    scheduler = Scheduler.with_loky(1)
    task = scheduler.task(talkers.hold, plugins=Comm.Plugin())
    run = scheduler.start(end_on_empty=True)
    held = Held(task.submit(fifo).call.work[2]["comm"].ticket)
    # One that is not this machine's is a router's that leads here: so it listens everywhere.
    here = ("127.0.0.1", held.place[1]) if given == "198.51.100.7" else held.place
    assert (held.place[0], held.place[1] == port) == (
        given.format(port="").rstrip(":").strip("[]"),
        "{port}" in given,
    )
    socket.create_connection(here).close()
    with open(fifo, "w"):
        pass
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED


# --- what cannot be reached


def free_place() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return "127.0.0.1", server.getsockname()[1]


async def test_a_worker_out_of_reach_says_what_to_do():
    place = free_place()
    ticket = RemoteTicket(None, place, "elsewhere", 1, bytes(16))
    with pytest.raises(CommClosedError, match=r"cannot reach the scheduler at 127\.0\.0\.1:") as e:
        ticket.connect()
    assert f"the environment variable {HOST_VARIABLE} names the address" in str(e.value)


async def test_a_scheduler_that_listens_for_its_own_machine_says_so():
    near = SocketTicket(f"\0amltk-nb-{secrets.token_hex(8)}", 1, bytes(16))
    ticket = RemoteTicket(near, None, "elsewhere", 1, bytes(16))
    with pytest.raises(CommClosedError, match="the scheduler on elsewhere listens to calls of its"):
        ticket.connect()
    ticket = RemoteTicket(near, None, socket.gethostname(), 1, bytes(16))
    with pytest.raises(CommClosedError, match=r"cannot be reached: .*It is over"):
        ticket.connect()


async def test_what_only_reports_goes_on_and_warns_once():
    remote_end._warned_of.clear()
    ticket = RemoteTicket(None, free_place(), "elsewhere", 1, bytes(16))
    with pytest.warns(UserWarning, match="no progress is shown of this worker's calls: this"):
        with pytest.raises(CommClosedError):
            ticket.connect(wait=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CommClosedError, match="it could not be reached before"):
            ticket.connect(wait=False)


async def test_a_ticket_is_of_no_use_when_its_call_has_ended(tmp_path: Path):
    async with held_call(tmp_path) as held:
        ticket = RemoteTicket(held.near, None, socket.gethostname(), held.number, held.token)
        end = ticket.connect()
        assert end is not None
        ticket.hang_up()
        assert end.is_closed
        with pytest.raises(CommClosedError, match="has ended"):
            ticket.connect()
        with pytest.raises(CommClosedError, match="this end of the line has been closed"):
            end.send(("message", None))
