"""What each example about events and tasks must show, wherever it runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from amltk_nb.scheduling.executors.cpus import available_cpus
from tests.guides.expected import EXHAUSTED, RUN, Seen, returned, task, task_returned
from tests.guides.expected import TELL as TELL_OF_SCHEDULER

__all__ = ["EXACTLY", "EXAMPLES", "PRINTED", "TELL", "UNCERTAIN", "check"]

EXAMPLES = sorted((Path(__file__).parent / "tasks").glob("*.py"))

# Some examples have events only, and no scheduler.
TELL = re.sub(r"\n_tell\(\)\n$", '\nif "scheduler" in globals():\n    _tell()\n', TELL_OF_SCHEDULER)

# Those that leave the number of workers to the scheduler have one for each CPU they may use.
N_CPUS = available_cpus()


def failed(n: int) -> dict[str, int]:
    """The scheduler's events of `n` calls that raised, besides their submission."""
    return {"on_future_exception": n}


def task_failed(n: int) -> dict[str, int]:
    """A task's events of `n` calls that raised, besides submission and end."""
    return dict.fromkeys(("on_exception", "on_f_exception"), n)


def ended(n_returned: int, n_failed: int) -> dict[str, int]:
    """The scheduler's events of calls that returned or raised."""
    n = n_returned + n_failed
    results = {"on_future_result": n_returned} if n_returned else {}
    return {"on_future_submitted": n, "on_future_done": n} | results | failed(n_failed)


def task_ended(n_returned: int, n_failed: int) -> dict[str, int]:
    """A task's events of calls that returned or raised."""
    n = n_returned + n_failed
    return task_returned(n_returned) | task_failed(n_failed) | {"on_submitted": n, "on_done": n}


LIMITER = {"limiter": {"Calls": "10/10", "Concurrent": "0/2"}}
MISFIT = "unload 3 crates\nsign\nshout() takes 1 positional argument but 3 were given\n"
GAMES = "3 5\n8 6\n4 7\n6 8\n"
LONGEST = "longest so far: 3 5\n3 5\nlongest so far: 8 6\n8 6\n4 7\n6 8\n"

# What those print that have no scheduler.
PRINTED = {
    "02_plain_event": "unload 3 crates\nweigh 4.5\nsign\n1\n",
    "03_misfit": MISFIT,
    "04_typed_misfit": MISFIT,
    "13_subscriber": "good evening, Ada\ngood evening, Emmy\n2 2\n",
}


def own_task(stdout: str, *, listens: bool = True, n_longest: dict[str, int]) -> Seen:
    """What a task of one's own shows of four games; its own callback is one of its class."""
    look = {"on_returned look": 4} if listens else {}
    on_longest = {"longest-game hurray": 2} if "longest so far" in stdout else {}
    return Seen(
        stdout,
        events=EXHAUSTED | returned(4),
        callbacks={"on_start begin": 1},
        tasks={
            "Task-play-1": task(
                task_returned(4) | n_longest, look | {"on_returned tell": 4} | on_longest
            )
        },
    )


EXACTLY = {
    "01_answer": Seen(
        "4 pieces for each\nno party: integer division or modulo by zero\n",
        n_workers=N_CPUS,
        events=EXHAUSTED | ended(1, 1),
        callbacks={"on_start begin": 1},
        tasks={
            "Task-share-1": task(
                task_ended(1, 1), {"on_returned tell": 1, "on_exception complain": 1}
            )
        },
    ),
    "05_processes": Seen(
        "81\nexhausted\n",
        n_workers=2,
        events=EXHAUSTED | returned(1),
        callbacks={"on_start begin": 1, "on_future_result tell": 1},
    ),
    "06_threads": Seen(
        "81\n81\n243\n",
        n_workers=2,
        events=EXHAUSTED | returned(1),
        callbacks={"on_start <lambda>": 1, "on_future_result <lambda>": 1},
    ),
    "07_sequential": Seen(
        "['one', 'two', 'one', 'two']\n",
        events=EXHAUSTED | returned(2),
        callbacks={"on_start <lambda>": 1},
    ),
    "08_two_ways": Seen(
        "open the doors\nlight the lamps\n",
        n_workers=N_CPUS,
        events=EXHAUSTED,
        callbacks={"on_start open_doors": 1, "on_start light": 1},
    ),
    "09_name": Seen(
        "['greeting', 'welcome']\nhello\nwelcome\nTrue False\nwelcome\nTrue\n",
        n_workers=N_CPUS,
        events=dict.fromkeys(EXHAUSTED, 3),
    ),
    "10_when": Seen(
        "heads at toss 3\n[False, False, True, False]\n",
        n_workers=N_CPUS,
        events=dict.fromkeys(EXHAUSTED, 4),
        callbacks={"on_start heads": 1},
    ),
    "11_limit": Seen(
        "cut the ribbon\n",
        n_workers=N_CPUS,
        events=dict.fromkeys(EXHAUSTED, 3),
        callbacks={"on_start ribbon": 1},
    ),
    "12_repeat_and_every": Seen(
        "ring\n" * 9 + "pause\n",
        n_workers=N_CPUS,
        events=dict.fromkeys(EXHAUSTED, 3),
        callbacks={"on_start ring": 3, "on_start pause": 1},
    ),
    "14_exit_code": Seen(
        "exhausted True True\nFalse\n", n_workers=N_CPUS, events=EXHAUSTED, callbacks={}
    ),
    "15_stop": Seen(
        "stopped\n",
        n_workers=N_CPUS,
        ended_by="stopped",
        events=EXHAUSTED | {"on_stop": 1},
        callbacks={"on_start never_mind": 1},
    ),
    "17_wait": Seen(
        n_workers=N_CPUS,
        ended_by="stopped",
        events=RUN | {"on_stop": 1, "on_future_submitted": 1, "on_future_cancelled": 1},
        callbacks={"on_start begin": 1, "on_future_submitted lose_patience": 1},
    ),
    "18_raises": Seen(
        "ValueError('box 1 is empty')\nraised: box 1 is empty\nfound in 2\nexhausted\n",
        n_workers=N_CPUS,
        events=dict.fromkeys(RUN, 3) | {"on_empty": 1, "on_stop": 2} | ended(1, 3),
        callbacks={
            "on_start begin": 3,
            "on_future_exception try_the_next": 1,
            "on_future_result <lambda>": 1,
        },
    ),
    "19_end_on_empty": Seen(
        "AN IDEA\n",
        n_workers=N_CPUS,
        ended_by="stopped",
        events=RUN | {"on_empty": 2, "on_stop": 1} | returned(1),
        callbacks={"on_empty think": 1, "on_future_result at_last": 1},
    ),
    "20_async_run": Seen(
        "6\nexhausted 3\n",
        n_workers=N_CPUS,
        events=EXHAUSTED | returned(1),
        callbacks={"on_start begin": 1, "on_future_result tell": 1},
    ),
    "21_futures": Seen(
        "[8, 27, 64]\n",
        n_workers=N_CPUS,
        events=EXHAUSTED | returned(3),
        callbacks={"on_start submit_one": 1},
    ),
    "22_task": Seen(
        "cube(x: int) -> int None\n",
        n_workers=N_CPUS,
        ended_by=None,
        tasks={"Task-cube-1": task()},
    ),
    "23_first_try": Seen(
        "7\n",
        n_workers=N_CPUS,
        events=EXHAUSTED | returned(1),
        callbacks={"on_start submit_next": 1},
        tasks={
            "Task-root-1": task(
                task_returned(1), {"on_returned tell": 1, "on_exception complain": 0}
            )
        },
    ),
    "24_keep": Seen(
        "7\n[7]\n",
        n_workers=N_CPUS,
        events=EXHAUSTED | returned(1),
        callbacks={"on_start submit_next": 1},
        tasks={
            "Task-root-1": task(
                task_returned(1),
                {"on_returned tell": 1, "on_returned keep": 1, "on_exception complain": 0},
            )
        },
    ),
    "25_at_once": Seen(
        "[7, 8, 9]\n",
        n_workers=N_CPUS,
        events=EXHAUSTED | returned(3),
        callbacks={"on_start submit_next": 1},
        tasks={
            "Task-root-1": task(
                task_returned(3), {"on_returned keep": 3, "on_exception complain": 0}
            )
        },
    ),
    "26_keep_busy": Seen(
        "[7, 8, 9, 10] ['no root of -1', 'no root of -4']\n",
        n_workers=N_CPUS,
        events=EXHAUSTED | ended(4, 2),
        callbacks={"on_start submit_next": 1},
        tasks={
            "Task-root-1": task(
                task_ended(4, 2),
                {"on_done submit_next": 6, "on_returned keep": 4, "on_exception complain": 2},
            )
        },
    ),
    # The fourth was on its way when the third had failed.
    "28_first_failure": Seen(
        "no root of -1\nraised: no root of -1\n[7, 8, 9]\n",
        ended_by="exception",
        events=RUN | {"on_stop": 1} | ended(3, 1),
        callbacks={"on_start submit_next": 1},
        tasks={
            "Task-root-1": task(
                task_ended(3, 1),
                {
                    "on_done submit_next": 4,
                    "on_returned keep": 3,
                    "on_exception complain": 1,
                    "on_exception give_up": 1,
                },
            )
        },
    ),
    "29_task_events": Seen(
        "submitted False\nsubmitted False\n"
        "done 49\nreturned 7\nf_returned 49 7\n"
        "done -1\nexception no root of -1\nf_exception -1 no root of -1\n",
        events=EXHAUSTED | ended(1, 1),
        callbacks={"on_start begin": 1},
        tasks={
            "Task-root-1": task(
                task_ended(1, 1),
                {
                    "on_submitted submitted": 2,
                    "on_done done": 2,
                    "on_returned returned": 1,
                    "on_exception exception": 1,
                    "on_f_returned f_returned": 1,
                    "on_f_exception f_exception": 1,
                },
            )
        },
    ),
    "30_cancelled": Seen(
        "cancelled True\nf_cancelled True\n",
        events=EXHAUSTED | returned(1) | {"on_future_submitted": 2, "on_future_cancelled": 1},
        callbacks={"on_start begin": 1},
        tasks={
            "Task-abs-1": task(
                task_returned(1) | {"on_submitted": 2, "on_cancelled": 1, "on_f_cancelled": 1},
                {"on_cancelled cancelled": 1, "on_f_cancelled f_cancelled": 1},
            )
        },
    ),
    "31_call_limiter": Seen(
        "2 calls are under way\n" + "it was called 10 times\n" * 2,
        n_workers=2,
        events=EXHAUSTED | returned(10),
        callbacks={"on_start begin": 1},
        tasks={
            "Task-abs-1": task(
                task_returned(10) | {"call-limit-reached": 2, "concurrent-limit-reached": 1},
                {
                    "on_done again": 10,
                    "call-limit-reached enough": 2,
                    "concurrent-limit-reached too_many": 1,
                },
                LIMITER,
            )
        },
    ),
    "32_batch": Seen(
        "[20, 6, 1]\n<Batch of Task-area-1: 3 calls, done>\n",
        n_workers=2,
        events=EXHAUSTED | returned(3),
        callbacks={"on_start begin": 1},
        tasks={"Task-area-1": task(task_returned(3))},
    ),
    "33_failing_batch": Seen(
        "failed\n[] [ValueError('sleep length must be non-negative')] 3\n"
        "<Batch of Task-rest-1: 4 calls, done, cancelled>\n",
        n_workers=2,
        events=EXHAUSTED | ended(0, 1) | {"on_future_submitted": 4, "on_future_cancelled": 3},
        callbacks={"on_start begin": 1},
        tasks={
            "Task-rest-1": task(
                task_failed(1)
                | {"on_submitted": 4, "on_done": 1, "on_cancelled": 3, "on_f_cancelled": 3}
            )
        },
    ),
    "34_own_task": own_task(GAMES + "None False\n", listens=False, n_longest={}),
    "35_own_task_typed": own_task(GAMES + "None False\n", listens=False, n_longest={}),
    "36_own_event": own_task(GAMES + "(8, 6)\n", n_longest={"longest-game": 2}),
    "37_own_event_typed": own_task(GAMES + "(8, 6)\n", n_longest={"longest-game": 2}),
    "38_own_subscriber": own_task(LONGEST, n_longest={"longest-game": 2}),
    "39_own_subscriber_typed": own_task(LONGEST, n_longest={"longest-game": 2}),
}


def check_timeout(seen: Seen) -> None:
    """It had nothing to do and stayed for its time."""
    assert seen == Seen(
        "timeout\n",
        n_workers=N_CPUS,
        ended_by="timeout",
        events=RUN | {"on_empty": 1, "on_timeout": 1},
    )
    assert seen.elapsed_s >= 0.2 - 0.02  # clocks may differ by some milliseconds


def check_enough(seen: Seen) -> None:
    """It stops at the end after the fiftieth result; how much is in flight then, chance decides."""
    events = seen.tasks["Task-root-1"]["events"]
    n = events["on_done"]
    assert 51 <= n <= 54  # there were three at a time
    n_submitted = events["on_submitted"]
    cancelled = {"on_cancelled": n_submitted - n, "on_f_cancelled": n_submitted - n}
    assert seen == Seen(
        "True {7} False None\n",
        n_workers=N_CPUS,
        ended_by="stopped",
        events=RUN
        | returned(n)
        | {"on_future_submitted": n_submitted, "on_stop": 1}
        | ({"on_future_cancelled": n_submitted - n} if n_submitted > n else {}),
        callbacks={"on_start submit_next": 1},
        tasks={
            "Task-root-1": task(
                task_returned(n)
                | {"on_submitted": n_submitted}
                | (cancelled if n_submitted > n else {}),
                {
                    "on_done submit_next": n,
                    "on_done stop_at_50": n - 50,
                    "on_returned keep": n,
                },
            )
        },
    )


UNCERTAIN: dict[str, Callable[[Seen], None]] = {
    "16_timeout": check_timeout,
    "27_enough": check_enough,
}


def check(name: str, stdout: str) -> None:
    """Require that an example printed and did what it must, and nothing else."""
    if name in PRINTED:
        assert stdout == PRINTED[name]
    elif name in UNCERTAIN:
        UNCERTAIN[name](Seen.of(stdout))
    else:
        assert Seen.of(stdout) == EXACTLY[name]
