"""Measure engines for `docs/engines.md`: `python -m tests.simulation.engines`.

These are figures of one machine, for the order of magnitude; `make bench` has the ratios.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from amltk_nb import Scheduler
from amltk_nb.errors import MissingExtraError
from tests.bench.functions import nothing, sleep
from tests.simulation.report import span

__all__ = ["main", "table"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "engines.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"

_N_ALONE = 50
_N_SHORT = 400
_SHORT_S = 0.005

ENGINES: dict[str, Callable[[], Scheduler]] = {
    "with_processes(2)": lambda: Scheduler.with_processes(2),
    "with_loky(2)": lambda: Scheduler.with_loky(2),
    "with_dask(n_workers=2)": lambda: Scheduler.with_dask(n_workers=2),
    "with_ray(num_cpus=2)": lambda: Scheduler.with_ray(num_cpus=2),
    "with_ipyparallel(n=2)": lambda: Scheduler.with_ipyparallel(n=2),
}

Figures = tuple[float, float, float]  # seconds to the first result, of one call alone; calls/s


async def measured(make: Callable[[], Scheduler]) -> Figures:
    """Run one engine from its start to its end."""
    scheduler = make()
    began = perf_counter()
    run = scheduler.start(display=False)
    await scheduler.submit(nothing)
    first_s = perf_counter() - began
    await scheduler.gather(scheduler.map(sleep, [0.2] * 4))  # both workers are there now
    alone_s = []
    for _ in range(_N_ALONE):
        began = perf_counter()
        await scheduler.submit(nothing)
        alone_s.append(perf_counter() - began)
    began = perf_counter()
    await scheduler.gather(scheduler.map(sleep, [_SHORT_S] * _N_SHORT))
    per_s = _N_SHORT / (perf_counter() - began)
    run.stop()
    await run
    return first_s, statistics.median(alone_s), per_s


def table(found: dict[str, Figures]) -> str:
    """Show them, with what they were made on."""
    lines = [
        "| two workers on this machine | first result after | an empty call, there and back "
        f"| calls of {1e3 * _SHORT_S:g} ms |",
        "|---|---|---|---|",
        *(
            f"| `{name}` | {span(first_s)} | {span(alone_s)} | {per_s:.0f}/s |"
            for name, (first_s, alone_s, per_s) in found.items()
        ),
    ]
    made = (
        f"Made by `python -m tests.simulation.engines` on {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}, load average {os.getloadavg()[1]:.1f}. Two workers can do "
        f"{2 / _SHORT_S:.0f} such calls a second."
    )
    return "\n".join(lines) + f"\n\n{made}\n"


def main() -> None:
    """Measure, and put the table into the page."""
    found: dict[str, Figures] = {}
    for name, make in ENGINES.items():
        try:
            found[name] = asyncio.run(measured(make))
        except MissingExtraError as error:
            print(f"{name} is left out: {error}", flush=True)
        else:
            print(name, *map("{:.4g}".format, found[name]), flush=True)
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{table(found)}{END}{after}")


if __name__ == "__main__":
    main()
