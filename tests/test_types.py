"""Requeue: the order of items, filling it again, and that it never recurses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amltk_nb.types import Requeue


def test_it_is_an_iterator_over_the_iterable() -> None:
    items = Requeue(range(3))

    assert iter(items) is items
    assert list(items) == [0, 1, 2]


def test_next_takes_a_default_when_nothing_is_left() -> None:
    items = Requeue(["only"])

    assert next(items, None) == "only"
    assert next(items, None) is None
    with pytest.raises(StopIteration):
        next(items)


def test_requeued_items_come_first_and_the_last_one_before_the_others() -> None:
    items = Requeue(range(3))
    taken = [next(items), next(items)]

    for item in taken:
        items.requeue(item)

    assert list(items) == [1, 0, 2]


def test_appended_items_come_last() -> None:
    items = Requeue([1, 2])
    items.append(3)
    items.append(4)

    assert list(items) == [1, 2, 3, 4]


def test_it_can_be_filled_again_after_it_ran_out() -> None:
    items = Requeue([1])
    assert list(items) == [1]

    items.append(2)
    items.requeue(3)

    assert list(items) == [3, 2]
    assert list(items) == []


def test_without_an_iterable_it_starts_empty() -> None:
    items: Requeue[int] = Requeue()
    assert next(items, "empty") == "empty"

    items.append(1)

    assert list(items) == [1]


def test_the_iterable_is_read_only_as_far_as_asked() -> None:
    items = Requeue(itertools.count())

    assert [next(items) for _ in range(3)] == [0, 1, 2]
    items.requeue(9)
    assert [next(items), next(items)] == [9, 3]


def test_three_hundred_thousand_requeues_do_not_recurse() -> None:
    n = 300_000
    items = Requeue([-1])

    for i in range(n):
        items.requeue(i)

    assert next(items) == n - 1
    assert sum(1 for _ in items) == n  # the other n - 1, and the one of the iterable


def test_an_item_put_back_and_taken_again_stays_cheap() -> None:
    items = Requeue(range(2))

    for _ in range(300_000):
        items.requeue(next(items))

    assert list(items) == [0, 1]


def test_from_func_calls_as_often_as_told_and_only_when_asked() -> None:
    calls: list[int] = []

    def draw() -> int:
        calls.append(1)
        return 10 * len(calls)

    items = Requeue.from_func(draw, 3)
    assert calls == []
    assert next(items) == 10
    assert len(calls) == 1
    assert list(items) == [20, 30]
    assert len(calls) == 3


def test_from_func_goes_on_without_a_number() -> None:
    numbers = itertools.count()
    items = Requeue.from_func(lambda: next(numbers))

    assert list(itertools.islice(items, 5)) == [0, 1, 2, 3, 4]


def test_from_func_of_zero_calls_is_empty() -> None:
    assert list(Requeue.from_func(dict, 0)) == []


@pytest.mark.parametrize(
    ("fn", "n", "error", "says"),
    [
        (3, 1, TypeError, "without calling it"),
        (dict, 1.5, TypeError, "whole number"),
        (dict, True, TypeError, "whole number"),
        (dict, -1, ValueError, "from 0 on"),
    ],
)
def test_from_func_refuses_what_makes_no_sense(fn, n, error, says) -> None:
    with pytest.raises(error, match=says):
        Requeue.from_func(fn, n)


def test_what_cannot_be_iterated_over_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Requeue\(3\): use something to iterate over"):
        Requeue(3)


def test_an_error_of_the_iterable_comes_out_and_leaves_what_was_put_back() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    items = Requeue(source())
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)

    items.requeue(2)
    items.append(3)

    assert list(items) == [2, 3]


@given(
    st.lists(st.integers()),
    st.lists(st.tuples(st.sampled_from(["next", "requeue", "append"]), st.integers())),
)
def test_it_behaves_like_a_list_that_is_taken_from_the_front(start, steps) -> None:
    items, model = Requeue(start), list(start)
    for step, value in steps:
        if step == "next":
            assert next(items, "empty") == (model.pop(0) if model else "empty")
        elif step == "requeue":
            items.requeue(value)
            model.insert(0, value)
        else:
            items.append(value)
            model.append(value)
    assert list(items) == model
