"""One run of a scheduler, from its first event to its last.

    begin ─► on_start ─► calls … ─► asked to end ─► on_timeout | on_stop ─► on_finishing
          ─► what is in flight ends ─► the backend closes ─► on_finished

Everything that may come from another thread arrives by the inbox; every event is emitted on the
loop's thread. What must act at once (stop, cancel, pause) acts under the dispatch lock, and only
its events wait for the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from amltk_nb import host
from amltk_nb.scheduling.call import Outcome
from amltk_nb.scheduling.exit_state import ExitCode, ExitState
from amltk_nb.scheduling.faults import Faults
from amltk_nb.scheduling.grace import Grace, grace_s
from amltk_nb.scheduling.history import error_line
from amltk_nb.scheduling.interrupts import gently, wholly
from amltk_nb.scheduling.options import RunOptions
from amltk_nb.scheduling.states import RunState
from amltk_nb.scheduling.traffic import Traffic
from amltk_nb.scheduling.waiting import in_thread

if TYPE_CHECKING:
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["Run"]

logger = logging.getLogger("amltk_nb")
logger.addHandler(logging.NullHandler())  # else Python prints errors where nobody set logging up

_WITH_STOP_EVENT = frozenset({ExitCode.STOPPED, ExitCode.EXCEPTION, ExitCode.CANCELLED})


@dataclass(slots=True)
class _Ending:
    """Why and how a run is to end; the first reason stays, a later error is added."""

    code: ExitCode
    message: str
    grace: Grace  # of running calls
    exception: BaseException | None = None
    taken_back: list[Outcome] = field(default_factory=list)  # cancelled by it, not announced yet
    ended_calls: bool = False  # whether it cancelled any: those never cause on_empty

    @property
    def wait(self) -> bool:
        """Whether running calls may still go on."""
        return not self.grace.is_over

    def add(self, code: ExitCode, message: str, exception: BaseException | None) -> None:
        """Take in a later reason: an error where there was none."""
        if code is ExitCode.EXCEPTION and self.exception is None:
            self.code, self.message, self.exception = code, message, exception


class Run:
    """A run under way, or over. `await run` waits for its end and returns the `ExitState`."""

    def __init__(
        self, scheduler: Scheduler, options: RunOptions, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Prepare a run; `begin` starts it."""
        self.scheduler = scheduler
        self.options = options
        self.loop = loop
        self.exit_state: ExitState | None = None
        self.started_at = scheduler.clock()
        self.stopping_since: float | None = None
        self.grace_ends_at: float | None = None  # when running calls are ended; None: never
        self.ended_at: float | None = None
        self.traffic = Traffic(
            self, pause_s=host.current().drain_pause_s if options.background else 0.0
        )
        self.faults = Faults(self)
        self.ending = False  # whether it takes no more calls
        self.waiting: list[Context] = []  # of those who await its end
        self._ending: _Ending | None = None
        self._n_at_empty = -1  # how many calls had been accepted when on_empty was last emitted
        self._finishing = False
        self._may_end: asyncio.Future[None] = loop.create_future()
        self._in_flight_over: asyncio.Future[None] | None = None
        self._done: asyncio.Future[ExitState] = loop.create_future()
        self._life: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timers: WeakSet[asyncio.TimerHandle] = WeakSet()  # of call_later

    # ---------------------------------------------------------------- for its user

    def __await__(self) -> Generator[Any, None, ExitState]:
        return self.wait().__await__()

    async def wait(self) -> ExitState:
        """Wait for the end; interrupting the wait leaves a background run alone.

        Returns:
            How it ended.

        Raises:
            BaseException: what ended it, where `on_exception` says "raise".
        """
        waiting = copy_context()
        self.waiting.append(waiting)
        try:
            state = await asyncio.shield(self._done)
        except asyncio.CancelledError:
            if not self._done.done() and not host.current().interrupted(self):
                self.stop(stop_msg="the wait for it was cancelled", wait=False)
                await self.over()
            raise
        finally:
            self.waiting.remove(waiting)
        host.current().awaited(self)
        if self.faults.raised is not None:
            raise self.faults.raised
        return state

    async def over(self) -> ExitState:
        """Wait for the end, whatever ended it."""
        return await asyncio.shield(self._done)

    def done(self) -> bool:
        """Say whether it is over, its last event included."""
        return self._done.done()

    def stop(
        self,
        *_: Any,
        stop_msg: str | None = None,
        exception: BaseException | None = None,
        wait: bool | float | None = None,
    ) -> None:
        """End it; see `Scheduler.stop`."""
        seconds = None if wait is None else grace_s(wait)
        mode = "continue" if exception is None else self.options.on_exception.decide(exception)
        if exception is None or mode == "continue":
            message = stop_msg or "stop() was called"
            self.ask_end(ExitCode.STOPPED, message, exception=exception, seconds=seconds)
        else:
            raised = mode == "raise"
            self.faults.end_with(exception, raised=raised, message=stop_msg, seconds=seconds)

    def finish_when_empty(self) -> None:
        """Have it end when nothing is left to do, whatever it was started with."""
        self.options = replace(self.options, end_on_empty=True)
        self.traffic.inbox.wake()

    def call_later(
        self, delay: float, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.TimerHandle:
        """Call something later; see `Scheduler.call_later`."""
        if self.traffic.inbox.on_loop():
            timer = self.loop.call_later(delay, self._timed_call, fn, args, kwargs)
            self._timers.add(timer)
            return timer
        # A loop takes timers on its own thread only: this one is a handle on what is set there.
        due = self.loop.time() + delay
        asked = asyncio.TimerHandle(due, self._timed_call, (fn, args, kwargs), self.loop)
        self.traffic.inbox.put(lambda: self._set_timer(asked, due, fn, args, kwargs))
        return asked

    def _set_timer(self, asked: asyncio.TimerHandle, due: float, *what: Any) -> None:
        def ring() -> None:
            if not asked.cancelled():
                self._timed_call(*what)

        self._timers.add(self.loop.call_at(due, ring))

    def _timed_call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            fn(*args, **kwargs)
        except BaseException as error:
            self.faults.failed(error, f"{getattr(fn, '__name__', fn)}() by call_later")

    def __rich__(self) -> Any:
        return host.current().rich(self)

    def _ipython_display_(self) -> None:
        host.current().show(self)

    def __repr__(self) -> str:
        state = self.exit_state.code if self.exit_state else self.scheduler.state
        return f"<Run of {self.scheduler.name!r}: {state}>"

    # ---------------------------------------------------------------- its life

    def begin(self) -> None:
        """Open the backend, take calls and emit `on_start`."""
        scheduler = self.scheduler
        with gently:
            scheduler.backend.open(self.traffic)
            scheduler.enter(self)
            self._listen(True)
            if self.options.timeout is not None:
                self._timer = self.loop.call_later(self.options.timeout, self._time_over)
            name = f"amltk_nb run of {scheduler.name}"
            self._life = self.loop.create_task(self._live(), name=name)
            host.current().started(self)
            self.traffic.inbox.wake()
        scheduler.emitter.emit(scheduler.STARTED)

    @property
    def reason(self) -> str | None:
        """Why it ended or is ending, in one line."""
        ending = self._ending
        return None if ending is None else ending.message

    def ask_end(
        self,
        code: ExitCode,
        message: str,
        *,
        exception: BaseException | None = None,
        seconds: float | None = None,
    ) -> None:
        """Have it end, from any thread; asking again can only make it quicker.

        Args:
            code: why; the first one asked for stays.
            message: the same in words.
            exception: what is behind it.
            seconds: for how long running calls may go on; None: as the run was started with.
        """
        with wholly:
            self._ask_end(code, message, exception, seconds)

    def _ask_end(
        self, code: ExitCode, message: str, exception: BaseException | None, seconds: float | None
    ) -> bool:
        """Do so; returns whether running calls have less time now."""
        with self.traffic.dispatch.lock:
            if self._ending is None:
                seconds = self.options.grace_s if seconds is None else seconds
                grace = Grace(self.loop, self._grace_over)
                self._ending = _Ending(code, message, grace, exception)
                self.ending = True
                self.stopping_since = self.scheduler.clock()
                self.scheduler.move(RunState.STOPPING)
                self._ending.taken_back = self.traffic.take_back_all()
                self._ending.ended_calls = bool(self._ending.taken_back)
            else:
                self._ending.add(code, message, exception)
            ending = self._ending
            if is_shorter := seconds is not None and ending.grace.shorten(seconds):
                self.grace_ends_at = self.scheduler.clock() + seconds
        if not ending.wait and self.traffic.end_running():
            ending.ended_calls = True
        self.scheduler.touch()
        self.traffic.inbox.wake()
        return is_shorter

    def _grace_over(self) -> None:
        """End what still runs, on a thread of its own, unless that is done or not needed."""
        with wholly:
            if self._ask_end(ExitCode.STOPPED, "running calls had no more time", None, 0.0):
                text = "the time that running calls had to finish is over: they are ended"
                self.scheduler.log("scheduler", "info", text)

    def _time_over(self) -> None:
        self.ask_end(ExitCode.TIMEOUT, f"its time of {self.options.timeout} s was over")

    async def _live(self) -> None:
        try:
            await self._may_end
            await self._finish()
        except asyncio.CancelledError:
            self.end_now(ExitCode.CANCELLED, "the event loop was closed")
            raise
        except BaseException as error:
            self.faults.end_with(error)
            self.end_now(ExitCode.EXCEPTION, error_line(error))

    async def _finish(self) -> None:
        ending = self._ending
        assert ending is not None
        self._announce_end(ending)
        self._finishing = True
        self.traffic.report(ending.taken_back)
        if ending.wait:
            await self._nothing_in_flight(lambda: not ending.wait)
        await ending.grace.close()
        if not ending.wait:
            # A coroutine cancelled before its first step makes a warning; that step comes first.
            self._give_up(cancel=lambda coroutine: self.loop.call_soon(coroutine.cancel))
        self.traffic.unwatch()
        await in_thread(lambda: self._close_backend(end_running=not ending.wait))
        # The backend has said all it will say. Should a fault have cost an outcome, its call ends
        # as cancelled rather than the run never.
        await self._nothing_in_flight(lambda: self.traffic.inbox.is_empty)
        self.traffic.settle_all()
        await self._nothing_in_flight(lambda: False)
        if self.scheduler.journal is not None:  # whoever awaits the run finds all of it recorded
            await in_thread(self.scheduler.journal.flush)
        self._announce_finished()
        await self._nothing_in_flight(lambda: False)  # coroutine callbacks of on_finished
        self._close()

    def _close_backend(self, *, end_running: bool) -> None:
        """Have all outcomes reported, large ones that were to be recorded first as well."""
        self.scheduler.backend.close(end_running=end_running)
        if self.scheduler.journal is not None:
            self.scheduler.journal.flush()

    def _announce_end(self, ending: _Ending) -> None:
        """Emit what comes before the wait for running calls."""
        if self._timer is not None:
            self._timer.cancel()
        scheduler = self.scheduler
        idle = not self.traffic.active and not ending.ended_calls
        if ending.code is ExitCode.STOPPED and idle and not self._is_empty_told():
            scheduler.emitter.emit(scheduler.EMPTY)
        if ending.code is ExitCode.TIMEOUT:
            scheduler.emitter.emit(scheduler.TIMEOUT)
        elif ending.code in _WITH_STOP_EVENT:
            scheduler.emitter.emit(scheduler.STOP, ending.message, ending.exception)
        scheduler.emitter.emit(scheduler.FINISHING)

    async def _nothing_in_flight(self, enough: Callable[[], bool]) -> None:
        """Wait until every accepted call has ended and been announced, or `enough()`."""
        self.traffic.inbox.wake()
        while (not self.traffic.is_over or self.faults.coroutines) and not enough():
            self._in_flight_over = self.loop.create_future()
            await self._in_flight_over
        self._in_flight_over = None

    def _give_up(self, cancel: Callable[[asyncio.Task[Any]], object] = asyncio.Task.cancel) -> None:
        """Wait for nothing more: what is still under way is cancelled."""
        for coroutine in list(self.faults.coroutines):
            cancel(coroutine)
        self.traffic.give_up()

    def _announce_finished(self) -> None:
        self.ended_at = self.scheduler.clock()
        self.exit_state = self._made_exit_state()
        self.scheduler.move(RunState.FINISHED)
        self.scheduler.emitter.emit(self.scheduler.FINISHED)

    def _close(self) -> None:
        if self.done():  # ended meanwhile, by a callback of on_finished or by `end_now`
            return
        self.traffic.lines.close()
        self.traffic.inbox.close()
        for timer in self._timers:
            timer.cancel()
        if self.scheduler.last_run is self:  # on_finished may have started the next one
            self._listen(False)
        self.exit_state = self._made_exit_state()  # on_finished may have failed
        self._done.set_result(self.exit_state)
        self.scheduler.touch()
        host.current().finished(self)

    def _made_exit_state(self) -> ExitState:
        assert self._ending is not None
        return ExitState(self._ending.code, self._ending.exception)

    def end_now(self, code: ExitCode, message: str) -> None:
        """End it before returning, without a loop to wait on; blocks while workers are ended."""
        if self.exit_state is not None:  # all but coroutine callbacks of on_finished is over
            self._give_up()
            self._close()
            return
        self.traffic.abandon()
        self.ask_end(code, message, seconds=0.0)
        if not self._finishing:
            assert self._ending is not None
            self._announce_end(self._ending)
            self._finishing = True
        self._give_up()
        self.traffic.unwatch()
        try:
            self._close_backend(end_running=True)
        except Exception as error:  # whatever is left open: nobody must wait for ever
            logger.exception("The executor of %r could not be closed.", self.scheduler.name)
            self.faults.end_with(error)
        self.traffic.settle_all()
        self._announce_finished()
        self._close()
        if self._life is not None:
            self._life.cancel()

    def _listen(self, on: bool) -> None:
        """Route the errors, output and coroutines of callbacks to this run, or to nobody."""
        around = host.current().callback_output(self) if on else None
        for emitter in (self.scheduler.emitter, *self.scheduler.tasks):
            self.faults.route(emitter, around, on=on)

    # ---------------------------------------------------------------- between drains

    def settled(self) -> None:
        """The inbox is empty: see whether anything is left to do."""
        self.scheduler.touch()
        if self._in_flight_over is not None and not self._in_flight_over.done():
            self._in_flight_over.set_result(None)
        if self._finishing:
            return
        if self._ending is None and self.traffic.is_over and not self.faults.coroutines:
            self._announce_empty()
        if self._ending is not None and not self._may_end.done():
            self._may_end.set_result(None)

    def _is_empty_told(self) -> bool:
        return self._n_at_empty == self.traffic.n_accepted

    def _announce_empty(self) -> None:
        if not self._is_empty_told():
            self._n_at_empty = self.traffic.n_accepted
            self.scheduler.emitter.emit(self.scheduler.EMPTY)
        with self.traffic.dispatch.lock:
            idle = self.traffic.is_over and not self.faults.coroutines and self._ending is None
            if idle and self.options.end_on_empty:
                self.ask_end(ExitCode.EXHAUSTED, "nothing was left to do")
