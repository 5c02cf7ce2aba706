"""The worker processes of one `open` … `close`: who is free, who runs what, who is gone.

::

    start() ──► channel of an idle or a new worker ──► its process
                                                          │ results, logs, end of stream
    listener ◄── reader ◄─────────────────────────────────┘

One reader serves all channels, on the loop's thread or on its own, and is the only one to talk to
the listener. One launcher thread starts processes, which may take long. All else happens on the
callers' threads under one lock that is held for microseconds. A worker lives as long as its
channel does: whoever kills it, and however, the reader sees the end of the stream and decides what
becomes of its calls.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.context import BaseContext
from queue import SimpleQueue
from time import monotonic
from typing import Any
from weakref import WeakSet

from amltk_nb.errors import WorkerDiedError, WorkerStartError
from amltk_nb.scheduling import worker as child
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Listener
from amltk_nb.scheduling.executors.endings import cancelled, outcome
from amltk_nb.scheduling.executors.handle import Worker, close_inherited, never_begun
from amltk_nb.scheduling.executors.launch import start, warm_fork_server
from amltk_nb.scheduling.executors.reader import News, Reader, daemon_thread
from amltk_nb.scheduling.process_life import end_trees
from amltk_nb.scheduling.shipping import reason
from amltk_nb.scheduling.snapshot import WorkerRecord
from amltk_nb.scheduling.wire import Board, Part
from amltk_nb.scheduling.worker_output import OutputFile

__all__ = ["Pool"]

_SMALL_BYTES = 1 << 16  # a message up to this size always fits into the socket of an idle worker
_MAX_FAILED_STARTS = 3
_RETRY_START_S = 5.0
_MAX_RETURNS = 3  # workers that may die right before or after a call before it is blamed
_KILL_S = 2.0
_REPORT_S = 0.02
_NOTE_TEXT = 2_000  # characters
# A batch is made for some 20 ms; what has not begun after this may go to another worker.
_LATE_S = 0.04


class Pool:
    """Workers that are started on demand and end with the pool."""

    def __init__(
        self,
        listener: Listener,
        context: BaseContext,
        n_workers: int,
        setup: Callable[[int, OutputFile | None], child.Setup],
        *,
        captures: bool,
    ) -> None:
        """Get ready; no process is started, but the fork server warms up in the background.

        Args:
            listener: who is told.
            context: one of those of `launch`.
            n_workers: at most so many at a time.
            setup: makes what the worker of a slot is told, with the file for its output.
            captures: whether that is taken.

        Raises:
            OSError: no descriptors or no memory.
        """
        self._context = context
        self._forks = context.get_start_method() == "fork"
        self._setup = setup
        self._captures = captures
        self._n_max = n_workers
        self._lock = threading.Lock()
        self._someone_left = threading.Condition(self._lock)
        self._teardown = threading.Lock()
        self._board = Board(n_workers)
        self._workers: dict[str, Worker] = {}
        self._idle: list[Worker] = []
        self._free_slots = list(reversed(range(n_workers)))
        self._n_failed_starts = 0
        self._failed_at = 0.0
        self._failure = ""
        self._n_returns: dict[int, int] = {}
        self._is_closing = self._is_ending = self._is_closed = False
        self._owner_pid = os.getpid()
        self._launches: SimpleQueue[Worker | None] = SimpleQueue()
        try:
            self._reader = Reader(
                listener, self._lock, self._take_message, self._take_leave, self._may_even_out
            )
        except OSError:
            self._board.close()
            raise
        self._launcher = daemon_thread("launcher", self._launch_loop)
        _live.add(self)

    # --- the callers' side ------------------------------------------------------------------

    def slots(self) -> int:
        """Say how many batches it takes now."""
        with self._lock:
            if self._is_broken():
                return self._n_max  # it takes all, to fail them
            return len(self._idle) + self._room()

    def start(self, calls: Sequence[Call]) -> None:
        """Hand a batch to an idle worker, else to a new one."""
        with self._lock:
            if self._n_returns and any(call.id in self._n_returns for call in calls):
                calls = self._alone(calls)
            worker = self._worker_for(calls)
            if worker is None:
                return
            self._write(worker, worker.take(calls))
        self._reader.expect_results()

    def end(self, call: Call) -> bool:
        """End one call of a batch: skip it if it has not begun, else kill its worker."""
        with self._lock:
            worker = self._workers.get(call.worker or "")
            if worker is None or worker.batch.get(call.id) is not call:
                return False
            if worker.ending is call:
                return True
            if worker.is_killed or self._skips(worker, call):
                self._drop(worker, call)
                return True
            if worker.running() is not call:
                return False  # it has finished and its result is on the way
            worker.ending = call
            worker.is_killed = True
        daemon_thread("end-call", partial(self._end_tree, worker))
        return True

    def reclaim(self) -> list[Call]:
        """Take calls out of late batches that have not begun."""
        with self._lock:
            late = [worker for worker in self._workers.values() if worker.is_late(_LATE_S)]
            return [call for worker in late for call in self._taken_out(worker)]

    def retire(self) -> None:
        """Replace idle workers now and busy ones after their batch."""
        with self._lock:
            for worker in self._workers.values():
                worker.is_retiring = True
            self._dismiss_idle()

    def records(self) -> tuple[WorkerRecord, ...]:
        """Say what each worker does."""
        with self._lock:
            workers = sorted(self._workers.values(), key=lambda worker: worker.board_slot)
            return tuple(worker.record() for worker in workers)

    def close(self, *, end_running: bool) -> None:
        """End all workers and give everything back; see `Backend.close`."""
        self._reader.take_charge()
        with self._lock:
            self._is_closing = True
            self._is_ending = self._is_ending or end_running
            self._dismiss_idle()
            victims = list(self._workers.values()) if end_running else []
            for worker in victims:
                worker.is_killed = True
        end_trees([worker.pid for worker in victims if worker.pid is not None])
        with self._lock:
            everybody_left = self._someone_left.wait_for(
                lambda: not self._workers, timeout=_KILL_S if self._is_ending else None
            )
        if not everybody_left:
            self._reader.give_up()
        with self._teardown:
            if not self._is_closed:
                self._is_closed = True
                self._tear_down()

    def abandon(self) -> None:
        """End all workers without waiting: the interpreter exits."""
        if os.getpid() != self._owner_pid or self._is_closed:
            return
        with self._lock:
            self._is_closing = self._is_ending = True
            for worker in self._workers.values():
                worker.is_killed = True
            pids = [worker.pid for worker in self._workers.values() if worker.pid is not None]
        end_trees(pids)

    def _tear_down(self) -> None:
        self._launches.put(None)
        self._launcher.join()
        self._reader.close()
        self._board.close()
        _live.discard(self)

    # --- under the lock ---------------------------------------------------------------------

    def _room(self) -> int:
        """How many workers may be added; after some failures one now and then, if others work."""
        if self._is_closing:
            return 0
        if self._n_failed_starts < _MAX_FAILED_STARTS:
            return len(self._free_slots)
        may_retry = bool(self._workers) and monotonic() - self._failed_at > _RETRY_START_S
        return min(1, len(self._free_slots)) if may_retry else 0

    def _is_broken(self) -> bool:
        return self._n_failed_starts >= _MAX_FAILED_STARTS and not self._workers

    def _worker_for(self, calls: Sequence[Call]) -> Worker | None:
        """Find who runs a batch; None: nobody, and the reader will say so."""
        if self._is_closing:
            self._reader.errand(partial(_report_cancelled, calls))
        elif self._idle:
            return self._idle.pop()
        elif self._room():
            return self._add_worker(calls)
        elif self._is_broken():
            self._reader.errand(partial(self._report_broken, calls))
        else:  # whoever was free a moment ago has died
            self._reader.errand(partial(_report_returned, calls))
        return None

    def _alone(self, calls: Sequence[Call]) -> Sequence[Call]:
        """Give back all but the first of a batch with a suspect in it: it shows who it is."""
        if len(calls) > 1:
            self._reader.errand(partial(_report_returned, calls[1:]))
        return calls[:1]

    def _add_worker(self, calls: Sequence[Call]) -> Worker | None:
        slot = self._free_slots.pop()
        try:
            worker = Worker(slot, self._board, captures=self._captures)
        except OSError as error:
            self._free_slots.append(slot)
            self._note_failure(reason(error))
            self._reader.errand(partial(_report_returned, calls))
            return None
        self._workers[worker.name] = worker
        self._reader.watch(worker)
        self._launches.put(worker)
        return worker

    def _write(self, worker: Worker, parts: list[Part]) -> None:
        """Write a frame; a large one is left to the reader, since it takes its time."""
        if len(parts) > 1 or len(parts[0]) > _SMALL_BYTES:
            worker.channel.queue(parts)
        else:
            try:
                if worker.channel.post(parts):
                    return
            except OSError:
                return  # the worker is gone: the reader gives the batch back
        self._reader.watch_writing(worker)

    def _skips(self, worker: Worker, call: Call) -> bool:
        """Have a call left out; False: it has begun."""
        place = worker.order.index(call) + 1
        if worker.progress()[0] >= place:
            return False
        if not worker.skip(call):
            self._reader.watch_writing(worker)
        # The worker counts a call as begun before it looks for messages, and we look at its count
        # after sending ours: if it has not begun now, it will find the message first.
        return worker.progress()[0] < place

    def _taken_out(self, worker: Worker) -> list[Call]:
        taken: list[Call] = []
        for call in reversed(worker.order):
            if call.id in worker.batch:
                if not self._skips(worker, call):
                    break  # those before it have begun as well
                del worker.batch[call.id]
                taken.append(call)
        return taken[::-1]

    def _may_even_out(self) -> bool:
        with self._lock:
            is_room = bool(self._idle) or self._room() > 0
            return is_room and any(worker.is_late(_LATE_S) for worker in self._workers.values())

    def _drop(self, worker: Worker, call: Call) -> None:
        """Report a call that will not run as cancelled, at once."""
        del worker.batch[call.id]
        self._reader.errand(partial(_report_cancelled, [call]))
        if not worker.batch and not worker.is_ready and not worker.is_killed:
            # Nobody waits for this start any more, and it may well be hanging.
            worker.is_killed = True
            daemon_thread("end-start", partial(self._end_tree, worker))
        elif not worker.batch and not worker.n_unreported:
            self._release(worker)

    def _release(self, worker: Worker) -> None:
        """Let a worker that has reported its batch take another one."""
        if not worker.is_busy or worker.is_killed:
            return
        worker.is_busy = False
        worker.order = ()
        if self._is_closing or worker.is_retiring:
            self._dismiss(worker)
        else:
            self._idle.append(worker)

    def _dismiss_idle(self) -> None:
        for worker in self._idle:
            self._dismiss(worker)
        self._idle.clear()

    def _dismiss(self, worker: Worker) -> None:
        if not worker.post(("close",)):
            self._reader.watch_writing(worker)

    def _note_failure(self, text: str) -> None:
        self._n_failed_starts += 1
        self._failed_at = monotonic()
        self._failure = text

    # --- the launcher thread ----------------------------------------------------------------

    def _launch_loop(self) -> None:
        if self._context.get_start_method() == "forkserver":
            # If that fails, starting a worker will fail the same way and say so.
            with suppress(OSError):
                warm_fork_server()
        while (worker := self._launches.get()) is not None:
            self._launch(worker)

    def _launch(self, worker: Worker) -> None:
        if not worker.is_killed:
            mine = worker.child_end
            inherited = partial(close_inherited, mine) if self._forks else None
            args = (self._setup(worker.board_slot, worker.output), mine, self._board, inherited)
            process: Any = self._context.Process(  # type: ignore[attr-defined]
                target=child.main, args=args, name=worker.name
            )
            try:
                start(process)
            except Exception as error:  # anything: it must not end this thread
                worker.failure = f"its process could not be started: {reason(error)}"
            else:
                with self._lock:
                    worker.process, worker.pid = process, process.pid
        worker.close_child_end()
        if worker.is_killed:  # in the meantime
            worker.kill()

    def _end_tree(self, worker: Worker) -> None:
        """Kill a worker and its children, but let results of earlier calls arrive first."""

        def wait_for_results() -> None:
            with self._lock:
                self._someone_left.wait_for(worker.all_reported, timeout=_REPORT_S)

        with self._lock:
            pid = worker.pid if self._workers.get(worker.name) is worker else None
        if pid is not None:
            end_trees([pid], before=wait_for_results)

    # --- in the reader's turn -----------------------------------------------------------------

    def _take_message(self, worker: Worker, message: tuple[Any, ...], news: News) -> None:
        kind = message[0]
        if kind == "results":
            self._take_results(worker, message[1], news)
        elif kind == "log":
            news.logs.append((worker.name, message[1], message[2]))
        elif kind == "ready":
            with self._lock:
                worker.is_ready, self._n_failed_starts = True, 0
            news.changed = True
        elif kind == "failed":
            worker.failure = f"its initializer raised:\n{message[1]}"

    def _take_results(self, worker: Worker, items: list[Any], news: News) -> None:
        with self._lock:
            batch = worker.batch
            taken = [(batch.pop(item[0], None), item) for item in items]
            worker.n_unreported -= len(items)
            # Not before all of it is reported: what was taken out of this batch may be in the next.
            if not batch and not worker.n_unreported:
                self._release(worker)
                news.changed = news.changed or not any(call for call, _ in taken)
            if worker.is_killed:
                self._someone_left.notify_all()
        name, outcomes = worker.name, news.outcomes
        for call, item in taken:
            if call is not None:
                if self._n_returns:
                    self._n_returns.pop(call.id, None)
                if call is worker.ending:
                    outcomes.append(cancelled(call))
                elif item[1] == child.SKIPPED:  # it left it out though we had found it begun
                    news.returned.append(call)
                else:
                    outcomes.append(outcome(call, item, name))

    def _take_leave(self, worker: Worker) -> None:
        """Wait for a worker whose channel has ended, and then see to its calls."""
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
            worker.close_channel()
        how = worker.reap()
        self._reader.errand(partial(self._bury, worker, how))

    def _bury(self, worker: Worker, how: str, news: News) -> None:
        with self._lock:
            left, worker.batch = worker.batch, {}
            if not worker.is_ready and not worker.is_killed:
                self._note_failure(worker.failure or how)
        self._part_calls(worker, list(left.values()), how, news)
        news.changed = True
        with self._lock:  # not before: the next worker in this slot counts from zero
            del self._workers[worker.name]
            self._free_slots.append(worker.board_slot)
            self._free_slots.sort(reverse=True)
            self._someone_left.notify_all()

    def _part_calls(self, worker: Worker, left: list[Call], how: str, news: News) -> None:
        """Decide about calls whose worker is gone: ended, dead, or to be run elsewhere."""
        if self._is_ending:
            news.outcomes += map(cancelled, left)
            return
        running, finished = worker.running(), worker.progress()[1]
        unseen = [call for call in worker.order[:finished] if call in left]
        # It may be what it was sent that has killed it, by its size for one.
        died_between = worker.is_ready and not worker.is_killed and running is None
        for call in left:
            if call is worker.ending:
                news.outcomes.append(cancelled(call, worker.last_words))
            elif call is running and not worker.is_killed:
                self._fail(call, worker, worker.obituary(call, how, len(unseen)), news)
            elif call in unseen and self._is_suspect(call):
                self._fail(call, worker, worker.obituary(call, how, 0), news)
            elif died_between and call not in unseen and self._is_suspect(call):
                self._fail(call, worker, never_begun(call, how, _MAX_RETURNS), news)
            else:
                news.returned.append(call)
        if not worker.is_ready and not worker.is_killed:
            news.logs.append((worker.name, "warning", f"It could not start: {self._failure}"))
        elif running is None and not worker.is_killed and worker.is_busy:
            n_unseen = len(unseen)
            news.logs.append((worker.name, "warning", f"It died: {how}; {n_unseen} calls rerun."))

    def _is_suspect(self, call: Call) -> bool:
        """Whether workers keep dying right before or after a call, which may be what kills them."""
        n_returns = self._n_returns[call.id] = self._n_returns.get(call.id, 0) + 1
        return n_returns >= _MAX_RETURNS

    def _fail(self, call: Call, worker: Worker, text: str, news: News) -> None:
        self._n_returns.pop(call.id, None)
        error, output = WorkerDiedError(text), worker.last_words
        if output:
            error.add_note(f"It had printed:\n{output[-_NOTE_TEXT:].rstrip()}")
        news.outcomes.append(Outcome(call, error=error, worker=worker.name, output=output))

    def _report_broken(self, calls: Sequence[Call], news: News) -> None:
        text = (
            f"Worker processes cannot start: {_MAX_FAILED_STARTS} in a row ended before they were "
            f"ready. About the last one: {self._failure}\nCheck initializer= and initargs= and "
            "what they import, and the machine's limits; then start the scheduler again."
        )
        news.outcomes += [Outcome(call, error=WorkerStartError(text)) for call in calls]


def _report_cancelled(calls: Sequence[Call], news: News) -> None:
    news.outcomes += map(cancelled, calls)


def _report_returned(calls: Sequence[Call], news: News) -> None:
    news.returned += calls


_live: WeakSet[Pool] = WeakSet()


@atexit.register
def _abandon_all() -> None:
    # Runs before the standard library's own exit handler, which waits for all child processes.
    for pool in list(_live):
        pool.abandon()
