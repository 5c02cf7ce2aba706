"""What a scheduler remembers beyond the end of its process: accepted calls and what became of them.

An accepted call is recorded with its function and arguments by value, its end with its result or
error; each within some 20 ms, by the thread of `journal_file`. A large result is told of only when
it is written, so that nobody can change it meanwhile. What ends because the process ends is not
recorded: those calls are what `Scheduler.recover()` runs.
"""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any
from weakref import finalize, ref

from amltk_nb.errors import CallNotFoundError, JournalError, NotPicklableError
from amltk_nb.scheduling.call import Call, Outcome, Work
from amltk_nb.scheduling.functions import ShippedFunction, ship_function
from amltk_nb.scheduling.history import args_text
from amltk_nb.scheduling.journal_file import (
    AGAIN,
    CALLS,
    ENDS,
    FUNCTIONS,
    RETRIES,
    Entry,
    JournalFile,
)
from amltk_nb.scheduling.journal_place import place_of
from amltk_nb.scheduling.journal_rows import (
    COLUMNS,
    Ending,
    PackedWork,
    Statements,
    TakenDown,
    as_record,
    end_row,
    in_state,
    own_row,
    size_of,
    storable,
    value_rows,
)
from amltk_nb.scheduling.shipping import (
    Packed,
    error_parts,
    pack,
    rebuilt_error,
    ship_arguments,
    unpack,
)
from amltk_nb.scheduling.snapshot import JournalRecord
from amltk_nb.scheduling.states import CallState

__all__ = ["Journal", "Unfinished"]


_LARGE_BYTES = 1 << 20  # a result from this size on is told of when it is written
_MOST_KNOWN = 10_000
_PAGE = 500  # unfinished calls that are read in one go

_FUNCTION = "INSERT OR IGNORE INTO functions (key, name, packed) VALUES (?, ?, ?)"
_ACCEPT = """
INSERT INTO calls (id, task, function_name, args_text, function, why_not, attempt,
                   resubmitted_from, submitted_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_RETRY = """
INSERT INTO calls (id, task, function_name, args_text, function, why_not, attempt,
                   resubmitted_from, submitted_at)
SELECT ?, task, function_name, args_text, function, why_not, ?, id, ? FROM calls WHERE id = ?
"""
_RETRY_PARTS = """
INSERT INTO parts SELECT ?, kind, n, piece, data FROM parts WHERE call = ? AND kind = 'arguments'
"""
_ONCE_MORE = "UPDATE calls SET attempt = ?, submitted_at = ? WHERE id = ? AND state IS NULL"
_END_ONE = """
UPDATE calls SET state = ?, started_at = ?, ended_at = ?, seconds = ?, worker = ?, error = ?,
                 result_text = ?, output = ?
WHERE id = ? AND state IS NULL
"""
_END_MANY = """
WITH ended (state, started_at, ended_at, seconds, worker, error, result_text, output, id)
AS (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?))
UPDATE calls SET state = ended.state, started_at = ended.started_at, ended_at = ended.ended_at,
                 seconds = ended.seconds, worker = ended.worker, error = ended.error,
                 result_text = ended.result_text, output = ended.output
FROM ended WHERE calls.id = ended.id AND calls.state IS NULL
"""
_END = _END_MANY if sqlite3.sqlite_version_info >= (3, 33) else _END_ONE  # UPDATE … FROM is of 2020
_PART = "INSERT OR REPLACE INTO parts (call, kind, n, piece, data) VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An accepted call whose end is not known."""

    id: int
    task: str | None  # the ref of its task
    attempt: int
    resubmitted_from: int | None
    work: Work


class Journal:
    """The record of all calls of a scheduler, over restarts; `Scheduler(journal="run.db")`.

    Only open files of your own: reading results and recovering calls unpickles what is in them,
    which can run any code.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        log: Callable[[str, str], None] = lambda level, text: None,
    ) -> None:
        """Open a journal, or make a new one; it is locked until it is closed.

        Args:
            path: of the file.
            log: told a level and a text when something cannot be written.

        Raises:
            JournalInUseError: another scheduler has it open.
            JournalError: it is no journal, is damaged, of another format, or cannot be written.
            TypeError: the path is none.
        """
        self.path = place_of(path)
        self._log = log
        self.caught_up: Callable[[], None] = lambda: None  # see `is_behind`
        me = ref(self)  # the writer must not keep it alive

        def caught_up() -> None:
            if (journal := me()) is not None:
                journal.caught_up()

        self._file = JournalFile(self.path, log=log, caught_up=caught_up)
        finalize(self, self._file.leave)  # a scheduler that is gone leaves its file to the next
        self._known: set[bytes] = set()  # functions that are in the file, or will be
        self._n_lost = 0  # entries that were lost when that was last so
        self._last_former_id = self.last_id  # of a call that another process accepted
        self._run_again: set[int] = set()  # of those that this one has taken over
        self._left: set[int] = set()  # calls of this process whose runs left them without an end

    # ---------------------------------------------------------------- for its user

    def records(self, state: CallState | str | None = None) -> list[dict[str, Any]]:
        """List every recorded call as a dict of plain values, in order of submission.

        As `Scheduler.records()`, over all restarts; a call without an end is "unfinished".

        Args:
            state: only those in this state: "done", "failed", "cancelled" or "unfinished".

        Raises:
            JournalError: the file cannot be read.
            ValueError: there is no such state.
        """
        where, parameters = in_state(state)
        rows = self._file.read(f"SELECT {COLUMNS} FROM calls {where} ORDER BY id", parameters)
        return [as_record(row) for row in rows]

    def result(self, call_id: int) -> Any:
        """Load what a recorded call returned; what it raised is raised.

        Args:
            call_id: the `id` of its record.

        Raises:
            CallNotFoundError: no such call is recorded, it was cancelled, or has no end yet.
            JournalError: its result could not be recorded, or cannot be made again here.
        """
        found = self._file.read("SELECT state FROM calls WHERE id = ?", (call_id,))
        state = found[0][0] if found else None
        if state not in (CallState.DONE, CallState.FAILED):
            raise CallNotFoundError(_no_result(call_id, state, is_there=bool(found)))
        value = self._value(call_id, "error" if state == CallState.FAILED else "result")
        if state == CallState.FAILED:
            raise rebuilt_error(value)
        return value

    def close(self) -> None:
        """Write what is left and let go of the file; its scheduler records nothing more."""
        was_closed = self._file.is_closed
        self._file.close()
        if not was_closed:  # the views say so
            self._log("info", f"the journal {self.path.name} is closed: nothing more is recorded")

    @property
    def n_unwritten(self) -> int:
        """How many entries could not be written, for want of room or of rights."""
        return self._file.n_lost

    def describe(self) -> JournalRecord:
        """Describe it for the views."""
        return JournalRecord(
            name=self.path.name,
            n_unwritten=self.n_unwritten,
            is_failing=self._file.is_failing,
            is_closed=self._file.is_closed,
        )

    def __repr__(self) -> str:
        state = "closed" if self._file.is_closed else "open"
        return f"<Journal {self.path.name!r}: {state}>"

    # ---------------------------------------------------------------- for its scheduler

    @property
    def last_id(self) -> int:
        """The greatest id of a recorded call; 0: there is none."""
        return int(self._file.read("SELECT coalesce(max(id), 0) FROM calls")[0][0])

    def flush(self) -> None:
        """Wait until all that was recorded is in the file, or cannot be for now."""
        self._file.flush()

    def is_behind(self) -> bool:
        """Say whether no more calls should begin until `caught_up` is called, on any thread.

        Their ends would wait in memory, for a disk that is slower than the calls.
        """
        return self._file.is_behind()

    def taken_down(self, call: Call, packed_work: PackedWork | None = None) -> TakenDown:
        """Take a call down as it is now, for `accepted`; user code may run, so under no lock.

        Args:
            call: a new one.
            packed_work: its function and arguments, if its backend has pickled them already.
        """
        shipped, packed, why_not = (*packed_work, None) if packed_work else _packed_work(call)
        row = (
            call.id,
            storable(call.task.ref) if call.task is not None else None,
            storable(str(call.describe())),
            storable(args_text(call)),
            shipped.key if shipped is not None else None,
            storable(why_not),
            call.attempt,
            call.resubmitted_from,
            call.submitted_at,
        )
        return TakenDown(shipped, packed, row)

    def accepted(self, taken_down: TakenDown) -> None:
        """Record a call, before anything is recorded of its end; in the order of acceptance."""
        shipped, packed, row = taken_down
        if self._n_lost != self._file.n_lost:  # there may have been functions among them
            self._n_lost = self._file.n_lost
            self._known.clear()
        if shipped is not None and shipped.key not in self._known:
            if len(self._known) >= _MOST_KNOWN:  # each call may have a closure of its own
                self._known.clear()
            self._known.add(shipped.key)
            function = shipped.key, storable(shipped.name), shipped.packed
            self._file.put(Entry([(_FUNCTION, [function])], FUNCTIONS, len(shipped.packed)))
        statements: Statements = [(_ACCEPT, [row])]
        if packed is not None:
            statements.append((_PART, value_rows(row[0], "arguments", packed)))
        self._file.put(Entry(statements, CALLS, size_of(packed) if packed is not None else 0))

    def again(self, call: Call) -> bool:
        """Record that an unfinished call of the file runs once more; once in a process.

        Returns:
            Whether it is to run: False if it is under way, or has ended meanwhile. Asked under
            the dispatch lock, so that of several that recover it one gets it.
        """
        if not self._is_left(call.id):
            return False
        self._left.discard(call.id)
        if call.id <= self._last_former_id:
            self._run_again.add(call.id)
        self._file.put(Entry([(_ONCE_MORE, [(call.attempt, call.submitted_at, call.id)])], AGAIN))
        return True

    def left(self, call: Call) -> None:
        """Note that a call ended with its run and has no recorded end: it may run again."""
        self._left.add(call.id)

    def _is_left(self, call_id: int) -> bool:
        """Say whether a call without a recorded end is under way nowhere."""
        is_former = call_id <= self._last_former_id and call_id not in self._run_again
        return is_former or call_id in self._left

    def ending(self, outcome: Outcome, *, now: float) -> Ending:
        """Take down how a call ended; user code may run, so under no lock.

        Args:
            outcome: what its backend, or a plugin, says.
            now: seconds since the epoch.
        """
        packed = None if outcome.cancelled else self._packed_outcome(outcome)
        statements: Statements = [(_END, [end_row(outcome, now)])]
        if packed is not None:
            kind = "error" if outcome.error is not None else "result"
            statements.append((_PART, value_rows(outcome.call.id, kind, packed)))
        return Ending(statements, size_of(packed) if packed is not None else 0)

    def retried(self, ending: Ending, call: Call, another: Call) -> None:
        """Record in one go that a call has ended and is followed by one that does the same."""
        row = (another.id, another.attempt, another.submitted_at, call.id)
        copies: Statements = [(_RETRY, [row]), (_RETRY_PARTS, [(another.id, call.id)])]
        self._file.put(Entry([*copies, *ending.statements], RETRIES, ending.n_bytes))

    def ended(
        self, outcome: Outcome, *, now: float, tell: Callable[[], None] | None = None
    ) -> bool:
        """Record how a call ended, if nothing is recorded of it yet; on any thread.

        Args:
            outcome: what its backend, or a plugin, says.
            now: seconds since the epoch.
            tell: called when a large result is written, or cannot be.

        Returns:
            Whether `tell` is going to be called.
        """
        statements, n_bytes = self.ending(outcome, now=now)
        is_large = tell is not None and n_bytes >= _LARGE_BYTES
        if not is_large:  # who is told may change the value before it is written
            statements = [(sql, [own_row(row) for row in rows]) for sql, rows in statements]
        self._file.put(Entry(statements, ENDS, n_bytes, tell if is_large else None))
        return is_large

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield the calls that were left without an end, in order of submission, as recorded."""
        after = 0
        while rows := self._file.read(
            "SELECT id, task, attempt, resubmitted_from, function, function_name, why_not "
            "FROM calls WHERE state IS NULL AND id > ? ORDER BY id LIMIT ?",
            (after, _PAGE),
        ):
            for call_id, task, attempt, origin, key, name, why_not in rows:
                if self._is_left(call_id):
                    work = self._work(call_id, key, name, why_not)
                    yield Unfinished(call_id, task, attempt, origin, work)
            after = rows[-1][0]

    # ---------------------------------------------------------------- values

    def _work(self, call_id: int, key: bytes | None, name: str, why_not: str | None) -> Work:
        """Make a call's function and arguments again; if they cannot be, its run says why."""
        try:
            if key is None:
                raise JournalError(why_not)
            rows = self._file.read("SELECT packed FROM functions WHERE key = ?", (key,))
            if not rows:
                raise JournalError("its function could not be recorded.")
            args, kwargs = self._value(call_id, "arguments")
            return pickle.loads(rows[0][0]), args, kwargs
        except Exception as error:  # whatever the loading of a value may raise
            return _not_to_be_run, (f"Call {call_id} of {name}() cannot be run again: {error}",), {}

    def _value(self, call_id: int, kind: str) -> Any:
        rows = self._file.read(
            "SELECT n, data FROM parts WHERE call = ? AND kind = ? ORDER BY n, piece",
            (call_id, kind),
        )
        if not rows:
            raise JournalError(f"The {kind} of call {call_id} could not be recorded.")
        parts: dict[int, bytearray] = {}  # arrays made over bytes would be read-only
        for n, data in rows:
            parts.setdefault(n, bytearray()).extend(data)
        packed, *beside = parts.values()
        try:
            return unpack((packed, beside))
        except Exception as error:  # whatever a value's own loading may raise
            raise JournalError(
                f"The {kind} of call {call_id} cannot be made again here: {error!r}. Are the "
                "modules that it needs installed, and the classes of the notebook defined?"
            ) from error

    def _packed_outcome(self, outcome: Outcome) -> Packed | None:
        try:
            if outcome.error is not None:
                return pack(error_parts(outcome.error, skip_frames=0))
            return pack(outcome.value)
        except BaseException as error:  # whatever a value's own pickling may raise
            text = f"the result of call {outcome.call.id} is not in the journal: {error}"
            self._log("warning", text)
            return None


def _not_to_be_run(why: str) -> None:
    raise JournalError(why)


def _packed_work(call: Call) -> tuple[ShippedFunction | None, Packed | None, str | None]:
    """Pickle what the user submitted; or say why that cannot be."""
    try:
        shipped = ship_function(call.fn)
        return shipped, ship_arguments(call.fn, call.args, call.kwargs), None
    except NotPicklableError as error:
        return None, None, str(error)


def _no_result(call_id: int, state: str | None, *, is_there: bool) -> str:
    if not is_there:
        return f"No call {call_id} is in the journal; records() lists those that are."
    if state is None:
        return (
            f"Call {call_id} has no recorded end. If its scheduler's process is gone, start the "
            "scheduler and let it run again: scheduler.recover()."
        )
    return f"Call {call_id} was cancelled, so it has no result."
