"""Watching a process, and ending one together with what it started."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterable, Iterator
from time import sleep
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # at run time on use: it takes longer to load than a worker to start
    import psutil

__all__ = ["die", "end_trees", "has_children", "rss_bytes", "while_alive"]

_TICK_S = 0.5
_HURRY_S = 1e-5


def end_trees(pids: Iterable[int], *, before: Callable[[], None] | None = None) -> None:
    """End processes and all their descendants at once.

    Args:
        pids: of processes known to be ours.
        before: what to do between finding the descendants and ending anything.
    """
    import psutil

    trees: list[psutil.Process] = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue
        # Found first: once their parent is gone nobody can tell whose they were.
        trees += [process, *_descendants(process)]
    if before is not None:
        before()
    _end(trees)


def has_children() -> bool:
    """Whether this process has any child, for the price of one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def die(code: int) -> NoReturn:
    """End this process and what it started, without any more Python code of others."""
    # Looking for what it started takes hundreds of system calls, and each one gives a call that
    # computes in another thread the interpreter's lock for a whole switch interval.
    sys.setswitchinterval(_HURRY_S)
    try:
        if has_children():
            import psutil

            _end(_descendants(psutil.Process()))
    finally:
        os._exit(code)


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    try:
        return [child for child in process.children(recursive=True) if not _cleans_up(child)]
    except psutil.Error:
        return []


def _cleans_up(process: psutil.Process) -> bool:
    """Whether a process frees shared memory of others: it ends by itself once they are gone."""
    import psutil

    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _end(processes: Iterable[psutil.Process]) -> None:
    import psutil

    for process in processes:
        try:
            process.kill()  # compares start times first: a pid may have been given anew
        except psutil.Error:
            continue


def rss_bytes() -> int:
    """Return how much memory this process holds, bytes; 0 where that is not cheap to know."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def while_alive(pid: int) -> Iterator[None]:
    """Yield twice a second as long as a process lives."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # no Linux, or an old one
        yield from _while_same(pid)
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not poll.poll(_TICK_S * 1000):
        yield


def _while_same(pid: int) -> Iterator[None]:
    import psutil

    try:
        parent = psutil.Process(pid)
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            yield
            sleep(_TICK_S)
    except psutil.NoSuchProcess:
        return
