"""Reading what workers send: on the loop's thread while that has time, else on one of our own.

::

    worker's channel ──► selector ──► the loop's own selector ──► serve()   as a rule
                             └──────► the reader thread       ──► tick()    when the loop is late

A switch of threads for every message costs more than all the rest of a short call. But workers
must not wait for a loop that a notebook's cell blocks: the thread keeps watch, and where something
has waited for a whole tick, it reads until the loop turns again. It also does what may take long,
such as taking leave of a worker.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector, SelectorKey
from typing import Any

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Listener
from amltk_nb.scheduling.executors.handle import Worker

__all__ = ["News", "Reader", "daemon_thread"]

# Workers wait for up to two ticks when the loop gets stuck, once; a tick costs some 20 µs.
_TICK_MS = 10


@dataclass(slots=True)
class News:
    """What one turn brought, told to the listener while no other lock is held."""

    outcomes: list[Outcome] = field(default_factory=list)
    returned: list[Call] = field(default_factory=list)
    logs: list[tuple[str, str, str]] = field(default_factory=list)
    changed: bool = False


class Reader:
    """Reads from all channels, and does errands for other threads in between."""

    def __init__(
        self,
        listener: Listener,
        lock: threading.Lock,
        on_message: Callable[[Worker, tuple[Any, ...], News], None],
        on_end: Callable[[Worker], None],
        is_uneven: Callable[[], bool],
    ) -> None:
        """Start to; on the loop's thread, if there is a loop.

        Args:
            listener: who is told the news, by one thread at a time.
            lock: guards the channels' unwritten frames.
            on_message: takes in one message of a worker.
            on_end: waits for a worker whose channel has ended, and does an errand about it; on the
                reader thread, while the loop may read on.
            is_uneven: whether one worker has too much and another one nothing; asked each tick.

        Raises:
            OSError: no descriptors.
        """
        self._listener = listener
        self._lock = lock
        self._on_message = on_message
        self._on_end = on_end
        self._is_uneven = is_uneven
        self._errands: deque[Callable[[News], None]] = deque()
        self._leaving: deque[Worker] = deque()
        self._is_closed = False
        self._turning = threading.Lock()  # one thread reads, and tells what it read
        self._channels = DefaultSelector()
        try:
            self._wake_fd, self._wake_write_fd = os.pipe()
        except OSError:
            self._channels.close()
            raise
        os.set_blocking(self._wake_write_fd, False)
        self._bell = select.poll()  # what wakes the thread
        self._bell.register(self._wake_fd, select.POLLIN)
        self._n_served = self._n_served_before = 0  # turns of the loop: all, and at the last tick
        self._something_waited = False  # at the last tick
        self._is_asleep = False
        self._is_in_charge = False  # the thread, of reading
        self._is_alone = False  # the loop will not read any more
        if not listener.watch(self._channels.fileno(), self._serve):
            self._take_charge()
        self._thread = daemon_thread("reader", self._loop)

    # --- for the pool, on any thread ----------------------------------------------------------

    def errand(self, errand: Callable[[News], None]) -> None:
        """Do something soon on the reader's thread; what it adds to the news is told."""
        self._errands.append(errand)
        self.wake()

    def watch(self, worker: Worker) -> None:
        """Read from a worker from now on."""
        self.errand(partial(self._watch, worker))

    def watch_writing(self, worker: Worker) -> None:
        """Write what a worker's channel could not take at once."""
        self.errand(partial(self._watch_writing, worker))

    def expect_results(self) -> None:
        """Keep watch: a worker is busy now."""
        if self._is_asleep:
            self.wake()

    def take_charge(self) -> None:
        """Read without the loop from now on."""
        self._is_alone = True
        self.errand(lambda _: self._take_charge())

    def give_up(self) -> None:
        """Take leave of all workers, whatever their channels say."""
        self.errand(self._leave_all)

    def close(self) -> None:
        """Do the errands that wait, and end the thread."""
        self._is_closed = True
        self.wake()
        self._thread.join()
        # A late errand must not write to whatever gets these descriptors next.
        fds, self._wake_write_fd = (self._wake_fd, self._wake_write_fd), -1
        for fd in fds:
            os.close(fd)
        self._channels.close()

    def wake(self) -> None:
        """Have the thread make a turn."""
        try:
            os.write(self._wake_write_fd, b"!")
        except OSError:
            pass  # so full of wake-ups that one more makes no difference, or closed

    # --- who reads ----------------------------------------------------------------------------

    def _serve(self) -> None:
        """Read what there is: called by the loop when there is something."""
        with self._turning:
            self._n_served += 1
            news = News()
            try:
                self._read_all(news)
            finally:  # an interrupt of the user's must not cost what was read before it
                self._tell(news)

    def _loop(self) -> None:
        patience_ms = None
        while not self._is_closed or self._errands or self._leaving:
            for fd, _ in self._bell.poll(patience_ms):
                if fd == self._wake_fd:
                    os.read(fd, 4096)
            self._is_asleep = False
            with self._turning:
                self._tick()
                patience_ms = self._patience_ms()
            while self._leaving:
                self._guarded(self._on_end, self._leaving.popleft())

    def _tick(self) -> None:
        news = News()
        if self._must_read():
            self._guarded(self._read_all, news)
        while self._errands:
            self._guarded(self._errands.popleft(), news)
        news.changed = news.changed or self._is_uneven()
        self._tell(news)

    def _patience_ms(self) -> int | None:
        """Say for how long only the bell matters; None: until it rings."""
        self._is_asleep = True  # said first: whoever makes a worker busy looks at it later
        if not any(key.data.is_busy for key in self._all_keys()):
            return None
        self._is_asleep = False
        return _TICK_MS

    def _must_read(self) -> bool:
        """Take charge when the loop lets something wait, and leave it when the loop turns again."""
        is_served = self._n_served != self._n_served_before
        self._n_served_before = self._n_served
        if self._is_in_charge:
            if is_served and not self._is_alone:
                self._leave_charge()
        else:
            waited, self._something_waited = self._something_waited, self._is_something_there()
            if waited and self._something_waited and not is_served:
                self._take_charge()
                self._listener.call_soon(self._loop_turns)
        return self._is_in_charge

    def _loop_turns(self) -> None:
        self._n_served += 1
        self.wake()

    def _take_charge(self) -> None:
        if not self._is_in_charge:
            self._is_in_charge = True
            self._bell.register(self._channels.fileno(), select.POLLIN)

    def _leave_charge(self) -> None:
        self._is_in_charge = self._something_waited = False
        self._bell.unregister(self._channels.fileno())

    # --- one turn -----------------------------------------------------------------------------

    def _is_something_there(self) -> bool:
        return bool(self._channels.select(0))

    def _read_all(self, news: News) -> None:
        for key, events in self._channels.select(0):
            if events & EVENT_READ:
                self._read(key.data, news)
            else:
                self._write_on(key.data)

    def _guarded(self, step: Callable[[Any], None], about: Any) -> None:
        try:
            step(about)
        except Exception:
            # The workers of all other calls depend on this thread.
            getLogger("amltk_nb").exception("The scheduler failed in a step about its workers.")

    def _tell(self, news: News) -> None:
        listener = self._listener
        try:
            for log in news.logs:
                listener.log(*log)
            if news.outcomes:
                listener.ended(news.outcomes)
            if news.returned:
                listener.returned(news.returned)
            if news.changed:
                listener.changed()
        except Exception:
            getLogger("amltk_nb").exception("The scheduler failed to take in the end of calls.")

    def _read(self, worker: Worker, news: News) -> None:
        try:
            messages = worker.channel.read()
        except EOFError:
            self._leave(worker)
            return
        except Exception:  # no memory for a frame, say; what follows in the pipe means nothing
            getLogger("amltk_nb").exception("What %s sent could not be read.", worker.name)
            worker.kill()
            self._leave(worker)
            return
        for message in messages:
            self._on_message(worker, message, news)

    def _leave(self, worker: Worker) -> None:
        self._channels.unregister(worker.channel.fds()[0])
        self._stop_writing(worker)
        self._leaving.append(worker)
        self.wake()

    def _leave_all(self, _: News) -> None:
        for worker in {key.data for key in self._all_keys()}:
            self._leave(worker)

    def _all_keys(self) -> list[SelectorKey]:
        return list(self._channels.get_map().values())

    def _watch(self, worker: Worker, news: News) -> None:
        self._channels.register(worker.channel.fds()[0], EVENT_READ, worker)
        news.changed = True

    def _watch_writing(self, worker: Worker, _: News) -> None:
        read_fd, write_fd = worker.channel.fds()
        channels = self._channels.get_map()
        # One that is being taken leave of would leave its descriptor's number behind.
        is_here = read_fd in channels and channels[read_fd].data is worker
        if is_here and write_fd not in channels:
            self._channels.register(write_fd, EVENT_WRITE, worker)

    def _write_on(self, worker: Worker) -> None:
        with self._lock:  # until it is not watched any more: somebody may add to what is unwritten
            try:
                is_done = worker.channel.flush()
            except OSError:
                is_done = True  # it is gone, as reading will show
            if is_done:
                self._stop_writing(worker)

    def _stop_writing(self, worker: Worker) -> None:
        fd = worker.channel.fds()[1]
        if fd in self._channels.get_map():
            self._channels.unregister(fd)


def daemon_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that does not keep the interpreter from exiting."""
    thread = threading.Thread(target=target, name=f"amltk-nb-{name}", daemon=True)
    thread.start()
    return thread
