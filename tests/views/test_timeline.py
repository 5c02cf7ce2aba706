"""The timeline without a script: its bars, exactly."""

from __future__ import annotations

import re

from amltk_nb.scheduling.snapshot import CallRecord
from amltk_nb.scheduling.states import CallState
from amltk_nb.views import timeline


def ran(
    n: int, worker: str, start: float, seconds: float, state: CallState = CallState.DONE
) -> CallRecord:
    return CallRecord(
        id=n, task=None, function="f", args=str(n), state=state, submitted_at=0.0, worker=worker,
        started_at=start, ended_at=start + seconds + 0.5, seconds=seconds,
    )  # fmt: skip


def test_bars_are_as_long_as_the_worker_measured_and_running_ones_reach_now() -> None:
    going = CallRecord(
        id=3, task=None, function="f", args="", state=CallState.RUNNING, submitted_at=0.0,
        worker="w", started_at=105.0,
    )  # fmt: skip
    drawn = timeline.bars([going, ran(2, "w", 100.0, 3.0), ran(1, "w", 103.5, 1.0)], 20.0, 110.0)
    assert [(bar.start, bar.end, [c.id for c in bar.calls]) for bar in drawn] == [
        (100.0, 103.0, [2]),
        (103.5, 104.5, [1]),
        (105.0, 110.0, [3]),
    ]


def test_ten_thousand_short_calls_are_some_bars_that_miss_none() -> None:
    states = {5_000: CallState.FAILED}
    calls = [ran(n, "w", n / 100, 0.009, states.get(n, CallState.DONE)) for n in range(1, 10_001)]
    drawn = timeline.bars(calls, 100.0, 200.0)
    assert [call.id for bar in drawn for call in bar.calls] == list(range(1, 10_001))
    assert len(drawn) < 100
    assert [len(bar.calls) for bar in drawn if bar.state is CallState.FAILED] == [1]


def test_lanes_are_in_the_order_of_their_numbers_and_say_how_busy_they_were() -> None:
    calls = [ran(1, "w-10", 0.0, 10.0), ran(2, "w-2", 0.0, 2.0), ran(3, "w-2", 5.0, 0.5)]
    drawn = timeline.chart(calls, 99.0)
    rows = re.findall(r'scope="row">([^<]*)</th>.*?num">(\d+)</td><td[^>]*>(\d+%)', drawn)
    assert rows == [("w-2", "2", "25%"), ("w-10", "1", "100%")]
    places = re.findall(r'x="([\d.]+)%" y="3" width="([\d.]+)%"', drawn)
    assert places == [("0.00", "20.00"), ("50.00", "5.00"), ("0.00", "100.00")]


def test_a_failure_that_took_no_time_is_seen_at_its_moment() -> None:
    drawn = timeline.chart([ran(1, "w", 0.0, 5.0), ran(2, "w", 5.0, 0.0, CallState.FAILED),
                            ran(3, "w", 5.0, 5.0)], 99.0)  # fmt: skip
    bars = re.findall(r'<rect class="amltk-nb-(\w+)" x="([\d.]+)%" y="3" width="([\d.]+)%"', drawn)
    assert bars == [
        ("done", "0.00", "50.00"),
        ("failed", "49.40", "0.60"),
        ("done", "50.00", "50.00"),
    ]


def test_a_crowd_is_cut_and_what_never_ran_is_no_lane() -> None:
    calls = [ran(n, f"w-{n}", float(n), 1.0) for n in range(timeline.N_LANES + 3)]
    assert timeline.chart(calls, 99.0).count("<tr>") == 1 + timeline.N_LANES
    assert "… and 3 more workers" in timeline.chart(calls, 99.0)
    waiting = CallRecord(
        id=1, task=None, function="f", args="", state=CallState.QUEUED, submitted_at=0.0
    )
    assert timeline.chart([waiting], 99.0) == ""
    assert timeline.chart([], 99.0) == ""
