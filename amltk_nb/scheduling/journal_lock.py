"""A lock on a journal's file that is kept although this process reads the file as well.

POSIX takes all locks that a process has on a file from it when it closes any descriptor of that
file, as a notebook does that copies its own journal: SQLite's locks are gone then without a word,
and a second kernel might open the file and run its calls again. Linux knows locks that belong to
one descriptor. This is one, far behind the data and the bytes that SQLite itself locks.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path

__all__ = ["FileLock", "LockedConnection"]

_PLACE = 1 << 40
_HOW: int | None = getattr(fcntl, "F_OFD_SETLK", None)  # Linux only


class FileLock:
    """Has a file for itself, among all who ask the same way, until it is released."""

    def __init__(self, path: Path) -> None:
        """Lock a file that is there; where that is not possible, nothing is locked.

        Raises:
            BlockingIOError: somebody else has it.
        """
        self._fd: int | None = None
        if _HOW is None:
            return
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _PLACE, 1, 0)
            fcntl.fcntl(self._fd, _HOW, wanted)
        except BlockingIOError:
            self.release()
            raise
        except OSError:  # not writable, or on a file system without such locks: SQLite's own remain
            self.release()

    def release(self) -> None:
        """Let go of it; after SQLite has closed the file, which would lose its own locks else."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)


class LockedConnection(sqlite3.Connection):
    """A connection that keeps a lock for as long as it is open."""

    lock: FileLock | None = None

    def close(self) -> None:
        """Close it, and only then let go of the lock."""
        super().close()
        self.forget_lock()

    def forget_lock(self) -> None:
        """Let go of the lock; in a forked child it stays its parent's."""
        if self.lock is not None:
            self.lock.release()
