"""Calls between hand-over and outcome, and what the engine's word on one comes to."""

from __future__ import annotations

from asyncio import CancelledError as AsyncCancelledError
from collections.abc import Iterable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from amltk_nb.errors import (
    AmltkError,
    BackendError,
    BackendLostError,
    BackendStartError,
    WorkerDiedError,
)
from amltk_nb.scheduling.call import Call, Outcome
from amltk_nb.scheduling.remote_call import read_answer

if TYPE_CHECKING:
    from amltk_nb.scheduling.executors.remote import Handle

__all__ = [
    "Answered",
    "Death",
    "Deaths",
    "Flight",
    "NeverRanError",
    "cancelled",
    "could_not_start",
    "failed",
    "outcome",
    "refused",
]


class NeverRanError(Exception):
    """Says of a call that no worker has begun it, or ever will: it goes back to the queue."""


@dataclass(frozen=True, slots=True)
class Death:
    """Says of a call that the worker is dead that had it, and maybe others besides.

    It runs at most so many calls at a time, and in the order in which they came: those ran, and
    what was handed over ahead behind them did not.
    """

    error: WorkerDiedError
    worker: str  # another name for each that dies
    n_slots: int = 1


Answered: TypeAlias = bytes | BaseException | Death


class Flight:
    """One call between hand-over and outcome."""

    __slots__ = ("call", "ending", "handed_at", "handle", "is_ahead", "number", "process")

    def __init__(self, call: Call, number: int, *, handed_at: float, is_ahead: bool) -> None:
        """Begin it.

        Args:
            call: which call.
            number: counts up in the order of hand-over.
            handed_at: when that was, by the clock of the session.
            is_ahead: whether all workers had one already, so that it may not have begun yet.
        """
        self.call = call
        self.number = number
        self.handed_at = handed_at
        self.is_ahead = is_ahead
        self.handle: Handle | None = None  # None: not with the engine yet
        self.ending = False  # was asked to end; whatever comes now, it was cancelled
        self.process: tuple[str, int] | None = None  # that ran it: its machine and pid


class Deaths:
    """Tells which calls died with their worker, and which had only waited behind these."""

    def __init__(self) -> None:
        """Know of none."""
        self._ran: dict[str, tuple[int, int]] = {}  # of each worker: how many, and the last number

    def part(self, dead: Iterable[tuple[Flight, Death]]) -> tuple[list[Flight], list[Flight]]:
        """Part the calls of dead workers into those that ran, and those that can run elsewhere.

        Nobody is left to ask, so their order decides. Engines tell of each call by itself, maybe
        late and maybe of calls that were ended by then: all of them count.
        """
        ran: list[Flight] = []
        waited: list[Flight] = []
        for flight, death in sorted(dead, key=lambda pair: pair[0].number):
            n_ran, last = self._ran.get(death.worker, (0, -1))
            if flight.is_ahead and n_ran >= death.n_slots and flight.number > last:
                waited.append(flight)
            else:
                self._ran[death.worker] = (n_ran + 1, max(last, flight.number))
                ran.append(flight)
        return ran, waited


def cancelled(flight: Flight) -> Outcome:
    """Make the outcome of a call that was ended on purpose."""
    return Outcome(flight.call, cancelled=True, worker=flight.call.worker)


def outcome(flight: Flight, answer: bytes | BaseException) -> Outcome:
    """Make of the engine's word on a call what became of it."""
    call = flight.call
    if flight.ending or isinstance(answer, (CancelledError, AsyncCancelledError)):
        return cancelled(flight)
    if isinstance(answer, BaseException):
        return Outcome(call, error=answer, worker=call.worker)
    try:
        told = read_answer(answer, call.describe())
    except (Exception, SystemExit) as error:  # of another version, or no answer at all
        wrong = BackendError(
            f"The answer to call {call.id} of {call.describe()}() cannot be read: {error!r}. "
            "Its worker may run another version of Python or cloudpickle."
        )
        wrong.__cause__ = error
        return Outcome(call, error=wrong, worker=call.worker)
    flight.process = (told.host, told.pid)
    worker = told.worker or call.worker or f"{told.host}:{told.pid}"
    return Outcome(
        call, told.value, told.error, False, told.started_at, told.seconds, worker, told.output
    )


def could_not_start(error: BaseException, name: str) -> BaseException:
    """Say of whatever a library raised at its start what it means here."""
    if isinstance(error, AmltkError) or not isinstance(error, Exception):
        return error
    explained = BackendStartError(
        f"{name} could not be started: {type(error).__name__}: {error}. Nothing has run; see the "
        "cause above, then start the scheduler again."
    )
    explained.__cause__ = error
    return explained


def failed(error: BaseException, name: str) -> BackendLostError:
    """Say of a fault that nobody has foreseen what it means here."""
    lost = BackendLostError(
        f"{name} failed in a way that was not foreseen, so nothing can run any more: "
        f"{type(error).__name__}: {error}. Calls under way may have run to their end unseen; see "
        "the cause above, then start the scheduler again."
    )
    lost.__cause__ = error
    return lost


def refused(error: Exception, call: Call, name: str) -> Exception:
    """Say of whatever a library raised at a submission what it means here."""
    if isinstance(error, AmltkError):
        return error
    explained = BackendError(
        f"{name} did not take call {call.id} of {call.describe()}(): {type(error).__name__}: "
        f"{error}. Other calls are not affected."
    )
    explained.__cause__ = error
    return explained
