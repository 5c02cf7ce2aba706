"""A click on Stop while the kernel is idle, awaits or blocks, on every kernel where it can work."""

from __future__ import annotations

import re

import psutil
import pytest
from playwright.sync_api import expect

from tests.browser.board import SEARCH, WORK, Board, Gates, wait_call
from tests.browser.lab import LabPage

TWO = SEARCH + "calls = [task.submit(name, gate=name) for name in ('a', 'b', 'c')]"
OUTCOME = "finished 1:done 2:done 3:cancelled"

# In the shell's own thread, so nothing else of the kernel's loop goes on until the gate opens.
BLOCK = "through('wall')\nprint('seen while it blocked:', scheduler.state)"


@pytest.mark.kernels("6.31", "7.1", "7.4")
def test_while_idle(page: LabPage, gates: Gates, kernel_version: str) -> None:
    a, b, _ = gates("a", "b", "c")
    board = Board(page, TWO)
    wait_call(a), wait_call(b)
    board.button("Stop").click()
    board.wait_state("stopping")
    a.open(), b.open()
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == OUTCOME


@pytest.mark.kernels("7.1", "7.4")
def test_while_a_cell_awaits_the_run(page: LabPage, gates: Gates, kernel_version: str) -> None:
    a, b, _ = gates("a", "b", "c")
    board = Board(page, TWO, "print('ended:', await run)")
    wait_call(a), wait_call(b)
    page.run_cell(3, wait=False)
    expect(page.cell(3).locator(".jp-InputPrompt")).to_have_text("[*]:")
    board.button("Stop").click()
    board.wait_state("stopping")
    a.open(), b.open()
    page.wait_text(3, "ended: stopped")
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == OUTCOME


@pytest.mark.kernels("6.31")
def test_while_a_cell_awaits_where_clicks_wait(
    page: LabPage, gates: Gates, kernel_version: str
) -> None:
    """This kernel hands a click on only after the cell, so the page says what it waits for."""
    a, b, _ = gates("a", "b", "c")
    board = Board(page, TWO, "print('ended:', await run)")
    wait_call(a), wait_call(b)
    page.run_cell(3, wait=False)
    expect(page.cell(3).locator(".jp-InputPrompt")).to_have_text("[*]:")
    board.button("Stop").click()
    expect(board.button("Stop")).to_have_attribute("aria-busy", "true")
    busy = re.compile(r"^No answer yet for \d+ s: kernel busy$")
    expect(board.root.locator(".amltk-health")).to_have_text(busy)
    board.wait_state("running")
    page.interrupt_kernel()
    page.wait_text(3, "Stopped waiting; 'search' runs on in the background.")
    board.wait_state("stopping")
    a.open(), b.open()
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == OUTCOME


@pytest.mark.kernels("7.1", "7.4")
def test_while_a_cell_blocks(page: LabPage, gates: Gates, kernel_version: str) -> None:
    a, b, _, wall = gates("a", "b", "c", "wall")
    board = Board(page, TWO, BLOCK)
    wait_call(a), wait_call(b)
    page.run_cell(3, wait=False)
    wait_call(wall)
    board.button("Stop").click()
    # The answer comes from another thread at once; what is shown of the run waits for the loop.
    expect(board.button("Stop")).to_have_attribute("aria-busy", "false")
    wall.open()
    page.wait_text(3, "seen while it blocked: stopping")
    a.open(), b.open()
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == OUTCOME


@pytest.mark.kernels("7.1", "7.4")
def test_stop_now_while_a_cell_blocks(page: LabPage, gates: Gates, kernel_version: str) -> None:
    """The workers are ended at once: their work is over before the cell is."""
    a, b, _, wall = gates("a", "b", "c", "wall")
    board = Board(page, TWO, BLOCK)
    workers = [psutil.Process(wait_call(gate)) for gate in (a, b)]
    page.run_cell(3, wait=False)
    wait_call(wall)
    board.button("Stop now").click()
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    wall.open()
    page.wait_text(3, "seen while it blocked: stopping")
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == "finished 1:cancelled 2:cancelled 3:cancelled"


# All in one cell, as the guides do it: what is shown cannot wait for the page to be heard.
ONE_CELL = """
scheduler = Scheduler.with_processes(2, name="search")
task = scheduler.task(work)

@scheduler.on_start
def submit():
    for name in ("a", "b", "c"):
        task.submit(name, gate=name)

"""


@pytest.mark.kernels("6.31")
@pytest.mark.parametrize("wait", ["await scheduler.start(end_on_empty=True)", "scheduler.run()"])
def test_a_cell_that_starts_and_waits_shows_its_run_live(
    page: LabPage, gates: Gates, kernel_version: str, wait: str
) -> None:
    """This kernel hears no page before the cell has ended, so the view is filled unasked."""
    a, b, c = gates("a", "b", "c")
    page.open(page.lab.add("one.ipynb", WORK.strip(), ONE_CELL.strip() + f"\n\n{wait}"))
    page.run_cell(0)
    page.run_cell(1, wait=False)
    board = Board.over(page)
    wait_call(a), wait_call(b)
    board.wait_counts(queued=1, running=2)
    a.open()
    wait_call(c)
    board.wait_counts(running=2, done=1)
    b.open(), c.open()
    expect(board.outcome()).to_contain_text("3 of 3 calls ended")
