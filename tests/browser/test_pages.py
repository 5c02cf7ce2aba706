"""The dashboard over time: reloads, other tabs, the end of the run, the file that stays."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.board import SEARCH, Board, Gates, wait_call
from tests.browser.lab import Lab, LabPage

FOUR = SEARCH + "calls = [task.submit(name, gate=name) for name in ('a', 'b', 'c', 'd')]"
WIDGET = "application/vnd.jupyter.widget-view+json"


def test_a_reloaded_page_shows_and_steers_the_run(page: LabPage, gates: Gates) -> None:
    a, b, c, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR)
    wait_call(a), wait_call(b)
    board.button("Pause").click()
    board.wait_state("paused")
    a.open()
    board.wait_counts(queued=2, running=1, done=1)

    page.reload()
    board.wait_state("paused")
    board.wait_counts(queued=2, running=1, done=1)
    expect(board.open_row(1)).to_contain_text("Result{'name': 'a', 'length': 1}")
    board.button("Resume").click()
    board.wait_state("running")
    wait_call(c)
    board.wait_counts(queued=1, running=2, done=1)
    board.button("End call 3").click()
    board.wait_row(3, "cancelled")
    assert board.python() == "running 1:done 2:running 3:cancelled 4:running"

    board.button("Stop now").click()
    board.wait_state("finished")
    closed = "This view is closed: scheduler.start() shows a new one."
    expect(board.button("Start")).to_have_accessible_description(closed)
    assert board.python() == "finished 1:done 2:cancelled 3:cancelled 4:cancelled"


def test_two_tabs_show_the_same(
    lab: Lab, page: LabPage, new_page: Callable[..., LabPage], gates: Gates
) -> None:
    a, b, _, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR)
    wait_call(a), wait_call(b)
    page.save()
    other = Board.over(new_page(lab, height=1800).open(page.name))
    other.wait_state("running")
    other.wait_counts(queued=2, running=2)

    other.button("Pause").click()
    for each in (board, other):
        each.wait_state("paused")
    board.button("Cancel call 4").click()
    for each in (board, other):
        each.wait_counts(queued=1, running=2, cancelled=1)
    other.button("End call 1").click()
    for each in (board, other):
        each.wait_counts(queued=1, running=1, cancelled=2)
    assert board.python() == "paused 1:cancelled 2:running 3:queued 4:cancelled"
    # Replies go to all tabs; each knows its own questions, so nothing stays "asked".
    for each in (board, other):
        expect(each.root.locator('[aria-busy="true"]')).to_have_count(0)


def test_the_end_leaves_static_html_in_the_page_and_in_the_file(
    lab: Lab, page: LabPage, new_page: Callable[..., LabPage], gates: Gates
) -> None:
    a, b, _, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR, "print(await run)")
    wait_call(a), wait_call(b)
    [live] = page.save().cells[1].outputs
    assert sorted(live.data) == [WIDGET, "text/html", "text/plain"]

    a.open()
    board.wait_row(1, "done")
    board.button("Stop now").click()
    expect(board.outcome()).to_be_visible()
    expect(board.root).to_have_count(0)
    assert board.run(3) == "stopped"
    saved = page.save()
    [frozen] = saved.cells[1].outputs
    assert sorted(frozen.data) == ["text/html", "text/plain"]
    assert "1 done" in frozen.data["text/html"]
    assert WIDGET not in str(saved)
    assert saved.metadata.get("widgets", {}) == {}

    # Closed, its kernel gone, and opened again: by another tab, which has none of this one's state.
    page.page.close()
    lab.end_kernels()
    again = new_page(lab, height=1800).open("board.ipynb")
    shown = again.output(1)
    for text in ("finished", "stopped", "1 done", "3 cancelled"):
        expect(shown).to_contain_text(text)
    expect(shown.locator(".amltk-nb-static")).to_be_visible()
    expect(shown.get_by_role("button")).to_have_count(0)
    expect(shown).not_to_contain_text("model not found")


def test_a_run_after_a_run_gets_a_dashboard_of_its_own(page: LabPage) -> None:
    again = "run = scheduler.start()\nfuture = task.submit('second')"
    board = Board(page, SEARCH + "task.submit('first')", again)
    board.wait_counts(done=1)
    board.button("Stop").click()
    expect(board.outcome()).to_contain_text("finished")
    board.run(3)
    second = Board.over(page, cell=3)
    second.wait_state("running")
    second.wait_counts(done=2)
    expect(second.root).to_contain_text("run 2")
    expect(board.outcome()).to_contain_text("1 done")
    assert board.python() == "running 1:done 2:done"


def test_cells_run_again_show_one_live_dashboard(page: LabPage) -> None:
    start = SEARCH + "task.on_result(print)\ncalls = [task.submit('fine') for _ in range(3)]"
    board = Board(page, start)
    for _ in range(3):
        board.wait_counts(done=3)
        expect(page.page.locator(".amltk-nb .amltk-all")).to_have_count(1)
        board.run(1)
    board.wait_counts(done=3)
    events = board.root.get_by_role("group", name="Events")
    expect(events.locator("li li .amltk-n")).to_have_text(["3"])
    assert board.python() == "running 1:done 2:done 3:done"
