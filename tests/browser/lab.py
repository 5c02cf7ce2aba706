"""JupyterLab in its own process and folder, and the page in which a person would use it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
from playwright.sync_api import Locator, Page
from playwright.sync_api import TimeoutError as PageTimeoutError

from tests.browser.server import Server, Tab

__all__ = ["Lab", "LabPage"]

# Nothing of Lab's own may call out, pop up over the page or change what a screenshot shows.
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {
        "checkForUpdates": False,
        "doNotDisturbMode": True,
        "fetchNews": "false",
    },
    "extensionmanager-extension/plugin": {"enabled": False, "disclaimed": False},
    "docmanager-extension/plugin": {"autosave": False},
    "completer-extension/manager": {"autoCompletion": False},
}

THEMES = "apputils-extension/themes.jupyterlab-settings"
SESSION = "window.jupyterapp?.shell.currentWidget?.sessionContext"  # of the notebook in front


class Lab(Server):
    """A JupyterLab server, with one kernel to offer."""

    app, configured_as = "jupyterlab", "LabApp"  # the module that is run, its name in flags
    python = Path(sys.executable)  # what runs it
    settings = SETTINGS

    # --- its files

    def copy(self, notebook: Path) -> str:
        """Copy a notebook into the root folder, and return its name."""
        (self.root / notebook.name).write_bytes(notebook.read_bytes())
        return notebook.name

    def read(self, name: str) -> nbformat.NotebookNode:
        """Read a notebook as it is saved now."""
        return nbformat.read(self.root / name, as_version=4)

    # --- its processes

    def url(self, notebook: str) -> str:
        """The address of a notebook, alone on the page."""
        # A workspace of its own: otherwise Lab restores the tabs of the last one it knows.
        workspace = f"test-{uuid.uuid4().hex[:8]}"
        path = f"lab/workspaces/{workspace}/tree/{quote(notebook)}"
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"

    def end_kernels(self) -> None:
        """Shut every kernel down, as the server itself does."""
        for kernel in self._rest("GET", "kernels"):
            self._rest("DELETE", f"kernels/{kernel['id']}")

    def reset(self) -> list[str]:
        """Make it as new for the next test: no kernel, no notebook, the light theme.

        Returns:
            What outlived its kernel; it is ended.
        """
        self.end_kernels()
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.home / f"settings/@jupyterlab/{THEMES}").unlink(missing_ok=True)
        return self._end_survivors()

    def _rest(self, method: str, path: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/{path}?token={self.token}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30) as got:
            body = got.read()
        return json.loads(body) if body else None

    # --- setting it up

    def _command(self) -> list[str]:
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            "ServerApp.root_dir": self.root,
            "ServerApp.terminals_enabled": False,
            "IdentityProvider.token": self.token,
            f"{self.configured_as}.extension_manager": "readonly",
            f"{self.configured_as}.expose_app_in_browser": True,
            f"{self.configured_as}.news_url": "",
            "KernelSpecManager.ensure_native_kernel": False,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [str(self.python), "-m", self.app, *flags]

    def _write_settings(self) -> None:
        super()._write_settings()
        for name, values in self.settings.items():
            self._write_json(f"settings/@jupyterlab/{name}.jupyterlab-settings", values)


class LabPage(Tab):
    """A notebook open in JupyterLab, with the verbs of a person at it."""

    def __init__(self, lab: Lab, page: Page) -> None:
        """Wrap a page that is still empty; `open` loads a notebook into it."""
        super().__init__(page)
        self.lab = lab
        self.name = ""  # the file that is open

    def open(self, notebook: str) -> LabPage:
        """Open a notebook and wait until its kernel is idle."""
        self.name = notebook
        self.page.goto(self.lab.url(notebook))
        try:
            self._wait_ready(20)
        except PageTimeoutError:
            # A kernel takes ports that were free when the server chose them. If somebody was
            # quicker it hangs, and the server waits for it.
            if "Address already in use" in self.lab.log():
                self.lab.end_kernels()
                self.page.goto(self.lab.url(notebook))
                self.complaints.clear()
            self._wait_ready(60)
        return self

    def reload(self) -> LabPage:
        """Save and reload the page: an unsaved notebook would come back as it was on disk."""
        self.save()
        self.page.reload()
        self._wait_ready()
        return self

    def close_notebook(self) -> None:
        """Save the notebook and close its tab; its kernel lives on."""
        self._closed = self.name
        self.save()
        self.command("application:close")

    def open_again(self) -> None:
        """Open the notebook that was closed, in the same page."""
        self.command("docmanager:open", {"path": self._closed})
        self._wait_ready()

    def cell(self, n: int) -> Locator:
        """The n-th cell, counted from 0, its code and its outputs."""
        return self.page.locator(f'.jp-Cell[data-windowed-list-index="{n}"]').first

    def output(self, n: int) -> Locator:
        """What stands under the n-th cell."""
        return self.cell(n).locator(".jp-OutputArea")

    def run_cell(self, n: int, *, wait: bool = True) -> Locator:
        """Run one cell.

        Args:
            n: counted from 0.
            wait: until it has ended; False returns at once, for a cell that is to be clicked into.

        Returns:
            The cell.
        """
        cell = self.cell(n)
        cell.locator(".jp-InputArea-editor").click()
        self.command("notebook:run-cell", wait=False)
        if wait:
            self.wait_ended(n)
        return cell

    def run_all(self) -> None:
        """Run all cells from the top; returns at once, `wait_ended` waits for one of them."""
        self.command("notebook:run-all-cells", wait=False)

    def wait_ended(self, n: int, *, timeout_s: float = 60) -> None:
        """Wait until a cell shows its execution number, so it has ended."""
        prompt = self.cell(n).locator(".jp-InputPrompt")
        expected = re.compile(r"^\s*\[\d+\]:\s*$")
        prompt.filter(has_text=expected).wait_for(timeout=timeout_s * 1000)

    def wait_text(self, n: int, text: str | re.Pattern[str], *, timeout_s: float = 30) -> Locator:
        """Wait until a text stands under a cell, and return the cell's output area."""
        found = self.output(n).filter(has_text=text)
        found.first.wait_for(timeout=timeout_s * 1000)
        return found.first

    def save(self) -> nbformat.NotebookNode:
        """Save the notebook and return it as it is on disk."""
        self.command("docmanager:save")
        return self.lab.read(self.name)

    def restart_kernel(self) -> None:
        """Restart the kernel without being asked whether that is meant."""
        self.page.evaluate(f"async () => {{ await {SESSION}.restartKernel(); }}")
        self.wait_idle()

    def interrupt_kernel(self) -> None:
        """Press ■."""
        self.command("notebook:interrupt-kernel", wait=False)

    def set_theme(self, *, dark: bool) -> None:
        """Switch Lab and the browser's own preference to dark or light."""
        self.page.emulate_media(color_scheme="dark" if dark else "light")
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.command("apputils:change-theme", {"theme": theme})
        light = "false" if dark else "true"
        self.page.locator(f'body[data-jp-theme-light="{light}"]').wait_for(state="attached")

    def screenshot(self, path: Path, of: Locator | None = None) -> Path:
        """Take a picture of the page, or of a part of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        (of or self.page).screenshot(path=path)
        return path

    def command(self, name: str, args: dict[str, Any] | None = None, *, wait: bool = True) -> None:
        """Execute one of Lab's commands, as its menus do.

        Args:
            name: "notebook:run-all-cells".
            args: the command's own arguments.
            wait: until its promise resolves; a cell's run resolves when the cell has ended.
        """
        call = "window.jupyterapp.commands.execute(name, args)"
        then = f"await {call}" if wait else f"{call}.catch(() => null)"
        self.page.evaluate(f"async ([name, args]) => {{ {then}; }}", [name, args or {}])

    def _wait_ready(self, timeout_s: float = 60) -> None:
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=timeout_s * 1000)
        self.wait_idle(timeout_s)

    def wait_idle(self, timeout_s: float = 60) -> None:
        """Wait until the kernel can run a cell."""
        # Lab shows a kernel as idle before its session can run anything, and drops what comes
        # too early without a word; so its own idea of readiness is asked.
        condition = f"""() => {{
            const session = {SESSION};
            const kernel = session?.session?.kernel;
            return session?.isReady && kernel?.connectionStatus === "connected"
                && kernel.status === "idle";
        }}"""
        self.page.wait_for_function(condition, timeout=timeout_s * 1000)
