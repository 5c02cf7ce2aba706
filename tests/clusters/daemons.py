"""A batch system of one machine, started by the tests in a folder of its own and ended by them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psutil

__all__ = ["BatchSystem", "by_hand", "free_port", "lacking", "running", "where_is"]

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # kept: else Python warns that they still run
_TAIL = 1_500  # characters of each log in the message of a failure


class BatchSystem(ABC):
    """`start` it, use its commands with `environment`, `stop` it; nothing of it is left then."""

    key: ClassVar[str]  # as in with_slurm
    lingers_s: ClassVar[float] = 0.0  # how long it still lists a job that was taken back
    environment: dict[str, str]  # what its commands need, PATH included where they are elsewhere

    def __init__(self, folder: Path, *, n_slots: int = 6, outlives_us: bool = False) -> None:
        """Prepare; nothing is started.

        Args:
            folder: for all of its files.
            n_slots: how many jobs run at the same time.
            outlives_us: whether its daemons go on when this process ends.
        """
        self.folder = folder
        self.n_slots = n_slots
        self.environment = {}
        self._prefix = [] if outlives_us else ["setpriv", "--pdeathsig", "TERM"]

    @staticmethod
    @abstractmethod
    def missing() -> str | None:
        """Say why it cannot run here, after an attempt to install it; None: it can."""

    @abstractmethod
    def start(self) -> None:
        """Start the daemons and wait until jobs are taken."""

    @abstractmethod
    def jobs(self) -> dict[str, str]:
        """Say whether each job is "pending" or "running", by number; without those that end."""

    @abstractmethod
    def cancel(self, job: str) -> None:
        """Take one job away, as anybody could."""

    @abstractmethod
    def clear(self) -> None:
        """Cancel every job, and wait until nothing of them is left."""

    def stop(self) -> None:
        """Cancel every job, then end the daemons, the last one started first."""
        if self.pids():
            self.clear()
        for pid in reversed(self.pids()):
            self.end(pid)
        (self.folder / "pids").unlink(missing_ok=True)

    def ask(self, *command: str) -> str:
        """Run one of its commands; what it prints, or nothing if it failed."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=30
        )
        return done.stdout if done.returncode == 0 else ""

    def pids(self) -> list[int]:
        """Of its daemons, in the order they were started."""
        path = self.folder / "pids"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def logs(self) -> Sequence[Path]:
        """The files in which the daemons say what is wrong."""
        return sorted(self.folder.glob("*.log"))

    def complaints(self) -> str:
        """What the daemons said last, for the message of a failure."""
        return "\n".join(path.read_text(errors="replace")[-_TAIL:] for path in self.logs())

    def spawn(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> None:
        """Start a daemon in a session of its own; what it says goes to a file.

        Args:
            command: found on the PATH, and for root.
            environment: of this daemon, besides that of the commands.
            through: a command that becomes the daemon, in another place or as somebody else. A
                process that becomes somebody else would forget that it is to end with this one.
        """
        name = Path(command[0]).name
        daemon = command if through else (where_is(command[0]), *command[1:])
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*through, *self._prefix, *daemon],
                env={**os.environ, **self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        _CHILDREN[process.pid] = process
        with (self.folder / "pids").open("a") as pids:
            pids.write(f"{process.pid}\n")

    def end(self, pid: int, *, signal_number: int = signal.SIGTERM) -> None:
        """End one daemon, and wait until it has ended."""
        try:
            process = psutil.Process(pid)
            process.send_signal(signal_number)
            child = _CHILDREN.pop(pid, None)
            if child is not None:
                child.wait(20)
            else:
                process.wait(20)
        except psutil.NoSuchProcess:
            pass


def where_is(command: str) -> str:
    """Find a command, among those for root too."""
    path = shutil.which(command, path=_PATH)
    assert path is not None, command
    return path


def lacking(commands: Sequence[str]) -> list[str]:
    """Which of these commands are not there."""
    return [name for name in commands if shutil.which(name, path=_PATH) is None]


@contextmanager
def running(system: BatchSystem) -> Iterator[BatchSystem]:
    """Start a batch system that is stopped at the end."""
    try:
        system.start()
        yield system
    finally:
        system.stop()


def free_port() -> int:
    """A port of the loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def by_hand(make: type[BatchSystem]) -> None:
    """Be the command `python -m tests.clusters.NAME start|stop FOLDER`."""
    verb, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    system = make(folder, outlives_us=True)
    if verb == "stop":
        system.stop()
    elif reason := make.missing():
        sys.exit(reason)
    else:
        system.start()
        _CHILDREN.clear()
        print(*(f"export {name}={value}" for name, value in system.environment.items()), sep="\n")
