"""What the fork server does besides making workers: none outlives the process they work for.

The fork server loads this, and nobody else may. Workers end by themselves when their parent is
gone, if they get to run a line of Python: a call in compiled code may never let them. The fork
server is at leisure, and ends them then. Itself it would stay until the last of them is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from time import sleep
from types import TracebackType

from amltk_nb.scheduling.process_life import die, stand_alone, while_alive

__all__: list[str] = []

_server = os.getpid()
_GRACE_S = 1.0  # for workers to end themselves, and first what their calls have started


def _keep_watch(parent_pid: int) -> None:
    """End all workers, and this process, after the parent."""
    for _ in while_alive(parent_pid):
        pass
    sleep(_GRACE_S)
    die(0)


def _say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Say what ended this process, but for half a request of a parent without descriptors.

    The parent knows, and makes a new fork server; nobody else need hear of it.
    """
    if kind is not EOFError or os.getpid() != _server:
        sys.__excepthook__(kind, error, traceback)


def _begin() -> None:
    stand_alone()
    sys.excepthook = _say
    # It adopts what a worker that was killed leaves behind, and says so each time one of that ends.
    warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
    # This thread, which waits in the system all its life, holds no lock that a child could miss.
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
    threading.Thread(target=_keep_watch, args=(os.getppid(),), daemon=True).start()


_begin()
