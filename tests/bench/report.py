"""The findings as lines of text and as a page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from tests.bench.harness import Finding
from tests.environments import ENVIRONMENTS

__all__ = ["line", "page"]

_PACKAGES = ("amltk-nb", "amltk", "joblib", "loky", "numpy")

_HEAD = """\
# Performance

Ratios between amltk_nb and its peers, each the median of several rounds. In a round all that is
compared runs right after one another, every measurement in a process of its own; only ratios of
one round mean anything, since machines differ and this one is shared. `make bench` writes this
page.

*Predecessor* is amltk, *pool* a bare `ProcessPoolExecutor`; all use the `forkserver` start method.
Ours emits every event and keeps future, record and times of each call; the pool and joblib do not.
A ratio with ≥ says how many times as quick ours is, one with ≤ how much of the other's time it
takes.
"""

_LIMITS = """\
## What limits it

Instructions per call do not depend on who else uses the machine (`perf stat -e instructions:u`, all
processes, the difference of two lengths of run; counted by hand, not by `make bench`):

| | ours | predecessor | pool | joblib |
|---|---|---|---|---|
| burst | 112 000 | 725 000 | 405 000 | 21 000 |
| chain | 217 000 | 716 000 | 476 000 | |

A burst is bound by Python itself. Counted instructions per call, workers included, went from
149 000 to 112 500; what is left is flat: a third is the interpreter's loop, a tenth the garbage
collector, nothing else above 3 %. Half of the time goes into accepting calls, a third into their
events, a sixth into the thread that reads results. All three take turns on one interpreter lock,
so the time per call is their sum. joblib makes none of these objects: it sends a list and gets a
list back, so half of its speed is out of reach while every call has a future and eight events.

The chain is bound by changes between threads: a result wakes the reader, the reader the loop, and
the loop's answer a worker, some three switches per call. A quarter of the time is the kernel's.
Both suffer more than a pool when other programs use the same CPUs, as the load average above tells:
a thread that was put aside while it holds the interpreter lock keeps the other one waiting too.
"""

_SCALING = """\
## Scaling

```{{image}} _static/scaling.svg
:alt: Time per call over the number of calls, and share of the ideal over the number of workers
```

Time per call in a flow with 2 000 calls under way: {calls}.
Calls of 10 ms that use no CPU, share of the ideal: {workers} workers.
"""


def line(finding: Finding) -> str:
    """Show a finding in one line of text."""
    verdict = "met" if finding.met else "NOT MET"
    return (
        f"{finding.comparison.what}: {_value(finding, finding.median)} "
        f"({_spread(finding)}), target {finding.comparison.bound}: {verdict}"
    )


def page(
    found: Sequence[Finding], scaling: tuple[dict[int, float], dict[int, float]], *, n_rounds: int
) -> str:
    """Make the page of the documentation."""
    rows = [
        f"| {f.comparison.what} | {f.comparison.bound} | {_value(f, f.median)} | {_spread(f)} "
        f"| {_duration(f)} | {'yes' if f.met else '**no**'} |"
        for f in found
    ]
    table = [
        "| what | target | median | least–most | ours, per call | met |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join([_HEAD, *table, "", _machine(n_rounds), "", _LIMITS, _scaling(*scaling)])


def _scaling(per_call: dict[int, float], shares: dict[int, float]) -> str:
    calls = ", ".join(f"{1e6 * s:.3g} µs at {n:,}" for n, s in per_call.items())
    workers = ", ".join(f"{share:.2f} with {n}" for n, share in shares.items())
    return _SCALING.format(calls=calls, workers=workers)


def _value(finding: Finding, value: float) -> str:
    return f"{value:.3g} {finding.comparison.unit}".rstrip()


def _spread(finding: Finding) -> str:
    return f"{min(finding.values):.3g}–{max(finding.values):.3g}"


def _duration(finding: Finding) -> str:
    seconds = sorted(finding.per_call_s)[len(finding.per_call_s) // 2]
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _machine(n_rounds: int) -> str:
    found = [f"{name} {_version(name)}" for name in _PACKAGES if _version(name)]
    return (
        f"{n_rounds} rounds on {os.cpu_count()} CPUs ({_cpu()}), {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; {', '.join(found)}; "
        f"load average {os.getloadavg()[2]:.1f} over the last quarter of an hour."
    )


def _version(name: str) -> str:
    """Look a package's version up where the peers are installed; empty if it is not there."""
    where = ENVIRONMENTS["bench"].python.parents[1].glob("lib/python*/site-packages")
    found = distributions(name=name, path=list(map(str, where)))
    return next((each.version for each in found), "")


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.machine()
