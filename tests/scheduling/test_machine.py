"""Random orders of everything one may do, against a model so simple that it is surely right.

`AMLTK_NB_EXAMPLES=2000` looks longer than the ordinary run does, and says how many steps it took.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from amltk_nb import ExitCode, Future, Retry, Scheduler, SchedulerNotRunningError
from amltk_nb.errors import WorkerDiedError
from amltk_nb.scheduling import inbox
from amltk_nb.scheduling.call import Call
from amltk_nb.testing import EventRecorder, ManualBackend
from tests.scheduling.conftest import settled
from tests.scheduling.model import Model, ModelCall, Plan, events

EXAMPLES = os.environ.get("AMLTK_NB_EXAMPLES")
N_EXAMPLES = int(EXAMPLES or "280")
MOST_S = N_EXAMPLES if EXAMPLES else 120
N_TURNS = 60  # of the loop: more than any chain of callbacks here needs
WAIT_S = 10.0  # before a retry of the task that waits
PICK = st.integers(0, 1_000)
KINDS = st.sampled_from(["work", "work", "again", "later"])
ACTS = ["submit", "resubmit", "cancel", "cancel all", "pause", "resume", "raise"]
PLANS = st.one_of(
    st.just(Plan()),
    st.builds(Plan, st.just("ended"), st.sampled_from(ACTS), PICK),
    # What resubmits itself whenever it is submitted would go on for ever.
    st.builds(Plan, st.just("submitted"), st.sampled_from([ACTS[0], *ACTS[2:]]), PICK),
    st.builds(Plan, st.sampled_from(["submitted", "ended"]), st.sampled_from(["stop", "stop now"])),
)
RARELY = st.integers(0, 7).map(lambda n: n == 0)


def work(plan: Plan) -> Plan:
    return plan


class HandLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still; what is due later comes when a rule says so."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s


class LateBackend(ManualBackend):
    """One whose batches can be late, as those of processes are when a call takes long."""

    is_late = False

    def reclaim(self) -> list[Call]:
        late = [call for batch in self._batches.values() for call in batch[1:]]
        late = [call for call in late if self.is_late and call not in self._ending]
        for call in late:
            self._taken(call)
        return late

    def even_out(self) -> None:
        assert self._listener is not None
        self.is_late = True
        self._listener.changed()
        self.is_late = False


class ManualMachine(RuleBasedStateMachine):
    """The engine over a manual backend; the loop turns only when a rule says so."""

    n_steps = 0

    @initialize(n_workers=st.integers(1, 3), batches=st.booleans(), journal=st.booleans())
    def begin(self, n_workers: int, batches: bool, journal: bool) -> None:
        type(self).n_steps -= 1  # of the invariant: this is no step
        self.loop = HandLoop()
        self.folder = Path(tempfile.mkdtemp()) if journal else None
        path = self.folder / "run.db" if self.folder else None
        self.backend = LateBackend(n_workers, batches=batches)
        self.scheduler = Scheduler(self.backend, journal=path)
        self.waits = (WAIT_S + n / 1024 for n in count(1))
        self.tasks = {
            "work": self.scheduler.task(work, name="work"),
            "again": self.scheduler.task(work, name="again", plugins=Retry(3, wait=0)),
            "later": self.scheduler.task(
                work, name="later", plugins=Retry(2, wait=lambda _: next(self.waits))
            ),
        }
        self.recorder = EventRecorder(self.scheduler)
        self.told: list[tuple[str, int]] = []
        self.calls: dict[int, Call] = {}
        self.futures: dict[int, Future[Any]] = {}  # by the ids of all attempts
        self._listen()
        max_attempts, waits = {"again": 3, "later": 2}, {"again": 0, "later": WAIT_S}
        self.model = Model(n_workers, batches, max_attempts, waits)
        self._start()

    def _listen(self) -> None:
        scheduler = self.scheduler
        scheduler.on_future_submitted(lambda future: self._told("submitted", future))
        scheduler.on_future_done(lambda future: self._told(str(future.call.state), future))
        scheduler.on_future_cancelled(lambda future: self._told("cancelled", future))
        for kind in ("again", "later"):
            self.tasks[kind].on("retry", lambda future, *_: self._told("retry", future))

    def _told(self, what: str, future: Future[Any]) -> None:
        """Note what was told of a call, and do what its plan says."""
        call = future.call
        self.told.append((what, call.id))
        self.calls[call.id], self.futures[call.id] = call, future
        (plan,) = call.args
        if plan.when == (what if what in ("submitted", "retry") else "ended"):
            self._act(plan, call)

    def _act(self, plan: Plan, call: Call) -> None:
        scheduler = self.scheduler
        if plan.act == "submit":
            self.tasks["work"].submit(Plan())
        elif plan.act == "resubmit":
            scheduler.resubmit(call)
        elif plan.act == "cancel":
            scheduler.cancel(self.calls[1 + plan.n % len(self.calls)])
        elif plan.act == "cancel all":
            scheduler.cancel_pending()
        elif plan.act in ("pause", "resume"):
            (scheduler.pause if plan.act == "pause" else scheduler.resume)()
        elif plan.act in ("stop", "stop now"):
            scheduler.stop(wait=plan.act == "stop")
        elif plan.act == "raise":
            raise ValueError("boom")

    def _do(self, main: Any) -> Any:
        return self.loop.run_until_complete(main)

    def _start(self) -> None:
        async def start() -> None:
            self.run = self.scheduler.start()
            await settled(N_TURNS)

        self._do(start())
        self.model.start()

    def _pick(self, n: int, among: list[ModelCall]) -> tuple[ModelCall, Call]:
        chosen = among[n % len(among)]
        return chosen, self.calls[chosen.id]

    # ------------------------------------------------------------ rules

    @rule(kind=KINDS, plan=PLANS, n=st.sampled_from([1, 1, 2, 16]))
    def submit(self, kind: str, plan: Plan, n: int) -> None:
        for _ in range(n):
            expected = self.model.submit(kind, plan)
            if expected is not None:
                assert self.tasks[kind].submit(plan).call.id == expected.id
                continue
            with pytest.raises(SchedulerNotRunningError):
                self.tasks[kind].submit(plan)

    @precondition(lambda self: self.model.running)
    @rule(n=PICK)
    def finish(self, n: int) -> None:
        expected, call = self._pick(n, self.model.running)
        self.backend.finish(call, "result", seconds=0.0)
        self.model.ends(expected, "done", is_measured=True)

    @precondition(lambda self: self.model.running)
    @rule(n=PICK)
    def fail(self, n: int) -> None:
        expected, call = self._pick(n, self.model.running)
        self.backend.fail(call, ValueError(call.id))
        self.model.ends(expected, "failed")

    @precondition(lambda self: self.model.running)
    @rule(n=PICK)
    def give_back(self, n: int) -> None:
        expected, call = self._pick(n, self.model.running)
        self.backend.give_back(call)
        self.model.give_back([expected])

    @precondition(lambda self: self.model.running)
    @rule(n=PICK)
    def worker_dies(self, n: int) -> None:
        """The call that it ran has failed, what waited behind it never began."""
        victim, call = self._pick(n, self.model.running)
        (worker,) = (worker for worker in self.model.workers if victim in worker)
        behind = [each for each in worker if each not in (victim, *self.model.ending)]
        self.backend.fail(call, WorkerDiedError("killed"))
        self.backend.give_back(*(self.calls[each.id] for each in behind))
        self.model.ends(victim, "failed")
        self.model.give_back(behind)

    @precondition(lambda self: self.model.running)
    @rule(n=PICK)
    def is_cancelled_elsewhere(self, n: int) -> None:
        expected, call = self._pick(n, self.model.running)
        self.backend.cancel(call)
        self.model.ends(expected, "cancelled")

    @precondition(lambda self: not self.model.stopped)
    @rule()
    def batches_are_late(self) -> None:
        self.backend.even_out()
        self.model.even_out()

    @precondition(lambda self: self.model.calls)
    @rule(n=PICK)
    def cancel(self, n: int) -> None:
        expected, call = self._pick(n, list(self.model.calls.values()))
        assert self.scheduler.cancel(call) is self.model.cancel(expected)

    @precondition(lambda self: self.model.calls)
    @rule(n=PICK)
    def resubmit(self, n: int) -> None:
        old, call = self._pick(n, list(self.model.calls.values()))
        expected = self.model.submit(old.kind, old.plan, old)
        if expected is None:
            with pytest.raises(SchedulerNotRunningError):
                self.scheduler.resubmit(call)
            return
        new = self.scheduler.resubmit(call)
        assert new is not None
        assert new.call.id == expected.id

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        pause = self.scheduler.pause if paused else self.scheduler.resume
        if self.model.pause(paused):
            pause()
        else:
            with pytest.raises(SchedulerNotRunningError):
                pause()

    @rule(seconds=st.sampled_from([0.0, 0.0, 0.0, WAIT_S, 2 * WAIT_S]))
    def turn(self, seconds: float) -> None:
        self.loop.now_s += seconds
        self._do(settled(N_TURNS))
        self.model.turn(seconds)

    @rule(wait=st.booleans(), rarely=RARELY)
    def stop(self, wait: bool, rarely: bool) -> None:
        if rarely or self.model.stopped:  # most runs shall see more than this
            self.scheduler.stop(wait=wait)
            self.model.stop(wait=wait)

    @rule(rarely=RARELY)
    def vanish(self, rarely: bool) -> None:
        """Its process ends, or the cell that started it is run again."""
        if rarely or self.model.stopped:
            self.run.end_now(ExitCode.STOPPED, "its cell was run again")
            self.model.end_now()

    @precondition(lambda self: self.model.stopped and not self.model.running)
    @rule()
    def run_again(self) -> None:
        self._finish_run()
        self._start()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def all_agrees(self) -> None:
        type(self).n_steps += 1
        model, scheduler = self.model, self.scheduler
        assert self.told == model.told
        assert self.backend.started == model.started
        assert {id: str(call.state) for id, call in self.calls.items()} == {
            id: call.state for id, call in model.calls.items()
        }
        assert [future.call.id for future in scheduler.queue] == [c.id for c in model.active]
        traffic = self.run.traffic
        assert [call.id for call in traffic.dispatch.upcoming(1_000)] == model.upcoming
        assert traffic.dispatch.n_queued == len(model.upcoming)
        self.futures_agree()
        self.snapshot_agrees()

    def futures_agree(self) -> None:
        for id, future in self.futures.items():
            call = self.model.calls[future.call.id]
            if future.call.id != id:  # it was tried again
                continue
            was_taken_back = call.state == "cancelled" and call not in self.model.taken_back
            assert future.done() is (call.is_settled or was_taken_back)
            assert future.cancelled() is (future.done() and call.state == "cancelled")

    def snapshot_agrees(self) -> None:
        model, snapshot = self.model, self.scheduler.snapshot(max_calls=10_000)
        assert {str(s): n for s, n in snapshot.counts.items() if n} == dict(model.counts)
        assert sum((Counter(task.counts) for task in snapshot.tasks), Counter()) == {
            state: n for state, n in snapshot.counts.items() if n
        }
        n_called = Counter(call.kind for call in model.calls.values())
        assert {kind: task.n_called for kind, task in self.tasks.items()} == {
            kind: n_called[kind] for kind in self.tasks
        }
        # All are shown but those that are on their way out of the queue, not in the history yet.
        n_going = sum(c.state == "cancelled" for c in model.active)
        assert snapshot.n_calls_hidden == n_going
        assert len(snapshot.calls) == len(model.calls) - n_going
        if not model.stopped:
            assert snapshot.run.state == ("paused" if model.paused else "running")
        else:
            assert snapshot.run.state in ("stopping", "finished")

    # ------------------------------------------------------------ the end of a run

    def _finish_run(self) -> None:
        assert self._do(self.run.over()) == ExitCode.STOPPED
        self.model.turn()
        self.model.is_over = True
        self.all_agrees()
        type(self).n_steps -= 1  # it was not a rule that asked
        assert self.model.active == []
        assert self.scheduler.empty()
        assert not any(task.running() for task in self.tasks.values())
        assert [timer for timer in self.loop._scheduled if not timer.cancelled()] == []
        self.every_call_has_its_events_once()
        self.every_run_has_its_events_once()
        if self.scheduler.journal is not None:
            self.the_journal_agrees()

    def every_call_has_its_events_once(self) -> None:
        told: dict[Future[Any], list[str]] = {future: [] for future in self.futures.values()}
        for recorded in self.recorder.events:
            if recorded.args and isinstance(recorded.args[0], Future):
                told[recorded.args[0]].append(recorded.name)
        for future, names in told.items():
            last = self.model.calls[future.call.id]
            assert names == events(last.kind, last.state, n_retries=last.n_failed), last

    def every_run_has_its_events_once(self) -> None:
        counts = self.recorder.counts
        for event in ("on_start", "on_stop", "on_finishing", "on_finished"):
            assert counts[event] == self.scheduler.n_runs
        ours = [n for n in self.recorder.names if n in ("on_start", "on_stop", "on_finished")]
        assert ours == ["on_start", "on_stop", "on_finished"] * self.scheduler.n_runs
        assert counts["on_empty"] == self.model.n_empty
        for kind in self.tasks:
            results = [c for c in self.model.calls.values() if (c.kind, c.state) == (kind, "done")]
            assert counts[f"Task-{kind}-1.on_returned"] == len(results)
        errors = [line for line in self.scheduler.history.log_tail if line.level == "error"]
        assert len(errors) == min(self.model.n_errors, len(self.scheduler.history.log_tail))

    def the_journal_agrees(self) -> None:
        journal = self.scheduler.journal
        assert journal is not None
        assert journal.n_unwritten == 0
        told = [
            (record["id"], record["state"], record["attempt"], record["resubmitted_from"])
            for record in journal.records()
        ]
        assert told == [
            (call.id, call.recorded, call.attempt, call.origin)
            for call in self.model.calls.values()
        ]

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        self.scheduler.stop(wait=False)
        self.model.stop(wait=False)
        self._finish_run()
        assert asyncio.all_tasks(self.loop) == set()
        self.loop.close()
        if self.scheduler.journal is not None:
            self.scheduler.journal.close()
            shutil.rmtree(str(self.folder))


@contextmanager
def counted_steps(machine: Any, *, least: int) -> Iterator[None]:
    """See that a run takes enough steps; one that was asked for says how many."""
    machine.n_steps = 0
    yield
    print(f"{machine.__name__}: {machine.n_steps} steps")
    assert EXAMPLES or machine.n_steps >= least


@pytest.mark.timeout(MOST_S)
def test_any_order_over_a_manual_backend(monkeypatch: pytest.MonkeyPatch):
    # A slow machine would have the loop turn between two calls, and the model know nothing of it.
    monkeypatch.setattr(inbox, "_SLICE_S", 3_600)
    with counted_steps(ManualMachine, least=10_000):
        run_state_machine_as_test(
            ManualMachine, settings=settings(max_examples=N_EXAMPLES, stateful_step_count=50)
        )


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


@pytest.mark.timeout(MOST_S)
def test_any_order_over_real_threads():
    with counted_steps(ThreadMachine, least=200):
        run_state_machine_as_test(
            ThreadMachine,
            settings=settings(max_examples=max(1, N_EXAMPLES // 8), stateful_step_count=25),
        )
