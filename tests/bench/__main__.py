"""Run the benchmarks and write `docs/performance.md`: `python -m tests.bench [WORD …]`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tests.bench import engines, scaling
from tests.bench.harness import COMPARISONS, IN_KERNELS, Finding, findings
from tests.bench.report import line, page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def main() -> None:
    """Measure all comparisons, or those whose text has one of the words; all write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only comparisons with it; engines: only those"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    options = parser.parse_args()
    words = [word.lower() for word in options.words]
    chosen = [
        c
        for c in (*COMPARISONS, *IN_KERNELS)
        if not words or any(w in c.what.lower() for w in words)
    ]
    found: list[Finding] = []
    for finding in findings(chosen, options.rounds):
        print(line(finding), flush=True)
        found.append(finding)
    remote = list(_engines(options.rounds)) if not words or "engines" in words else []
    if not words:
        points = scaling.measured()
        scaling.draw(points, PAGE.parent / "_static" / "scaling.svg")
        PAGE.write_text(page(found, points, remote, n_rounds=options.rounds))


def _engines(n_rounds: int) -> Iterator[engines.EngineFinding]:
    for finding in engines.measured(n_rounds):
        print(finding.line(), flush=True)
        yield finding


if __name__ == "__main__":
    main()
