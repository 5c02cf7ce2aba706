"""Every error that amltk_nb raises by itself.

Each message says what happened, the likely cause and what to do next. Leaves also inherit the
standard error that callers already catch::

    AmltkError
    ├── EventNotKnownError        (ValueError)          no event of that name here
    ├── IllegalMoveError          (RuntimeError)        a state move that the table does not allow
    ├── SchedulerNotRunningError  (RuntimeError)        work for a scheduler that takes none now
    ├── SchedulerRunningError     (RuntimeError)        started twice
    ├── SchedulerGoneError        (ReferenceError)      a view whose scheduler was dropped
    ├── NoRunningLoopError        (RuntimeError)        start() outside of an event loop
    ├── RunningLoopError          (RuntimeError)        run() inside of one
    ├── ExecutorClosedError       (RuntimeError)        the user's executor was shut down
    ├── CannotEndError            (RuntimeError)        the backend cannot end a running call
    ├── BatchError                (RuntimeError)        a batch was submitted twice
    ├── JournalError              (OSError)             a journal that cannot be used
    │   └── JournalInUseError     (BlockingIOError)     another scheduler has it open
    ├── CallNotFoundError         (KeyError)            no such call, or it left the history
    ├── CommandError              (ValueError)          a message from the page that makes no sense
    │   └── FormError                                   entries of a form that make no call
    ├── MissingExtraError         (ImportError)         an optional library is not installed
    ├── NotPicklableError         (TypeError, PicklingError)  something cannot travel to a worker
    ├── PluginError               (RuntimeError)        a plugin that does not fit, or fails
    ├── CommError                 (RuntimeError)        a call and its scheduler cannot talk so
    │   ├── CommClosedError       (EOFError)            the other side is gone
    │   ├── CommRequestError                            the callback asked by a request failed
    │   └── CommTimeoutError      (TimeoutError)        nobody answered in time
    ├── BackendError              (ConnectionError)     an engine elsewhere does not do its part
    │   ├── BackendStartError                           it cannot be started, found or reached
    │   └── BackendLostError                            it was there, and is gone
    └── WorkerDiedError           (BrokenProcessPool)   the process that ran the call is gone
        └── WorkerStartError                            workers cannot start at all
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool

__all__ = [
    "AmltkError",
    "BackendError",
    "BackendLostError",
    "BackendStartError",
    "BatchError",
    "CallNotFoundError",
    "CannotEndError",
    "CommClosedError",
    "CommError",
    "CommRequestError",
    "CommTimeoutError",
    "CommandError",
    "EventNotKnownError",
    "ExecutorClosedError",
    "FormError",
    "IllegalMoveError",
    "JournalError",
    "JournalInUseError",
    "MissingExtraError",
    "NoRunningLoopError",
    "NotPicklableError",
    "PluginError",
    "RunningLoopError",
    "SchedulerGoneError",
    "SchedulerNotRunningError",
    "SchedulerRunningError",
    "WorkerDiedError",
    "WorkerStartError",
]


class AmltkError(Exception):
    """The base of every error that amltk_nb raises by itself."""


class EventNotKnownError(AmltkError, ValueError):
    """An event name that the scheduler or task does not have; the message lists those it has."""


class IllegalMoveError(AmltkError, RuntimeError):
    """A state move that the table does not allow; the state is left as it was."""


class SchedulerNotRunningError(AmltkError, RuntimeError):
    """Work was handed to a scheduler that is not running, or no longer takes any."""


class SchedulerRunningError(AmltkError, RuntimeError):
    """A second start of a scheduler that is running."""


class SchedulerGoneError(AmltkError, ReferenceError):
    """A page asks something of a scheduler that nobody refers to any more."""


class NoRunningLoopError(AmltkError, RuntimeError):
    """`start()` was called where no event loop runs."""


class RunningLoopError(AmltkError, RuntimeError):
    """`run()` was called where an event loop runs, outside of a notebook."""


class ExecutorClosedError(AmltkError, RuntimeError):
    """The executor that the user made has been shut down, so nothing can run on it."""


class CannotEndError(AmltkError, RuntimeError):
    """The backend has no way to end a call that is already running."""


class BatchError(AmltkError, RuntimeError):
    """A batch of calls was submitted a second time."""


class JournalError(AmltkError, OSError):
    """A journal cannot be opened, read or written, or a value in it cannot be made again."""


class JournalInUseError(JournalError, BlockingIOError):
    """Another scheduler has the journal open."""


class CallNotFoundError(AmltkError, KeyError):
    """No call of that id is known: it belongs elsewhere or has left the bounded history."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class CommandError(AmltkError, ValueError):
    """A message from the page that names no known command or carries wrong arguments."""


class FormError(CommandError):
    """What was entered in a form makes no call; nothing was submitted."""

    def __init__(
        self, message: str, *, fields: Mapping[str, str] | None = None, is_stale: bool = False
    ) -> None:
        """Say what is wrong.

        Args:
            message: all of it, for who sees no fields.
            fields: by the name of a field what is wrong with it, in a sentence.
            is_stale: what the form shows is not what there is now, so it has to be made anew.
        """
        super().__init__(message)
        self.fields = dict(fields or {})
        self.is_stale = is_stale


class MissingExtraError(AmltkError, ImportError):
    """An optional library is needed and not installed; the message names the extra."""


class NotPicklableError(AmltkError, TypeError, pickle.PicklingError):
    """A function, argument or result cannot travel between processes; the message names it."""


class PluginError(AmltkError, RuntimeError):
    """A plugin was attached in a way it cannot serve, or one of its hooks failed."""


class CommError(AmltkError, RuntimeError):
    """A running call and its scheduler cannot talk in this way; the base of the next three."""


class CommClosedError(CommError, EOFError):
    """The other side of a talk is gone: the run has ended or is ending, or somebody closed it."""


class CommRequestError(CommError):
    """What a call asked of the callbacks cannot be answered: one failed, or nobody listens."""


class CommTimeoutError(TimeoutError, CommError):  # the one first that its instances are laid out as
    """Nobody answered, or said anything, within the time that a call was ready to wait."""


class BackendError(AmltkError, ConnectionError):
    """What runs the calls elsewhere (Dask, Ray, a batch system) does not do its part."""


class BackendStartError(BackendError):
    """It cannot be started, found or reached: a wrong address, a refused submission."""


class BackendLostError(BackendError):
    """It was there and is gone, so nothing can run any more; the run ends."""


class WorkerDiedError(AmltkError, BrokenProcessPool):
    """The worker process that ran the call is gone; the message has its exit code or signal."""


class WorkerStartError(WorkerDiedError):
    """Worker processes cannot start; the message has what the last one said."""
