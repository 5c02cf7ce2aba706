"""The servers of other hosts than JupyterLab, and the pages at which they show a notebook."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from urllib.parse import quote

from playwright.sync_api import Locator

from tests.browser.lab import SETTINGS, Lab, LabPage
from tests.browser.server import Server, Tab
from tests.environments import ENVIRONMENTS

__all__ = ["Marimo", "MarimoPage", "Notebook", "NotebookPage", "Voila", "VoilaPage"]

PYTHON = ENVIRONMENTS["hosts"].python

# What its own template asks for.
FONTS = "https://cdn.jsdelivr.net/npm/@fortawesome/fontawesome-free@%5E5/css/"
# An extension for JupyterLab that pages of Voila cannot load, whatever they show.
NOT_FOR_VOILA = "@jupyter-notebook/lab-extension"


class Notebook(Lab):
    """A server of Jupyter Notebook 7; its pages are driven as Lab's are."""

    app, configured_as = "notebook", "JupyterNotebookApp"
    python = PYTHON
    # Settings of what it has not are an error on its page.
    settings = {name: SETTINGS[name] for name in SETTINGS if "extensionmanager" not in name}

    def url(self, notebook: str) -> str:
        """The address of a notebook."""
        return f"http://127.0.0.1:{self.port}/notebooks/{quote(notebook)}?token={self.token}"

    def disable_extensions(self, *names: str) -> None:
        """Have pages that are opened from now on do without some extensions."""
        self._write_page_config(disabledExtensions=dict.fromkeys(names, True))

    def _write_settings(self) -> None:
        super()._write_settings()
        self._write_page_config()

    def _write_page_config(self, **options: object) -> None:
        options["exposeAppInBrowser"] = True  # its own flag for that is overruled by itself
        self._write_json("config/labconfig/page_config.json", options)


class NotebookPage(LabPage):
    """A notebook in Jupyter Notebook 7."""

    # A race between plugins of its own, in 7.6.5, now and then.
    tolerated = ("uncaught: Cannot read properties of undefined (reading 'schema')",)


class Voila(Server):
    """A server that shows notebooks as pages: it runs all cells, and hides their code."""

    up = re.compile(r"Voilà is running at")

    def _command(self) -> list[str]:
        options = {
            "Voila.ip": "127.0.0.1",
            "port": self.port,
            "Voila.port_retries": 0,
            "Voila.open_browser": False,
            "KernelSpecManager.ensure_native_kernel": False,
            "token": self.token,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        without = ["--VoilaConfiguration.extension_denylist", NOT_FOR_VOILA]
        return [str(PYTHON), "-m", "voila", *flags, *without, str(self.root)]

    def url(self, notebook: str) -> str:
        """The address of the page made of a notebook."""
        return f"http://127.0.0.1:{self.port}/voila/render/{quote(notebook)}?token={self.token}"


class VoilaPage(Tab):
    """A notebook as Voila shows it."""

    tolerated = tuple(f"request to {FONTS}{name}.min.css" for name in ("all", "v4-shims"))

    def open(self, address: str) -> VoilaPage:
        """Load the page; Voila answers when all cells have ended."""
        self.page.route(f"{FONTS}**", lambda route: route.fulfill(body="", content_type="text/css"))
        self.page.goto(address)
        return self

    def output(self, n: int) -> Locator:
        """What stands under the n-th cell."""
        return self.page.locator(".jp-Cell").nth(n).locator(".jp-OutputArea")


class Marimo(Server):
    """A server of one marimo notebook, as an app."""

    up = re.compile(r"URL: http")
    file = "board.py"

    def __init__(self, home: Path, kernel_python: Path, *, env: dict[str, str] | None = None):
        """Start the server and wait until it listens: it says so too early."""
        super().__init__(home, kernel_python, env=env)
        end = time.monotonic() + 30
        while not self._listens():
            assert time.monotonic() < end, self.log()
            with suppress(subprocess.TimeoutExpired):
                raise RuntimeError(f"marimo ended with {self.process.wait(0.05)}:\n{self.log()}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _command(self) -> list[str]:
        options = ["--headless", "--no-token", "--host=127.0.0.1", f"--port={self.port}"]
        return [str(PYTHON), "-m", "marimo", "run", *options, str(self.root / self.file)]

    @classmethod
    def write(cls, root: Path, *cells: str) -> None:
        """Write the notebook that a server is to show, before it starts."""
        functions = [f"@app.cell\ndef _():\n{indent(cell, '    ')}\n" for cell in cells]
        root.mkdir(exist_ok=True)
        text = "\n".join(["import marimo\n\napp = marimo.App()\n", *functions])
        (root / cls.file).write_text(text)

    def url(self, notebook: str = "") -> str:
        """The address of its page."""
        return f"http://127.0.0.1:{self.port}/"


class MarimoPage(Tab):
    """A marimo notebook, run as an app."""

    def open(self, address: str) -> MarimoPage:
        """Load the page, which runs all cells."""
        self.page.goto(address)
        return self

    def output(self, n: int) -> Locator:
        """What stands in the place of the n-th cell."""
        return self.page.locator(".marimo-cell").nth(n)
