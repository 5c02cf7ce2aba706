"""Events: one test per rule of emitting, registering, fitting, failing and re-running cells."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import pickle
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import amltk_nb.events as events_module
from amltk_nb import host
from amltk_nb.errors import EventNotKnownError, NoRunningLoopError
from amltk_nb.events import (
    BATCH_EVENTS,
    LIMITER_EVENTS,
    SCHEDULER_EVENTS,
    TASK_EVENTS,
    Emitter,
    Event,
    EventManager,
    EventSpec,
    Handler,
    Subscriber,
    signature_text,
)

ALL_EVENTS = (*SCHEDULER_EVENTS, *TASK_EVENTS, *BATCH_EVENTS, *LIMITER_EVENTS)


@pytest.fixture
def task() -> Emitter:
    """An emitter with the events of a task."""
    return Emitter("Task-f-1", specs=TASK_EVENTS)


@pytest.fixture
def scheduler() -> Emitter:
    """An emitter with the events of a scheduler."""
    return Emitter("Scheduler", specs=SCHEDULER_EVENTS)


def emissions_that_ran(n: int, **options: Any) -> list[int]:
    """Emit n times; returns the number of the emission for each call of one callback."""
    emitter, ran = Emitter(), []
    emission = 0
    if "when" in options:
        decide = options["when"]
        options["when"] = lambda: decide(emission)
    emitter.on("e", lambda: ran.append(emission), **options)
    for emission in range(1, n + 1):  # noqa: B007 - the callback reads it
        emitter.emit("e")
    return ran


# Event


def test_an_event_and_its_name_are_one_key() -> None:
    event = Event("on_start")

    assert hash(event) == hash("on_start")
    assert event == "on_start"
    assert "on_start".__eq__(event) is True
    assert event == Event("on_start")
    assert event != Event("on_stop")
    assert {event: 1}["on_start"] == 1
    assert {"on_start": 1}[event] == 1


def test_an_event_reads_as_its_name_and_travels() -> None:
    event = Event(name="on_start")

    assert event.name == "on_start"
    assert type(event.name) is str
    assert f"{event}" == "on_start"
    assert repr(event) == "Event('on_start')"
    for again in (pickle.loads(pickle.dumps(event)), copy.deepcopy(event)):
        assert type(again) is Event
        assert again == event


@pytest.mark.parametrize("name", ["", 3, None])
def test_an_event_needs_a_name(name: Any) -> None:
    with pytest.raises(TypeError, match=r"needs a name, as in Event\('user-joined'\)"):
        Event(name)


@pytest.mark.parametrize("generic", [Event, Subscriber])
def test_any_spelling_of_types_works_at_run_time(generic: Any) -> None:
    assert generic[int].__args__ == (int,)
    assert generic[int, str, float].__args__ == (int, str, float)
    assert generic[...].__args__ == (...,)
    assert generic[[int, str], Any].__args__ == ((int, str), Any)
    assert generic[[]].__args__ == ((),)
    assert type(None) in (generic[[int], Any] | None).__args__
    assert Event[tuple[int, int]]("longest-run") == "longest-run"


def test_the_type_checker_finds_callbacks_that_do_not_fit(tmp_path: Path) -> None:
    lines = {
        "from typing import Any": None,
        "from amltk_nb.events import Emitter, Event": None,
        "def f(a: int, b: str) -> None: ...": None,
        "def h(x: str) -> None: ...": None,
        'event: Event[int, str] = Event("hello")': None,
        "emitter = Emitter()": None,
        "emitter.on(event, f)": None,
        "emitter.on(event)(f)": None,
        "emitter.subscriber(event)(f)": None,
        "emitter.on(event, h)": "error",
        "emitter.on(event)(h)": "error",
        "reveal_type(emitter.on(event, f))": None,
        "emitter.subscriber(event)(h)": "error",
        'emitter.emit(event, 10, "world")': None,
        'emitter.emit(event, "world")': "error",
        "emitter.subscriber(event).emit(10)": "error",
        'emitter.on("hello", h)': None,
        'emitter.emit("hello", 1, 2, 3, any=4)': None,
        "def g(a: Event[...]) -> None: ...": None,
        "g(event)": None,
    }
    source = tmp_path / "typed.py"
    source.write_text("\n".join(lines) + "\n")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(source)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        check=False,
    )

    found = {int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error:" in line}
    wanted = {n for n, says in enumerate(lines.values(), 1) if says == "error"}
    assert found == wanted, checked.stdout + checked.stderr
    assert 'note: Revealed type is "def (a: int, b: str)"' in checked.stdout


# The tables


def test_the_tables_have_their_events_in_the_order_in_which_they_are_shown() -> None:
    assert " ".join(spec.name for spec in SCHEDULER_EVENTS) == (
        "on_start on_finishing on_finished on_stop on_timeout on_empty on_future_submitted "
        "on_future_done on_future_cancelled on_future_exception on_future_result on_no_workers"
    )
    assert " ".join(spec.constant for spec in TASK_EVENTS) == (
        "SUBMITTED DONE RESULT RETURNED EXCEPTION CANCELLED F_RETURNED F_EXCEPTION F_CANCELLED"
    )
    assert [spec.name for spec in LIMITER_EVENTS] == [
        "call-limit-reached",
        "concurrent-limit-reached",
        "disabled-due-to-running-task",
    ]
    assert len(BATCH_EVENTS) == 10


@pytest.mark.parametrize("spec", ALL_EVENTS, ids=lambda spec: spec.constant)
def test_the_documented_tables_are_those_of_the_code(spec: EventSpec) -> None:
    assert events_module.__doc__ is not None
    rows = [line.split() for line in events_module.__doc__.splitlines()]
    (row,) = [row for row in rows if row[:1] == [spec.constant]]

    payload = spec.payload.split()
    assert row[1 : 2 + len(payload)] == [spec.name, *payload]
    assert set(row[2 + len(payload) :]) <= set(spec.aliases)


def test_only_two_events_keep_the_first_arguments() -> None:
    assert [s.name for s in ALL_EVENTS if s.keep == "first"] == ["on_stop", "on_submitted"]


@pytest.mark.parametrize(
    "table", [SCHEDULER_EVENTS, TASK_EVENTS, BATCH_EVENTS, LIMITER_EVENTS], ids=len
)
def test_no_two_events_of_a_table_share_a_spelling(table: tuple[EventSpec, ...]) -> None:
    spellings = Counter(name for spec in table for name in (spec.name, *spec.aliases))
    assert set(spellings.values()) == {1}


def test_a_spec_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="payload is written like"):
        EventSpec("X", "x", "future")
    with pytest.raises(ValueError, match="keep is 'first' or 'last'"):
        EventSpec("X", "x", "()", keep="middle")  # type: ignore[arg-type]


# Emitting


def test_event_manager_is_the_emitter() -> None:
    assert EventManager is Emitter
    assert EventManager(name="manager-name").name == "manager-name"


def test_all_callbacks_of_an_event_run_in_order_of_registration() -> None:
    manager = EventManager(name="manager-name")
    seen: list[tuple[str, int, str, float]] = []

    def f(a: int, b: str, c: float) -> None:
        seen.append(("f", a, b, c))

    def g(a: int, b: str, c: float) -> None:
        seen.append(("g", a, b, c))

    def h(a: int, b: str, c: float) -> None:
        seen.append(("h", a, b, c))

    manager.on("hello", f)
    manager.on("hello", g)
    manager.on("hello", h)
    manager.on("hello", f)
    manager.emit("hello", 10, "world", 3.14)

    assert seen == [(name, 10, "world", 3.14) for name in "fghf"]


def test_events_of_users_are_strict() -> None:
    manager = EventManager(name="manager-name")
    event: Event[int, str, float] = Event(name="hello")
    seen = []
    manager.on(event, lambda a, b, c: seen.append((a, b, c)))
    manager.on(event, lambda x: seen.append(x))

    with pytest.raises(TypeError, match="takes 1 positional argument but 3 were given"):
        manager.emit(event, 10, "world", 3.14)

    assert seen == [(10, "world", 3.14)]


def test_emit_returns_nothing_and_ignores_what_callbacks_return() -> None:
    emitter = Emitter()
    emitter.on("e", lambda: 42, repeat=2)

    assert emitter.emit("e") is None
    assert emitter.handlers("e")[0].n_errors == 0


def test_a_callback_reaches_its_event_under_name_and_object() -> None:
    emitter, seen = Emitter(), []
    emitter.on("hello", lambda x: seen.append(("str", x)))
    emitter.on(Event("hello"), lambda x: seen.append(("Event", x)))

    emitter.emit("hello", 1)
    emitter.emit(Event("hello"), 2)

    assert seen == [("str", 1), ("Event", 1), ("str", 2), ("Event", 2)]
    assert emitter.events == (Event("hello"),)
    assert emitter.event_counts["hello"] == emitter.event_counts[Event("hello")] == 2


@pytest.mark.parametrize("event", ["hello", 7, ("a", 1), frozenset({1}), None])
def test_anything_hashable_is_an_event(event: Any) -> None:
    emitter, seen = Emitter(), []
    emitter.on(event, seen.append)

    emitter.emit(event, "x")

    assert seen == ["x"]
    assert emitter.event_counts == Counter({event: 1})


@pytest.mark.parametrize("verb", ["emit", "on", "subscriber", "channel", "handlers", "add_event"])
def test_what_cannot_be_hashed_is_no_event(verb: str) -> None:
    with pytest.raises(TypeError, match=r"An event must be hashable.*got \['a'\]"):
        getattr(Emitter(), verb)(["a"])


def test_keyword_arguments_may_have_any_name() -> None:
    emitter, seen = Emitter(), []
    emitter.on("e", lambda **kwargs: seen.append(kwargs))
    sent = {"self": 1, "event": 2, "callback": 3, "args": 4}

    emitter.emit("e", **sent)
    emitter.channel("e").emit(**sent)
    emitter.subscriber("e").emit(**sent)

    assert seen == [sent] * 3


def test_counts_grow_with_every_emission_and_ignore_zeros(scheduler: Emitter) -> None:
    before = scheduler.event_counts
    scheduler.emit("on_start")
    scheduler.channel("on_start").emit()
    scheduler.subscriber("on_start").emit()
    scheduler.emit("on_empty")

    assert before == Counter()
    assert scheduler.event_counts == Counter({"on_start": 3, "on_empty": 1})
    assert scheduler.event_counts != Counter({"on_start": 3})
    assert isinstance(scheduler.event_counts, Counter)
    assert list(scheduler.event_counts) == [spec.name for spec in SCHEDULER_EVENTS]


def test_counts_can_be_read_by_any_spelling_and_asking_adds_nothing(task: Emitter) -> None:
    task.emit("on_result", None, 1)
    counts = task.event_counts

    assert [counts[name] for name in ("on_result", "on-result", "result", "nonsense")] == [
        1,
        1,
        1,
        0,
    ]
    assert len(counts) == len(TASK_EVENTS)
    assert counts.copy() == pickle.loads(pickle.dumps(counts)) == counts
    assert counts - Counter({"on_result": 1}) == Counter()


def test_a_callback_registered_during_an_emission_waits_for_the_next() -> None:
    emitter, seen = Emitter(), []

    def first() -> None:
        seen.append("first")
        emitter.on("e", lambda: seen.append("late"))

    emitter.on("e", first, max_calls=1)
    emitter.emit("e")
    assert seen == ["first"]

    emitter.emit("e")
    assert seen == ["first", "late"]


def test_a_callback_removed_during_an_emission_does_not_run_any_more() -> None:
    emitter, seen = Emitter(), []
    emitter.on("e", lambda: emitter.remove("second"))
    emitter.on("e", lambda: seen.append("second"), name="second")
    emitter.on("e", lambda: seen.append("third"))

    emitter.emit("e")

    assert seen == ["third"]


def test_an_emission_from_a_callback_is_delivered_at_once() -> None:
    emitter, seen = Emitter(), []

    @emitter.on("outer")
    def emit_inner() -> None:
        seen.append("outer 1")
        emitter.emit("inner")

    emitter.on("outer", lambda: seen.append("outer 2"))
    emitter.on("inner", lambda: seen.append("inner"))
    emitter.emit("outer")

    assert seen == ["outer 1", "inner", "outer 2"]


def test_a_callback_that_emits_its_own_event_is_held_by_its_limit() -> None:
    emitter, depth = Emitter(), []

    @emitter.on("e", max_calls=3)
    def again() -> None:
        depth.append(len(depth))
        emitter.emit("e")

    emitter.emit("e")

    assert depth == [0, 1, 2]
    assert emitter.event_counts["e"] == 4


def test_events_told_together_share_one_order_of_registration(task: Emitter) -> None:
    seen: list[Any] = []
    task.on("on_returned", lambda result: seen.append(("returned 1", result)))
    task.on("on_result", lambda future, result: seen.append(("result", future, result)))
    task.on("on_f_returned", lambda future, result: seen.append(("f_returned", future)), every=2)
    task.on("on_returned", lambda result: seen.append(("returned 2", result)))

    for _ in range(2):
        task.emit_together(
            (task.channel("on_result"), ("future", 5)),
            (Event("on_returned"), (5,)),
            ("on_f_returned", ("future", 5)),
        )

    first = [("returned 1", 5), ("result", "future", 5), ("returned 2", 5)]
    assert seen == [*first, *first[:2], ("f_returned", "future"), first[2]]
    assert task.event_counts == Counter({"on_result": 2, "on_returned": 2, "on_f_returned": 2})


def test_told_together_with_callbacks_on_one_event_only(task: Emitter) -> None:
    seen: list[Any] = []
    task.on("on_returned", seen.append)

    task.emit_together(("on_result", ("future", 5)), ("on_returned", (5,)))
    task.emit_together(("on_done", ("future",)))

    assert seen == [5]
    assert task.event_counts == Counter({"on_result": 1, "on_returned": 1, "on_done": 1})


def test_an_unknown_name_among_events_told_together_changes_nothing(task: Emitter) -> None:
    with pytest.raises(EventNotKnownError):
        task.emit_together(("on_result", ("future", 5)), ("on_retorned", (5,)))

    assert task.event_counts == Counter()


# Known and unknown events


@pytest.mark.parametrize("verb", ["emit", "on", "subscriber", "channel", "handlers"])
def test_a_name_that_is_not_known_is_refused_with_those_that_are(task: Emitter, verb: str) -> None:
    with pytest.raises(EventNotKnownError) as caught:
        getattr(task, verb)("on_resutl")

    assert str(caught.value) == (
        "Task-f-1 has no event 'on_resutl'. Did you mean 'on_result'? It has: on_submitted, "
        "on_done, on_result, on_returned, on_exception, on_cancelled, on_f_returned, "
        "on_f_exception, on_f_cancelled. For an event of your own, pass an Event object: "
        "Event('on_resutl')."
    )
    assert len(task.events) == len(TASK_EVENTS)


def test_without_a_near_name_nothing_is_guessed(task: Emitter) -> None:
    with pytest.raises(EventNotKnownError, match=r"has no event 'zzz'\. It has:"):
        task.on("zzz")


@pytest.mark.parametrize("verb", ["emit", "on", "subscriber", "channel"])
def test_an_event_object_of_the_user_is_welcome_on_a_closed_set(task: Emitter, verb: str) -> None:
    event: Event[tuple[int, int]] = Event("longest-run")

    getattr(task, verb)(event)

    assert task.events[-1] == "longest-run"
    seen: list[Any] = []
    task.on("longest-run", seen.append)  # known by its name from here on
    task.emit(event, (3, 7))
    assert seen == [(3, 7)]


def test_looking_at_handlers_does_not_make_an_event(task: Emitter) -> None:
    assert task.handlers(Event("mine")) == ()
    assert Emitter().handlers("anything") == ()
    assert len(task.events) == len(TASK_EVENTS)


@pytest.mark.parametrize(
    "name",
    ["on_result", "on-result", "result", Event("on_result"), Event("result")],
)
def test_every_spelling_names_the_same_event(task: Emitter, name: Any) -> None:
    assert task.channel(name) is task.channel("on_result")


@pytest.mark.parametrize(
    ("older", "name"),
    [
        ("task-submitted", "on_submitted"),
        ("task-returned", "on_returned"),
        ("task-future-exception", "on_f_exception"),
        ("f-returned", "on_f_returned"),
    ],
)
def test_older_names_still_work(task: Emitter, older: str, name: str) -> None:
    assert task.channel(older) is task.channel(name)


def test_older_names_of_a_scheduler_still_work(scheduler: Emitter) -> None:
    assert scheduler.channel("scheduler-started").event == "on_start"
    assert scheduler.channel("future-result").event == "on_future_result"


def test_declared_events_come_in_order_and_only_once(task: Emitter) -> None:
    task.add_event(LIMITER_EVENTS[0], Event("mine"), "other", LIMITER_EVENTS[0], "mine")

    assert task.events[-3:] == ("call-limit-reached", "mine", "other")
    assert task.channel("call_limit_reached").event == "call-limit-reached"


def test_a_spec_that_comes_later_fits_the_callbacks_that_were_there(task: Emitter) -> None:
    seen: list[Any] = []
    task.on(Event("call-limit-reached"), lambda task, x: seen.append((task, x)))
    task.on(Event("call-limit-reached"), seen.append)

    task.add_event(*LIMITER_EVENTS)
    task.emit("call_limit_reached", "task", 1, k=2)

    assert seen == [("task", 1), 1]


# Registering


def test_on_as_function_returns_the_callback() -> None:
    def f() -> None: ...

    emitter = Emitter()
    assert emitter.on("e", f) is f
    assert emitter.subscriber("e")(f) is f
    assert emitter.register("e", f) is f
    assert emitter.subscriber("e").register(f, every=2) is f
    assert len(emitter.handlers("e")) == 4


def test_decorators_return_the_function_so_they_stack(task: Emitter, scheduler: Emitter) -> None:
    calls = []

    @scheduler.subscriber("on_start")(repeat=3)
    @task.subscriber("on_done")
    @task.on("on_exception", every=2)
    @scheduler.on("on_empty")
    def submit() -> None:
        calls.append(1)

    scheduler.emit("on_start")
    assert len(calls) == 3
    task.emit("on_done", "future")
    assert len(calls) == 4
    assert submit.__name__ == "submit"
    assert [h.callback for h in task.handlers("on_exception")] == [submit]


def test_the_same_function_twice_is_called_twice() -> None:
    emitter, seen = Emitter(), []
    emitter.on("e", seen.append)
    emitter.on("e", seen.append)

    emitter.emit("e", 1)

    assert seen == [1, 1]


@pytest.mark.parametrize("callback", [None, 3, "print"])
def test_what_cannot_be_called_is_refused(callback: Any) -> None:
    emitter = Emitter()
    subscriber = emitter.subscriber("e")
    says = "must be callable, got .*a decorator below this one must return the function"
    for register in (
        lambda: emitter.on("e", callback),
        lambda: emitter.on("e")(callback),
        lambda: subscriber(callback),
        lambda: subscriber(repeat=2)(callback),
    ):
        with pytest.raises(TypeError, match=says):
            register()
    assert emitter.handlers("e") == ()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"repeat": 0}, ValueError, r"repeat=0: use a whole number from 1 on"),
        ({"repeat": None}, ValueError, r"repeat=None: use a whole number"),
        ({"every": 0}, ValueError, r"every=0: use a whole number"),
        ({"every": 1.5}, ValueError, r"every=1.5: use a whole number"),
        ({"every": True}, ValueError, r"every=True: use a whole number"),
        ({"max_calls": 0}, ValueError, r"max_calls=0: use a whole number"),
        ({"limit": -1}, ValueError, r"limit=-1: use a whole number"),
        ({"max_calls": 2, "limit": 2}, ValueError, r"same option: give only max_calls="),
        ({"when": True}, TypeError, r"when=True: use a function without arguments"),
        ({"name": 3}, TypeError, r"name=3: use a string"),
        ({"frequency": 3}, TypeError, r"unexpected keyword argument 'frequency'"),
    ],
)
def test_wrong_options_are_refused_at_registration(options: Any, error: Any, says: str) -> None:
    emitter = Emitter()
    for register in (
        lambda: emitter.on("e", print, **options),
        lambda: emitter.on("e", **options),
        lambda: emitter.subscriber("e")(print, **options),
        lambda: emitter.subscriber("e")(**options),
    ):
        with pytest.raises(error, match=says):
            register()
    assert emitter.handlers("e") == ()


def test_a_subscriber_is_a_handle_on_one_event() -> None:
    joined: Event[str] = Event("user-joined")
    manager = EventManager(name="event_manager")
    on_user_joined = manager.subscriber(joined)
    greetings = []

    @on_user_joined
    def greet(username: str) -> None:
        greetings.append(f"hello {username}, welcome!")

    on_user_joined.emit("john")

    assert greetings == ["hello john, welcome!"]
    assert on_user_joined.event is joined
    assert on_user_joined.emitter is manager
    assert on_user_joined.event_counts == 1
    assert repr(on_user_joined) == "<Subscriber of @user-joined of event_manager>"
    assert on_user_joined.remove(greet) is True
    assert on_user_joined.remove(greet) is False


def test_a_subscriber_is_open_to_any_options() -> None:
    manager = EventManager()
    subscriber = manager.subscriber("e")
    subscriber(print, name="my_callback", hidden=True)

    @subscriber(limit=1)
    def once() -> None: ...

    subscriber()(once)
    assert [(h.name, h.hidden) for h in manager.handlers("e")] == [
        ("my_callback", True),
        ("once", False),
        ("once", False),
    ]


# Options


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ({"every": 2, "max_calls": 2}, [2, 4]),
        ({"every": 2, "repeat": 2, "max_calls": 1}, [2, 2]),
        ({"when": lambda n: n % 2 == 0, "every": 3}, [6]),
        ({"when": lambda n: n >= 3, "every": 2}, [4, 6, 8]),
        ({"when": lambda n: n % 2 == 0, "max_calls": 1}, [2]),
        ({"limit": 1}, [1]),
        ({"repeat": 3, "max_calls": 2}, [1, 1, 1, 2, 2, 2]),
        ({"every": 3}, [3, 6]),
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_how_the_options_work_together_over_eight_emissions(options: Any, ran: list[int]) -> None:
    assert emissions_that_ran(8, **options) == ran


def test_five_emissions_with_every_second_make_two_calls() -> None:
    assert emissions_that_ran(5, every=2) == [2, 4]


def test_when_is_asked_after_every_and_before_the_limit() -> None:
    asked: list[int] = []

    def when(n: int) -> bool:
        asked.append(n)
        return True

    assert emissions_that_ran(8, every=2, max_calls=1, when=when) == [2]
    assert asked == [2, 4, 6, 8]


def test_every_counts_from_registration() -> None:
    emitter, seen = Emitter(), []
    emitter.emit("e")
    emitter.on("e", lambda: seen.append(emitter.event_counts["e"]), every=2)

    for _ in range(4):
        emitter.emit("e")

    assert seen == [3, 5]


def test_a_round_counts_once_and_a_false_when_not_at_all() -> None:
    emitter = Emitter()
    emitter.on("e", lambda: None, repeat=3)
    emitter.on("e", lambda: None, when=lambda: False)

    emitter.emit("e")

    assert [handler.n_calls for handler in emitter.handlers("e")] == [1, 0]


# Removing


def test_remove_by_function_takes_all_its_registrations() -> None:
    def f() -> None: ...

    def g() -> None: ...

    emitter = Emitter()
    for event in ("a", "b"):
        emitter.on(event, f)
        emitter.on(event, g, name="f")
        emitter.on(event, f, every=2)

    assert emitter.remove(f, "a") is True
    assert [h.callback for h in emitter.handlers("a")] == [g]
    assert len(emitter.handlers("b")) == 3
    assert emitter.remove(f) is True  # of the same function, before those of the same name
    assert [h.callback for h in emitter.handlers("b")] == [g]
    assert emitter.remove(f) is True  # now by its name
    assert emitter.handlers("a") == emitter.handlers("b") == ()
    assert emitter.remove(f) is False


def test_remove_by_name() -> None:
    emitter, seen = Emitter(), []
    emitter.on("e", lambda: seen.append(1), name="my_callback")
    emitter.on("e", lambda: seen.append(2))

    assert emitter.remove("my_callback") is True
    assert emitter.remove("my_callback") is False
    assert emitter.remove("my_callback", "never emitted") is False
    emitter.emit("e")

    assert seen == [2]


def test_methods_are_found_although_they_are_made_anew_at_every_access() -> None:
    class Counting:
        def tick(self) -> None: ...

    one, other, emitter, items = Counting(), Counting(), Emitter(), []
    emitter.on("e", one.tick)
    emitter.on("e", other.tick)
    emitter.on("e", items.append)

    assert emitter.remove(one.tick) is True
    assert emitter.remove(items.append) is True
    assert [h.callback for h in emitter.handlers("e")] == [other.tick]


def test_remove_says_what_it_takes(task: Emitter) -> None:
    with pytest.raises(TypeError, match=r"remove\(3\): pass the callback or its name"):
        task.remove(3)  # type: ignore[arg-type]
    with pytest.raises(EventNotKnownError):
        task.remove("f", "on_resutl")


# What a callback is passed

F, R, X = "future", "result", "error"


@pytest.mark.parametrize(
    ("event", "payload", "callback", "passed"),
    [
        ("on_result", (F, R), lambda future, result: (future, result), (F, R)),
        ("on_result", (F, R), lambda result: (result,), (R,)),
        ("on_result", (F, R), lambda: (), ()),
        ("on_result", (F, R), lambda *args: args, (F, R)),
        ("on_result", (F, R), lambda first, *rest: (first, *rest), (F, R)),
        ("on_result", (F, R), lambda a, b, c=3: (a, b, c), (F, R, 3)),
        ("on_result", (F, R), lambda result, *, i=7: (result, i), (R, 7)),
        ("on_result", (F, R), lambda a, b=0: (a, b), (F, R)),
        ("on_result", (F, R), functools.partial(lambda i, result: (i, result), 7), (7, R)),
        ("on_exception", (F, X), lambda error: (error,), (X,)),
        ("on_done", (F,), lambda: (), ()),
        ("on_returned", (R,), lambda result: (result,), (R,)),
        ("on_submitted", (F, 1, 2), lambda future: (future,), (F,)),
        ("on_submitted", (F, 1, 2), lambda future, a: (future, a), (F, 1)),
        ("on_submitted", (F, 1, 2), lambda future, *args: (future, *args), (F, 1, 2)),
        ("on_submitted", (F, 1, 2), lambda: (), ()),
        ("on_submitted", (F,), lambda _: (_,), (F,)),
    ],
)
def test_a_callback_gets_what_it_has_room_for(
    task: Emitter, event: str, payload: Any, callback: Any, passed: Any
) -> None:
    seen: list[Any] = []
    # wraps: the signature of the callback, so that it is the callback's room that counts
    task.on(event, functools.wraps(callback)(lambda *a, **k: seen.append(callback(*a, **k))))

    task.emit(event, *payload)

    assert seen == [passed]


@pytest.mark.parametrize(
    ("callback", "passed"),
    [
        (lambda future: (future,), (F,)),
        (lambda future, seed: (future, seed), (F, 5)),
        (lambda future, *, depth: (future, depth), (F, 3)),
        (lambda future, **kwargs: (future, kwargs), (F, {"seed": 5, "depth": 3})),
        (lambda f, depth=0: (f, depth), (F, 3)),
        (lambda: (), ()),
    ],
)
def test_keywords_of_a_submission_are_passed_if_wanted(
    task: Emitter, callback: Any, passed: Any
) -> None:
    seen: list[Any] = []
    task.on(
        "on_submitted", functools.wraps(callback)(lambda *a, **k: seen.append(callback(*a, **k)))
    )

    task.emit("on_submitted", F, seed=5, depth=3)

    assert seen == [passed]


def test_a_keyword_never_takes_the_place_of_the_future(task: Emitter) -> None:
    seen: list[Any] = []

    @task.on("on_submitted")
    def record(future: str, **kwargs: Any) -> None:
        seen.append((future, kwargs))

    task.emit("on_submitted", F, future="mine", seed=1)

    assert seen == [(F, {"seed": 1})]


def test_the_limiter_passes_the_arguments_last(task: Emitter) -> None:
    task.add_event(*LIMITER_EVENTS)
    seen: list[Any] = []
    task.on("concurrent-limit-reached", lambda task, x: seen.append((task, x)))
    task.on("concurrent-limit-reached", lambda x: seen.append(x))
    task.on("concurrent-limit-reached", lambda *args, **kwargs: seen.append((args, kwargs)))
    task.on("concurrent-limit-reached", lambda: seen.append("none"))

    task.emit("concurrent-limit-reached", "task", 4)
    task.emit("concurrent-limit-reached", "task", x=5)

    assert seen[:4] == [("task", 4), 4, (("task", 4), {}), "none"]
    assert seen[4:] == [("task", 5), 5, (("task",), {"x": 5}), "none"]


def test_stop_passes_the_message_first(scheduler: Emitter) -> None:
    seen: list[Any] = []
    scheduler.on("on_stop", lambda message, error: seen.append((message, error)))
    scheduler.on("on_stop", lambda message: seen.append(message))
    scheduler.on("on_stop", lambda: seen.append("none"))

    scheduler.emit("on_stop", "enough", None)

    assert seen == [("enough", None), "enough", "none"]


def test_a_builtin_without_signature_gets_one_argument(task: Emitter) -> None:
    seen: dict[str, int] = {}
    with pytest.raises(ValueError, match="no signature found"):
        __import__("inspect").signature(seen.update)
    task.on("on_result", seen.update)

    task.emit("on_result", F, {"score": 1})

    assert seen == {"score": 1}


@pytest.mark.parametrize(
    ("callback", "needs"),
    [
        (lambda a, b, c: None, "needs 3 positional arguments"),
        (lambda a, *, depth: None, "needs the keywords depth"),
    ],
)
def test_a_callback_that_needs_more_is_refused_at_registration(
    task: Emitter, callback: Any, needs: str
) -> None:
    with pytest.raises(TypeError, match=rf"{needs}, and @on_result passes \(future, result\)"):
        task.on("on_result", callback)
    assert task.handlers("on_result") == ()


# Failing


def fail(error: BaseException) -> None:
    raise error


def test_the_others_still_run_and_then_the_first_error_is_raised() -> None:
    emitter, seen = Emitter(), []
    first, second = ValueError("first"), KeyError("second")
    emitter.on("e", lambda: fail(first), name="breaks")
    emitter.on("e", lambda: seen.append(1))
    emitter.on("e", lambda: fail(second), name="breaks too")
    emitter.on("e", lambda: seen.append(2))

    with pytest.raises(ValueError, match="first") as caught:
        emitter.emit("e")

    assert caught.value is first
    assert seen == [1, 2]
    assert [h.n_errors for h in emitter.handlers("e")] == [1, 0, 1, 0]
    where, other = first.__notes__
    line = test_the_others_still_run_and_then_the_first_error_is_raised.__code__.co_firstlineno + 9
    assert where == (
        f"In callback 'breaks' of @e, emitted at {__file__}:{line} "
        "in test_the_others_still_run_and_then_the_first_error_is_raised."
    )
    assert other.startswith("Another callback failed in the same emission:\nTraceback")
    assert "KeyError: 'second'" in other
    assert "In callback 'breaks too' of @e" in other
    assert caught.traceback[-1].name == "fail"  # where it broke


def test_an_error_in_a_nested_emission_tells_of_both() -> None:
    emitter = Emitter()
    emitter.on("outer", lambda: emitter.emit("inner"), name="relay")
    emitter.on("inner", lambda: fail(ValueError("deep")), name="breaks")

    with pytest.raises(ValueError, match="deep") as caught:
        emitter.emit("outer")

    notes = caught.value.__notes__
    assert [note.partition(",")[0] for note in notes] == [
        "In callback 'breaks' of @inner",
        "In callback 'relay' of @outer",
    ]
    assert " in <lambda>" in notes[0]


def test_one_error_raised_over_and_over_does_not_gather_notes() -> None:
    emitter, error = Emitter(), ValueError("always this one")
    emitter.on("e", lambda: fail(error))

    for _ in range(5):
        with contextlib.suppress(ValueError):
            emitter.emit("e")

    assert len(error.__notes__) == 1


def test_on_error_gets_every_error_at_once_and_the_others_run() -> None:
    emitter, seen = Emitter(), []
    emitter.on_error = lambda error, handler, event: seen.append((str(error), handler.name, event))
    emitter.on("e", lambda: fail(ValueError("one")), name="a")
    emitter.on("e", lambda: seen.append("ran"))
    emitter.on("e", lambda: fail(asyncio.CancelledError("two")), name="b")
    emitter.on("e", lambda: seen.append("ran too"))

    emitter.emit("e")

    assert seen == [("one", "a", "e"), "ran", ("two", "b", "e"), "ran too"]
    assert isinstance(seen[0][2], Event)


def test_what_on_error_raises_comes_out_of_the_emission() -> None:
    emitter, seen = Emitter(), []
    emitter.on_error = lambda error, handler, event: fail(error)
    emitter.on("e", lambda: fail(ValueError("one")))
    emitter.on("e", lambda: seen.append("ran"))

    with pytest.raises(ValueError, match="one"):
        emitter.emit("e")
    assert seen == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_ends_the_emission(error: type[BaseException]) -> None:
    emitter, seen = Emitter(), []
    emitter.on("e", lambda: fail(ValueError("before")))
    emitter.on("e", lambda: fail(error("now")))
    emitter.on("e", lambda: seen.append("ran"))

    with pytest.raises(error, match="now") as caught:
        emitter.emit("e")
    assert "ValueError: before" in caught.value.__notes__[-1]

    told: list[BaseException] = []
    emitter.on_error = lambda error, handler, event: told.append(error)
    emitter.emit("e")

    assert [type(e) for e in told] == [ValueError, error]
    assert seen == []


def test_a_failing_call_is_used_up_and_ends_its_round() -> None:
    emitter, calls = Emitter(), []

    @emitter.on("e", repeat=3, max_calls=2)
    def breaks() -> None:
        calls.append(1)
        raise ValueError("no")

    for _ in range(3):
        with contextlib.suppress(ValueError):
            emitter.emit("e")

    assert len(calls) == 2
    (handler,) = emitter.handlers("e")
    assert (handler.n_calls, handler.n_errors) == (2, 2)


def test_an_error_in_when_is_an_error_of_the_callback() -> None:
    emitter, seen = Emitter(), []
    emitter.on("e", lambda: seen.append("never"), when=lambda: 1 / 0 > 1, name="asks")
    emitter.on("e", lambda: seen.append("ran"))

    with pytest.raises(ZeroDivisionError) as caught:
        emitter.emit("e")

    assert caught.value.__notes__[0].startswith("In callback 'asks' of @e")
    assert seen == ["ran"]
    assert emitter.handlers("e")[0].n_calls == 0


def test_events_told_together_fail_by_the_same_rules(task: Emitter) -> None:
    seen: list[Any] = []
    task.on("on_returned", lambda: fail(ValueError("one")))
    task.on("on_result", lambda: fail(KeyError("two")))
    task.on("on_returned", seen.append)
    together = (("on_result", (F, R)), ("on_returned", (R,)))

    with pytest.raises(ValueError, match="one") as caught:
        task.emit_together(*together)
    assert "KeyError: 'two'" in caught.value.__notes__[-1]
    assert seen == [R]

    task.on("on_result", lambda: fail(SystemExit()))
    task.on("on_returned", seen.append)
    with pytest.raises(SystemExit):
        task.emit_together(*together)
    assert seen == [R, R]


def test_around_surrounds_every_round_and_names_it() -> None:
    emitter, seen = Emitter(), []

    @contextlib.contextmanager
    def around(handler: Handler) -> Iterator[None]:
        seen.append(f"enter {handler.source}")
        try:
            yield
        finally:
            seen.append(f"leave {handler.source}")

    emitter.around = around

    def record(x: int) -> None:
        seen.append(x)

    emitter.on("on_result", record, repeat=2)
    emitter.on("on_result", lambda x: fail(ValueError("no")), name="breaks")
    emitter.on("on_result", record, when=lambda: False)
    with pytest.raises(ValueError, match="no"):
        emitter.emit("on_result", 1)

    one, two = "on_result · record", "on_result · breaks"
    assert seen == [f"enter {one}", 1, 1, f"leave {one}", f"enter {two}", f"leave {two}"]


# Coroutines


async def test_a_coroutine_callback_is_awaited_on_the_running_loop() -> None:
    emitter, seen = Emitter(), []
    done = asyncio.Event()

    @emitter.on("e", repeat=2)
    async def callback(x: int) -> None:
        seen.append(x)
        if len(seen) == 2:
            done.set()

    emitter.emit("e", 1)
    assert seen == []
    await asyncio.wait_for(done.wait(), 10)

    assert seen == [1, 1]
    assert emitter.handlers("e")[0].n_calls == 1


async def test_a_coroutine_that_nobody_else_holds_is_not_lost() -> None:
    emitter, seen = Emitter(), []
    waiting: list[weakref.ref[asyncio.Future[int]]] = []
    begun, done = asyncio.Event(), asyncio.Event()

    @emitter.on("e")
    async def callback() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting.append(weakref.ref(future))
        begun.set()
        seen.append(await future)
        done.set()

    emitter.emit("e")
    await asyncio.wait_for(begun.wait(), 10)
    gc.collect()
    future = waiting[0]()
    assert future is not None
    future.set_result(7)
    await asyncio.wait_for(done.wait(), 10)

    assert seen == [7]


async def test_errors_of_a_coroutine_go_to_on_error_with_the_place_of_the_emission() -> None:
    emitter = Emitter()
    told: asyncio.Future[tuple[BaseException, str, str]] = (
        asyncio.get_running_loop().create_future()
    )
    emitter.on_error = lambda error, handler, event: told.set_result((error, handler.name, event))

    @emitter.on("e")
    async def breaks() -> None:
        raise ValueError("later")

    emitter.emit("e")
    error, name, event = await asyncio.wait_for(told, 10)

    assert (str(error), name, event) == ("later", "breaks", "e")
    assert f"emitted at {__file__}:" in error.__notes__[0]
    assert emitter.handlers("e")[0].n_errors == 1


async def test_an_exit_out_of_a_coroutine_is_kept_from_the_loop() -> None:
    emitter = Emitter()
    told: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    emitter.on_error = lambda error, handler, event: told.set_result(error)

    @emitter.on("e")
    async def leave() -> None:
        raise SystemExit(3)

    emitter.emit("e")

    assert (await asyncio.wait_for(told, 10)).code == 3  # type: ignore[attr-defined]


async def test_spawn_takes_the_coroutine_and_around_is_entered_while_it_runs() -> None:
    emitter, seen, spawned = Emitter(), [], []

    @contextlib.contextmanager
    def around(handler: Handler) -> Iterator[None]:
        seen.append(f"enter {handler.source}")
        yield
        seen.append("leave")

    @emitter.on("e")
    async def callback() -> None:
        seen.append("ran")

    emitter.around = around
    emitter.spawn = lambda coroutine, handler, event: spawned.append((coroutine, handler, event))
    emitter.emit("e")
    ((coroutine, handler, event),) = spawned
    assert (handler, event) == (emitter.handlers("e")[0], "e")
    seen.clear()
    await coroutine

    assert seen == ["enter e · callback", "ran", "leave"]


def test_a_coroutine_without_a_loop_says_what_to_do() -> None:
    emitter, seen = Emitter(), []

    @emitter.on("e")
    async def callback() -> None: ...

    emitter.on("e", lambda: seen.append("ran"))
    with pytest.raises(NoRunningLoopError, match="'callback' of @e is a coroutine function and no"):
        emitter.emit("e")

    assert seen == ["ran"]


async def test_a_cancelled_coroutine_is_no_error() -> None:
    emitter, told = Emitter(), []
    emitter.on_error = lambda error, handler, event: told.append(error)
    begun = asyncio.Event()
    before = asyncio.all_tasks()

    @emitter.on("e")
    async def waits() -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    emitter.emit("e")
    await asyncio.wait_for(begun.wait(), 10)
    (task,) = asyncio.all_tasks() - before
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert told == []
    assert emitter.handlers("e")[0].n_errors == 0


# How callbacks read


class Opaque:
    """A default value with an address in its repr."""

    def __call__(self, result: int) -> None: ...


OPAQUE = Opaque()


def plain(x: int, names: list[str], y=OPAQUE, *, text: str = "a" * 99) -> dict[str, int]: ...


async def awaiting(future) -> None: ...


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (awaiting, "async def awaiting(future) -> None"),
        (lambda: None, "lambda"),
        (lambda future, result=3: None, "lambda future, result=3"),
        (functools.partial(plain, 1), "def plain(names: list[str], y="),
        (Opaque(), "Opaque(result: int) -> None"),
        ([].append, "append(object, /)"),
        ({}.update, "update(...)"),
        (Opaque().__call__, "def __call__(result: int) -> None"),
    ],
)
def test_a_callback_reads_as_it_was_written(callback: Any, text: str) -> None:
    emitter = Emitter()
    emitter.on("e", callback)

    assert emitter.handlers("e")[0].text.startswith(text)
    if not isinstance(callback, functools.partial):
        assert emitter.handlers("e")[0].text == text


def test_signatures_are_short_and_hold_no_addresses() -> None:
    text = signature_text(plain)

    assert text.startswith("(x: int, names: list[str], y=<")
    assert " at 0x" not in text
    assert text.endswith("…) -> dict[str, int]")
    wide = eval("lambda " + ", ".join(f"parameter_{i}" for i in range(99)) + ": None")
    assert len(signature_text(wide)) == 200


def test_a_guide_callback_reads_as_in_the_guide() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Report: ...\ndef show(future, report: Report) -> None: ...", namespace)
    emitter = Emitter()
    emitter.on("e", namespace["show"])

    assert emitter.handlers("e")[0].text == "def show(future, report: Report) -> None"


# Re-running cells


class Notebook(host.Host):
    """Runs cells of source code as a kernel would, as far as registrations can tell."""

    def __init__(self, **names: Any) -> None:
        self.names = {"__name__": "__main__", **names}
        self._execution = 0
        self._cell: host.Cell | None = None

    def cell(self) -> host.Cell | None:
        return self._cell

    def run(self, cell_id: str, source: str) -> None:
        self._execution += 1
        self._cell = host.Cell(cell_id, self._execution, f"[{self._execution}]")
        exec(source, self.names)
        self._cell = None


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    """A notebook with an emitter `e` and a list `seen` in it."""
    notebook = Notebook(e=Emitter(), seen=[])
    former = host.use(notebook)
    yield notebook
    host.use(former)


def registered(notebook: Notebook) -> list[tuple[str, str | None]]:
    return [(h.name, h.cell) for h in notebook.names["e"].handlers("x")]


def test_a_rerun_cell_replaces_its_callback_in_place(notebook: Notebook) -> None:
    one = "@e.on('x', max_calls=1)\ndef one(): seen.append('{}')"
    two = "@e.on('x')\ndef two(): seen.append('two')"
    notebook.run("A", one.format("old"))
    notebook.run("B", two)
    notebook.names["e"].emit("x")
    notebook.run("A", one.format("new"))

    assert registered(notebook) == [("one", "[3]"), ("two", "[2]")]
    notebook.names["e"].emit("x")
    assert notebook.names["seen"] == ["old", "two", "new", "two"]
    assert [h.n_calls for h in notebook.names["e"].handlers("x")] == [1, 2]


def test_the_place_is_kept_among_events_told_together(notebook: Notebook) -> None:
    notebook.run("A", "@e.on('x')\ndef one(): seen.append('x')")
    notebook.run("B", "@e.on('y')\ndef two(): seen.append('y')")
    notebook.run("A", "@e.on('x')\ndef one(): seen.append('x again')")

    notebook.names["e"].emit_together(("x", ()), ("y", ()))

    assert notebook.names["seen"] == ["x again", "y"]


def test_the_same_name_in_another_cell_stays(notebook: Notebook) -> None:
    source = "@e.on('x')\ndef f(): ..."
    notebook.run("A", source)
    notebook.run("B", source)

    assert registered(notebook) == [("f", "[1]"), ("f", "[2]")]
    notebook.run("B", source)
    assert registered(notebook) == [("f", "[1]"), ("f", "[3]")]


def test_the_same_callback_of_another_event_stays(notebook: Notebook) -> None:
    source = "@e.on('x')\n@e.on('y')\ndef f(): ..."
    notebook.run("A", source)
    notebook.run("A", source)

    assert registered(notebook) == [("f", "[2]")]
    assert len(notebook.names["e"].handlers("y")) == 1


def test_registrations_of_one_execution_never_replace_each_other(notebook: Notebook) -> None:
    loop = "def f(): ...\nfor _ in range({}): e.on('x', f)"
    notebook.run("A", loop.format(3))
    assert registered(notebook) == [("f", "[1]")] * 3

    notebook.run("A", loop.format(3))
    assert registered(notebook) == [("f", "[2]")] * 3


def test_fewer_registrations_leave_the_rest_and_more_are_added(notebook: Notebook) -> None:
    loop = "def f(): ...\nfor _ in range({}): e.on('x', f)"
    notebook.run("A", loop.format(3))
    notebook.run("A", loop.format(1))
    assert registered(notebook) == [("f", "[2]"), ("f", "[1]"), ("f", "[1]")]

    notebook.run("A", loop.format(4))
    assert registered(notebook) == [("f", "[3]")] * 4


def test_what_a_repeated_execution_left_running_replaces_nothing(notebook: Notebook) -> None:
    cell = "def later():\n    @e.on('x')\n    def f(): ..."
    notebook.run("A", cell + "\nearlier = later")
    former = host.Cell("A", 1, "[1]")
    notebook.run("A", cell + "\nlater()")
    assert registered(notebook) == [("f", "[2]")]

    notebook._cell = former  # a coroutine of the first execution goes on, in its own context
    notebook.names["earlier"]()
    assert registered(notebook) == [("f", "[2]"), ("f", "[1]")]

    notebook.run("A", cell + "\nlater()")
    assert registered(notebook) == [("f", "[3]"), ("f", "[1]")]


def test_lambdas_go_by_cell_and_position(notebook: Notebook) -> None:
    cell = "e.on('x', lambda: seen.append('{0} 1'))\ne.on('x', lambda: seen.append('{0} 2'))"
    notebook.run("A", cell.format("old"))
    notebook.run("B", "e.on('x', lambda: seen.append('b'))")
    notebook.run("A", cell.format("new"))

    notebook.names["e"].emit("x")

    assert notebook.names["seen"] == ["new 1", "new 2", "b"]


def test_methods_and_partials_of_the_notebook_are_replaced_too(notebook: Notebook) -> None:
    notebook.names["partial"] = functools.partial
    cell = (
        "class Watch:\n    def see(self, x=0): ...\n"
        "e.on('x', Watch().see)\ne.on('x', partial(Watch.see, None))"
    )
    notebook.run("A", cell)
    notebook.run("A", cell)

    assert registered(notebook) == [("see", "[2]")] * 2


def test_replace_false_keeps_what_was_there(notebook: Notebook) -> None:
    source = "@e.on('x', replace=False)\ndef f(): ..."
    notebook.run("A", source)
    notebook.run("A", source)

    assert registered(notebook) == [("f", "[1]"), ("f", "[2]")]


def test_what_a_cell_registers_of_modules_is_replaced_too(notebook: Notebook) -> None:
    notebook.names["awaiting"] = awaiting  # of this test module, as of a plugin
    for _ in range(2):
        notebook.run("A", "e.on('x', awaiting)")

    assert registered(notebook) == [("awaiting", "[2]")]


def test_a_method_of_a_list_is_registered_once_however_often_its_cell_runs(
    notebook: Notebook,
) -> None:
    notebook.names["seen"] = seen = []
    for _ in range(3):
        notebook.run("A", "e.on('x', seen.append)")
    notebook.names["e"].emit("x", 1)

    assert seen == [1]


def test_outside_of_notebooks_nothing_is_replaced() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "e": Emitter()}
    for _ in range(2):
        exec("@e.on('x')\ndef f(): ...", names)

    assert [h.cell for h in names["e"].handlers("x")] == [None, None]


def test_a_callback_that_was_removed_is_added_again_at_the_end(notebook: Notebook) -> None:
    notebook.run("A", "@e.on('x')\ndef f(): ...")
    notebook.run("B", "@e.on('x')\ndef g(): ...\ne.remove('f')")
    notebook.run("A", "@e.on('x')\ndef f(): ...")

    assert registered(notebook) == [("g", "[2]"), ("f", "[3]")]


def test_a_cell_rerun_during_an_emission_takes_effect_with_the_next(notebook: Notebook) -> None:
    notebook.names["notebook"] = notebook
    f = "@e.on('x')\ndef f(): seen.append('{}')"
    notebook.run("A", "@e.on('x', limit=1)\ndef rerun(): notebook.run('B', again)")
    notebook.run("B", f.format("old"))
    notebook.names["again"] = f.format("new")

    notebook.names["e"].emit("x")
    assert notebook.names["seen"] == []
    notebook.names["e"].emit("x")
    assert notebook.names["seen"] == ["new"]


# Against a naive model

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "every": st.integers(1, 4),
        "repeat": st.integers(1, 3),
        "max_calls": st.integers(1, 3),
        "when": st.lists(st.booleans(), min_size=1, max_size=4),
    },
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("on"), st.sampled_from("ab"), OPTIONS),
        st.tuples(st.just("emit"), st.sampled_from("ab")),
        st.tuples(st.just("together")),
        st.tuples(st.just("remove"), st.integers(0, 9)),
    ),
    max_size=40,
)


class Model:
    """What should happen, one list and no cleverness."""

    def __init__(self) -> None:
        self.registered: list[dict[str, Any]] = []
        self.log: list[tuple[int, str]] = []

    def on(self, number: int, event: str, options: dict[str, Any]) -> None:
        self.registered.append(
            {"number": number, "event": event, "seen": 0, "asked": 0, "called": 0, **options}
        )

    def emit(self, *events: str) -> None:
        for one in [one for one in self.registered if one["event"] in events]:
            one["seen"] += 1
            if one["seen"] % one.get("every", 1) != 0:
                continue
            if "when" in one:
                answer = one["when"][one["asked"] % len(one["when"])]
                one["asked"] += 1
                if not answer:
                    continue
            if "max_calls" in one and one["called"] >= one["max_calls"]:
                continue
            one["called"] += 1
            self.log += [(one["number"], one["event"])] * one.get("repeat", 1)


def asking(answers: list[bool]) -> Callable[[], bool]:
    asked: list[int] = []

    def when() -> bool:
        asked.append(1)
        return answers[(len(asked) - 1) % len(answers)]

    return when


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_any_sequence_runs_as_the_model_says(steps: list[Any]) -> None:
    emitter, model, log = Emitter(), Model(), []
    for number, (step, *rest) in enumerate(steps):
        if step == "on":
            event, options = rest
            model.on(number, event, options)
            real = {**options, "when": asking(options["when"])} if "when" in options else options
            emitter.on(
                event, lambda name, n=number: log.append((n, name)), name=f"{number}", **real
            )
        elif step == "emit":
            model.emit(*rest)
            emitter.emit(rest[0], rest[0])
        elif step == "together":
            model.emit("a", "b")
            emitter.emit_together(("a", ("a",)), ("b", ("b",)))
        else:
            kept = [one for one in model.registered if one["number"] != rest[0]]
            assert emitter.remove(f"{rest[0]}") is (len(kept) < len(model.registered))
            model.registered = kept
        assert log == model.log
    calls = {h.name: h.n_calls for event in "ab" for h in emitter.handlers(event)}
    assert calls == {f"{one['number']}": one["called"] for one in model.registered}


def test_handlers_and_channels_show_themselves(task: Emitter) -> None:
    task.on("on_result", print, name="show")
    (handler,) = task.handlers("result")

    assert isinstance(handler, Handler)
    assert repr(handler) == "<Handler on_result · show>"
    assert repr(task.channel("result")) == "<Channel @on_result of Task-f-1>"
    assert repr(task) == "<Emitter 'Task-f-1': 9 events>"
