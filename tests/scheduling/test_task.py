"""Tasks: their verbs, their events by every name, subclasses, and the chain of their plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amltk_nb import Event, Plugin, Scheduler, Task
from amltk_nb.errors import EventNotKnownError, PluginError
from amltk_nb.scheduling.call import Call
from amltk_nb.testing import ManualBackend
from tests.scheduling.conftest import ByHand, settled


def double(x: int) -> int:
    return 2 * x


def triple(x: int) -> int:
    return 3 * x


# ------------------------------------------------------------ verbs


def test_refs_count_per_name_and_scheduler():
    scheduler = Scheduler(ManualBackend())
    refs = [scheduler.task(fn).ref for fn in (double, triple, double)]
    assert refs == ["Task-double-1", "Task-triple-1", "Task-double-2"]
    assert Scheduler(ManualBackend()).task(double).ref == "Task-double-1"
    assert scheduler.task(double, name="mine").ref == "Task-mine-1"
    assert scheduler.task(lambda: 1).ref == "Task-<lambda>-1"


def test_a_task_is_made_by_hand_or_as_a_decorator():
    scheduler = Scheduler(ManualBackend())

    @scheduler.task
    def third(x: int) -> int:
        return x

    by_hand = Task(double, scheduler)
    assert isinstance(third, Task)
    assert scheduler.tasks == [third, by_hand]
    assert (third.signature, by_hand.function) == ("third(x: int) -> int", double)


def test_a_task_of_nothing_is_refused():
    scheduler = Scheduler(ManualBackend())
    with pytest.raises(TypeError, match="pass the function itself, without calling it"):
        scheduler.task(double(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pass the Scheduler that shall run it"):
        Task(double, None)  # type: ignore[arg-type]
    assert scheduler.tasks == []


async def test_what_a_task_knows_of_its_calls(by_hand: ByHand):
    task, other = by_hand.scheduler.task(double), by_hand.scheduler.task(triple)
    by_hand.start()
    futures = task.map([1, 2, 3])
    other.submit(1)
    assert task.futures() == task.queue == futures
    assert (task.n_running, task.running(), task.n_called) == (3, True, 3)
    assert task.cancel() == 1  # the third one waits, and the other task's is left alone
    by_hand.backend.finish(futures[0])
    by_hand.backend.fail(futures[1], ValueError())
    await settled()
    assert (task.futures(), task.running(), task.n_called) == ([], False, 3)
    assert {str(k): n for k, n in task.counts.items()} == {"done": 1, "failed": 1, "cancelled": 1}
    assert other.running()


async def test_a_redefinition_is_what_is_resubmitted(by_hand: ByHand):
    task = by_hand.scheduler.task(double)
    by_hand.start()
    future = task.submit(1)
    by_hand.backend.fail(future, ValueError())
    await settled()
    task._function = triple  # as after editing its cell
    again = task.resubmit(future)
    assert (again.call.fn, again.call.args) == (triple, (1,))


async def test_run_here_repeats_a_call_for_a_debugger(by_hand: ByHand):
    task = by_hand.scheduler.task(double)
    by_hand.start()
    future = task.submit(21)
    assert future.call.run_here() == 42
    assert task.n_called == 1


# ------------------------------------------------------------ events


@pytest.mark.parametrize(
    "name", ["on_result", "on-result", "result", Task.RESULT, Event("on_result")]
)
async def test_an_event_has_many_names(by_hand: ByHand, name: Any):
    task = by_hand.scheduler.task(double)
    results: list[int] = []
    task.on(name, lambda result: results.append(result))
    by_hand.start()
    by_hand.backend.finish(task.submit(1), 2)
    await settled()
    assert results == [2]
    assert task.event_counts[name] == 1


def test_an_unknown_event_lists_the_known_ones():
    scheduler = Scheduler(ManualBackend())
    task = scheduler.task(double)
    with pytest.raises(EventNotKnownError, match=r"Did you mean .*on_returned"):
        task.on("on_retuned")
    with pytest.raises(EventNotKnownError, match="on_future_result"):
        scheduler.on("on_futur_result")
    with pytest.raises(EventNotKnownError):
        scheduler.emit("on_strat")
    assert "on_strat" not in scheduler.event_counts


async def test_a_subclass_has_events_of_its_own(by_hand: ByHand):
    class Seeded(Task[[int], int]):
        LONGEST: Event[int] = Event("longest")

        def __init__(self, scheduler: Scheduler) -> None:
            super().__init__(double, scheduler)
            self.on_longest = self.subscriber(self.LONGEST)
            self.longest = 0
            self.on_returned(self._look)

        def _look(self, result: int) -> None:
            if result > self.longest:
                self.longest = result
                self.on_longest.emit(result)

    said: list[str] = []
    task = Seeded(by_hand.scheduler)
    task.on_returned(lambda result: said.append(f"result {result}"))
    task.on_longest(lambda result: said.append(f"longest {result}"))
    by_hand.start()
    for value in (2, 1, 3):
        by_hand.backend.finish(task.submit(value), value)
        await settled()
    assert said == ["longest 2", "result 2", "result 1", "longest 3", "result 3"]
    assert task.event_counts["longest"] == 2


async def test_callbacks_of_one_outcome_run_in_order_of_registration(by_hand: ByHand):
    task, said = by_hand.scheduler.task(double), []
    task.on_f_returned(lambda: said.append("f_returned"))
    task.on_result(lambda: said.append("result"))
    task.on_returned(lambda: said.append("returned"))
    by_hand.scheduler.on_future_result(lambda: said.append("scheduler"))
    task.on_done(lambda: said.append("done"))
    by_hand.start()
    by_hand.backend.finish(task.submit(1), 2)
    await settled()
    assert said == ["scheduler", "done", "f_returned", "result", "returned"]


async def test_a_task_made_during_a_run_belongs_to_it(by_hand: ByHand):
    run = by_hand.start(on_exception="end")
    task = by_hand.scheduler.task(double)

    @task.on_returned
    def broken() -> None:
        raise ValueError("late")

    by_hand.backend.finish(task.submit(1), 2)
    state = await run
    assert str(state.exception) == "late"


# ------------------------------------------------------------ plugins


class Tracing(Plugin):
    """Notes what is asked of it; may refuse, fail, or change the submission."""

    name = "tracing"

    def __init__(self, log: list[str], who: str, how: str = "pass") -> None:
        self.log, self.who, self.how = log, who, how

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.log.append(f"{self.who} asked {args}")
        if self.how == "raise":
            raise RuntimeError("out of order")
        answers = {"refuse": None, "nonsense": 3, "change": (triple, (args[0] + 1,), kwargs)}
        return answers.get(self.how, (fn, args, kwargs))

    def release(self, call: Call | None) -> None:
        self.log.append(f"{self.who} released {call.state if call else None}")
        if self.how == "raise at release":
            raise RuntimeError("stuck")


def chained(scheduler: Scheduler, *how: str) -> tuple[Task[..., Any], list[str]]:
    log: list[str] = []
    return scheduler.task(
        double, plugins=[Tracing(log, "abc"[n], h) for n, h in enumerate(how)]
    ), log


async def test_plugins_are_asked_in_order_and_released_in_reverse(by_hand: ByHand):
    task, log = chained(by_hand.scheduler, "pass", "change", "pass")
    by_hand.start()
    future = task.submit(1)
    assert log == ["a asked (1,)", "b asked (1,)", "c asked (2,)"]
    assert future.call.work == (triple, (2,), {})
    assert (future.call.fn, future.call.args) == (double, (1,))  # as its user gave it
    log.clear()
    by_hand.backend.finish(future)
    await settled()
    assert log == ["c released done", "b released done", "a released done"]


@pytest.mark.parametrize(("how", "state"), [("fail", "failed"), ("cancel", "cancelled")])
async def test_plugins_are_released_however_a_call_ends(by_hand: ByHand, how: str, state: str):
    task, log = chained(by_hand.scheduler, "pass")
    by_hand.start()
    future = task.submit(1)
    if how == "fail":
        by_hand.backend.fail(future, ValueError())
    else:
        future.cancel()
    await settled()
    assert log == ["a asked (1,)", f"a released {state}"]


async def test_a_refusal_unwinds_those_before_it(by_hand: ByHand):
    task, log = chained(by_hand.scheduler, "pass", "pass", "refuse")
    by_hand.start()
    assert task.submit(1) is None
    assert log[3:] == ["b released None", "a released None"]
    assert task.map([2, 3]) == []
    assert (task.n_called, by_hand.scheduler.empty()) == (0, True)
    assert by_hand.recorder.counts["on_future_submitted"] == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [("raise", "RuntimeError: out of order"), ("nonsense", "returned 3; return")],
)
async def test_a_failing_plugin_unwinds_and_says_what_to_mend(
    by_hand: ByHand, how: str, message: str
):
    task, log = chained(by_hand.scheduler, "pass", how)
    by_hand.start()
    with pytest.raises(PluginError, match=message) as caught:
        task.submit(1)
    assert "'tracing' failed before the submission of 'double'" in str(caught.value)
    assert log[-1] == "a released None"
    assert task.n_called == 0


async def test_a_submission_too_late_unwinds(by_hand: ByHand):
    log: list[str] = []

    class Stopping(Tracing):
        def pre_submit(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
            by_hand.scheduler.stop()
            return super().pre_submit(fn, *args, **kwargs)

    task = by_hand.scheduler.task(double, plugins=Stopping(log, "a"))
    run = by_hand.start()
    assert task(1) is None
    assert log == ["a asked (1,)", "a released None"]
    assert (task.n_called, task.running()) == (0, False)
    await run


async def test_a_plugin_that_fails_to_release_spares_the_others(by_hand: ByHand):
    task, log = chained(by_hand.scheduler, "pass", "raise at release")
    run = by_hand.start(on_exception="end")
    future = task.submit(1)
    by_hand.backend.finish(future, 2)
    state = await run
    assert future.result() == 2
    assert log[-2:] == ["b released done", "a released done"]
    assert str(state.exception) == "stuck"


async def test_a_plugin_attached_later_is_released_for_later_calls_only(by_hand: ByHand):
    task, log = chained(by_hand.scheduler)
    by_hand.start()
    early = task.submit(1)
    task.attach_plugin(Tracing(log, "a"))
    late = task.submit(2)
    for future in (early, late):
        by_hand.backend.finish(future)
    await settled()
    assert log == ["a asked (2,)", "a released done"]


async def test_a_resubmission_asks_the_plugins_again(by_hand: ByHand):
    task, log = chained(by_hand.scheduler, "change")
    by_hand.start()
    future = task.submit(1)
    by_hand.backend.finish(future)
    await settled()
    again = by_hand.scheduler.resubmit(future)
    assert again.call.work == (triple, (2,), {})
    assert log == ["a asked (1,)", "a released done", "a asked (1,)"]


def test_what_is_no_plugin_is_refused_and_no_task_is_left():
    scheduler = Scheduler(ManualBackend())
    with pytest.raises(PluginError, match="pass an instance of a Plugin subclass"):
        scheduler.task(double, plugins=[Tracing])  # type: ignore[list-item]
    assert scheduler.tasks == []


def test_a_plugin_hangs_on_a_task_once():
    plugin = Tracing([], "a")
    task = Scheduler(ManualBackend()).task(double, plugins=plugin)
    with pytest.raises(PluginError, match="attached to Task-double-1 already"):
        task.attach_plugin(plugin)
    assert task.plugins == [plugin]


def test_a_plugin_that_refuses_the_task_is_not_attached():
    class Picky(Plugin):
        def attach_task(self, task: Task[..., Any]) -> None:
            raise PluginError("not this one")

    scheduler = Scheduler(ManualBackend())
    task = scheduler.task(double)
    with pytest.raises(PluginError, match="not this one"):
        task.attach_plugin(Picky())
    assert task.plugins == []
    with pytest.raises(PluginError, match="not this one"):
        scheduler.task(triple, plugins=Picky())
    assert scheduler.tasks == [task]
