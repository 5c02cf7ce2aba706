"""What each example must show, wherever it runs: its prints, and its events to the last count."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["EXAMPLES", "TELL", "Seen", "check"]

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.py"))

# Put behind an example. What it says of the scheduler is what every view shows of it.
TELL = """
def _tell() -> None:
    import json

    def counted(events):
        return {event.name: event.count for event in events if event.count}

    def called(events):
        return {
            f"{event.name} {callback.name}": callback.n_calls
            for event in events
            for callback in event.callbacks
        }

    seen = scheduler.snapshot()
    tasks = {
        task.ref: {
            "events": counted(task.events),
            "callbacks": called(task.events),
            "plugins": {plugin.name: dict(plugin.state) for plugin in task.plugins},
        }
        for task in seen.tasks
    }
    told = {
        "n_workers": seen.backend.n_workers,
        "ended_by": seen.run.code,
        "elapsed_s": seen.run.elapsed_s,
        "events": counted(seen.events),
        "callbacks": called(seen.events),
        "tasks": tasks,
    }
    print("SEEN " + json.dumps(told))


_tell()
"""


@dataclass
class Seen:
    """What an example printed, and how its scheduler stood at the end."""

    stdout: str = ""
    n_workers: int = 1
    ended_by: str | None = "exhausted"  # None: it was never run
    elapsed_s: float = field(default=0.0, compare=False)
    events: dict[str, int] = field(default_factory=dict)  # those that were emitted
    callbacks: dict[str, int] = field(default_factory=dict)  # "event name" → how often called
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # by ref

    @classmethod
    def of(cls, stdout: str) -> Seen:
        """Read what an example and `TELL` behind it have printed."""
        own, mark, told = stdout.partition("SEEN ")
        assert mark, f"it did not get to its end: {stdout!r}"
        return cls(stdout=own, **json.loads(told))


# One run from its start to an end by itself; another code leaves `on_empty` out.
RUN = {"on_start": 1, "on_finishing": 1, "on_finished": 1}
EXHAUSTED = RUN | {"on_empty": 1}


def returned(n: int) -> dict[str, int]:
    """The scheduler's events of `n` calls that returned."""
    return {"on_future_submitted": n, "on_future_done": n, "on_future_result": n}


def task_returned(n: int) -> dict[str, int]:
    """A task's events of `n` calls that returned, under each name a result goes by."""
    results = dict.fromkeys(("on_result", "on_returned", "on_f_returned"), n)
    return {"on_submitted": n, "on_done": n} | results


def task(
    events: dict[str, int] | None = None,
    callbacks: dict[str, int] | None = None,
    plugins: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What is seen of one task."""
    return {"events": events or {}, "callbacks": callbacks or {}, "plugins": plugins or {}}


LIMIT = {"limiter": {"Concurrent": "0/2"}}

EXACTLY = {
    "01_chain": Seen(
        "[200, 100, 50, 25, 24, 12, 6, 3, 2, 1]\n",
        events=EXHAUSTED | returned(9),
        callbacks={"on_start begin": 1},
        tasks={"Task-towards_one-1": task(task_returned(9), {"on_result go_on": 9})},
    ),
    "02_workers": Seen(n_workers=2, ended_by=None),
    "03_not_run": Seen(ended_by=None, callbacks={"on_start greet": 0}),
    "04_run": Seen("good morning\n", events=EXHAUSTED, callbacks={"on_start greet": 1}),
    "05_two_callbacks": Seen(
        "wake up\nget up\n",
        events=EXHAUSTED,
        callbacks={"on_start wake": 1, "on_start rise": 1},
    ),
    "06_submit": Seen(
        "6\n18\n",
        n_workers=2,
        events=EXHAUSTED | returned(2),
        callbacks={"on_start begin": 1, "on_future_result tell": 2},
    ),
    # A repeated round counts once.
    "07_repeat": Seen("knock\nknock\nknock\n", events=EXHAUSTED, callbacks={"on_start knock": 1}),
    "08_max_calls": Seen(
        n_workers=2,
        events=EXHAUSTED | returned(4),
        callbacks={"on_start begin": 1, "on_future_result once_more": 3},
    ),
    "10_every": Seen(
        "tock\ntock\n",
        events=dict.fromkeys(EXHAUSTED, 5),
        callbacks={"on_start tock": 2},
    ),
    "11_stop": Seen(
        ended_by="stopped",
        events=RUN | {"on_stop": 1, "on_future_submitted": 1, "on_future_cancelled": 1},
        callbacks={"on_start begin": 1, "on_future_submitted think_again": 1},
    ),
    "13_exception": Seen(
        "It failed: no thermometer here\n",
        ended_by="stopped",
        # Nothing was left when it stopped, so it was empty as well.
        events=EXHAUSTED
        | {"on_stop": 1, "on_future_submitted": 1, "on_future_done": 1, "on_future_exception": 1},
        callbacks={"on_start begin": 1, "on_future_exception give_up": 1},
    ),
    "15_task": Seen(
        events=EXHAUSTED | returned(1),
        callbacks={"on_start begin": 1},
        tasks={"Task-towards_one-1": task(task_returned(1))},
    ),
    # The scheduler's event of a call comes before the task's.
    "16_task_events": Seen(
        "scheduler: ONE\ntask: ONE\nscheduler: TWO\n",
        events=EXHAUSTED | returned(2),
        callbacks={"on_start begin": 1, "on_future_result of_all": 2},
        tasks={"Task-shout-1": task(task_returned(1), {"on_result of_the_task": 1})},
    ),
    "17_two_tasks": Seen(
        "no side left\n",
        events=EXHAUSTED | returned(6),
        callbacks={"on_start begin": 1},
        tasks={
            "Task-longer-1": task(
                task_returned(3),
                {"on_result hand_on": 3, "on_result next_side": 3, "on_exception complain": 0},
            ),
            "Task-area-1": task(task_returned(3), {"on_exception complain": 0}),
        },
    ),
    "18_limiter": Seen(
        "[0, 1, 4, 5, 6, 7, 8, 9]\n",
        n_workers=2,
        events=EXHAUSTED | returned(8),
        callbacks={"on_start begin": 1},
        tasks={
            "Task-same-1": task(
                task_returned(8) | {"concurrent-limit-reached": 2},
                {"on_result keep": 8, "on_result next_number": 8},
                LIMIT,
            )
        },
    ),
    "19_requeue": Seen(
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n",
        n_workers=2,
        events=EXHAUSTED | returned(10),
        callbacks={"on_start begin": 1},
        tasks={
            "Task-same-1": task(
                task_returned(10) | {"concurrent-limit-reached": 2},
                {
                    "on_result keep": 10,
                    "on_result next_number": 10,
                    "concurrent-limit-reached put_back": 2,
                },
                LIMIT,
            )
        },
    ),
}


def check_when(seen: Seen) -> None:
    """Chance decides which side is up; exactly one callback was called, the one that printed."""
    side = seen.stdout.strip()
    assert side in ("heads", "tails")
    called = {f"on_start {name}": int(name == side) for name in ("heads", "tails")}
    assert seen == Seen(f"{side}\n", events=EXHAUSTED, callbacks=called)


def check_timeout(seen: Seen) -> None:
    """How far it gets depends on the machine; that each tick takes its time does not."""
    n = seen.events["on_future_done"]
    assert seen == Seen(
        ended_by="timeout",
        events=RUN | {"on_timeout": 1} | returned(n),
        callbacks={"on_start begin": 1, "on_future_done go_on": n},
    )
    assert n >= 1
    # One worker, so one tick of 0.1 s after the other. Clocks may differ by some milliseconds.
    assert seen.elapsed_s >= max(1, 0.1 * n) - 0.02


REFUSAL = re.compile(
    r"<class 'amltk_nb\.errors\.SchedulerNotRunningError'>: Scheduler is not running, .*"
    r"scheduler\.start\(\).*scheduler\.run\(\).*\n"
)


def check_too_early(seen: Seen) -> None:
    """The call was never made; the error names the two ways to run."""
    assert REFUSAL.fullmatch(seen.stdout)
    assert seen == Seen(seen.stdout, ended_by=None, tasks={"Task-towards_one-1": task()})


UNCERTAIN: dict[str, Callable[[Seen], None]] = {
    "09_when": check_when,
    "12_timeout": check_timeout,
    "14_too_early": check_too_early,
}


def check(name: str, stdout: str) -> None:
    """Require that an example printed and did what it must, and nothing else."""
    seen = Seen.of(stdout)
    if name in UNCERTAIN:
        UNCERTAIN[name](seen)
        return
    assert seen == EXACTLY[name]
