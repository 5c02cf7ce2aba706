"""How time per call grows with their number, and how workers share calls that only wait.

Beyond what this machine has workers for stands a model: one thread, the loop's, takes in every
call, so n workers with calls of d seconds ask it for n / d calls a second; it can do 1 / c of them,
where c is what one call costs that thread when nothing travels in batches. Busy workers' share is
then min(1, d / (n c)), and c is measured here, in the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.bench.harness import Subject

__all__ = ["DURATIONS_S", "N_CALLS", "N_WORKERS", "Scaling", "draw", "measured"]

N_CALLS = (1_000, 10_000, 100_000, 1_000_000)
N_WORKERS = (1, 2, 4, 8)
DURATIONS_S = (0.01, 0.1, 1.0)  # of the model's calls
_N_WAITING = 800  # calls of 10 ms
_N_MODELLED = [2**k for k in range(15)]

Points = dict[int, float]


@dataclass(frozen=True)
class Scaling:
    """What was measured, and the model's one parameter."""

    per_call_s: Points  # by the number of calls in a flow
    shares: Points  # of the ideal, by the number of workers
    cost_s: float  # of one call that travels alone, to the loop's thread

    def share(self, n_workers: int, duration_s: float) -> float:
        """Return the model's share of the ideal."""
        return min(1.0, duration_s / (n_workers * self.cost_s))

    def n_workers_busy(self, duration_s: float) -> int:
        """Return how many workers the model keeps wholly busy."""
        return int(duration_s / self.cost_s)


def measured() -> Scaling:
    """Measure each point once."""
    per_call_s = {n: Subject("flow", "ours", n).measure()["per_call"] for n in N_CALLS}
    shares = {n: Subject("workers", str(n), _N_WAITING).measure()["share"] for n in N_WORKERS}
    return Scaling(per_call_s, shares, Subject("chain", "ours", 5_000).measure()["per_call"])


def draw(scaling: Scaling, path: Path) -> None:
    """Draw measurements and model as one picture."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "scaling"  # the same points make the same file
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    per_call_us = [1e6 * s for s in scaling.per_call_s.values()]
    left.plot(list(scaling.per_call_s), per_call_us, marker="o")
    left.set(xscale="log", ylim=(0, None), xlabel="empty calls in the run", ylabel="µs per call")
    right.plot(list(scaling.shares), list(scaling.shares.values()), "o", label="measured, 10 ms")
    for duration_s in DURATIONS_S:
        modelled = [scaling.share(n, duration_s) for n in _N_MODELLED]
        right.plot(_N_MODELLED, modelled, "--", label=f"model, {1e3 * duration_s:g} ms")
    right.set(xscale="log", ylim=(0, 1.05), xlabel="workers", ylabel="share of the ideal")
    right.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
