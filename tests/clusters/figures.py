"""What each real batch system costs here; writes the table of docs/clusters.md.

    python -m tests.clusters.figures                 all of them, one after another
    python -m tests.clusters.figures slurm sge       only these; the other rows stay as they are

An installation is timed only when something had to be installed.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amltk_nb import Scheduler
from tests.clusters.daemons import BatchSystem
from tests.clusters.htcondor import HTCondor
from tests.clusters.jobs import made
from tests.clusters.oar import OAR
from tests.clusters.sge import GridEngine
from tests.clusters.slurm import Slurm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clusters.md"
SYSTEMS: dict[str, tuple[str, type[BatchSystem], dict[str, Any]]] = {
    "slurm": ("Slurm", Slurm, {}),
    "sge": ("Grid Engine", GridEngine, {}),
    "htcondor": ("HTCondor", HTCondor, {"walltime": None, "disk": "100 MB"}),
    "oar": ("OAR", OAR, {"memory_per_core_property_name": "not_applicable"}),
}
N_CALLS = 500
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
HEAD = (
    "| | installed in | started in | first worker after | calls/s, 2 workers | closed in |\n"
    "|---|---|---|---|---|---|\n"
)
_INSTALLED_S = 2.0  # less than that, and nothing was installed


def nothing(n: int) -> int:
    return n


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


async def used(key: str, folder: Path, options: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds to the first answer, calls per second after that, seconds to close."""
    scheduler = await asyncio.to_thread(made, key, folder, 2, **options)
    began = time.perf_counter()
    run = scheduler.start()
    await scheduler.submit(nothing, 0)
    first_s = time.perf_counter() - began
    await scheduler.gather(scheduler.map(nothing, range(20)))  # both workers are there by then
    began = time.perf_counter()
    await scheduler.gather(scheduler.map(nothing, range(N_CALLS)))
    per_s = N_CALLS / (time.perf_counter() - began)
    began = time.perf_counter()
    run.stop()
    await run
    return first_s, per_s, time.perf_counter() - began


def row(key: str) -> str:
    """Install, start, use and stop one; returns its line of the table."""
    title, make, options = SYSTEMS[key]
    install_s, reason = timed(make.missing)
    if reason:
        sys.exit(reason)
    with tempfile.TemporaryDirectory(prefix=f"amltk-nb-{key}-") as folder:
        system = make(Path(folder))
        try:
            start_s, _ = timed(system.start)
            os.environ.update(system.environment)
            jobs = Path(folder, "jobs")
            jobs.mkdir(mode=0o777)
            jobs.chmod(0o777)
            first_s, per_s, close_s = asyncio.run(used(key, jobs, options))
        finally:
            system.stop()
    installed = f"{install_s:.0f} s" if install_s > _INSTALLED_S else "–"
    return (
        f"| {title} | {installed} | {start_s:.1f} s | {first_s:.1f} s "
        f"| {per_s:.0f} | {close_s:.1f} s |\n"
    )


def main() -> None:
    Scheduler.with_slurm(1, cores=1, memory="1 GB")  # loads what the main thread only may load
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    for key in sys.argv[1:] or SYSTEMS:
        new, title = row(key), SYSTEMS[key][0]
        print(new, end="", flush=True)
        if "| – |" in new and (known := re.search(rf"(?m)^\| {title} \| ([^|]+) \|", table)):
            new = new.replace("| – |", f"| {known.group(1)} |")
        table, n_replaced = re.subn(rf"(?m)^\| {title} \|.*\n", new, table)
        table = table if n_replaced else (table or HEAD) + new
        PAGE.write_text(before + BEGIN + table + END + after)


if __name__ == "__main__":
    main()
