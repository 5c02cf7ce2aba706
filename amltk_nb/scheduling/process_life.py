"""Watching a process, and ending one together with what it started.

A worker is ended with all that its calls have started, daemons too. For that it leads a session of
its own, so that a signal to the kernel's group (the terminal hangs up, Jupyter kills a kernel)
cannot end it before it has ended them; and it adopts what a child of it leaves behind.
"""

from __future__ import annotations

import ctypes  # here, not on use: the fork server has loaded it for all workers
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # at run time on use: it takes longer to load than a worker to start
    import psutil

__all__ = [
    "die",
    "end_descendants",
    "end_session",
    "end_trees",
    "has_children",
    "rss_bytes",
    "stand_alone",
    "while_alive",
]

_TICK_S = 0.5
_HURRY_S = 1e-5
_ROUND_S = 0.005
_MOST_S = 1.0  # for killed processes to be gone
_PR_SET_CHILD_SUBREAPER = 36  # of sys/prctl.h


def stand_alone() -> None:
    """Make this process the head of a session, and of whatever its descendants leave behind."""
    try:
        os.setsid()
    except PermissionError:  # it leads a group already
        pass
    try:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):  # no Linux: daemons that calls start are out of reach
        pass


def end_trees(pids: Iterable[int], *, before: Callable[[], None] | None = None) -> None:
    """End processes and all their descendants at once.

    Without a descriptor or memory to look for descendants, only the processes themselves.

    Args:
        pids: of processes known to be ours.
        before: what to do between finding the descendants and ending anything.
    """
    trees: list[psutil.Process] = []
    unseen: list[int] = []
    for pid in pids:
        try:
            # Found first: once their parent is gone nobody can tell whose they were.
            trees += _tree(pid)
        except (OSError, ImportError, MemoryError):
            unseen.append(pid)
    if before is not None:
        before()
    if trees:  # else psutil need not be there, and often is not
        _end(trees)
    for pid in unseen:
        _kill(pid)


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
            end_descendants()
    finally:
        os._exit(code)


def end_descendants() -> None:
    """End all that this process has started, and what that starts meanwhile."""
    import psutil

    me, until = psutil.Process(), monotonic() + _MOST_S
    # Again: one that was killed may have started another one after we had looked.
    while (left := [p for p in _descendants(me) if _is_there(p.pid)]) and monotonic() < until:
        _end(left)
        sleep(_ROUND_S)


def end_session(pid: int) -> None:
    """End what is left of a session whose head, a worker, is gone without having ended it."""
    import psutil

    with suppress(OSError, MemoryError):  # nothing left to look for them with
        left = {other for other in psutil.pids() if _session(other) == pid}
        # As long as it has members nobody else is given its number; without, somebody may be.
        if pid not in left or not _is_there(pid):
            for other in left:
                with suppress(psutil.Error):
                    process = psutil.Process(other)
                    _end([*_descendants(process), *([] if _cleans_up(process) else [process])])


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _is_there(pid: int) -> bool:
    import psutil

    try:
        status: str = psutil.Process(pid).status()
    except psutil.Error:
        return False
    return status != psutil.STATUS_ZOMBIE


def _tree(pid: int) -> list[psutil.Process]:
    import psutil

    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return []
    return [process, *_descendants(process)]


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    try:
        return [child for child in process.children(recursive=True) if not _cleans_up(child)]
    except (psutil.Error, OSError):
        return []


def _cleans_up(process: psutil.Process) -> bool:
    """Whether a process frees shared memory of others: it ends by itself once they are gone."""
    import psutil

    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except (psutil.Error, OSError):
        return False


def _end(processes: Iterable[psutil.Process]) -> None:
    import psutil

    for process in processes:
        try:
            process.kill()  # compares start times first: a pid may have been given anew
        except psutil.Error:
            continue
        except OSError:  # no descriptor to compare them with
            _kill(process.pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


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
