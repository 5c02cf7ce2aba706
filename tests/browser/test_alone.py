"""All views of one run, each alone in a cell of one notebook, with a future and a batch by them."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, expect

from tests.browser.board import WORK, Gates, wait_call
from tests.browser.lab import Lab, LabPage

VIEWS = ("controls", "progress", "events", "queue", "timeline", "plugins", "log")
MAKE = """
from amltk_nb import Limiter
scheduler = Scheduler.with_processes(1, name="alone")
task = scheduler.task(work, plugins=Limiter(max_calls=9))
other = scheduler.task(double)
@other.on_result
def tell(future, value):
    print("doubled to", value)
"""
START = """
run = scheduler.start(display=False)
first = task.submit("even", gate="gate")
second = other.submit(21)
batch = other.batch([(1,), (2,)])
_ = batch.submit()
"""
# Each view shown before there is a run, then what there is only during one.
CELLS = [*(f"scheduler.{view}()" for view in VIEWS), "other.panel()", START, "first", "batch"]
SEES = {
    "controls": ".amltk-controls",
    "progress": ".amltk-progress",
    "events": ".amltk-at-events",
    "queue": ".amltk-at-queue",
    "timeline": ".amltk-at-timeline",
    "plugins": ".amltk-at-plugins",
    "log": ".amltk-at-log",
}
LEFT = {
    "controls": "stopped",
    "progress": "4 of 4 calls ended",
    "events": "def tell(future, value)",
    "queue": "gate='gate'",
    "timeline": "Busy",
    "plugins": "1/9",
    "log": "doubled to 42",
}


def test_all_views_alone_in_one_notebook(
    lab: Lab, new_page: Callable[..., LabPage], gates: Gates
) -> None:
    (gate,) = gates("gate")
    page = new_page(lab, width=1000, height=5_000)  # Lab draws only the cells that are in sight
    page.open(lab.add("alone.ipynb", WORK, MAKE, *CELLS))
    page.run_all()
    where = {view: n for n, view in enumerate([*VIEWS, "panel", "start", "first", "batch"], 2)}
    page.wait_ended(where["batch"])

    def live(view: str) -> Locator:
        return page.output(where[view]).locator(".amltk-all")

    def static(view: str) -> Locator:
        return page.output(where[view]).locator(".amltk-nb-static")

    def wait_all(word: str) -> None:
        for view in (*VIEWS, "panel"):
            state = live(view).locator(".amltk-strip .amltk-state")
            expect(state).to_have_text(re.compile(f"{word}$"))

    # One worker, which is held: each view shows the same moment, and only its own part of it.
    wait_call(gate)
    wait_all("running")
    for view, mark in SEES.items():
        expect(live(view).locator(mark)).to_be_visible()
        expect(live(view).locator(".amltk-strip")).to_contain_text("alone")
        shown = [name for name, other in SEES.items() if live(view).locator(other).count()]
        assert shown == [view]
    expect(live("panel").locator(".amltk-strip code")).to_have_text("double(n)")
    rows = live("panel").locator("tr.amltk-row")
    expect(rows).to_have_count(3)
    assert sorted(str(row.get_attribute("data-call")) for row in rows.all()) == ["2", "3", "4"]
    expect(static("first")).to_contain_text("running")
    expect(static("batch")).to_contain_text("2 queued")

    # A click in one of them is seen in all.
    live("controls").get_by_role("button", name="Pause").click()
    wait_all("paused")
    live("controls").get_by_role("button", name="Resume").click()
    wait_all("running")
    gate.open()
    expect(live("progress")).to_contain_text("4 of 4 calls ended")
    expect(static("first")).to_contain_text("done")
    expect(static("first")).to_contain_text("{'name': 'even', 'length': 4}")
    expect(static("batch")).to_contain_text("2 of 2 calls ended")

    # The end leaves of each what it showed, and nothing of the others.
    live("controls").get_by_role("button", name="Stop", exact=True).click()
    for view, text in LEFT.items():
        expect(static(view)).to_contain_text("finished (stopped)")
        expect(static(view)).to_contain_text(text)
        expect(live(view)).to_have_count(0)
        assert [other for other, left in LEFT.items() if left in static(view).inner_text()] == [
            *(["controls"] if view != "controls" else []),  # each says that it was stopped
            view,
        ]
    saved = [output for cell in page.save().cells for output in cell.get("outputs", [])]
    assert [sorted(output.data) for output in saved] == [["text/html", "text/plain"]] * 10
