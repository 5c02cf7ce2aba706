"""Strings that try to be more than text, in every place that a program's strings come to.

What counts is what the browser did: dialogs, requests, violations of a policy that forbids all
scripts but the bundle's, globals that a payload sets, elements that no view makes.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import unicodedata
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.board import Board
from tests.browser.lab import LabPage
from tests.browser.stage import Stage
from tests.views.corpus import FILE_NAME, TEXTS, Gathered, gather

# What no view of ours makes, wherever a text could have made it.
ALIEN = """root => [...root.querySelectorAll("*")].filter((el) =>
    el.matches("script, iframe, img, object, embed, link, base, meta, form, a, math, animate")
    || [...el.attributes].some(({ name, value }) => /^on|^srcdoc$/i.test(name)
        || /^(href|src|action|formaction|data|xlink:href)$/i.test(name)
        || (name === "style" && /url|expression|@import/i.test(value)))
).map((el) => el.outerHTML.slice(0, 200))"""

# Open each row in turn and return what it says, under the call's id.
OPEN_ALL = """async () => {
    const said = {}, box = document.querySelector(".amltk-scroll");
    for (const details of document.querySelectorAll("details")) details.open = true;
    const find = (what, call) => box.querySelector(`tr.amltk-${what}[data-call="${call}"]`);
    const read = async (call) => {
        find("row", call).querySelector(".amltk-toggle").click();
        do await new Promise(requestAnimationFrame);
        while (find("detail", call)?.querySelector("pre") == null);
        const detail = find("detail", call);
        for (const more of detail.querySelectorAll("[aria-expanded=false]")) more.click();
        await stage.flush();
        said[call] = [...detail.querySelectorAll("pre")].map((pre) => pre.textContent);
        find("row", call).querySelector(".amltk-toggle").click();
        await stage.flush();
    };
    for (let top = 0; top < box.scrollHeight + 300; top += 300) {
        box.scrollTop = top;
        await new Promise(requestAnimationFrame);
        await stage.flush();
        const calls = [...box.querySelectorAll("tr.amltk-row")].map((row) => row.dataset.call);
        for (const call of calls) if (!(call in said) && find("row", call)) await read(call);
    }
    return said;
}"""


# The same in a real kernel, with real prints of real workers.
WORK = """
import asyncio, json
from amltk_nb import Plugin, Scheduler
TEXTS = json.load(open("corpus.json"))

class Loud(Plugin):
    name = TEXTS["image"]
    def state(self):
        return TEXTS

def say(text, *more, fail=False, **options):
    print(text.encode("utf-8", "replace").decode())
    if fail:
        raise ValueError(text)
    return [text]
"""
START = f"""
scheduler = Scheduler.with_processes(2, name=TEXTS["script"], journal={FILE_NAME!r})
task = scheduler.task(say, plugins=Loud())

@task.on_result
def keep(future, result):
    print(result[0])

run = scheduler.start()
calls = [
    task.submit(text, fail=n % 2 == 0, **{{text: text}}) for n, text in enumerate(TEXTS.values())
]
_ = await asyncio.wait(calls)
"""


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Gathered:
    """A scheduler made of the texts; its loop runs on a thread, for Playwright's is on this one."""
    made: list[Gathered] = []
    folder = tmp_path_factory.mktemp("journal")
    thread = threading.Thread(target=lambda: made.append(asyncio.run(gather(folder))))
    thread.start()
    thread.join()
    return made[0]


@pytest.fixture
def stage(browser: BrowserContext) -> Iterator[Stage]:
    page = browser.new_page()
    page.set_viewport_size({"width": 1280, "height": 1000})
    stage = Stage(page)
    yield stage
    page.close()


def unharmed(stage: Stage) -> None:
    """Require that nothing was done but showing."""
    assert stage.page.evaluate("typeof window.pwned") == "undefined"
    assert stage.dialogs == []
    assert stage.violations == []
    assert stage.complaints == []
    assert stage.page.locator("body").evaluate(ALIEN) == []


def runs(text: str) -> list[str]:
    """Return the stretches of a text that are shown as they are; the rest is spelled."""
    stretches = re.split(r"\s+", "".join(c if c.isprintable() else " " for c in text))
    return [stretch for stretch in stretches if stretch]


def compact(text: str) -> str:
    """Leave out white space, which a page may break elsewhere."""
    return re.sub(r"\s+", "", text)


def hiding(text: str) -> set[str]:
    """Return characters that could make a text look like another one."""
    kept = "\n\t\u200d\u200c\ufe0f"
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in kept}


def test_the_traps_work(stage: Stage) -> None:
    with stage.page.expect_event("dialog"):
        stage.show_document(TEXTS["image"] + TEXTS["styles"])
    stage.page.wait_for_function("window.violations.length >= 2")
    assert stage.page.evaluate("window.pwned") == 1
    assert stage.dialogs == ["pwned"]
    assert {violation.split()[0] for violation in stage.violations} >= {
        "img-src",
        "script-src-attr",
    }
    assert len(stage.page.locator("body").evaluate(ALIEN)) == 1
    assert stage.requests[-1].startswith("http://")


def test_the_live_view_shows_them_as_text(stage: Stage, gathered: Gathered) -> None:
    stage.page.evaluate(
        "details => { stage.detail = (id) => details[id]; }",
        {str(id): detail for id, detail in gathered.details.items()},
    )
    n_requests = len(stage.requests)
    stage.show(gathered.full)
    said: dict[str, list[str]] = stage.page.evaluate(OPEN_ALL)
    assert {int(id) for id in said} == set(gathered.details)
    for id, text in enumerate(TEXTS.values(), 1):
        told = compact("".join(said[str(id)]))
        assert [run for run in runs(text) if run not in told] == []
    huge = "".join(said[str(len(TEXTS) + 1)])
    assert "9900000 characters cut" in huge
    assert len(huge) < 400_000
    shown = stage.page.locator("body").inner_text()
    told = compact(shown)
    missing = [name for name, text in TEXTS.items() if not all(run in told for run in runs(text))]
    assert missing == []
    assert hiding(shown) == set()
    unharmed(stage)
    assert stage.requests[n_requests:] == [], "nothing is asked of anybody"


@pytest.mark.parametrize("kind", ["html", "report"])
def test_what_is_left_shows_them_as_text(stage: Stage, gathered: Gathered, kind: str) -> None:
    stage.show_document(getattr(gathered, kind))
    stage.page.locator("details").evaluate_all("all => all.forEach((d) => { d.open = true; })")
    unharmed(stage)
    shown = stage.page.locator("body").inner_text()
    told = compact(shown)
    missing = [
        name for name, text in TEXTS.items() if not all(r[:40] in told for r in runs(text)[:1])
    ]
    assert missing == []
    assert hiding(shown) == set()


def test_in_a_notebook_from_the_first_call_to_the_reload(page: LabPage) -> None:
    (page.lab.root / "corpus.json").write_text(json.dumps(TEXTS))
    dialogs: list[str] = []
    page.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    board = Board(page, START, "run.stop(wait=False)\nawait run", work=WORK)
    texts = list(TEXTS.values())
    n_failed = len(texts[::2])
    board.wait_counts(done=len(TEXTS) - n_failed, failed=n_failed)
    for call in board.shown_calls()[:5]:
        told = compact(board.open_row(call).inner_text())
        assert [run for run in runs(texts[call - 1]) if run not in told] == []
    board.root.locator(".amltk-log li").nth(len(TEXTS) // 2 - 1).wait_for(state="attached")
    unhurt(page, dialogs)
    board.run(3)
    expect(board.outcome()).to_be_visible()
    unhurt(page, dialogs)
    page.reload()
    expect(board.outcome()).to_be_visible()
    assert compact(TEXTS["script"]) in compact(board.outcome().inner_text())
    unhurt(page, dialogs)


def unhurt(page: LabPage, dialogs: list[str]) -> None:
    """Require that nothing was done but showing; `page` itself looks at requests and errors."""
    assert page.page.evaluate("typeof window.pwned") == "undefined"
    assert dialogs == []
    assert page.output(1).evaluate(ALIEN) == []
