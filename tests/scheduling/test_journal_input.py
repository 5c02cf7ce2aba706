"""What can be wrong with a journal's file, its place, its disk, its values, and the clock.

Either a typed error says what to do and the file is as it was, or the run goes on and the log says
what is not recorded.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import Retry, Scheduler
from amltk_nb.errors import AmltkError, JournalError, JournalInUseError
from amltk_nb.views import html, text
from tests.scheduling.conftest import ByHand, settled

DEAD_S = 30

pytestmark = pytest.mark.may_block  # opening a journal and asking it reads a file


def square(x: int) -> int:
    return x * x


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def recorded(path: Path, n_calls: int = 50) -> None:
    """Make a journal with some calls in it."""

    async def main() -> None:
        scheduler = Scheduler.with_sequential(journal=path)
        run = scheduler.start(end_on_empty=True)
        scheduler.map(square, range(n_calls))
        await run
        scheduler.journal.close()

    asyncio.run(main())


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder with what is in them."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def refused(
    journal: Any, message: str, kind: type[Exception] = JournalError, *, beside: Path | None = None
) -> None:
    """Require that it is refused, with nothing changed or added beside it."""
    before = content(beside) if beside is not None else {}
    with pytest.raises(kind, match=message) as info:
        Scheduler.with_threads(1, journal=journal)
    assert type(info.value) is kind
    assert beside is None or content(beside) == before


# ------------------------------------------------------------ its place


class AsPath:
    def __init__(self, path: Any) -> None:
        self._path = path

    def __fspath__(self) -> Any:
        return self._path


@pytest.mark.parametrize("value", [3, 3.5, True, b"run.db", ["run.db"], object(), AsPath(b"x")])
def test_what_is_no_path_is_refused_by_its_type(value: Any) -> None:
    refused(value, r'journal must be the path of a file, such as "run.db", and not', TypeError)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"),
        ("run\0.db", "null character"),
        ("\ud800.db", "surrogates not allowed"),
        ("~nobody-of-that-name/run.db", "home directory"),
    ],
)
def test_what_can_be_no_file_is_refused_by_its_name(name: str, why: str) -> None:
    refused(name, rf"cannot be the path of a journal: .*{why}.*journal= the path of a file")


@pytest.mark.parametrize("name", ["x" * 300, "loop", "dangling", "text.txt/run.db"])
def test_where_no_file_can_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere/run.db")
    (tmp_path / "text.txt").write_text("my thesis")
    refused(tmp_path / name, "cannot be written: .*Is its folder there", beside=tmp_path)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkdir, "a folder"),
        (os.mkfifo, "a named pipe"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(path), "a socket"),
        (lambda path: os.symlink("/dev/null", path), "a device"),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_what_is_there_and_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], object], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make("run.db")
    refused("run.db", f"cannot be written: it is {kind}. Pass journal=", beside=tmp_path)
    assert os.listdir() == ["run.db"]
    assert not Path("/dev/null-journal").exists()


@pytest.mark.parametrize(
    "name", ["run 1.db", "läufe/💥 #?%.db", "file:run.db?mode=memory", ":memory:"]
)
def test_any_name_of_a_file_is_good(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    recorded(path, 3)
    assert path.stat().st_size > 0
    again = Scheduler.with_threads(1, journal=str(path))
    assert [again.journal.result(n) for n in (1, 2, 3)] == [0, 1, 4]
    again.journal.close()


def test_home_symlinks_paths_and_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    recorded(tmp_path / "run.db", 2)
    (tmp_path / "link.db").symlink_to("run.db")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    for same in ("~/run.db", "run.db", Path("link.db"), AsPath("below/../run.db")):
        scheduler = Scheduler.with_threads(1, journal=same)
        monkeypatch.chdir(tmp_path / "below")
        assert len(scheduler.journal.records("done")) == 2
        refused(tmp_path / "run.db", "open in another scheduler", JournalInUseError)
        refused("../link.db", "open in another scheduler", JournalInUseError)
        scheduler.journal.close()
        monkeypatch.chdir(tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.db*")) == ["link.db", "run.db"]


# ------------------------------------------------------------ rights

_NOBODY = """
import os, sys
from amltk_nb import Scheduler
for _ in range(2):  # a new file, and one that is there: loads what others may not read
    Scheduler.with_threads(1, journal={elsewhere!r}).journal.close()
os.setgroups([]); os.setgid({gid}); os.setuid({uid})
try:
    Scheduler.with_threads(1, journal={path!r})
except Exception as error:
    print(type(error).__name__, error)
"""


def as_nobody(path: Path) -> str:
    """Open a journal in a process without root's rights; returns what it raised."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody without rights")
    nobody = pwd.getpwnam("nobody")
    elsewhere = path.with_name("warm.db")
    code = textwrap.dedent(_NOBODY).format(
        gid=nobody.pw_gid, uid=nobody.pw_uid, path=str(path), elsewhere=str(elsewhere)
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEAD_S, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    elsewhere.unlink()
    return done.stdout


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that others can enter; those of pytest are root's own."""
    folder = Path(f"/var/tmp/amltk-nb-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_the_right_to_write(shared_folder: Path, mode: int) -> None:
    shared_folder.chmod(mode)
    said = as_nobody(shared_folder / "run.db")
    assert said.startswith("JournalError The journal")
    assert "cannot be written: " in said
    assert "Is its folder there and writable" in said
    assert list(shared_folder.iterdir()) == []


@pytest.mark.parametrize("mode", [0o444, 0o400])
def test_a_file_without_the_right_to_write(shared_folder: Path, mode: int) -> None:
    recorded(shared_folder / "run.db", 3)
    before = content(shared_folder)
    (shared_folder / "run.db").chmod(mode)
    said = as_nobody(shared_folder / "run.db")
    assert said.startswith("JournalError The journal")
    assert "cannot be written: " in said
    assert content(shared_folder) == before


# ------------------------------------------------------------ other programs


@contextmanager
def another_program(path: Path, begin: str) -> Iterator[None]:
    """Plain SQLite in another process, which holds the file."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute(sys.argv[2])\n"
        "connection.execute('SELECT count(*) FROM calls').fetchall()\n"
        "print('holds it', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), begin],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds it\n"
        yield
        assert process.stdin is not None
        process.stdin.close()
        process.wait(DEAD_S)


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_file_that_another_program_holds(path: Path, begin: str) -> None:
    recorded(path)
    with another_program(path, begin):
        started = time.monotonic()
        refused(path, "open in another scheduler.*or.*program", JournalInUseError)
        assert time.monotonic() - started < 5
    scheduler = Scheduler.with_threads(1, journal=path)
    assert len(scheduler.journal.records("done")) == 50
    scheduler.journal.close()


def test_other_programs_cannot_disturb_a_run(path: Path) -> None:
    scheduler = Scheduler.with_threads(1, journal=path)
    with (
        closing(sqlite3.connect(path, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("DELETE FROM calls")
    scheduler.journal.close()


# ------------------------------------------------------------ damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda bytes_: bytes_[:50], "is not a journal"),
        (lambda bytes_: bytes_[:100], "is damaged"),
        (lambda bytes_: bytes_[:5_000], "is damaged"),
        (lambda bytes_: b"\0" * 16 + bytes_[16:], "is not a journal"),
        (lambda bytes_: bytes_[:16] + b"\xff" * 20 + bytes_[36:], "is damaged"),
        (lambda bytes_: bytes_[:100] + b"\xff" * 300 + bytes_[400:], "is damaged"),
        (lambda bytes_: bytes_[:-4096] + b"\xa5" * 4096, "is damaged"),
        (lambda bytes_: bytes_[4096:], "is not a journal"),
    ],
    ids=["50 bytes", "100 bytes", "cut", "magic", "header", "schema", "last page", "no first page"],
)
def test_damage_anywhere_is_refused_and_left_alone(
    path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    recorded(path)
    path.write_bytes(damage(path.read_bytes()))
    refused(path, message, beside=path.parent)


def test_damage_that_is_met_while_it_is_in_use(path: Path) -> None:
    """The check at opening reads the whole file, but a disk may go bad later."""
    recorded(path, 2_000)
    scheduler = Scheduler.with_sequential(journal=path)
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xa5" * (path.stat().st_size - 2 * 4096))
    with pytest.raises(JournalError, match=r"run.db cannot be read: .*malformed"):
        scheduler.journal.records()
    scheduler.journal.close()


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch(mode=0o600)
    recorded(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ------------------------------------------------------------ gone while in use


def errors(scheduler: Scheduler) -> list[str]:
    return [line.text for line in scheduler.history.log_tail if line.level == "error"]


async def told(scheduler: Scheduler, words: str, level: str = "error") -> None:
    """Wait until the log has a line with certain words."""

    def found() -> bool:
        return any(
            words in line.text and line.level == level for line in scheduler.history.log_tail
        )

    async with asyncio.timeout(DEAD_S):
        while not found():
            await asyncio.sleep(0.01)


async def test_a_file_that_is_moved_away_and_back(path: Path) -> None:
    scheduler = Scheduler.with_sequential(journal=path)
    run = scheduler.start()
    assert await scheduler.submit(square, 2) == 4
    scheduler.journal.flush()
    path.rename(path.with_name("elsewhere.db"))
    assert await scheduler.submit(square, 3) == 9  # the run goes on
    await told(scheduler, "cannot be written: it was deleted, moved or replaced")
    assert scheduler.snapshot().journal.is_failing
    copy = path.with_name("copy.db")
    shutil.copyfile(path.with_name("elsewhere.db"), copy)  # the file alone has all until then
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT id, state FROM calls").fetchall() == [(1, "done")]
    path.with_name("elsewhere.db").rename(path)
    await told(scheduler, "written again", "info")
    assert [record["state"] for record in scheduler.journal.records()] == ["done", "done"]
    assert scheduler.journal.n_unwritten == 0
    assert len(errors(scheduler)) == 1
    run.stop()
    await run
    scheduler.journal.close()


@pytest.mark.parametrize("successor", [None, b"somebody's notes", "a journal"])
async def test_a_file_that_is_deleted_or_replaced(path: Path, successor: Any) -> None:
    scheduler = Scheduler.with_sequential(journal=path)
    run = scheduler.start()
    await scheduler.submit(square, 2)
    scheduler.journal.flush()
    path.unlink()
    other = None
    if successor == "a journal":
        other = path.with_name("other.db")
        await asyncio.to_thread(recorded, other, 7)
        other.rename(path)
    elif successor is not None:
        path.write_bytes(successor)
    before = path.read_bytes() if path.exists() else None
    assert await scheduler.submit(square, 3) == 9
    await told(scheduler, "cannot be written: it was deleted, moved or replaced")
    run.stop()
    await run
    scheduler.journal.close()  # gives up within seconds
    assert scheduler.journal.n_unwritten == 2  # call 2: that it was accepted, and its end
    assert any("2 entries are missing" in text for text in errors(scheduler))
    assert (path.read_bytes() if path.exists() else None) == before
    if other is not None:
        again = Scheduler.with_threads(1, journal=path)
        assert len(again.journal.records("done")) == 7
        again.journal.close()


# ------------------------------------------------------------ a full disk


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_at_the_start(tiny_disk: Path) -> None:
    ballast = tiny_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(200_000))
    refused(tiny_disk / "run.db", "cannot be written: .*is there room on the disk")
    ballast.unlink()
    Scheduler.with_threads(1, journal=tiny_disk / "run.db").journal.close()


async def test_closing_on_a_full_disk_gives_up_and_says_how_much_is_missing(
    tiny_disk: Path,
) -> None:
    scheduler = Scheduler.with_sequential(journal=tiny_disk / "run.db")
    run = scheduler.start()
    futures = [scheduler.submit(str.upper, f"{n}" * 2_000) for n in range(60)]
    assert [len(value) for value in await scheduler.gather(futures)][:2] == [2_000, 2_000]
    run.stop()
    await run
    started = time.monotonic()
    await asyncio.to_thread(scheduler.journal.close)
    assert time.monotonic() - started < 10
    n_missing = scheduler.journal.n_unwritten
    assert 0 < n_missing <= 121  # 60 calls, their ends and the function
    assert any(f"{n_missing} entries are missing" in text for text in errors(scheduler))
    shown = scheduler.snapshot().journal
    assert (shown.n_unwritten, shown.is_closed) == (n_missing, True)
    assert f"The journal lacks {n_missing} entries" in html.render(scheduler.snapshot())


# ------------------------------------------------------------ values


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("no way")


class BadError(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("bad")
        self.lock = threading.Lock()


def gives(what: str) -> Any:
    if what == "error":
        raise BadError(1, 2)
    return {"lock": threading.Lock, "own": Unpicklable, "generator": lambda: (n for n in ())}[
        what
    ]()


@pytest.mark.parametrize("what", ["lock", "own", "generator"])
async def test_results_that_cannot_be_stored(path: Path, what: str) -> None:
    scheduler = Scheduler.with_threads(1, journal=path)
    run = scheduler.start(end_on_empty=True)
    future = scheduler.submit(gives, what)
    await run
    assert future.done()
    assert not future.cancelled()
    (record,) = scheduler.journal.records()
    assert record["state"] == "done"  # its end is recorded all the same, so it never runs again
    with pytest.raises(JournalError, match="The result of call 1 could not be recorded"):
        scheduler.journal.result(1)
    await told(scheduler, "the result of call 1 is not in the journal", "warning")
    scheduler.journal.close()


async def test_errors_that_cannot_be_stored_are_there_as_what_they_said(path: Path) -> None:
    scheduler = Scheduler.with_threads(1, journal=path)
    run = scheduler.start(end_on_empty=True)
    future = scheduler.submit(gives, "error")
    await run
    assert isinstance(future.exception(), BadError)
    (record,) = scheduler.journal.records("failed")
    assert record["error"] == "BadError: bad"
    with pytest.raises(Exception, match="bad"):
        scheduler.journal.result(1)
    scheduler.journal.close()


# ------------------------------------------------------------ clocks


async def test_a_clock_that_jumps(path: Path, make_by_hand: Callable[..., ByHand]) -> None:
    by_hand = make_by_hand(n_workers=1, journal=path)
    scheduler, journal = by_hand.scheduler, by_hand.scheduler.journal
    by_hand.start()
    jumps = [0.0, 3_600.0, -86_400.0, 1e9, -2e9]  # the last leads before 1970
    for n, jump in enumerate(jumps, 1):
        future = scheduler.submit(square, n)
        by_hand.clock.now_s += jump
        by_hand.backend.finish(future, n, seconds=0.25)
        await settled()
        assert future.result() == n
    records = journal.records()
    assert [record["id"] for record in records] == [1, 2, 3, 4, 5]  # in order of submission
    assert {record["state"] for record in records} == {"done"}
    assert {record["seconds"] for record in records} == {0.25}  # as measured, not subtracted
    assert records[2]["ended"] < records[2]["submitted"]  # what the clock said is kept
    assert records[4]["ended"].year < 1970
    for draw in (html.render, text.plain):  # a view that is asked does not fail either
        assert "5 done" in draw(scheduler.snapshot())


async def test_a_clock_of_the_system_that_jumps_while_calls_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset_s = [0.0]
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + offset_s[0])
    scheduler = Scheduler.with_threads(2, journal=path, clock=time.time)
    run = scheduler.start(timeout=DEAD_S)
    tries: list[int] = []

    def fails_once(n: int) -> int:
        tries.append(n)
        if tries.count(n) == 1:
            raise ValueError("once")
        return n

    task = scheduler.task(fails_once, plugins=Retry(max_attempts=2, wait=0.2))
    for n, jump in enumerate((86_400.0, -2 * 86_400.0, 0.0)):
        offset_s[0] += jump
        future = task.submit(n)
        started = time.monotonic()
        assert await asyncio.wait_for(future, DEAD_S) == n
        assert time.monotonic() - started < 10  # a retry waits for seconds, not for a clock
        offset_s[0] -= 3_600.0
    assert scheduler.running()  # and no timeout came early
    records = scheduler.journal.records()
    assert [record["id"] for record in records] == list(range(1, 7))
    assert all(0 <= record["seconds"] < 10 for record in records)
    run.stop()
    await run
    scheduler.journal.close()


def test_errors_of_journals_are_ours() -> None:
    assert issubclass(JournalInUseError, JournalError)
    assert issubclass(JournalError, AmltkError)
    assert issubclass(JournalError, OSError)
