"""The populated dashboard by keyboard alone, and as axe sees it in all colours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.browser.board import SEARCH, Board, Gates, wait_call
from tests.browser.lab import LabPage

POPULATED = (
    SEARCH.replace("scheduler.task(work)", "scheduler.task(work, plugins=Limiter(max_calls=9))")
    + """
@task.on_result
def keep(future, result):
    print("kept", result["name"])

calls = [task.submit(name) for name in ('apple', 'odd pear', 'plum')]
calls += [task.submit(name, gate=name) for name in ('cherry', 'grape', 'fig')]
"""
)

# What can have the focus, in the order of the page, and what has it.
FOCUSABLE = "css=:is(button, input, summary, [tabindex='0']):visible"
FOCUSED = "document.activeElement?.getAttribute('data-test-n')"


def populated(page: LabPage, gates: Gates, *more: str) -> Board:
    """Two calls run, one waits, two are done and one has failed; there are a plugin and a log."""
    cherry, grape, _ = gates("cherry", "grape", "fig")
    board = Board(page, "from amltk_nb import Limiter\n" + POPULATED, *more)
    wait_call(cherry), wait_call(grape)
    board.wait_counts(queued=1, running=2, done=2, failed=1)
    return board


def grave(page: Page, within: str) -> list[str]:
    """What axe calls serious or critical, and the first place of each."""
    found: dict[str, Any] = Axe().run(page, context=within).response
    assert len(found["passes"]) > 10, [each["id"] for each in found["passes"]]
    return [
        f"{each['impact']}: {each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


# How a person may see it; "forced" is a system's high contrast, which takes all colours away.
SCHEMES = ("light", "dark", "forced")

ALONE = """
display(task.panel(), task.form(), scheduler.plugins())
"""
REPORT = """
scheduler.report("run.html")
"""


def look(page: LabPage, scheme: str) -> None:
    """Show the page as somebody with these colours has it."""
    page.set_theme(dark=scheme == "dark")
    page.page.emulate_media(forced_colors="active" if scheme == "forced" else "none")


def test_axe_finds_nothing_grave(
    page: LabPage, new_page: Callable[..., LabPage], gates: Gates
) -> None:
    board = populated(page, gates, ALONE, REPORT)
    board.run(3)
    alone = page.output(3).locator(".amltk-nb")
    expect(alone.locator(".amltk-all")).to_have_count(3)
    board.open_row(2)
    for scheme in SCHEMES:
        look(page, scheme)
        assert grave(board.tab, ".amltk-nb") == [], scheme
    board.run(4)
    report = new_page(page.lab)
    report.page.goto((page.lab.root / "run.html").as_uri())
    report.complaints.clear()  # a file is on no machine
    unfold(report.page.locator("body"))
    for scheme in SCHEMES:
        report.page.emulate_media(
            color_scheme="dark" if scheme == "dark" else "light",
            forced_colors="active" if scheme == "forced" else "none",
        )
        assert grave(report.page, "body") == [], scheme
    board.button("Stop now").click()
    expect(board.outcome()).to_be_visible()
    for scheme in SCHEMES:
        look(page, scheme)
        board.outcome().scroll_into_view_if_needed()
        unfold(board.outcome())
        assert grave(board.tab, ".amltk-nb-static") == [], scheme


def unfold(root: Locator) -> None:
    """Open all that can be opened."""
    root.locator("details").evaluate_all("all => all.forEach((d) => { d.open = true; })")


def test_every_control_is_reached_by_tab(page: LabPage, gates: Gates) -> None:
    board = populated(page, gates)
    board.open_row(2)
    expect(board.root.locator("[aria-busy='true']")).to_have_count(0)
    mark = "all => all.map((el, n) => { el.setAttribute('data-test-n', n); return String(n); })"
    expected = board.root.locator(FOCUSABLE).evaluate_all(mark)
    assert len(expected) > 25
    board.root.locator(FOCUSABLE).first.focus()
    board.tab.keyboard.press("Shift+Tab")
    assert board.tab.evaluate(FOCUSED) is None, "the way in is from the cell"
    reached = []
    for _ in expected:
        board.tab.keyboard.press("Tab")
        reached.append(board.tab.evaluate(FOCUSED))
    assert reached == expected


def test_everything_works_by_keyboard(page: LabPage, gates: Gates) -> None:
    board = populated(page, gates)
    keyboard = board.tab.keyboard

    board.button("Pause").focus()
    keyboard.press("Enter")
    board.wait_state("paused")
    expect(board.button("Resume")).to_be_focused()
    keyboard.press("Space")
    board.wait_state("running")
    expect(board.button("Pause")).to_be_focused()

    board.chip("failed").focus()
    keyboard.press("Space")
    assert board.shown_calls() == [2]
    keyboard.press("Enter")
    assert len(board.shown_calls()) == 6
    board.root.get_by_role("searchbox", name="Filter the calls by text").focus()
    keyboard.type("odd")
    assert board.shown_calls() == [2]
    keyboard.press("Escape")
    assert len(board.shown_calls()) == 6, "the field is emptied"

    board.button("Call 4, details").focus()
    keyboard.press("ArrowDown")
    expect(board.button("Call 5, details")).to_be_focused()
    keyboard.press("Enter")
    expect(board.row(5)).to_have_attribute("data-open", "true")
    keyboard.press("Tab")
    expect(board.button("End call 5")).to_be_focused()
    keyboard.press("Space")
    board.wait_row(5, "cancelled")
    board.wait_row(6, "running")
    expect(board.button("Resubmit call 5")).to_be_focused()
    assert board.python() == "running 1:done 2:failed 3:done 4:running 5:cancelled 6:running"
    board.button("Stop now").focus()
    keyboard.press("Enter")
    expect(board.outcome()).to_be_visible()
    assert board.python() == "finished 1:done 2:failed 3:done 4:cancelled 5:cancelled 6:cancelled"


def test_focus_stays_while_values_change(page: LabPage, gates: Gates) -> None:
    cherry, grape, fig = gates("cherry", "grape", "fig")
    board = Board(page, "from amltk_nb import Limiter\n" + POPULATED)
    wait_call(cherry), wait_call(grape)
    board.wait_counts(queued=1, running=2, done=2, failed=1)
    toggle = board.button("Call 5, details")
    toggle.focus()
    board.tab.keyboard.press("Tab")
    end = board.button("End call 5")
    expect(end).to_be_focused()
    cherry.open()
    wait_call(fig)
    board.wait_counts(running=2, done=3, failed=1)
    expect(end).to_be_focused()
    fig.open()
    board.wait_counts(running=1, done=4, failed=1)
    expect(end).to_be_focused()
    assert board.python() == "running 1:done 2:failed 3:done 4:done 5:running 6:done"
