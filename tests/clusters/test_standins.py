"""PBS, LSF and Moab by stand-in commands over a real Slurm: what these show, `standins` says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.errors import BackendStartError, WorkerDiedError
from tests.clusters.functions import mark_and_wait
from tests.clusters.jobs import made, started
from tests.clusters.slurm import Slurm
from tests.executors.contract import LONG_S, Gate, square

pytestmark = pytest.mark.timeout(400)

SUBMITS = {"pbs": "qsub", "lsf": "bsub", "moab": "msub"}
CANCELS = {"pbs": "qdel", "lsf": "bkill", "moab": "canceljob"}


def on(key: str, folder: Path, **options: Any) -> Scheduler:
    walltime = "00:10" if key == "lsf" else "00:10:00"
    return made(key, folder, **{"walltime": walltime, **options})


@pytest.mark.parametrize("key", SUBMITS)
async def test_submit_run_lose_one_and_close(
    key: str, slurm: Slurm, standins: Path, tmp_path: Path, gate: Gate
):
    marks = tmp_path / "marks"
    scheduler = on(key, tmp_path)
    run = scheduler.start()
    victim, other = (scheduler.submit(mark_and_wait, str(marks), gate.path, x) for x in "vo")
    await gate.arrived(2)
    job, _ = started(marks)["v"]
    slurm.cancel(job)
    with pytest.raises(WorkerDiedError):
        await asyncio.wait_for(victim, LONG_S)
    gate.open()
    assert await asyncio.wait_for(other, LONG_S) == "o"
    assert await scheduler.gather(scheduler.map(square, range(20))) == [n * n for n in range(20)]
    run.stop()
    assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
    assert slurm.jobs() == {}
    called = [line.split()[0] for line in (standins / "log").read_text().splitlines()]
    assert called.count(SUBMITS[key]) >= 2
    assert called.count(CANCELS[key]) >= 2


@pytest.mark.parametrize("key", SUBMITS)
async def test_a_refusal_is_told(key: str, slurm: Slurm, standins: Path, tmp_path: Path):
    scheduler = on(key, tmp_path, queue="nowhere")
    run = scheduler.start(end_on_empty=True, on_exception="raise")
    scheduler.submit(square, 3)
    with pytest.raises(BackendStartError, match=rf"refused the job: `{SUBMITS[key]}") as caught:
        await asyncio.wait_for(run.wait(), LONG_S)
    assert "invalid partition specified: nowhere" in str(caught.value)
    assert os.environ["PATH"].startswith(str(standins))
