"""One submission as a value, and the future its caller waits on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from amltk_nb import host
from amltk_nb.errors import CallNotFoundError
from amltk_nb.scheduling.states import (
    CALL_MOVES,
    ENDED,
    CallState,
    Trace,
    checked_move,
    traced,
)

if TYPE_CHECKING:
    from weakref import ReferenceType

    from amltk_nb.scheduling.plugins.base import Plugin
    from amltk_nb.scheduling.snapshot import CallRecord, ProgressRecord
    from amltk_nb.scheduling.task import Task

__all__ = ["Call", "Future", "Outcome", "Work"]

T = TypeVar("T")
Work: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Future(asyncio.Future[T], Generic[T]):
    """The handle on a call: an asyncio future that belongs to its scheduler.

    `await future` waits without owning: interrupting the wait leaves the call alone. Only
    `cancel()` takes the call back.
    """

    __slots__ = ("call",)  # and no dict: one future per call is made, tens of thousands a second
    call: Call

    def cancel(self, msg: Any | None = None) -> bool:
        """Take the call back, if it is still queued or its backend can end a running call.

        Returns:
            Whether the call ends as cancelled. False: it has ended, or cannot be ended.
        """
        return self.call.cancel() if not self.done() else False

    def settle_cancelled(self) -> None:
        """Become cancelled; the scheduler's part of `cancel()`, on the loop's thread."""
        super().cancel()

    def __await__(self) -> Generator[Any, None, T]:
        if self.done():
            return self.result()
        return (yield from asyncio.shield(self).__await__())

    __iter__ = __await__

    def __rich__(self) -> Any:
        return host.current().rich(self)

    def _ipython_display_(self) -> None:
        host.current().show(self)

    def __repr__(self) -> str:
        return f"<Future of call {self.call.id}, {self.call.describe()}: {self.call.state}>"


class Call:
    """A function with its arguments on their way through the scheduler.

    A call outlives its end in the scheduler's bounded history; it lets go of its future then, so
    a big result lives only as long as somebody keeps the future.
    """

    __slots__ = (
        "altered",
        "args",
        "args_text",
        "arguments_gone",
        "attempt",
        "canceller",
        "ended_at",
        "error",
        "fn",
        "future",
        "home",
        "id",
        "kwargs",
        "not_before",
        "output",
        "payload",
        "plugins",
        "progress",
        "record",
        "repeated_as",
        "resubmitted_from",
        "result_text",
        "seconds",
        "settled",
        "started_at",
        "state",
        "submitted_at",
        "task",
        "trace",
        "worker",
    )

    def __init__(
        self,
        id: int,  # noqa: A002 - the field's word for it
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        task: Task[..., Any] | None = None,
        submitted_at: float = 0.0,
    ) -> None:
        """Make a queued call.

        Args:
            id: counts up from 1 within one scheduler.
            fn: what the user submitted, before plugins.
            args: positional arguments for it.
            kwargs: keyword arguments for it.
            task: the task it was submitted through, if any.
            submitted_at: seconds since the epoch.
        """
        self.id = id
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.task = task
        self.submitted_at = submitted_at
        self.state = CallState.QUEUED
        self.trace: Trace = ()  # of its last moves, for who looks for a wrong one
        self.attempt = 1
        self.altered: Work | None = None  # what plugins made of it; let go of at the end
        self.plugins: tuple[Plugin, ...] = ()  # that let it in, to be released at its end
        self.future: Future[Any] | None = None
        self.settled: ReferenceType[Future[Any]] | None = None  # to its future, once it has ended
        self.payload: Any = None  # what the backend made of it to send; its own business
        self.progress: ProgressRecord | None = None  # what it reported last
        self.record: CallRecord | None = None  # made once, when it has ended
        self.canceller: Callable[[Call], bool] | None = None
        self.home: object = None  # the key of its scheduler: futures must not keep that one alive
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.seconds: float | None = None
        self.worker: str | None = None
        self.error: BaseException | None = None
        self.args_text: str | None = None  # made on first sight
        self.arguments_gone = False  # let go of, because the history became too heavy
        self.result_text: str | None = None
        self.output: str = ""  # what it printed in its worker, bounded
        self.resubmitted_from: int | None = None
        self.repeated_as: int | None = None  # the id of the call that was made to repeat this one
        self.not_before: float | None = None  # seconds since the epoch, for one that waits for it

    @property
    def work(self) -> Work:
        """What is really run, after plugins: a function and its arguments.

        `fn`, `args` and `kwargs` stay as the user gave them, for views and for resubmitting.
        """
        return self.altered or (self.fn, self.args, self.kwargs)

    def move(self, new: CallState) -> None:
        """Go to another state.

        Raises:
            IllegalMoveError: the table of `states` has no such move; nothing is changed. Its notes
                tell of the moves before.
        """
        if new not in CALL_MOVES[self.state]:
            checked_move(CALL_MOVES, self.state, new, what=f"call {self.id}", trace=self.trace)
        self.trace = traced(self.trace, new)
        self.state = new

    @property
    def ended(self) -> bool:
        """Whether it has its result, error or cancellation."""
        return self.state in ENDED

    def cancel(self) -> bool:
        """Take it back; see `Future.cancel`."""
        return self.canceller(self) if self.canceller is not None else False

    def next_attempt(self, id: int, *, submitted_at: float) -> Call:  # noqa: A002
        """Make a queued call that does the same once more, for the same future.

        It takes over what plugins and backend made of this one, so nothing is asked or pickled
        again, and later edits of arguments or function do not matter to it.

        Args:
            id: for the new call.
            submitted_at: seconds since the epoch.
        """
        call = Call(id, self.fn, self.args, self.kwargs, task=self.task, submitted_at=submitted_at)
        call.altered, call.plugins, call.payload = self.altered, self.plugins, self.payload
        call.canceller, call.args_text, call.home = self.canceller, self.args_text, self.home
        call.resubmitted_from, call.attempt = self.id, self.attempt + 1
        self.repeated_as = id
        return call

    def describe(self) -> str:
        """Name its function, for messages."""
        return getattr(self.fn, "__name__", None) or type(self.fn).__name__

    def forget_arguments(self) -> None:
        """Let go of its arguments: it cannot be run again by itself."""
        self.args, self.kwargs, self.arguments_gone = (), {}, True

    def check_arguments(self) -> None:
        """See that its arguments are still there.

        Raises:
            CallNotFoundError: they are not.
        """
        if self.arguments_gone:
            raise CallNotFoundError(
                f"The arguments of call {self.id} of {self.describe()}({self.args_text}) are not "
                "kept any more: those of later calls are large, and 256 MB are kept in all. Pass "
                "them once more, as in scheduler.resubmit(call, …)."
            )

    def run_here(self) -> Any:
        """Run it again in this process, for a debugger; nothing is recorded.

        Returns:
            What the function returns; what it raises is raised, so that `%debug` works.

        Raises:
            CallNotFoundError: its arguments were too large to be kept so long.
        """
        self.check_arguments()
        return self.fn(*self.args, **self.kwargs)

    def __repr__(self) -> str:
        return f"<Call {self.id} of {self.describe()}: {self.state}>"


class Outcome:
    """How one call ended, as its backend saw it; made on any thread.

    Exactly one for each call that was handed to a backend.
    """

    __slots__ = (
        "call",
        "cancelled",
        "error",
        "is_recorded",
        "output",
        "seconds",
        "started_at",
        "value",
        "worker",
    )

    def __init__(
        self,
        call: Call,
        value: Any = None,
        error: BaseException | None = None,
        cancelled: bool = False,
        started_at: float | None = None,
        seconds: float | None = None,
        worker: str | None = None,
        output: str = "",
    ) -> None:
        """Record an end.

        Args:
            call: the call that ended.
            value: its result, if `error` is None and it was not cancelled.
            error: what it raised.
            cancelled: it was ended on purpose, or dropped before it began.
            started_at: seconds since the epoch, when its function began.
            seconds: how long its function ran.
            worker: the name of the worker that ran it.
            output: what it printed.
        """
        self.call = call
        self.is_recorded = False  # whether the journal has it
        self.value = value
        self.error = error
        self.cancelled = cancelled
        self.started_at = started_at
        self.seconds = seconds
        self.worker = worker
        self.output = output
