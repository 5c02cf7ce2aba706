"""A flood of calls by a clock that the test turns, and what a dashboard's feed makes of it.

The engine is the real one with its default history, capture and batches; its workers are played,
so that as many calls end per second as it is told to, however slow the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from amltk_nb import Limiter, Scheduler
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.task import Task
from amltk_nb.testing import FakeClock, ManualBackend
from amltk_nb.views.feed import Feed
from amltk_nb.views.fitting import n_bytes
from amltk_nb.views.model import apply, call_record
from tests.scheduling.conftest import turn_until

__all__ = ["Flood", "Sent", "joined_late"]

BEGIN_AT = 1_700_000_000.0
FAIL_EVERY = 50


def evaluate(model: str, **options: float) -> dict[str, float]:
    """Stand for what a search evaluates; nobody runs it."""
    raise AssertionError(f"{model} was run with {options}")


@dataclass(frozen=True)
class Sent:
    """One message to the page."""

    at_s: float  # since the flood began
    message: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.message["kind"])

    @property
    def n_bytes(self) -> int:
        return n_bytes(self.message)


@dataclass
class Flood:
    """So many calls end each second, and as many are submitted."""

    calls_per_s: int
    n_queued: int
    n_workers: int = 8
    n_tasks: int = 2
    log_lines_per_s: int = 0
    tick_s: float = 0.05  # of its clock, between what happens at once
    joined_at_s: float | None = None  # when somebody comes who asks for what has `ended`
    ended: list[dict[str, Any]] = field(default_factory=list, init=False)
    sent: list[Sent] = field(default_factory=list)

    async def record(self, seconds: float) -> list[Sent]:
        """Let it run for so many seconds of its own clock.

        Returns:
            What the page is sent meanwhile.
        """
        self.clock = FakeClock(BEGIN_AT)
        self.backend = ManualBackend(self.n_workers, batches=True)
        self.scheduler = Scheduler(self.backend, clock=self.clock, name="flood")
        self.tasks = [self._task(n) for n in range(self.n_tasks)]
        self.n_submitted, self.now_s = 0, 0.0
        self.futures: dict[int, Future[Any]] = {}
        feed = Feed(self.scheduler.snapshot, self._note)
        self.scheduler.observe(_Marks(feed.mark))
        run = self.scheduler.start(display=False)
        self._submit(self.n_queued)
        await turn_until(lambda: self.backend.calls)
        feed.hello()
        feed.step(0.0, self.clock())
        for n in range(1, round(seconds / self.tick_s) + 1):
            await self._tick()
            self.now_s = round(n * self.tick_s, 3)
            if self.now_s == self.joined_at_s:
                done = self.scheduler.calls("done", limit=10_000)
                self.ended = [call_record(call) for call in done]
            feed.step(self.now_s, self.clock())
        self.scheduler.stop(wait=False)
        for call in self.backend.calls:
            self.backend.cancel(call)
        await run.over()
        return self.sent

    def _task(self, n: int) -> Task[..., Any]:
        task = self.scheduler.task(evaluate, plugins=Limiter(max_calls=10_000_000))
        task.on_result(lambda _, result: None)
        return task

    def _note(self, message: dict[str, Any]) -> None:
        self.sent.append(Sent(self.now_s, message))

    def _submit(self, n_calls: int) -> None:
        for n in range(self.n_submitted, self.n_submitted + n_calls):
            task = self.tasks[n % self.n_tasks]
            future = task.submit(f"candidate {n}", C=n / 7, gamma=0.001)
            assert future is not None
            self.futures[future.call.id] = future
        self.n_submitted += n_calls

    async def _tick(self) -> None:
        n_left = n_calls = round(self.calls_per_s * self.tick_s)
        while n_left:
            calls = self.backend.calls[:n_left]
            self.clock.advance(self.tick_s * len(calls) / n_calls)
            for call in calls:
                self._end(call)
            await asyncio.wait([self.futures.pop(call.id) for call in calls])
            n_left -= len(calls)
            await turn_until(lambda: self.backend.calls)
        for n in range(round(self.log_lines_per_s * self.tick_s)):
            self.scheduler.log(
                "on_result · keep", "print", f"best so far: 0.97{n} by candidate {n}"
            )
        self._submit(n_calls)
        await asyncio.sleep(0)

    def _end(self, call: Call) -> None:
        seconds = self.n_workers / self.calls_per_s
        measured = {"seconds": seconds, "started_at": self.clock() - seconds}
        if call.id % FAIL_EVERY:
            self.backend.finish(call, {"score": call.id / 1e6}, **measured)
        else:
            self.backend.fail(call, ValueError(f"no candidate can have {call.id}"), **measured)


class _Marks:
    def __init__(self, mark: Callable[[], bool]) -> None:
        self.changed = mark


def joined_late(sent: list[Sent], at_s: float) -> tuple[dict[str, Any], list[Sent]]:
    """Return what a page is sent that comes later than the flood: everything, and the news."""
    model = sent[0].message["model"]
    earlier = [each for each in sent if each.at_s <= at_s]
    for each in earlier[1:]:
        model = apply(each.message["patch"], model)
    moment = {key: earlier[-1].message[key] for key in ("version", "at")}
    return {**sent[0].message, **moment, "model": model}, sent[len(earlier) :]
