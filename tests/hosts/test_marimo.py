"""marimo: an app whose cells show our widget natively, on marimo's own loop."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser.board import SEARCH, WORK, Board, Gates, wait_call
from tests.hosts.servers import Marimo, MarimoPage

FOUR = SEARCH + "calls = [task.submit(name, gate=f'root/{name}') for name in ('a', 'b', 'c', 'd')]"

# What Python says in the end, to whoever listens at the gate: an app has no cells to run.
TELL = """
@scheduler.on_finished
def tell(*_):
    print("heard of the end")
    states = {row["id"]: row["state"] for row in scheduler.records()}
    through("root/told", " ".join(f"{id}:{state}" for id, state in sorted(states.items())))
"""
AWAIT = "first = await calls[0]"
SHOW = "(first, scheduler)[1]"  # after it
FUTURE = "(first, calls[0])[1]"

BUTTON = """
import marimo as mo
others = []
again = mo.ui.button(label="Again")
again
"""
MAKE = """
again
others.append(Scheduler.with_threads(1, name="other"))
latest = others[-1].start()
"""
STATES = """
latest
if len(others) > 1:
    await others[-2].last_run.over()
str([str(other.state) for other in others])
"""


def test_it_lives_and_its_outcome_stays(
    serve: Callable[[type[Marimo]], Marimo],
    new_tab: Callable[..., Any],
    gates: Gates,
    tmp_path: Path,
) -> None:
    a, b, c, _, told = gates("a", "b", "c", "d", "told")
    told.open()
    Marimo.write(tmp_path / "root", WORK, FOUR, TELL, AWAIT, SHOW, FUTURE, BUTTON, MAKE, STATES)
    page: MarimoPage = new_tab(MarimoPage).open(serve(Marimo).url())
    board = Board.over(page)
    wait_call(a), wait_call(b)
    board.wait_counts(running=2, queued=2)

    # While a cell awaits: the view lives, and what it is asked for is done after the cell.
    board.button("Pause").click()
    expect(board.button("Pause")).to_have_attribute("aria-busy", "true")
    busy = re.compile(r"^No answer yet for \d+ s: kernel busy$")
    expect(board.root.locator(".amltk-health")).to_have_text(busy)
    board.wait_state("running")
    a.open()
    wait_call(c)
    board.wait_state("paused")
    board.wait_counts(running=2, queued=1, done=1)
    expect(board.open_row(1)).to_contain_text("Result{'name': 'a', 'length': 1}")

    # A scheduler as the last line of a cell is live, too; a future is shown as it stood.
    second = Board.over(page, cell=4)
    second.wait_counts(running=2, queued=1, done=1)
    expect(page.output(5).locator(".amltk-nb-static")).to_contain_text("call 1")
    second.button("Cancel call 4").click()
    board.wait_counts(running=2, done=1, cancelled=1)
    second.button("Resume").click()
    board.wait_state("running")
    board.button("End call 3").click()
    board.wait_counts(running=1, done=1, cancelled=2)

    # Dark in the middle of it: its theme is on the body, outside of the widget's shadow root.
    assert page.page.evaluate("document.querySelectorAll('.amltk-nb').length") == 0
    root = page.output(1).locator(".amltk-nb")
    expect(root).to_have_attribute("data-amltk-theme", "light")
    page.page.evaluate("document.body.dataset.theme = 'dark'")
    expect(root).to_have_attribute("data-amltk-theme", "dark")

    board.button("Stop").click()
    board.wait_state("stopping")
    b.open()
    [(_, states)] = told.arrived(1)
    assert states == "1:done 2:done 3:cancelled 4:cancelled"
    for each in (board, second):
        each.wait_state("finished")
        each.wait_counts(done=2, cancelled=2)
    expect(board.root).to_contain_text("heard of the end")

    # A cell that runs again ends what it made before.
    expect(page.output(8)).to_contain_text("['running']")
    page.output(6).get_by_role("button", name="Again").click()
    expect(page.output(8)).to_contain_text("['finished', 'running']")
