"""Lines under cells: what they cost, when they end, and what they keep."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from amltk_nb import Scheduler
from amltk_nb.host import Cell
from amltk_nb.notebook import live
from amltk_nb.notebook.live import Lines
from amltk_nb.testing import ManualBackend
from amltk_nb.views import objects  # at its first use, files would be read
from tests.scheduling.conftest import settled, turn_until

CELL = Cell("cell", 1, "[1]")
assert objects


def work(n: int) -> int:
    return n


class Output:
    """What stands under a cell: every form that was put there."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def show(self, bundle: dict[str, Any]) -> Output:
        self.update(bundle, raw=True)
        return self

    def update(self, bundle: dict[str, Any], *, raw: bool) -> None:
        assert raw
        self.shown.append(bundle["text/plain"])


class Bench:
    """A scheduler whose calls end by hand, and lines that are looked at without a pause."""

    def __init__(self, n_workers: int = 2_000) -> None:
        self.backend = ManualBackend(n_workers)
        self.scheduler = Scheduler(self.backend)
        self.task = self.scheduler.task(work)
        self.run = self.scheduler.start(display=False)
        self.lines = Lines()

    def show(self, thing: Any, cell: Cell | None = CELL) -> Output:
        output = Output()
        self.lines.show(thing, self.scheduler, cell, output.show)
        return output

    def watchers(self) -> int:
        return len(self.scheduler._watchers)

    async def end(self) -> None:
        self.scheduler.stop(wait=False)
        await self.run.over()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many forms were drawn in each look; looks follow each other without a pause."""
    monkeypatch.setattr(live, "GAP_S", 0.0)
    drawn: list[int] = []
    draw, look = live.static_bundle, live._Followed._look

    def counted(*args: Any, **options: Any) -> dict[str, Any]:
        if drawn:
            drawn[-1] += 1
        return draw(*args, **options)

    def noted(self: Any) -> None:
        drawn.append(0)
        look(self)

    monkeypatch.setattr(live, "static_bundle", counted)
    monkeypatch.setattr(live._Followed, "_look", noted)
    return drawn


async def test_a_thousand_futures_cost_nothing_until_they_move(looks: list[int]) -> None:
    bench = Bench()
    futures = bench.task.map(range(1_000))
    await settled()
    outputs = [bench.show(future) for future in futures]
    assert bench.watchers() == 1  # for all of them
    for n in range(50):
        bench.scheduler.log("test", "info", f"news of something else {n}")
        await settled()
    assert sum(looks) == 0
    assert looks != []  # and yet somebody looked
    assert {len(output.shown) for output in outputs} == {1}
    del looks[:]
    for n, future in enumerate(futures):
        bench.backend.finish(future, n)
    await turn_until(lambda: all(len(output.shown) == 2 for output in outputs))
    said = [output.shown[-1] for output in outputs]
    assert said == [f"Future of call {n + 1}, work({n}): done: {n}" for n in range(1_000)]
    assert bench.watchers() == 0
    await bench.end()


async def test_one_look_draws_a_bounded_number(
    looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "N_AT_ONCE", 10)
    bench = Bench()
    tasks = [bench.scheduler.task(work, name=f"work{n}") for n in range(25)]
    outputs = [bench.show(task) for task in tasks]
    futures = [task.submit(1) for task in tasks]
    await turn_until(lambda: all(len(output.shown) > 1 for output in outputs))
    assert max(looks) == 10
    for future in futures:
        assert future is not None
        bench.backend.finish(future, 1)
    await turn_until(lambda: all("1 done" in output.shown[-1] for output in outputs))
    await bench.end()


async def test_a_line_is_looked_at_twice_a_second_at_most() -> None:
    bench = Bench()
    output = bench.show(bench.task)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for n in range(100):
        bench.backend.finish(bench.task.submit(n), n)
        await settled()
    n_updates, took_s = len(output.shown) - 1, loop.time() - began
    assert 1 <= n_updates <= 1.01 + took_s / live.GAP_S
    await bench.end()


async def test_what_is_shown_is_not_kept(looks: list[int]) -> None:
    bench = Bench()
    batch = bench.task.batch([(1,), (2,)])
    shown = bench.show(batch)
    futures = batch.submit()
    await turn_until(lambda: "submitted" in shown.shown[-1])
    dead = weakref.ref(batch)
    del batch
    for future in futures:
        bench.backend.finish(future, 0)
    futures.clear()
    del future
    await turn_until(lambda: shown.shown[-1].endswith("done: 2 done"))
    await settled()
    gc.collect()
    assert dead() is None
    assert bench.watchers() == 0
    result = bench.task.submit(3)
    assert result is not None
    line = bench.show(result)
    bench.backend.finish(result, 3)
    dead_future = weakref.ref(result)
    del result
    await turn_until(lambda: line.shown[-1].endswith("done: 3"))
    await settled()
    gc.collect()
    assert dead_future() is None
    await bench.end()


async def test_a_cell_that_runs_again_ends_its_lines(looks: list[int]) -> None:
    bench = Bench()
    future, other = bench.task.map([1, 2])
    gone, stays = bench.show(future), bench.show(other, Cell("another", 2, "[2]"))
    bench.lines.forget(Cell("cell", 3, "[3]"))
    for each in (future, other):
        bench.backend.finish(each, 0)
    await turn_until(lambda: len(stays.shown) == 2)
    await settled()
    assert len(gone.shown) == 1
    await bench.end()


async def test_no_scheduler_is_kept_by_its_lines(looks: list[int]) -> None:
    bench = Bench()
    bench.show(bench.task)
    bench.show(bench.run)
    lines = bench.lines
    await bench.end()
    dead = weakref.ref(bench.scheduler)
    del bench
    await settled()
    gc.collect()
    assert dead() is None
    assert len(lines._followed) == 0


async def test_a_line_that_cannot_be_drawn_stays_and_harms_nobody(
    looks: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    future, other = bench.task.map([1, 2])
    await settled()
    broken, fine = bench.show(future), bench.show(other)

    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("the front end is gone")

    monkeypatch.setattr(broken, "update", fails)
    for each in (future, other):
        bench.backend.finish(each, 0)
    await turn_until(lambda: len(fine.shown) == 2)
    assert caplog.text.count("could not be updated and stays as it is") == 1
    await bench.end()


async def test_one_style_sheet_serves_a_cell() -> None:
    bench = Bench()
    first, second, third = bench.task.map([1, 2, 3])
    pages: list[str] = []

    def show(bundle: dict[str, Any]) -> Output:
        pages.append(bundle["text/html"])
        return Output()

    for future, cell in ((first, CELL), (second, CELL), (third, Cell("cell", 2, "[2]"))):
        bench.lines.show(future, bench.scheduler, cell, show)
    assert ["<style>" in page for page in pages] == [True, False, True]
    assert len(pages[1]) < 500
    await bench.end()


@pytest.mark.parametrize("make", [lambda b: b.run, lambda b: b.task.submit(1)])
async def test_what_is_over_is_shown_once(make: Callable[[Bench], Any]) -> None:
    bench = Bench()
    thing = make(bench)
    await bench.end()
    bench.show(thing)
    assert bench.watchers() == 0
