"""A run on Dask, as its dashboard shows it: who is awaited, who is there, who went and who came."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.board import Board, Gates, wait_call
from tests.browser.lab import Lab, LabPage
from tests.browser.test_accessible import grave

pytest.importorskip("distributed")

# Held at a gate, so that a cluster on its way can be looked at for as long as it takes.
START = """
scheduler = Scheduler.with_dask(n_workers=2, no_workers_after=1.0, name="search")
connect = scheduler.backend.connect

def connect_later(news):
    through("engine")
    return connect(news)

scheduler.backend.connect = connect_later
task = scheduler.task(work)
run = scheduler.start()
calls = [task.submit(name, gate=name) for name in ('a', 'b', 'c')]
"""


@pytest.fixture
def page(own_lab: Lab, new_page: Callable[..., LabPage]) -> LabPage:
    """An empty tab at a Lab whose kernels have Dask."""
    return new_page(own_lab)


def test_a_run_says_what_it_waits_for_until_its_workers_are_there(
    page: LabPage, own_gates: Gates
) -> None:
    engine, _a, _b, _c = own_gates("engine", "a", "b", "c")
    board = Board(page, START)
    meta, note = board.root.locator(".amltk-meta"), board.root.locator(".amltk-note")
    expect(meta).to_contain_text("DaskExecutor(n_workers=2, threads_per_worker=1)")
    expect(meta).to_contain_text(re.compile(r"waiting \d+ s for DaskExecutor to start"))
    expect(note).to_have_text("3 calls wait for DaskExecutor to start")
    expect(board.root.locator(".amltk-advice")).to_contain_text("Starting takes long.")
    assert board.python() == "running 1:queued 2:queued 3:queued"
    assert board.workers() == []

    board.listen()
    engine.open()
    expect(meta).to_contain_text("2 workers")
    expect(meta).not_to_contain_text("waiting")
    expect(note).to_have_count(0)
    expect(board.root.locator(".amltk-advice")).to_have_count(0)
    expect(board.root.locator(".amltk-workers tbody tr")).to_have_count(2)
    board.wait_heard(r"came, 2 now\.")


def test_workers_show_their_calls_go_and_come(page: LabPage, own_gates: Gates) -> None:
    engine, a, b, c = own_gates("engine", "a", "b", "c")
    board = Board(page, START)
    engine.open()
    doomed, other = wait_call(a), wait_call(b)
    for call in (1, 2):
        board.wait_row(call, "handed over")
    expect(board.chip("handed over").locator("b")).to_have_text("2")
    link = board.root.locator(".amltk-workers .amltk-link")
    expect(link).to_have_count(2)
    by_call = {line[2].split(" work(")[0]: line for line in board.workers()}
    assert sorted(by_call) == ["call 1", "call 2"]
    assert [int(by_call[f"call {n}"][-1]) for n in (1, 2)] == [doomed, other]
    name, state, _, since, where, _ = by_call["call 1"]
    assert (state, where) == ("◐busy", "127.0.0.1")
    assert re.fullmatch(r"\d+ s", since)
    expect(board.row(1).locator(".amltk-col-worker")).to_have_text(name)

    board.button("call 1").click()
    expect(board.button("Call 1, details")).to_be_focused()
    detail = board.root.locator('tr.amltk-detail[data-call="1"]')
    expect(detail).to_contain_text(f"Workertcp://{name}Machine127.0.0.1")

    board.listen()
    os.kill(doomed, signal.SIGKILL)
    board.wait_row(1, "failed")
    expect(board.row(1)).to_contain_text("WorkerDiedError")
    board.wait_heard(r"1 worker went, \d now\.")
    third = wait_call(c)
    expect(board.button("call 3")).to_be_visible()
    pids = {int(line[-1]) for line in board.workers()}
    assert pids == {other, third}
    assert third != doomed
    assert board.python() == "running 1:failed 2:running 3:running"

    board.button("End call 2").click()
    board.wait_row(2, "cancelled")
    c.open()
    board.wait_row(3, "done")
    assert board.python() == "running 1:failed 2:cancelled 3:done"
    board.button("Stop").click()
    expect(board.outcome()).to_contain_text("finished")
    expect(board.outcome()).to_contain_text("1 done")


def test_axe_finds_nothing_grave_in_what_is_shown_of_workers(
    page: LabPage, own_gates: Gates
) -> None:
    engine, a, b, _c = own_gates("engine", "a", "b", "c")
    board = Board(page, START)
    expect(board.root.locator(".amltk-advice")).to_be_visible()
    look_at_both(board)
    engine.open()
    wait_call(a), wait_call(b)
    expect(board.root.locator(".amltk-workers .amltk-link")).to_have_count(2)
    board.open_row(1)
    look_at_both(board)


def look_at_both(board: Board) -> None:
    for dark in (False, True):
        board.page.set_theme(dark=dark)
        assert grave(board.tab, ".amltk-nb") == [], dark
