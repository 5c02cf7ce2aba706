"""The tree of errors is as drawn, and each leaf is what callers catch already."""

from __future__ import annotations

import pickle
import re
from concurrent.futures.process import BrokenProcessPool

import pytest

from amltk_nb import errors
from amltk_nb.errors import AmltkError, CallNotFoundError, NotPicklableError, WorkerDiedError

STANDARD = {
    "ValueError": ValueError,
    "RuntimeError": RuntimeError,
    "EOFError": EOFError,
    "OSError": OSError,
    "BlockingIOError": BlockingIOError,
    "ConnectionError": ConnectionError,
    "TimeoutError": TimeoutError,
    "KeyError": KeyError,
    "ImportError": ImportError,
    "TypeError": TypeError,
    "PicklingError": pickle.PicklingError,
    "ReferenceError": ReferenceError,
    "BrokenProcessPool": BrokenProcessPool,
}
DRAWN = re.findall(r"(?:├──|└──) (\w+) +(?:\(([\w, ]+)\))?", errors.__doc__ or "")
LEAVES = sorted(set(errors.__all__) - {"AmltkError"})


def test_the_tree_in_the_docstring_is_complete():
    assert sorted(name for name, _ in DRAWN) == LEAVES
    assert sorted(errors.__all__) == errors.__all__


@pytest.mark.parametrize(("name", "standard"), DRAWN, ids=[name for name, _ in DRAWN])
def test_each_error_is_also_the_standard_one(name: str, standard: str):
    error = getattr(errors, name)
    assert issubclass(error, AmltkError)
    for base in filter(None, standard.split(", ")):
        assert issubclass(error, STANDARD[base])
    assert errors.WorkerStartError.__mro__[1] is WorkerDiedError


@pytest.mark.parametrize("name", LEAVES)
def test_each_error_says_its_message_and_travels(name: str):
    error = getattr(errors, name)("what happened, why, what next")
    assert str(error) == "what happened, why, what next"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize("name", LEAVES)
def test_each_error_is_made_again_as_other_libraries_do(name: str):
    kind = getattr(errors, name)  # tblib does it like this, and changes pickle once it is imported
    assert kind.__new__(kind, "what happened").args == ("what happened",)


def test_a_message_is_not_quoted_as_keys_are():
    assert str(CallNotFoundError("no call 3")) == "no call 3"
    assert str(CallNotFoundError()) == ""


def test_two_standard_errors_at_once():
    with pytest.raises(TypeError):
        raise NotPicklableError("a lock")
    with pytest.raises(pickle.PicklingError):
        raise NotPicklableError("a lock")
