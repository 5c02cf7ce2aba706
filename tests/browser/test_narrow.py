"""The dashboard on small pages, and under the hands of somebody while it changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext

from tests.browser.stage import Stage
from tests.views.flood import Flood, Sent

# Widths in CSS pixels: a phone or a side panel, and a page of 1 280 at 200 % and 400 %.
PAGES = {"400 px": (400, 800), "200 %": (640, 500), "320 px": (320, 256)}

DETAIL = {
    "state": "failed", "function": "evaluate", "resubmitted_from": None, "result_is_part": False,
    "arguments": [{"name": f"option_{n}", "text": "'candidate' " * 20} for n in range(4)],
    "result": "Score(accuracy=0.97) " * 60, "error": "Traceback:\n" + "  File x, line 3\n" * 30,
    "output": "fitting\n" * 30,
}  # fmt: skip

CONTROLS = "button, input, select, textarea, summary, [tabindex='0']"

# What of a control cannot be reached by scrolling down the page, or is cut off.
LOST = """(selector) => {
    const lost = [], wide = document.scrollingElement.clientWidth;
    if (document.scrollingElement.scrollWidth > wide) lost.push("the page scrolls sideways");
    for (const el of document.querySelectorAll(`.amltk-nb :is(${selector})`)) {
        if (!el.checkVisibility({ visibilityProperty: true })) continue;
        el.scrollIntoView({ block: "center", inline: "center" });
        const name = el.getAttribute("aria-label") ?? el.textContent.slice(0, 40);
        const { left, right, top, bottom, width, height } = el.getBoundingClientRect();
        const middle = document.elementFromPoint((Math.max(left, 0) + Math.min(right, wide)) / 2,
            (Math.max(top, 0) + Math.min(bottom, innerHeight)) / 2);
        if (!middle || !(el.contains(middle) || middle.contains(el))) lost.push(`${name}: covered`);
        const isBox = el.matches(".amltk-scroll, .amltk-log, pre, [role=group]");
        if (!isBox && (left < -1 || right > wide + 1)) lost.push(`${name}: ${left} to ${right}`);
        // A bar is as wide as its call is long, and has a row as well.
        const isSmall = !el.matches("[data-bar]") && (width < 8 || height < 8);
        if (isSmall) lost.push(`${name}: ${width} x ${height}`);
        if (el.matches("button") && el.scrollWidth > el.clientWidth + 1) lost.push(`${name}: cut`);
    }
    return lost;
}"""


# Focus a control, let updates come, and say where the focus was lost and to what.
FOCUS = """async ([selector, news, within]) => {
    const el = document.querySelector(selector);
    if (!el) return [`there is no ${selector}`];
    el.focus();
    const lost = [];
    for (const [n, message] of news.entries()) {
        stage.tell(message);
        await stage.flush();
        if (n % 20 === 0) await new Promise(requestAnimationFrame);
        const now = document.activeElement;
        const isThere = within ? now.closest(within) : now === el;
        if (!isThere) lost.push(`${n}: ${now.outerHTML.slice(0, 80)}`);
    }
    return lost;
}"""
FOCUSED = {
    ".amltk-row[data-test-row] .amltk-toggle": 200,
    ".amltk-row[data-test-row] .amltk-col-action button": 10,
    ".amltk-controls button": 10,
    ".amltk-chip[aria-pressed]": 10,
    "input[aria-label='Filter the calls by text']": 10,
    "[aria-label='Table of calls']": 10,
    ".amltk-emitter summary": 10,
    "[aria-label='Log entries']": 10,
    "input[aria-label='Filter the log']": 10,
    ".amltk-copy": 10,
}


@pytest.fixture(scope="module")
def flood() -> list[Sent]:
    """A slow flood, with some news in each fifth of a second."""
    kept: list[list[Sent]] = []
    flood = Flood(40, n_queued=200, n_workers=4, log_lines_per_s=20, tick_s=0.2)
    thread = threading.Thread(target=lambda: kept.append(asyncio.run(flood.record(72))))
    thread.start()
    thread.join()
    return kept[0]


@pytest.fixture
def stage(browser: BrowserContext) -> Iterator[Stage]:
    page = browser.new_page()
    stage = Stage(page)
    yield stage
    assert stage.complaints == []
    page.close()


def show(stage: Stage, flood: list[Sent], n_news: int) -> None:
    """Show it some seconds into the flood."""
    stage.page.evaluate("detail => { stage.detail = (id) => ({ ...detail, call: id }); }", DETAIL)
    stage.show(flood[0].message)
    stage.tell(*(sent.message for sent in flood[1 : n_news + 1]))


@pytest.mark.parametrize("size", PAGES.values(), ids=PAGES)
def test_nothing_is_lost_on_a_small_page(
    stage: Stage, flood: list[Sent], size: tuple[int, int]
) -> None:
    stage.page.set_viewport_size({"width": size[0], "height": size[1]})
    show(stage, flood, 50)
    stage.root.locator(".amltk-chip", has_text="failed").click()
    stage.root.locator(".amltk-row .amltk-toggle").first.click()
    stage.root.get_by_role("heading", name="Arguments").wait_for()
    stage.root.locator("details").evaluate_all("all => all.forEach((d) => { d.open = true; })")
    assert stage.root.locator(CONTROLS).count() > 30
    assert stage.page.evaluate(LOST, CONTROLS) == []


def test_focus_stays_through_hundreds_of_updates(stage: Stage, flood: list[Sent]) -> None:
    stage.page.set_viewport_size({"width": 1280, "height": 1000})
    show(stage, flood, 10)
    news = [sent.message for sent in flood[11:]]
    stage.root.locator(".amltk-chip", has_text="done").click()
    stage.root.locator("tr.amltk-row").nth(3).evaluate(
        "row => row.setAttribute('data-test-row', '')"
    )
    for selector, n_updates in FOCUSED.items():
        mine, news = news[:n_updates], news[n_updates:]
        assert len(mine) == n_updates
        assert stage.page.evaluate(FOCUS, [selector, mine, None]) == [], selector
    mine, news = news[:50], news[50:]
    assert len(mine) == 50
    bars = [".amltk-mark[tabindex='0']", mine, ".amltk-lanes"]  # bars leave, the focus stays there
    assert stage.page.evaluate(FOCUS, bars) == []
