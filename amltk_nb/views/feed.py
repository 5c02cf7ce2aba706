"""What is sent to the pages of one dashboard, and when: at most so often, at most so much.

A change only marks the feed. Whoever owns a clock calls `step`, which sends a full model, a patch
or a heartbeat, and says when it wants to be called again. Only what changed is sent. What comes
in bulk (rows, log lines) and in long lists (events of many tasks) is held back a little after it
was sent, and of a flood of rows the latest are sent: `fitting`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from amltk_nb.scheduling.states import RunState
from amltk_nb.views.fitting import fit, n_bytes
from amltk_nb.views.model import SCHEMA, Model, diff, to_model

if TYPE_CHECKING:
    from amltk_nb.scheduling.snapshot import Snapshot

__all__ = [
    "BEAT_S",
    "BULK_BYTES_PER_S",
    "LISTS_BYTES_PER_S",
    "LISTS_HELD_S",
    "PATCH_GAP_S",
    "QUIET_AFTER_S",
    "QUIET_GAP_S",
    "Feed",
]

PATCH_GAP_S = 0.2  # five patches a second at most
QUIET_GAP_S = 1.0  # and one a second …
QUIET_AFTER_S = 60.0  # … after a minute of nothing new
BEAT_S = 1.0  # a live run says so at least this often, else "busy" and "idle" look alike
# Together with the counts and with what the kernel puts around each message, below 50 kB a second.
BULK_BYTES_PER_S = 30_000  # rows of calls, workers and log lines: at most so much at once, too
LISTS_BYTES_PER_S = 8_000  # events, callbacks, tasks and plugins
LISTS_HELD_S = 10.0  # a thousand busy tasks must not silence their counts for minutes

_BULK = ("calls", "workers", "machines", "log")
_LISTS = ("events", "callbacks", "tasks", "plugins")
_LIVE = {RunState.RUNNING, RunState.PAUSED, RunState.STOPPING}


class Feed:
    """Decides what to send and when; knows neither widgets nor clocks.

    Used on one thread, `mark` excepted.
    """

    def __init__(
        self, snapshot: Callable[[], Snapshot], send: Callable[[dict[str, Any]], None]
    ) -> None:
        """Make a feed that nobody listens to yet.

        Args:
            snapshot: takes the present snapshot.
            send: sends one message to all pages.
        """
        self._snapshot = snapshot
        self._send = send
        self._sent: Model = {}  # what the pages have
        self._version = 0  # of what the pages have
        self._dirty = True
        self._wants_full = False
        self._live = False
        self._final: dict[str, Any] | None = None
        self._next_at = self._sent_at = self._new_at = float("-inf")
        self._bulk_at = self._lists_at = float("-inf")  # not before
        self.listening = False

    def mark(self) -> bool:
        """Note that something changed, on any thread; True if that has to be looked at soon."""
        if self._dirty:
            return False
        self._dirty = True
        return self.listening

    def hello(self) -> None:
        """Note that a page listens and needs everything."""
        self.listening = self._wants_full = True

    def step(self, now: float, at: float) -> float | None:
        """Send what is due.

        Args:
            now: seconds of a monotonic clock.
            at: seconds since the epoch, for the page to set its clocks by.

        Returns:
            Seconds until the next step; None: not before the next `mark` or `hello`.
        """
        if not self.listening:
            return None
        if self._final is not None:
            if self._wants_full:
                self._send(self._final)
            self._wants_full = False
            return None
        if now < self._next_at - 1e-6:  # the sums of floats that timers make
            return self._next_at - now
        if self._wants_full:
            self._send_full(now, at)
        elif self._dirty:
            self._send_patch(now, at)
        elif self._live and now - self._sent_at >= BEAT_S:
            self._send_at(now, {"kind": "beat", "version": self._version, "at": at})
        return self._delay(now)

    def end(self, at: float, frozen: dict[str, Any] | None = None) -> None:
        """Send everything for the last time; from now on the same to each page that says hello.

        Args:
            at: seconds since the epoch.
            frozen: what pages are to put in place of the widget, where they can.
        """
        self._final = {**self._full(at), "kind": "final"}
        if frozen is not None:
            self._final["frozen"] = frozen
        if self.listening:
            self._send(self._final)

    @property
    def ended(self) -> bool:
        """Whether it sends no more news."""
        return self._final is not None

    def _delay(self, now: float) -> float | None:
        if self._dirty or self._wants_full:
            return max(0.0, self._next_at - now)
        return max(0.0, self._sent_at + BEAT_S - now) if self._live else None

    def _take(self) -> Model:
        self._dirty = False  # before the look, so that a change during it is not lost
        snapshot = self._snapshot()
        self._live = snapshot.run.state in _LIVE
        return to_model(snapshot)

    def _full(self, at: float) -> dict[str, Any]:
        self._sent = self._take()
        self._version += 1
        return {
            "kind": "full",
            "schema": SCHEMA,
            "version": self._version,
            "at": at,
            "model": self._sent,
        }

    def _send_full(self, now: float, at: float) -> None:
        self._wants_full = False
        self._next_at = now + PATCH_GAP_S
        self._new_at = now
        self._send_at(now, self._full(at))

    def _send_patch(self, now: float, at: float) -> None:
        model = self._bounded(self._take(), now)
        patch = diff(self._sent, model)
        if patch is not None:
            self._sent, self._new_at = model, now
            self._version += 1
            message = {"kind": "patch", "base": self._version - 1, "version": self._version}
            self._send_at(now, {**message, "at": at, "patch": patch})
            bulk, lists = ([patch[n] for n in names if n in patch] for names in (_BULK, _LISTS))
            if bulk:
                self._bulk_at = now + min(1.0, n_bytes(bulk) / BULK_BYTES_PER_S)
            if lists:
                self._lists_at = now + min(LISTS_HELD_S, n_bytes(lists) / LISTS_BYTES_PER_S)
        quiet = now - self._new_at > QUIET_AFTER_S
        self._next_at = now + (QUIET_GAP_S if quiet else PATCH_GAP_S)

    def _bounded(self, model: Model, now: float) -> Model:
        """Leave out what may not be sent yet, to be looked at again."""
        held: tuple[str, ...] = _LISTS if now < self._lists_at - 1e-6 else ()
        if now < self._bulk_at - 1e-6:
            held += _BULK
        else:
            bulk, is_all = fit(self._sent, model, BULK_BYTES_PER_S)
            model |= bulk
            self._dirty |= not is_all
        self._dirty |= bool(held)
        return model | {name: self._sent[name] for name in held}

    def _send_at(self, now: float, message: dict[str, Any]) -> None:
        self._sent_at = now
        self._send(message)
