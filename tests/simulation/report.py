"""The simulation as a picture and as a page of the documentation."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.simulation.costs import CHECK_S, Engine
from tests.simulation.sweeps import N_FEW, N_MILLION, N_WORKERS, Sweep, Sweeps, round_up
from tests.simulation.world import Costs

__all__ = ["draw", "page"]

_BUSY = 0.95  # of the workers' time; more is as good as all of it

_PAGE = """\
# A thousand workers

How far does one scheduler go? `make simulation` answers that and writes this page: it measures
here what a call costs, then has the engine itself deal with up to {million:,} calls on
{workers:,} workers that exist in simulated time only (`tests/simulation`). Queue, dispatch, futures
and events are the real ones; only the work and the clock are not.

## What a call costs

| | processes | Dask |
|---|---|---|
| a message, on the one thread that takes in answers | {p.costs.message_s} | {d.costs.message_s} |
| each call in it | {p.costs.call_s} | {d.costs.call_s} |
| there and back, while others use that thread | {p.costs.latency_s} | {d.costs.latency_s} |
| in Dask's own scheduler, another process | – | {d.other_s} |
| a lone call, where it is narrowest | {p.bound_s} | {d.bound_s} |

Checked against real runs of two workers and calls of {check:g} ms: on processes the simulation
says {p.check.simulated_s} and it took {p.check.real_s} ({p.check.error}); on Dask it says
{d.check.simulated_s} and it took {d.check.real_s} ({d.check.error}).

## How long calls have to be

```{{image}} _static/simulation.svg
:alt: Left, busy workers over the length of calls; right, calls a second over the batches' size
```

Share of the time in which {workers:,} workers are at work:

{table}

- **Processes, each call by itself**: {p_busy}
- **Dask** (and batch systems, which use it): {d_busy}

## Calls ahead

A worker elsewhere waits for its next call for the way there and back, {d.costs.latency_s}, unless
it has been given one ahead. Busy share of {few} workers on Dask, by how many each is given:

{ahead}

That does not make the narrow place wider: with a thousand workers it changes nothing.

## Where it saturates

{million:,} calls of {million_ms:g} ms, each by itself, on {workers:,} workers:
{million_rate:,.0f} calls and {million_events:,.0f} events a second of simulated time, workers busy
for {million_busy:.0%}. All {million_n_events:,} events were emitted, in {million_real:.0f} s of
real time.

A call has eight events. Alone, calls saturate at {p_limit:,.0f} a second, which is
{p_limit_events:,.0f} events; on Dask at {d_limit:,.0f} calls, {d_limit_events:,.0f} events.
Together they go farther:

{batches}

A batch is as many calls as make 20 ms of work, and at most half of an even share of those that
wait. So it takes a queue of {queue:,} calls for {workers:,} workers to get batches of ten.

## What follows

- **Length.** n workers are kept busy by calls of at least n × {p_lone} on processes and
  n × {d_lone} on Dask: ten workers need {ten_p} and {ten_d}, a hundred {hundred_p} and
  {hundred_d}, a thousand {thousand_p} and {thousand_d}.
- **Shorter work, many workers**: put several pieces of work into one call. A loop over fifty
  pieces in your function costs nothing; fifty calls cost fifty times the above.
- **Batches** do this for you on processes, when much is submitted at once (`map`, a batch) rather
  than one call for each result.
- **`n_ahead`** helps when calls are not much longer than the way there and back
  ({d.costs.latency_s}), and only as long as the narrow place has room. It is chosen by itself,
  from what is measured during the run; 0 is for calls that must not run twice when a worker dies.
- **Callbacks run on that same thread.** One that takes a millisecond makes every call a
  millisecond dearer: a thousand workers then need calls of a second or more.

{machine}
"""


class _Shown:
    """An engine whose numbers read well."""

    def __init__(self, engine: Engine) -> None:
        self.costs = _ShownCosts(engine.costs)
        self.check = _ShownCheck(engine)
        self.other_s = span(engine.other_s)
        self.bound_s = span(engine.bound_s)


class _ShownCosts:
    def __init__(self, costs: Costs) -> None:
        self.message_s, self.latency_s = span(costs.message_s), span(costs.latency_s)
        self.call_s = span(costs.call_s) if costs.call_s else "in the message"


class _ShownCheck:
    def __init__(self, engine: Engine) -> None:
        self.real_s, self.simulated_s = span(engine.check.real_s), span(engine.check.simulated_s)
        self.error = f"{engine.check.error:+.0%}"


def page(processes: Engine, dask: Engine, found: Sweeps) -> str:
    """Write the page."""
    million, events_per_call = found.million, found.million.n_events / N_MILLION
    p_limit, d_limit = 1 / processes.bound_s, 1 / dask.bound_s
    lengths = {
        f"{word}_{key}": span(round_up(n * engine.bound_s))
        for word, n in (("ten", 10), ("hundred", 100), ("thousand", 1_000))
        for key, engine in (("p", processes), ("d", dask))
    }
    return _PAGE.format(
        million=N_MILLION,
        workers=N_WORKERS,
        p=_Shown(processes),
        d=_Shown(dask),
        check=1e3 * CHECK_S,
        table=_table(_named(found)),
        p_busy=_busy_from(found.lone),
        d_busy=_busy_from(found.remote),
        few=N_FEW,
        ahead=_table({f"{n} ahead": sweep for n, sweep in found.ahead.items()}),
        million_ms=1e3 * found.million_s,
        million_rate=million.calls_per_s,
        million_events=million.events_per_s(N_MILLION),
        million_busy=million.busy,
        million_n_events=million.n_events,
        million_real=million.real_s,
        p_limit=p_limit,
        p_limit_events=p_limit * events_per_call,
        d_limit=d_limit,
        d_limit_events=d_limit * events_per_call,
        batches=_batches(found.batched, events_per_call),
        queue=2 * 10 * N_WORKERS,
        p_lone=span(processes.bound_s),
        d_lone=span(dask.bound_s),
        machine=_machine(),
        **lengths,
    )


def draw(found: Sweeps, costs: Costs, path: Path) -> None:
    """Draw how busy workers are, and how batches help."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "simulation"  # the same points make the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for label, sweep in _named(found).items():
        left.plot(list(sweep), [seen.busy for seen in sweep.values()], marker="o", label=label)
    left.set(xscale="log", ylim=(0, 1.05), xlabel="length of calls, s", ylabel="workers busy")
    left.legend(fontsize="small")
    sizes = [seen.batch_size for seen in found.batched.values()]
    rates = [seen.calls_per_s for seen in found.batched.values()]
    right.plot(sizes, rates, "o", label="simulated")
    line = [1 + k * (max(sizes) - 1) / 100 for k in range(101)]
    limit = [1 / (costs.call_s + costs.message_s / size) for size in line]
    right.plot(line, limit, "--", label="limit")
    right.set(ylim=(0, None), xlabel="calls per message", ylabel="calls per second")
    right.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def span(seconds: float) -> str:
    """Write a time with two or three digits and a unit that fits."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _named(found: Sweeps) -> dict[str, Sweep]:
    return {"processes": found.lone, "Dask": found.remote}


def _table(named: dict[str, Sweep]) -> str:
    lines = ["| length of calls | " + " | ".join(named) + " |", "|---" * (len(named) + 1) + "|"]
    for length_s in next(iter(named.values())):
        shares = " | ".join(_share(sweep[length_s].busy) for sweep in named.values())
        lines.append(f"| {span(length_s)} | {shares} |")
    return "\n".join(lines)


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "below 1%"


def _batches(sweep: Sweep, events_per_call: float) -> str:
    lines = ["| length of calls | calls per message | calls/s | events/s |", "|---|---|---|---|"]
    for length_s, seen in sweep.items():
        rate = seen.calls_per_s
        lines.append(
            f"| {span(length_s)} | {seen.batch_size:.1f} | {rate:,.0f} "
            f"| {rate * events_per_call:,.0f} |"
        )
    return "\n".join(lines)


def _busy_from(sweep: Sweep) -> str:
    """Say from which length on workers are busy."""
    lengths = [length_s for length_s, seen in sweep.items() if seen.busy >= _BUSY]
    if not lengths:
        return f"none of these lengths keeps {N_WORKERS:,} workers busy."
    return f"{N_WORKERS:,} workers are busy ({_BUSY:.0%} or more) with calls of {span(lengths[0])}."


def _machine() -> str:
    packages = ", ".join(map(_installed, ("amltk-nb", "distributed")))
    return (
        f"Measured on {os.cpu_count()} CPUs, {platform.system()}, Python "
        f"{platform.python_version()}; {packages}; load average {os.getloadavg()[2]:.1f} over the "
        "last quarter of an hour."
    )


def _installed(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:  # a page for a test, where nothing is measured
        return f"no {name}"
