"""The file of a journal: one SQLite database, written by a thread of its own.

    any thread: put(entry) ──► queue ──► writer: one transaction for what came within 10 ms ──► file

SQLite's write-ahead log makes a transaction survive the end of this process at any moment; after a
power cut the last ones may be missing, as if they had not been. The file is locked for as long as
it is open (also on network file systems, since the exclusive mode needs no shared memory), and the
system lets go of the lock however the process ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from amltk_nb.errors import JournalError
from amltk_nb.scheduling.journal_opening import FileGoneError, cannot_write, in_use, opened
from amltk_nb.scheduling.journal_place import identity_of

logger = logging.getLogger("amltk_nb")

__all__ = ["AGAIN", "CALLS", "ENDS", "FUNCTIONS", "RETRIES", "Entry", "JournalFile"]


_LINGER_S = 0.010  # what comes within this is written together
_TRY_AGAIN_S = 1.0  # a full disk may have room again
_MOST_KEPT = 10_000  # entries that wait for such a moment; older ones are given up
_MOST_KEPT_BYTES = 100_000_000  # of large values among them
_MOST_BEHIND = 10_000  # ends that wait for the writer before no more calls are to begin …
_MOST_BEHIND_BYTES = 256_000_000  # … and of large results among them
_GOES_ON = "Calls run all the same; what waits to be written is tried again every second."
_GIVE_UP_S = 2.0  # closing a journal whose disk is full does not wait for longer


Row: TypeAlias = tuple[Any, ...]

# Every row that is written by itself lets go of the interpreter twice, and while the loop is busy
# it takes some milliseconds to get it back: rows by the hundred keep up with it, single ones do
# not. Few sizes, so that few statements are compiled.
_ROWS_AT_ONCE = (256, 64, 16, 4)
_BYTES_AT_ONCE = 1 << 20  # of values; SQLite copies them while it holds the interpreter
_ONE_ROW = re.compile(r"VALUES (\([?, ]+\))")


# Of entries that are written together, those of a lower stage come first. What calls need, the
# calls, those that run once more, failed attempts with the next one, and all other ends.
FUNCTIONS, CALLS, AGAIN, RETRIES, ENDS = range(5)


class Entry(NamedTuple):
    """Something to be written: statements with their rows, and who is told."""

    statements: Sequence[tuple[str, Sequence[Row]]]
    stage: int
    n_bytes: int = 0  # of large values
    written: Callable[[], None] | None = None  # called when it is, or will not be for now


class JournalFile:
    """An open journal file: what is put is written soon, in order; what is asked is read."""

    def __init__(
        self,
        path: Path,
        *,
        log: Callable[[str, str], None],
        caught_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Open a file, or make a new one.

        Args:
            path: of the file.
            log: told a level and a text when something cannot be written, and when it can again.
            caught_up: called on the writer's thread when what was behind is not so any more.

        Raises:
            JournalInUseError: another scheduler has it open.
            JournalError: it is no journal, is damaged, of another format, or cannot be written.
        """
        self.path = path
        self.n_lost = 0  # entries that could not be written
        self._log = log
        self._lock = threading.Lock()  # of the connection: the writer's and that of questions
        self._entries: deque[Entry] = deque()
        self._in_hand: Sequence[Entry] = ()  # what is being written
        self._news = threading.Condition()
        self._n_put = self._n_done = 0
        self._n_behind = self._n_behind_bytes = 0  # ends that are not written
        self._caught_up = caught_up
        self._is_awaited = False  # whether somebody was told that it is behind
        self._is_closing = self._is_failing = self._is_copy = False
        self._writer = threading.Thread(target=self._live, name="amltk-nb journal", daemon=True)
        with _opening:
            _refuse_twice(path)
            self._connection = opened(path)
            self._identity, self._is_gone = identity_of(path), False
            self._writer.start()
            _open_files.append(self)

    def put(self, entry: Entry) -> None:
        """Have something written, from any thread; after it is closed, nothing is."""
        with self._news:
            if self._is_closing:
                if entry.written is not None:
                    entry.written()
                return
            if self._is_failing:
                entry = _told(entry)
            self._entries.append(entry)
            self._n_put += 1
            if entry.stage >= RETRIES:
                self._n_behind += 1
                self._n_behind_bytes += entry.n_bytes
            if len(self._entries) == 1:
                self._news.notify_all()

    def read(self, sql: str, parameters: Row = ()) -> list[Row]:
        """Ask; what was put before is seen.

        Raises:
            JournalError: the file cannot be read.
        """
        if self._is_copy:
            raise JournalError(
                f"The journal {self.path} belongs to the process that opened it, of which this one "
                "is a forked copy. Read there what is needed, and pass that on."
            )
        self.flush()
        with self._lock:
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise JournalError(f"The journal {self.path} cannot be read: {error}.") from error

    def flush(self) -> None:
        """Wait until all that was put is written, or will not be for now."""
        with self._news:
            target = self._n_put
            self._news.notify_all()
            self._news.wait_for(lambda: self._n_done >= target or self._is_failing)

    def is_behind(self) -> bool:
        """Say whether so much waits that no more calls should begin, until `caught_up` is called.

        While nothing can be written, calls go on: what waits for that is bounded by itself.
        """
        if not self._is_too_much():
            return False
        with self._news:  # the writer may be about to look whether anybody waits
            self._is_awaited = self._is_too_much()
            return self._is_awaited

    def _is_too_much(self) -> bool:
        is_much = self._n_behind >= _MOST_BEHIND or self._n_behind_bytes >= _MOST_BEHIND_BYTES
        return is_much and not (self._is_failing or self._is_closing)

    def close(self) -> None:
        """Write what is left and let go of the file; harmless when closed."""
        self.leave()
        self._writer.join()

    def leave(self) -> None:
        """Have it closed soon, without waiting: the garbage collector may ask on any thread."""
        with self._news:
            self._is_closing = True
            self._news.notify_all()

    def _become_a_copy(self) -> None:
        """In a forked child: be closed, and wait for no lock of threads that are not there."""
        self._news, self._lock = threading.Condition(), threading.Lock()
        self._is_closing = self._is_copy = True
        self._entries.clear()
        self._n_done = self._n_put

    @property
    def is_closed(self) -> bool:
        """Whether it has let go of the file."""
        return self._is_closing

    @property
    def is_failing(self) -> bool:
        """Whether it could not be written when that was tried last, so that entries wait."""
        return self._is_failing

    # ---------------------------------------------------------------- the writer's thread

    def _live(self) -> None:
        try:
            self._write_on()
        except Exception as error:  # a fault of ours: nobody must wait for this thread
            self._break_off(error)
        finally:
            self._is_there()
            with self._lock:
                self._connection.close()
            with suppress(ValueError):  # a child that was forked has forgotten it
                _open_files.remove(self)

    def _break_off(self, error: Exception) -> None:
        with self._news:
            self._is_closing = True
            lost = [*self._in_hand, *self._entries]
            self._entries.clear()
            self.n_lost += len(lost)
        logger.error("the journal %s has failed", self.path, exc_info=error)
        for entry in lost:
            with suppress(Exception):
                _told(entry)
        self._done([entry._replace(written=None) for entry in lost])
        self._log("error", f"{cannot_write(self.path, error)} Nothing more is recorded.")

    def _write_on(self) -> None:
        give_up_at: float | None = None
        while True:
            batch = self._next_batch()
            if not batch:
                return
            error = self._write(batch)
            if error is None:
                self._has_written(batch)
                continue
            if not isinstance(error, sqlite3.OperationalError):  # something in it cannot be stored
                self._write_one_by_one(batch)
                continue
            if self._is_closing:
                give_up_at = give_up_at or time.monotonic() + _GIVE_UP_S
            if give_up_at is not None and time.monotonic() >= give_up_at:
                self._give_up(batch, error)
                return
            self._keep(batch, error)

    def _next_batch(self) -> list[Entry]:
        """Wait for something to write; returns nothing when closed and all is written."""
        with self._news:
            if self._is_failing:
                self._news.wait_for(lambda: self._is_closing, _TRY_AGAIN_S)
            self._news.wait_for(lambda: self._entries or self._is_closing)
            if not self._is_closing:
                self._news.wait_for(lambda: self._is_closing, _LINGER_S)
            self._in_hand = batch = list(self._entries)
            self._entries.clear()
            return batch

    def _write_one_by_one(self, batch: Sequence[Entry]) -> None:
        for n, entry in enumerate(batch):
            error = self._write([entry])
            if isinstance(error, sqlite3.OperationalError):
                self._has_written(batch[:n])
                self._keep(batch[n:], error)
                return
            if error is not None:
                self.n_lost += 1
                self._log("error", f"an entry of the journal could not be written: {error!r}")
        self._has_written(batch)

    def _write(self, batch: Iterable[Entry]) -> Exception | None:
        """Write a batch whole, or nothing of it."""
        if not self._is_there():  # SQLite would write on and tell nobody
            return FileGoneError()
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                for sql, rows in _by_statement(batch):
                    _execute(self._connection, sql, rows)
                self._connection.execute("COMMIT")
            except Exception as error:  # of the disk, or of a value that SQLite does not take
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):  # the next BEGIN will say so
                        self._connection.execute("ROLLBACK")
                return error
        return None

    def _is_there(self) -> bool:
        """Look whether the file still lies at its path.

        If it does not, empty the write-ahead log: whatever lies there next would take it for its
        own, and what was moved away lacks what is in it.
        """
        is_gone = identity_of(self.path) != self._identity
        if is_gone and not self._is_gone:
            with self._lock, suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._is_gone = is_gone
        return not is_gone

    def _has_written(self, batch: Sequence[Entry]) -> None:
        if self._is_failing:
            self._is_failing = False
            self._log("info", f"the journal {self.path.name} is written again")
        self._done(batch)

    def _keep(self, batch: Sequence[Entry], error: Exception) -> None:
        """Try it again later; nobody waits for it any more."""
        with self._news:
            # Told before `flush` returns: who waits for that takes what is told of as all there is.
            kept, given_up = _kept([_told(entry) for entry in (*batch, *self._entries)])
            self._entries, self._in_hand = deque(kept), ()
            self.n_lost += len(given_up)
            self._count_done(given_up)
            first, self._is_failing = not self._is_failing, True
            self._news.notify_all()
        if first:
            self._log("error", f"{cannot_write(self.path, error)} {_GOES_ON}")
        self._tell_if_caught_up()

    def _give_up(self, batch: Sequence[Entry], error: Exception) -> None:
        self.n_lost += len(batch)
        self._log("error", f"{cannot_write(self.path, error)} {self.n_lost} entries are missing.")
        self._done(batch)

    def _done(self, batch: Sequence[Entry]) -> None:
        for entry in batch:
            _told(entry)  # first, as in `_keep`
        with self._news:
            self._in_hand = ()
            self._count_done(batch)
            self._news.notify_all()
        self._tell_if_caught_up()

    def _count_done(self, batch: Sequence[Entry]) -> None:
        ends = [entry for entry in batch if entry.stage >= RETRIES]
        self._n_done += len(batch)
        self._n_behind -= len(ends)
        self._n_behind_bytes -= sum(entry.n_bytes for entry in ends)

    def _tell_if_caught_up(self) -> None:
        with self._news:
            is_over = self._is_awaited and not self._is_too_much()
            if is_over:
                self._is_awaited = False
        if is_over:
            self._caught_up()


def _told(entry: Entry) -> Entry:
    """Tell who waits for an entry, once."""
    if entry.written is None:
        return entry
    entry.written()
    return entry._replace(written=None)


def _kept(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Say which of the entries that wait are kept, and which are given up if there are too many.

    The oldest go first, but functions last: calls that come later need them.
    """
    n_bytes = sum(entry.n_bytes for entry in entries)
    given_up: set[int] = set()
    for place in sorted(range(len(entries)), key=lambda n: entries[n].stage == FUNCTIONS):
        if len(entries) - len(given_up) <= _MOST_KEPT and n_bytes <= _MOST_KEPT_BYTES:
            break
        given_up.add(place)
        n_bytes -= entries[place].n_bytes
    kept = [entry for n, entry in enumerate(entries) if n not in given_up]
    return kept, [entries[n] for n in sorted(given_up)]


def _by_statement(batch: Iterable[Entry]) -> Iterable[tuple[str, list[Row]]]:
    """Gather the rows of equal statements, stage by stage."""
    gathered: tuple[dict[str, list[Row]], ...] = {}, {}, {}, {}, {}
    for entry in batch:
        for sql, rows in entry.statements:
            gathered[entry.stage].setdefault(sql, []).extend(rows)
    for statements in gathered:
        yield from statements.items()


def _execute(connection: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> None:
    """Execute a statement for each row; one that has "VALUES (?, …)" for many rows at a time."""
    values = _ONE_ROW.search(sql)
    if values is None or len(rows) < _ROWS_AT_ONCE[-1]:
        connection.executemany(sql, rows)
        return
    most = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(rows[0])
    for group in _groups(rows, [n for n in _ROWS_AT_ONCE if n <= most]):
        if len(group) == 1:
            connection.execute(sql, group[0])
        else:
            repeated = f"VALUES {', '.join([values[1]] * len(group))}"
            several = sql[: values.start()] + repeated + sql[values.end() :]
            connection.execute(several, [value for row in group for value in row])


def _groups(rows: Sequence[Row], sizes: Sequence[int]) -> Iterator[Sequence[Row]]:
    """Cut rows into pieces of these sizes, or of one row where values are large."""
    at = 0
    while at < len(rows):
        for size in sizes:
            group = rows[at : at + size]
            if len(group) == size and sum(map(_n_bytes, group)) <= _BYTES_AT_ONCE:
                break
        else:
            group = rows[at : at + 1]
        yield group
        at += len(group)


def _n_bytes(row: Row) -> int:
    return sum(len(value) for value in row if isinstance(value, str | bytes | memoryview))


# --- opening -----------------------------------------------------------------------------------


_opening = threading.Lock()


def _refuse_twice(path: Path) -> None:
    """See that this process does not have the file open.

    Not by trying: a process that closes any descriptor of a file loses all its locks on it.
    """
    identity = identity_of(path)
    for file in _open_files.copy():
        if file.path == path or (identity is not None and file._identity == identity):
            if not file.is_closed:
                raise in_use(path)
            file.close()  # its scheduler is gone, and it is about to let go


# --- the end of the process, and its children --------------------------------------------------

_open_files: list[JournalFile] = []
_not_ours: list[Any] = []


def _close_all() -> None:
    for file in _open_files.copy():
        file.close()


def _leave_to_parent() -> None:
    """Keep a child that was forked from ever closing the parent's files: SQLite forbids it."""
    global _opening
    _opening = threading.Lock()
    for file in _open_files:
        _not_ours.append(file._connection)
        file._connection.forget_lock()  # it is its parent's
        file._become_a_copy()
    _open_files.clear()


atexit.register(_close_all)  # daemonic threads still run then, and write what is left
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
