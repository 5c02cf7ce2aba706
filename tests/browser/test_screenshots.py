"""Pictures of every view at work, in both themes; `make screenshots` renews the docs' own."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.browser.board import Board
from tests.browser.lab import Lab, LabPage
from tests.kernels.cells import Gate

# A folder for the pictures of the docs; all of them, in both themes and three widths, are then
# left under test-results/screenshots to be looked at. Unset: only look whether they can be taken.
KEEP_IN = "AMLTK_NB_SCREENSHOTS"
ALL_IN = Path(__file__).resolve().parent.parent.parent / "test-results" / "screenshots"
MAX_BYTES = 150_000
WIDTHS = (1400, 800, 400)  # of a view, in pixels

# Each alone, by the cell that shows it.
VIEWS = {
    "controls": "scheduler.controls()",
    "progress": "scheduler.progress()",
    "events": "scheduler.events()",
    "queue": "scheduler.queue()",
    "timeline": "scheduler.timeline()",
    "plugins": "scheduler.plugins()",
    "log": "scheduler.log()",
    "panel": "search.panel()",
    "form": "search.form()",
}

# What the docs show: the view, its theme and its width.
KEPT = {
    "dashboard-light.png": ("dashboard", "light", 1400),
    "dashboard-dark.png": ("dashboard", "dark", 1400),
    "dashboard-narrow.png": ("dashboard", "light", 400),
    "view-resubmit.png": ("resubmit", "light", 800),
    "view-progress.png": ("progress", "light", 800),
    "view-controls.png": ("controls", "light", 800),
    "view-queue.png": ("queue", "dark", 800),
    "view-timeline-light.png": ("timeline", "light", 800),
    "view-timeline-dark.png": ("timeline", "dark", 800),
    "view-events.png": ("events", "light", 800),
    "view-log.png": ("log", "dark", 800),
    "view-form.png": ("form", "light", 800),
    "view-panel.png": ("panel", "dark", 800),
    "report.png": ("report", "light", 800),
}

# Real work of real length; two calls are held back so that both pictures show the same moment.
WORK = """
import fcntl
from typing import Literal
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from amltk_nb import Limiter, Scheduler

MODELS = {"svm": SVC, "neighbours": KNeighborsClassifier, "forest": RandomForestClassifier}

def evaluate(model: Literal["svm", "forest", "neighbours"], folds: int = 3, **options):
    '''Cross-validate one model on the digits.'''
    print("cross-validating", model)
    if options.get("n_neighbors", 0) > 20 or options.get("C", 0) > 50:
        with open("gate.in", "w") as bell:
            bell.write("0 held\\n")
        with open("gate") as gate:
            fcntl.flock(gate, fcntl.LOCK_SH)
    if options.get("max_depth") == 0:
        raise ValueError("max_depth must be at least 1, or None for no limit; it is 0")
    X, y = load_digits(return_X_y=True)
    scores = cross_val_score(MODELS[model](**options), X, y, cv=folds, error_score="raise")
    return {"model": model, "score": round(scores.mean(), 3)}
"""

START = """
scheduler = Scheduler.with_processes(2, name="digits")
search = scheduler.task(evaluate, plugins=Limiter(max_calls=20))
best = [0]

@search.on_result
def keep_best(future, result):
    if result["score"] > best[-1]:
        best.append(result["score"])
        print(f"best so far: {result['score']} by {result['model']}")

trials = [("svm", {"C": C, "gamma": 0.001}) for C in (0.1, 1, 10)]
trials += [("forest", {"max_depth": depth}) for depth in (2, 4, 8)]
trials += [("neighbours", {"n_neighbors": n}) for n in (1, 5, 9)]
trials += [("forest", {"max_depth": 0})]
trials += [("neighbours", {"n_neighbors": 25}), ("svm", {"C": 100, "gamma": 0.001})]
trials += [("svm", {"C": C, "gamma": 0.01}) for C in (1, 10)]
run = scheduler.start()
futures = [search.submit(model, **options) for model, options in trials]
"""


REPORT = "scheduler.report('run.html')"


@pytest.fixture
def demo(own_lab: Lab, new_page: Callable[..., LabPage]) -> Iterator[Board]:
    """The search, mid-run: two calls run, two wait, one has failed."""
    gate = Gate(own_lab.root / "gate")
    page = new_page(own_lab, width=1240, height=1500)
    page.open(own_lab.add("demo.ipynb", WORK.strip(), START.strip(), *VIEWS.values(), REPORT))
    page.command("application:toggle-left-area")
    page.run_cell(0)
    page.run_cell(1)
    board = Board.over(page)
    if os.environ.get(KEEP_IN):  # so that they see what happens
        for n in range(len(VIEWS)):
            page.run_cell(n + 2)
    gate.arrived(2, timeout_s=90)
    board.wait_counts(queued=2, running=2, done=9, failed=1)
    yield board
    gate.close()


def test_pictures_of_both_themes(demo: Board, tmp_path: Path) -> None:
    demo.open_row(10)
    demo.page.cell(1).locator(".jp-InputArea-editor").scroll_into_view_if_needed()
    taken = []
    for theme in ("light", "dark"):
        set_theme(demo, theme)
        taken.append(picture(demo.root, tmp_path / f"{theme}.png"))
    light, dark = (path.read_bytes() for path in taken)
    assert light != dark
    # Width and height stand at the same place in every PNG.
    assert struct.unpack(">II", light[16:24]) == struct.unpack(">II", dark[16:24])
    assert max(len(light), len(dark)) < MAX_BYTES


@pytest.mark.skipif(not os.environ.get(KEEP_IN), reason=f"`make screenshots` sets {KEEP_IN}")
@pytest.mark.timeout(600)
def test_pictures_of_all_views(demo: Board) -> None:
    demo.open_row(10)
    for theme in ("light", "dark"):
        set_theme(demo, theme)
        for width in WIDTHS:
            take_all(demo, theme, width)
    for name, (view, theme, width) in KEPT.items():
        kept = Path(os.environ[KEEP_IN]) / name
        kept.write_bytes((ALL_IN / f"{view}-{theme}-{width}.png").read_bytes())
        assert kept.stat().st_size < MAX_BYTES


def take_all(board: Board, theme: str, width: int) -> None:
    """Take every view in one theme and width."""
    for n, view in enumerate(["dashboard", *VIEWS]):
        cell = board.page.cell(n + 1)
        shown = cell.locator(".jp-OutputArea .amltk-nb .amltk-all")
        shown.wait_for()
        fit(board, shown, width)
        if view in ("queue", "dashboard"):
            open_row(shown, scroll=0 if width > 1000 else 240)
        picture(shown, ALL_IN / f"{view}-{theme}-{width}.png")
        if view == "queue":
            take_changes(shown, theme, width)
    take_report(board, theme, width)


def open_row(shown: Locator, *, scroll: int) -> None:
    """Open the failed call, and scroll the table by so many pixels."""
    toggle = shown.get_by_role("button", name="Call 10, details")
    if toggle.get_attribute("aria-expanded") == "false":
        toggle.click()
    detail = shown.locator("tr.amltk-detail")
    detail.get_by_role("heading", name="Output").wait_for()
    table = shown.get_by_role("group", name="Table of calls")
    table.evaluate("(box, scroll) => { box.scrollTop = scroll; }", scroll)


def take_changes(shown: Locator, theme: str, width: int) -> None:
    """Take the form of Resubmit with changes, and close it again."""
    shown.get_by_role("button", name="Resubmit with changes, call 10").click()
    form = shown.get_by_role("group", name="New arguments of call 10")
    form.get_by_role("button", name="Submit").wait_for()
    picture(shown, ALL_IN / f"resubmit-{theme}-{width}.png")
    form.get_by_role("button", name="Cancel").click()


def take_report(board: Board, theme: str, width: int) -> None:
    """Take the file of the report, in a tab of its own."""
    report = board.page.lab.root / "run.html"
    if not report.exists():
        board.page.run_cell(len(VIEWS) + 2)
    tab = board.tab.context.new_page()
    tab.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    tab.set_viewport_size({"width": width, "height": 1100})
    tab.goto(report.as_uri())
    picture(tab.locator("body"), ALL_IN / f"report-{theme}-{width}.png", height=1100)
    tab.close()


def set_theme(board: Board, theme: str) -> None:
    """Have all that is shown in a theme."""
    board.page.set_theme(dark=theme == "dark")
    expect(board.root.locator("xpath=..")).to_have_css("color-scheme", theme)


def fit(board: Board, shown: Locator, width: int) -> None:
    """Make the browser's window so wide that a view has a width."""
    for _ in range(3):  # a scroll bar may come or go
        box = shown.bounding_box()
        window = board.tab.viewport_size
        assert box is not None
        assert window is not None
        # And so high that Lab's own bars are not over it.
        more = width - round(box["width"])
        high = max(1000, round(box["height"]) + 400)
        board.tab.set_viewport_size({"width": window["width"] + more, "height": high})
        board.tab.evaluate("new Promise((next) => requestAnimationFrame(() => setTimeout(next)))")


def picture(shown: Locator, path: Path, *, height: int | None = None) -> Path:
    """Take a view with nothing pointed at; a palette of colours is enough for it."""
    shown.page.mouse.move(0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    if height is None:
        shown.evaluate("shown => shown.scrollIntoView({ block: 'center' })")
        shown.screenshot(path=path, animations="disabled", caret="hide")
    else:
        shown.page.screenshot(path=path, animations="disabled")
    colours = Image.open(path).convert("RGB")
    # By coverage, because the words in colour are few; three times moved to where pixels are.
    few = colours.quantize(256, Image.Quantize.MAXCOVERAGE, 3, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    return path
