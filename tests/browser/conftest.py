"""Fixtures for tests in a real JupyterLab with a real Chromium.

`lab` is a server whose notebooks run on ipykernel 7.4, `page` an empty tab at it::

    def test_stop(lab, page):
        page.open(lab.add("stop.ipynb", "from amltk_nb import …", "run = scheduler.start()"))
        page.run_cell(0)
        page.output(1).get_by_role("button", name="Stop").click()
        page.wait_text(1, "stopped")

`@pytest.mark.kernels("6.31", "7.4")` on a test that also takes `kernel_version` runs it once per
version. A test that fails leaves a screenshot of every page and the server's log under
`test-results/`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests.browser.board import Gates
from tests.browser.chromium import opened
from tests.browser.lab import Lab, LabPage
from tests.environments import ENVIRONMENTS
from tests.kernels.cells import Gate

RESULTS = Path(__file__).resolve().parent.parent.parent / "test-results"
LATEST = "7.4"
OWN = "own"  # the environment that the tests run in
FAILED = pytest.StashKey[bool]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernel_version" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("kernels")
        metafunc.parametrize("kernel_version", marker.args if marker else (LATEST,))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(150))  # a Lab, a kernel and a page take their time


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


# Playwright leaves an event loop marked as running on this thread, in which no coroutine test
# could run; so it ends with this folder, not with the session.
@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A headless Chromium, the same for all tests of this folder."""
    with opened(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture(scope="package")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Lab]]:
    """Servers that are shared by tests, one per version of the kernel; see `lab`."""
    started: dict[str, Lab] = {}

    def of(version: str) -> Lab:
        if version not in started:
            own = version == OWN
            python = Path(sys.executable) if own else ENVIRONMENTS[f"ipykernel-{version}"].ready()
            started[version] = Lab(tmp_path_factory.mktemp(f"lab-{version}"), python)
        return started[version]

    yield of
    left = [line for lab in started.values() for line in lab.close()]
    assert not left, f"{len(left)} processes outlived their Lab: {left}"


@pytest.fixture
def lab(labs: Callable[[str], Lab], request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A JupyterLab server with the kernel of `kernel_version`, or the latest.

    It is as new: without notebooks and kernels. What a test leaves running is ended after it, and
    makes it fail if it outlives its kernel.
    """
    named = "kernel_version" in request.fixturenames
    yield from _as_new(
        labs(request.getfixturevalue("kernel_version") if named else LATEST), request
    )


@pytest.fixture
def own_lab(labs: Callable[[str], Lab], request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The same as `lab`, as `make lab` has it: its kernels can run the notebooks."""
    yield from _as_new(labs(OWN), request)


def _as_new(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield lab
    left = lab.reset()
    if request.node.stash.get(FAILED, False):
        keep(request.node, "lab.log").write_text(lab.log())
    assert not left, f"{len(left)} processes outlived their kernel: {left}"


@pytest.fixture
def start_lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Lab]]:
    """Start Labs of one's own: `start_lab("6.31", AMLTK_NB_STATIC="1")`."""
    own: list[Lab] = []

    def start(version: str = LATEST, **env: str) -> Lab:
        python = ENVIRONMENTS[f"ipykernel-{version}"].ready()
        own.append(Lab(tmp_path / f"lab-{len(own)}", python, env=env))
        return own[-1]

    yield start
    left = [line for lab in own for line in lab.close()]
    if request.node.stash.get(FAILED, False):
        for n, lab in enumerate(own):
            keep(request.node, f"own-lab-{n}.log").write_text(lab.log())
    assert not left, f"{len(left)} processes outlived their Lab: {left}"


@pytest.fixture
def new_page(
    browser: BrowserContext, request: pytest.FixtureRequest
) -> Iterator[Callable[..., LabPage]]:
    """Open more tabs: `new_page(lab)`, `new_page(lab, width=400)`.

    A test fails if the console of one shows an error, or if it asks anything of another machine.
    """
    pages: list[LabPage] = []

    def new(lab: Lab, *, width: int = 1280, height: int = 1000) -> LabPage:
        tab = browser.new_page()
        tab.set_viewport_size({"width": width, "height": height})
        pages.append(LabPage(lab, tab))
        return pages[-1]

    yield new
    for n, tab in enumerate(pages):
        if request.node.stash.get(FAILED, False):
            tab.page.screenshot(path=keep(request.node, f"page-{n}.png"))
        tab.page.close()
    complaints = [complaint for tab in pages for complaint in tab.complaints]
    assert complaints == []


@pytest.fixture
def gates(lab: Lab) -> Iterator[Gates]:
    """Make gates that cells of `lab` know by their names: `first, second = gates("a", "b")`."""
    yield from _gates(lab)


@pytest.fixture
def own_gates(own_lab: Lab) -> Iterator[Gates]:
    """The same for cells of `own_lab`."""
    yield from _gates(own_lab)


def _gates(lab: Lab) -> Iterator[Gates]:
    made: list[Gate] = []

    def make(*names: str) -> list[Gate]:
        new = [Gate(lab.root / name) for name in names]
        made.extend(new)
        return new

    yield make
    for gate in made:
        gate.close()


@pytest.fixture
def page(lab: Lab, new_page: Callable[..., LabPage]) -> LabPage:
    """An empty tab at `lab`; `page.open(notebook)` fills it."""
    return new_page(lab)


def keep(node: pytest.Item, name: str) -> Path:
    """Name a file in the folder of what failed tests leave."""
    folder = RESULTS / node.name.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name
