"""A scheduler as simple as it can be told: no threads, no futures, no loop; lists and a few rules.

It knows of the loop only in which order it gets to things, as `ready`: "drain" (the inbox is
looked through), "finish" (a run that was asked to end ends), or a call that is being ended.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["MOST_IN_BATCH", "Model", "ModelCall", "Plan", "events"]

MOST_IN_BATCH = 250

BEGIN = ["on_future_submitted", "Task-{}-1.on_submitted"]
RETRY = ["Task-{}-1.on_retry"]
ENDS = {
    "done": [
        "on_future_done",
        "on_future_result",
        "Task-{}-1.on_done",
        "Task-{}-1.on_result",
        "Task-{}-1.on_f_returned",
    ],
    "failed": [
        "on_future_done",
        "on_future_exception",
        "Task-{}-1.on_done",
        "Task-{}-1.on_exception",
        "Task-{}-1.on_f_exception",
    ],
    "cancelled": ["on_future_cancelled", "Task-{}-1.on_cancelled", "Task-{}-1.on_f_cancelled"],
}


def events(task: str, end: str, *, n_retries: int) -> list[str]:
    """Name the events that are about one future, in their order."""
    return [event.format(task) for event in BEGIN + RETRY * n_retries + ENDS[end]]


class Plan(NamedTuple):
    """What a callback does when it is told of a call."""

    when: str = "never"  # or "submitted", "ended"
    act: str = "nothing"
    n: int = 0  # which other call, for "cancel"


@dataclass(eq=False)
class ModelCall:
    """One call, or one attempt of it."""

    id: int
    kind: str  # which task's
    plan: Plan
    attempt: int = 1
    origin: int | None = None
    n_failed: int = 0  # attempts before it that it is the retry of
    state: str = "queued"
    is_settled: bool = False  # its end was told, or it is tried again
    is_asked: bool = False  # somebody here had it end
    is_too_late: bool = False  # asked when its end was on its way
    is_for_good: bool = False  # asked before its process ended
    end: str = ""  # what comes in the inbox
    recorded: str = "unfinished"


@dataclass
class Model:
    """What is to be seen of a scheduler at any moment."""

    n_workers: int
    batches: bool
    max_attempts: dict[str, int]
    waits: dict[str, float]  # seconds before a retry; 0: at once
    now: float = 0.0
    calls: dict[int, ModelCall] = field(default_factory=dict)
    told: list[tuple[str, int]] = field(default_factory=list)
    started: list[list[int]] = field(default_factory=list)
    n_errors: int = 0
    n_empty: int = 0
    n_waits: int = 0
    is_over: bool = True

    # ------------------------------------------------------------ one run

    def start(self) -> None:
        self.queue: deque[ModelCall] = deque()
        self.held: list[tuple[float, ModelCall]] = []
        self.workers: list[list[ModelCall]] = []  # what each busy one has
        self.ending: list[ModelCall] = []  # their workers are not free yet
        self.inbox: deque[ModelCall] = deque()
        self.taken_back: list[ModelCall] = []
        self.ready: list[str | ModelCall] = []
        self.known: set[str] = set()  # kinds whose calls were seen to be short
        self.is_awake = self.paused = self.stopped = False
        self.is_finish_due = self.finishing = False
        self.is_abandoned = self.was_any_ended = self.is_over = False
        self.n_accepted = 0
        self.n_at_empty = -1
        self.wake()
        self.turn()

    @property
    def running(self) -> list[ModelCall]:
        """What a backend could end or see ended."""
        return [c for worker in self.workers for c in worker if c not in self.ending]

    @property
    def active(self) -> list[ModelCall]:
        return [call for call in self.calls.values() if not call.is_settled]

    # ------------------------------------------------------------ in

    def submit(self, kind: str, plan: Plan, origin: ModelCall | None = None) -> ModelCall | None:
        """Take a call; None: the run takes none."""
        if self.stopped:
            return None
        call = ModelCall(len(self.calls) + 1, kind, plan)
        if origin is not None:
            call.origin, call.attempt = origin.id, origin.attempt + 1
        self._enter(call)
        self.queue.append(call)
        self.hand_over()
        self.told.append(("submitted", call.id))
        self._react(call, "submitted")
        return call

    def _enter(self, call: ModelCall) -> None:
        self.calls[call.id] = call
        self.n_accepted += 1

    def hand_over(self) -> None:
        while self.queue and not self.paused and len(self.workers) < self.n_workers:
            batch = self._next_batch()
            for call in batch:
                call.state = "running"
            self.workers.append(batch)
            self.started.append([call.id for call in batch])

    def _next_batch(self) -> list[ModelCall]:
        """One, or as many as are a fair share and short; of one kind at most is that not known."""
        share = (len(self.queue) - 1) // (2 * self.n_workers) if self.batches else 1
        batch: list[ModelCall] = []
        while len(batch) < max(1, min(MOST_IN_BATCH, share)):
            unknown = [c for c in (*batch, self.queue[0]) if c.kind not in self.known]
            if batch and len(unknown) > 1:
                break
            batch.append(self.queue.popleft())
        return batch

    def requeue(self, calls: list[ModelCall]) -> None:
        for call in calls:
            call.state = "queued"
            self._free(call)
        self.queue.extendleft(reversed(calls))

    def _free(self, call: ModelCall) -> None:
        for worker in self.workers:
            if call in worker:
                worker.remove(call)
        self.workers = [worker for worker in self.workers if worker]

    # ------------------------------------------------------------ what workers do

    def ends(self, call: ModelCall, how: str, *, is_measured: bool = False) -> None:
        self._free(call)
        call.end = how
        # What plugins have a say in is recorded when they have said it.
        if call.kind not in self.max_attempts:
            self._record(call, how)
        self.inbox.append(call)
        if is_measured:
            self.known.add(call.kind)
        if not self.stopped:
            self.hand_over()
        self.rouse()

    def _record(self, call: ModelCall, how: str) -> None:
        """Write into the journal how a call ended, once; not what ends with its process only."""
        is_for_good = how != "cancelled" or not self.is_abandoned or call.is_for_good
        if is_for_good and call.recorded == "unfinished":
            call.recorded = how

    def give_back(self, calls: list[ModelCall]) -> None:
        if not self.stopped:
            self.requeue(calls)
            self.hand_over()
            return
        for call in calls:
            self._free(call)
            call.is_asked, call.end = True, "cancelled"
        self.inbox.extend(calls)
        self.rouse()

    def even_out(self) -> None:
        """What waits behind the first of a batch goes to free workers."""
        self.hand_over()
        has_room = len(self.workers) < self.n_workers
        if self.batches and has_room and not (self.queue or self.paused or self.stopped):
            late = [c for worker in self.workers for c in worker[1:] if c not in self.ending]
            self.requeue(late)
            self.hand_over()

    # ------------------------------------------------------------ taken back

    def cancel(self, call: ModelCall) -> bool:
        if call.is_settled:
            return False
        return self.cancel_queued(call) or call.state == "cancelled" or self._end(call)

    def cancel_queued(self, call: ModelCall) -> bool:
        if call.state != "queued":
            return False
        self._take_back(call)
        call.is_asked = True
        self.inbox.append(call)
        self.rouse()
        return True

    def _take_back(self, call: ModelCall) -> None:
        call.state = call.end = "cancelled"
        self._record(call, "cancelled")
        if call in self.queue:
            self.queue.remove(call)
        self.held = [(due, other) for due, other in self.held if other is not call]

    def _end(self, call: ModelCall) -> bool:
        if call in self.running:
            self.ending.append(call)
            self.ready.append(call)
            call.is_asked = True
        elif not call.is_asked:
            call.is_too_late = True
        return call.is_asked

    def cancel_pending(self) -> None:
        for call in self.active:
            self.cancel_queued(call)

    def pause(self, paused: bool) -> bool:
        if self.stopped:
            return False
        if self.paused != paused:
            self.paused = paused
            self.hand_over()
        return True

    def stop(self, *, wait: bool) -> None:
        if self.is_over:
            return
        if not self.stopped:
            self.stopped = True
            self.taken_back = [*self.queue, *(call for _, call in self.held)]
            for call in self.taken_back:
                self._take_back(call)
            self.was_any_ended = bool(self.taken_back)
        if not wait:
            ended = [self._end(call) for call in self.active if call.state == "running"]
            self.was_any_ended |= any(ended)
        self.wake()

    def end_now(self) -> None:
        """End it as the end of the process does: what is under way has no recorded end."""
        if self.is_over:
            return
        for call in self.active:
            call.is_for_good = call.is_asked or call.state == "cancelled"
        self.is_abandoned = True
        self.stop(wait=False)
        self._announce_end()
        for call in [call for worker in self.workers for call in worker]:
            self.ends(call, "cancelled")
        self.ending.clear()
        while self.inbox:
            self._settle(self.inbox.popleft())
        for call in self.active:
            call.is_asked, call.end = True, "cancelled"
            self._settle(call)
        self.is_over = True

    # ------------------------------------------------------------ the loop

    def wake(self) -> None:
        self.is_awake = True
        self.ready.append("drain")

    def rouse(self) -> None:
        if not self.is_awake:
            self.wake()

    def turn(self, seconds: float = 0.0) -> None:
        """Let the loop come to rest, after some time."""
        self.now += seconds
        while self.ready or any(due <= self.now for due, _ in self.held):
            ready, self.ready = self.ready, []
            for each in ready:
                if each == "drain":
                    self._drain()
                elif each == "finish":
                    self._finish()
                elif isinstance(each, ModelCall) and each in self.ending:
                    self.ending.remove(each)
                    self.ends(each, "cancelled")
            self._let_in()

    def _let_in(self) -> None:
        due = sorted((at, call.id, call) for at, call in self.held if at <= self.now)
        self.held = [(at, call) for at, call in self.held if at > self.now]
        for _, _, call in due:
            self.queue.append(call)
            self.hand_over()

    def _drain(self) -> None:
        while self.inbox:
            self._settle(self.inbox.popleft())
        self.is_awake = False
        if self.stopped:
            if not self.is_finish_due:
                self.is_finish_due = True
                self.ready.append("finish")
        elif not self.active:
            self._tell_empty()

    def _tell_empty(self) -> None:
        if self.n_at_empty != self.n_accepted:
            self.n_at_empty = self.n_accepted
            self.n_empty += 1

    def _finish(self) -> None:
        if self.is_over:
            return
        self._announce_end()
        self.inbox.extend(self.taken_back)
        self.rouse()

    def _announce_end(self) -> None:
        if not self.finishing and not self.active and not self.was_any_ended:
            self._tell_empty()
        self.finishing = True

    # ------------------------------------------------------------ out

    def _settle(self, call: ModelCall) -> None:
        if call.is_settled:
            return
        call.is_settled = True
        has_run = call.state == "running"
        was_asked = call.is_asked or call.state == "cancelled" or call.is_too_late
        if call.state != "cancelled":
            call.state = call.end
        self._record(call, call.state)
        if has_run and call.state == "failed" and not was_asked and self._again(call):
            return
        self.told.append((call.state, call.id))
        self._react(call, "ended")

    def _again(self, call: ModelCall) -> bool:
        most = self.max_attempts.get(call.kind, 1)
        if self.stopped or call.n_failed + 1 >= most:
            return False
        again = ModelCall(len(self.calls) + 1, call.kind, call.plan, call.attempt + 1, call.id)
        again.n_failed = call.n_failed + 1
        self._enter(again)
        wait_s = self.waits[call.kind]
        if wait_s:
            self.n_waits += 1
            self.held.append((self.now + wait_s + self.n_waits / 1024, again))
        else:
            self.queue.append(again)
            self.hand_over()
        self.told.append(("retry", again.id))
        return True

    def _react(self, call: ModelCall, when: str) -> None:
        """Do what a callback does that is told of a call."""
        plan = call.plan
        if plan.when != when:
            return
        if plan.act == "submit":
            self.submit("work", Plan())
        elif plan.act == "resubmit":
            self.submit(call.kind, plan, call)
        elif plan.act == "cancel":
            self.cancel(self.calls[1 + plan.n % len(self.calls)])
        elif plan.act == "cancel all":
            self.cancel_pending()
        elif plan.act in ("pause", "resume"):
            self.pause(plan.act == "pause")
        elif plan.act in ("stop", "stop now"):
            self.stop(wait=plan.act == "stop")
        elif plan.act == "raise":
            self.n_errors += 1

    # ------------------------------------------------------------ as it is shown

    @property
    def counts(self) -> Counter[str]:
        return Counter(call.state for call in self.calls.values())

    @property
    def upcoming(self) -> list[int]:
        """The ids of what waits, in the order in which it will start."""
        held = sorted((due, call.id) for due, call in self.held)
        return [call.id for call in self.queue] + [id for _, id in held]
