"""How much of what comes in bulk is sent at once: of a flood the latest, the rest never or later.

At twenty thousand calls a second nobody can read the rows that are new since the last look; those
that are left out are not lost, for the page asks for older rows when it scrolls.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from amltk_nb.scheduling.states import CallState
from amltk_nb.views.model import Collection, Model

__all__ = ["fit", "n_bytes"]

_KEY_BYTES = 8  # what stands around a record: its id, quotes, a colon and a comma
_LOG_SHARE = 1 / 3  # so that neither rows nor lines keep the other out


def n_bytes(value: object) -> int:
    """Return how long a value is when it travels."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def fit(old: Model, new: Model, limit_bytes: int) -> tuple[Model, bool]:
    """Choose what may be sent now of a new model's log and calls.

    Args:
        old: what the page has.
        new: what there is.
        limit_bytes: of the records that are sent; one of each kind is, however long.

    Returns:
        The two collections as the page will have them, and whether they are as in `new`.
    """
    log, log_bytes = _fit(old["log"], new["log"], _latest(new["log"]), limit_bytes * _LOG_SHARE)
    left_bytes = limit_bytes - log_bytes
    calls, _ = _fit(old["calls"], new["calls"], _urgent(new["calls"]), left_bytes)
    chosen = {"calls": calls, "log": log}
    return chosen, all(chosen[name] == new[name] for name in chosen)


def _fit(
    old: Collection, new: Collection, keys: Iterable[str], limit_bytes: float
) -> tuple[Collection, int]:
    """Take changed records in order until they are too many; of the rest, what the page has."""
    chosen: Collection = {}
    used_bytes = 0
    for key in keys:
        known, record = old.get(key), new[key]
        if known == record:
            chosen[key] = known
            continue
        cost_bytes = n_bytes(record) + _KEY_BYTES
        if not used_bytes or used_bytes + cost_bytes <= limit_bytes:
            chosen[key] = record
            used_bytes += cost_bytes
        elif known is not None:
            chosen[key] = known
    return chosen, used_bytes


def _latest(records: Collection) -> list[str]:
    return sorted(records, key=int, reverse=True)


def _urgent(calls: Collection) -> list[str]:
    """Order calls as a reader wants them: what runs, what ended last, what waits longest."""
    rank = {CallState.RUNNING: 0, CallState.QUEUED: 2}

    def order(key: str) -> tuple[int, float, int]:
        call = calls[key]
        ended_at = call.get("ended_at") or 0.0
        return rank.get(call["state"], 1), -ended_at, int(key)

    return sorted(calls, key=order)
