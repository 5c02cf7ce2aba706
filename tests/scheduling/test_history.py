"""What is remembered: bounds, failures kept longer, the log, and texts of hostile values."""

from __future__ import annotations

from typing import Any
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.history import History, args_text, error_line, short_repr
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import FakeClock


def ended(id: int, state: CallState = CallState.DONE) -> Call:
    call = Call(id, print, (), {})
    call.state, call.ended_at = state, float(id)
    return call


def test_a_million_calls_cost_as_much_as_the_last_ones():
    history = History(100, clock=FakeClock())
    for id in range(1, 1_000_001):
        history.add(ended(id))
    assert history.counts == {CallState.DONE: 1_000_000}
    assert len(history) == 100
    assert [call.id for call in history.latest()] == list(range(1_000_000, 999_900, -1))
    assert history.get(999_900) is None
    assert history.get(999_901) is not None


def test_failures_outlive_a_flood_of_results():
    history = History(3, clock=FakeClock())
    for id in range(1, 5):
        history.add(ended(id, CallState.FAILED))
    for id in range(5, 100):
        history.add(ended(id))
    assert [call.id for call in history.failed()] == [2, 3, 4]
    assert [call.id for call in history.latest()] == [99, 98, 97, 4, 3, 2]
    assert history.get(1) is None
    assert len(history) == 6


def test_latest_merges_by_the_time_of_the_end():
    history = History(10, clock=FakeClock())
    kinds = [CallState.DONE, CallState.FAILED, CallState.CANCELLED, CallState.FAILED]
    for id, kind in enumerate(kinds, 1):
        history.add(ended(id, kind))
    assert [call.id for call in history.latest()] == [4, 3, 2, 1]


def test_a_history_of_nothing_still_counts():
    history = History(0, clock=FakeClock())
    history.add(ended(1))
    history.add(ended(2, CallState.FAILED))
    assert (len(history), list(history.latest()), history.get(1)) == (0, [], None)
    assert history.counts == {CallState.DONE: 1, CallState.FAILED: 1}


@pytest.mark.parametrize("size", [-1, 1.5, "10", True, None])
def test_a_size_that_means_nothing(size: Any):
    with pytest.raises(ValueError, match="use the number of ended calls to keep, 0 or more"):
        History(size, clock=FakeClock())


def test_the_log_keeps_its_last_500_entries_and_numbers_all():
    clock = FakeClock(5.0)
    history = History(1, clock=clock)
    for n in range(1_200):
        history.log("me", "info", str(n))
    tail = [(record.id, record.text) for record in history.log_tail]
    assert tail == [(n + 1, str(n)) for n in range(700, 1_200)]
    assert (history.log_tail[0].at, history.log_tail[0].source) == (5.0, "me")


def test_a_long_text_keeps_both_ends():
    history = History(1, clock=FakeClock())
    history.log("me", "print", "a" * 50_000 + "z" * 50_000)
    text = history.log_tail[0].text
    assert text == "a" * 5_000 + "\n… 90000 characters left out …\n" + "z" * 5_000


# short_repr


class Raising:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class HostileAttributes:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


class HostileShape:
    dtype = "float"

    @property
    def shape(self) -> Any:
        raise OSError("gone")


class NotAString:
    def __repr__(self) -> str:
        return 3  # type: ignore[return-value]


class Recursing:
    def __repr__(self) -> str:
        return repr(self)


class OddName:
    def __call__(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name == "__qualname__":
            raise ZeroDivisionError
        raise AttributeError(name)


class HostileText(str):
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("no")


def endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


HOSTILE = [
    Raising(),
    HostileAttributes(),
    HostileShape(),
    NotAString(),
    Recursing(),
    OddName(),
    HostileText("abc"),
    10**5_000,  # str() of so many digits is refused by Python
    [10**5_000],
    endless(),
    list(range(1_000_000)),
    "x" * 10_000_000,
    b"x" * 10_000_000,
    {Raising(): Raising()},
    "\ud800",  # half of a surrogate pair
    type("Meta", (type,), {"__eq__": lambda a, b: 1 / 0, "__hash__": lambda a: 1})("C", (), {})(),
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("limit", [20, 60, 200])
def test_a_hostile_value_has_a_short_text(value: Any, limit: int):
    text = short_repr(value, limit)
    assert type(text) is str
    assert 0 < len(text) <= limit


def test_the_text_says_what_went_wrong():
    assert short_repr(Raising()) == "<Raising whose repr raised RuntimeError>"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12, "12"),
        (1.5, "1.5"),
        (None, "None"),
        ("a'b", '"a\'b"'),
        ([1, 2], "[1, 2]"),
        (print, "print"),
        (test_the_text_says_what_went_wrong, "test_the_text_says_what_went_wrong"),
        (Raising, "Raising"),
        ({"a": 1}, "{'a': 1}"),
        ({"b": 1, "a": {"d": 2, "c": 3}}, "{'b': 1, 'a': {'d': 2, 'c': 3}}"),
        (dict.fromkeys(range(9, 0, -1), 0), "{9: 0, 8: 0, 7: 0, 6: 0, 5: 0, 4: 0, ...}"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
    ],
)
def test_ordinary_values_read_as_one_would_write_them(value: Any, text: str):
    assert short_repr(value) == text


def test_a_longer_text_shows_more_items():
    result = dict.fromkeys("hgfedcba", 0.5)
    assert short_repr(result, 2_000) == str(result)
    assert short_repr(list(range(1_000)), 2_000).endswith("38, 39, ...]")


class Plain:
    """An object with the repr that Python gives it, which has an address."""


def test_no_text_has_an_address():
    assert "0x" not in short_repr(Plain(), 200)
    assert "Plain object>" in short_repr(Plain(), 200)
    assert "0x" not in short_repr([Plain()], 200)


def test_one_bad_item_does_not_hide_its_neighbours():
    assert short_repr([1, Raising()], 99) == "[1, <Raising whose repr raised RuntimeError>]"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad C"), "ValueError: bad C"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (ValueError(), "ValueError"),
        (ValueError("\n"), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (Mute(), "Mute: (its message cannot be shown)"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * 288),
    ],
)
def test_an_error_in_one_line(error: Exception, line: str):
    assert error_line(error) == line


def test_an_array_is_shown_by_its_shape():
    np = pytest.importorskip("numpy")
    assert short_repr(np.zeros((1_000, 3))) == "<ndarray (1000, 3) float64>"


@settings(max_examples=40)
@given(
    st.recursive(st.none() | st.text() | st.integers() | st.binary(), st.lists), st.integers(2, 80)
)
def test_never_longer_than_asked(value: Any, limit: int):
    assert len(short_repr(value, limit)) <= limit


def heavy(id: int, *args: Any, state: CallState = CallState.DONE, output: str = "") -> Call:
    call = ended(id, state)
    call.args, call.output = args, output
    return call


def test_large_arguments_are_let_go_of_oldest_first():
    history = History(100, clock=FakeClock())
    calls = [heavy(id, bytes(100_000_000), id) for id in range(1, 6)]
    for call in calls:
        history.add(call)
    assert [call.arguments_gone for call in calls] == [True, True, True, False, False]
    assert [call.args[1:] for call in calls] == [(), (), (), (4,), (5,)]
    assert [args_text(call)[-2:] for call in calls] == [" 1", " 2", " 3", " 4", " 5"]
    assert len(history) == 5


def test_arguments_that_calls_share_weigh_once_and_the_latest_stay_however_large():
    history = History(3, clock=FakeClock())
    shared = bytes(200_000_000)
    calls = [heavy(id, {"data": [shared]}) for id in range(1, 8)]
    for call in calls:
        history.add(call)
    assert not any(call.arguments_gone for call in calls)
    large = heavy(8, bytes(300_000_000))
    history.add(large)
    assert [call.arguments_gone for call in calls] == [False] * 5 + [True] * 2  # five had left it
    assert not large.arguments_gone


def test_failures_have_a_budget_of_their_own():
    history = History(100, clock=FakeClock())
    failed = heavy(1, bytes(200_000_000), state=CallState.FAILED)
    history.add(failed)
    for id in range(2, 6):
        history.add(heavy(id, bytes(200_000_000)))
    assert not failed.arguments_gone


def test_what_all_calls_printed_is_bounded():
    history = History(2_000, clock=FakeClock())
    calls = [heavy(id, output="x" * 64_000) for id in range(1, 1_101)]
    for call in calls:
        history.add(call)
    kept = [call for call in calls if len(call.output) == 64_000]
    assert kept == calls[100:]
    assert calls[0].output == "(64,000 characters; too old to be kept)\n"


@pytest.mark.parametrize("n_kept", [3])
def test_only_the_last_failures_keep_the_variables_of_their_functions(n_kept: int):
    class Large:
        pass

    def fail(found: list[ref[Large]]) -> None:
        large = Large()
        found.append(ref(large))
        raise ValueError(large.__class__)

    history, found = History(100, clock=FakeClock()), []
    for id in range(1, 11):
        call = heavy(id, state=CallState.FAILED)
        try:
            fail(found)
        except ValueError as error:
            call.error = error.with_traceback(error.__traceback__.tb_next)
        history.add(call)
    assert [large() is None for large in found] == [True] * (10 - n_kept) + [False] * n_kept
    assert all(call.error.__traceback__.tb_lineno for call in history.failed())
