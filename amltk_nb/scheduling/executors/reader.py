"""The one thread that reads what workers send, and the only one to talk to the listener."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.executors.base import Listener
from amltk_nb.scheduling.executors.handle import Worker

__all__ = ["News", "Reader", "daemon_thread"]


@dataclass(slots=True)
class News:
    """What one round of reading brought, told to the listener when no lock is held."""

    outcomes: list[Outcome] = field(default_factory=list)
    returned: list[Call] = field(default_factory=list)
    logs: list[tuple[str, str, str]] = field(default_factory=list)
    changed: bool = False


class Reader:
    """Waits for all channels at once, and does errands for other threads in between."""

    def __init__(
        self,
        listener: Listener,
        lock: threading.Lock,
        on_message: Callable[[Worker, tuple[Any, ...], News], None],
        on_end: Callable[[Worker, News], None],
    ) -> None:
        """Start the thread.

        Args:
            listener: who is told the news.
            lock: guards the channels' unwritten frames.
            on_message: takes in one message of a worker.
            on_end: takes leave of a worker whose channel has ended.
        """
        self._listener = listener
        self._lock = lock
        self._on_message = on_message
        self._on_end = on_end
        self._errands: deque[Callable[[News], None]] = deque()
        self._is_closed = False
        self._wake_fd, self._wake_write_fd = os.pipe()
        os.set_blocking(self._wake_write_fd, False)
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        # By descriptor, this thread's own.
        self._watched: dict[int, Worker] = {}
        self._writing: dict[int, Worker] = {}
        self._thread = daemon_thread("reader", self._loop)

    def errand(self, errand: Callable[[News], None]) -> None:
        """Do something soon on the reader's thread; what it adds to the news is told."""
        self._errands.append(errand)
        try:
            os.write(self._wake_write_fd, b"!")
        except OSError:
            pass  # so full of wake-ups that one more makes no difference, or closed

    def watch(self, worker: Worker) -> None:
        """Read from a worker from now on."""
        self.errand(lambda news: self._watch(worker, news))

    def watch_writing(self, worker: Worker) -> None:
        """Write what a worker's channel could not take at once."""
        self.errand(lambda _: self._watch_writing(worker))

    def give_up(self) -> None:
        """Take leave of all workers, whatever their channels say."""
        self.errand(self._leave_all)

    def close(self) -> None:
        """Do the errands that wait, and end the thread."""
        self._is_closed = True
        self.errand(lambda _: None)
        self._thread.join()
        # A late errand must not write to whatever gets these descriptors next.
        fds, self._wake_write_fd = (self._wake_fd, self._wake_write_fd), -1
        for fd in fds:
            os.close(fd)

    def _loop(self) -> None:
        while True:
            news = News()
            for fd, _ in self._poll.poll():
                if (worker := self._watched.get(fd)) is not None:
                    self._read(worker, news)
                elif (worker := self._writing.get(fd)) is not None:
                    self._write_on(worker)
                elif fd == self._wake_fd:
                    os.read(fd, 4096)
            while self._errands:
                self._errands.popleft()(news)
            self._tell(news)
            if self._is_closed and not self._errands:
                return

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
            # The workers of all other calls depend on this thread.
            getLogger("amltk_nb").exception("The scheduler failed to take in the end of calls.")

    def _read(self, worker: Worker, news: News) -> None:
        try:
            messages = worker.channel.read()
        except EOFError:
            self._leave(worker, news)
            return
        for message in messages:
            self._on_message(worker, message, news)

    def _leave(self, worker: Worker, news: News) -> None:
        fd = worker.channel.fds()[0]
        del self._watched[fd]
        self._poll.unregister(fd)
        self._stop_writing(worker)
        self._on_end(worker, news)

    def _leave_all(self, news: News) -> None:
        for worker in list(self._watched.values()):
            self._leave(worker, news)

    def _watch(self, worker: Worker, news: News) -> None:
        fd = worker.channel.fds()[0]
        self._watched[fd] = worker
        self._poll.register(fd, select.POLLIN)
        news.changed = True

    def _watch_writing(self, worker: Worker) -> None:
        if not worker.channel.is_closed:
            fd = worker.channel.fds()[1]
            self._writing[fd] = worker
            self._poll.register(fd, select.POLLOUT)

    def _write_on(self, worker: Worker) -> None:
        try:
            with self._lock:
                is_done = worker.channel.flush()
        except OSError:
            is_done = True  # it is gone, as reading will show
        if is_done:
            self._stop_writing(worker)

    def _stop_writing(self, worker: Worker) -> None:
        fd = worker.channel.fds()[1]
        if self._writing.pop(fd, None) is not None:
            self._poll.unregister(fd)


def daemon_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread that does not keep the interpreter from exiting."""
    thread = threading.Thread(target=target, name=f"amltk-nb-{name}", daemon=True)
    thread.start()
    return thread
