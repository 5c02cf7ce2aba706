"""Ends on Dask, where what a call has started may end by itself at the same moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling.executors.dask_connection import _kill_if_running
from amltk_nb.scheduling.executors.jobqueue import _end_worker
from tests.executors.contract import LONG_S, Gate, open_gate, wait_at
from tests.executors.driver import survivors


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    async with open_gate() as gate:
        yield gate


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler.with_dask(n_workers=2)


class GoneProcess:
    """A child that ended between being found and being killed."""

    def kill(self) -> None:
        raise psutil.NoSuchProcess(0)


@pytest.fixture
def with_gone_child(monkeypatch: pytest.MonkeyPatch) -> None:
    found = psutil.Process.children

    def children(*args: Any, **options: Any) -> list[Any]:
        return [GoneProcess(), *found(*args, **options)]

    monkeypatch.setattr(psutil.Process, "children", children)


@pytest.mark.usefixtures("with_gone_child")
async def test_all_is_ended_though_a_child_of_a_call_has_just_ended(
    scheduler: Scheduler, gate: Gate
):
    run = scheduler.start()
    calls = [scheduler.submit(wait_at, gate.path) for _ in range(2)]
    await gate.arrived(2)
    pids = [w.pid for w in scheduler.snapshot().workers if w.pid is not None]
    scheduler.stop(wait=False)
    await run
    assert all(call.cancelled() for call in calls)
    assert len(pids) == 2
    assert survivors(pids, timeout_s=0) == []
    assert [line.text for line in scheduler.snapshot().log if line.level == "error"] == []


def test_a_worker_ends_itself_though_a_child_of_its_call_has_just_ended(
    monkeypatch: pytest.MonkeyPatch,
):
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: [GoneProcess()])
    state = SimpleNamespace(tasks={"its": SimpleNamespace(state="executing")})
    assert _kill_if_running("its", SimpleNamespace(state=state)) is True
    assert killed == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.usefixtures("with_gone_child")
def test_a_nanny_ends_its_worker_though_a_child_of_its_call_has_just_ended():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        _end_worker(SimpleNamespace(pid=worker.pid))
        assert worker.wait(LONG_S) == -signal.SIGKILL
