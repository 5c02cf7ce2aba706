"""`make lab` without a display: it prints an address, and the quickstart opens there."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import BrowserContext

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/lab\S*token=\w+")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """What `make lab` prints; the server runs until the test is over."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "CI", "MAKEFLAGS", "MAKELEVEL")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    env |= {name: str(tmp_path / name) for name in names}
    # Without a network, what JupyterLab asks the package index keeps it from ending.
    offline = (
        "--LabApp.news_url= --LabApp.extension_manager=readonly "
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
    )
    args = f"ARGS=--ServerApp.port_retries=50 {offline}"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(["make", "lab", args], cwd=ROOT, env=env, **options) as make:
        lines: list[str] = []
        found = threading.Event()

        def read() -> None:
            for line in make.stdout:
                lines.append(line)
                if ADDRESS.search(line):
                    found.set()

        reader = threading.Thread(target=read)
        reader.start()
        seen = found.wait(90)
        try:
            assert seen, "".join(lines)
            yield ADDRESS.search("".join(lines)).group()
        finally:
            # JupyterLab alone: a kernel that dies under it would be started again.
            children = psutil.Process(make.pid).children(recursive=True)
            for process in psutil.Process(make.pid).children():
                process.terminate()
            # How long JupyterLab takes to leave is its own affair.
            for process in psutil.wait_procs(children, timeout=20)[1]:
                process.kill()
            reader.join(30)
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_the_quickstart_is_what_opens(address: str, browser: BrowserContext) -> None:
    page = browser.new_page()
    page.goto(address)
    tab = page.locator(".jp-NotebookPanel .jp-Cell").first
    tab.wait_for(timeout=60_000)
    assert page.url.split("?")[0].endswith("/lab/tree/notebooks/01_quickstart.ipynb")
    page.close()
