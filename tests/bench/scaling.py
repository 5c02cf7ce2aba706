"""How time per call grows with their number, and how workers share calls that only wait."""

from __future__ import annotations

from pathlib import Path

from tests.bench.harness import Subject

__all__ = ["N_CALLS", "N_WORKERS", "draw", "measured"]

N_CALLS = (1_000, 10_000, 100_000, 1_000_000)
N_WORKERS = (1, 2, 4, 8)
_N_WAITING = 800  # calls of 10 ms

Points = dict[int, float]


def measured() -> tuple[Points, Points]:
    """Measure each point once.

    Returns:
        Seconds per call by the number of calls, and the share of the ideal by that of workers.
    """
    per_call = {n: Subject("flow", "ours", n).measure()["per_call"] for n in N_CALLS}
    shares = {n: Subject("workers", str(n), _N_WAITING).measure()["share"] for n in N_WORKERS}
    return per_call, shares


def draw(per_call: Points, shares: Points, path: Path) -> None:
    """Draw both as one picture."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"  # the same points make the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.plot(list(per_call), [1e6 * s for s in per_call.values()], marker="o")
    left.set(xscale="log", ylim=(0, None), xlabel="empty calls in the run", ylabel="µs per call")
    right.plot(list(shares), list(shares.values()), marker="o")
    right.set(ylim=(0, 1.05), xlabel="workers", ylabel="share of the ideal, calls of 10 ms")
    right.set_xticks(list(shares))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
