"""The simulated world does as it says: times to the microsecond, events to the last count."""

from __future__ import annotations

import pytest

from tests.simulation.costs import Check, Engine
from tests.simulation.report import page, span
from tests.simulation.sweeps import Sweeps, round_up
from tests.simulation.world import Costs, Seen, Setting, simulate

FREE = Costs(0.0, 0.0, 0.0)
N_EVENTS = 8  # of each call; and four of the run: start, empty, finishing, finished


@pytest.mark.parametrize(
    ("setting", "elapsed_s"),
    [
        (Setting(FREE, 1.0, n_workers=2, n_calls=10), 5.0),
        (Setting(FREE, 1.0, n_workers=3, n_calls=10), 4.0),
        # Each round is a call and the way there and back.
        (Setting(Costs(0.0, 0.0, 0.5), 1.0, n_workers=2, n_calls=10), 5 * 1.5),
        # Ahead, only the first way there and the last way back are waited for.
        (Setting(Costs(0.0, 0.0, 0.5), 1.0, n_workers=2, n_calls=10, n_ahead=1), 5.0 + 0.5),
        # The thread is the narrow place: the first call, then 0.4 + 0.1 for each.
        (Setting(Costs(0.4, 0.1, 0.0), 0.01, n_workers=100, n_calls=200), 0.01 + 200 * 0.5),
    ],
)
def test_how_long_it_takes(setting: Setting, elapsed_s: float):
    seen = simulate(setting)
    assert seen.elapsed_s == pytest.approx(elapsed_s, rel=1e-9)
    assert seen.n_events == N_EVENTS * setting.n_calls + 4
    assert seen.batch_size == 1


def test_a_thousand_workers_are_busy_with_long_calls_and_idle_with_short_ones():
    costs = Costs(40e-6, 10e-6, 0.0)
    assert simulate(Setting(costs, 0.1, n_calls=5_000)).busy == pytest.approx(1.0, abs=0.01)
    seen = simulate(Setting(costs, 0.01, n_calls=5_000))
    assert seen.busy == pytest.approx(0.2, abs=0.001)  # 1 / 50 µs, of 100 000 calls a second
    assert seen.calls_per_s == pytest.approx(20_000, rel=1e-3)
    assert seen.events_per_s(5_000) == pytest.approx(160_000, rel=2e-3)


def test_batches_of_the_engine_spare_messages():
    costs = Costs(40e-6, 10e-6, 0.0)
    seen = simulate(
        Setting(costs, 0.001, n_workers=10, n_calls=4_000, n_queued=4_000, batches=True)
    )
    assert 5 < seen.batch_size <= 20  # 20 ms of work each, as long as enough wait
    assert seen.n_events == N_EVENTS * 4_000 + 4
    assert simulate(Setting(costs, 0.001, n_workers=10, n_calls=4_000)).batch_size == 1


@pytest.mark.parametrize(
    ("seconds", "shown"), [(5.55e-5, "55.5 µs"), (0.0042, "4.2 ms"), (1.5, "1.5 s")]
)
def test_times_read_well(seconds: float, shown: str):
    assert span(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "rounded"), [(0.0001, 0.001), (0.0011, 0.002), (0.066, 0.1), (0.1, 0.1), (3, 5)]
)
def test_lengths_are_round(seconds: float, rounded: float):
    assert round_up(seconds) == rounded


def test_the_page_tells_what_was_found():
    engine = Engine(Costs(40e-6, 10e-6, 1e-3), Check(real_s=1.0, simulated_s=0.9), other_s=1e-3)
    idle = Seen(1.0, 10_000.0, 0.004, 1.0, 160_000, 2.0)
    full = Seen(1.0, 10_000.0, 0.97, 1.0, 160_000, 2.0)
    sweep, worse = {0.01: idle, 0.1: full}, {0.01: idle, 0.1: idle}
    text = page(engine, engine, Sweeps(sweep, sweep, worse, {0: sweep, 1: sweep}, 0.1, full))
    assert "1,000 workers are busy (95% or more) with calls of 100 ms." in text
    assert "none of these lengths keeps 1,000 workers busy" in text
    assert "| 10 ms | below 1% | below 1% |\n| 100 ms | 97% | below 1% |" in text
    assert "| length of calls | 0 ahead | 1 ahead |" in text
    assert "it took 1 s (-10%)" in text
