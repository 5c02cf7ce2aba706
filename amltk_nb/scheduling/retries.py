"""Failed calls that run again: a new call for the same future, at once or after a while.

    failed ─► plugins: after how long? ─► a new call, queued or held ─► its time: into the queue
                     └► not at all: the error is the call's end

A call that is held waits like any queued one: the run is not empty, it is shown, and whatever
takes queued calls back takes it back at once. Its timer is the loop's, so while a cell blocks the
loop it only starts later.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amltk_nb.scheduling.call import Call, Future, Outcome
from amltk_nb.scheduling.plugins.base import retry_delay, tell_retried

if TYPE_CHECKING:
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.traffic import Traffic

__all__ = ["Retries"]


class Retries:
    """Has the plugins of a failed call decide whether it runs again; on the loop's thread."""

    def __init__(self, run: Run, traffic: Traffic) -> None:
        """Start without any.

        Args:
            run: whose calls these are.
            traffic: the same run's.
        """
        self._run = run
        self._traffic = traffic
        self._timers: dict[int, asyncio.TimerHandle] = {}  # of the calls that are held, by id

    def again(self, outcome: Outcome, future: Future[Any]) -> bool:
        """Have a failed call run again, if a plugin wants it and the run takes calls.

        Args:
            outcome: of a call that has run, has failed, is booked and not in the history yet.
            future: what waits for it.

        Returns:
            Whether it will; then another call is the future's, and both are recorded.
        """
        call = outcome.call
        delay_s = self._delay_s(call)
        another = self._queued(outcome, future, delay_s) if delay_s is not None else None
        if another is None:
            return False
        self._traffic.put_away(call)
        for error in tell_retried(call.plugins, call, another):
            self._run.faults.failed(error, f"a plugin told of the retry of call {call.id}")
        self._run.scheduler.touch()
        return True

    def forget(self, call: Call) -> None:
        """Let go of the timer of a call that has ended."""
        timer = self._timers.pop(call.id, None) if self._timers else None
        if timer is not None:
            timer.cancel()

    def _delay_s(self, call: Call) -> float | None:
        assert call.error is not None
        try:
            return retry_delay(call.plugins, call, call.error)
        except BaseException as error:  # whatever a user's predicate raises: the call must end
            self._run.faults.failed(error, f"a plugin asked to retry call {call.id}")
            return None

    def _queued(self, outcome: Outcome, future: Future[Any], delay_s: float) -> Call | None:
        """Make and queue the next attempt; None: the run is ending."""
        call, scheduler, dispatch = outcome.call, self._run.scheduler, self._traffic.dispatch
        now, journal = scheduler.clock(), scheduler.journal
        ending = journal.ending(outcome, now=now) if journal is not None else None
        with dispatch.lock:
            if self._run.ending:
                return None
            another = call.next_attempt(next(scheduler.call_ids), submitted_at=now)
            another.future, future.call = future, another
            self._traffic.enter(another)
            if journal is not None and ending is not None:
                # Together: a kernel that dies between the two would forget the next attempt.
                journal.retried(ending, call, another)
            if delay_s == 0:
                dispatch.add(another)
                return another
            another.not_before = now + delay_s
            dispatch.hold(another)
        # Not under the lock's protection, and needs none: only this thread uses the timers.
        self._timers[another.id] = self._run.loop.call_later(delay_s, self._time_has_come, another)
        return another

    def _time_has_come(self, call: Call) -> None:
        self._timers.pop(call.id, None)
        self._traffic.dispatch.let_in(call)
        self._run.scheduler.touch()
