"""Run for minutes, and write `docs/soak.md` with its picture: `python -m tests.soak`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.soak.long import ARRAYS, RUNS, curve, held, stands
from tests.soak.report import draw, page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    """Take some minutes."""
    curves = []
    for name, fn, n_calls, journaled in RUNS:
        print(f"{name}: {n_calls:,} …", flush=True)
        curves.append(asyncio.run(curve(name, fn, n_calls, journaled)))
    print("large arrays …", flush=True)
    arrays = {kind: asyncio.run(held(kind)) for kind in ARRAYS}
    print("the loop …", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        without = asyncio.run(stands(None))
        journaled_too = asyncio.run(stands(Path(folder) / "run.db"))
    draw(curves, DOCS / "_static" / "soak.svg")
    (DOCS / "soak.md").write_text(page(curves, arrays, without, journaled_too))


if __name__ == "__main__":
    main()
