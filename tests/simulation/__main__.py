"""Measure, simulate and write `docs/scale.md` with its picture: `python -m tests.simulation`."""

from __future__ import annotations

from pathlib import Path

from tests.simulation.costs import measured
from tests.simulation.report import draw, page
from tests.simulation.sweeps import swept

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    """Take some minutes."""
    print("measuring what a call costs …", flush=True)
    processes, dask = measured()
    for name, engine in (("processes", processes), ("Dask", dask)):
        print(f"{name}: {engine.costs}, check {engine.check.error:+.0%}", flush=True)
    for doing, found in swept(processes, dask):
        print(doing, flush=True)
        if found is not None:
            draw(found, processes.costs, DOCS / "_static" / "simulation.svg")
            (DOCS / "scale.md").write_text(page(processes, dask, found))


if __name__ == "__main__":
    main()
