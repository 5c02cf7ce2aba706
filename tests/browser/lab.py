"""JupyterLab in its own process and folder, and the page in which a person would use it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import nbformat
import psutil
from playwright.sync_api import ConsoleMessage, Locator, Page
from playwright.sync_api import TimeoutError as PageTimeoutError

__all__ = ["Lab", "LabPage"]

MARK = "AMLTK_NB_TEST_LAB"  # inherited by kernels and their workers, so that none is overlooked

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


class Lab:
    """A JupyterLab server on a free port of this machine, with one kernel to offer.

    Everything it reads and writes is under one folder: notebooks in `root`, its configuration,
    kernels and runtime files beside it.
    """

    def __init__(self, home: Path, kernel_python: Path, *, env: dict[str, str] | None = None):
        """Start the server and wait until it says that it is up.

        Args:
            home: an empty folder.
            kernel_python: the interpreter of the environment whose ipykernel runs the notebooks.
            env: variables added to the server's environment, and so to the kernel's.
        """
        self.home, self.root = home, home / "root"
        self.log_path = home / "lab.log"
        self.token, self.mark = uuid.uuid4().hex, uuid.uuid4().hex
        self.port = _free_port()
        self.root.mkdir(parents=True)
        self._write_settings()
        self._write_kernelspec(kernel_python)
        self._up = threading.Event()
        self.process = subprocess.Popen(
            self._command(),
            cwd=self.home,
            env=self._environment() | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, name="lab-log")
        self._reader.start()
        if not self._up.wait(60) or self.process.poll() is not None:
            self.close()
            raise RuntimeError(f"JupyterLab did not start; its log:\n{self.log()}")

    # --- its files

    def add(self, name: str, *cells: str) -> str:
        """Write a notebook of code cells into the root folder, and return its name."""
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, self.root / name)
        return name

    def copy(self, notebook: Path) -> str:
        """Copy a notebook into the root folder, and return its name."""
        (self.root / notebook.name).write_bytes(notebook.read_bytes())
        return notebook.name

    def read(self, name: str) -> nbformat.NotebookNode:
        """Read a notebook as it is saved now."""
        return nbformat.read(self.root / name, as_version=4)

    def log(self) -> str:
        """Everything that the server and its kernels have printed so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    # --- its processes

    def url(self, notebook: str) -> str:
        """The address of a notebook, alone on the page."""
        # A workspace of its own: otherwise Lab restores the tabs of the last one it knows.
        workspace = f"test-{uuid.uuid4().hex[:8]}"
        path = f"lab/workspaces/{workspace}/tree/{quote(notebook)}"
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"

    def processes(self) -> list[psutil.Process]:
        """Kernels and all that descends from them, orphans too; not the server itself."""
        return [p for p in psutil.process_iter() if self._owns(p)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.pid == self.process.pid or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(MARK) == self.mark
        except psutil.Error:
            return False

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

    def close(self) -> list[str]:
        """Stop the server and its kernels; return what outlived them, which is then ended."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
        described = self._end_survivors()
        self._reader.join(10)
        return described

    def _end_survivors(self) -> list[str]:
        _, left = psutil.wait_procs(self.processes(), timeout=5)
        left = [process for process in left if self._owns(process)]
        described = [f"{p.pid}: {' '.join(p.cmdline())[:200]}" for p in left]
        for process in left:
            process.kill()
        return described

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
            "LabApp.extension_manager": "readonly",
            "LabApp.expose_app_in_browser": True,
            "LabApp.news_url": "",
            "KernelSpecManager.ensure_native_kernel": False,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        return [sys.executable, "-m", "jupyterlab", *flags]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AMLTK")}
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_PATH": "data",  # before the environment's own kernels
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        kept |= {name: str(self.home / folder) for name, folder in folders.items()}
        return kept | {MARK: self.mark, "PYTHONUNBUFFERED": "1"}

    def _write_settings(self) -> None:
        for name, values in SETTINGS.items():
            self._write_json(f"settings/@jupyterlab/{name}.jupyterlab-settings", values)

    def _write_kernelspec(self, python: Path) -> None:
        argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        self._write_json("data/kernels/python3/kernel.json", spec)

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def _read_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines, self.log_path.open("w") as log:
            for line in lines:
                log.write(line)
                log.flush()
                if "is running at" in line:
                    self._up.set()
        self._up.set()  # it ended: do not let anyone wait


class LabPage:
    """A notebook open in JupyterLab, with the verbs of a person at it.

    `page` is Playwright's own page, for everything that has no verb here.
    """

    def __init__(self, lab: Lab, page: Page):
        """Wrap a page that is still empty; `open` loads a notebook into it."""
        self.lab, self.page = lab, page
        self.complaints: list[str] = []  # errors in its console, and requests to anywhere else
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._note_address(request.url))
        page.on("websocket", lambda socket: self._note_address(socket.url))

    def open(self, notebook: str) -> LabPage:
        """Open a notebook and wait until its kernel is idle."""
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
        self._wait_idle()

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

    @property
    def name(self) -> str:
        """The file name of the open notebook."""
        return self.page.url.split("/tree/")[1].split("?")[0]

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _note_address(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.complaints.append(f"request to {url}")

    def _wait_ready(self, timeout_s: float = 60) -> None:
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=timeout_s * 1000)
        self._wait_idle(timeout_s)

    def _wait_idle(self, timeout_s: float = 60) -> None:
        # Lab shows a kernel as idle before its session can run anything, and drops what comes
        # too early without a word; so its own idea of readiness is asked.
        condition = f"""() => {{
            const session = {SESSION};
            const kernel = session?.session?.kernel;
            return session?.isReady && kernel?.connectionStatus === "connected"
                && kernel.status === "idle";
        }}"""
        self.page.wait_for_function(condition, timeout=timeout_s * 1000)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
