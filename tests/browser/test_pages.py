"""The dashboard over time: reloads, other tabs, the end of the run, the file that stays."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

from playwright.sync_api import Locator, WebSocketRoute, expect

from tests.browser.board import SEARCH, Board, Gates, wait_call
from tests.browser.lab import Lab, LabPage


class Beside(Board):
    """The same output in a tab of its own, beside the notebook."""

    def __init__(self, page: LabPage) -> None:
        """Create the new view."""
        self.page = page
        page.cell(1).locator(".jp-InputArea-editor").click()
        page.command("notebook:create-output-view")
        self.wait_live()

    @property
    def area(self) -> Locator:
        """Where it is."""
        return self.tab.locator(".jp-LinkedOutputView")


class Line:
    """A tab's websockets to its kernels, which can be cut and stay so until they are mended."""

    def __init__(self, page: LabPage) -> None:
        """Go between; the tab must still be empty."""
        self._page = page
        self._is_cut = False
        self._open: list[WebSocketRoute] = []
        page.page.route_web_socket(re.compile("/channels"), self._connect)

    def cut(self) -> None:
        """End every connection, and let no other come about."""
        self._is_cut = True
        for socket in self._open:
            socket.close(code=1006)
        self._open.clear()

    def mend(self) -> None:
        """Let the tab connect again, as it tries to by itself."""
        self._is_cut = False

    def _connect(self, socket: WebSocketRoute) -> None:
        if self._is_cut:
            socket.close()
            return
        server = socket.connect_to_server()
        self._open += [socket, server]


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

    # It has lost the display id by which the kernel replaces outputs, so it does that itself.
    board.button("Stop now").click()
    expect(board.outcome()).to_contain_text("1 done")
    expect(board.root).to_have_count(0)
    assert board.python() == "finished 1:done 2:cancelled 3:cancelled 4:cancelled"
    [frozen] = page.save().cells[1].outputs
    assert sorted(frozen.data) == ["text/html", "text/plain"]
    assert "1 done" in frozen.data["text/html"]
    assert "1 done" in frozen.data["text/plain"]


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
    other.button("Stop now").click()
    for each in (board, other):
        expect(each.outcome()).to_contain_text("4 cancelled")
        expect(each.root).to_have_count(0)


def test_views_of_the_output_and_a_notebook_that_is_closed_and_opened(
    page: LabPage, gates: Gates
) -> None:
    a, b, c, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR)
    wait_call(a), wait_call(b)
    other = Beside(page)
    for each in (board, other):
        each.wait_state("running")
        each.wait_counts(queued=2, running=2)
    other.button("Pause").click()
    for each in (board, other):
        each.wait_state("paused")
    board.chip("queued").click()
    assert board.shown_calls() == [3, 4]
    assert sorted(other.shown_calls()) == [1, 2, 3, 4], "each has filters of its own"
    other.button("Cancel call 4").click()
    for each in (board, other):
        each.wait_counts(queued=1, running=2, cancelled=1)

    page.cell(2).locator(".jp-InputArea-editor").click()
    page.close_notebook()
    expect(page.page.locator(".amltk-nb")).to_have_count(0)
    a.open()
    page.open_again()
    board.wait_live()
    board.wait_counts(done=1, running=1, queued=1, cancelled=1)
    board.button("Resume").click()
    wait_call(c)
    b.open(), c.open()
    board.wait_counts(done=3, cancelled=1)
    assert board.python() == "running 1:done 2:done 3:done 4:cancelled"
    other = Beside(page)
    other.wait_counts(done=3, cancelled=1)
    other.button("Stop").click()
    for each in (board, other):
        expect(each.outcome()).to_contain_text("3 done")
    expect(page.page.locator(".amltk-nb .amltk-all")).to_have_count(0)
    assert board.python() == "finished 1:done 2:done 3:done 4:cancelled"
    [frozen] = page.save().cells[1].outputs
    assert sorted(frozen.data) == ["text/html", "text/plain"]


def test_a_line_that_was_cut_is_mended_and_nothing_is_missing(page: LabPage, gates: Gates) -> None:
    a, b, c, d, over = gates("a", "b", "c", "d", "over")
    line = Line(page)
    told = """
@scheduler.on_finished
def tell():
    with open("over.in", "w") as bell:
        bell.write("0 over\\n")
"""
    board = Board(page, FOUR.replace("start()", "start(end_on_empty=True)") + told)
    wait_call(a), wait_call(b)
    board.wait_counts(queued=2, running=2)

    line.cut()
    a.open()
    wait_call(c)
    line.mend()
    board.wait_counts(queued=1, running=2, done=1)
    expect(page.page.locator(".amltk-nb .amltk-all")).to_have_count(1)
    board.button("Pause").click()
    board.wait_state("paused")
    b.open()
    board.wait_counts(queued=1, running=1, done=2)
    assert board.python() == "paused 1:done 2:done 3:running 4:queued"
    board.button("Resume").click()
    wait_call(d)

    # The end comes while nobody hears it.
    line.cut()
    c.open(), d.open()
    wait_call(over)
    expect(board.outcome()).to_have_count(0)
    line.mend()
    expect(board.outcome()).to_contain_text("4 done")
    expect(board.root).to_have_count(0)
    assert board.python() == "finished 1:done 2:done 3:done 4:done"


def test_a_kernel_that_is_killed_or_restarted_is_said_to_be_gone(
    page: LabPage, gates: Gates
) -> None:
    a, b, _, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR, "import os; print(os.getpid())")
    wait_call(a), wait_call(b)
    board.wait_counts(queued=2, running=2)

    os.kill(int(board.run(3)), signal.SIGKILL)
    check_gone(board)
    page.page.locator(".jp-Dialog .jp-mod-accept").click()  # Lab's own word on it

    # A new kernel takes over, in the same page.
    page.wait_idle()
    page.run_cell(0)
    page.run_cell(1)
    a.arrived(2), b.arrived(2)
    board.wait_counts(queued=2, running=2)
    board.button("Pause").click()
    board.wait_state("paused")
    expect(page.page.locator(".amltk-nb .amltk-all")).to_have_count(1)

    page.restart_kernel()
    check_gone(board, first="Resume")
    [kept] = page.save().cells[1].outputs
    assert "text/html" in kept.data, "what a page without this kernel shows"


def check_gone(board: Board, first: str = "Pause") -> None:
    """Look that a dashboard says so, that no button works, and that the last state stays."""
    expect(board.root.locator(".amltk-health")).to_contain_text("Disconnected")
    for name in (first, "Stop", "Stop now", "End call 1", "Cancel call 3"):
        expect(board.button(name)).to_have_attribute("aria-disabled", "true")
        expect(board.button(name)).to_have_accessible_description(
            "Disconnected: the kernel does not answer."
        )
    board.wait_counts(queued=2, running=2)
    expect(board.root).to_have_count(1)


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
    board = Board(page, SEARCH + "first = task.submit('first')", again)
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
