"""A Dask cluster from the command line, as users start one: real processes, ended by their ids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent.parent

# A worker in an environment that has no amltk_nb: looking for it fails, as if it were not there.
_WITHOUT_PACKAGE = "import sys; sys.modules['amltk_nb'] = None; "
# One whose cloudpickle is of another age: what makes functions has another name there.
_OTHER_VERSION = (
    "import cloudpickle.cloudpickle as it; it._make_it = it._make_function; del it._make_function; "
)
_WORKER = "from distributed.cli.dask_worker import main; main()"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class DaskProcesses:
    """A scheduler and its workers, each in a session of its own, with their output in files."""

    def __init__(self, folder: Path, *, allowed_failures: int = 0) -> None:
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._failures = str(allowed_failures)
        port = self.address.rpartition(":")[2]
        self.scheduler = self._start(
            "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port
        )

    def add_worker(
        self, *, without_package: bool = False, other_version: bool = False
    ) -> subprocess.Popen[bytes]:
        code = _WITHOUT_PACKAGE * without_package + _OTHER_VERSION * other_version + _WORKER
        options = ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1"]
        self.workers.append(self._start("-c", code, self.address, *options))
        return self.workers[-1]

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(list(self.folder.iterdir()))}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *command, "--no-dashboard"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": self._failures,
                    "DASK_TEMPORARY_DIRECTORY": str(self.folder),
                },
                start_new_session=True,
            )

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.send_signal(signal.SIGKILL)
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def dask_processes(folder: Path, n_workers: int) -> Iterator[DaskProcesses]:
    folder.mkdir(exist_ok=True)
    with DaskProcesses(folder) as processes:
        for _ in range(n_workers):
            processes.add_worker()
        yield processes
