"""Fixtures for the dashboard in other hosts than JupyterLab, driven with a real Chromium.

A host is a server of `tests.hosts.servers` in the environment `hosts`, on a free port of this
machine. It ends with its test, which fails if anything that it started lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.browser.board import Gates
from tests.browser.chromium import opened
from tests.browser.conftest import FAILED, keep, pytest_runtest_makereport
from tests.browser.server import Server, Tab
from tests.environments import ENVIRONMENTS
from tests.kernels.cells import Gate

__all__ = ["pytest_runtest_makereport"]  # it stashes whether a test has failed

S = TypeVar("S", bound=Server)
T = TypeVar("T", bound=Tab)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(150))  # a server, a kernel and a page take time


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A headless Chromium, the same for all tests of this folder."""
    with opened(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture
def serve(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[type[S]], S]]:
    """Start a server: `serve(Voila)`; what it serves is in `tmp_path / "root"`."""
    started: list[S] = []

    def start(kind: type[S], **env: str) -> S:
        python = ENVIRONMENTS["hosts"].ready()
        started.append(kind(tmp_path, python, env=env))
        return started[-1]

    yield start
    left = [line for server in started for line in server.close()]
    if request.node.stash.get(FAILED, False):
        for server in started:
            keep(request.node, "server.log").write_text(server.log())
    assert left == [], f"{len(left)} processes outlived their server"


@pytest.fixture
def new_tab(
    serve: object, browser: BrowserContext, request: pytest.FixtureRequest
) -> Iterator[Callable[[Callable[[Page], T]], T]]:
    """Open a tab: `new_tab(VoilaPage)`.

    A test fails if the console of one shows an error, or if it asks anything of another machine.
    """
    tabs: list[Tab] = []

    def new(wrap: Callable[[Page], T]) -> T:
        page = browser.new_page()
        page.set_viewport_size({"width": 1280, "height": 1000})
        tab = wrap(page)
        tabs.append(tab)
        return tab

    yield new
    for n, tab in enumerate(tabs):
        if request.node.stash.get(FAILED, False):
            tab.page.screenshot(path=keep(request.node, f"page-{n}.png"))
        tab.page.close()
    assert [line for tab in tabs for line in tab.complaints if line not in tab.tolerated] == []


@pytest.fixture
def gates(serve: object, tmp_path: Path) -> Iterator[Gates]:
    """Make gates in the folder that is served: `first, second = gates("a", "b")`."""
    made: list[Gate] = []
    root = tmp_path / "root"

    def make(*names: str) -> list[Gate]:
        root.mkdir(exist_ok=True)
        new = [Gate(root / name) for name in names]
        made.extend(new)
        return new

    yield make
    for gate in made:
        gate.close()
