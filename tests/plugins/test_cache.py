"""Cache: hits and misses, over kernels and processes; the store; and everything that goes wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from amltk_nb import Cache, ExitCode, Plugin, Retry, Scheduler
from amltk_nb.errors import MissingExtraError, NotPicklableError, PluginError
from amltk_nb.scheduling.plugins.around import Around
from amltk_nb.testing import EventRecorder
from tests.plugins.contract import LONG_S, PluginContract
from tests.plugins.test_fingerprint import Notebook


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def aside(fn: Callable[[], Any]) -> Any:
    """Do on another thread what may block: making and clearing a cache, but never a look-up."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result()


def make_cache(location: Path, **options: Any) -> Cache:
    return aside(lambda: Cache(location, **options))


class TestCache(PluginContract):
    @pytest.fixture(autouse=True)
    def _in_a_folder_of_its_own(self, location: Path) -> None:
        self.location = location

    def make(self) -> Cache:
        return make_cache(self.location)


def entries(location: Path) -> list[Path]:
    return sorted(location.rglob("output.pkl"))


def logged(scheduler: Scheduler) -> list[str]:
    return [line.text for line in scheduler.snapshot().log if line.source != "print"]


# --- one function, its call counted by a file ------------------------------------------------


def counted(n: int, path: str, *, verbose: bool = False) -> int:
    """Square a number, and leave a mark for each time this really ran."""
    with open(path, "a") as file:
        file.write("x")
    return n * n


class Bench:
    """Runs a task with a cache, each time on a scheduler of its own, as over several sessions."""

    def __init__(self, location: Path, backend: str) -> None:
        self.location, self.backend = location, backend
        self.marks = location.parent / "marks"
        self.marks.touch()

    @property
    def n_ran(self) -> int:
        return len(self.marks.read_text())

    async def run(
        self, fn: Callable[..., Any], *submissions: tuple[Any, ...], cache: Cache | None = None
    ) -> list[Any]:
        """Submit all at once; returns the results, exceptions in their places."""
        self.cache = cache or make_cache(self.location)
        self.scheduler = getattr(Scheduler, f"with_{self.backend}")(1)
        self.task = self.scheduler.task(fn, plugins=self.cache, late=False)
        self.recorder = EventRecorder(self.scheduler)
        run = self.scheduler.start(end_on_empty=True)
        futures = [self.task.submit(*args) for args in submissions]
        assert await asyncio.wait_for(run, LONG_S) == ExitCode.EXHAUSTED
        return [future.exception() or future.result() for future in futures]

    @property
    def counts(self) -> tuple[int, int]:
        return self.cache.n_hits, self.cache.n_misses


@pytest.fixture(params=["processes", "threads"])
def bench(request: pytest.FixtureRequest, location: Path) -> Bench:
    return Bench(location, request.param)


@pytest.fixture
def threads(location: Path) -> Bench:
    return Bench(location, "threads")


async def test_the_second_time_it_is_not_run(bench: Bench):
    marks = str(bench.marks)
    assert await bench.run(counted, (3, marks), (4, marks)) == [9, 16]
    assert (bench.counts, bench.n_ran, len(entries(bench.location))) == ((0, 2), 2, 2)
    assert await bench.run(counted, (3, marks), (5, marks), (3, marks)) == [9, 25, 9]
    assert (bench.counts, bench.n_ran) == ((2, 1), 3)
    assert bench.cache.state() == {"Hits": 2, "Misses": 1, "Location": bench.cache._shown}
    assert logged(bench.scheduler) == []


async def test_a_hit_has_the_events_of_any_call_and_its_own(threads: Bench):
    await threads.run(counted, (3, str(threads.marks)))
    assert "Task-counted-1.cache-miss" in threads.recorder.names
    await threads.run(counted, (3, str(threads.marks)))
    names = [name for name in threads.recorder.names if name.startswith("Task")]
    assert names == [
        "Task-counted-1.on_submitted",
        "Task-counted-1.cache-hit",
        "Task-counted-1.on_done",
        "Task-counted-1.on_result",
        "Task-counted-1.on_returned",
        "Task-counted-1.on_f_returned",
    ]
    (hit,) = [e for e in threads.recorder.events if e.event == "cache-hit"]
    future, result = hit.args
    assert (future.result(), result) == (9, 9)
    (row,) = threads.scheduler.records()
    assert (row["state"], row["args"].startswith("3, ")) == ("done", True)


async def test_one_none_and_large_arrays_are_results_as_well(bench: Bench):
    def made(kind: str) -> Any:
        return {"none": None, "array": np.arange(200_000.0), "nested": {"a": [1, (2, "x")]}}[kind]

    first = await bench.run(made, ("none",), ("array",), ("nested",))
    second = await bench.run(made, ("none",), ("array",), ("nested",))
    assert bench.counts == (3, 0)
    np.testing.assert_array_equal(second[1], np.arange(200_000.0))
    assert (second[0], second[2]) == (first[0], first[2]) == (None, {"a": [1, (2, "x")]})


async def test_errors_are_not_stored(threads: Bench):
    def failing(path: str) -> None:
        counted(1, path)
        raise ValueError("always")

    for n in (1, 2):
        (error,) = await threads.run(failing, (str(threads.marks),))
        assert isinstance(error, ValueError)
        assert threads.n_ran == n
    assert threads.counts == (0, 0)
    assert entries(threads.location) == []


async def test_coroutine_functions(bench: Bench):
    async def later(n: int, path: str) -> int:
        return await asyncio.to_thread(counted, n, path)

    marks = str(bench.marks)
    assert await bench.run(later, (3, marks)) == [9]
    assert await bench.run(later, (3, marks)) == [9]
    assert (bench.n_ran, bench.counts) == (1, (1, 0))


async def test_arguments_however_they_are_passed(location: Path):
    scheduler = Scheduler.with_threads(1)
    cache = make_cache(location, ignore=("verbose",))
    task = scheduler.task(counted, plugins=cache)
    run = scheduler.start(end_on_empty=True)
    (marks := location.parent / "marks").touch()
    path = str(marks)
    for submitted in (
        task.submit(3, path),
        task.submit(n=3, path=path),
        task.submit(3, path=path, verbose=False),
        task.submit(3, path, verbose=True),
    ):
        await asyncio.wait_for(asyncio.shield(submitted), LONG_S)
    await run
    assert (cache.n_hits, cache.n_misses) == (3, 1)


async def test_ignoring_one_of_any_keywords(location: Path):
    def takes_any(first: int, /, **rest: Any) -> tuple[int, dict[str, Any]]:
        return first, rest

    scheduler = Scheduler.with_threads(1)
    cache = make_cache(location, ignore=("verbose",))
    task = scheduler.task(takes_any, plugins=cache)
    run = scheduler.start()
    assert await task.submit(1, b=2, verbose=True) == (1, {"b": 2, "verbose": True})
    assert await task.submit(1, verbose=False, b=2) == (1, {"b": 2, "verbose": True})
    assert await task.submit(2, b=2) == (2, {"b": 2})
    assert await task.submit(1, first=2) == (1, {"first": 2})
    assert await task.submit(2, first=2) == (2, {"first": 2})
    scheduler.stop()
    await run
    assert (cache.n_hits, cache.n_misses) == (1, 4)


# --- the same over kernels, for real ---------------------------------------------------------


def count_cell(rate: int, marks: Path) -> str:
    return f"""
        RATE = {rate}

        def work(x):
            with open({str(marks)!r}, "a") as file:
                file.write("x")
            return x * RATE
    """


async def test_a_function_of_a_notebook_over_kernels_and_edits(bench: Bench):
    cell = count_cell(3, bench.marks)
    assert await bench.run(Notebook().run(cell)["work"], (2,)) == [6]
    assert await bench.run(Notebook().run(cell)["work"], (2,)) == [6]
    assert (bench.counts, bench.n_ran) == ((1, 0), 1)
    assert await bench.run(Notebook().run(count_cell(5, bench.marks))["work"], (2,)) == [10]
    assert (bench.counts, bench.n_ran) == ((0, 1), 2)
    assert await bench.run(Notebook().run(cell)["work"], (2,)) == [6]  # and back again
    assert (bench.counts, bench.n_ran) == ((1, 0), 2)
    assert [path.parent.parent.name for path in entries(bench.location)] == ["__main__.work"] * 2


async def test_a_global_that_changes_between_two_calls_of_one_run(bench: Bench):
    notebook = Notebook().run(count_cell(3, bench.marks))
    scheduler = getattr(Scheduler, f"with_{bench.backend}")(1)
    cache = make_cache(bench.location)
    task = scheduler.task(notebook["work"], plugins=cache, late=False)
    scheduler.start()
    for rate, result in ((3, 6), (4, 8), (3, 6), (4, 8)):
        notebook.names["RATE"] = rate
        assert await asyncio.wait_for(asyncio.shield(task.submit(2)), LONG_S) == result
    scheduler.stop()
    await scheduler.last_run
    assert (cache.n_hits, cache.n_misses) == (2, 2)


async def test_processes_and_threads_find_each_others_results(location: Path):
    cell = count_cell(3, location.parent / "marks")
    first, second = Bench(location, "processes"), Bench(location, "threads")
    argument = {"array": np.arange(5), "words": frozenset({"a", "b", "c"}), "n": (1, 2.5)}
    fn = "def work(x):\n    return sorted(x['words']), x['n'], LIMITS\nLIMITS = (1, 2)"
    await first.run(Notebook().run(fn)["work"], (argument,))
    await second.run(Notebook().run(fn)["work"], (argument,))
    assert second.counts == (1, 0)
    await second.run(Notebook().run(cell)["work"], (7,))
    await first.run(Notebook().run(cell)["work"], (7,))
    assert first.counts == (1, 0)


async def test_many_processes_at_once(location: Path):
    """Four workers of two schedulers store and read the same few results."""
    (marks := location.parent / "marks").touch()
    schedulers = [Scheduler.with_processes(2) for _ in range(2)]
    caches = [make_cache(location) for _ in schedulers]
    results = []
    for scheduler, cache in zip(schedulers, caches, strict=True):
        task = scheduler.task(counted, plugins=cache)
        scheduler.start(end_on_empty=True)
        results += [task.submit(n, str(marks)) for n in (1, 2, 3) * 4]
    for scheduler in schedulers:
        assert await asyncio.wait_for(scheduler.last_run, LONG_S) == ExitCode.EXHAUSTED
        assert logged(scheduler) == []
    assert [future.result() for future in results] == [1, 4, 9] * 8
    assert len(entries(location)) == 3
    assert [path.name for path in location.rglob("output.pkl*")] == ["output.pkl"] * 3
    n_ran = len(marks.read_text())
    assert (sum(c.n_misses for c in caches), sum(c.n_hits for c in caches)) == (n_ran, 24 - n_ran)
    assert 3 <= n_ran < 24


# --- what goes wrong -------------------------------------------------------------------------


async def test_a_broken_entry_is_computed_again(bench: Bench):
    marks = str(bench.marks)
    await bench.run(counted, (3, marks))
    (entry,) = entries(bench.location)
    whole = entry.read_bytes()
    breaks = [whole[: len(whole) // 2], b"", b"no pickle at all"]
    for broken in breaks if bench.backend == "threads" else breaks[:1]:
        entry.write_bytes(broken)
        assert await bench.run(counted, (3, marks)) == [9]
        assert bench.counts == (0, 1)
        (line,) = logged(bench.scheduler)
        assert line.startswith("a stored result of counted() cannot be read and is computed again")
        assert entry.read_bytes() == whole
    assert await bench.run(counted, (3, marks)) == [9]
    assert (bench.counts, bench.n_ran) == ((1, 0), 4 if bench.backend == "threads" else 2)


class Stubborn:
    """Cannot be pickled by anybody."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


def make_stubborn() -> Stubborn:
    return Stubborn()


async def test_a_result_that_cannot_be_stored_on_threads(location: Path):
    bench = Bench(location, "threads")
    (result,) = await bench.run(make_stubborn, ())
    assert isinstance(result, Stubborn)
    assert logged(bench.scheduler) == [
        "a result of make_stubborn() cannot be stored, it cannot be pickled: RuntimeError: not me"
    ]
    assert (bench.counts, [p for p in location.rglob("*") if "output" in p.name]) == ((0, 1), [])


async def test_a_result_that_can_neither_be_stored_nor_travel(location: Path):
    bench = Bench(location, "processes")
    (error,) = await bench.run(make_stubborn, ())
    assert isinstance(error, NotPicklableError)
    assert "the result of make_stubborn() (a tests.plugins.test_cache.Stubborn)" in str(error)
    (line,) = logged(bench.scheduler)
    assert line == (
        "amltk_nb.cache: a result of make_stubborn() cannot be stored, it cannot be pickled: "
        "RuntimeError: not me"
    )


async def test_an_instance_of_a_notebooks_class_travels_but_is_not_stored(location: Path):
    bench = Bench(location, "processes")
    cell = "class Point:\n    x = 5\ndef make():\n    return Point()"
    (point,) = await bench.run(Notebook().run(cell)["make"], ())
    assert point.x == 5
    (line,) = logged(bench.scheduler)
    assert "a result of make() cannot be stored, it cannot be pickled" in line
    assert entries(location) == []


async def test_a_function_that_cannot_be_keyed_runs_and_says_so_once(location: Path):
    bench = Bench(location, "threads")
    notebook = Notebook().run("import threading\nlock = threading.Lock()")
    fn = notebook.run("def work(x):\n    with lock:\n        return x")["work"]
    assert await bench.run(fn, (1,), (2,), (1,)) == [1, 2, 1]
    (line,) = logged(bench.scheduler)
    assert line.startswith("work() is not cached: it uses `lock` (a lock), which cannot be hashed")
    assert bench.counts == (0, 3)


async def test_an_argument_that_cannot_be_keyed(location: Path):
    bench = Bench(location, "threads")
    (result,) = await bench.run(counted_of, (threading.Lock(),))
    assert result == 1
    (line,) = logged(bench.scheduler)
    assert line.startswith("counted_of() is not cached: it is given `thing` (a lock)")


def counted_of(thing: Any) -> int:
    return 1


async def test_arguments_that_do_not_fit(threads: Bench):
    (error,) = await threads.run(counted, (1, 2, 3, 4, 5))
    assert isinstance(error, TypeError)
    assert "counted() takes 2 positional arguments" in str(error)


async def test_a_place_where_nothing_can_be_stored(location: Path):
    location.mkdir()
    (location / "joblib").write_text("a file stands in the way")
    bench = Bench(location, "threads")
    (marks := bench.marks).touch()
    assert await bench.run(counted, (3, str(marks))) == [9]
    (line,) = logged(bench.scheduler)
    assert "was not stored" in line or "cannot be read" in line
    assert bench.n_ran == 1


async def test_a_plugin_that_fails_at_the_result(location: Path):
    class Fails(Plugin):
        name = "fails"

        def received(self, call: Any, value: Any) -> Any:
            raise OSError("in between")

    scheduler = Scheduler.with_threads(1)
    cache = make_cache(location)
    task = scheduler.task(counted_of, plugins=[Fails(), cache])
    run = scheduler.start(end_on_empty=True)
    future = task.submit(1)
    await run
    assert isinstance(future.exception(), PluginError)
    assert "the plugin 'fails' failed at the result of call 1 of 'counted_of'" in str(
        future.exception()
    )
    assert (cache.n_hits, cache.n_misses, cache._answered) == (0, 0, {})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"location": ""}, ValueError, "location='': use the path of a folder"),
        ({"location": b"x"}, ValueError, "location=b'x'"),
        ({"location": 5}, TypeError, "PathLike"),
        ({"ignore": "verbose"}, TypeError, r"as in ignore=\('verbose',\)"),
        ({"ignore": (1,)}, TypeError, r"ignore=\(1,\): use the names of parameters"),
        ({"bytes_limit": 0}, ValueError, "bytes_limit=0: use a whole number of bytes"),
        ({"bytes_limit": -1}, ValueError, "bytes_limit=-1"),
        ({"bytes_limit": "1G"}, ValueError, "bytes_limit='1G'"),
        ({"bytes_limit": True}, ValueError, "bytes_limit=True"),
    ],
)
def test_what_means_nothing(options: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        Cache(**options)


def test_a_file_is_no_folder(location: Path):
    location.write_text("")
    with pytest.raises(NotADirectoryError, match="is a file; use the path of a folder"):
        Cache(location)


def test_ignoring_what_is_not_there(location: Path):
    scheduler = Scheduler.with_sequential()
    with pytest.raises(PluginError, match=r"counted\(n: int.* has no parameter 'verbos'"):
        scheduler.task(counted, plugins=Cache(location, ignore=("verbose", "verbos")))
    assert scheduler.tasks == []
    scheduler.task(print, plugins=Cache(location, ignore=("sep",)))


def test_one_is_enough_for_a_task(location: Path):
    task = Scheduler.with_sequential().task(counted, plugins=Cache(location))
    with pytest.raises(PluginError, match="Task-counted-1 has a Cache already"):
        task.attach_plugin(Cache(location))


def test_without_joblib(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(MissingExtraError, match=r"Cache needs joblib.*amltk-nb\[cache\]"):
        Cache()


# --- the store -------------------------------------------------------------------------------


async def test_it_is_made_at_first_use_where_the_work_is(location: Path):
    cache = aside(Cache)
    assert cache.location == str(location.parent / ".amltk_nb_cache")
    assert cache.state()["Location"] == ".amltk_nb_cache"
    assert not os.path.exists(cache.location)
    os.chdir("/")
    await Bench(location, "threads").run(counted_of, (1,), cache=cache)
    assert Path(cache.location, ".gitignore").read_text() == "*\n"
    assert len(entries(Path(cache.location))) == 1


def test_a_long_location_is_shortened(location: Path):
    shown = Cache("a" * 100 + "/cache").state()["Location"]
    assert (len(shown), shown[0], shown[-6:]) == (40, "…", "/cache")


async def test_clearing(threads: Bench):
    marks = str(threads.marks)
    aside(make_cache(threads.location).clear)  # nothing is there yet
    assert not threads.location.exists()
    await threads.run(counted, (3, marks), (4, marks))
    aside(threads.cache.clear)
    assert entries(threads.location) == []
    await threads.run(counted, (3, marks))
    assert (threads.counts, threads.n_ran) == ((0, 1), 3)


def blob(n: int) -> bytes:
    return bytes([n]) * 10_000


async def test_it_stays_about_as_small_as_it_should(threads: Bench):
    limit = 55_000
    for n in range(8):
        await threads.run(blob, (n,), cache=make_cache(threads.location, bytes_limit=limit))
        await threads.run(blob, (0,), cache=make_cache(threads.location, bytes_limit=limit))
        assert threads.counts == (1, 0)  # what is used stays
    size = sum(path.stat().st_size for path in entries(threads.location))
    assert 30_000 < size < limit + 11_000
    await threads.run(blob, (1,))
    assert threads.counts == (0, 1)  # it was not used for the longest time


async def test_making_room_by_hand(threads: Bench):
    aside(lambda: make_cache(threads.location).reduce_size(bytes_limit=1))
    await threads.run(blob, *((n,) for n in range(4)))
    aside(lambda: threads.cache.reduce_size())  # without a limit nothing goes
    assert len(entries(threads.location)) == 4
    aside(lambda: threads.cache.reduce_size(bytes_limit=25_000))
    assert len(entries(threads.location)) == 2
    aside(lambda: threads.cache.reduce_size(items_limit=1))
    assert len(entries(threads.location)) == 1


async def test_joblib_reads_what_is_stored(threads: Bench):
    await threads.run(counted, (3, str(threads.marks)))
    assert joblib.load(entries(threads.location)[0]) == 9


# --- with other plugins ----------------------------------------------------------------------


class Noted(Plugin):
    """Puts a context around calls that says it was entered."""

    name = "noted"

    def __init__(self, path: Path) -> None:
        self.path = path

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return Around(fn, _Note(str(self.path))), args, kwargs


class _Note:
    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> _Note:
        return self

    def __enter__(self) -> None:
        with open(self.path, "a") as file:
            file.write("n")

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("cache_is_first", [True, False])
async def test_with_a_context_around_it(bench: Bench, cache_is_first: bool):
    (notes := bench.location.parent / "notes").touch()
    for n_hits, n_notes in ((0, 1), (1, 2 if cache_is_first else 1)):
        scheduler = getattr(Scheduler, f"with_{bench.backend}")(1)
        cache, noted = make_cache(bench.location), Noted(notes)
        plugins = [cache, noted] if cache_is_first else [noted, cache]
        task = scheduler.task(counted, plugins=plugins)
        run = scheduler.start(end_on_empty=True)
        future = task.submit(3, str(bench.marks))
        await asyncio.wait_for(run, LONG_S)
        assert (future.result(), cache.n_hits) == (9, n_hits)
        assert len(notes.read_text()) == n_notes  # a hit in front of a context needs none
    assert bench.n_ran == 1


@pytest.mark.may_block  # the context writes to its file on the loop of the call
async def test_a_context_around_a_cached_coroutine_function(location: Path):
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    (notes := location.parent / "notes").touch()
    scheduler = Scheduler.with_threads(1)
    cache = make_cache(location)
    task = scheduler.task(later, plugins=[cache, Noted(notes)])
    run = scheduler.start()
    assert await task.submit(3) == 3
    assert await task.submit(3) == 3
    scheduler.stop()
    await run
    assert (cache.n_hits, notes.read_text()) == (1, "nn")


async def test_with_attempts(threads: Bench):
    def at_last(path: str) -> int:
        if counted(1, path) and Path(path).stat().st_size < 3:
            raise OSError("not yet")
        return 7

    scheduler = getattr(Scheduler, f"with_{threads.backend}")(1)
    cache = make_cache(threads.location)
    task = scheduler.task(at_last, plugins=[Retry(5, wait=0), cache])
    run = scheduler.start()
    first = task.submit(str(threads.marks))
    assert await asyncio.wait_for(asyncio.shield(first), LONG_S) == 7
    second = task.submit(str(threads.marks))
    assert await asyncio.wait_for(second, LONG_S) == 7
    scheduler.stop()
    await run
    assert (threads.n_ran, cache.n_hits, cache.n_misses) == (3, 1, 1)


async def test_a_traceback_still_shows_the_line(location: Path):
    """The function is wrapped, and the lines of a cell stand in no file."""
    import linecache

    source = "def broken(x):\n    return x / 0  # here\n"
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell 7>", "exec"), names)
    linecache.cache["<cell 7>"] = (len(source), None, source.splitlines(True), "<cell 7>")
    bench = Bench(location, "processes")
    (error,) = await bench.run(names["broken"], (1,))
    assert "return x / 0  # here" in str(error.__cause__)


def test_the_workers_logger_has_a_name_of_ours():
    from amltk_nb.scheduling.plugins import cached

    assert cached.logger is logging.getLogger("amltk_nb.cache")
