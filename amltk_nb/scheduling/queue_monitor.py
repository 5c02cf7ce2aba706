"""How full the queue was over time, and how busy the workers: a table that stays small.

Rows are taken at every change until the table is full. Then it is thinned: time is cut into steps
of `resolution_s`, and of the rows within one step the last is kept. Steps and not every second
row, because changes come in turns (a call ends, its callback submits the next): every second row
of such a chain would show an idle worker all the time, or never.
"""

from __future__ import annotations

import threading
import weakref
from array import array
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Final, Literal

from amltk_nb.errors import MissingExtraError
from amltk_nb.scheduling.states import CallState, RunState

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["QueueMonitor"]

_COUNTS: Final = ("queued", "running", "busy", "idle", "finished", "failed", "cancelled")
_WIDTH: Final = 1 + len(_COUNTS)
_STACKS: Final = {
    "calls": ("running", "queued"),
    "workers": ("busy", "idle"),
    "ended": ("finished", "failed", "cancelled"),
}
# Each has a contrast of at least 3 : 1 with white and with black, so that it can be seen whatever
# the page behind it; all else keeps the colours of the user's style.
_COLOURS: Final = {
    "queued": "#7c8794",
    "running": "#2f7fd1",
    "busy": "#2f7fd1",
    "idle": "#b8772a",
    "finished": "#2e9150",
    "failed": "#d64545",
    "cancelled": "#7c8794",
}
_FINEST_S: Final = 0.001
_HAS_WORKERS: Final = frozenset({RunState.RUNNING, RunState.PAUSED, RunState.STOPPING})


class QueueMonitor:
    """Records how many calls a scheduler has, and how many workers, whenever that changes.

    It costs some microseconds per call and at most 64 bytes for each of `max_rows` rows, so it may
    be left on. It records over all runs until `detach()`, or until nobody keeps it.

    The columns, as of `df()`:

    - `queued`: calls that wait.
    - `running`: calls that are with the workers, or whose end was not announced yet. Short calls
      travel together, so these may be more than there are workers.
    - `busy`, `idle`: workers with and without a call. One that need not be started yet is idle;
      between runs there are none.
    - `finished`, `failed`, `cancelled`: calls that have ended so, over all runs.
    """

    def __init__(self, scheduler: Scheduler, *, max_rows: int = 10_000) -> None:
        """Watch a scheduler, from now on.

        Args:
            scheduler: whose calls.
            max_rows: of the table; when it is full, it is thinned to half of that or less.

        Raises:
            TypeError: this is no scheduler.
            ValueError: fewer than 2 rows.
        """
        if not hasattr(scheduler, "watch"):
            raise TypeError(f"QueueMonitor({scheduler!r}): pass the Scheduler to be watched.")
        if isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 2:
            raise ValueError(f"max_rows={max_rows!r}: use a whole number of at least 2.")
        self.scheduler = scheduler
        self._max_rows = max_rows
        self._table = array("d")
        self._resolution_s = 0.0
        self._step: float | None = None  # in which the latest row was taken
        self._lock = threading.Lock()
        watcher = _weakly(self)
        scheduler.watch(watcher)
        self._stop = weakref.finalize(self, scheduler.unwatch, watcher)
        self._stop.atexit = False
        self._latest: tuple[int, ...] = ()
        if scheduler.state in _HAS_WORKERS:
            self._note()
        else:  # the table begins with a run
            self._latest = self._counts()

    @property
    def resolution_s(self) -> float:
        """Of the changes within so many seconds only the last is kept; 0: all are kept."""
        return self._resolution_s

    @property
    def attached(self) -> bool:
        """Whether it still records."""
        return self._stop.alive

    def detach(self) -> None:
        """Record no more; what was recorded stays. May be called any number of times."""
        self._stop()

    def df(self) -> pd.DataFrame:
        """Return what was recorded: one row per change, which holds until the next one.

        Returns:
            A DataFrame of whole numbers, its columns as above; its index is the time in UTC.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise _missing("df()", "pandas") from None
        times, counts = self._columns()
        index = pd.to_datetime(times, unit="s", utc=True).rename("time")
        return pd.DataFrame(counts, index=index, columns=list(_COUNTS), dtype="int64")

    def plot(
        self, ax: Axes | None = None, by: Literal["calls", "workers", "ended"] = "calls"
    ) -> Axes:
        """Draw what was recorded over the seconds since the first row; during a run, until now.

        Args:
            ax: where; None: a new figure.
            by: "calls": those running and queued; "workers": busy and idle ones; "ended": calls
                that finished, failed and were cancelled.

        Returns:
            The axes that were drawn on.

        Raises:
            ValueError: an unknown `by`.
            MissingExtraError: matplotlib is not installed.
        """
        if by not in _STACKS:
            raise ValueError(f"by={by!r}: use one of {', '.join(map(repr, _STACKS))}.")
        try:
            import matplotlib.pyplot as plt
            from matplotlib.ticker import MaxNLocator
        except ImportError:
            raise _missing("plot()", "matplotlib") from None
        if ax is None:
            _, ax = plt.subplots()
        self._draw(ax, _STACKS[by])
        ax.set(xlabel="seconds", ylabel="workers" if by == "workers" else "calls")
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(loc="upper left", frameon=False)
        return ax

    def _draw(self, ax: Axes, names: Sequence[str]) -> None:
        times, counts = self._columns()
        if times and self.scheduler.state in _HAS_WORKERS:
            times.append(max(times[-1], self.scheduler.clock()))
            for values in counts.values():
                values.append(values[-1])
        ax.stackplot(
            [at - times[0] for at in times],
            *(counts[name] for name in names),
            labels=names,
            colors=[_COLOURS[name] for name in names],
            step="post",
        )

    def _columns(self) -> tuple[list[float], dict[str, list[float]]]:
        with self._lock:
            table = self._table[:]
        return table[::_WIDTH].tolist(), {
            name: table[n::_WIDTH].tolist() for n, name in enumerate(_COUNTS, 1)
        }

    # ---------------------------------------------------------------- recording

    def _note(self) -> None:
        """Take a row, on whatever thread; the dispatch lock makes its counts fit together."""
        run = self.scheduler.last_run
        with run.traffic.dispatch.lock if run is not None else nullcontext(), self._lock:
            counts = self._counts()
            if counts != self._latest:
                self._latest = counts
                self._add(self.scheduler.clock(), counts)

    def _counts(self) -> tuple[int, ...]:
        scheduler = self.scheduler
        run, backend, ended = scheduler.last_run, scheduler.backend, scheduler.history.counts
        queued = running = idle = 0
        if run is not None:
            queued, running = run.traffic.dispatch.n_queued, run.traffic.dispatch.n_running
        if scheduler.state in _HAS_WORKERS:
            idle = min(backend.slots(), backend.n_workers)
        # Not the difference alone: a closing backend has neither calls nor room.
        busy = min(running, backend.n_workers - idle)
        finished, failed = ended[CallState.DONE], ended[CallState.FAILED]
        return queued, running, busy, idle, finished, failed, ended[CallState.CANCELLED]

    def _add(self, now: float, counts: tuple[int, ...]) -> None:
        table = self._table
        step = now // self._resolution_s if self._resolution_s else None
        if step is not None and step == self._step:
            del table[-_WIDTH:]
        table.extend((now, *counts))
        self._step = step
        if len(table) >= _WIDTH * self._max_rows:
            self._thin()

    def _thin(self) -> None:
        """Make the steps longer until half of the rows, or less, are left."""
        table = self._table
        rows = [table[start : start + _WIDTH] for start in range(0, len(table), _WIDTH)]
        gaps_s = sorted(later[0] - earlier[0] for earlier, later in pairwise(rows))
        resolution_s = self._resolution_s or _FINEST_S / 2
        # Steps of the usual distance merge few rows, of twice that about half of them. Each length
        # is a power of two times the finest, so that old steps lie within new ones.
        while resolution_s < gaps_s[len(gaps_s) // 2]:
            resolution_s *= 2
        while len(rows) > self._max_rows // 2:
            resolution_s *= 2
            # A dict keeps the place of the first of a step and the value of the last.
            rows = list({row[0] // resolution_s: row for row in rows}.values())
        self._resolution_s = resolution_s
        self._table = array("d", chain.from_iterable(rows))
        self._step = rows[-1][0] // self._resolution_s

    def __len__(self) -> int:
        return len(self._table) // _WIDTH

    def __rich__(self) -> str:
        return repr(self).replace("[", r"\[")  # a name is no markup

    def __repr__(self) -> str:
        told = ", ".join(f"{n} {name}" for name, n in zip(_COUNTS, self._latest, strict=True))
        return f"<QueueMonitor of {self.scheduler.name!r}: {len(self)} rows; {told}>"


def _weakly(monitor: QueueMonitor) -> Callable[[], None]:
    """Make the watcher of a monitor; a re-run cell's former monitor must not record for ever."""
    known = weakref.ref(monitor)

    def note() -> None:
        alive = known()
        if alive is not None:
            alive._note()

    return note


def _missing(what: str, library: str) -> MissingExtraError:
    return MissingExtraError(
        f"QueueMonitor.{what} needs {library}, which is not installed: "
        "pip install 'amltk-nb[plot]'. What was recorded is kept."
    )
