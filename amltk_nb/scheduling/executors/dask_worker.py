"""The process of one Dask worker that we start on this machine.

    python -m amltk_nb.scheduling.executors.dask_worker   < one line of JSON, and then nothing

Dask's own way (a `LocalCluster` of nannies) starts two processes for each worker, and these run
the user's main script again where it has no main guard. This one knows nothing of that script, and
ends when the process that started it does, whatever ended that.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import threading
from typing import Any

__all__ = ["main"]

_LOOK_S = 1.0


async def main(settings: dict[str, Any]) -> None:
    """Be a worker until the cluster closes.

    Args:
        settings: "scheduler" (its address), "path" (of imports), "worker" (options of Dask's).
    """
    import distributed

    async with distributed.Worker(settings["scheduler"], **settings["worker"]) as worker:
        await worker.finished()


def _end_with_parent(parent_pid: int) -> None:
    """End this process when its parent has: the pipe closes, or somebody else adopts it."""
    while os.getppid() == parent_pid:
        readable, _, _ = select.select([sys.stdin], [], [], _LOOK_S)
        if readable and not os.read(sys.stdin.fileno(), 1):
            break
    os._exit(1)


if __name__ == "__main__":
    # The ■ button interrupts the whole process group of the kernel.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = json.loads(sys.stdin.readline())
    sys.path[:] = told["path"]
    watcher = threading.Thread(target=_end_with_parent, args=(told["parent"],), daemon=True)
    watcher.start()
    asyncio.run(main(told))
    # A call that was given up may still run in a thread, which must not keep this process.
    os._exit(0)
