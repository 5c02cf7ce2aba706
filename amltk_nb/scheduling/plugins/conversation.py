"""The scheduler's side of a talk with one running call: what its callbacks see of `Comm`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

from amltk_nb.errors import CommError
from amltk_nb.scheduling.faults import TOLD_OF_FAILURES

if TYPE_CHECKING:
    import asyncio

    from amltk_nb.events import Handler
    from amltk_nb.scheduling.call import Call, Future
    from amltk_nb.scheduling.plugins.comm import CommPlugin
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.task import Task
    from amltk_nb.scheduling.transports.base import Head, Line, Load, Ticket

__all__ = ["ANSWER", "ENDING", "REFUSAL", "SENT", "CommMsg", "Conversation", "MsgKind", "Request"]

# Heads of messages are (kind, number); the number pairs an answer with what it answers.
ANSWER: Final = "answer"
REFUSAL: Final = "refusal"
SENT: Final = "sent"
ENDING: Final = "ending"  # nothing more will be sent


class MsgKind(StrEnum):
    """What a call did with its comm."""

    OPEN = "open"
    MESSAGE = "message"
    REQUEST = "request"
    CLOSE = "close"


class CommMsg:
    """What a callback is given: what a call said, and how to answer; `Comm.Msg`."""

    Kind: ClassVar[type[MsgKind]] = MsgKind

    __slots__ = ("_is_answered", "_request", "comm", "data", "future", "kind", "task")

    def __init__(
        self, kind: MsgKind, data: Any, comm: Conversation, request: Request | None = None
    ) -> None:
        """Describe a message; only the plugin makes them."""
        self.kind = kind
        self.data = data  # what was sent; None if nothing was
        self.comm = comm  # the scheduler's side: `send`, `close`
        self.future = comm.future  # of the call that said it
        self.task = comm.task
        self._request = request
        self._is_answered = False

    def respond(self, value: Any = None) -> bool:
        """Answer a request; from any thread, now or later.

        Returns:
            Whether the call may get it. False: it has ended, or it was told meanwhile that the
            run is ending or that a callback failed.

        Raises:
            CommError: this is no request, or it has been answered.
            NotPicklableError: the value cannot travel; the request still waits.
        """
        if self.kind is not MsgKind.REQUEST or self._request is None:
            raise CommError(
                f"only a request can be answered, and this is kind {str(self.kind)!r}; to tell "
                "the call something, use msg.comm.send(...), and comm.receive() in the call."
            )
        if self._is_answered:
            raise CommError("this request has been answered; it can be answered only once.")
        self._is_answered = self.comm.answer(self._request, value)
        return self._is_answered

    def __repr__(self) -> str:
        return f"<Msg {self.kind} of call {self.future.call.id}: {self.data!r}>"


class Request:
    """A message that its call waits for an answer to."""

    __slots__ = ("number", "working")

    def __init__(self, number: int) -> None:
        self.number = number
        self.working: set[asyncio.Task[Any]] = set()  # coroutine callbacks that may answer yet


class Conversation:
    """The scheduler's side of the talk with one call; `msg.comm` in a callback."""

    def __init__(self, plugin: CommPlugin, call: Call, run: Run) -> None:
        """Get ready for a call that is about to be queued."""
        assert call.task is not None
        assert call.future is not None
        self.future: Future[Any] = call.future
        self.task: Task[..., Any] = call.task
        self.is_open = False
        self._plugin = plugin
        self._run = run
        self._line: Line = run.traffic.lines.line(self)
        self._unanswered: dict[int, Request] = {}

    @property
    def ticket(self) -> Ticket:
        """What the call finds this by."""
        return self._line.ticket

    def send(self, data: Any) -> bool:
        """Send the call something that its `comm.receive()` returns; from any thread.

        Returns:
            Whether the call may get it: its comm is open.

        Raises:
            NotPicklableError: the data cannot travel.
        """
        return self._line.send((SENT, None), data)

    def close(self) -> None:
        """End the talk: what the call wants to say or hear from now on fails there."""
        self._line.hang_up()

    def answer(self, request: Request, value: Any) -> bool:
        """Answer a request; see `CommMsg.respond`."""
        if self._unanswered.get(request.number) is not request:
            return False
        del self._unanswered[request.number]
        try:
            return self._line.send((ANSWER, request.number), value)
        except BaseException:
            self._unanswered[request.number] = request
            raise

    # --- what the line brings, on the loop's thread

    def took(self, head: Head, load: Load) -> None:
        """Take in what the call said."""
        kind, number = MsgKind(head[0]), head[1]
        try:
            data = load()
        except Exception as error:  # whatever the data's own loading may raise
            self._not_loaded(kind, number, error)
            return
        if kind is MsgKind.CLOSE:
            self._over(data)
            return
        if kind is MsgKind.OPEN:
            self.is_open = True
            self._plugin.opened(self)
            if not self._run.scheduler.running():
                self._line.send((ENDING, None))
        if number is None:
            self._emit(CommMsg(kind, data, self))
        else:
            self._emit_and_answer(kind, data, Request(number))

    def hung_up(self) -> None:
        """Be told that the call closed its comm or is gone."""
        self._over(None)

    def hear_out(self) -> None:
        """Take in all that an ended call has said, and see the talk closed."""
        self._line.hear_out()
        self._over(None)

    def release(self) -> None:
        """Take in nothing more."""
        self._line.close()
        self._plugin.closed(self)

    def ending(self) -> None:
        """Tell the call that nobody will send, or answer where no coroutine is at work on it."""
        self._line.send((ENDING, None))
        for request in list(self._unanswered.values()):
            if not request.working:
                self._refuse(request, _IS_ENDING, is_over=True)

    def _over(self, data: Any) -> None:
        if self.is_open:
            self.is_open = False
            self._unanswered.clear()
            self._plugin.closed(self)
            self._emit(CommMsg(MsgKind.CLOSE, data, self))

    def _emit(self, msg: CommMsg) -> None:
        self._plugin.count(msg.kind)
        self.task.emit(f"comm-{msg.kind}", msg)
        self._run.scheduler.touch()

    def _emit_and_answer(self, kind: MsgKind, data: Any, request: Request) -> None:
        """Emit what the call waits for, and see that it does not wait for nothing."""
        self._unanswered[request.number] = request
        before = set(self._run.faults.coroutines)
        token = TOLD_OF_FAILURES.set(partial(self._failed, kind, request))
        try:
            self._emit(CommMsg(kind, data, self, request))
        finally:
            TOLD_OF_FAILURES.reset(token)
        if kind is MsgKind.OPEN:
            self.answer(request, None)
            return
        for coroutine in self._run.faults.coroutines - before:
            request.working.add(coroutine)
            coroutine.add_done_callback(partial(self._worked, request))
        if not self.task.handlers("comm-request"):
            self._refuse(request, _NOBODY.format(self.task.ref))
        else:
            self._see_to(request)

    def _worked(self, request: Request, coroutine: asyncio.Task[Any]) -> None:
        request.working.discard(coroutine)
        self._see_to(request)

    def _see_to(self, request: Request) -> None:
        """Refuse a request that nobody is at work on, once the run is ending."""
        if not request.working and not self._run.scheduler.running():
            self._refuse(request, _IS_ENDING, is_over=True)

    def _failed(
        self, kind: MsgKind, request: Request, error: BaseException, handler: Handler
    ) -> None:
        if handler.event == f"comm-{kind}":
            told = f"the callback {handler.name}() of {handler.event} failed: "
            told += f"{type(error).__name__}: {error}. The scheduler's log has its traceback."
            self._refuse(request, told)

    def _not_loaded(self, kind: MsgKind, number: int | None, error: Exception) -> None:
        told = (
            f"a {kind} of call {self.future.call.id} could not be made again in the scheduler's "
            f"process: {type(error).__name__}: {error}. Send plain values, or define its class in "
            "a module."
        )
        self._run.scheduler.log(f"comm of {self.task.ref}", "error", told)
        if number is not None:
            request = self._unanswered[number] = Request(number)
            self._refuse(request, told)

    def _refuse(self, request: Request, text: str, *, is_over: bool = False) -> None:
        if self._unanswered.get(request.number) is request:
            del self._unanswered[request.number]
            self._line.send((REFUSAL, request.number), (is_over, text))


_NOBODY = (
    "nobody listens to comm-request of {}: register a callback with @task.on('comm-request') that "
    "calls msg.respond(...)."
)
_IS_ENDING = (
    "the run is ending and nobody has answered this request. Finish the call without the answer, "
    "or answer within the callback."
)
