"""A host's server in its own process and folder, and a tab that notes what goes wrong in it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import psutil
from playwright.sync_api import ConsoleMessage, Locator, Page

__all__ = ["MARK", "Server", "Tab", "write_notebook"]

MARK = "AMLTK_NB_TEST_LAB"  # inherited by kernels and their workers, so that none is overlooked


class Server:
    """A server on a free port of this machine.

    Everything it reads and writes is under one folder: notebooks in `root`, its configuration,
    kernels and runtime files beside it.
    """

    # Its log says so when it answers.
    up = re.compile(r"is running at")

    def __init__(
        self, home: Path, kernel_python: Path, *, env: dict[str, str] | None = None
    ) -> None:
        """Start the server and wait until it says that it is up.

        Args:
            home: an empty folder, or one whose `root` holds what is to be served.
            kernel_python: the interpreter of the environment whose ipykernel runs the notebooks.
            env: variables added to the server's environment, and so to the kernel's.
        """
        self.home, self.root = home, home / "root"
        self.kernel_python = kernel_python
        self.log_path = home / "server.log"
        self.token, self.mark = uuid.uuid4().hex, uuid.uuid4().hex
        self.port = _free_port()
        self.root.mkdir(parents=True, exist_ok=True)
        self._write_settings()
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
        self._reader = threading.Thread(target=self._read_log, name="server-log")
        self._reader.start()
        if not self._up.wait(60) or self.process.poll() is not None:
            self.close()
            raise RuntimeError(f"{type(self).__name__} did not start; its log:\n{self.log()}")

    def _command(self) -> list[str]:
        """Say how it is started."""
        raise NotImplementedError

    def _write_settings(self) -> None:
        """Write what it reads when it starts."""
        argv = [str(self.kernel_python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        self._write_json("data/kernels/python3/kernel.json", spec)

    # --- its files

    def add(self, name: str, *cells: str) -> str:
        """Write a notebook of code cells into the root folder, and return its name."""
        write_notebook(self.root / name, *cells)
        return name

    def log(self) -> str:
        """Everything that the server and its kernels have printed so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    # --- its processes

    def url(self, notebook: str) -> str:
        """The address of a notebook, alone on the page."""
        raise NotImplementedError

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

    # --- setting it up

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
                if self.up.search(line):
                    self._up.set()
        self._up.set()  # it ended: do not let anyone wait


class Tab:
    """A tab at some server; errors in it and requests to elsewhere are noted.

    `page` is Playwright's own page, for everything that has no verb here.
    """

    tolerated: tuple[str, ...] = ()  # what its host does wrong by itself

    def __init__(self, page: Page) -> None:
        """Wrap a page that is still empty."""
        self.page = page
        self.complaints: list[str] = []  # errors in its console, and requests to anywhere else
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._note_address(request.url))
        page.on("websocket", lambda socket: self._note_address(socket.url))

    def output(self, n: int) -> Locator:
        """What stands under the n-th cell."""
        raise NotImplementedError

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _note_address(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.complaints.append(f"request to {url}")


def write_notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
