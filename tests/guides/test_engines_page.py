"""What `docs/engines.md` says of engines is what they say of themselves, and its examples run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from tests.executors.contract import LONG_S, square
from tests.executors.dask_processes import DaskProcesses

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "engines.md").read_text()

MADE: dict[str, Callable[[], Scheduler]] = {
    "`with_processes`": lambda: Scheduler.with_processes(2),
    "`with_threads`": lambda: Scheduler.with_threads(2),
    "`with_sequential`": Scheduler.with_sequential,
    "`with_loky`": lambda: Scheduler.with_loky(2),
    "`with_dask` of its own": lambda: Scheduler.with_dask(n_workers=2),
    "`with_dask` of yours": lambda: Scheduler.with_dask("tcp://127.0.0.1:8786"),
    "`with_slurm` and its sisters": lambda: Scheduler.with_slurm(2, cores=1, memory="1 GB"),
    "`with_ray`": lambda: Scheduler.with_ray(num_cpus=2),
    "`with_ipyparallel` of its own": lambda: Scheduler.with_ipyparallel(n=2),
    "`with_ipyparallel` of yours": lambda: Scheduler.with_ipyparallel("default"),
    "`with_airflow`": lambda: Scheduler.with_airflow("http://localhost:8080", auth="token"),
}


def promises() -> dict[str, list[str]]:
    """The table of promises: cells by engine."""
    table = PAGE.partition("## What each one promises")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "| `with_" in line]
    return {name: cells for name, *cells in rows}


def example(text: str) -> str:
    """The block of Python that has a text in it."""
    [found] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if text in block]
    return str(found)


def test_every_engine_has_its_line():
    assert list(promises()) == list(MADE)


@pytest.mark.parametrize("name", MADE)
def test_an_engine_says_the_same_of_itself(name: str):
    begun, ends, *_ = promises()[name]
    backend = MADE[name]().snapshot().backend
    assert begun == ("it has begun" if backend.reports_start else "it was handed over")
    assert ends.startswith("yes") is (backend.cannot_end is None)
    assert ends.startswith(("yes", "no"))


@pytest.mark.may_block  # the example has no coroutine
async def test_giving_up_when_nobody_is_there(tmp_path: Path):
    with DaskProcesses(tmp_path) as processes:  # a scheduler without workers
        space: dict[str, Any] = {"Scheduler": Scheduler}
        source = example("def give_up(seconds)").replace("tcp://127.0.0.1:8786", processes.address)
        source = source.replace("no_workers_after=30", "no_workers_after=0.1, connect_timeout=30")
        exec(source.replace("seconds > 600", "seconds > 0.3"), space)
        scheduler = space["scheduler"]
        run = scheduler.start()
        waiting = scheduler.submit(square, 3)
        state = await asyncio.wait_for(run.wait(), LONG_S)
    assert state == ExitCode.STOPPED
    assert waiting.cancelled()


def test_the_job_script_is_shown(capsys: pytest.CaptureFixture[str]):
    exec(example("job_script()"), {"Scheduler": Scheduler})
    said = capsys.readouterr().out
    for line in ("#SBATCH -p long", "#SBATCH --cpus-per-task=4", "#SBATCH -t 8:00:00"):
        assert line in said.splitlines()
