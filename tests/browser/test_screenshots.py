"""Pictures of the dashboard at work, in both themes; `make screenshots` renews the docs' own."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.board import Board
from tests.browser.lab import Lab, LabPage
from tests.kernels.cells import Gate

KEEP_IN = "AMLTK_NB_SCREENSHOTS"  # a folder; unset: only look whether they can be taken
MAX_BYTES = 300_000

# Real work of real length; two calls are held back so that both pictures show the same moment.
WORK = """
import fcntl
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from amltk_nb import Limiter, Scheduler

MODELS = {"svm": SVC, "neighbours": KNeighborsClassifier, "forest": RandomForestClassifier}

def evaluate(model, **options):
    print("cross-validating", model)
    if options.get("n_neighbors", 0) > 20 or options.get("C", 0) > 50:
        with open("gate.in", "w") as bell:
            bell.write("0 held\\n")
        with open("gate") as gate:
            fcntl.flock(gate, fcntl.LOCK_SH)
    if options.get("max_depth") == 0:
        raise ValueError("max_depth must be at least 1, or None for no limit; it is 0")
    X, y = load_digits(return_X_y=True)
    scores = cross_val_score(MODELS[model](**options), X, y, cv=3, error_score="raise")
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


@pytest.fixture
def demo(own_lab: Lab, new_page: Callable[..., LabPage]) -> Iterator[Board]:
    """The search, mid-run: two calls run, two wait, one has failed and is open."""
    gate = Gate(own_lab.root / "gate")
    page = new_page(own_lab, width=1240, height=1500)
    page.open(own_lab.add("demo.ipynb", WORK.strip(), START.strip()))
    page.command("application:toggle-left-area")
    page.run_cell(0)
    page.run_cell(1)
    board = Board.over(page)
    gate.arrived(2, timeout_s=90)
    board.wait_counts(queued=2, running=2, done=9, failed=1)
    yield board
    gate.close()


def test_pictures_of_both_themes(demo: Board, tmp_path: Path) -> None:
    folder = Path(os.environ.get(KEEP_IN) or tmp_path)
    demo.open_row(10)
    demo.page.cell(1).locator(".jp-InputArea-editor").scroll_into_view_if_needed()
    taken = [picture(demo, folder, dark=dark) for dark in (False, True)]
    light, dark = (path.read_bytes() for path in taken)
    assert light != dark
    # Width and height stand at the same place in every PNG.
    assert struct.unpack(">II", light[16:24]) == struct.unpack(">II", dark[16:24])
    assert max(len(light), len(dark)) < MAX_BYTES


def picture(board: Board, folder: Path, *, dark: bool) -> Path:
    """Take one of the whole dashboard, with nothing pointed at."""
    board.page.set_theme(dark=dark)
    board.tab.mouse.move(0, 0)
    scheme = board.root.locator("xpath=..")
    expect(scheme).to_have_css("color-scheme", "dark" if dark else "light")
    return board.page.screenshot(
        folder / f"dashboard-{'dark' if dark else 'light'}.png", board.root
    )
