"""Opening the file of a journal: its tables, its lock, and what is refused and left as it is."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

from amltk_nb.errors import JournalError, JournalInUseError
from amltk_nb.scheduling.journal_lock import FileLock, LockedConnection
from amltk_nb.scheduling.journal_place import refuse_what_is_no_file

__all__ = ["FileGoneError", "cannot_write", "in_use", "opened"]

_APPLICATION_ID = 0x616D6E62  # "amnb": SQLite keeps it in the header of the file
_FORMAT = 2
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100  # https://www.sqlite.org/fileformat.html, section 1.3
_VERSION_AT, _APPLICATION_AT = 60, 68

_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
CREATE TABLE functions (key BLOB PRIMARY KEY, name TEXT NOT NULL, packed BLOB NOT NULL);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    task TEXT, function_name TEXT NOT NULL, args_text TEXT NOT NULL,
    function BLOB REFERENCES functions (key),  -- NULL: it cannot be run again, see `why_not`
    why_not TEXT,
    attempt INTEGER NOT NULL, resubmitted_from INTEGER, submitted_at REAL NOT NULL,
    state TEXT,  -- NULL: accepted, and no end of it is known
    started_at REAL, ended_at REAL, seconds REAL, worker TEXT,
    error TEXT, result_text TEXT, output TEXT
);
CREATE INDEX unfinished ON calls (id) WHERE state IS NULL;
-- A value is the pickle and the large buffers beside it, in their order; each is cut into pieces,
-- because SQLite copies what it is given while it holds the interpreter.
CREATE TABLE parts (
    call INTEGER NOT NULL REFERENCES calls (id),
    kind TEXT NOT NULL, n INTEGER NOT NULL, piece INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (call, kind, n, piece)
) WITHOUT ROWID;
"""


class FileGoneError(sqlite3.OperationalError):
    """What was opened does not lie at its path any more."""

    def __init__(self) -> None:
        super().__init__("it was deleted, moved or replaced while it was open")


def opened(path: Path) -> LockedConnection:
    """Open a journal, or make a new one, and lock it.

    Raises:
        JournalInUseError: another scheduler or program has it open.
        JournalError: it is no journal, is damaged, of another format, or cannot be written.
    """
    with ExitStack() as undo:
        try:
            refuse_what_is_no_file(path)
            is_new = not path.exists() or path.stat().st_size == 0
            lock = None if is_new else FileLock(path)  # before anything is read
            if lock is not None:
                undo.callback(lock.release)
                _check(path)
            connection = _connected(path)
            undo.callback(connection.close)
            _prepare(connection, is_new=is_new)
            connection.lock = lock or FileLock(path)
            # Of the check; nobody else has the file now.
            _beside(path, "-shm").unlink(missing_ok=True)
        except JournalError:  # which is an OSError as well
            raise
        except (OSError, sqlite3.Error) as error:
            raise _refusal(path, error) from error
        undo.pop_all()
    return connection


def _connected(path: Path) -> LockedConnection:
    return sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, factory=LockedConnection
    )


def _prepare(connection: sqlite3.Connection, *, is_new: bool) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA synchronous = NORMAL")
    if is_new:
        connection.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT;")
    connection.execute("PRAGMA journal_mode = WAL")
    # Takes the lock, which is kept, and shows that the file can be written.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM calls WHERE FALSE")
    connection.execute("COMMIT")


def _check(path: Path) -> None:
    """Look at a file without touching it.

    Raises:
        JournalInUseError: another scheduler has it open.
        JournalError: it is none of ours, damaged, or of another format.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if not header.startswith(_MAGIC) or _number(header, _APPLICATION_AT) != _APPLICATION_ID:
        raise JournalError(
            f"{path} is not a journal of a scheduler; it is left as it is. Choose another path "
            "for journal=: a file that is not there yet is made."
        )
    if (version := _number(header, _VERSION_AT)) != _FORMAT:
        raise JournalError(
            f"The journal {path} has format {version}, and this version of amltk_nb reads and "
            f"writes format {_FORMAT}. Use the version that wrote it, or begin another file."
        )
    if found := _damage(path):
        raise JournalError(
            f"The journal {path} is damaged ({'; '.join(found)}); it is left as it is. "
            "`sqlite3 FILE .recover` may save what is in it; begin another file for new calls."
        )


def _damage(path: Path) -> list[str]:
    """Read the whole file; what SQLite puts beside a damaged one is taken away again."""
    new = [file for file in (_beside(path, "-wal"), _beside(path, "-shm")) if not file.exists()]
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            found = [line for (line,) in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        if not _is(error, "SQLITE_CORRUPT", "SQLITE_NOTADB"):
            raise
        found = [str(error)]
    if found == ["ok"]:
        return []
    for file in new:
        file.unlink(missing_ok=True)
    return found


def _beside(path: Path, ending: str) -> Path:
    """Return where SQLite puts a helping file: beside what a link leads to."""
    file = path.resolve()
    return file.with_name(file.name + ending)


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "big")


def _is(error: Exception, *codes: str) -> bool:
    """Say whether an error is one of SQLite's with such a code, or a variety of it."""
    return (getattr(error, "sqlite_errorname", "") or "").startswith(codes)


def _refusal(path: Path, error: Exception) -> JournalError:
    if isinstance(error, BlockingIOError) or _is(error, "SQLITE_BUSY", "SQLITE_LOCKED"):
        return in_use(path)
    return JournalError(cannot_write(path, error))


def in_use(path: Path) -> JournalInUseError:
    """Make the error of a file that somebody else has."""
    return JournalInUseError(
        f"The journal {path} is open in another scheduler, maybe of another kernel, or in another "
        "program. Two on one file would run calls twice: end that one (scheduler.journal.close(), "
        "or its kernel), or give this one a file of its own."
    )


def cannot_write(path: Path, error: Exception) -> str:
    """Say that it cannot be written, why, and what to look for."""
    if isinstance(error, FileGoneError):
        what = "Move it back, or close it (scheduler.journal.close()) and begin another one."
    else:
        what = "Is its folder there and writable, and is there room on the disk?"
    return f"The journal {path} cannot be written: {error}. {what}"
