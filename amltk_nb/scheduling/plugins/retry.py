"""Try failed calls again, on tenacity's strategies of waiting and of giving up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from amltk_nb.errors import NotPicklableError, PluginError, WorkerDiedError
from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.history import error_line
from amltk_nb.scheduling.plugins.base import Plugin
from amltk_nb.scheduling.plugins.extras import require

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.retry import retry_base

    from amltk_nb.scheduling.task import Task

__all__ = ["Retry"]

Wait: TypeAlias = "Callable[[RetryCallState], float | int]"
Decision: TypeAlias = "Callable[[RetryCallState], bool]"
RetryOn: TypeAlias = (
    "type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]"
    " | retry_base"
)

# Memory that runs out, a crash in C code: what kills three workers in a row kills the fourth, and
# each time takes down what else the machine is doing with it.
_MOST_DEATHS = 3
_LONGEST_WAIT_S = 60

_EVENTS = (EventSpec("RETRY", "on_retry", "(future, error, attempt)", ("on-retry", "retry")),)


@dataclass(slots=True)
class _Tries:
    """What is known of a call that has failed."""

    began_at: float  # seconds since the epoch: the first attempt
    n_failed: int = 0
    n_deaths: int = 0  # in a row, and up to now
    waited_s: float = 0.0


class Retry(Plugin):
    """Has calls that fail run again, a few times and with pauses between.

    A call ends once, whatever it took: its future stays the same, and the events of an end, like
    the run's policy about exceptions, are about the last attempt. Each attempt before it is a
    failed call of its own in the records, and the next one names it as `resubmitted_from`. Other
    plugins are asked once per call, not per attempt; function and arguments stay as submitted.

    The task gets the event `on_retry(future, error, attempt)`: what failed, and the number of the
    attempt to come. A run that is ending tries nothing again.
    """

    name = "retry"

    RETRY: ClassVar[Event[...]] = Event("on_retry")

    def __init__(
        self,
        max_attempts: int | None = 3,
        *,
        wait: float | Wait | None = None,
        stop: float | Decision | None = None,
        retry_on: RetryOn = Exception,
    ) -> None:
        """Say what is tried again, how often and after how long.

        Args:
            max_attempts: how often a call runs at most, its first time included; None leaves that
                to `stop`.
            wait: seconds between two attempts, or a strategy of tenacity
                (`tenacity.wait_exponential(...)`). None: a random time of up to 1 s, then up to
                2 s, 4 s, … and never more than a minute.
            stop: seconds since the first attempt began, after which none is made any more, or a
                strategy of tenacity (`tenacity.stop_after_delay(60)`).
            retry_on: errors to try again after: a type, a tuple of types, a function that is
                given the error, or a strategy of tenacity (`tenacity.retry_if_...`). What cannot
                be pickled is never tried again, nor is a call that has killed three workers.

        Raises:
            ValueError, TypeError: something that means nothing of the kind.
            MissingExtraError: tenacity is not installed.
        """
        require("tenacity", extra="retry", needed_by="Retry")
        import tenacity

        self._tenacity = tenacity
        self._retrying = tenacity.Retrying()  # strategies may ask their state for it
        self._wait: Wait = (
            tenacity.wait_random_exponential(max=_LONGEST_WAIT_S)
            if wait is None
            else _strategy("wait", wait, tenacity.wait_fixed)
        )
        stops: list[Decision] = []
        if max_attempts is not None:
            stops.append(tenacity.stop_after_attempt(_checked_attempts(max_attempts)))
        if stop is not None:
            stops.append(_strategy("stop", stop, tenacity.stop_after_delay))
        if not stops:
            raise ValueError(
                "Retry(max_attempts=None) would never give up: pass stop= as well, in seconds or "
                "as a strategy of tenacity (stop_never, if that is meant)."
            )
        self._stops = stops
        self._retry_on: Decision = _decision(retry_on, tenacity)
        self.max_attempts = max_attempts
        self.n_attempts = 0  # that have ended
        self.n_retries = 0
        self.n_given_up = 0
        self._tries: dict[int, _Tries] = {}  # by the id of the latest attempt

    def attach_task(self, task: Task[..., Any]) -> None:
        """Watch a task.

        Raises:
            PluginError: it has a Retry already.
        """
        if any(isinstance(plugin, Retry) for plugin in task.plugins):
            raise PluginError(
                f"{task.ref} has a Retry already, and two would count each other's attempts; give "
                "one a function as retry_on= that knows both kinds of errors."
            )

    def retry_after(self, call: Call, error: BaseException) -> float | None:
        """Decide about a call that has failed."""
        tries = self._tries.get(call.id) or _Tries(began_at=call.started_at or call.submitted_at)
        tries.n_failed += 1
        tries.n_deaths = tries.n_deaths + 1 if isinstance(error, WorkerDiedError) else 0
        state = self._state_of(call, error, tries)
        if isinstance(error, NotPicklableError) or not self._retry_on(state):
            return None
        state.upcoming_sleep = wait_s = _checked_wait(self._wait(state))
        if tries.n_deaths >= _MOST_DEATHS:
            error.add_note(
                f"It was not tried again: this call has killed {tries.n_deaths} workers in a row. "
                "See what it does in a process of its own; more memory may help, or smaller pieces."
            )
        elif not any(stop(state) for stop in self._stops):
            tries.waited_s += wait_s
            self._tries[call.id] = tries
            return wait_s
        self._give_up(call, error, tries)
        return None

    def retried(self, former: Call, call: Call) -> None:
        """Follow a call to its next attempt, and tell of it."""
        self.n_attempts += 1
        self.n_retries += 1
        tries = self._tries.pop(former.id, None)
        if tries is not None:
            self._tries[call.id] = tries
        if call.task is not None:
            call.task.emit(self.RETRY, call.future, former.error, call.attempt)

    def release(self, call: Call | None) -> None:
        """Forget a call that has ended."""
        if call is not None:
            self.n_attempts += call.started_at is not None
            self._tries.pop(call.id, None)

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Return the one event."""
        return _EVENTS

    def state(self) -> Mapping[str, Any]:
        """Show what became of the attempts."""
        return {
            "Max attempts": self.max_attempts,
            "Attempts": self.n_attempts,
            "Retries": self.n_retries,
            "Given up": self.n_given_up,
        }

    def _give_up(self, call: Call, error: BaseException, tries: _Tries) -> None:
        self.n_given_up += 1
        if call.task is not None:
            call.task.scheduler.log(
                self.name,
                "warning",
                f"gave up on call {call.id} of {call.describe()} after {tries.n_failed} attempts: "
                f"{error_line(error)}",
            )

    def _state_of(self, call: Call, error: BaseException, tries: _Tries) -> RetryCallState:
        """Describe an attempt as tenacity's strategies want it."""
        _, args, kwargs = call.work
        state: RetryCallState = self._tenacity.RetryCallState(self._retrying, call.fn, args, kwargs)
        state.attempt_number = tries.n_failed
        state.set_exception((type(error), error, error.__traceback__))
        # Its own clock knows nothing of what happened elsewhere.
        state.start_time = tries.began_at
        state.outcome_timestamp = call.ended_at
        state.idle_for = tries.waited_s
        return state


def _checked_attempts(n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(
            f"max_attempts={n!r}: use a whole number of at least 1, the first attempt included, or "
            "None with stop=."
        )
    return n


def _strategy(name: str, given: Any, of_seconds: Callable[[float], Any]) -> Any:
    """Return a strategy, made of a number of seconds if that is given."""
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        if not (isfinite(given) and given >= 0):
            raise ValueError(f"{name}={given!r}: use seconds, 0 or more.")
        return of_seconds(given)
    if isinstance(given, type) or not callable(given):
        raise TypeError(f"{name}={given!r}: use seconds or a strategy of tenacity, as it is made.")
    return given


def _decision(retry_on: Any, tenacity: Any) -> Any:
    """Make one kind of decision out of the four that users may give."""
    kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if kinds and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return tenacity.retry_if_exception_type(kinds)
    if isinstance(retry_on, tenacity.retry_base):
        return retry_on
    if isinstance(retry_on, (type, tuple)) or not callable(retry_on):
        raise TypeError(
            f"retry_on={retry_on!r}: use a type of exceptions, a tuple of such types, a function "
            "that is given an error and says whether to try again, or a strategy of tenacity."
        )
    return tenacity.retry_if_exception(retry_on)


def _checked_wait(wait_s: Any) -> float:
    if isinstance(wait_s, (int, float)) and isfinite(wait_s) and wait_s >= 0:
        return float(wait_s)
    raise TypeError(f"its wait= strategy returned {wait_s!r}; return seconds, 0 or more")
