"""Messages from the page: the known ones do one public thing, all others are refused."""

from __future__ import annotations

import asyncio
import gc
import json
from concurrent.futures.process import _RemoteTraceback  # type: ignore[attr-defined]
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amltk_nb import Scheduler
from amltk_nb.errors import CommandError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.shipping import RemoteTraceback
from amltk_nb.scheduling.states import CallState
from amltk_nb.views.commands import COMMANDS, command_of, dispatch_command
from amltk_nb.views.detail import MAX_CHARACTERS
from amltk_nb.views.model import SCHEMA
from tests.views.standin import StandInScheduler


def add(a: int, b: int = 2, *more: int, scale: float = 1.0) -> float:
    return (a + b + sum(more)) * scale


def a_call(id: int = 1, state: CallState = CallState.DONE, **fields: Any) -> Call:
    call = Call(id, add, (1,), {"scale": 2.0})
    call.state = state
    for name, value in fields.items():
        setattr(call, name, value)
    return call


def send(scheduler: StandInScheduler, name: Any, **args: Any) -> dict[str, Any]:
    message = {"kind": "command", "id": 5, "name": name, "args": args}
    reply = dispatch_command(scheduler, message)  # type: ignore[arg-type]
    json.dumps(reply, ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert set(reply) == {"kind", "id", "ok", "error", "value"}
    assert (reply["kind"], reply["id"]) == ("reply", 5)
    return reply


def refusal(scheduler: StandInScheduler, name: Any, **args: Any) -> str:
    reply = send(scheduler, name, **args)
    assert reply["ok"] is False
    assert reply["value"] is None
    assert isinstance(reply["error"], str)
    return reply["error"]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("start", ("start", {"display": False})),
        ("pause", ("pause",)),
        ("resume", ("resume",)),
        ("stop", ("stop", None)),
        ("stop_now", ("stop", False)),
        ("restart_workers", ("restart_workers",)),
    ],
)
def test_a_plain_command_is_one_public_method(name: str, asked: tuple[Any, ...]) -> None:
    scheduler = StandInScheduler()
    assert send(scheduler, name) == {
        "kind": "reply",
        "id": 5,
        "ok": True,
        "error": None,
        "value": None,
    }
    assert scheduler.asked == [asked]


def test_cancel_says_whether_it_could() -> None:
    scheduler = StandInScheduler(a_call(1, CallState.RUNNING), a_call(2, CallState.DONE))
    assert send(scheduler, "cancel", call=1)["value"] == {"cancelled": True}
    assert send(scheduler, "cancel", call=2)["value"] == {"cancelled": False}
    assert scheduler.asked == [("cancel", 1), ("cancel", 2)]


def test_what_the_backend_cannot_do_is_the_error_it_says() -> None:
    scheduler = StandInScheduler(a_call(1, CallState.RUNNING, worker="a thread"))
    assert refusal(scheduler, "cancel", call=1) == "threads cannot be ended; wait for it."


def test_resubmit_answers_with_the_new_call() -> None:
    scheduler = StandInScheduler(a_call(1))
    assert send(scheduler, "resubmit", call=1)["value"] == {"call": 101}


def test_resubmit_failed_takes_the_failed_ones_only() -> None:
    calls = [a_call(1), a_call(2, CallState.FAILED), a_call(3, CallState.FAILED)]
    scheduler = StandInScheduler(*calls)
    assert send(scheduler, "resubmit_failed")["value"] == {"n": 2}
    assert scheduler.asked == [("resubmit", 2), ("resubmit", 3)]


def test_rows_are_a_bounded_page_of_records() -> None:
    scheduler = StandInScheduler()
    rows = send(scheduler, "rows", state="failed", before=50, limit=3)["value"]["rows"]
    assert [(row["id"], row["state"]) for row in rows] == [
        (49, "failed"),
        (48, "failed"),
        (47, "failed"),
    ]
    assert len(send(scheduler, "rows")["value"]["rows"]) == 200
    assert scheduler.asked == [("calls", CallState.FAILED, 50, 3), ("calls", None, None, 200)]


def test_detail_has_every_parameter_by_name() -> None:
    call = a_call(1, result_text="6.0", output="hello\n", resubmitted_from=4)
    assert send(StandInScheduler(call), "detail", call=1)["value"] == {
        "call": 1,
        "state": "done",
        "function": "add",
        "arguments": [{"name": "a", "text": "1"}, {"name": "scale", "text": "2.0"}],
        "result": "6.0",
        "result_is_part": False,
        "error": None,
        "output": "hello\n",
        "resubmitted_from": 4,
    }


def test_detail_of_a_long_result_has_all_of_it_while_somebody_keeps_the_future() -> None:
    async def main() -> None:
        scheduler = Scheduler.with_sequential()
        async with scheduler:
            kept = scheduler.submit(list, range(500))
            gone = scheduler.submit(list, range(501)).call.id
            scores = {f"score {n}": n / 7 for n in range(20)}
            row = scheduler.submit(dict, scores).call.id
            short = scheduler.submit(list, range(3)).call.id

        def result_of(call: int) -> tuple[str, bool]:
            message = {"kind": "command", "id": 1, "name": "detail", "args": {"call": call}}
            value = dispatch_command(scheduler, message)["value"]
            return value["result"], value["result_is_part"]

        gc.collect()
        assert result_of(kept.call.id) == (repr(list(range(500))), False)
        text, is_part = result_of(gone)
        assert is_part
        assert text.startswith("[0, 1, 2")
        assert text.endswith("39, ...]")
        assert result_of(row) == (repr(scores), False), "some hundred characters are kept"
        assert result_of(short) == ("[0, 1, 2]", False)

    asyncio.run(main())


def test_detail_of_arguments_that_do_not_fit_counts_them() -> None:
    call = Call(1, add, (), {"c": 1})
    value = send(StandInScheduler(call), "detail", call=1)["value"]
    assert value["arguments"] == [{"name": "c", "text": "1"}]
    builtin = Call(1, min, (3, 4), {})
    value = send(StandInScheduler(builtin), "detail", call=1)["value"]
    assert value["arguments"] == [{"name": "0", "text": "3"}, {"name": "1", "text": "4"}]


def test_detail_of_an_error_ends_with_what_it_said() -> None:
    try:
        raise ValueError("bad C")
    except ValueError as error:
        call = a_call(1, CallState.FAILED, error=error)
    text = send(StandInScheduler(call), "detail", call=1)["value"]["error"]
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ValueError: bad C\n")


@pytest.mark.parametrize("library", ["ours", "concurrent.futures"])
def test_detail_of_an_error_from_a_worker_is_the_workers_traceback(library: str) -> None:
    told = 'Traceback (most recent call last):\n  File "cell", line 1\nKeyError: "a"\n'
    error = KeyError("a")
    cause = RemoteTraceback(told) if library == "ours" else _RemoteTraceback(f'\n"""\n{told}"""')
    error.__cause__ = cause
    call = a_call(1, CallState.FAILED, error=error)
    assert send(StandInScheduler(call), "detail", call=1)["value"]["error"] == told


def test_an_error_that_cannot_be_printed_is_named() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    call = a_call(1, CallState.FAILED, error=Mute())
    text = send(StandInScheduler(call), "detail", call=1)["value"]["error"]
    assert "Mute: <exception str() failed>" in text


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def endless(depth: int) -> list[Any]:
    value: list[Any] = [0] * 1_000
    for _ in range(depth):
        value = [value] * 1_000
    return value


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000_000, "\ud800" * 60_000, b"x" * 1_000_000, endless(15), Unshowable(), 10**4_000],
    ids=["10 MB", "surrogates", "bytes", "nested", "no repr", "long int"],
)
def test_detail_is_bounded_and_can_be_sent_whatever_the_argument_is(value: Any) -> None:
    call = Call(1, add, (value,), {})
    argument = send(StandInScheduler(call), "detail", call=1)["value"]["arguments"][0]
    assert argument["name"] == "a"
    # A lone surrogate takes six characters to write and each cut has its note.
    assert 0 < len(argument["text"]) <= 7 * MAX_CHARACTERS


def test_a_dict_among_the_arguments_keeps_its_order() -> None:
    call = Call(1, add, ({"b": {2: 0, 1: 0}, "a": 1},), {})
    [argument] = send(StandInScheduler(call), "detail", call=1)["value"]["arguments"]
    assert argument == {"name": "a", "text": "{'b': {2: 0, 1: 0}, 'a': 1}"}


def test_the_end_of_a_long_output_is_kept() -> None:
    call = a_call(1, output="x" * 200_000 + "the end")
    output = send(StandInScheduler(call), "detail", call=1)["value"]["output"]
    assert output.startswith("[100007 characters cut] … x")
    assert output.endswith("the end")


def test_unknown_names_and_arguments_are_refused_with_those_that_are_known() -> None:
    scheduler = StandInScheduler()
    known = "cancel, detail, edit, form, pause, restart_workers, resubmit, resubmit_failed, "
    known += "resubmit_with, resume, rows, snapshot, start, stop, stop_now, submit"
    assert refusal(scheduler, "__class__") == f"No command '__class__'; there are {known}."
    assert refusal(scheduler, "stop", wait=False) == "stop takes no arguments, not ['wait']."
    assert refusal(scheduler, "cancel", call=1, x=2) == "cancel takes call, not ['x']."
    assert scheduler.asked == []


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (SCHEMA + 1, f"The kernel's amltk_nb is older ({SCHEMA}) than this page's part (2)"),
        (0, f"This page's part of amltk_nb is older (0) than the kernel's ({SCHEMA})"),
        ("<b>", f"This page's part of amltk_nb is older ('<b>') than the kernel's ({SCHEMA})"),
        (SCHEMA, None),
    ],
)
def test_a_hello_says_the_pages_version(schema: Any, why: str | None) -> None:
    scheduler = StandInScheduler()
    if why is None:
        assert send(scheduler, "snapshot", schema=schema)["ok"]
    else:
        assert refusal(scheduler, "snapshot", schema=schema).startswith(why)
    assert send(scheduler, "snapshot", of_a_later="version")["ok"]
    assert scheduler.asked == []


@pytest.mark.parametrize("value", [None, "1", 1.0, True, 0, -3, [1], {"id": 1}])
def test_a_call_must_be_its_id(value: Any) -> None:
    scheduler = StandInScheduler(a_call(1))
    assert "must be the id of a call" in refusal(scheduler, "cancel", call=value)
    assert scheduler.asked == []


def test_a_call_that_is_gone_is_said_to_be() -> None:
    error = refusal(StandInScheduler(), "detail", call=99)
    assert error == "There is no call 99; it may have left the history."


@pytest.mark.parametrize(
    "args", [{"limit": 0}, {"limit": 201}, {"limit": True}, {"state": "lost"}, {"before": "9"}]
)
def test_rows_checks_its_arguments(args: dict[str, Any]) -> None:
    scheduler = StandInScheduler()
    assert next(iter(args)) in refusal(scheduler, "rows", **args)
    assert scheduler.asked == []


def test_an_unexpected_error_reaches_the_page_and_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(StandInScheduler):
        def pause(self) -> None:
            raise ZeroDivisionError("really")

    assert refusal(Broken(), "pause") == "ZeroDivisionError: really"
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_only_what_promises_it_runs_on_any_thread() -> None:
    at_once = {name for name, command in COMMANDS.items() if command.any_thread}
    assert at_once == {"stop", "stop_now", "pause", "resume", "cancel"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.just("command") | JSON,
        "id": st.integers() | JSON,
        "name": st.sampled_from([*COMMANDS, "eval"]) | JSON,
        "args": st.dictionaries(
            st.sampled_from(["call", "state", "before", "limit", "entries", "stamp", "x"]),
            JSON,
            max_size=3,
        )
        | JSON,
    },
)


def understood(message: Any) -> bool:
    try:
        command_of(message)
    except CommandError:
        return False
    return True


@given(st.lists(JSON | NEARLY, min_size=1, max_size=4))
def test_no_message_raises_and_every_refused_one_did_nothing(messages: list[Any]) -> None:
    for message in messages:
        scheduler = StandInScheduler(a_call(1))
        reply = dispatch_command(scheduler, message)  # type: ignore[arg-type]
        json.dumps(reply, ensure_ascii=False, allow_nan=False).encode("utf-8")
        if not understood(message):
            assert reply["ok"] is False
            assert scheduler.asked == []
