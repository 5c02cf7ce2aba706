"""A flood of calls stays small on the wire: at the feed, by a clock that the test turns."""

from __future__ import annotations

import pytest

from amltk_nb.views.model import COLLECTIONS, apply
from tests.views.flood import Flood

MOST_BYTES_PER_S = 45_000  # 50 kB with what the kernel puts around each message


@pytest.mark.parametrize(
    ("flood", "seconds"),
    [
        (Flood(1_000, n_queued=1_000), 4),
        (Flood(20_000, n_queued=20_000), 2),
        (Flood(1_000, n_queued=100_000), 2),
        (Flood(1_000, n_queued=1_000, n_workers=400, log_lines_per_s=2_000), 4),
        (Flood(1_000, n_queued=1_000, n_tasks=40), 4),
    ],
    ids=["1000-per-s", "20000-per-s", "100000-queued", "400-workers-and-prints", "40-tasks"],
)
async def test_five_patches_and_fifty_kilobytes_a_second(flood: Flood, seconds: int) -> None:
    first, *news = await flood.record(seconds)
    assert first.kind == "full"
    assert {sent.kind for sent in news} == {"patch"}
    for begin in range(seconds):
        second = [sent for sent in news if begin < sent.at_s <= begin + 1]
        assert len(second) == 5
    assert sum(sent.n_bytes for sent in news) < seconds * MOST_BYTES_PER_S
    n_ended = sum(
        apply(news[-1].message["patch"], {"counts": {}})["counts"].get(state, {"n": 0})["n"]
        for state in ("done", "failed")
    )
    assert n_ended == seconds * flood.calls_per_s, "the last patch tells of the last call"


async def test_every_collection_of_a_flood_reaches_the_page() -> None:
    first, *news = await Flood(2_000, n_queued=500, log_lines_per_s=100).record(4)
    model = first.message["model"]
    for sent in news:
        model = apply(sent.message["patch"], model)
    changed = {name for sent in news for name in sent.message["patch"]}
    assert changed == set(COLLECTIONS) - {"run", "backend", "machines"}
    shown = [call for call in model["calls"].values() if call["state"] in ("done", "failed")]
    assert max(call["id"] for call in shown) > 6_000, "of the rows, the latest"
