"""The golden snapshots: what schedulers look like at telling moments, as plain records.

Run this file as a module (`python -m tests.views.snapshots`) to write the expected outputs anew;
read the difference before committing it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from amltk_nb.scheduling.snapshot import (
    BackendRecord,
    CallbackRecord,
    CallRecord,
    EventRecord,
    JournalRecord,
    LogRecord,
    PluginRecord,
    ProgressRecord,
    RunRecord,
    Snapshot,
    TaskRecord,
    WorkerRecord,
)
from amltk_nb.scheduling.states import CallState, RunState
from amltk_nb.views.widget import VIEWS

GOLDEN = Path(__file__).parent / "golden"
T0 = 1_767_225_600.0  # 2026-01-01 00:00:00 UTC

_SCHEDULER_EVENTS = [
    f"on_{name}"
    for name in (
        *("start", "finishing", "finished", "stop", "timeout", "empty"),
        *("future_submitted", "future_done", "future_cancelled"),
        *("future_exception", "future_result"),
    )
]
_TASK_EVENTS = [
    f"on_{name}"
    for name in (
        *("submitted", "done", "result", "returned", "exception", "cancelled"),
        *("f_returned", "f_exception", "f_cancelled"),
    )
]


def counts(**n_by_state: int) -> dict[CallState, int]:
    return {state: n_by_state.get(state, 0) for state in CallState}


def events(names: list[str], **known: Any) -> tuple[EventRecord, ...]:
    """Every event in declaration order; `known` holds counts, or (count, *callbacks)."""
    made = []
    for name in names:
        value = known.get(name, 0)
        count, *callbacks = value if isinstance(value, tuple) else (value,)
        made.append(EventRecord(name=name, count=count, callbacks=tuple(callbacks)))
    return tuple(made)


def scheduler_events(**known: Any) -> tuple[EventRecord, ...]:
    return events(_SCHEDULER_EVENTS, **known)


def task_events(**known: Any) -> tuple[EventRecord, ...]:
    return events(_TASK_EVENTS, **known)


def processes(n: int = 2) -> BackendRecord:
    return BackendRecord(name="ProcessExecutor", options={"max_workers": n}, n_workers=n)


def call(number: int, state: CallState, **fields: Any) -> CallRecord:
    """A call of `collatz` that ran 0.25 s times its number on one of two workers."""
    began = state not in (CallState.QUEUED, CallState.CANCELLED)
    over = state in (CallState.DONE, CallState.FAILED)
    made: dict[str, Any] = {
        "task": "Task-collatz-1",
        "function": "collatz",
        "args": str(10 + number),
        "submitted_at": T0 + number / 8,
        "started_at": T0 + number if began else None,
        "ended_at": T0 + number * 1.25 if over else None,
        "seconds": number / 4 if over else None,
        "worker": f"worker-{number % 2 + 1}" if began else None,
    }
    return CallRecord(id=number, state=state, **(made | fields))


COMPUTE_NEXT = CallbackRecord(
    text="def compute_next(_, next_n: int) -> None", name="compute_next", n_calls=3, cell="[4]"
)


def idle() -> Snapshot:
    return Snapshot(
        version=1,
        name="seeds",
        run=RunRecord(state=RunState.IDLE),
        backend=processes(),
        counts=counts(),
        events=scheduler_events(),
        now=T0,
    )


def running() -> Snapshot:
    start = CallbackRecord(text="def start_all() -> None", name="start_all", n_calls=1, cell="[3]")
    log_done = CallbackRecord(text="lambda _", name="lambda", n_calls=4, n_errors=1, cell="[4]")
    bookkeeping = CallbackRecord(text="def _book(f)", name="_book", n_calls=4, hidden=True)
    task = TaskRecord(
        ref="Task-collatz-1",
        function="collatz",
        signature="collatz(n: int) -> int",
        events=task_events(
            on_submitted=9,
            on_done=4,
            on_result=(3, COMPUTE_NEXT),
            on_returned=3,
            on_exception=1,
            on_f_returned=3,
            on_f_exception=1,
        ),
        plugins=(
            PluginRecord(name="Limiter", state={"calls": "9/20", "concurrent": "2/2"}),
            PluginRecord(name="Cache", state={"hits": 3, "misses": 6, "saved_s": 1.5}),
        ),
        counts=counts(queued=3, running=2, done=3, failed=1),
    )
    return Snapshot(
        version=57,
        name="seeds",
        run=RunRecord(state=RunState.RUNNING, n=1, started_at=T0, elapsed_s=12.34),
        backend=processes(),
        counts=counts(queued=3, running=2, done=3, failed=1),
        events=scheduler_events(
            on_start=(1, start),
            on_future_submitted=9,
            on_future_done=(4, log_done, bookkeeping),
            on_future_exception=1,
            on_future_result=3,
        ),
        tasks=(task,),
        calls=(
            call(5, CallState.RUNNING, resubmitted_from=3, attempt=2),
            call(6, CallState.RUNNING),
            *(call(n, CallState.QUEUED) for n in (7, 8, 9)),
            call(3, CallState.FAILED, error="ValueError: n must be positive"),
            *(call(n, CallState.DONE) for n in (4, 2, 1)),
        ),
        workers=(
            WorkerRecord(name="worker-1", state="busy", pid=4211, call=6),
            WorkerRecord(name="worker-2", state="busy", pid=4212, call=5),
        ),
        log=(
            LogRecord(id=1, at=T0 + 1, source="scheduler", level="info", text="2 workers up"),
            LogRecord(
                id=2, at=T0 + 2, source="on_result · compute_next", level="print", text="next 10"
            ),
            LogRecord(
                id=3, at=T0 + 3, source="on_result · compute_next", level="print", text="next 9"
            ),
            LogRecord(id=4, at=T0 + 4, source="worker-2", level="warning", text="pid 4212 is slow"),
        ),
        now=T0 + 12.34,
    )


def paused() -> Snapshot:
    return Snapshot(
        version=8,
        name="scheduler",
        run=RunRecord(state=RunState.PAUSED, n=2, started_at=T0, elapsed_s=75.0),
        backend=BackendRecord(
            name="ThreadExecutor",
            options={"max_workers": 4},
            n_workers=4,
            cannot_end="threads cannot be ended",
        ),
        counts=counts(queued=2, done=1),
        events=scheduler_events(on_start=2, on_future_submitted=3, on_future_done=1),
        calls=(
            call(2, CallState.QUEUED, task=None),
            call(3, CallState.QUEUED, task=None),
            call(1, CallState.DONE, task=None),
        ),
        now=T0 + 75,
    )


def stopping() -> Snapshot:
    return Snapshot(
        version=21,
        name="seeds",
        run=RunRecord(
            state=RunState.STOPPING,
            n=1,
            started_at=T0,
            elapsed_s=30.0,
            reason="good enough",
            stopping_since=T0 + 25.5,
            grace_ends_at=T0 + 33.5,
        ),
        backend=processes(),
        counts=counts(running=1, done=1, cancelled=1),
        events=scheduler_events(on_start=1, on_stop=1, on_finishing=1, on_future_cancelled=1),
        calls=(
            call(2, CallState.RUNNING),
            call(3, CallState.CANCELLED, ended_at=T0 + 25.5),
            call(1, CallState.DONE),
        ),
        now=T0 + 30,
    )


def exhausted() -> Snapshot:
    """A finished run with two tasks of the same function name, and nothing gone wrong."""
    twins = tuple(
        TaskRecord(
            ref=f"Task-collatz-{n}",
            function="collatz",
            signature="collatz(n: int) -> int",
            events=task_events(on_submitted=2, on_done=2, on_result=2, on_returned=2),
            counts=counts(done=2),
        )
        for n in (1, 2)
    )
    return Snapshot(
        version=33,
        name="seeds",
        run=RunRecord(
            state=RunState.FINISHED,
            n=1,
            started_at=T0,
            ended_at=T0 + 3.5,
            elapsed_s=3.5,
            code="exhausted",
        ),
        backend=processes(),
        counts=counts(done=4),
        events=scheduler_events(
            on_start=1,
            on_empty=1,
            on_finishing=1,
            on_finished=1,
            on_future_submitted=4,
            on_future_done=4,
            on_future_result=4,
        ),
        tasks=twins,
        calls=tuple(
            call(n, CallState.DONE, task=f"Task-collatz-{n % 2 + 1}") for n in (3, 4, 1, 2)
        ),
        now=T0 + 60,
    )


def exception() -> Snapshot:
    task = TaskRecord(
        ref="Task-train-1",
        function="train",
        signature="train(x: float, *, C: float = 1.0) -> float",
        events=task_events(on_submitted=2, on_done=1, on_exception=1),
        counts=counts(failed=1, cancelled=1),
    )
    return Snapshot(
        version=12,
        name="seeds",
        run=RunRecord(
            state=RunState.FINISHED,
            n=1,
            started_at=T0,
            ended_at=T0 + 0.042,
            elapsed_s=0.042,
            code="exception",
            reason="ValueError: C must be positive, not <Model at 0x7fd0c0ffee10>",
        ),
        backend=processes(1),
        counts=counts(failed=1, cancelled=1),
        events=scheduler_events(
            on_start=1, on_stop=1, on_finishing=1, on_finished=1, on_future_exception=1
        ),
        tasks=(task,),
        calls=(
            call(2, CallState.CANCELLED, task="Task-train-1", function="train", args="2.0"),
            call(
                1,
                CallState.FAILED,
                task="Task-train-1",
                function="train",
                args="1.0, C=<Model at 0x7fd0c0ffee10>",
                seconds=0.0421,
                error="ValueError: C must be positive, not <Model at 0x7fd0c0ffee10>",
            ),
        ),
        now=T0 + 1,
    )


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "</table></details></section><style>*{display:none}</style>",
    "\x1b[31mred\x1b[0m\x07\x9b2J",
    "user\u202etxt.exe\u2066\u200f",
    "\ud800 and \udfff",
    "[bold red]markup[/] :boom:",
    "line one\r\nline two\u2028three\x00",
    "&lt;already&gt; &amp; 'quoted'",
)


def hostile() -> Snapshot:
    """Everything a user's program could put into any string, everywhere at once."""
    soup = " ".join(HOSTILE)
    callback = CallbackRecord(text=soup, name=soup, n_calls=1, cell=soup)
    task = TaskRecord(
        ref=soup,
        function=soup,
        signature=soup,
        events=(EventRecord(name=soup, count=1, callbacks=(callback,)),),
        plugins=(PluginRecord(name=soup, state={soup: soup, "big": 10**5000}),),
        counts=counts(done=1),
    )
    calls = tuple(
        call(n, CallState.FAILED, task=None, function="f", args=text, error=text, worker=text)
        for n, text in enumerate(HOSTILE, start=1)
    )
    huge = call(99, CallState.DONE, args="x" * 10_000_000, function=soup, task=soup)
    return Snapshot(
        version=1,
        name=soup,
        run=RunRecord(state=RunState.FINISHED, n=1, elapsed_s=1.0, code="stopped", reason=soup),
        backend=BackendRecord(
            name=soup,
            options={soup: soup},
            n_workers=1,
            cannot_end=soup,
            cannot_restart=soup,
            waiting_for=soup,
        ),
        counts=counts(done=1, failed=len(HOSTILE)),
        events=(EventRecord(name=soup, count=1, callbacks=(callback,)),),
        tasks=(task,),
        calls=(*calls, huge),
        workers=(WorkerRecord(name=soup, state=soup, pid=1, call=1, where=soup),),
        log=tuple(
            LogRecord(id=n, at=T0, source=text, level=text, text=text)
            for n, text in enumerate(HOSTILE)
        ),
        now=T0,
    )


def crowd() -> Snapshot:
    """10 000 calls of which the snapshot holds the latest 300."""
    task = TaskRecord(
        ref="Task-collatz-1",
        function="collatz",
        signature="collatz(n: int) -> int",
        events=task_events(on_submitted=10_000, on_done=10_000, on_result=10_000),
        counts=counts(done=9_999, failed=1),
    )
    latest = [call(n, CallState.DONE) for n in range(10_000, 9_701, -1)]
    return Snapshot(
        version=20_000,
        name="crowd",
        run=RunRecord(
            state=RunState.FINISHED, n=1, started_at=T0, elapsed_s=3725.0, code="exhausted"
        ),
        backend=processes(),
        counts=counts(done=9_999, failed=1),
        events=scheduler_events(on_start=1, on_future_submitted=10_000, on_future_done=10_000),
        tasks=(task,),
        calls=(call(17, CallState.FAILED, error="ValueError: 17"), *latest),
        log=tuple(
            LogRecord(id=n, at=T0 + n, source="on_result · show", level="print", text=f"row {n}")
            for n in range(500)
        ),
        now=T0 + 4000,
        n_calls_hidden=9_700,
    )


def waiting() -> Snapshot:
    """A batch system that has not begun its jobs for longer than one would think."""
    backend = BackendRecord(
        name="SLURMCluster",
        options={"n_workers": 2, "queue": "short"},
        cannot_restart="workers of this engine are not replaced",
        reports_start=False,
        waiting_for="workers of SLURMCluster",
        waiting_since=T0,
        no_workers_after_s=10.0,
        n_jobs_waiting=2,
    )
    return Snapshot(
        version=5,
        name="seeds",
        run=RunRecord(state=RunState.RUNNING, n=1, started_at=T0 - 1, elapsed_s=26.0),
        backend=backend,
        counts=counts(queued=3),
        events=scheduler_events(on_start=1, on_future_submitted=3),
        calls=tuple(call(n, CallState.QUEUED) for n in (1, 2, 3)),
        now=T0 + 25,
    )


def elsewhere() -> Snapshot:
    """Dask, which does not say when a call begins; a call reports, another one is tried later."""
    backend = BackendRecord(
        name="DaskExecutor",
        options={"n_workers": 2},
        n_workers=2,
        cannot_end="the workers are not ours to end",
        cannot_restart="workers of this engine are not replaced",
        reports_start=False,
        no_workers_after_s=10.0,
    )
    addresses = [f"tcp://10.0.0.{n}:40{n}13" for n in (7, 8)]
    failed = call(1, CallState.FAILED, worker=addresses[0], error="OSError: no answer")
    again = call(5, CallState.QUEUED, resubmitted_from=1, attempt=2, not_before=T0 + 22.5)
    far = ProgressRecord(n=3, total=4)
    return Snapshot(
        version=9,
        name="seeds",
        run=RunRecord(state=RunState.RUNNING, n=1, started_at=T0, elapsed_s=20.0),
        backend=backend,
        counts=counts(queued=1, running=3, failed=1),
        events=scheduler_events(on_start=1, on_future_submitted=4, on_future_exception=1),
        calls=(
            call(2, CallState.RUNNING, worker=addresses[0]),
            call(3, CallState.RUNNING, worker=addresses[0]),
            call(4, CallState.RUNNING, worker=addresses[1], progress=far),
            again,
            failed,
        ),
        workers=(
            WorkerRecord(
                name=addresses[0], state="busy", pid=71, call=2, n_calls=2, where="10.0.0.7"
            ),
            WorkerRecord(name=addresses[1], state="busy", call=4, n_calls=1, where="10.0.0.8"),
            WorkerRecord(name="to-come-1", state="to come"),
        ),
        now=T0 + 20,
    )


def cluster(n_workers: int = 1_000, n_machines: int = 32) -> Snapshot:
    """A thousand workers on thirty-two machines, every fourth of them idle."""
    workers = tuple(
        WorkerRecord(
            name=f"tcp://node-{n % n_machines:02d}:{40_000 + n}",
            state="busy" if n % 4 else "idle",
            call=n if n % 4 else None,
            n_calls=int(n % 4 > 0),
            where=f"node-{n % n_machines:02d}",
        )
        for n in range(n_workers)
    )
    backend = BackendRecord(
        name="DaskExecutor",
        options={"address": "tcp://node-00:8786"},
        n_workers=n_workers,
        reports_start=False,
        no_workers_after_s=10.0,
    )
    running = [
        call(w.call, CallState.RUNNING, worker=w.name, started_at=T0)
        for w in workers
        if w.call is not None
    ]
    return Snapshot(
        version=9,
        name="cluster",
        run=RunRecord(state=RunState.RUNNING, n=1, started_at=T0, elapsed_s=20.0),
        backend=backend,
        counts=counts(queued=9_000, running=len(running)),
        events=scheduler_events(on_start=1, on_future_submitted=9_000 + len(running)),
        calls=tuple(running[:300]),
        workers=workers,
        now=T0 + 20,
        n_calls_hidden=9_000 + len(running) - 300,
    )


def journaled() -> Snapshot:
    return replace(
        exhausted(), journal=JournalRecord(name="seeds of ü.db", n_unwritten=1_234, is_failing=True)
    )


ALL = {
    made.__name__: made()
    for made in (
        *(idle, running, paused, stopping, exhausted, exception, hostile, crowd),
        *(waiting, elsewhere, cluster, journaled),
    )
}


def panel() -> Snapshot:
    """One task of `running`, as a snapshot of its own."""
    whole = running()
    task = whole.tasks[0]
    calls = tuple(call for call in whole.calls if call.task == task.ref)
    alone = {"events": (), "tasks": (task,), "workers": (), "log": (), "n_calls_hidden": 0}
    return replace(whole, calls=calls, counts=task.counts, **alone)


def left() -> Snapshot:
    """A task that its scheduler does not have any more."""
    return replace(panel(), tasks=(), calls=(), counts=counts())


_PANEL = ("progress", "queue", "events", "plugins")

# Views without the rest: what they show, which, and the ref of the task they are of.
ALONE: dict[str, tuple[Snapshot, tuple[str, ...], str | None]] = {
    **{
        f"{name}.{view}": (snapshot, (view,), None)
        for name, snapshot in (("idle", idle()), ("running", running()), ("hostile", hostile()))
        for view in VIEWS
    },
    "panel": (panel(), _PANEL, panel().tasks[0].ref),
    "panel.left": (left(), _PANEL, "Task-gone-1"),
}


def expected_outputs() -> dict[str, str]:
    """What the expected files hold, by file name; the style sheet is left out of the HTML."""
    return {**_expected_wholes(), **_expected_alone()}


def _expected_alone() -> dict[str, str]:
    """All views alone in one file for each form, under their names."""
    from amltk_nb.views import alone, html

    outputs = {}
    for form, stable in (("full", False), ("stable", True)):
        texts, pages = [], []
        for name, (snapshot, views, task) in ALONE.items():
            page = alone.render_views(snapshot, views, task=task, stable=stable)
            text = alone.plain_views(snapshot, views, task=task, stable=stable)
            pages.append(f"== {name}\n{page.replace(html.STYLE, '', 1)}")
            texts.append(f"== {name}\n{text}\n")
        outputs[f"alone.{form}.txt"] = "\n".join(texts)
        outputs[f"alone.{form}.html"] = "\n\n".join(pages).replace("><", ">\n<") + "\n"
    return outputs


def _expected_wholes() -> dict[str, str]:
    from amltk_nb.views import html, text

    outputs = {}
    for name, snapshot in ALL.items():
        for form, stable in (("full", False), ("stable", True)):
            outputs[f"{name}.{form}.txt"] = text.plain(snapshot, stable=stable) + "\n"
            page = html.render(snapshot, stable=stable).replace(html.STYLE, "", 1)
            outputs[f"{name}.{form}.html"] = page.replace("><", ">\n<") + "\n"
    return outputs


if __name__ == "__main__":
    for file_name, output in expected_outputs().items():
        (GOLDEN / file_name).write_text(output, encoding="utf-8")
