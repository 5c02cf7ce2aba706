"""Being told of the end by a real browser, while its page is out of sight; and nothing jumps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.board import SEARCH, Board, Gates, wait_call
from tests.browser.lab import Lab, LabPage

# Headless, each tab believes that it is seen; and nobody shows notifications, which are real.
STAGE = """
    window.told = [];
    window.Notification = class extends Notification {
        constructor(title, options) {
            super(title, options);
            told.push([this.title, this.body]);
        }
    };
    window.seen = true;
    Object.defineProperty(document, "visibilityState", {get: () => (seen ? "visible" : "hidden")});
    window.show = (yes) => {
        seen = yes;
        document.dispatchEvent(new Event("visibilitychange"));
    };
"""

TWO = SEARCH.replace("start()", "start(end_on_empty=True)")
TWO += "calls = [task.submit(name, gate=name) for name in ('a', 'b')]"

# What must stay where it is while values change: place and size of each within the dashboard. Not
# the word that the kernel is busy, which depends on the machine: it stands left of the button.
BOXES = """root => {
    const parts = [
        ".amltk-title > :not(.amltk-end)", ".amltk-notify", ".amltk-meta > *", ".amltk-chip",
        ".amltk-controls button", ".amltk-progress-text", ".amltk-at-queue thead", ".amltk-side",
    ];
    const all = root.getBoundingClientRect();
    return parts.map((part) => [part, [...root.querySelectorAll(part)].map((each) => {
        const { x, y, width } = each.getBoundingClientRect();
        return [x - all.x, y - all.y, width].map(Math.round);
    })]);
}"""


@pytest.fixture
def granted(browser: BrowserContext, lab: Lab) -> Iterator[None]:
    """A browser that lets the Lab's pages notify."""
    address = urlsplit(lab.url(""))
    browser.grant_permissions(["notifications"], origin=f"{address.scheme}://{address.netloc}")
    yield
    browser.clear_permissions()


def title(tab: Page) -> Any:
    """The text of the tab, spaces and all."""
    return tab.evaluate("document.querySelector('title').textContent")


@pytest.mark.usefixtures("granted")
def test_a_reader_elsewhere_is_told_of_the_end(page: LabPage, gates: Gates) -> None:
    page.page.add_init_script(STAGE)
    a, b = gates("a", "b")
    board = Board(page, TWO)
    before = title(board.tab)
    wait_call(a), wait_call(b)
    board.wait_counts(running=2)

    button = board.button("Notify me")
    button.press("Space")
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(board.tab).to_have_title("0 % search")
    boxes = board.root.evaluate(BOXES)
    assert all(found for part, found in boxes), boxes

    board.tab.evaluate("show(false)")
    a.open()
    board.wait_counts(done=1, running=1)
    expect(board.tab).to_have_title("50 % search")
    assert board.root.evaluate(BOXES) == boxes

    b.open()
    board.outcome().wait_for()
    [[headline, body]] = board.tab.evaluate("told")
    assert headline == "✓ search finished"
    assert body.startswith("exhausted: nothing was left to do\n2 of 2 calls ended: 2 done in ")
    assert title(board.tab) == "✓ search"
    board.tab.evaluate("show(true)")
    assert title(board.tab) == before
