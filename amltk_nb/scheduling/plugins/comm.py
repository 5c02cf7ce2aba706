"""Messages between a running call and the callbacks of its task, both ways.

A task with a `Comm.Plugin` gets a further keyword argument, its `Comm`::

    def search(space, *, comm):
        with comm.open():
            while (point := comm.request("next?", timeout=30)) is not None:
                comm.send({"point": point, "loss": evaluate(space, point)})

    task = scheduler.task(search, plugins=Comm.Plugin())

    @task.on("comm-request")
    def choose(msg):
        msg.respond(next(points, None))

    @task.on("comm-message")
    def note(msg):
        losses.append(msg.data["loss"])

The events of the task, each with one `Msg`; messages of one call arrive in the order it sent
them, and all of them before the events of its end:

    ========  ============  ==========================================
    constant  name          when
    ========  ============  ==========================================
    OPEN      comm-open     the call has opened its comm
    MESSAGE   comm-message  it has sent something
    REQUEST   comm-request  it waits for `msg.respond(...)`
    CLOSE     comm-close    it has closed it, has ended, or has died
    ========  ============  ==========================================

Callbacks run on the scheduler's loop. So a request waits while a notebook's cell blocks that loop,
and so does whoever has sent a thousand messages that nobody has taken in yet.
"""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Self

from amltk_nb.errors import (
    CommClosedError,
    CommError,
    CommRequestError,
    CommTimeoutError,
    PluginError,
)
from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.plugins.base import Plugin, Submission
from amltk_nb.scheduling.plugins.conversation import (
    ANSWER,
    ENDING,
    SENT,
    CommMsg,
    Conversation,
    MsgKind,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from amltk_nb.scheduling.call import Call
    from amltk_nb.scheduling.task import Task
    from amltk_nb.scheduling.transports.base import End, Head, Load, Ticket

__all__ = ["Comm", "CommPlugin"]


class Comm:
    """A call's own side of the talk with its scheduler; its function gets it as an argument.

    One thread at a time may wait in `request` or `receive`.
    """

    OPEN: ClassVar[Event[[CommMsg]]] = Event("comm-open")
    MESSAGE: ClassVar[Event[[CommMsg]]] = Event("comm-message")
    REQUEST: ClassVar[Event[[CommMsg]]] = Event("comm-request")
    CLOSE: ClassVar[Event[[CommMsg]]] = Event("comm-close")

    Msg: ClassVar[type[CommMsg]] = CommMsg
    Plugin: ClassVar[type[CommPlugin]]  # set below, where it is defined

    def __init__(self, ticket: Ticket, conversation: Conversation | None = None) -> None:
        """Make it closed; the plugin does that for each call.

        Args:
            ticket: by which the call finds its line.
            conversation: the other side, where that is in this process; it does not travel.
        """
        self.ticket = ticket
        self.conversation = conversation
        self._end: End | None = None
        self._numbers = count(1)
        self._waiting = threading.Lock()
        self._is_ending = False  # the run: nothing more will be sent
        self._kept: deque[Any] = deque()  # messages that came while an answer was waited for

    def __reduce__(self) -> tuple[Any, ...]:
        return Comm, (self.ticket,)

    @property
    def is_open(self) -> bool:
        """Whether it is open on this side."""
        return self._end is not None

    def open(
        self, data: Any = None, *, wait_for_ack: bool = False, timeout: float | None = None
    ) -> Self:
        """Begin to talk; use it as `with comm.open():` so that it is closed whatever happens.

        Args:
            data: for the callbacks of comm-open.
            wait_for_ack: whether to wait until these have run.
            timeout: seconds to wait for that at most; None: for ever.

        Raises:
            CommError: it is open.
            CommClosedError: the run is over or ending.
            CommRequestError: one of these callbacks failed, if they are waited for.
            CommTimeoutError: they took too long.
            NotPicklableError: the data cannot travel.
        """
        if self._end is not None:
            raise CommError("this comm is open already; open it once and use it within the block.")
        end = self.ticket.connect()
        assert end is not None  # it may wait
        self._end = end
        try:
            if wait_for_ack:
                self._ask(MsgKind.OPEN, data, _checked_timeout(timeout))
            else:
                end.send((MsgKind.OPEN.value, None), data)
        except BaseException:
            self._end = None
            end.close()
            raise
        return self

    def attempt_over(self) -> None:
        """Close what a call of this process left open, so that a retry finds it closed."""
        end, self._end = self._end, None
        self._kept.clear()
        if end is not None:
            end.close()

    def send(self, data: Any) -> None:
        """Tell the callbacks of comm-message something, without waiting for them.

        Raises:
            CommError: it is not open.
            CommClosedError: the other side is gone.
            NotPicklableError: the data cannot travel.
        """
        self._opened().send((MsgKind.MESSAGE.value, None), data)

    def request(self, data: Any = None, *, timeout: float | None = None) -> Any:
        """Ask the callbacks of comm-request something and wait for the answer.

        Args:
            data: for the callbacks.
            timeout: seconds to wait at most; None: for ever.

        Returns:
            What a callback gave to `msg.respond`.

        Raises:
            CommError: it is not open.
            CommTimeoutError: nobody answered in time.
            CommRequestError: a callback failed over it, or there is none.
            CommClosedError: the run is ending, or the other side is gone.
            NotPicklableError: the data, or the answer, cannot travel.
        """
        return self._ask(MsgKind.REQUEST, data, _checked_timeout(timeout))

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for something that a callback sends by `msg.comm.send`.

        Args:
            timeout: seconds to wait at most; None: for ever.

        Raises:
            CommError: it is not open.
            CommTimeoutError: nothing came in time.
            CommClosedError: the run is ending, or the other side closed it.
        """
        end, timeout_s = self._opened(), _checked_timeout(timeout)
        with self._waiting:
            until = None if timeout_s is None else monotonic() + timeout_s
            while not self._kept:
                try:
                    head, load = end.receive(0.0 if self._is_ending else _left_s(until))
                except TimeoutError:
                    raise self._nothing_came(timeout_s) from None
                self._keep(head, load)
            return self._kept.popleft()

    def _nothing_came(self, timeout_s: float | None) -> CommError:
        if self._is_ending:
            return CommClosedError(
                "the run is ending and nothing more is sent to this call. Finish it without."
            )
        return CommTimeoutError(
            f"nothing was sent to this call within {timeout_s} s. Callbacks send by "
            "msg.comm.send(...), msg being that of comm-open or of any other."
        )

    def _keep(self, head: Head, load: Load) -> None:
        """Keep for later what is no answer."""
        if head[0] == SENT:
            self._kept.append(load())
        elif head[0] == ENDING:
            self._is_ending = True

    def close(self, data: Any = None) -> None:
        """End the talk; harmless when closed.

        Args:
            data: for the callbacks of comm-close.
        """
        end, self._end = self._end, None
        if end is not None:
            try:
                end.send((MsgKind.CLOSE.value, None), data)
            except CommClosedError:
                pass  # the other side was quicker
            finally:
                end.close()

    def __enter__(self) -> Self:
        return self if self.is_open else self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> End:
        if self._end is None:
            raise CommError("this comm is not open: use it within `with comm.open():`.")
        return self._end

    def _ask(self, kind: MsgKind, data: Any, timeout_s: float | None) -> Any:
        end = self._opened()
        with self._waiting:
            number = next(self._numbers)
            end.send((kind.value, number), data)
            until = None if timeout_s is None else monotonic() + timeout_s
            while True:
                try:
                    head, load = end.receive(_left_s(until))
                except TimeoutError:
                    raise CommTimeoutError(
                        f"nobody answered this {kind} within {timeout_s} s: no callback of "
                        f"comm-{kind} called msg.respond(...), or the loop that they run on is "
                        "busy."
                    ) from None
                if head[1] == number:
                    return _answer(head, load)
                self._keep(head, load)


def _answer(head: Head, load: Load) -> Any:
    if head[0] == ANSWER:
        return load()
    is_over, text = load()
    raise CommClosedError(text) if is_over else CommRequestError(text)


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is None or (isinstance(timeout, (int, float)) and timeout >= 0):
        return timeout
    raise ValueError(f"timeout={timeout!r}: use seconds, 0 or more, or None to wait for ever.")


def _left_s(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - monotonic())


class CommPlugin(Plugin):
    """Gives the calls of its tasks a `Comm`, and their tasks four events; `Comm.Plugin`."""

    name = "comm"

    def __init__(self, parameter_name: str = "comm") -> None:
        """Say how the function names it.

        Args:
            parameter_name: of the keyword argument by which a call gets its `Comm`.

        Raises:
            ValueError: no function can have a parameter of that name.
        """
        if not isinstance(parameter_name, str) or not parameter_name.isidentifier():
            raise ValueError(
                f"parameter_name={parameter_name!r}: use the name of the function's parameter."
            )
        self.parameter_name = parameter_name
        self._n_messages = self._n_requests = 0
        self._open: set[Conversation] = set()
        self._scheduler: Any = None

    def attach_task(self, task: Task[..., Any]) -> None:
        """Look whether the function takes a comm.

        Raises:
            PluginError: it does not, or there is another comm for the same parameter.
        """
        name = self.parameter_name
        if not _takes(task.function, name):
            raise PluginError(
                f"{task.signature} has no parameter {name!r} for its comm. Add one, as in "
                f"`def {task.name}(..., *, {name})`, or say its name: "
                "Comm.Plugin(parameter_name=...)."
            )
        if any(isinstance(p, CommPlugin) and p.parameter_name == name for p in task.plugins):
            raise PluginError(f"{task.ref} gets its {name!r} from another comm plugin already.")
        if self._scheduler is not task.scheduler:
            self._scheduler = task.scheduler
            finishing = task.scheduler.FINISHING
            task.scheduler.on(finishing, self._finishing, hidden=True, replace=False)

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Look whether the place of the comm is free.

        Raises:
            PluginError: the caller passed something for it.
        """
        if self.parameter_name in kwargs or _position(fn, self.parameter_name) < len(args):
            raise PluginError(
                f"the argument {self.parameter_name!r} of {getattr(fn, '__name__', fn)}() is "
                "filled in by its comm plugin: submit the call without it."
            )
        return fn, args, kwargs

    def accepted(self, call: Call) -> None:
        """Give the call its comm."""
        assert call.task is not None
        run = call.task.scheduler.last_run
        assert run is not None
        fn, args, kwargs = call.work
        conversation = Conversation(self, call, run)
        comm = Comm(conversation.ticket, conversation)
        call.altered = fn, args, {**kwargs, self.parameter_name: comm}

    def hear_out(self, call: Call) -> None:
        """Have all that the call has said be told before its end."""
        self._conversation(call).hear_out()
        self._comm(call).attempt_over()

    def release(self, call: Call | None) -> None:
        """Close the talk."""
        if call is not None:
            self._conversation(call).release()

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Return the four events of a talk."""
        return [
            EventSpec(kind.name, f"comm-{kind}", "(msg)", (f"comm_{kind}", f"on_comm_{kind}"))
            for kind in MsgKind
        ]

    def state(self) -> Mapping[str, Any]:
        """Show how many talk now, and how much was said."""
        return {
            "Open": len(self._open),
            "Messages": self._n_messages,
            "Requests": self._n_requests,
        }

    def opened(self, conversation: Conversation) -> None:
        """Note that a call has begun to talk."""
        self._open.add(conversation)

    def closed(self, conversation: Conversation) -> None:
        """Note that it has ceased to."""
        self._open.discard(conversation)

    def count(self, kind: MsgKind) -> None:
        """Count what was said."""
        self._n_messages += kind is MsgKind.MESSAGE
        self._n_requests += kind is MsgKind.REQUEST

    def _conversation(self, call: Call) -> Conversation:
        conversation = self._comm(call).conversation
        assert conversation is not None
        return conversation

    def _comm(self, call: Call) -> Comm:
        comm: Comm = call.work[2][self.parameter_name]
        return comm

    def _finishing(self) -> None:
        for conversation in list(self._open):
            conversation.ending()


Comm.Plugin = CommPlugin


def _takes(fn: Callable[..., Any], name: str) -> bool:
    """Say whether a function can be given a keyword argument; in doubt it can."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return True
    return any(
        p.kind is p.VAR_KEYWORD
        or (p.name == name and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        for p in parameters
    )


def _position(fn: Callable[..., Any], name: str) -> float:
    """Return which positional argument would fill a parameter; infinity: none."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return float("inf")
    for i, p in enumerate(parameters):
        if p.name == name and p.kind is p.POSITIONAL_OR_KEYWORD:
            return i
    return float("inf")
