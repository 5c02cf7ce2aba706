"""Jupyter Notebook 7: the dashboard lives, is steered, freezes, and is there when reopened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import expect

from tests.browser.board import SEARCH, Board, Gates, wait_call
from tests.hosts.servers import Notebook, NotebookPage

WIDGET = "application/vnd.jupyter.widget-view+json"
FOUR = SEARCH + "calls = [task.submit(name, gate=name) for name in ('a', 'b', 'c', 'd')]"

# In the shell's own thread, so nothing else of the kernel's loop goes on until the gate opens.
BLOCK = "through('wall')\nprint('seen while it blocked:', scheduler.state)"
AGAIN = "run = scheduler.start()\nfuture = task.submit('e', gate='e')"
AWAIT = "print('ended:', await run)"
STOP = "scheduler.stop()\nprint('stopped:', await run)"


def test_it_lives_is_stopped_while_cells_run_and_freezes(
    serve: Callable[[type[Notebook]], Notebook], new_tab: Callable[..., Any], gates: Gates
) -> None:
    a, b, c, d, e, wall = gates("a", "b", "c", "d", "e", "wall")
    host = serve(Notebook)
    page: NotebookPage = new_tab(lambda tab: NotebookPage(host, tab))
    board = Board(page, FOUR, BLOCK, AGAIN, AWAIT, STOP)
    wait_call(a), wait_call(b)
    board.wait_counts(running=2, queued=2)
    board.button("Cancel call 4").click()
    board.wait_counts(running=2, queued=1, cancelled=1)

    # While a cell blocks.
    page.run_cell(3, wait=False)
    wait_call(wall)
    board.button("Stop").click()
    expect(board.button("Stop")).to_have_attribute("aria-busy", "false")
    wall.open()
    page.wait_text(3, "seen while it blocked: stopping")
    a.open(), b.open()
    expect(board.outcome()).to_contain_text("finished")
    expect(board.root).to_have_count(0)
    assert board.python() == "finished 1:done 2:done 3:cancelled 4:cancelled"

    # While a cell awaits.
    page.run_cell(4)
    second = Board.over(page, cell=4)
    wait_call(e)
    page.run_cell(5, wait=False)
    expect(page.cell(5).locator(".jp-InputPrompt")).to_have_text("[*]:")
    second.button("Stop").click()
    second.wait_state("stopping")
    e.open()
    page.wait_text(5, "ended: stopped")
    expect(second.outcome()).to_contain_text("finished")

    # Closed, its kernel gone, and opened by somebody whose front end knows no widgets.
    saved = page.save()
    for n in (1, 4):
        assert [sorted(out.data) for out in saved.cells[n].outputs] == [["text/html", "text/plain"]]
    assert WIDGET not in str(saved)
    host.end_kernels()
    host.disable_extensions("@jupyter-widgets/jupyterlab-manager", "anywidget")
    plain: NotebookPage = new_tab(lambda tab: NotebookPage(host, tab)).open(page.name)
    shown = plain.output(1).locator(".amltk-nb-static")
    for text in ("finished", "stopped", "2 done", "2 cancelled"):
        expect(shown).to_contain_text(text)
    expect(plain.output(1).get_by_role("button")).to_have_count(0)
    c.open(), d.open()
    _run_without_widgets(plain)


def _run_without_widgets(page: NotebookPage) -> None:
    """The bundle's HTML stands for the live view, and freezing replaces it as well."""
    page.tolerated += ("console: Exception opening new comm",)  # nobody takes the widget
    page.run_cell(0)
    page.run_cell(1)
    shown = page.output(1).locator(".amltk-nb-static")
    expect(shown).to_contain_text("running")
    expect(page.page.locator(".amltk-nb .amltk-all")).to_have_count(0)
    [out] = page.save().cells[1].outputs
    assert sorted(out.data) == [WIDGET, "text/html", "text/plain"]
    page.run_cell(6)
    page.wait_text(6, "stopped: stopped")
    expect(shown).to_contain_text("finished")
    [out] = page.save().cells[1].outputs
    assert sorted(out.data) == ["text/html", "text/plain"]
