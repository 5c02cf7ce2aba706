"""Forms: which field a parameter gets, what is entered and what becomes of it, what is refused."""

from __future__ import annotations

import ast
import enum
import gc
import inspect
import json
import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amltk_nb import Comm, Scheduler
from amltk_nb.errors import CommandError, FormError, SchedulerNotRunningError
from amltk_nb.scheduling.call import Call
from amltk_nb.testing import ManualBackend
from amltk_nb.views.commands import dispatch_command
from amltk_nb.views.fields import MISSING, Field, entry_of, read_entry
from amltk_nb.views.forms import TaskForm, form_of_call, resubmit_with
from amltk_nb.views.kinds import field_for
from amltk_nb.views.literals import MAX_CHARS, MAX_DEPTH, literal_text, read_literal
from tests.scheduling.conftest import settled


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Model:
    """No text stands for it."""

    def __repr__(self) -> str:
        return "Model(3)"


# ------------------------------------------------------------------------ literals

LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.complex_numbers(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl"]))
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
        | st.sets(st.integers() | st.text(max_size=3), max_size=3)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """Equal and of the same types throughout; 1, 1.0 and True are three things, as 0.0 and -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return bool(a == b)


@given(LITERALS)
def test_a_literal_is_read_as_it_was_written(value: Any) -> None:
    text = literal_text(value)
    if text is None:
        assert isinstance(value, complex) or "j" in repr(value)  # a sign of zero would be lost
    else:
        assert same(read_literal(text), value)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


NO_TEXT: list[Any] = [
        Model(), object, float("nan"), [float("inf")], range(3), ..., frozenset({1}), 10**4_300,
        "x" * (MAX_CHARS + 1), ["x" * 200] * 200, [0] * 100_000, nested(MAX_DEPTH + 1), endless(),
        type("List", (list,), {})([1]), complex(-0.0, 1),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_TEXT, ids=[str(n) for n in range(len(NO_TEXT))])
def test_what_no_text_stands_for_has_none(value: Any) -> None:
    assert literal_text(value) is None


def test_depth_is_bounded_on_both_sides_alike() -> None:
    deepest = nested(MAX_DEPTH)
    assert read_literal(literal_text(deepest) or "") == deepest
    with pytest.raises(ValueError, match="at most 20 brackets within each other"):
        read_literal(repr(nested(MAX_DEPTH + 1)))


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "abc", "__import__('os').system('id')", "().__class__", "lambda: 0", "f'{1}'",
        "F'a'", "rf'a'", "1+1", "1+1+1+1+1", "2**9", "[x for x in (1,)]", "1 if 1 else 2", "{**{}}",
        "[*(1,)]", "print(1)", "set([1])", "a := 1", "x = 1", "1; 2", "1\n2", "nan", "`1`", "\\",
        "[1, 2", "1]", "'open", "0777", "1 2", "{[]: 1}", "\0", "'\ud800'", "\ud800", "#",
        "[" * 9_000, "-" * 9_000, "~" * 9_000, "(" * 100 + ")" * 100, "9" * 5_000,
        "not " * 2_000 + "1",
        "1+" * 9_000 + "1", "a." * 9_000 + "a", "1," * 30_000, "'a' % 'b'", "...", "b'ä'",
        "await x",
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_what_is_no_literal_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError) as refusal:
        read_literal(text)
    said = str(refusal.value)
    assert said.endswith(".")
    assert "\n" not in said
    assert len(said) < 200


@given(st.text(st.sampled_from("()[]{},:+-'\"1e.jbrfTrue None \\#=*\n_"), max_size=60))
def test_no_text_gets_past_but_values_of_literals(text: str) -> None:
    try:
        value = read_literal(text)
    except ValueError:
        return
    assert same(value, ast.literal_eval(text.strip()))


def test_odd_escapes_warn_nobody(recwarn: pytest.WarningsRecorder) -> None:
    assert read_literal(r"'\d'") == r"\d"
    assert list(recwarn) == []


# ------------------------------------------------------------------------ which field

KINDS: list[tuple[dict[str, Any], str, Any]] = [
    ({"hint": bool}, "bool", False),
    ({"value": True}, "bool", True),
    ({"hint": int}, "int", MISSING),
    ({"hint": int, "value": 3}, "int", 3),
    ({"hint": int, "value": 2.5}, "float", 2.5),
    ({"value": 3}, "number", 3),
    ({"hint": float}, "float", MISSING),
    ({"hint": float, "value": 3}, "number", 3),
    ({"value": 2.5}, "float", 2.5),
    ({"hint": int | float}, "number", MISSING),
    ({"hint": int | None}, "int", None),
    ({"hint": float | None, "value": 2.0}, "float", 2.0),
    ({"hint": "int | None", "value": None}, "literal", None),
    ({"hint": str}, "text", MISSING),
    ({"value": "a"}, "text", "a"),
    ({"value": "two\nlines"}, "text", "two\nlines"),
    ({"value": "hidden\u202e"}, "literal", "hidden\u202e"),
    ({"hint": str | None}, "literal", MISSING),
    ({"hint": str | None, "value": None}, "literal", None),
    ({"hint": bool | None, "value": None}, "literal", None),
    ({}, "literal", MISSING),
    ({"hint": Any}, "literal", MISSING),
    ({"value": None}, "literal", None),
    ({"hint": list[int]}, "literal", MISSING),
    ({"value": [1, 2]}, "literal", [1, 2]),
    ({"hint": Literal["a", "b"]}, "choice", "a"),
    ({"hint": Literal["a", "b"], "value": "b"}, "choice", "b"),
    ({"hint": Literal["a", "b"], "value": "c"}, "text", "c"),
    ({"hint": Literal[1, 2] | None, "value": None}, "choice", None),
    ({"hint": Color}, "choice", Color.RED),
    ({"hint": Color, "value": Color.BLUE}, "choice", Color.BLUE),
    ({"hint": (0, 10)}, "slider", 5),
    ({"hint": (0, 10), "value": 50}, "number", 50),
    ({"hint": ["a", "b"], "value": "b"}, "choice", "b"),
    ({"hint": "not.known", "value": 1}, "number", 1),
    ({"override": (0, 10)}, "slider", 5),
    ({"override": (0, 10, 5), "value": 10}, "slider", 10),
    ({"override": (0.0, 1.0)}, "slider", 0.5),
    ({"override": [1, 2, 3], "value": 2}, "choice", 2),
    ({"override": {"one": 1, "two": 2}}, "choice", 1),
    ({"override": [("one", 1), ("two", 2)]}, "choice", 1),
    ({"override": 7, "hint": int}, "int", 7),
    ({"override": "x", "value": 3}, "text", "x"),
    ({"value": float("nan")}, "float", float("nan")),
    ({"value": 10**4_400}, "kept", 10**4_400),
]


@pytest.mark.parametrize(("given", "kind", "value"), KINDS, ids=[str(n) for n in range(len(KINDS))])
def test_hints_defaults_and_overrides_choose_the_field(
    given: dict[str, Any], kind: str, value: Any
) -> None:
    field = field_for("x", **given)
    assert field.kind == kind
    assert field.value is value or same(field.value, value)


def test_what_no_text_stands_for_is_kept() -> None:
    model = Model()
    field = field_for("x", hint=Model, value=model)
    assert (field.kind, field.value) == ("kept", model)
    assert entry_of(field, model) is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ((10, 0), "from a lower to a higher number"),
        ((0, 10, 0), "positive steps"),
        ((0, 10, 11), "not longer than that"),
        ((0.0, float("inf")), "from a lower to a higher"),
        ([], "from 1 to 200 options, not 0"),
        (list(range(201)), "from 1 to 200 options, not 201"),
        (["b", "c"], "its default 'a' is none of the options"),
        ((0, 10), "its default 'a' is not in there"),
    ],
)
def test_overrides_that_make_no_sense_say_why(override: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        field_for("x", value="a", override=override)


# ------------------------------------------------------------------------ entries

VALUES = LITERALS | st.floats() | st.integers(-(10**20), 10**20)
HINTS = st.sampled_from([MISSING, int, float, bool, str, int | None, float | None, list, dict, Any])


@given(VALUES, HINTS)
def test_a_value_comes_back_through_its_field(value: Any, hint: Any) -> None:
    field = field_for("x", hint=hint, value=value)
    entry = entry_of(field, value)
    if entry is None:
        assert field.kind == "kept"
        assert literal_text(value) is None
        return
    json.dumps(entry, ensure_ascii=False).encode("utf-8")
    assert same(read_entry(field, entry), value)


@given(st.integers(-5, 5) | st.sampled_from(["a", "b", True, None, Color.RED, 1.0]))
def test_an_option_comes_back_through_its_choice(value: Any) -> None:
    options = [*range(-5, 6), "a", "b", True, None, Color.RED, 1.0]
    field = field_for("x", value=value, override=options)
    entry = entry_of(field, value)
    assert entry is not None
    assert same(read_entry(field, entry), value)


READ: list[tuple[Field, Any, Any]] = [
    (field_for("x", hint=int), " 12 ", 12),
    (field_for("x", hint=int | None), "", None),
    (field_for("x", hint=int | None), "None", None),
    (field_for("x", hint=float), "3", 3.0),
    (field_for("x", hint=float), "-1e-3", -0.001),
    (field_for("x", value=1), "2", 2),
    (field_for("x", value=1), "2.5", 2.5),
    (field_for("x", hint=str), "'quoted'", "'quoted'"),
    (field_for("x", override=(0, 10)), "10", 10),
    (field_for("x", override=(0.0, 1.0)), "0.25", 0.25),
    (field_for("x", hint=list[int]), "[1]", [1]),
    (field_for("x"), "{'a': (1, None)}", {"a": (1, None)}),
    (field_for("x", value=Model()), "3", 3),
    (field_for("x", hint=bool), True, True),
]


@pytest.mark.parametrize(("field", "entry", "value"), READ, ids=[str(n) for n in range(len(READ))])
def test_entries_become_values(field: Field, entry: Any, value: Any) -> None:
    assert same(read_entry(field, entry), value)


SAID: list[tuple[Field, Any, str]] = [
    (field_for("x", hint=int), "three", "needs a whole number, like 3; this is 'three'."),
    (field_for("x", hint=int), "2.5", "needs a whole number, like 3; this is '2.5'."),
    (field_for("x", hint=int), "9" * 5_000, "needs a whole number, like 3; this is '999"),
    (field_for("x", hint=float), "", "needs a number, like 2.5 or 1e-3; it is empty."),
    (field_for("x", override=(0, 10)), "11", "takes a number from 0 to 10; this is '11'."),
    (field_for("x", override=(0, 10)), "1.5", "needs a whole number, like 3; this is '1.5'."),
    (field_for("x", override=(0.0, 1.0)), "nan", "takes a number from 0.0 to 1.0; this is 'nan'."),
    (field_for("x", hint=list), "{1}", "needs a list, like [1, 2]; this is of type set."),
    (field_for("x"), "abc", 'takes no names, and abc is one: a text stands in quotes, like "abc".'),
    (field_for("x", hint=str), "x" * (MAX_CHARS + 1), "takes at most 20,000 characters, and this"),
]


@pytest.mark.parametrize(("field", "entry", "said"), SAID, ids=[str(n) for n in range(len(SAID))])
def test_entries_that_are_wrong_say_what_is_accepted(field: Field, entry: Any, said: str) -> None:
    with pytest.raises(ValueError) as refusal:
        read_entry(field, entry)
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize(
    ("field", "entry"),
    [
        (field_for("x", hint=bool), "True"),
        (field_for("x", hint=bool), 1),
        (field_for("x", hint=int), 3),
        (field_for("x", hint=int), True),
        (field_for("x", hint=Color), "RED"),
        (field_for("x", hint=Color), True),
        (field_for("x", hint=Color), 2),
        (field_for("x", hint=Color), -1),
    ],
)
def test_entries_of_another_kind_are_no_entries(field: Field, entry: Any) -> None:
    with pytest.raises(CommandError):
        read_entry(field, entry)


# ------------------------------------------------------------------------ the form of a task


def fit(
    n: int,
    kind: Literal["rbf", "linear"] = "rbf",
    /,
    *more: float,
    scale: float = 1.0,
    **options: Any,
) -> int:
    """Fit a model.

    What follows is not shown.
    """
    return n


class Desk:
    """A scheduler that is running, with one task whose calls nobody runs."""

    def __init__(self, fn: Callable[..., Any] = fit, **overrides: Any) -> None:
        self.scheduler = Scheduler(ManualBackend(2))
        self.task = self.scheduler.task(fn)
        self.form = TaskForm(self.task, overrides)

    def submit(self, **entries: Any) -> Call:
        future = self.form.submit(entries, self.form.now().described()["stamp"])
        assert future is not None
        return future.call

    def wrong(self, **entries: Any) -> dict[str, str]:
        with pytest.raises(FormError) as refusal:
            self.submit(**entries)
        assert list(self.scheduler.calls()) == []
        return refusal.value.fields


async def test_a_form_makes_the_call_that_its_author_would_write() -> None:
    desk = Desk()
    run = desk.scheduler.start(display=False)
    made = [
        desk.submit(n="3"),
        desk.submit(n="3", kind=1),
        desk.submit(n="3", more="[0.5, 1]"),
        desk.submit(n="3", scale="2"),
        desk.submit(n="3", options="{'depth': 2}"),
        desk.submit(n="3", more=" ", options=""),
    ]
    assert [(call.args, call.kwargs) for call in made] == [
        ((3,), {}),
        ((3, "linear"), {}),
        ((3, "rbf", 0.5, 1), {}),
        ((3,), {"scale": 2.0}),
        ((3,), {"depth": 2}),
        ((3,), {}),
    ]
    assert {call.task for call in made} == {desk.task}
    run.stop(wait=False)


async def test_a_form_shows_what_there_is_to_know() -> None:
    told = Desk(n=(1, 9), lr=0.1).form.now().described()
    stamp = told.pop("stamp")
    assert len(stamp) == 16
    json.dumps(told, allow_nan=False)
    assert told == {
        "title": "fit",
        "about": "Fit a model.",
        "note": "",
        "fields": [
            {"name": "n", "label": "n", "kind": "slider", "hint": "int, 1 to 9", "entry": "5",
             "limits": ["1", "9", "1"]},
            {"name": "kind", "label": "kind", "kind": "choice", "entry": 0,
             "hint": "one of 2", "options": ["rbf", "linear"]},
            {"name": "more", "label": "*more", "kind": "literal", "hint": "more values, as a list",
             "entry": None},
            {"name": "scale", "label": "scale", "kind": "float", "hint": "float", "entry": "1.0"},
            {"name": "lr", "label": "lr", "kind": "float", "hint": "float", "entry": "0.1"},
            {"name": "options", "label": "**options", "kind": "literal", "entry": None,
             "hint": "more named values, as a dict"},
        ],
    }  # fmt: skip
    assert Desk().form.now().described()["fields"][0]["required"] is True


async def test_overrides_are_passed_and_defaults_are_left_to_the_function() -> None:
    model = Model()
    desk = Desk(n=(1, 9), kind=["linear", "rbf"], scale=3.0, model=model)
    run = desk.scheduler.start(display=False)
    call = desk.submit()
    assert (call.args, call.kwargs) == ((5,), {"scale": 3.0, "model": model})
    assert call.kwargs["model"] is model
    run.stop(wait=False)


async def test_every_field_that_is_wrong_is_named_and_nothing_is_submitted() -> None:
    desk = Desk()
    run = desk.scheduler.start(display=False)
    assert desk.wrong() == {"n": "n is required: the function has no default for it."}
    assert desk.wrong(n=" ", scale="wide", more="3", options="{1: 2}") == {
        "n": "n is required: the function has no default for it.",
        "scale": "scale needs a number, like 2.5 or 1e-3; this is 'wide'.",
        "more": "*more needs a list, like [1, 2]; this is of type int.",
        "options": "**options needs texts as names; 1 is none.",
    }
    assert desk.wrong(n="1", options="{'scale': 2}") == {
        "options": "**options cannot have 'scale': that has a field of its own."
    }
    with pytest.raises(CommandError, match="has no field 'm'; there are n, kind, more, scale, opt"):
        desk.submit(m="3")
    run.stop(wait=False)


async def test_a_form_waits_for_its_scheduler() -> None:
    desk = Desk()
    with pytest.raises(SchedulerNotRunningError, match=r"scheduler\.start\(\)"):
        desk.submit(n="wrong, and not said yet")
    run = desk.scheduler.start(display=False)
    assert desk.submit(n="3").args == (3,)
    run.stop(wait=False)
    await run
    with pytest.raises(SchedulerNotRunningError):
        desk.submit(n="3")
    again = desk.scheduler.start(display=False)
    assert desk.submit(n="4").args == (4,)
    again.stop(wait=False)


async def test_a_function_that_was_defined_anew_is_looked_at_again() -> None:
    def old(n: int) -> int:
        return n

    def mended(n: int) -> int:
        return n + 1

    def other(n: int, deep: bool = True) -> int:
        return n

    desk = Desk(old)
    run = desk.scheduler.start(display=False)
    stamp = desk.form.now().described()["stamp"]
    desk.task.__dict__["_function"] = mended  # as a late task finds it after its cell ran again
    desk.task.name = desk.form.now().title
    assert desk.form.submit({"n": "1"}, stamp).call.fn is mended  # type: ignore[union-attr]
    desk.task.__dict__["_function"] = other
    with pytest.raises(FormError, match="is not what it was when this form was made") as refusal:
        desk.form.submit({"n": "1"}, stamp)
    assert refusal.value.is_stale
    assert len(desk.scheduler.calls()) == 1
    assert desk.submit(n="1", deep=False).args == (1, False)
    run.stop(wait=False)


async def test_an_override_that_no_longer_fits_says_to_make_the_form_again() -> None:
    desk = Desk(kind=["rbf"])
    desk.task.__dict__["_function"] = lambda n: n
    with pytest.raises(FormError, match=r"got 'kind', which the function does not take\. Its par"):
        desk.form.now()
    with pytest.raises(TypeError, match="got 'depth', which the function does not take"):
        TaskForm(desk.task, {"depth": 1})


async def test_a_task_that_was_replaced_refuses_and_one_that_is_gone_too() -> None:
    desk = Desk()
    scheduler = desk.scheduler
    scheduler.tasks[scheduler.tasks.index(desk.task)] = scheduler.task(fit)
    scheduler.tasks.pop()
    with pytest.raises(FormError, match="fit was defined anew"):
        desk.form.now()
    form = desk.form
    del desk, scheduler
    gc.collect()
    with pytest.raises(FormError, match="is gone: nothing in the notebook refers to it"):
        form.now()


async def test_what_a_plugin_fills_is_no_field() -> None:
    def train(n: int, comm: Any) -> int:
        return n

    scheduler = Scheduler(ManualBackend(2))
    task = scheduler.task(train, plugins=Comm.Plugin())
    form = TaskForm(task, {})
    assert [field.name for field in form.now().fields] == ["n"]
    run = scheduler.start(display=False)
    future = form.submit({"n": "3"}, form.now().described()["stamp"])
    assert future is not None
    assert future.call.args == (3,)
    run.stop(wait=False)


async def test_too_many_parameters_are_submitted_from_a_cell() -> None:
    parameters = [inspect.Parameter(f"p{n}", inspect.Parameter.KEYWORD_ONLY) for n in range(101)]

    def many(**values: Any) -> None: ...

    many.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with pytest.raises(FormError, match="101 parameters; a form has at most 100"):
        Desk(many)


# ------------------------------------------------------------------------ the form of a call


class Calls:
    """A running scheduler whose calls are made again with changes."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(ManualBackend(2))
        self.run = self.scheduler.start(display=False)

    def entries(self, call: Call) -> dict[str, Any]:
        return {field["name"]: field["entry"] for field in form_of_call(call).described()["fields"]}

    def again(self, call: Call, **entries: Any) -> Call:
        stamp = form_of_call(call).described()["stamp"]
        future = resubmit_with(call, entries, stamp, self.scheduler.accept)
        assert future is not None
        return future.call


async def test_a_call_is_made_again_with_what_was_changed_and_the_rest_as_it_is() -> None:
    calls, model = Calls(), Model()
    task = calls.scheduler.task(fit)
    call = task.submit(3, "linear", 0.5, model=model, depth=2).call  # type: ignore[union-attr]
    assert calls.entries(call) == {
        "n": "3", "kind": 1, "more": "[0.5]", "scale": "1.0", "model": None, "depth": "2",
        "options": None,
    }  # fmt: skip
    plain = calls.again(call)
    assert (plain.args, plain.kwargs) == ((3, "linear", 0.5), {"model": model, "depth": 2})
    changed = calls.again(call, n="4", depth="7", scale="2.0")
    assert changed.args == (4, "linear", 0.5)
    assert changed.kwargs == {"scale": 2.0, "model": model, "depth": 7}
    assert changed.kwargs["model"] is model
    assert (changed.resubmitted_from, changed.task, changed.attempt) == (call.id, task, 2)
    replaced = calls.again(call, model="None", more="", options="{'extra': [1]}")
    assert replaced.args == (3, "linear")
    assert replaced.kwargs == {"model": None, "depth": 2, "extra": [1]}
    calls.run.stop(wait=False)


async def test_all_arguments_can_be_taken_away() -> None:
    def total(*numbers: int, call: int = 0) -> int:
        return sum(numbers) + call

    calls = Calls()
    first = calls.scheduler.submit(total, 1, 2, call=3).call
    again = calls.again(first, numbers="[]")
    assert (again.args, again.kwargs) == ((), {"call": 3})
    bare = calls.scheduler.submit(total, 1, 2).call
    assert (calls.again(bare, numbers="").args, bare.args) == ((), (1, 2))
    calls.run.stop(wait=False)


async def test_arguments_that_do_not_fit_and_builtins_are_a_list_and_a_dict() -> None:
    calls = Calls()
    call = calls.scheduler.submit(fit, unknown=1).call
    assert calls.entries(call) == {
        "n": None, "kind": 0, "more": None, "scale": "1.0", "unknown": "1", "options": None,
    }  # fmt: skip
    odd = calls.scheduler.submit(divmod, 1, 2, 3).call  # type: ignore[call-overload]
    form = form_of_call(odd)
    assert form.note.startswith("The arguments of this call do not fit divmod(")
    assert calls.entries(odd) == {"args": "[1, 2, 3]", "kwargs": None}
    assert calls.again(odd, args="[7, 3]").args == (7, 3)
    builtin = calls.scheduler.submit(max, 1, 2).call
    assert calls.again(builtin, args="[3, 4]").args == (3, 4)
    calls.run.stop(wait=False)


async def test_keywords_that_clash_stay_within_one_dict() -> None:
    def odd(a: int, /, **kwargs: Any) -> int:
        return a

    calls = Calls()
    call = calls.scheduler.submit(odd, 1, a=2, kwargs=3).call
    assert calls.entries(call) == {"a": "1", "kwargs": "{'a': 2, 'kwargs': 3}"}
    assert calls.again(call).kwargs == {"a": 2, "kwargs": 3}
    calls.run.stop(wait=False)


async def test_arguments_that_are_not_kept_any_more_are_said_to_be_gone() -> None:
    calls = Calls()
    call = calls.scheduler.submit(fit, 3).call
    call.forget_arguments()
    form = form_of_call(call)
    assert form.note == (
        "The arguments of this call were too large to be kept so long. Enter them once more."
    )
    with pytest.raises(FormError, match="n is required"):
        calls.again(call)
    assert calls.again(call, n="5").args == (5,)
    calls.run.stop(wait=False)


async def test_arguments_that_were_changed_meanwhile_are_not_sent_unseen() -> None:
    calls = Calls()
    points = [1, 2]
    call = calls.scheduler.submit(sorted, points).call
    stamp = form_of_call(call).described()["stamp"]
    points.append(3)
    with pytest.raises(FormError) as refusal:
        resubmit_with(call, {}, stamp, calls.scheduler.accept)
    assert refusal.value.is_stale
    calls.run.stop(wait=False)


# ------------------------------------------------------------------------ over the wire


async def test_the_pages_commands_name_the_field_that_is_wrong() -> None:
    calls = Calls()
    call = calls.scheduler.submit(fit, 3).call

    def ask(name: str, **args: Any) -> dict[str, Any]:
        message = {"kind": "command", "id": 1, "name": name, "args": args}
        return dispatch_command(calls.scheduler, message)

    stamp = ask("edit", call=call.id)["value"]["stamp"]
    said = "n needs a whole number, like 3; this is 'x'."
    assert ask("resubmit_with", call=call.id, entries={"n": "x"}, stamp=stamp) == {
        "kind": "reply", "id": 1, "ok": False, "error": said,
        "value": {"fields": {"n": said}, "stale": False},
    }  # fmt: skip
    stale = ask("resubmit_with", call=call.id, entries={"n": "4"}, stamp="old")
    assert stale["value"] == {"fields": {}, "stale": True}
    assert len(calls.scheduler.calls()) == 1
    done = ask("resubmit_with", call=call.id, entries={"n": "4"}, stamp=stamp)
    assert done["value"] == {"call": 2}
    assert calls.scheduler.find_call(2).args == (4,)
    assert ask("form")["error"] == "This view has no form: task.form() makes one."
    assert "left the history" in ask("edit", call=99)["error"]
    calls.run.stop(wait=False)
    await settled()


@pytest.mark.parametrize(
    "entries", [None, [], {"n": None}, {"n": 1.5}, {"n": []}, {"n": "x" * 40_001}, {"n": {}}]
)
def test_entries_of_wrong_shapes_are_refused_before_any_form_is_made(entries: Any) -> None:
    scheduler = Scheduler(ManualBackend(2))
    form = TaskForm(scheduler.task(fit), {})
    args = {"entries": entries, "stamp": ""}
    message = {"kind": "command", "id": 1, "name": "submit", "args": args}
    reply = dispatch_command(scheduler, message, form)
    assert reply["ok"] is False
    assert reply["value"] is None
    many = {str(n): "1" for n in range(101)}
    message["args"] = {"entries": many, "stamp": ""}
    assert "at most 100 entries" in dispatch_command(scheduler, message, form)["error"]
