"""Voila: a notebook served as a page, whose dashboard lives and is steered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.browser.board import SEARCH, WORK, Board, Gates, wait_call
from tests.hosts.servers import Voila, VoilaPage

FOUR = SEARCH + "calls = [task.submit(name, gate=name) for name in ('a', 'b', 'c', 'd')]"

# What Python says in the end, to whoever listens at the gate: a page has no cells to run.
TELL = """
@scheduler.on_finished
def tell(*_):
    states = {row["id"]: row["state"] for row in scheduler.records()}
    through("told", " ".join(f"{id}:{state}" for id, state in sorted(states.items())))
"""


def test_it_lives_and_its_outcome_stays(
    serve: Callable[[type[Voila]], Voila], new_tab: Callable[..., Any], gates: Gates
) -> None:
    a, b, c, _, told = gates("a", "b", "c", "d", "told")
    told.open()
    host = serve(Voila)
    host.add("board.ipynb", WORK, FOUR, TELL)
    page = new_tab(VoilaPage)
    page.open(host.url("board.ipynb"))
    board = Board.over(page)
    wait_call(a), wait_call(b)
    board.wait_counts(running=2, queued=2)

    board.button("Pause").click()
    board.wait_state("paused")
    a.open()
    board.wait_counts(running=1, queued=2, done=1)
    expect(board.open_row(1)).to_contain_text("Result{'name': 'a', 'length': 1}")
    board.button("Cancel call 4").click()
    board.button("Resume").click()
    wait_call(c)
    board.wait_counts(running=2, done=1, cancelled=1)
    board.button("End call 3").click()
    board.wait_counts(running=1, done=1, cancelled=2)

    board.button("Stop").click()
    board.wait_state("stopping")
    b.open()
    board.wait_state("finished")
    [(_, states)] = told.arrived(1)
    assert states == "1:done 2:done 3:cancelled 4:cancelled"
    # Voila replaces no output, so the live view itself says how it ended.
    board.wait_counts(done=2, cancelled=2)
    closed = "This view is closed: scheduler.start() shows a new one."
    expect(board.button("Start")).to_have_accessible_description(closed)
