"""nbconvert, offline: what an executed notebook leaves in HTML and markdown, and what it asks for.

The templates of nbconvert itself name a server for MathJax and RequireJS, whatever is in the
notebook. So what counts is what is asked for on top of the same notebook without outputs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter, MarkdownExporter
from playwright.sync_api import BrowserContext, Page

from tests.browser.server import write_notebook

WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
MANAGER = "https://unpkg.com/@jupyter-widgets/html-manager"

CELLS = (
    "from amltk_nb import Scheduler\n"
    "scheduler = Scheduler.with_processes(2, name='search')\n"
    "task = scheduler.task(abs)",
    "run = scheduler.start(end_on_empty=True)\nfutures = [task.submit(-n) for n in range(3)]",
    "print(await run)",
    "scheduler",
    "task",
)
NAMED = re.compile(r"""https?:|url\(|@import|\b(?:src|href|srcset|action)\s*=""", re.IGNORECASE)

Notebook = Any


def executed(folder: Path, static: str) -> Notebook:
    """Run the notebook as `jupyter execute` does, with or without AMLTK_NB_STATIC."""
    path = folder / f"static-{static}.ipynb"
    write_notebook(path, *CELLS)
    notebook = nbformat.read(path, as_version=4)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AMLTK_NB_STATIC", static)
        patched.setenv("IPYTHONDIR", str(folder))
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    return notebook


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    """Run with a widget until it was over."""
    return executed(tmp_path_factory.mktemp("live"), "0")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Notebook:
    """Run as CI and books do."""
    return executed(tmp_path_factory.mktemp("static"), "1")


def bundles(notebook: Notebook, n: int) -> list[dict[str, str]]:
    """What stands under a cell, without what is printed."""
    return [out.data for out in notebook.cells[n].outputs if out.output_type == "display_data"]


def to_html(notebook: Notebook) -> str:
    return str(HTMLExporter().from_notebook_node(notebook)[0])


def to_markdown(notebook: Notebook) -> str:
    return str(MarkdownExporter().from_notebook_node(notebook)[0])


@pytest.fixture
def asked(browser: BrowserContext, tmp_path: Path) -> Callable[[str], tuple[Page, list[str]]]:
    """Open a page without a network; returns it and the addresses it asks for."""

    def ask(html: str) -> tuple[Page, list[str]]:
        path = tmp_path / "page.html"
        path.write_text(html)
        page, seen = browser.new_page(), []

        def refuse(route: Any) -> None:
            seen.append(route.request.url.split("?")[0])
            route.abort()

        page.route(lambda url: not url.startswith("file:"), refuse)
        page.goto(path.as_uri(), wait_until="load")
        return page, sorted(seen)

    return ask


def test_the_outcome_is_in_the_page_and_asks_for_nothing(
    live: Notebook, static: Notebook, asked: Callable[[str], tuple[Page, list[str]]]
) -> None:
    bare = copy.deepcopy(static)
    for cell in bare.cells:
        cell.outputs = []
    page, templates_own = asked(to_html(bare))
    assert page.locator(".amltk-nb-static").count() == 0

    for notebook, places in ((static, (2, 3, 4)), (live, (1, 3, 4))):
        for n in places:
            [bundle] = bundles(notebook, n)
            assert sorted(bundle) == ["text/html", "text/plain"]
            assert NAMED.findall(bundle["text/html"]) == []
        page, addresses = asked(to_html(notebook))
        shown = page.locator(".amltk-nb-static")
        assert shown.count() == 3
        assert [shown.nth(n).is_visible() for n in range(3)] == [True] * 3
        assert "finished" in shown.first.inner_text()
        assert "3 done" in shown.first.inner_text()
        assert page.locator(f'script[type="{WIDGET}"]').count() == 0
        more = set(addresses) - set(templates_own)
        # nbclient keeps the state of every widget there was, and the template then asks for the
        # code of widgets, though none is shown. With AMLTK_NB_STATIC=1 there was no widget.
        assert (STATE in str(notebook.metadata)) == (notebook is live)
        assert [address.split("@*")[0] for address in more] == [MANAGER] * (notebook is live)


def test_a_saved_live_view_is_exported_as_html(
    live: Notebook, asked: Callable[[str], tuple[Page, list[str]]]
) -> None:
    """A notebook saved while its run was under way, by somebody whose widgets nobody has."""
    [bundle] = bundles(live, 1)
    saved = copy.deepcopy(live)
    saved.metadata.pop("widgets")
    saved.cells[1].outputs[0].data = {
        WIDGET: {"version_major": 2, "version_minor": 0, "model_id": "gone"},
        **bundle,
    }
    page, _ = asked(to_html(saved))
    assert page.locator(".amltk-nb-static").count() == 3
    assert page.locator(f'script[type="{WIDGET}"]').count() == 0
    assert "amltk-nb-static" in to_markdown(saved)
    assert "gone" not in to_markdown(saved)


def test_markdown_holds_the_same_outcome(live: Notebook, static: Notebook) -> None:
    for notebook in (live, static):
        text = to_markdown(notebook)
        assert text.count('<div class="amltk-nb-static') == 3
        assert "widget" not in text.lower()
        assert [line for line in text.splitlines() if "exhausted" in line]


def test_its_text_is_the_same_each_time(live: Notebook, static: Notebook) -> None:
    """Neither the mode nor the run makes a difference to what is compared."""
    for n, m in ((1, 2), (3, 3), (4, 4)):
        assert bundles(live, n)[0]["text/plain"] == bundles(static, m)[0]["text/plain"]
    for notebook in (live, static):
        printed = [out.text for out in notebook.cells[2].outputs if out.output_type == "stream"]
        assert printed == ["exhausted\n"]
