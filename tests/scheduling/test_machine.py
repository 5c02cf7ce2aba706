"""Random orders of everything one may do, against a model so simple that it is surely right.

`AMLTK_NB_EXAMPLES=2000` looks longer than the ordinary run does.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from amltk_nb import ExitCode, Future, Scheduler, SchedulerNotRunningError
from amltk_nb.testing import EventRecorder, ManualBackend
from tests.scheduling.conftest import settled

N_WORKERS = 2
N_EXAMPLES = int(os.environ.get("AMLTK_NB_EXAMPLES", "100"))
PICK = st.integers(0, 1_000)

BEGIN = ["on_future_submitted", "Task-work-1.on_submitted"]
ENDS = {
    "done": [
        "on_future_done",
        "on_future_result",
        "Task-work-1.on_done",
        "Task-work-1.on_result",
        "Task-work-1.on_f_returned",
    ],
    "failed": [
        "on_future_done",
        "on_future_exception",
        "Task-work-1.on_done",
        "Task-work-1.on_exception",
        "Task-work-1.on_f_exception",
    ],
    "cancelled": ["on_future_cancelled", "Task-work-1.on_cancelled", "Task-work-1.on_f_cancelled"],
}


def work(what: str) -> str:
    return what


class Model:
    """A queue, two workers, and what is on its way to the loop."""

    def __init__(self) -> None:
        self.state: dict[int, str] = {}  # as anybody can read it
        self.queue: deque[int] = deque()
        self.running: list[int] = []
        self.ending: list[int] = []  # cancelled while running; their workers are not free yet
        self.coming: list[tuple[int, str, bool]] = []  # (call, its end, whether another follows)
        self.paused = self.stopped = False

    def submit(self) -> int:
        id = len(self.state) + 1
        self.state[id] = "queued"
        self.queue.append(id)
        self.pump()
        return id

    def pump(self) -> None:
        while self.queue and not self.paused and len(self.running + self.ending) < N_WORKERS:
            id = self.queue.popleft()
            self.running.append(id)
            self.state[id] = "running"

    def ends(self, id: int, how: str, *, follows: bool = False) -> None:
        self.running.remove(id)
        self.coming.append((id, how, follows))

    def cancel_running(self, id: int) -> None:
        self.running.remove(id)
        self.ending.append(id)

    def cancel_queued(self, id: int) -> None:
        self.queue.remove(id)
        self.state[id] = "cancelled"

    def stop(self, *, wait: bool) -> None:
        self.stopped = True
        for id in list(self.queue):
            self.cancel_queued(id)
        for id in [] if wait else list(self.running):
            self.cancel_running(id)

    def turn(self) -> None:
        coming, self.coming = self.coming, []
        coming += [(id, "cancelled", False) for id in self.ending]
        self.ending.clear()
        for id, how, follows in coming:
            self.state[id] = how
            if follows and not self.stopped:
                self.submit()
        self.pump()


class ManualMachine(RuleBasedStateMachine):
    """The engine over a manual backend; the loop turns only when a rule says so."""

    n_steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.backend = ManualBackend(N_WORKERS)
        self.scheduler = Scheduler(self.backend)
        self.task = self.scheduler.task(work)
        self.recorder = EventRecorder(self.scheduler)
        self.scheduler.on_future_result(self._react)
        self.futures: dict[int, Future[Any]] = {}
        self.task.on_submitted(self._note)
        self.model = Model()
        self.announced: set[int] = set()  # calls whose end was told
        self.task.on_cancelled(lambda future: self.announced.add(future.call.id))
        self.n_errors = 0
        self._start()

    def _note(self, future: Future[Any]) -> None:
        self.futures[future.call.id] = future

    def _react(self, result: str) -> None:
        if result == "follow":
            self.task("followed")
        if result == "boom":
            raise ValueError("boom")

    def _do(self, main: Any) -> Any:
        return self.loop.run_until_complete(main)

    def _start(self) -> None:
        async def start() -> None:
            self.run = self.scheduler.start()

        self._do(start())
        self.model.paused = self.model.stopped = False

    def _pick(self, n: int, ids: list[int] | deque[int]) -> int:
        return list(ids)[n % len(ids)]

    # ------------------------------------------------------------ rules

    @rule()
    def submit(self) -> None:
        if self.model.stopped:
            try:
                self.task.submit("refused")
            except SchedulerNotRunningError:
                return
            raise AssertionError("a stopped run took a call")
        future = self.task.submit("plain")
        assert future.call.id == self.model.submit()

    @precondition(lambda self: self.model.running)
    @rule(n=PICK, value=st.sampled_from(["plain", "follow", "boom"]))
    def finish(self, n: int, value: str) -> None:
        id = self._pick(n, self.model.running)
        self.backend.finish(self.futures[id], value)
        self.model.ends(id, "done", follows=value == "follow")
        self.model.pump()
        self.n_errors += value == "boom"

    @precondition(lambda self: self.model.running)
    @rule(n=PICK)
    def fail(self, n: int) -> None:
        id = self._pick(n, self.model.running)
        self.backend.fail(self.futures[id], ValueError(id))
        self.model.ends(id, "failed")
        self.model.pump()

    @precondition(lambda self: self.model.running)
    @rule(n=PICK)
    def give_back(self, n: int) -> None:
        id = self._pick(n, self.model.running)
        self.backend.give_back(self.futures[id])
        if self.model.stopped:
            self.model.ends(id, "cancelled")
            return
        self.model.running.remove(id)
        self.model.queue.appendleft(id)
        self.model.state[id] = "queued"
        self.model.pump()

    @precondition(lambda self: self.model.state)
    @rule(n=PICK)
    def cancel(self, n: int) -> None:
        id = self._pick(n, list(self.model.state))
        expected = id in (*self.model.queue, *self.model.running, *self.model.ending)
        # What has been cancelled and not announced is told the same again.
        is_coming = (id, "cancelled", False) in self.model.coming  # given back to a stopped run
        was_cancelled = is_coming or self.model.state[id] == "cancelled"
        answer = self.scheduler.cancel(self.futures[id])
        assert answer is expected or (was_cancelled and answer is True)
        if id in self.model.queue:
            self.model.cancel_queued(id)
            assert self.futures[id].cancelled()
        elif id in self.model.running:
            self.model.cancel_running(id)

    @precondition(lambda self: self.model.state and not self.model.stopped)
    @rule(n=PICK)
    def resubmit(self, n: int) -> None:
        old = self.futures[self._pick(n, list(self.model.state))]
        new = self.scheduler.resubmit(old)
        assert new.call.id == self.model.submit()
        assert (new.call.resubmitted_from, new.call.attempt) == (old.call.id, old.call.attempt + 1)

    @precondition(lambda self: not self.model.stopped)
    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        (self.scheduler.pause if paused else self.scheduler.resume)()
        if self.model.paused != paused:
            self.model.paused = paused
            self.model.pump()

    @rule()
    def turn(self) -> None:
        self._do(settled())
        self.model.turn()

    @rule(wait=st.booleans(), often=st.sampled_from([False, False, False, True]))
    def stop(self, wait: bool, often: bool) -> None:
        if not often and not self.model.stopped and len(self.model.state) < 5:
            return  # most runs shall see more than this
        self.scheduler.stop(wait=wait)
        self.model.stop(wait=wait)

    @precondition(lambda self: self.model.stopped and not self.model.running)
    @rule()
    def run_again(self) -> None:
        self._finish_run()
        self._start()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def states_agree(self) -> None:
        type(self).n_steps += 1
        model = self.model
        assert {id: str(f.call.state) for id, f in self.futures.items()} == model.state
        snapshot = self.scheduler.snapshot()
        expected = Counter(model.state.values())
        assert {str(s): n for s, n in snapshot.counts.items() if n} == dict(expected)
        (task,) = snapshot.tasks
        assert task.counts == snapshot.counts
        assert self.task.n_called == len(model.state)
        # All are shown but those that are on their way out of the queue and not yet in the history.
        n_going = sum(
            s == "cancelled" and id not in self.announced for id, s in model.state.items()
        )
        assert snapshot.n_calls_hidden == n_going
        assert len(snapshot.calls) == len(model.state) - n_going
        if not model.stopped:
            assert snapshot.run.state == ("paused" if model.paused else "running")

    def _finish_run(self) -> None:
        state = self._do(asyncio.wait_for(self.run.over(), 20))
        assert state == ExitCode.STOPPED
        self.model.turn()
        self.states_agree()
        self.every_call_has_its_events_once()

    def every_call_has_its_events_once(self) -> None:
        told: dict[int, list[str]] = {id: [] for id in self.futures}
        for recorded in self.recorder.events:
            if recorded.args and isinstance(recorded.args[0], Future):
                told[recorded.args[0].call.id].append(recorded.name)
        for id, names in told.items():
            assert names == BEGIN + ENDS[self.model.state[id]], (id, names)
            assert self.futures[id].done()
        counts = self.recorder.counts
        n_runs = self.scheduler.n_runs
        for event in ("on_start", "on_stop", "on_finishing", "on_finished"):
            assert counts[event] == n_runs
        assert counts["Task-work-1.on_returned"] == counts["on_future_result"]
        errors = [line for line in self.scheduler.history.log_tail if line.level == "error"]
        assert len(errors) == min(self.n_errors, len(self.scheduler.history.log_tail))
        assert not self.task.running()
        assert self.scheduler.empty()

    def teardown(self) -> None:
        self.scheduler.stop(wait=False)
        self.model.stop(wait=False)
        self._finish_run()
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.close()


def test_any_order_over_a_manual_backend():
    ManualMachine.n_steps = 0
    run_state_machine_as_test(
        ManualMachine, settings=settings(max_examples=N_EXAMPLES, stateful_step_count=50)
    )
    if "AMLTK_NB_EXAMPLES" not in os.environ:
        assert ManualMachine.n_steps >= 2_000


class ThreadMachine(RuleBasedStateMachine):
    """The engine over real threads, where nobody knows what happens first."""

    n_steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.scheduler = Scheduler.with_threads(2)
        self.recorder = EventRecorder(self.scheduler)
        self.futures: list[Future[Any]] = []
        self.scheduler.on_future_submitted(self.futures.append)
        self.scheduler.on_future_result(self._react)
        self.n_accepted = 0

        async def start() -> None:
            self.run = self.scheduler.start()

        self.loop.run_until_complete(start())

    def _react(self, result: Any) -> None:
        if result == "follow" and self.scheduler.running():
            self._submit("followed")

    def _submit(self, what: Any) -> None:
        self.scheduler.submit(_act, what)
        self.n_accepted += 1

    @precondition(lambda self: self.scheduler.running())
    @rule(what=st.sampled_from(["plain", "follow", ValueError]), n=st.integers(1, 20))
    def submit(self, what: Any, n: int) -> None:
        type(self).n_steps += 1
        for _ in range(n):
            self._submit(what)

    @precondition(lambda self: self.futures)
    @rule(n=PICK)
    def cancel(self, n: int) -> None:
        type(self).n_steps += 1
        future = self.futures[n % len(self.futures)]
        if future.cancel():
            assert str(future.call.state) == "cancelled"

    @precondition(lambda self: self.scheduler.running())
    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        type(self).n_steps += 1
        (self.scheduler.pause if paused else self.scheduler.resume)()

    @rule()
    def turn(self) -> None:
        type(self).n_steps += 1
        self.loop.run_until_complete(settled())

    @rule()
    def the_counts_add_up(self) -> None:
        type(self).n_steps += 1
        assert sum(self.scheduler.snapshot().counts.values()) == self.n_accepted

    def teardown(self) -> None:
        if self.scheduler.running():
            self.scheduler.resume()
        self.scheduler.stop()
        self.loop.run_until_complete(asyncio.wait_for(self.run.over(), 20))
        assert len(self.futures) == self.n_accepted
        counts = Counter(str(future.call.state) for future in self.futures)
        assert set(counts) <= {"done", "failed", "cancelled"}
        told = self.recorder.counts
        assert told["on_future_submitted"] == self.n_accepted
        assert told["on_future_result"] == counts["done"]
        assert told["on_future_exception"] == counts["failed"]
        assert told["on_future_cancelled"] == counts["cancelled"]
        assert told["on_future_done"] == counts["done"] + counts["failed"]
        shown = self.scheduler.snapshot().counts
        assert {str(state): n for state, n in shown.items() if n} == dict(counts)
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.close()


def _act(what: Any) -> Any:
    if isinstance(what, type):
        raise what("as asked")
    return what


def test_any_order_over_real_threads():
    ThreadMachine.n_steps = 0
    run_state_machine_as_test(
        ThreadMachine,
        settings=settings(max_examples=max(1, N_EXAMPLES // 3), stateful_step_count=25),
    )
    if "AMLTK_NB_EXAMPLES" not in os.environ:
        assert ThreadMachine.n_steps >= 200
