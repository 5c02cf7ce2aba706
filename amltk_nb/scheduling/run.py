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
import traceback
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from amltk_nb import host
from amltk_nb.errors import NotPicklableError, SchedulerNotRunningError
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.dispatch import Dispatcher
from amltk_nb.scheduling.exit_state import ExitCode, ExitState
from amltk_nb.scheduling.history import error_line
from amltk_nb.scheduling.inbox import Inbox
from amltk_nb.scheduling.options import RunOptions
from amltk_nb.scheduling.plugins.base import release_all
from amltk_nb.scheduling.settling import book, resolve, storable, tell
from amltk_nb.scheduling.states import CallState, RunState
from amltk_nb.scheduling.waiting import in_thread

if TYPE_CHECKING:
    from amltk_nb.events import Event, Handler
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
    wait: bool
    exception: BaseException | None = None
    taken_back: list[Call] = field(default_factory=list)  # cancelled by it, not announced yet
    ended_calls: bool = False  # whether it cancelled any: those never cause on_empty


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
        self.ended_at: float | None = None
        self.active: dict[int, Call] = {}  # accepted and not ended, in order of submission
        self.dispatch = Dispatcher(
            scheduler.backend, batching=scheduler.batching, clock=scheduler.clock
        )
        self._inbox: Inbox[Outcome | Callable[[], None]] = Inbox(
            loop,
            handle=self._handle,
            settled=self._settled,
            pause_s=host.current().drain_pause_s if options.background else 0.0,
        )
        self._ending: _Ending | None = None
        self._raised: BaseException | None = None
        self._cancels_asked: set[int] = set()
        self._empty_told = False
        self._finishing = False
        self._coroutines: set[asyncio.Task[Any]] = set()  # of coroutine callbacks
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
        try:
            state = await asyncio.shield(self._done)
        except asyncio.CancelledError:
            if not self._done.done() and not host.current().interrupted(self):
                self.stop(stop_msg="the wait for it was cancelled", wait=False)
                await self.over()
            raise
        host.current().awaited(self)
        if self._raised is not None:
            raise self._raised
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
        wait: bool | None = None,
    ) -> None:
        """End it; see `Scheduler.stop`."""
        mode = "continue" if exception is None else self.options.on_exception.decide(exception)
        if exception is None or mode == "continue":
            message = stop_msg or "stop() was called"
            self.ask_end(ExitCode.STOPPED, message, exception=exception, wait=wait)
        else:
            self._fail(exception, raised=mode == "raise", message=stop_msg, wait=wait)

    def finish_when_empty(self) -> None:
        """Have it end when nothing is left to do, whatever it was started with."""
        self.options = replace(self.options, end_on_empty=True)
        self._inbox.wake()

    def call_later(
        self, delay: float, fn: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> asyncio.TimerHandle:
        """Call something later; see `Scheduler.call_later`."""
        timer = self.loop.call_later(delay, lambda: self._timed_call(fn, args, kwargs))
        self._timers.add(timer)
        return timer

    def _timed_call(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            fn(*args, **kwargs)
        except BaseException as error:
            self._failed(error, f"{getattr(fn, '__name__', fn)}() by call_later")

    def __repr__(self) -> str:
        state = self.exit_state.code if self.exit_state else self.scheduler.state
        return f"<Run of {self.scheduler.name!r}: {state}>"

    # ---------------------------------------------------------------- its life

    def begin(self) -> None:
        """Open the backend, take calls and emit `on_start`."""
        scheduler = self.scheduler
        scheduler.backend.open(self)
        scheduler.enter(self)
        self._listen(True)
        if self.options.timeout is not None:
            self._timer = self.loop.call_later(self.options.timeout, self._time_over)
        self._life = self.loop.create_task(self._live(), name=f"amltk_nb run of {scheduler.name}")
        host.current().started(self)
        scheduler.emitter.emit(scheduler.STARTED)
        self._inbox.wake()

    @property
    def ending(self) -> bool:
        """Whether it takes no more calls."""
        return self._ending is not None

    @property
    def reason(self) -> str | None:
        """Why it ended or is ending, in one line."""
        ending = self._ending
        return None if ending is None else ending.message

    @property
    def stopped_by_error(self) -> BaseException | None:
        """The error that ended it."""
        return self._ending.exception if self._ending else None

    def ask_end(
        self,
        code: ExitCode,
        message: str,
        *,
        exception: BaseException | None = None,
        wait: bool | None = None,
    ) -> None:
        """Have it end, from any thread; asking again can only make it quicker.

        Args:
            code: why; the first one asked for stays.
            message: the same in words.
            exception: what is behind it.
            wait: whether running calls may finish; None: as the run was started with.
        """
        with self.dispatch.lock:
            if self._ending is None:
                wait = self.options.wait if wait is None else wait
                self._ending = _Ending(code, message, wait, exception)
                self.stopping_since = self.scheduler.clock()
                self.scheduler.move(RunState.STOPPING)
                self._ending.taken_back = self.dispatch.take_back_all()
                self._ending.ended_calls = bool(self._ending.taken_back)
            elif wait is False:
                self._ending.wait = False
            else:
                return
            hurry = not self._ending.wait
        if hurry:
            self._end_running()
        self.scheduler.touch()
        self._inbox.wake()

    def _end_running(self) -> None:
        """End what the backend can end now; the rest is left behind when the backend closes."""
        assert self._ending is not None
        for call in list(self.active.values()):
            if call.state is CallState.RUNNING and self._end_call(call):
                self._ending.ended_calls = True

    def _end_call(self, call: Call) -> bool:
        self._cancels_asked.add(call.id)
        with self.dispatch.lock:
            ended = self.scheduler.backend.end(call)
        if not ended:
            self._cancels_asked.discard(call.id)
        return ended

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
            self._fail(error)
            self.end_now(ExitCode.EXCEPTION, error_line(error))

    async def _finish(self) -> None:
        ending = self._ending
        assert ending is not None
        self._announce_end(ending)
        self._finishing = True
        self._inbox.put(*(Outcome(call, cancelled=True) for call in ending.taken_back))
        if ending.wait:
            await self._nothing_in_flight(lambda: not ending.wait)
        if not ending.wait:
            await asyncio.sleep(0)  # a coroutine cancelled before its first step makes a warning
            self._leave_behind()
        await in_thread(lambda: self.scheduler.backend.close(end_running=not ending.wait))
        await self._nothing_in_flight(lambda: False)
        self._announce_finished()
        await self._nothing_in_flight(lambda: False)  # coroutine callbacks of on_finished
        self._close()

    def _announce_end(self, ending: _Ending) -> None:
        """Emit what comes before the wait for running calls."""
        if self._timer is not None:
            self._timer.cancel()
        scheduler = self.scheduler
        idle = not self.active and not ending.ended_calls
        if ending.code is ExitCode.STOPPED and idle and not self._empty_told:
            scheduler.emitter.emit(scheduler.EMPTY)
        if ending.code is ExitCode.TIMEOUT:
            scheduler.emitter.emit(scheduler.TIMEOUT)
        elif ending.code in _WITH_STOP_EVENT:
            scheduler.emitter.emit(scheduler.STOP, ending.message, ending.exception)
        scheduler.emitter.emit(scheduler.FINISHING)

    async def _nothing_in_flight(self, enough: Callable[[], bool]) -> None:
        """Wait until every accepted call has ended and been announced, or `enough()`."""
        self._inbox.wake()
        while (self.active or self._coroutines) and not enough():
            self._in_flight_over = self.loop.create_future()
            await self._in_flight_over
        self._in_flight_over = None

    def _leave_behind(self) -> None:
        """What the closing backend ends or abandons was asked for here."""
        for coroutine in list(self._coroutines):
            coroutine.cancel()
        self._cancels_asked.update(self.active)

    def _announce_finished(self) -> None:
        self.ended_at = self.scheduler.clock()
        self.exit_state = self._made_exit_state()
        self.scheduler.move(RunState.FINISHED)
        self.scheduler.emitter.emit(self.scheduler.FINISHED)

    def _close(self) -> None:
        self._inbox.close()
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
        if self.done():
            return
        self.ask_end(code, message, wait=False)
        if not self._finishing:
            assert self._ending is not None
            self._announce_end(self._ending)
            self._finishing = True
        self._leave_behind()
        self.scheduler.backend.close(end_running=True)
        self._inbox.flush()
        for call in list(self.active.values()):
            self._settle(Outcome(call, cancelled=True))
        self._announce_finished()
        self._close()
        if self._life is not None:
            self._life.cancel()

    def _listen(self, on: bool) -> None:
        """Route the errors, output and coroutines of callbacks to this run, or to nobody."""
        around = host.current().callback_output(self) if on else None
        for emitter in (self.scheduler.emitter, *self.scheduler.tasks):
            self.route(emitter, around, on=on)

    def route(self, emitter: Any, around: Any, *, on: bool = True) -> None:
        """Route one emitter; also for tasks that are made during the run."""
        emitter.on_error = self.callback_failed if on else None
        emitter.spawn = self._spawn if on else None
        emitter.around = around

    # ---------------------------------------------------------------- calls in

    def accept(self, call: Call) -> None:
        """Take a call, from any thread.

        Raises:
            SchedulerNotRunningError: it is ending.
        """
        on_loop = self._inbox.on_loop()
        error = self._prepare(call)
        with self.dispatch.lock:
            if self._ending is not None:
                raise SchedulerNotRunningError(self.scheduler.not_running_message())
            self.active[call.id] = call
            self._empty_told = False
            if not on_loop:  # before anything that a worker may say of it
                self._inbox.put(lambda: self._announce(call))
            if error is None:
                self.dispatch.add(call)
            else:
                call.move(CallState.FAILED)
                self._inbox.put(Outcome(call, error=error))
        if on_loop:
            self._announce(call)

    def _prepare(self, call: Call) -> Exception | None:
        try:
            self.scheduler.backend.prepare(call)
        except NotPicklableError as error:
            return error
        return None

    def _announce(self, call: Call) -> None:
        scheduler, task = self.scheduler, call.task
        future = call.future
        scheduler.submitted.emit(future)
        if task is not None:
            _, args, kwargs = call.work
            task.submitted.emit(future, *args, **kwargs)
        scheduler.touch()

    def cancel(self, call: Call) -> bool:
        """Take a call back, or end it; from any thread. Returns whether it ends as cancelled."""
        if call.id not in self.active:
            return call.state is CallState.CANCELLED
        if self.take_back(call):
            return True
        return call.state is CallState.CANCELLED or self._end_call(call)

    def take_back(self, call: Call) -> bool:
        """Cancel a call that still waits; returns whether it did."""
        if not self.dispatch.take_back(call):
            return False
        self._cancels_asked.add(call.id)
        if self._inbox.on_loop() and call.future is not None:
            call.future.settle_cancelled()
        self._inbox.put(Outcome(call, cancelled=True))
        return True

    def on_loop(self, fn: Callable[[], None]) -> None:
        """Run something on the loop's thread: now if this is it, else soon."""
        if self._inbox.on_loop():
            fn()
        else:
            self._inbox.put(fn)

    # ---------------------------------------------------------------- what the backend says

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """Take ends of calls, and start the next ones on this very thread."""
        self._inbox.put(*outcomes)
        self.dispatch.measured(outcomes)
        if self._ending is None:
            self.dispatch.pump()

    def returned(self, calls: Sequence[Call]) -> None:
        """Put calls back whose worker died before they began; an ending run cancels them."""
        with self.dispatch.lock:
            if self._ending is None:
                self.dispatch.give_back(calls)
                return
        self._cancels_asked.update(call.id for call in calls)
        self._inbox.put(*(Outcome(call, cancelled=True) for call in calls))

    def changed(self) -> None:
        """Start what can start now."""
        self.dispatch.pump()
        self.scheduler.touch()

    def log(self, source: str, level: str, text: str) -> None:
        """Add to the scheduler's log."""
        self.scheduler.log(source, level, text)

    def call_soon(self, fn: Callable[[], None]) -> None:
        """Run something on the loop's thread at its next turn."""
        if self._inbox.on_loop():
            self.loop.call_soon(fn)
        else:
            self.loop.call_soon_threadsafe(fn)

    # ---------------------------------------------------------------- calls out

    def _handle(self, item: Outcome | Callable[[], None]) -> None:
        try:
            if isinstance(item, Outcome):
                self._settle(item)
            else:
                item()
        except BaseException as error:  # a fault of ours: the drain must go on, the run must end
            logger.exception("the scheduler itself failed")
            self._fail(error)

    def _settle(self, outcome: Outcome) -> None:
        """End one call: state, future, plugins, history, then its events and the policy."""
        call = outcome.call
        if self.active.pop(call.id, None) is None:
            return
        future, call.future = call.future, None
        assert future is not None
        asked = call.id in self._cancels_asked or call.state is CallState.CANCELLED
        self._cancels_asked.discard(call.id)
        self.dispatch.left(call)
        book(call, outcome, now=self.scheduler.clock())
        resolve(future, call, outcome.value)
        self._let_go(call)
        tell(self.scheduler, call, future, outcome.value)
        self._apply(call, asked)

    def _let_go(self, call: Call) -> None:
        for error in release_all(call.plugins, call):
            self._failed(error, f"a plugin releasing call {call.id} of {call.describe()}")
        if call.task is not None:
            call.task.ended(call)
        call.payload = None
        call.work = (call.fn, call.args, call.kwargs)
        call.canceller = None
        self.scheduler.history.add(call)

    def _apply(self, call: Call, asked: bool) -> None:
        """Do what the policies say about a call that did not return."""
        if call.error is not None:
            self._decide(call.error)
        elif call.state is CallState.CANCELLED and not asked:
            # Not asyncio's: raised by `await run`, that one would cancel the code that waits.
            error = CancelledError(f"call {call.id} of {call.describe()} was cancelled")
            if self.options.on_cancelled != "continue":
                if self.options.on_cancelled == "raise":
                    self._raised = self._raised or error
                self.ask_end(ExitCode.CANCELLED, str(error), exception=error)

    def _decide(self, error: BaseException) -> None:
        mode = self.options.on_exception.decide(error)
        if mode != "continue":
            self._fail(error, raised=mode == "raise")

    def _fail(
        self,
        error: BaseException,
        *,
        raised: bool = True,
        message: str | None = None,
        wait: bool | None = None,
    ) -> None:
        """End with an error; one that comes while ending still counts, the first one wins."""
        message = message or error_line(error)
        if raised:
            self._raised = self._raised or error
        with self.dispatch.lock:
            ending = self._ending
            if ending is not None and ending.exception is None:
                ending.code, ending.message = ExitCode.EXCEPTION, message
                ending.exception = error
        self.ask_end(ExitCode.EXCEPTION, message, exception=error, wait=wait)

    # ---------------------------------------------------------------- between drains

    def _settled(self) -> None:
        """The inbox is empty: see whether anything is left to do."""
        self.scheduler.touch()
        if self._in_flight_over is not None and not self._in_flight_over.done():
            self._in_flight_over.set_result(None)
        if self._finishing:
            return
        if self._ending is None and not self.active and not self._coroutines:
            self._announce_empty()
        if self._ending is not None and not self._may_end.done():
            self._may_end.set_result(None)

    def _announce_empty(self) -> None:
        if not self._empty_told:
            self._empty_told = True
            self.scheduler.emitter.emit(self.scheduler.EMPTY)
        with self.dispatch.lock:
            idle = not self.active and not self._coroutines and self._ending is None
            if idle and self.options.end_on_empty:
                self.ask_end(ExitCode.EXHAUSTED, "nothing was left to do")

    # ---------------------------------------------------------------- callbacks

    def callback_failed(self, error: BaseException, handler: Handler, event: Event[...]) -> None:
        """Deal with an error of a callback as with one of a call."""
        self._failed(error, f"{handler.name}() on {getattr(event, 'name', event)}")

    def _failed(self, error: BaseException, where: str) -> None:
        if self._ending is not None and isinstance(error, SchedulerNotRunningError):
            # Callbacks go on submitting while a stopped run drains; that is no fault of theirs.
            self.log(where, "info", "did not submit: the run is stopping")
            return
        error = storable(error, where)
        self.log(where, "error", "".join(traceback.format_exception(error)))
        logger.error("%s raised %s", where, error_line(error), exc_info=error)
        self._decide(error)

    def _spawn(
        self, coroutine: Coroutine[Any, Any, Any], handler: Handler, event: Event[...]
    ) -> None:
        """Run a coroutine callback; the run does not end before it has."""
        task = self.loop.create_task(coroutine)
        self._coroutines.add(task)
        task.add_done_callback(lambda done: self._coroutine_over(done, handler, event))

    def _coroutine_over(self, task: asyncio.Task[Any], handler: Handler, event: Event[...]) -> None:
        self._coroutines.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.callback_failed(error, handler, event)
        self._inbox.wake()
