"""The long runs as a picture and as a page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.soak.long import N_ARRAY_BYTES, N_ARRAYS, Curve, Stand
from tests.soak.measuring import Memory

__all__ = ["draw", "page"]

HISTORY = 10_000
_GREY = "#808080"  # reads on light pages and on dark ones

_PAGE = """\
# Long runs

What does a scheduler hold after a million calls, and for how long does the notebook's loop stand
still because of it? `make soak` runs the tests of `tests/soak` in full, then measures what is on
this page and writes it (`python -m tests.soak`); every test run has a short version that fails on
a leak of one small object for each call.

## Memory

Calls on two worker processes, {at_once:,} at a time, their futures dropped, a dashboard open on a
page that takes its messages. The history is full after {history:,} ended calls.

```{{image}} _static/soak.svg
:alt: Resident memory of the kernel over the number of calls, flat once the history is full
```

| | calls | calls/s | kernel, history full | kernel, at the end | objects | worker | to the page |
|---|---|---|---|---|---|---|---|
{curves}

"Objects" is by how many memory blocks Python's own count grew between the two, "worker" the
larger one at the end. Calls that fail are remembered beside
the others, {history:,} of them as well. Bounded are also what calls print (64 kB each, 64 MB in
all), the log (500 entries), and what waits to be written to a journal: calls wait when 10,000 ends
or 256 MB of results are behind.

{n_arrays} calls with arrays of {array_mb} MB, one after the other, dashboard open:

| | kernel before | kernel after | largest worker before | after |
|---|---|---|---|---|
{arrays}

Results live as long as somebody keeps them or their future. Arguments are kept with the remembered
calls, so that these can be run again, up to 256 MB (and as much for failures); what several calls
share counts once. Older ones are let go of, and `resubmit` then says so. The functions of failed
calls on threads keep their variables for the last three failures only.

## The loop

The longest time for which the loop of the notebook did not turn, measured by a task that sleeps
for a millisecond again and again:

| while | alone | with a journal |
|---|---|---|
{stands}

In brackets: the longest garbage collection of CPython among it, which stops every thread and grows
with the number of objects that are alive; a hundred thousand futures in one list are millions.

What stands for longer than 50 ms, and why it stays so:

- **`map()` and `submit()`** do their work before they return: they pickle arguments as they are at
  that moment, so that you may change them afterwards, and give the first calls to idle workers. A
  call costs some 20 µs, 60 µs with a journal, on a core of its own. So 100,000 in one `map()` are
  seconds of your cell, as a loop of 100,000 steps would be; submit from a thread, or some thousand
  at a time with an `await asyncio.sleep(0)` in between, if other cells are to go on meanwhile.
- **A large argument** is copied in `submit()` for the same reason, once, also when there is a
  journal. Pass the name of a file, or make it in the worker, if that matters.
- **A value that is one large pickle**, such as a list of ten million numbers, is unpickled in one
  go, which no thread makes shorter. Arrays and large `bytes` are not: they are read piece by piece
  into memory that is not zeroed first.

{machine}
"""


def page(
    curves: Sequence[Curve],
    arrays: Mapping[str, tuple[Memory, Memory]],
    without: Sequence[Stand],
    journaled: Sequence[Stand],
) -> str:
    """Write the page."""
    return _PAGE.format(
        at_once=1_000,
        history=HISTORY,
        curves="\n".join(map(_curve_row, curves)),
        n_arrays=N_ARRAYS,
        array_mb=N_ARRAY_BYTES // 1_000_000,
        arrays="\n".join(_array_row(kind, *found) for kind, found in arrays.items()),
        stands="\n".join(
            f"| {one.what} | {_stood(one)} | {_stood(other)} |"
            for one, other in zip(without, journaled, strict=True)
        ),
        machine=_machine(),
    )


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Draw the kernel's memory, for light pages and dark ones."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "soak"  # the same points make the same file
    from matplotlib import pyplot

    colours = dict.fromkeys(("text.color", "axes.edgecolor", "xtick.color", "ytick.color"), _GREY)
    with pyplot.rc_context({**colours, "axes.labelcolor": _GREY}):
        figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
        for found in curves:
            n_calls = [n for n, _ in found.samples]
            axes.plot(n_calls, [m.rss_bytes / 1e6 for _, m in found.samples], label=found.name)
        axes.axvline(HISTORY, color=_GREY, linestyle=":", linewidth=1)
        axes.set(ylim=(0, None), xscale="log", xlabel="calls (dotted: the history is full)")
        axes.set_ylabel("resident, MB")
        axes.legend(fontsize="small", framealpha=0, ncols=2)
        figure.savefig(path, metadata={"Date": None}, transparent=True)
        pyplot.close(figure)


def _curve_row(found: Curve) -> str:
    full, end = found.after(2 * HISTORY), found.samples[-1][1]
    return (
        f"| {found.name} | {found.n_calls:,} | {found.n_calls / found.seconds:,.0f} "
        f"| {_mb(full.rss_bytes)} | {_mb(end.rss_bytes)} | {end.n_blocks - full.n_blocks:+,} "
        f"| {_mb(max(end.worker_rss_bytes))} | {found.n_message_bytes / 1e6:.1f} MB |"
    )


def _array_row(kind: str, before: Memory, after: Memory) -> str:
    return (
        f"| {kind} | {_mb(before.rss_bytes)} | {_mb(after.rss_bytes)} "
        f"| {_mb(max(before.worker_rss_bytes))} | {_mb(max(after.worker_rss_bytes))} |"
    )


def _stood(stand: Stand) -> str:
    collected = f" ({1e3 * stand.collection_s:.0f} ms)" if stand.collection_s >= 0.0005 else ""
    return f"{1e3 * stand.worst_s:,.0f} ms{collected}"


def _mb(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


def _machine() -> str:
    return (
        f"Measured with Python {platform.python_version()} on {platform.system()}, "
        f"{os.cpu_count()} CPUs; times grow with the load of the machine, "
        f"which was {os.getloadavg()[0]:.1f} at the end."
    )
