"""What is simulated: a thousand workers, calls of all lengths, batches, calls ahead, a million."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.simulation.costs import Engine
from tests.simulation.world import Costs, Seen, Setting, simulate

__all__ = ["AHEAD", "LENGTHS_S", "N_FEW", "N_MILLION", "N_WORKERS", "Sweep", "Sweeps", "swept"]

N_WORKERS = 1_000
N_MILLION = 1_000_000
LENGTHS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
AHEAD = (0, 1, 2, 4)  # calls that a remote worker is given besides the one it runs
N_FEW = 4  # workers; with a thousand the way there and back is not what they wait for
_FEW_S = (0.005, 0.02, 0.05, 0.1, 0.5)
_SHORT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)  # those that batches are made of
_N_QUEUED = 120_000  # a batch is at most half of an even share of what waits

Sweep = dict[float, Seen]  # by the length of calls, seconds


@dataclass(frozen=True)
class Sweeps:
    """What came of all."""

    lone: Sweep  # processes, each call by itself
    batched: Sweep  # processes, short calls together while many wait
    remote: Sweep
    ahead: dict[int, Sweep]  # few remote workers, by the calls that each is given ahead
    million_s: float  # the length of its calls
    million: Seen


def swept(processes: Engine, remote: Engine) -> Iterator[tuple[str, Sweeps | None]]:
    """Simulate everything, point by point; yields what is being done, and the whole at the end."""
    # Where another process is the narrower place, all calls wait for that one instead of us.
    remote_costs = Costs(remote.bound_s, 0.0, remote.costs.latency_s)
    kinds = {
        "lone": (Setting(processes.costs, 0.0), LENGTHS_S),
        "batched": (_batched(processes.costs), _SHORT_S),
        "remote": (Setting(remote_costs, 0.0), LENGTHS_S),
    }
    found: dict[str, Sweep] = {}
    for kind, (setting, lengths_s) in kinds.items():
        found[kind] = {}
        for length_s in lengths_s:
            yield f"{kind}, calls of {1e3 * length_s:g} ms", None
            found[kind][length_s] = simulate(replace(setting, length_s=length_s))
    ahead: dict[int, Sweep] = {}
    for n in AHEAD:
        yield f"{n} calls ahead", None
        setting = Setting(remote_costs, 0.0, n_workers=N_FEW, n_calls=1_000, n_ahead=n)
        ahead[n] = {s: simulate(replace(setting, length_s=s)) for s in _FEW_S}
    million_s = round_up(1.2 * N_WORKERS * processes.bound_s)
    yield f"a million calls of {1e3 * million_s:g} ms", None
    million = simulate(Setting(processes.costs, million_s, n_calls=N_MILLION))
    yield "done", Sweeps(**found, ahead=ahead, million_s=million_s, million=million)


def _batched(costs: Costs) -> Setting:
    return Setting(costs, 0.0, n_calls=_N_QUEUED, n_queued=_N_QUEUED, batches=True)


def round_up(seconds: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 … milliseconds."""
    step_s = 0.001
    while True:
        for factor in (1, 2, 5):
            if seconds <= factor * step_s:
                return round(factor * step_s, 3)
        step_s *= 10
