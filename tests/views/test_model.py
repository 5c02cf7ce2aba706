"""Snapshot to model, model to patch: nothing lost, nothing unbounded, nothing JSON cannot carry."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amltk_nb.scheduling.snapshot import (
    CallbackRecord,
    EventRecord,
    JournalRecord,
    LogRecord,
    PluginRecord,
)
from amltk_nb.scheduling.states import CallState
from amltk_nb.views import model as m
from amltk_nb.views.model import (
    COLLECTIONS,
    N_MACHINES,
    N_WORKERS,
    apply,
    diff,
    safe_text,
    to_model,
)
from tests.views.snapshots import ALL, T0
from tests.views.standin import call_record, snapshot

VALUES = st.none() | st.integers(0, 3) | st.text(max_size=3)
RECORDS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)
MODELS = st.fixed_dictionaries(
    {name: st.dictionaries(st.sampled_from("123"), RECORDS) for name in ("run", "calls", "log")}
)
TEXTS = st.text(st.characters(codec=None), max_size=30)  # lone surrogates included


@given(MODELS, MODELS)
def test_a_patch_turns_the_old_model_into_the_new_one(old: m.Model, new: m.Model) -> None:
    before = json.dumps(old)
    patch = diff(old, new)
    assert apply(patch, old) == new
    assert json.dumps(old) == before
    assert (patch is None) == (old == new)


@given(MODELS, MODELS)
def test_a_patch_names_only_what_changed(old: m.Model, new: m.Model) -> None:
    for name, change in (diff(old, new) or {}).items():
        assert all(old[name].get(key) != r for key, r in change.get("upsert", {}).items())
        assert sorted(change.get("remove", [])) == sorted(set(old[name]) - set(new[name]))


@given(name=TEXTS, args=TEXTS, text=TEXTS, key=TEXTS, value=TEXTS)
def test_whatever_a_program_names_its_things_the_message_can_be_sent(
    name: str, args: str, text: str, key: str, value: str
) -> None:
    shown = to_model(
        snapshot(
            name=name,
            events=(EventRecord(name=name, callbacks=(CallbackRecord(text=text, name=name),)),),
            calls=(call_record(1, args=args, error=text, worker=name, task=name),),
            tasks=(),
            log=(LogRecord(id=1, at=0.0, source=name, level=key, text=text),),
        )
    )
    sent = json.dumps(shown, allow_nan=False, ensure_ascii=False).encode("utf-8")
    assert json.loads(sent) == shown


def test_the_records_are_what_the_page_reads() -> None:
    shown = to_model(snapshot())
    assert tuple(shown) == COLLECTIONS
    assert shown["run"] == {
        "run": {"name": "demo", "state": "running", "n": 1, "started_at": 1000.0}
    }
    assert shown["backend"]["backend"] == {
        "name": "ProcessExecutor",
        "options": {"max_workers": 2},
        "n_workers": 2,
        "n_there": 1,
    }
    assert {state: c["n"] for state, c in shown["counts"].items()} == {
        "queued": 0,
        "running": 1,
        "done": 2,
        "failed": 0,
        "cancelled": 0,
        "hidden": 0,
    }
    assert list(shown["events"]) == [
        "scheduler/on_start",
        "scheduler/on_stop",
        "Task-f-1/on_result",
    ]
    assert shown["events"]["Task-f-1/on_result"] == {
        "emitter": "Task-f-1",
        "name": "on_result",
        "count": 2,
        "order": 2,
    }
    assert shown["callbacks"] == {
        "Task-f-1/on_result/0": {
            "event": "Task-f-1/on_result",
            "text": "def record(r: int) -> None",
            "n_calls": 2,
            "cell": "[3]",
            "order": 0,
        }
    }
    assert shown["plugins"]["Task-f-1/0"]["state"] == {"calls": "3/10", "concurrent": "2/2"}
    assert shown["calls"]["2"] == {
        "id": 2,
        "task": "Task-f-1",
        "function": "f",
        "args": "2",
        "state": "done",
        "submitted_at": 1002.0,
        "ended_at": 1003.0,
        "seconds": 0.5,
    }
    assert shown["workers"] == {"worker-1": {"state": "busy", "pid": 41, "call": 3, "order": 0}}
    assert shown["log"]["7"]["text"] == "started"


def test_time_alone_changes_nothing() -> None:
    assert diff(to_model(snapshot(now=1.0)), to_model(snapshot(now=2.0))) is None


def test_one_finished_call_is_one_record() -> None:
    before = snapshot()
    ended = call_record(3, CallState.DONE, started_at=1004.0, ended_at=1005.0, worker="worker-1")
    patch = diff(to_model(before), to_model(snapshot(calls=(ended, *before.calls[1:]))))
    assert patch is not None
    assert list(patch) == ["calls"]
    assert list(patch["calls"]["upsert"]) == ["3"]
    assert patch["calls"]["upsert"]["3"]["state"] == "done"


def test_the_queue_is_bounded_by_kind_and_the_rest_is_counted() -> None:
    calls = [call_record(i, CallState.RUNNING) for i in range(1, 202)]
    calls += [call_record(i, CallState.QUEUED) for i in range(1000, 1400)]
    calls += [call_record(i, CallState.FAILED) for i in range(2000, 2300)]
    shown = to_model(snapshot(calls=tuple(calls), n_calls_hidden=7))
    states = [record["state"] for record in shown["calls"].values()]
    assert [states.count(s) for s in ("running", "queued", "failed")] == [100, 30, 60]
    assert shown["counts"]["hidden"] == {"n": 7 + 101 + 370 + 240}
    assert "1029" in shown["calls"]
    assert "1030" not in shown["calls"]


def test_an_engine_elsewhere_says_what_it_waits_for_and_where_its_calls_are() -> None:
    waiting = to_model(ALL["waiting"])["backend"]["backend"]
    assert waiting.pop("hint").startswith("The batch system has not begun our jobs")
    assert waiting == {
        "name": "SLURMCluster",
        "options": {"n_workers": 2, "queue": "short"},
        "n_workers": 0,
        "n_there": 0,
        "cannot_restart": "workers of this engine are not replaced",
        "reports_start": False,
        "waiting_for": "workers of SLURMCluster",
        "waiting_since": T0,
        "no_workers_after_s": 10.0,
        "n_jobs_waiting": 2,
    }
    shown = to_model(ALL["elsewhere"])
    assert shown["backend"]["backend"]["n_there"] == 2
    assert shown["backend"]["backend"]["n_to_come"] == 1
    first, second = "tcp://10.0.0.7:40713", "tcp://10.0.0.8:40813"
    of_first = {"state": "busy", "pid": 71, "call": 2, "n_calls": 2, "where": "10.0.0.7"}
    assert shown["workers"] == {
        first: of_first | {"order": 0},
        second: {"state": "busy", "call": 4, "where": "10.0.0.8", "order": 1},
    }
    assert shown["machines"] == {}
    assert shown["calls"]["5"]["not_before"] == T0 + 22.5
    assert "not_before" not in shown["calls"]["1"]


def test_a_thousand_workers_are_thirty_and_counts_by_machine() -> None:
    shown = to_model(ALL["cluster"])
    assert len(shown["workers"]) == N_WORKERS == 30
    assert len(shown["machines"]) == N_MACHINES == 30
    assert shown["backend"]["backend"]["n_there"] == 1_000
    assert shown["machines"]["node-01"] == {"n_workers": 32, "n_busy": 32, "order": 1}
    # All of them have another call: what a page gets of that must stay small.
    later = [replace(w, call=(w.call or 0) + 1_000, state="busy") for w in ALL["cluster"].workers]
    patch = diff(shown, to_model(replace(ALL["cluster"], workers=tuple(later))))
    assert patch is not None
    assert sorted(patch) == ["machines", "workers"]
    assert len(json.dumps(patch)) < 6_000


def test_a_thousand_calls_a_second_stay_below_fifty_kilobytes() -> None:
    calls = tuple(
        call_record(
            i, args=f"{i}, depth=3", started_at=1.5, ended_at=2.5, seconds=1.0, worker="w-1"
        )
        for i in range(1_000_000, 1_000_300)
    )
    patch = diff(to_model(snapshot(calls=())), to_model(snapshot(calls=calls)))
    assert patch is not None
    assert len(patch["calls"]["upsert"]) == 60
    assert len(json.dumps(patch)) < 15_000  # the rest is for running and queued ones, and counts


def test_the_log_is_the_newest_lines() -> None:
    lines = tuple(
        LogRecord(id=i, at=0.0, source="s", level="info", text="x" * 10_000) for i in range(400)
    )
    shown = to_model(snapshot(log=lines))["log"]
    assert next(iter(shown)) == "100"
    assert len(shown) == 300
    assert shown["399"]["text"] == "x" * 4_000 + " … [6000 characters cut]"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (3, 3),
        (True, True),
        (None, None),
        (2.5, 2.5),
        ("2/2", "2/2"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**60, str(2**60)),
        ([1, 2], "[1, 2]"),
    ],
)
def test_plugin_values_are_what_json_and_a_page_read_alike(value: Any, sent: Any) -> None:
    task = snapshot().tasks[0]
    plugin = PluginRecord(name="p", state={"value": value})
    shown = to_model(
        snapshot(tasks=(type(task)(ref="t", function="f", signature="f()", plugins=(plugin,)),))
    )
    assert shown["plugins"]["t/0"]["state"] == {"value": sent}
    assert type(shown["plugins"]["t/0"]["state"]["value"]) is type(sent)


def test_safe_text_keeps_the_end_that_matters_and_says_what_it_cut() -> None:
    assert safe_text("abcdef", 6) == "abcdef"
    assert safe_text("abcdef", 4) == "abcd … [2 characters cut]"
    assert safe_text("abcdef", 4, keep="end") == "[2 characters cut] … cdef"
    assert safe_text("a\ud800é", 10) == "a\\ud800é"


def test_a_value_whose_text_fails_is_named_instead() -> None:
    class Awkward:
        def __str__(self) -> str:
            raise KeyError("no")

    assert safe_text(Awkward(), 100) == "<Awkward whose str() raised KeyError>"


def test_the_journal_is_named_and_warns_only_when_it_lacks_something() -> None:
    def told(**fields: Any) -> dict[str, Any]:
        run = to_model(snapshot(journal=JournalRecord(name="run.db", **fields)))["run"]["run"]
        return {key: value for key, value in run.items() if key.startswith("journal")}

    assert "journal" not in to_model(snapshot())["run"]["run"]
    assert told() == {"journal": "journal run.db"}
    assert told(is_closed=True) == {"journal": "journal run.db (closed)"}
    failing = told(is_failing=True)["journal_warning"]
    assert failing == (
        "The journal cannot be written for now, and it is tried again; the log says why."
    )
    for n, entries in ((1, "1 entry"), (1_234, "1,234 entries")):
        assert told(n_unwritten=n, is_failing=True)["journal_warning"] == (
            f"The journal lacks {entries}, so recover() may not find all calls; the log says why."
        )
