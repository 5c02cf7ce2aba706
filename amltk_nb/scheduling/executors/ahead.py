"""How many calls to hand over ahead, so that workers need not wait for the next one.

Between the end of a call and the begin of the next one a worker waits for news to travel there
and back. That is measured, and so is how long calls take. A call that finds a free worker shows
the whole way; of those handed over ahead the worker's own clock tells how long it still waited.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

__all__ = ["Pace", "Sample"]

_LONG_S = 0.1  # the wait for the next call is nothing beside a call of this length
_SHARE = 0.03  # of a call's length that a worker may wait without it being worth anything
_SHARE_AHEAD = 0.2  # the same with calls ahead: a worker itself takes a while between two calls
_N_MOST = 16  # for each worker; more would only wait longer where they cannot be seen
_N_KEPT = 9  # measured ways; the middle one of so many says what is usual
_FORGETTING = 0.9  # a slow call is forgotten after some quick ones, as in the scheduler's queue
_LATE_S = 0.1  # no call is late before this
_LATE_TIMES = 4.0  # as long as expected, then it is


@dataclass(frozen=True, slots=True)
class Sample:
    """What one answered call tells."""

    process: object  # which one ran it
    began_at: float  # seconds, by the clock of that process
    seconds: float  # how long it ran
    under_way_s: float  # from its hand-over to its answer
    is_ahead: bool  # whether all workers had a call already when it was handed over


class Pace:
    """What is known of the calls of one run, and what follows from it."""

    def __init__(self, n_ahead: int | None) -> None:
        """Know nothing.

        Args:
            n_ahead: always as many as this; None: as many as are worth it.
        """
        self._is_fixed = n_ahead is not None
        self._n_ahead = n_ahead or 0
        self._ways_s: deque[float] = deque(maxlen=_N_KEPT)
        self._length_s = 0.0
        self._ended_at: dict[object, float] = {}  # the last call of each process, by its clock
        self._late_s = math.inf

    @property
    def n_ahead(self) -> int:
        """How many calls to hand over for each worker besides the one that it runs."""
        return self._n_ahead

    @property
    def n_refilled(self) -> int:
        """How many calls for each worker to hand over at least in one go.

        Half of those ahead: they cost an engine little more than a single one does.
        """
        return 0 if self._is_fixed else self._n_ahead // 2

    @property
    def late_s(self) -> float:
        """After how long a call that was handed over must be behind one that takes long."""
        return self._late_s

    def learn(self, sample: Sample) -> None:
        """Learn from a call that has ended."""
        former = self._ended_at.get(sample.process)
        self._ended_at[sample.process] = sample.began_at + sample.seconds
        if self._is_fixed or former is None:  # the first call of a process pays for its start
            return
        self._length_s = max(sample.seconds, _FORGETTING * self._length_s)
        way_s = self._way_s(sample, waited_s=sample.began_at - former)
        if way_s is not None:
            self._ways_s.append(way_s)
        if self._ways_s:
            usual_s = median(self._ways_s)
            self._n_ahead = _worth(usual_s, self._length_s)
            expected_s = usual_s + (1 + self._n_ahead) * self._length_s
            self._late_s = max(_LATE_S, _LATE_TIMES * expected_s)

    def _way_s(self, sample: Sample, *, waited_s: float) -> float | None:
        """Say how long news travelled; None: not longer than calls ahead have bridged."""
        if not sample.is_ahead:
            return max(0.0, sample.under_way_s - sample.seconds)
        # No longer than it was under way: before that its worker had nothing to do, or a clock was
        # set. Once so long a way is believed, nothing seems late, and nothing corrects it.
        waited_s = min(waited_s, sample.under_way_s - sample.seconds)
        if waited_s <= _SHARE_AHEAD * self._length_s:
            return None
        return waited_s + self._n_ahead * self._length_s


def _worth(way_s: float, length_s: float) -> int:
    if length_s >= _LONG_S or way_s <= _SHARE * length_s:
        return 0
    # Below a microsecond there is only noise.
    return min(_N_MOST, math.ceil(way_s / max(length_s, 1e-6)))
