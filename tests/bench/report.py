"""The findings as lines of text and as a page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from tests.bench.engines import EngineFinding, section
from tests.bench.harness import Finding
from tests.bench.scaling import DURATIONS_S, Scaling
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

A burst is bound by Python itself, on one thread. On a quiet machine the 16 µs of a call are 8 for
taking it in and 7 for its end. Its parts alone, each repeated on warm caches: making the record
0.7 µs, pickling what it sends 0.7, its future with a result 0.35, eight events 1.0, writing down
how it ended 0.7, remembering it 0.65, locks and clocks 0.4. Their sum is 5 µs; the rest is that
50 000 calls of some 630 bytes each do not fit into any cache, and the garbage collector looks at
them (a tenth of all instructions). joblib sends a list and gets a list back, some 3.5 µs a call:
half of its speed is out of reach as long as every call has a future, a record and eight events.
A call that waits for neither costs the same here; that is the price of being able to cancel it,
to see it and to be told.

The chain is bound by the same thread: 50 µs for two system calls of the loop, one read, one write,
the pickling of both and the events of a call. A pool takes 190 µs for it, in three threads.

A journal takes some 80 µs of each call from the same interpreter: it pickles what was submitted and
what came of it once more, and SQLite writes two rows and two values. At 1 000 calls a second that
is 8 % of a core, and nobody waits for it; flat out it is most of the time.
"""

_SCALING = """\
## Scaling

```{{image}} _static/scaling.svg
:alt: Time per call over the number of calls, and share of the ideal over the number of workers
```

Time per call in a flow with 2 000 calls under way: {calls}.
Calls of 10 ms that use no CPU, share of the ideal, measured: {workers} workers.

More workers than this machine can hold are a model: the loop's thread spends {cost} on a call that
travels alone, so it keeps {busy}.
"""


def line(finding: Finding) -> str:
    """Show a finding in one line of text."""
    verdict = "met" if finding.met else "NOT MET"
    return (
        f"{finding.comparison.what}: {_value(finding, finding.median)} "
        f"({_spread(finding)}), target {finding.comparison.bound}: {verdict}"
    )


def page(
    found: Sequence[Finding], scaling: Scaling, engines: Sequence[EngineFinding], *, n_rounds: int
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
    remote = section(list(engines), n_rounds=n_rounds)
    parts = [_HEAD, *table, "", _machine(n_rounds), "", remote, _LIMITS, _scaling(scaling)]
    return "\n".join(parts)


def _scaling(scaling: Scaling) -> str:
    busy = ", ".join(
        f"{scaling.n_workers_busy(d):,} workers busy with calls of {1e3 * d:g} ms"
        for d in DURATIONS_S
    )
    return _SCALING.format(
        calls=", ".join(f"{1e6 * s:.3g} µs at {n:,}" for n, s in scaling.per_call_s.items()),
        workers=", ".join(f"{share:.2f} with {n}" for n, share in scaling.shares.items()),
        cost=f"{1e6 * scaling.cost_s:.3g} µs",
        busy=busy,
    )


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
