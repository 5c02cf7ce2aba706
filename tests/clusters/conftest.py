"""Real batch systems for the tests of this folder, started when asked for, one at a time."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from amltk_nb import Scheduler
from tests.clusters.daemons import BatchSystem, running
from tests.clusters.slurm import Slurm
from tests.clusters.standins import write_standins
from tests.clusters.waiting import until
from tests.executors.contract import Gate
from tests.required import unavailable


class Started:
    """The batch system that runs; two would take each other's time."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._system: BatchSystem | None = None

    def the(self, wanted: type[BatchSystem]) -> BatchSystem:
        """Have one run, and stop the one before it."""
        if type(self._system) is not wanted:
            self.stop()
            if reason := wanted.missing():
                (unavailable if wanted is Slurm else pytest.skip)(reason)
            # Loads what the main thread only may load.
            Scheduler.with_slurm(1, cores=1, memory="1 GB")
            # A socket's path may have some hundred characters only, and pytest's folders are long.
            prefix = f"amltk-nb-{wanted.key}-"
            folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
            self._system = self._stack.enter_context(running(wanted(Path(folder))))
        assert self._system is not None
        return self._system

    def stop(self) -> None:
        self._system = None
        self._stack.close()


@pytest.fixture(scope="session")
def started() -> Iterator[Started]:
    started = Started()
    yield started
    started.stop()


@pytest.fixture
def lent(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[type[BatchSystem]], BatchSystem]]:
    """Makes a batch system this process's own for one test; no job of the test may outlive it."""
    lent: list[BatchSystem] = []

    def lend(wanted: type[BatchSystem]) -> BatchSystem:
        system = started.the(wanted)
        for name, value in system.environment.items():
            monkeypatch.setenv(name, value)
        lent.append(system)
        return system

    yield lend
    for system in lent:
        try:
            until(
                lambda system=system: system.jobs() == {},
                lambda system=system: f"no job is left, but {system.jobs()}\n{system.complaints()}",
                limit_s=system.lingers_s,
            )
        finally:
            system.clear()


@pytest.fixture
def slurm(lent: Callable[[type[BatchSystem]], BatchSystem]) -> BatchSystem:
    return lent(Slurm)


@pytest.fixture
def standins(slurm: BatchSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in commands, first on the PATH; its `log` has what was called."""
    folder = tmp_path / "commands"
    write_standins(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """Where calls in jobs wait; as in the contract, for tests outside of it."""
    path = f"/tmp/amltk-nb-gate-{os.getpid()}-{id(tmp_path)}"
    gate = Gate(path)
    server = await asyncio.start_unix_server(gate.came, path)
    yield gate
    gate.open()
    server.close()
    await server.wait_closed()
    Path(path).unlink(missing_ok=True)
