"""Lines that stand under cells and follow what they tell of: a future, a batch, a run, a task.

They are no widgets but outputs with a display id, replaced when what they say has changed. A
thousand of them cost little: changes only mark their scheduler, and a timer looks once in a while
which lines differ, and replaces a bounded number of them. What is shown is not kept alive; a line
ends with what it tells of, or when its cell is run again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from amltk_nb.host import Cell
from amltk_nb.scheduling.batch import Batch
from amltk_nb.scheduling.call import Future
from amltk_nb.scheduling.interrupts import gently
from amltk_nb.scheduling.run import Run
from amltk_nb.scheduling.task import Task
from amltk_nb.views.bundle import static_bundle

if TYPE_CHECKING:
    from amltk_nb.host import Showable
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["GAP_S", "N_AT_ONCE", "N_LINES", "Lines"]

GAP_S = 0.5  # between two looks at the lines of one scheduler
N_AT_ONCE = 100  # drawn in one look; the others have their turn in the next
N_LINES = 5_000  # of one scheduler; the oldest stay as they are then

_log = logging.getLogger(__name__)

Show = Callable[[dict[str, Any]], Any]  # displays a bundle and returns a handle to replace it


class Lines:
    """The lines of all schedulers of a kernel; used on the loop's thread."""

    def __init__(self) -> None:
        """Follow nothing yet."""
        self._styled: Cell | None = None  # the last one that has a style sheet
        self._followed: WeakKeyDictionary[Scheduler, _Followed] = WeakKeyDictionary()

    def show(
        self, thing: Showable, scheduler: Scheduler | None, cell: Cell | None, show: Show
    ) -> None:
        """Display something, and keep its line up to date until it has ended.

        Args:
            thing: what is displayed.
            scheduler: whose changes move it; None: nothing does any more.
            cell: where it is displayed; when that runs again, the line is gone.
            show: displays a bundle.
        """
        line = _Line(thing, cell, styled=cell is None or cell != self._styled)
        if isinstance(thing, Future | Batch | Run):
            self._styled = cell
        line.handle = show(line.bundle)
        if scheduler is None or line.is_over(thing):
            return
        followed = self._followed.get(scheduler)
        if followed is None:
            followed = self._followed[scheduler] = _Followed(scheduler)
        followed.add(line, thing)

    def forget(self, cell: Cell) -> None:
        """Drop the lines of earlier executions of a cell: their output is cleared."""
        for followed in self._followed.values():
            followed.forget(cell)

    def ended(self, scheduler: Scheduler) -> None:
        """Look at the lines of a scheduler whose run is over."""
        if (followed := self._followed.get(scheduler)) is not None:
            followed.changed()


class _Line:
    """One output, and what it said last."""

    def __init__(self, thing: Showable, cell: Cell | None, *, styled: bool) -> None:
        self._ref = ref(thing)
        self._styled = styled
        self.cell = cell
        self.key = _key(thing)
        self.bundle = static_bundle(thing, styled=styled)
        self.handle: Any = None
        self.final: dict[str, Any] | None = None  # what it is to say for the last time
        self.is_dropped = False

    @staticmethod
    def is_over(thing: Showable) -> bool:
        """Say whether nothing of it can change any more."""
        return thing.done() if isinstance(thing, Future | Batch | Run) else False

    def end(self, thing: Showable) -> None:
        """Note its last words, while it is there: nobody may keep it afterwards."""
        self.final = static_bundle(thing, styled=self._styled)

    def drawn(self) -> dict[str, Any] | None:
        """Draw it, if it may look different now."""
        if self.final is not None:
            return self.final
        thing = self._ref()
        if thing is None or (key := _key(thing)) == self.key:
            return None
        self.key = key
        return static_bundle(thing, styled=self._styled)

    def is_finished(self) -> bool:
        """Say whether it has told all."""
        thing = self._ref()
        return self.final is not None or thing is None or self.is_over(thing)


class _Followed:
    """The lines of one scheduler, and the timer that looks at them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = ref(scheduler)
        self._loop = asyncio.get_running_loop()
        self._lines: deque[_Line] = deque()
        self._is_due = False  # a look is on its way
        self._looked_at = float("-inf")
        self._is_watching = False
        self._watcher = self.changed  # one and the same object, for `unwatch` to know it by

    def add(self, line: _Line, thing: Showable) -> None:
        self._lines.append(line)
        if len(self._lines) > N_LINES:
            self._lines.popleft().is_dropped = True
        if isinstance(thing, Future):
            thing.add_done_callback(lambda future: self._end(line, future))
        elif isinstance(thing, Batch):
            thing.on_batch_done(lambda batch, *_: self._end(line, batch), hidden=True)
        if not self._is_watching and (scheduler := self._scheduler()) is not None:
            self._is_watching = True
            scheduler.watch(self._watcher)

    def forget(self, cell: Cell) -> None:
        for line in self._lines:
            line.is_dropped |= line.cell is not None and line.cell.id == cell.id
        self._lines = deque(line for line in self._lines if not line.is_dropped)
        self._rest()

    def changed(self) -> None:
        """Look soon; called at every change, on any thread."""
        if self._is_due:
            return
        self._is_due = True
        try:
            self._loop.call_soon_threadsafe(self._look_later)
        except RuntimeError:  # the loop is closed, and nothing will be shown any more
            self._lines.clear()

    def _end(self, line: _Line, thing: Showable) -> None:
        if not line.is_dropped:
            line.end(thing)
            self.changed()

    def _look_later(self) -> None:
        wait_s = max(0.0, self._looked_at + GAP_S - self._loop.time())
        self._loop.call_later(wait_s, self._look)

    def _look(self) -> None:
        # An interrupt of a cell that ends just now would else end the loop, and the kernel with it.
        with gently:
            self._looked_at = self._loop.time()
            self._is_due = False  # before the look, so that a change during it is not lost
            kept, n_drawn = [], 0
            while self._lines and n_drawn < N_AT_ONCE:
                line = self._lines.popleft()
                n_drawn += self._tell(line)
                if not line.is_finished():
                    kept.append(line)
            has_more = bool(self._lines)
            self._lines.extend(kept)  # behind those that have not been looked at
            if has_more:
                self.changed()
            self._rest()

    def _tell(self, line: _Line) -> bool:
        """Replace a line if it has news; returns whether it had to be drawn to know."""
        try:
            bundle = line.drawn()
            if bundle is not None and bundle != line.bundle:
                line.bundle = bundle
                line.handle.update(bundle, raw=True)
        except Exception:  # a broken line must not end up in the loop, which is the user's
            _log.exception("A line under a cell could not be updated and stays as it is")
            line.final = line.bundle
            return True
        return bundle is not None

    def _rest(self) -> None:
        """Follow no changes while there is no line to change."""
        if not self._lines and self._is_watching:
            self._is_watching = False
            if (scheduler := self._scheduler()) is not None:
                scheduler.unwatch(self._watcher)


def _key(thing: Showable) -> Hashable:
    """Return what differs whenever a line would; quick, for it is asked often."""
    if isinstance(thing, Future):
        call = thing.call
        return call.id, call.state, call.progress is not None and call.progress.n
    if isinstance(thing, Batch):
        states = [future.call.state for future in list(thing.futures)]
        return thing.state, thing.n_refused, tuple(map(states.count, set(states)))
    if isinstance(thing, Run):
        return thing.exit_state is not None, thing.scheduler.state
    scheduler = thing.scheduler if isinstance(thing, Task) else thing
    return scheduler.version
