"""One real Slurm for all tests of this folder that ask for it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from amltk_nb import Scheduler
from tests.clusters.slurm import Slurm, missing, running_slurm
from tests.clusters.standins import write_standins
from tests.executors.contract import Gate
from tests.required import unavailable


@pytest.fixture(scope="session")
def whole_slurm() -> Iterator[Slurm]:
    if reason := missing():
        unavailable(reason)
    Scheduler.with_slurm(1, cores=1, memory="1 GB")  # loads what the main thread only may load
    # The path of a socket may have some hundred characters only, and pytest's folders are long.
    with tempfile.TemporaryDirectory(prefix="amltk-nb-slurm-") as folder:
        with running_slurm(Path(folder)) as slurm:
            yield slurm


@pytest.fixture
def slurm(whole_slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The Slurm, as this process's own; no job of a test may outlive it."""
    for name, value in whole_slurm.environment.items():
        monkeypatch.setenv(name, value)
    yield whole_slurm
    left = whole_slurm.jobs()
    whole_slurm.clear()
    assert left == {}, f"jobs that were left behind: {left}\n{whole_slurm.complaints()}"


@pytest.fixture
def standins(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
