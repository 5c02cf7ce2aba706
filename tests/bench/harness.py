"""What is compared with what, how often, and how close to its target it came."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.environments import ENVIRONMENTS

__all__ = ["COMPARISONS", "IN_KERNELS", "Bound", "Comparison", "Finding", "Subject", "findings"]

ROOT = Path(__file__).resolve().parents[2]
_PROBE_LIMIT_S = 180

Numbers = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """One thing that is measured: a probe, who runs it, over how many calls."""

    probe: str
    who: str
    n_calls: int
    in_kernel: bool = False  # the environments of kernels are made by this interpreter

    def measure(self) -> Numbers:
        """Measure once, in a process of its own.

        Raises:
            RuntimeError: the probe failed; its last words are in the message.
        """
        python = sys.executable if self.in_kernel else str(ENVIRONMENTS["bench"].python)
        command = [python, "-m", "tests.bench.probe", self.probe, self.who]
        done = subprocess.run(
            [*command, str(self.n_calls)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROBE_LIMIT_S,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        numbers: Numbers = json.loads(done.stdout.splitlines()[-1])
        return {**numbers, "per_call": numbers["seconds"] / self.n_calls}


@dataclass(frozen=True)
class Bound:
    """A target: at least or at most so much."""

    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Say whether a value meets it."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Comparison:
    """A line of the table: a number of ours, alone or as a ratio to another one's.

    Without `to`, the value is `number` of `ours` itself; with it, theirs ÷ ours where more is
    better (a speed), and ours ÷ theirs where less is (a time), as `bound` says.
    """

    what: str
    ours: Subject
    bound: Bound
    to: Subject | None = None
    number: str = "per_call"
    unit: str = "×"

    def value(self, ours: Numbers, theirs: Numbers | None) -> float:
        """Make the value from one round."""
        if theirs is None:
            return ours[self.number]
        ratio = theirs[self.number] / ours[self.number]
        return ratio if self.bound.at_least is not None else 1 / ratio


@dataclass
class Finding:
    """What a comparison came to: one value per round."""

    comparison: Comparison
    values: list[float] = field(default_factory=list)
    per_call_s: list[float] = field(default_factory=list)  # ours

    @property
    def median(self) -> float:
        """The value that counts."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        """Whether the median meets the target."""
        return self.comparison.bound.holds(self.median)


_BURST = Subject("burst", "ours", 50_000)
_CHAIN = Subject("chain", "ours", 5_000)
_THREADS = Subject("threads", "ours", 50_000)
_SEQUENTIAL = Subject("sequential", "ours", 20_000)
_MILLION = Subject("flow", "ours", 1_000_000)
_MONITOR = Subject("monitor", "ours", 12_000)
_JOURNAL = Subject("journal at 1 000", "ours", 12_000)
_FIRST = Subject("first", "ours", 1)
_IMPORT = Subject("import", "ours", 5)

COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        "burst of 50 000, two processes, to the predecessor",
        _BURST,
        Bound(at_least=15),
        Subject("burst", "predecessor", 10_000),
    ),
    Comparison(
        "the same, to bare ProcessPoolExecutor.submit",
        _BURST,
        Bound(at_least=8),
        Subject("burst", "pool", 50_000),
    ),
    Comparison("the same, to loky", _BURST, Bound(at_least=8), Subject("burst", "loky", 10_000)),
    Comparison(
        "the same, to joblib.Parallel, which keeps nothing per call",
        _BURST,
        Bound(at_least=0.5),
        Subject("burst", "joblib", 50_000),
    ),
    Comparison(
        "chain of 5 000, 4 in flight, to a ProcessPoolExecutor wait-loop",
        _CHAIN,
        Bound(at_least=3),
        Subject("chain", "pool", 5_000),
    ),
    Comparison(
        "the same, to the predecessor",
        _CHAIN,
        Bound(at_least=4),
        Subject("chain", "predecessor", 5_000),
    ),
    Comparison(
        "function of a notebook, chain, to an importable one",
        Subject("chain", "ours_by_value", 5_000),
        Bound(at_most=1.3),
        _CHAIN,
    ),
    Comparison(
        "threads, burst of 50 000, to the predecessor",
        _THREADS,
        Bound(at_least=3),
        Subject("threads", "predecessor", 10_000),
    ),
    Comparison(
        "sequential, burst of 20 000, to the predecessor",
        _SEQUENTIAL,
        Bound(at_least=3),
        Subject("sequential", "predecessor", 10_000),
    ),
    Comparison(
        "time per call in a flow of 1 000 000, to one of 10 000",
        _MILLION,
        Bound(at_most=1.2),
        Subject("flow", "ours", 10_000),
    ),
    Comparison(
        "memory per finished call in that flow",
        _MILLION,
        Bound(at_most=8),
        number="bytes_per_call",
        unit="bytes",
    ),
    Comparison(
        "400 calls of 50 ms, share of the ideal",
        Subject("long", "ours", 400),
        Bound(at_least=0.98),
        number="share",
        unit="",
    ),
    Comparison(
        "400 calls of 1 ms and 8 of 500 ms, share of the ideal",
        Subject("mixed", "ours", 400),
        Bound(at_least=0.95),
        number="share",
        unit="",
    ),
    Comparison(
        "8 MB arrays there and back, to the bare pool",
        Subject("arrays", "ours", 40),
        Bound(at_least=0.9),
        Subject("arrays", "pool", 40),
    ),
    Comparison(
        "a cell that blocks, workers busy meanwhile",
        Subject("blocked", "ours", 1_000),
        Bound(at_least=0.95),
        number="share",
        unit="",
    ),
    Comparison(
        "QueueMonitor at 1 000 calls/s: time to that without",
        _MONITOR,
        Bound(at_most=1.05),
        number="slower",
    ),
    Comparison(
        "the same: share of a core that it takes",
        _MONITOR,
        Bound(at_most=0.05),
        number="share",
        unit="",
    ),
    Comparison(
        "journal at 1 000 calls/s: time to that without",
        _JOURNAL,
        Bound(at_most=1.1),
        number="slower",
    ),
    Comparison(
        "the same: share of a core that the journal takes",
        _JOURNAL,
        Bound(at_most=0.1),
        number="share",
        unit="",
    ),
    Comparison(
        "journal, flat out until all is written: time to that without",
        Subject("journal", "ours", 60_000),
        Bound(at_most=4),
        number="slower",
    ),
    Comparison(
        "emit without callbacks, to the predecessor",
        Subject("emit0", "ours", 100_000),
        Bound(at_most=0.333),
        Subject("emit0", "predecessor", 100_000),
    ),
    Comparison(
        "emit with five callbacks, to the predecessor",
        Subject("emit5", "ours", 100_000),
        Bound(at_most=0.5),
        Subject("emit5", "predecessor", 100_000),
    ),
    Comparison(
        "import, to import asyncio", _IMPORT, Bound(at_most=2.2), Subject("import", "asyncio", 5)
    ),
    Comparison(
        "import, to the predecessor's",
        _IMPORT,
        Bound(at_most=0.067),
        Subject("import", "predecessor", 2),
    ),
    Comparison(
        "first result after start(), to a bare pool's",
        _FIRST,
        Bound(at_most=1),
        Subject("first", "pool", 1),
    ),
)


_KERNELS = ("6.31", "7.4")
_PAGES = (  # how the text says it, the probe, and over how many calls
    ("flat out", "page", 50_000),
    ("1 000 calls/s", "page at 1 000", 5_000),
    ("20 000 calls/s", "page at 20 000", 60_000),
)


def _page_comparisons(pace: str, probe: str, n_calls: int) -> Iterator[Comparison]:
    is_open = Subject(probe, "open", n_calls, in_kernel=True)
    closed = Subject(probe, "closed", n_calls, in_kernel=True)
    text = f"dashboard open, {pace}: time to that with it closed"
    yield Comparison(text, is_open, Bound(at_most=1.05), closed)
    for word, number, bound in (
        ("messages", "messages_per_s", Bound(at_most=5)),
        ("kilobytes", "kilobytes_per_s", Bound(at_most=50)),
    ):
        yield Comparison(f"the same: {word}", is_open, bound, number=number, unit="/s")


IN_KERNELS: tuple[Comparison, ...] = (
    *(
        Comparison(
            f"ipykernel {version}: answer to 1+1 while calls flow, {name}",
            Subject("kernel", version, 500, in_kernel=True),
            bound,
            number=number,
            unit=unit,
        )
        for version in _KERNELS
        for name, number, bound, unit in (
            ("calls a second", "calls_per_s", Bound(at_least=5_000), "/s"),
            ("p50", "p50_ms", Bound(at_most=15), "ms"),
            ("p99", "p99_ms", Bound(at_most=50), "ms"),
        )
    ),
    *(comparison for page in _PAGES for comparison in _page_comparisons(*page)),
)


def findings(comparisons: Sequence[Comparison], n_rounds: int) -> Iterator[Finding]:
    """Measure in rounds, each subject once per round; yields every comparison when it is done.

    What a comparison needs is measured right after one another, so that both sides see the same
    machine; a subject of several comparisons that follow each other is measured once per round.
    """
    for group in _groups(comparisons):
        found = [Finding(comparison) for comparison in group]
        for _ in range(n_rounds):
            measured: dict[Subject, Numbers] = {}
            for finding in found:
                comparison = finding.comparison
                for subject in filter(None, (comparison.ours, comparison.to)):
                    if subject not in measured:
                        measured[subject] = subject.measure()
                theirs = measured[comparison.to] if comparison.to else None
                ours = measured[comparison.ours]
                finding.values.append(comparison.value(ours, theirs))
                finding.per_call_s.append(ours["per_call"])
        yield from found


def _groups(comparisons: Sequence[Comparison]) -> Iterator[list[Comparison]]:
    group: list[Comparison] = []
    for comparison in comparisons:
        if group and comparison.ours != group[0].ours:
            yield group
            group = []
        group.append(comparison)
    if group:
        yield group
