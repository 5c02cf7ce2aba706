"""What travels to workers and back, and what is said about what cannot."""

from __future__ import annotations

import asyncio
import gc
import operator
import pickle
import threading
import warnings
import weakref
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amltk_nb.errors import NotPicklableError
from amltk_nb.scheduling import functions
from amltk_nb.scheduling.functions import ship_function
from amltk_nb.scheduling.shipping import (
    RemoteError,
    RemoteTraceback,
    error_parts,
    function_name,
    pack,
    rebuilt_error,
    ship_arguments,
    type_name,
    unpack,
)
from tests.executors.functions import HoldsLock, TwoArguments, add


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def notebook(source: str, **names: Any) -> Any:
    """Define a function as a notebook's cell does; returns the last one defined."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(source, namespace)
    return next(v for v in reversed(namespace.values()) if callable(v))


def load(fn: Any) -> Any:
    return pickle.loads(ship_function(fn).packed)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(scalars, inner),
    max_leaves=20,
)


@given(st.tuples(values, values), st.dictionaries(st.text(), values))
def test_any_arguments_arrive_as_they_were(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert unpack(ship_arguments(add, args, kwargs)) == (args, kwargs)


def test_subclasses_and_instances_do_not_take_the_short_way() -> None:
    class Text(str):
        pass

    (text, point), _ = unpack(ship_arguments(add, (Text("a"), [Point(3)]), {}))
    assert type(text).__name__ == "Text"
    assert point == [Point(3)]


@pytest.mark.parametrize("n_bytes", [8, 16_383, 16_384, 1_000_000])
@pytest.mark.parametrize("writable", [True, False])
def test_arrays_of_any_size_keep_content_and_writability(n_bytes: int, writable: bool) -> None:
    array = np.arange(n_bytes, dtype=np.uint8)
    array.flags.writeable = writable
    (copy,), _ = unpack(ship_arguments(add, (array,), {}))
    assert (copy == array).all()
    assert copy.flags.writeable is writable or n_bytes < 16_384
    assert not np.shares_memory(copy, array) or not writable


def test_large_buffers_travel_beside_the_pickle() -> None:
    packed, buffers = pack(np.zeros(100_000))
    assert len(packed) < 1_000
    assert [buffer.raw().nbytes for buffer in buffers] == [800_000]


# --- blame ----------------------------------------------------------------------------------


def test_an_argument_that_cannot_travel_is_named_by_place_type_and_function() -> None:
    with pytest.raises(NotPicklableError) as caught:
        ship_arguments(add, (1, threading.Lock()), {})
    text = str(caught.value)
    assert "argument 2 (a _thread.lock) of add() cannot be pickled" in text
    assert "cannot pickle '_thread.lock' object" in text
    assert "Pass plain values" in text
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, pickle.PicklingError)


def test_a_keyword_that_cannot_travel_is_named() -> None:
    with pytest.raises(NotPicklableError, match=r"argument b= \(a list\) of add\(\)"):
        ship_arguments(add, (1,), {"b": [threading.Lock()]})


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}])
async def test_a_future_as_argument_is_told_to_be_awaited(wrap: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(NotPicklableError, match="await future"):
        ship_arguments(add, (wrap(future),), {})


def test_a_function_that_cannot_travel_names_what_it_captured() -> None:
    lock = threading.Lock()
    fn = notebook("def train():\n    with lock:\n        pass", lock=lock)
    with pytest.raises(NotPicklableError, match=r"train\(\) .* uses `lock` \(a _thread.lock\)"):
        ship_function(fn)
    with pytest.raises(NotPicklableError, match=r"uses `lock` \(a _thread.lock\)"):
        ship_function(lambda: lock)
    with pytest.raises(NotPicklableError, match=r"uses `a default` \(a _thread.lock\)"):
        ship_function(notebook("def f(x=lock): pass", lock=lock))


# --- functions: by reference, by value, and when bytes may be used again --------------------


def test_importable_functions_go_by_reference_and_others_by_value() -> None:
    assert load(add) is add
    assert load(operator.add) is operator.add
    assert load(notebook("def f(x):\n    return x + n", n=5))(1) == 6
    assert load(partial(add, 1))(2) == 3
    assert load(Point(3).__eq__)(Point(3)) is True


CONSTANT = {
    "nothing": "def f(x): return x",
    "a number": "n = 3\ndef f(x): return x + n",
    "a module and its functions": "import math\nfrom os.path import join\n"
    "def f(x): return math.sin(x), join",
    "another function": "def g(x): return x\ndef f(x): return g(x)",
    "itself": "def f(x): return f(x - 1) if x else 0",
    "a tuple of numbers": "t = (1, (2, 3))\ndef f(x): return t",
    "annotations": "def f(x: list[int] = 3, *, y: str = 'a') -> set[int]: return x",
    "an inner function": "n = 3\ndef f(x):\n    def inner(): return n\n    return inner()",
    "attributes": "def f(x): return x\nf.note = 'a'",
}


@pytest.mark.parametrize("source", CONSTANT.values(), ids=CONSTANT)
def test_bytes_are_used_again_while_nothing_can_have_changed(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fn = notebook(source)
    first = ship_function(fn)

    def refuse(*_: Any) -> None:
        raise AssertionError("pickled again")

    monkeypatch.setattr(functions.cloudpickle, "dumps", refuse)
    assert ship_function(fn) is first


CHANGES = {
    "a number bound anew": ("n = 1\ndef f(): return n", lambda f: f.__globals__.update(n=2)),
    "a name that appears": (
        "def f():\n    try: return n\n    except NameError: return 1",
        lambda f: f.__globals__.update(n=2),
    ),
    "a list changed in place": (
        "n = [1]\ndef f(): return n[-1]",
        lambda f: f.__globals__["n"].append(2),
    ),
    "an inner function's global": (
        "n = 1\ndef f(): return (lambda: n)()",
        lambda f: f.__globals__.update(n=2),
    ),
    "a helper's global": (
        "n = 1\ndef g(): return n\ndef f(): return g()",
        lambda f: f.__globals__.update(n=2),
    ),
    "a helper redefined": (
        "def g(): return 1\ndef f(): return g()",
        lambda f: exec("def g(): return 2", f.__globals__),
    ),
    "a class changed in place": (
        "class C: n = 1\ndef f(): return C.n",
        lambda f: setattr(f.__globals__["C"], "n", 2),
    ),
    "a default replaced": ("def f(n=1): return n", lambda f: setattr(f, "__defaults__", (2,))),
    "a keyword default": ("def f(*, n=1): return n", lambda f: f.__kwdefaults__.update(n=2)),
    "keyword defaults replaced": (
        "def f(*, n=1): return n",
        lambda f: setattr(f, "__kwdefaults__", {"n": 2}),
    ),
    "a mutable default": ("def f(n=[1]): return n[-1]", lambda f: f.__defaults__[0].append(2)),
    "the code": (
        "def f(): return 1",
        lambda f: setattr(f, "__code__", notebook("def g(): return 2").__code__),
    ),
    "an attribute": (
        "def f(): return getattr(f, 'n', 1)",
        lambda f: setattr(f, "n", 2),
    ),
}


@pytest.mark.parametrize(("source", "change"), CHANGES.values(), ids=CHANGES)
def test_a_change_of_anything_captured_is_sent(source: str, change: Any) -> None:
    fn = notebook(source)
    assert load(fn)() == 1
    assert load(fn)() == 1
    change(fn)
    assert load(fn)() == 2


def test_a_closure_bound_anew_is_sent() -> None:
    n = 1

    def fn() -> int:
        return n

    fn.__module__ = "__main__"
    assert load(fn)() == 1
    n = 2
    assert load(fn)() == 2


def test_an_importable_function_that_is_replaced_goes_by_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    module = ModuleType("amltk_nb_test_module")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    first = module.f
    assert load(first) is first
    exec("def f(): return 2", module.__dict__)
    assert load(first)() == 1
    assert load(module.f) is module.f


def test_equal_functions_share_one_shipment() -> None:
    shipments = [ship_function(notebook("def f(): return [1]")) for _ in range(3)]
    assert len({id(each) for each in shipments}) == 1


@pytest.mark.parametrize("source", ["def f(): return 1", "def f(x): return f(x - 1) if x else 0"])
def test_functions_are_not_kept_alive(source: str) -> None:
    fn = notebook(source)
    ship_function(fn)
    gone = weakref.ref(fn)
    fn.__globals__.clear()
    del fn
    gc.collect()
    assert gone() is None


def test_a_function_that_drags_much_warns_once_and_names_it() -> None:
    fn = notebook("def train(): return table, small", table=np.zeros(2_000_000), small=[1])
    with pytest.warns(UserWarning, match=r"train\(\) takes 16 MB .* uses `table` \(16 MB\)\. Load"):
        ship_function(fn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ship_function(fn)


# --- names and errors -----------------------------------------------------------------------


def test_names_for_messages() -> None:
    assert type_name(3) == "int"
    assert type_name(threading.Lock()) == "_thread.lock"
    assert function_name(partial(partial(add, 1), 2)) == "add"
    assert function_name(Point(3)) == "tests.test_shipping.Point"  # type: ignore[arg-type]


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_is_made_again_with_its_notes_and_traceback() -> None:
    error = raised(ValueError("no", 3))
    error.add_note("look here")
    again = rebuilt_error(error_parts(error, skip_frames=0))
    assert (type(again), again.args, again.__notes__) == (ValueError, ("no", 3), ["look here"])
    assert isinstance(again.__cause__, RemoteTraceback)
    assert "in raised" in str(again.__cause__)
    assert "in raised" not in str(rebuilt_error(error_parts(error, skip_frames=1)).__cause__)


def test_an_error_that_cannot_be_pickled_is_stood_in_for() -> None:
    again = rebuilt_error(error_parts(raised(HoldsLock("held")), skip_frames=0))
    assert type(again) is RemoteError
    assert str(again) == "tests.executors.functions.HoldsLock: held"


def test_an_error_keeps_its_type_when_its_constructor_cannot_be_called_again() -> None:
    error = raised(TwoArguments("one", "two"))
    error.hint = "look here"  # type: ignore[attr-defined]
    again = rebuilt_error(error_parts(error, skip_frames=0))
    assert type(again) is TwoArguments
    assert (str(again), again.args) == ("one and two", ("one and two",))
    assert again.hint == "look here"  # type: ignore[attr-defined]


def test_an_error_of_the_system_keeps_its_kind_and_file() -> None:
    again = rebuilt_error(error_parts(raised(OSError(2, "none", "file.txt")), skip_frames=0))
    assert type(again) is FileNotFoundError
    assert (again.errno, again.filename) == (2, "file.txt")


def test_an_error_with_a_faulty_message_still_arrives() -> None:
    class Faulty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

        def __reduce__(self) -> Any:
            raise RuntimeError("no way")

    again = rebuilt_error(error_parts(raised(Faulty()), skip_frames=0))
    assert type(again) is RemoteError
    assert "cannot be shown: RuntimeError: no words" in str(again)
