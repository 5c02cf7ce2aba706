"""Warnings filters inside a call: there, and nowhere else."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from amltk_nb import ExitCode, Scheduler
from amltk_nb.scheduling.plugins.around import Around
from amltk_nb.scheduling.plugins.warning_filter import WarningFilter
from tests.plugins.contract import LONG_S, PluginContract


class TestWarningFilter(PluginContract):
    def make(self) -> WarningFilter:
        return WarningFilter("ignore", message="old", category=DeprecationWarning)


def warn(text: str, category: type[Warning] = UserWarning) -> str:
    warnings.warn(text, category, stacklevel=1)
    return text


async def warn_later(text: str) -> str:
    await asyncio.sleep(0)
    return warn(text)


@pytest.mark.parametrize("kind", ["processes", "threads"])
@pytest.mark.parametrize("fn", [warn, warn_later])
async def test_the_filter_holds_inside_the_call_only(kind: str, fn: Callable[[str], Any]):
    scheduler = getattr(Scheduler, f"with_{kind}")(1)
    before = list(warnings.filters)
    strict = scheduler.task(fn, plugins=WarningFilter("error", "bad"))
    lenient = scheduler.task(fn, plugins=WarningFilter("ignore"))
    run = scheduler.start(end_on_empty=True)
    futures = [strict.submit("bad news"), strict.submit("BAD luck"), lenient.submit("bad")]
    futures.append(scheduler.task(count_filters).submit())
    assert await run == ExitCode.EXHAUSTED
    for future in futures[:2]:
        assert type(future.exception()) is UserWarning
    assert futures[2].result() == "bad"
    assert futures[3].result() == 0
    assert warnings.filters == before


def count_filters() -> int:
    """Count the filters of this process that are ours."""
    messages = [getattr(message, "pattern", message) for _, message, *_ in warnings.filters]
    return sum(message == "bad" or type(message).__name__ == "_InThread" for message in messages)


async def test_threads_do_not_share_their_filters():
    """Four calls warn at the same time; two of them have a filter that makes it an error."""
    scheduler = Scheduler.with_threads(4)
    barrier = threading.Barrier(4)

    def warn_together(text: str) -> str:
        barrier.wait(LONG_S)
        warnings.warn(text, stacklevel=1)
        barrier.wait(LONG_S)
        return text

    def survive(text: str) -> str:
        try:
            return warn_together(text)
        except UserWarning:
            barrier.wait(LONG_S)
            return "raised"

    before = list(warnings.filters)
    strict = scheduler.task(survive, plugins=WarningFilter("error"))
    quiet = scheduler.task(survive, plugins=WarningFilter("ignore"))
    run = scheduler.start(end_on_empty=True)
    futures = [strict.submit("a"), quiet.submit("b"), strict.submit("c"), quiet.submit("d")]
    results = await asyncio.wait_for(scheduler.gather(futures), LONG_S)
    assert results == ["raised", "b", "raised", "d"]
    await run
    assert warnings.filters == before


def in_thread(fn: Callable[[], Any]) -> Any:
    """Run on another thread; returns what it returned or raised."""
    results: list[Any] = []

    def main() -> None:
        try:
            results.append(fn())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    thread.join(LONG_S)
    return results[0]


def filtered(plugin: WarningFilter, fn: Callable[..., Any]) -> Callable[..., Any]:
    submission = plugin.pre_submit(fn)
    assert submission is not None
    return submission[0]


def test_an_equal_filter_of_the_users_stays_where_it_is():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "mine", UserWarning)
        warnings.filterwarnings("ignore", "other", UserWarning)
        before = list(warnings.filters)
        for append in (False, True):
            plugin = WarningFilter("ignore", "mine", UserWarning, append=append)
            assert in_thread(filtered(plugin, lambda: 1)) == 1
            assert warnings.filters == before


def test_appended_it_comes_last():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = filtered(WarningFilter("error"), partial(warn, "x"))
        last = filtered(WarningFilter("error", append=True), partial(warn, "x"))
        assert type(in_thread(first)) is UserWarning
        assert in_thread(last) == "x"


def test_what_was_shown_once_is_seen_again():
    """The module remembers what it has shown, and looks at no filter for that any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.warns(UserWarning, match="same"):
            warn("same")
        strict = filtered(WarningFilter("error"), partial(warn, "same"))
        assert type(in_thread(strict)) is UserWarning


@pytest.mark.parametrize(
    ("plugin", "text", "category", "is_raised"),
    [
        (WarningFilter("error", category=DeprecationWarning), "x", DeprecationWarning, True),
        (WarningFilter("error", category=DeprecationWarning), "x", UserWarning, False),
        (WarningFilter("error", module=r"tests\.plugins"), "x", UserWarning, True),
        (WarningFilter("error", module="numpy"), "x", UserWarning, False),
        (WarningFilter("error", lineno=1), "x", UserWarning, False),
        (WarningFilter("error", "x+$"), "XX", UserWarning, True),
        (WarningFilter("error", "x+$"), "XY", UserWarning, False),
    ],
)
def test_on_threads_it_matches_as_ever(
    plugin: WarningFilter, text: str, category: type[Warning], is_raised: bool
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = in_thread(filtered(plugin, partial(warn, text, category)))
    assert type(result) is category if is_raised else result == text


def test_several_are_asked_in_their_order():
    scheduler = Scheduler.with_threads(1)
    plugins = [WarningFilter("ignore", "fine"), WarningFilter("error")]
    task = scheduler.task(warn, plugins=plugins)
    futures: list[Any] = []
    scheduler.on_start(lambda: futures.extend([task.submit("fine"), task.submit("bad")]))
    scheduler.run(on_exception="continue", display=False)
    assert futures[0].result() == "fine"
    assert type(futures[1].exception()) is UserWarning


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"action": "shout"}, ValueError, "action='shout': use one of 'error', 'ignore'"),
        ({"action": "error", "message": "("}, ValueError, r"message='\(' is no regular expression"),
        ({"action": "error", "module": "("}, ValueError, "module="),
        ({"action": "error", "message": 1}, TypeError, "message=1"),
        ({"action": "error", "category": ValueError}, TypeError, "pass a class of warnings"),
        ({"action": "error", "category": "UserWarning"}, TypeError, "category='UserWarning'"),
        ({"action": "error", "lineno": -1}, ValueError, "lineno=-1"),
        ({"action": "error", "lineno": True}, ValueError, "lineno=True"),
    ],
)
def test_a_filter_that_means_nothing(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        WarningFilter(**options)


def test_state_shows_the_filter():
    plugin = WarningFilter("error", "bad", RuntimeWarning, "numpy")
    assert plugin.state() == {
        "Action": "error",
        "Category": "RuntimeWarning",
        "Message": "bad",
        "Module": "numpy",
    }


# --- what all plugins put around a call -----------------------------------------------------

entered: list[str] = []


@contextmanager
def noting(name: str) -> Iterator[None]:
    entered.append(name)
    yield
    entered.append(f"end of {name}")


async def look_later() -> list[str]:
    await asyncio.sleep(0)
    return list(entered)


def look() -> list[str]:
    return list(entered)


@pytest.mark.parametrize("fn", [look, look_later])
def test_contexts_around_a_context_hold_while_a_coroutine_runs(fn: Callable[[], Any]):
    entered.clear()
    around = Around(Around(fn, partial(noting, "inner")), partial(noting, "outer"))
    value = around()
    seen = asyncio.run(value) if asyncio.iscoroutine(value) else value
    assert seen == ["outer", "inner"]
    assert entered == ["outer", "inner", "end of inner", "end of outer"]


def test_a_context_that_cannot_be_made_leaves_no_coroutine_behind():
    around = Around(look_later, partial(open, "/no/such/file"))
    with pytest.raises(FileNotFoundError):
        asyncio.run(around())  # a coroutine that nobody awaits would warn, and warnings are errors
