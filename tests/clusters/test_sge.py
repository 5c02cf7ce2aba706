"""Calls in jobs of a real Grid Engine."""

from __future__ import annotations

import asyncio

import pytest

from amltk_nb.errors import WorkerDiedError
from tests.clusters.daemons import BatchSystem
from tests.clusters.functions import job_number, mark_and_wait
from tests.clusters.jobs import BatchContract, is_gone, is_wanted, started
from tests.clusters.sge import GridEngine
from tests.clusters.waiting import until
from tests.executors.contract import LONG_S, Gate

pytestmark = [is_wanted, pytest.mark.timeout(400)]  # the first one may have to install it


class TestGridEngine(BatchContract):
    system_class = GridEngine
    refused = {"queue": "nowhere"}
    refusal = 'Job was rejected because job requests unknown queue "nowhere"'
    never = "qsub -h"

    async def test_a_job_whose_time_is_over_is_replaced(self, system: BatchSystem, gate: Gate):
        marks = self._folder / "marks"
        scheduler = self.made(1, walltime="00:00:12")
        run = scheduler.start()
        future = scheduler.submit(mark_and_wait, str(marks), gate.path, "a")
        await gate.arrived(1)
        ((job, pid),) = started(marks).values()
        with pytest.raises(WorkerDiedError):
            await asyncio.wait_for(future, LONG_S)
        until(lambda: is_gone(pid), "the body is gone")
        assert await asyncio.wait_for(scheduler.submit(job_number), LONG_S) != job
        assert list(started(marks)) == ["a"]
        run.stop()
        await run
