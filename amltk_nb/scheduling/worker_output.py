"""What a worker's calls print and log, taken so that it can travel with their results.

Descriptors 1 and 2 are pointed at one unlinked file, so output of C code and of child processes
is caught as well. After each call the file's size says whether there is anything to take: that
costs a quarter of a microsecond where a pipe with a thread would cost a switch per call.
"""

from __future__ import annotations

import ctypes
import fcntl
import io
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

__all__ = ["Output", "OutputFile", "forward_logs"]

_MAX_CALL_BYTES = 1 << 16  # of one call's output that travels; the middle is left out
_MAX_FILE_BYTES = 1 << 23  # beyond this the file is cut while the call still runs
_IO_UNBUFFERED = 2  # _IONBF of stdio.h

Log = Callable[[str, str], None]  # level, text


class OutputFile:
    """An unlinked file for the output of one worker; its parent reads what a dead one left."""

    def __init__(self) -> None:
        """Make it empty.

        Raises:
            OSError: no descriptor or no room in the temporary directory.
        """
        with tempfile.TemporaryFile(buffering=0) as file:
            self.fd = os.dup(file.fileno())

    def left(self) -> str:
        """Return what was printed since the last call ended, at most some 64 kB."""
        return _shortened(self.fd, os.fstat(self.fd).st_size)

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)

    def __reduce__(self) -> tuple[Any, ...]:
        # Only ever pickled into a process that is being started.
        return _received_file, (reduction.DupFd(self.fd),)


def _received_file(fd: Any) -> OutputFile:
    file = OutputFile.__new__(OutputFile)
    file.fd = fd.detach()
    return file


class Output:
    """The file that takes this process's output."""

    def __init__(self, file: OutputFile) -> None:
        """Point descriptors 1 and 2, `sys.stdout` and `sys.stderr` at a file."""
        self._fd = file.fd
        # Appending makes it safe to cut the file while somebody else writes.
        fcntl.fcntl(self._fd, fcntl.F_SETFL, fcntl.fcntl(self._fd, fcntl.F_GETFL) | os.O_APPEND)
        self._head = b""  # of a call that printed too much
        self._n_cut_bytes = 0
        self._lock = threading.Lock()
        for fd in (1, 2):
            os.dup2(self._fd, fd, inheritable=True)
        sys.stdout = sys.__stdout__ = _stream(1)  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = _stream(2)  # type: ignore[misc]
        _unbuffer_c()

    def take(self) -> str:
        """Return what was printed since the last time, at most some 64 kB, and forget it."""
        n_bytes = os.lseek(self._fd, 0, os.SEEK_END)
        if n_bytes == 0 and not self._n_cut_bytes:
            return ""
        with self._lock:
            n_bytes = os.lseek(self._fd, 0, os.SEEK_END)
            text = self._text(n_bytes)
            os.ftruncate(self._fd, 0)
            self._head, self._n_cut_bytes = b"", 0
        return text

    def trim(self) -> None:
        """Cut the file if one call prints without end; called now and then by another thread."""
        n_bytes = os.lseek(self._fd, 0, os.SEEK_END)
        if n_bytes <= _MAX_FILE_BYTES:
            return
        with self._lock:
            self._head = self._head or os.pread(self._fd, _MAX_CALL_BYTES // 2, 0)
            self._n_cut_bytes += n_bytes
            os.ftruncate(self._fd, 0)

    def _text(self, n_bytes: int) -> str:
        return _shortened(self._fd, n_bytes, head=self._head, n_cut_bytes=self._n_cut_bytes)


def _shortened(fd: int, n_bytes: int, *, head: bytes = b"", n_cut_bytes: int = 0) -> str:
    """Read a file's beginning and end, with a note of how much is left out between them."""
    half = _MAX_CALL_BYTES // 2
    if not n_cut_bytes and n_bytes <= _MAX_CALL_BYTES:
        return os.pread(fd, n_bytes, 0).decode(errors="replace")
    head = head or os.pread(fd, half, 0)
    tail = os.pread(fd, half, max(0, n_bytes - half))
    n_left_out = n_cut_bytes + n_bytes - len(head) - len(tail)
    note = f"\n… {n_left_out:,} bytes left out …\n"
    return head.decode(errors="replace") + note + tail.decode(errors="replace")


def _stream(fd: int) -> io.TextIOWrapper:
    # Unbuffered: the last words of a process that dies are in the file, in their order.
    raw: Any = io.FileIO(fd, "wb", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


def _unbuffer_c() -> None:
    """Have C code write at once too, where its library can be reached."""
    for name in ("stdout", "__stdoutp"):
        try:
            libc = ctypes.CDLL(None)
            stdout = ctypes.c_void_p.in_dll(libc, name)
            libc.setvbuf(stdout, None, _IO_UNBUFFERED, 0)
            return
        except (OSError, ValueError, AttributeError):
            continue


class _LogHandler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log(record.levelname.lower(), self.format(record))
        except Exception:
            self.handleError(record)


def forward_logs(log: Log) -> None:
    """Send log records and warnings of this process to `log`; those of other handlers end here.

    The root logger keeps its level, WARNING unless an initializer sets another one.
    """
    # A forked worker inherits handlers that write to the kernel's sockets.
    logging.getLogger().handlers[:] = [_LogHandler(log)]

    def show(message: Any, category: Any, filename: str, lineno: int, *_: Any, **__: Any) -> None:
        log("warning", warnings.formatwarning(message, category, filename, lineno).rstrip())

    warnings.showwarning = show
