"""One worker process as its parent sees it: its channel, its batch, what it has loaded."""

from __future__ import annotations

import os
import signal
from collections import OrderedDict
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from time import monotonic, sleep
from typing import Any

from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.executors.launch import exit_code, forking, has_ended
from amltk_nb.scheduling.process_life import end_session
from amltk_nb.scheduling.shipping import beside
from amltk_nb.scheduling.snapshot import WorkerRecord
from amltk_nb.scheduling.wire import (
    ATTENTION,
    BEGAN,
    FINISHED,
    RSS_BYTES,
    Board,
    Channel,
    Part,
    encoded,
)
from amltk_nb.scheduling.worker_output import OutputFile

__all__ = ["Worker", "close_inherited", "never_begun"]

_MAX_FUNCTIONS = 128  # that a worker keeps loaded
_MAX_FUNCTION_BYTES = 1 << 26
_EXIT_GRACE_S = 0.5

# Channels of all workers of all pools, for forked children to close.
_ends: set[Channel] = set()


class Worker:
    """A worker from the moment it is wanted. The pool's lock guards it."""

    __slots__ = (
        "batch",
        "board_slot",
        "channel",
        "child_end",
        "ending",
        "failure",
        "functions",
        "is_busy",
        "is_killed",
        "is_ready",
        "is_retiring",
        "last_words",
        "n_before",
        "n_function_bytes",
        "n_sent",
        "n_unreported",
        "name",
        "numbers",
        "order",
        "output",
        "pid",
        "process",
        "sent_at",
    )

    def __init__(self, slot: int, board: Board, *, captures: bool) -> None:
        """Make the channel, so that a batch can be written before the process exists.

        Args:
            slot: its place on the board.
            board: where it will count.
            captures: whether to take what its calls print.

        Raises:
            OSError: no descriptor is left.
        """
        with forking:
            self.channel, self.child_end = Channel.pair()
            _ends.update((self.channel, self.child_end))
        try:
            self.output = OutputFile() if captures else None
        except OSError:
            self.close_child_end()
            self.close_channel()
            raise
        self.board_slot = slot
        self.numbers = board.slot(slot)
        for i in range(len(self.numbers)):
            self.numbers[i] = 0
        self.name = f"worker-{slot + 1}"
        self.process: BaseProcess | None = None
        self.pid: int | None = None
        self.order: Sequence[Call] = ()  # the batch as it was sent
        self.batch: dict[int, Call] = {}  # of that, what has not been reported
        self.n_sent = self.n_before = 0  # calls in all, and before this batch
        self.n_unreported = 0  # of the batch as it was sent, those taken out of it included
        self.sent_at = 0.0  # when it was sent, by a monotonic clock
        self.functions: OrderedDict[bytes, int] = OrderedDict()
        self.n_function_bytes = 0
        self.is_ready = self.is_busy = self.is_retiring = self.is_killed = False
        self.ending: Call | None = None  # what it is being killed for
        self.last_words = ""  # what its call had printed when it died
        self.failure = ""  # why it could not start, in its own words

    def take(self, calls: Sequence[Call]) -> list[Part]:
        """Become busy with a batch; returns the message to send, with functions it lacks."""
        self.order = calls
        self.batch = {call.id: call for call in calls}
        self.n_before = self.n_sent
        self.n_sent += len(calls)
        self.n_unreported = len(calls)
        self.sent_at = monotonic()
        self.is_busy = True
        items, new, known, name = [], {}, self.functions, self.name
        for call in calls:
            call.worker = name
            function, packed = call.payload
            key = function.key
            if key not in known:
                known[key] = n_bytes = len(function.packed)
                self.n_function_bytes += n_bytes
                new[key] = (beside(function.packed), function.name, function.source)
            elif len(known) > 1:
                known.move_to_end(key)
            items.append((call.id, key, packed))
        return encoded(("batch", items, new, self._forget() if new else ()))

    def _forget(self) -> list[bytes]:
        forgotten = []
        while len(self.functions) > 1 and (
            len(self.functions) > _MAX_FUNCTIONS or self.n_function_bytes > _MAX_FUNCTION_BYTES
        ):
            key, n_bytes = self.functions.popitem(last=False)
            self.n_function_bytes -= n_bytes
            forgotten.append(key)
        return forgotten

    def progress(self) -> tuple[int, int]:
        """Return how many calls of the batch it has begun and finished, by its own count."""
        began = self.numbers[BEGAN] - self.n_before
        return max(0, began), max(0, self.numbers[FINISHED] - self.n_before)

    def is_late(self, seconds: float) -> bool:
        """Whether it has had its batch for so long, and some of that has not begun."""
        # A batch on a worker that starts is late for another reason.
        if not self.is_ready or self.is_killed or len(self.batch) < 2:
            return False
        return monotonic() - self.sent_at > seconds and self.progress()[0] < len(self.order)

    def running(self) -> Call | None:
        """Return the call whose function runs now."""
        began, finished = self.progress()
        return self.order[began - 1] if finished < began <= len(self.order) else None

    def all_reported(self) -> bool:
        """Whether the results of all calls that it has finished have arrived."""
        return len(self.order) - len(self.batch) >= self.progress()[1]

    def skip(self, call: Call) -> bool:
        """Ask it to leave out a call of its batch, if that has not begun; see `post`."""
        is_written = self.post(("skip", call.id))
        self.numbers[ATTENTION] += 1
        return is_written

    def post(self, message: tuple[Any, ...]) -> bool:
        """Send a small message; a worker that is gone is noticed by its reader.

        Returns:
            Whether it is written; else the reader has to go on with it.
        """
        try:
            return self.channel.post(encoded(message))
        except OSError:
            return True

    def record(self) -> WorkerRecord:
        """Say what it does now."""
        state = "starting" if not self.is_ready else "busy" if self.is_busy else "idle"
        # The one it is about to begin counts: nobody is told when it does, so nobody looks again.
        at = self.progress()[1]
        call = self.order[at].id if self.is_ready and at < len(self.order) else None
        return WorkerRecord(name=self.name, state=state, pid=self.pid, call=call)

    def close_child_end(self) -> None:
        """Let go of the other end: from now on, the end of the process shows on the channel."""
        _ends.discard(self.child_end)
        self.child_end.close()

    def reap(self) -> str:
        """Give everything back once the channel is closed; returns how the process ended."""
        if self.output is not None:
            self.last_words = self.output.left()
            self.output.close()
        process, self.process = self.process, None
        if process is None:
            return self.failure or "it was never started"
        if not _ended_within(process, _EXIT_GRACE_S):
            # It lives and cannot be reached: a call has closed all descriptors, say.
            self.kill()
            _ended_within(process, _EXIT_GRACE_S)
        if self.pid is not None:
            end_session(self.pid)
        how = _describe(exit_code(process))
        if has_ended(process):
            process.join()
            process.close()
        return how

    def close_channel(self) -> None:
        """Let go of our end; under the pool's lock, since somebody may be about to write."""
        _ends.discard(self.channel)
        self.channel.close()

    def kill(self) -> None:
        """Kill the process alone, if it was started."""
        if self.pid is not None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def obituary(self, call: Call, how: str, n_again: int) -> str:
        """Say what became of a call that died with this worker."""
        memory = self.numbers[RSS_BYTES] / 1e6
        held = f"It held {memory:,.0f} MB when last seen. " if memory else ""
        again = (
            f"{n_again} short calls before it had finished but were not reported; they run again. "
            if n_again
            else ""
        )
        return (
            f"{self.name} (pid {self.pid}) died while it ran {call.describe()}(): {how}. {held}"
            f"{again}All other calls go on. Submit this one again once the cause is gone."
        )


def never_begun(call: Call, how: str, n_workers: int) -> str:
    """Say what became of a call that workers have died of before it began."""
    return (
        f"{n_workers} workers died before they began {call.describe()}(). About the last one: "
        f"{how}. Its arguments may be too large for the memory that is left: pass the name of a "
        "file instead, or use fewer workers. All other calls go on."
    )


def close_inherited(mine: Channel) -> None:
    """In a forked worker: close the ends of channels that are not its own."""
    for end in _ends:
        if end is not mine:
            end.close()
    _ends.clear()


def _ended_within(process: BaseProcess, seconds: float) -> bool:
    # The channel ends a moment before the exit code can be read. Waiting for the process in one
    # go would need a descriptor more for each worker.
    until, pause_s = monotonic() + seconds, 0.0002
    while not has_ended(process):
        if monotonic() > until:
            return False
        sleep(pause_s)
        pause_s = min(2 * pause_s, 0.02)
    return True


_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}


def _describe(code: int | None) -> str:
    """Say an exit code in words, with what it usually means."""
    if code is None:
        return "its exit code is unknown, since the fork server that started it died as well"
    if code >= 0:
        return f"exit code {code}, so something in it ended the process, as os._exit({code}) does"
    name = _signal_name(-code)
    if -code == signal.SIGKILL:
        return f"killed by {name}; often the machine or the container was out of memory"
    if -code in _CRASHES:
        return f"killed by {name}, so compiled code that it called crashed"
    return f"killed by {name}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time ones have no names
        return f"signal {number}"
