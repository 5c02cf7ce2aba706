"""The text rendering: exact pictures, nothing hidden, nothing that harms a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel

from amltk_nb.scheduling.snapshot import (
    CallRecord,
    EventRecord,
    LogRecord,
    Snapshot,
    WorkerRecord,
)
from amltk_nb.scheduling.states import CallState
from amltk_nb.views import engine, text, words
from tests.views import snapshots
from tests.views.snapshots import ALL, GOLDEN, HOSTILE, T0

NAMES = sorted(ALL)
# Every code point, lone surrogates included.
ANY_TEXT = st.text(st.characters(categories=None), max_size=60)


def retimed(snapshot: Snapshot, random: Random) -> Snapshot:
    """The same run as another machine would have lived it: other clocks, workers, orders."""
    shift = random.uniform(1, 1e6)

    def call(record: CallRecord) -> CallRecord:
        return replace(
            record,
            submitted_at=record.submitted_at + shift,
            started_at=record.started_at and record.started_at + random.uniform(0, shift),
            ended_at=record.ended_at and record.ended_at + random.uniform(0, shift),
            seconds=record.seconds and record.seconds * random.uniform(1.5, 9),
            worker=record.worker and f"worker-{random.randint(3, 40)}",
        )

    def log(record: LogRecord) -> LogRecord:
        # As the engine writes them: workers by number, processes by id.
        source = re.sub(r"worker-\d+", f"worker-{random.randint(3, 40)}", record.source)
        told = re.sub(r"pid \d+", f"pid {random.randint(1, 9999)}", record.text)
        return replace(record, at=record.at + shift, source=source, text=told)

    def event(record: EventRecord) -> EventRecord:
        # Cells are numbered by execution.
        callbacks = [
            replace(c, cell=c.cell and f"[{random.randint(5, 99)}]") for c in record.callbacks
        ]
        return replace(record, callbacks=tuple(callbacks))

    calls, lines = list(snapshot.calls), list(map(log, snapshot.log))
    random.shuffle(calls)
    random.shuffle(lines)
    run = snapshot.run
    return replace(
        snapshot,
        version=snapshot.version + 7,
        run=replace(run, started_at=T0 + shift, elapsed_s=run.elapsed_s + shift),
        events=tuple(map(event, snapshot.events)),
        tasks=tuple(replace(t, events=tuple(map(event, t.events))) for t in snapshot.tasks),
        calls=tuple(map(call, calls)),
        log=tuple(lines),
        workers=tuple(replace(w, pid=random.randint(1, 9999)) for w in snapshot.workers),
        now=snapshot.now + shift,
    )


@pytest.mark.parametrize("form", ["full", "stable"])
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, form: str) -> None:
    expected = (GOLDEN / f"{name}.{form}.txt").read_text("utf-8")
    assert text.plain(ALL[name], stable=form == "stable") + "\n" == expected


def test_every_golden_file_is_compared() -> None:
    forms = [f"{form}.{ext}" for form in ("full", "stable") for ext in ("txt", "html")]
    expected = {f"{name}.{form}" for name in (*ALL, "alone") for form in forms}
    assert {path.name for path in GOLDEN.iterdir()} == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("idle", "<Scheduler 'seeds': idle, ProcessExecutor(2), no calls>"),
        (
            "running",
            "<Scheduler 'seeds': running, ProcessExecutor(2), "
            "3 queued, 2 running, 3 done, 1 failed>",
        ),
        ("paused", "<Scheduler: paused, ThreadExecutor(4), 2 queued, 1 done>"),
        (
            "stopping",
            "<Scheduler 'seeds': stopping, ProcessExecutor(2), 1 running, 1 done, 1 cancelled>",
        ),
        ("exhausted", "<Scheduler 'seeds': finished (exhausted), ProcessExecutor(2), 4 done>"),
        (
            "exception",
            "<Scheduler 'seeds': finished (exception), ProcessExecutor(1), 1 failed, 1 cancelled>",
        ),
        (
            "waiting",
            "<Scheduler 'seeds': running, SLURMCluster(0), 3 queued, "
            "waiting for workers of SLURMCluster>",
        ),
        (
            "elsewhere",
            "<Scheduler 'seeds': running, DaskExecutor(2), 1 queued, 3 handed over, 1 failed>",
        ),
        (
            "crowd",
            "<Scheduler 'crowd': finished (exhausted), ProcessExecutor(2), 9,999 done, 1 failed>",
        ),
    ],
)
def test_line(name: str, expected: str) -> None:
    assert text.line(ALL[name]) == expected


def test_line_stays_one_short_line_whatever_the_names() -> None:
    said = text.line(ALL["hostile"])
    assert said.isprintable()
    counted = "1 done, 10 failed, waiting for "
    assert len(said) == len(f"<Scheduler '': finished (stopped), (1), {counted}>") + (
        40 + 60 + 60 + 3 * len("… (cut, 259 characters)")
    )


@pytest.mark.parametrize(
    ("run", "n_running", "cannot_end", "expected"),
    [
        ({"grace_ends_at": T0 + 4}, 3, None, "stopping: ends 3 running calls in 4.00 s"),
        ({"grace_ends_at": T0 + 4}, 1, "threads", "stopping: leaves 1 running call in 4.00 s"),
        ({"grace_ends_at": T0}, 3, None, "stopping: ends 3 running calls now"),
        ({"grace_ends_at": T0 - 1}, 3, "threads", "stopping: leaves 3 running calls now"),
        ({"grace_ends_at": T0 + 4}, 0, None, "stopping for 2.00 s"),
        ({}, 3, None, "stopping for 2.00 s"),
    ],
)
def test_what_becomes_of_running_calls(
    run: Any, n_running: int, cannot_end: str | None, expected: str
) -> None:
    old = ALL["stopping"]
    fields: dict[str, Any] = {"stopping_since": T0 - 2, "grace_ends_at": None, **run}
    snapshot = replace(
        old,
        run=replace(old.run, **fields),
        backend=replace(old.backend, cannot_end=cannot_end),
        counts={**old.counts, CallState.RUNNING: n_running},
        now=T0,
    )
    assert words.stopping_note(snapshot) == expected


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_fits_80_columns_and_has_no_control_characters(name: str, stable: bool) -> None:
    rows = text.plain(ALL[name], stable=stable).split("\n")
    assert max(map(cell_len, rows)) == text.PLAIN_WIDTH
    assert [row for row in rows if not row.isprintable()] == []
    assert [row for row in rows if row != row.rstrip()] == []


@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "40", "LINES": "5"},
        {"TERM": "dumb"},
        {"FORCE_COLOR": "1", "COLORTERM": "truecolor"},
        {"NO_COLOR": "1"},
        {"TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"},
        {"JUPYTER_COLUMNS": "50"},
    ],
)
def test_plain_is_the_same_in_every_terminal(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = text.plain(ALL["running"])
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert text.plain(ALL["running"]) == before


@given(st.integers(0, 10**9), st.sampled_from(NAMES))
@settings(max_examples=50)
def test_the_stable_form_does_not_depend_on_timing(seed: int, name: str) -> None:
    other = retimed(ALL[name], Random(seed))
    assert text.plain(other, stable=True) == text.plain(ALL[name], stable=True)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"idle"}))
def test_the_full_form_does_depend_on_timing(name: str) -> None:
    """Else the test above would hold for a rendering that ignores times altogether."""
    assert text.plain(retimed(ALL[name], Random(1))) != text.plain(ALL[name])


def test_colours_only_where_the_console_has_them() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system="truecolor")
    console.print(text.render(ALL["running"]))
    coloured = file.getvalue()
    assert "\x1b[35m╭" in coloured.replace("\x1b[0m", "")  # the magenta box of the guides
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [row.rstrip() for row in stripped.rstrip().split("\n")] == text.plain(
        ALL["running"]
    ).split("\n")


def test_events_stand_in_declaration_order_and_hidden_callbacks_nowhere() -> None:
    picture = text.plain(ALL["running"])
    shown = re.findall(r"^[┃┣┗━]+ +@(\w+)", picture, re.MULTILINE)
    assert shown == [event.name for event in ALL["running"].events]
    assert "_book" not in picture


def test_advice_comes_when_a_wait_is_long_and_not_before() -> None:
    waiting = ALL["waiting"]
    for seconds, is_told in ((9.9, False), (10.0, True)):
        told = text.plain(replace(waiting, now=T0 + seconds))
        assert "waiting" in told
        assert ("has not begun our jobs" in told) is is_told


@pytest.mark.parametrize(
    ("waiting_for", "n_jobs", "advice"),
    [
        ("DaskExecutor to start", None, "Starting takes long."),
        ("workers of DaskExecutor", None, "Nobody is there to run calls."),
        ("workers of SLURMCluster", 0, "Nobody is there to run calls."),
        ("workers of SLURMCluster", 1, "The batch system has not begun our jobs;"),
    ],
)
def test_the_advice_fits_what_it_waits_for(
    waiting_for: str, n_jobs: int | None, advice: str
) -> None:
    backend = replace(ALL["waiting"].backend, waiting_for=waiting_for, n_jobs_waiting=n_jobs)
    assert (engine.waiting_hint(backend) or "").startswith(advice)
    assert engine.waiting_hint(replace(backend, waiting_for=None)) is None


def test_running_is_said_only_of_what_has_begun() -> None:
    seen = ALL["elsewhere"]
    first, _, reporting, *_ = seen.calls
    assert engine.state_word(first, seen.backend) == "handed over"
    assert engine.state_word(reporting, seen.backend) == "running"
    assert engine.state_word(first, replace(seen.backend, reports_start=True)) == "running"


def test_a_crowd_of_workers_is_counted() -> None:
    told = text.plain(ALL["cluster"])
    assert "1,000 workers, 750 busy" in told
    assert "32 on node-04" in told
    assert "node-05 " not in told
    assert "… and 27 more machines" in told


def test_workers_of_which_nobody_knows_what_they_do_are_not_called_idle_or_busy() -> None:
    workers = [WorkerRecord(name="pid-7", state="up", pid=7)]
    assert engine.busy_text(workers) == "1 worker"
    assert engine.busy_text([replace(workers[0], state="idle")]) == "1 worker, 0 busy"


def test_a_call_that_is_held_back_says_when_it_starts() -> None:
    held = snapshots.call(1, CallState.QUEUED, not_before=T0 + 8)
    assert words.time_text(held, T0) == "in 8.00 s"
    assert words.time_text(held, T0 + 8) == "now"
    assert words.time_text(replace(held, not_before=None), T0) == ""


def test_a_task_alone() -> None:
    side = "─" * 27
    rows = ["2 done", "@on_submitted 2", "@on_done 2", "@on_result 2", "@on_returned 2"]
    assert text.plain_task(ALL["exhausted"].tasks[1]).split("\n") == [
        "╭─ Task collatz(n: int) -> int " + "─" * 48 + "╮",
        *(f"│ {row:76} │" for row in rows),
        f"╰─{side} Ref: Task-collatz-2 {side}──╯",
    ]
    limited = text.plain_task(ALL["running"].tasks[0], stable=True)
    assert "concurrent  2/2" in limited
    assert "saved" not in limited


def test_what_the_user_adds_stands_below() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, color_system=None)
    console.print(text.render(ALL["exhausted"], extra=(Panel("mine"), "[bold]more[/]")))
    rows = file.getvalue().split("\n")
    assert rows[-5].startswith("┣━━ ╭───")
    assert rows[-4].startswith("┃   │ mine ")
    assert rows[-2].rstrip() == "┗━━ more"


def test_the_error_that_ended_a_run_is_shown_whole() -> None:
    reason = "ValueError: " + "why " * 30
    broken = replace(ALL["exception"], run=replace(ALL["exception"].run, reason=reason.strip()))
    box = text.plain(broken, stable=True).split("╰─ 42 ms")[0]
    assert box.count("why") == 30


@given(ANY_TEXT)
def test_visible_text_is_harmless(raw: str) -> None:
    for lines in (False, True):
        said = words.visible(raw, lines=lines)
        said.encode("utf-8")  # no lone surrogates
        left = said.translate({ord(c): None for c in "\n\t\u200c\u200d"}) if lines else said
        assert not re.search(
            "[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]", left
        )
        assert words.visible(said, lines=lines) == said


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=60))
def test_ordinary_text_is_left_alone(raw: str) -> None:
    assert words.visible(raw) == raw


def test_the_spelling_of_each_hostile_string() -> None:
    assert [words.visible(raw) for raw in HOSTILE[4:7]] == [
        "\\x1b[31mred\\x1b[0m\\x07\\x9b2J",
        "user\\u202etxt.exe\\u2066\\u200f",
        "\\ud800 and \\udfff",
    ]
    assert words.visible(HOSTILE[8]) == "line one\\r\\nline two\\u2028three\\x00"
    assert words.visible(HOSTILE[8], lines=True) == "line one\nline two\\u2028three\\x00"
    assert words.visible("👩\u200d🔬 \U000e0041") == "👩\u200d🔬 \\U000e0041"


def test_long_text_is_cut_with_a_note() -> None:
    assert words.visible("x" * 12, 12) == "x" * 12
    assert words.visible("x" * 1_000_013, 12) == "x" * 12 + "… (cut, 1,000,013 characters)"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1.0, "0 ms"),
        (0.0004, "0 ms"),
        (0.0421, "42 ms"),
        (0.0994, "99 ms"),
        (0.0996, "0.10 s"),
        (9.99, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (75.4, "1 min 15 s"),
        (3599.6, "1 h 00 min"),
        (3725, "1 h 02 min"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_duration(seconds: float, expected: str) -> None:
    assert words.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "none"),
        (True, "yes"),
        (3, "3"),
        (0.1, "0.1"),
        ("9/20", "9/20"),
        ((1, "a", False), "1, a, no"),
        ({"a": 1, "b": [2]}, "a: 1, b: 2"),
        pytest.param(10**5000, "<int without a repr: ValueError>", id="huge"),
    ],
)
def test_value_text(value: object, expected: str) -> None:
    assert words.value_text(value) == expected


def test_steady_text_keeps_everything_but_what_differs_between_runs() -> None:
    said = "worker-12 (pid 4212, pid=7) broke <Model at 0x7Fd0c0> on 0xff of coworker-1"
    expected = "worker (pid …, pid=…) broke <Model at 0x…> on 0xff of coworker-1"
    assert words.steady(said) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("{'address': 'tcp://127.0.0.1:40313'}", "{'address': 'tcp://127.0.0.1:…'}"),
        (
            "tls://node-7.site.org:8786 and ucx://[::1]:1",
            "tls://node-7.site.org:… and ucx://[::1]:…",
        ),
        ("tcp://127.0.0.1 at 12:30, x:1", "tcp://127.0.0.1 at 12:30, x:1"),
    ],
)
def test_steady_addresses_keep_their_host(raw: str, expected: str) -> None:
    assert words.steady(raw) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("/tmp/ipykernel_77/3141.py:2 and C:\\Users\\me\\a.b.py", "3141.py and a.b.py"),
        ("'/a/b/c.py', \"/d/e.py\"", "'c.py', \"e.py\""),
        ("/data/x.csv lib/task.py:3 1/2/3 /a.py", "/data/x.csv lib/task.py:3 1/2/3 /a.py"),
        ("/a" * 4000, "/a" * 4000),
    ],
    ids=["kernel", "quoted", "not sources", "many slashes"],
)
def test_steady_source_files_keep_their_names(raw: str, expected: str) -> None:
    assert words.steady(raw) == expected


def test_steady_tracebacks_keep_what_was_raised() -> None:
    said = (
        "KeyError: 'a'\n\nDuring handling of the above:\n\n"
        "Traceback (most recent call last):\n"
        '  File "/tmp/ipykernel_77/3141.py", line 3, in record\n'
        "    raise ValueError(1)\n"
        "ValueError: 1\nemitted at /srv/lib/task.py:213 in tell.\n"
    )
    assert words.steady(said) == (
        "KeyError: 'a'\n\nDuring handling of the above:\n\n"
        "ValueError: 1\nemitted at task.py in tell.\n"
    )


def test_measured_times_of_plugins_are_not_stable() -> None:
    cache = snapshots.running().tasks[0].plugins[1]
    assert words.plugin_rows(cache, stable=False) == [
        ("hits", "3"),
        ("misses", "6"),
        ("saved", "1.50 s"),
    ]
    assert words.plugin_rows(cache, stable=True) == [("hits", "3"), ("misses", "6")]


def test_the_stable_log_is_sorted_as_people_count() -> None:
    assert [record.id for record in words.stable_log(ALL["running"].log)] == [3, 2, 4]


def test_stable_cuts_do_not_depend_on_the_length_of_what_is_left_out() -> None:
    def long(address: str) -> str:
        return words.said(f"<A at {address}> {'x' * 20}", 20, stable=True)

    assert long("0x7f") == long("0x7fd0c0ffee10") == "<A at 0x…> xxxxxxxxx… (cut)"
    assert words.said("<A at 0x7fd0c0ffee10>", 10, stable=True) == "<A at 0x…>"
    assert words.said("x" * 9, 9, stable=True) == "x" * 9
    assert words.said("worker-1 " * 9, 99, stable=False) == "worker-1 " * 9


@pytest.mark.parametrize("draw", [text.plain, text.line])
def test_drawing_does_not_change_what_is_drawn(draw: Callable[[Snapshot], str]) -> None:
    before = snapshots.running()
    assert draw(before) == draw(before)
    assert before == snapshots.running()
