"""What a worker and its parent share: a stream of messages each way, and a board of counters.

A message is any picklable tuple whose first item is its kind. On the stream it is one frame::

    bytes of what follows, u64 │ n buffers, u32 │ size of each buffer, u64 … │ pickle │ buffers …

Large buffers travel beside the pickle (protocol 5), so an 8 MB array is copied out of the pipe
once and never again. `multiprocessing.Connection` takes two reads for each message and one large
allocation for each read; in the chain of small calls that is a fifth of the time.

The board is one page of memory that parent and workers map. A worker counts there which call it
has begun and finished, so that its death can be pinned on the call that ran, without a message
per call.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import struct
import sys
import tempfile
from collections import deque
from itertools import islice
from multiprocessing import reduction
from typing import Any

from amltk_nb.scheduling.buffers import new_buffer

__all__ = [
    "ATTENTION",
    "BEGAN",
    "FINISHED",
    "RSS_BYTES",
    "Board",
    "Channel",
    "Part",
    "decoded",
    "encoded",
]

_HEADER = struct.Struct("<QI")
# These run for every message; looking them up each time would show.
_N_HEADER, _pack_header, _unpack_header = _HEADER.size, _HEADER.pack, _HEADER.unpack_from
_dumps, _loads, _write, _readv = pickle.dumps, pickle.loads, os.write, os.readv
_READ_BYTES = 1 << 17
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", -1)
_MAX_PARTS = 64  # per system call; the limit of Linux is 1024

Message = tuple[Any, ...]
Part = bytes | memoryview


def encoded(message: Message) -> list[Part]:
    """Make the parts of one frame, to be written one after the other."""
    buffers: list[pickle.PickleBuffer] = []
    body = _dumps(message, 5, buffer_callback=buffers.append)
    if not buffers:
        return [_pack_header(len(body), 0) + body]
    views = [buffer.raw() for buffer in buffers]
    sizes = struct.pack(f"<{len(views)}Q", *map(len, views))
    n_bytes = len(sizes) + len(body) + sum(map(len, views))
    return [_HEADER.pack(n_bytes, len(views)) + sizes, body, *views]


def decoded(frame: memoryview) -> Message:
    """Make the message of one whole frame, header included."""
    _, n_buffers = _unpack_header(frame)
    return _decoded(frame[_N_HEADER:], n_buffers)


def _decoded(frame: memoryview, n_buffers: int) -> Message:
    if not n_buffers:
        return _loads(frame)  # type: ignore[no-any-return]
    sizes = struct.unpack_from(f"<{n_buffers}Q", frame)
    end = len(frame)
    buffers = []
    for size in reversed(sizes):
        buffers.append(frame[end - size : end])
        end -= size
    return pickle.loads(frame[8 * n_buffers : end], buffers=reversed(buffers))  # type: ignore[no-any-return]


class Channel:
    """One end of a message stream over two pipes. Not locked: its owner takes care."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        """Take over two descriptors, blocking or not."""
        self._read_fd, self._write_fd = read_fd, write_fd
        self.is_closed = False
        self._small = bytearray(_READ_BYTES)
        self._small_view = memoryview(self._small)
        self._small_list = [self._small]
        self._tail = b""  # the beginning of a frame whose header is not all here
        self._frame: bytearray | mmap.mmap | None = None  # a frame of which more is to come
        self._filled = 0
        self._n_buffers = 0
        self._outbox: deque[memoryview] = deque()

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Make the parent's end, which never blocks, and the worker's, which does.

        Pipes are a fifth quicker than sockets, there and back.

        Raises:
            OSError: no descriptor is left.
        """
        down_read, down_write = _pipe()
        try:
            up_read, up_write = _pipe()
        except OSError:
            os.close(down_read)
            os.close(down_write)
            raise
        os.set_blocking(up_read, False)
        os.set_blocking(down_write, False)
        return cls(up_read, down_write), cls(down_read, up_write)

    def __reduce__(self) -> tuple[Any, ...]:
        # Only ever pickled into a process that is being started.
        fds = reduction.DupFd(self._read_fd), reduction.DupFd(self._write_fd)
        return _received_channel, fds

    def fds(self) -> tuple[int, int]:
        """Return the descriptors to read from and to write to, also after `close`."""
        return self._read_fd, self._write_fd

    def read(self) -> list[Message]:
        """Read once and return the messages that are complete now, maybe none.

        Raises:
            EOFError: the other end is closed.
        """
        try:
            return self._read_on() if self._frame is not None else self._read_new()
        except (BlockingIOError, InterruptedError):
            return []

    def receive(self) -> list[Message]:
        """Wait until at least one message is complete.

        Raises:
            EOFError: the other end is closed.
        """
        while not (messages := self.read()):
            pass
        return messages

    def send(self, message: Message) -> None:
        """Write a message to a blocking end."""
        self.post(encoded(message))

    def post(self, parts: list[Part]) -> bool:
        """Write a frame behind those still unwritten, as far as the pipe takes it now.

        Returns:
            Whether all is written; else call `flush` when the pipe takes more.

        Raises:
            OSError: the other end is closed.
        """
        if self.is_closed:  # its descriptor may be somebody else's by now
            raise BrokenPipeError("this end is closed")
        if len(parts) == 1 and not self._outbox:
            try:
                n_sent = _write(self._write_fd, parts[0])
            except (BlockingIOError, InterruptedError):
                n_sent = 0
            if n_sent == len(parts[0]):
                return True
            parts = [memoryview(parts[0])[n_sent:]]
        self.queue(parts)
        return self.flush()

    def queue(self, parts: list[Part]) -> None:
        """Have a frame written by a later `flush`."""
        self._outbox.extend(map(memoryview, parts))

    def flush(self) -> bool:
        """Write what is unwritten, as far as the pipe takes it now; returns whether all is."""
        outbox = self._outbox
        if self.is_closed:
            raise BrokenPipeError("this end is closed")
        while outbox:
            try:
                n_sent = os.writev(self._write_fd, list(islice(outbox, _MAX_PARTS)))
            except (BlockingIOError, InterruptedError):
                return False
            while outbox and n_sent >= len(outbox[0]):
                n_sent -= len(outbox.popleft())
            if n_sent:
                outbox[0] = outbox[0][n_sent:]
        return True

    def close(self) -> None:
        """Close this end; harmless when closed."""
        if not self.is_closed:
            self.is_closed = True
            os.close(self._read_fd)
            os.close(self._write_fd)
            self._outbox.clear()

    def _read_on(self) -> list[Message]:
        assert self._frame is not None
        n_bytes = _readv(self._read_fd, [memoryview(self._frame)[self._filled :]])
        if n_bytes == 0:
            raise EOFError
        self._filled += n_bytes
        if self._filled < len(self._frame):
            return []
        frame, self._frame = memoryview(self._frame), None
        return [_decoded(frame, self._n_buffers)]

    def _read_new(self) -> list[Message]:
        n_bytes = _readv(self._read_fd, self._small_list)
        if n_bytes == 0:
            raise EOFError
        if not self._tail and n_bytes >= _N_HEADER:
            size, n_buffers = _unpack_header(self._small)
            if n_bytes == _N_HEADER + size and not n_buffers:  # one small message, as most are
                return [_loads(self._small_view[_N_HEADER:n_bytes])]
        return self._split(memoryview(self._tail + self._small_view[:n_bytes]))

    def _split(self, data: memoryview) -> list[Message]:
        """Take apart what was read when it is not just one small message."""
        messages = []
        while len(data) >= _N_HEADER:
            size, n_buffers = _unpack_header(data)
            body, data = data[_N_HEADER : _N_HEADER + size], data[_N_HEADER + size :]
            if len(body) < size:
                self._begin(size, n_buffers, body)
                break
            # Buffers stay in use: a copy each keeps one from holding on to all that was read.
            frame = memoryview(bytearray(body)) if n_buffers else body
            messages.append(_decoded(frame, n_buffers))
        self._tail = bytes(data)
        return messages

    def _begin(self, size: int, n_buffers: int, body: memoryview) -> None:
        self._frame, self._n_buffers, self._filled = new_buffer(size), n_buffers, len(body)
        self._frame[: self._filled] = body


def _pipe() -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    try:
        # Sixteen times the usual: an 8 MB array takes 8 turns of the reader instead of 128.
        fcntl.fcntl(write_fd, _SET_PIPE_SIZE, _PIPE_BYTES)
    except OSError:  # not Linux, or this user has many pipes
        pass
    return read_fd, write_fd


def _received_channel(read_fd: Any, write_fd: Any) -> Channel:
    return Channel(read_fd.detach(), write_fd.detach())


BEGAN, FINISHED, ATTENTION, RSS_BYTES = range(4)  # what the numbers of one worker mean
_N_NUMBERS = 8  # one cache line of 64 bytes, so that workers do not slow each other


class Board:
    """Counters of all workers in memory that their processes share."""

    def __init__(self, n_slots: int) -> None:
        """Make it for so many workers; unlinked, so nothing is left behind by a crash.

        Raises:
            OSError: no descriptor or no memory.
        """
        if sys.platform == "linux":
            self.fd = os.memfd_create("amltk-nb-board")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        try:
            os.ftruncate(self.fd, 8 * _N_NUMBERS * n_slots)
            self._map()
        except OSError:
            os.close(self.fd)
            raise

    def _map(self) -> None:
        self._memory = mmap.mmap(self.fd, 0)
        self._numbers = memoryview(self._memory).cast("Q")

    def slot(self, i: int) -> memoryview:
        """Return the numbers of one worker, see the constants of this module."""
        return self._numbers[i * _N_NUMBERS : (i + 1) * _N_NUMBERS]

    def close(self) -> None:
        """Give the memory back, as soon as no slot is in use."""
        os.close(self.fd)
        del self._numbers, self._memory

    def __reduce__(self) -> tuple[Any, ...]:
        # Only ever pickled into a process that is being started.
        return _received_board, (reduction.DupFd(self.fd),)


def _received_board(fd: Any) -> Board:
    board = Board.__new__(Board)
    board.fd = fd.detach()
    board._map()
    return board
