"""The quickstart notebook as a person goes through it, on real work and with the mouse."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.board import Board
from tests.browser.lab import Lab, LabPage

QUICKSTART = Path(__file__).resolve().parent.parent.parent / "notebooks" / "01_quickstart.ipynb"


def test_the_search_is_watched_paused_mended_and_ends(
    own_lab: Lab, new_page: Callable[..., LabPage]
) -> None:
    name = own_lab.copy(QUICKSTART)
    page = new_page(own_lab, height=1800).open(name)
    at = {cell.id: n for n, cell in enumerate(own_lab.read(name).cells)}
    page.command("notebook:clear-all-cell-outputs")
    for cell in ("imports", "evaluate", "trials", "scheduler", "run"):
        page.run_cell(at[cell])
    board = Board.over(page, cell=at["run"])

    # Counts move, and they stand still while it is paused.
    done = board.chip("done").locator("b")
    expect(done).not_to_have_text("0")
    board.button("Pause").click()
    board.wait_state("paused")
    expect(board.chip("running").locator("b")).to_have_text("0", timeout=20_000)
    paused_at = int(done.inner_text())
    assert 0 < paused_at < 23
    page.run_cell(at["baseline"])
    page.wait_text(at["baseline"], "calls in flight: yes")
    board.wait_state("paused")
    assert int(done.inner_text()) == paused_at
    board.button("Resume").click()
    board.wait_state("running")

    # One fails; its row says why.
    page.run_cell(at["first-round"])
    page.wait_text(at["first-round"], "23 results, 1 failure")
    board.wait_counts(done=23, failed=1)
    page.run_cell(at["error"])
    page.wait_text(at["error"], re.compile(r"^\s*call 12: {'max_depth': 0}"))
    board.chip("failed").click()
    assert board.shown_calls() == [12]
    detail = board.open_row(12)
    expect(detail).to_contain_text("in evaluate")
    expect(detail).to_contain_text("Got 0 instead.")

    # Mended, only that one runs again, and with its result the run ends by itself.
    page.run_cell(at["fixed"])
    board.button("Resubmit failed (1)").click()
    expect(board.outcome()).to_contain_text("24 done", timeout=20_000)
    expect(board.outcome()).to_contain_text("24 results are enough")
    page.run_cell(at["resubmit"])
    page.run_cell(at["await"])
    page.wait_text(at["await"], "ExitState(stopped)")
    for cell in ("table", "record"):
        page.run_cell(at[cell])
    page.wait_text(at["record"], re.compile(r"12.*failed.*25.*done", re.DOTALL))
    saved = page.save()
    assert sorted(saved.cells[at["run"]].outputs[0].data) == ["text/html", "text/plain"]
    assert "application/vnd.jupyter.widget-view+json" not in str(saved)


def test_all_cells_at_once(own_lab: Lab, new_page: Callable[..., LabPage]) -> None:
    name = own_lab.copy(QUICKSTART)
    page = new_page(own_lab).open(name)
    last = len(own_lab.read(name).cells) - 2
    page.run_all()
    page.wait_ended(last, timeout_s=60)
    saved = page.save()
    errors = [o for c in saved.cells for o in c.get("outputs", ()) if o.output_type == "error"]
    assert errors == []
