"""Where the browser is; `python -m tests.browser.chromium` installs one if there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, expect, sync_playwright

from tests.required import is_root_on_debian, unavailable

__all__ = ["FLAGS", "find_chromium", "opened"]

VARIABLE = "AMLTK_NB_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# No sandbox: Chromium refuses to start as root with one. The rest keeps it off the network.
FLAGS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def find_chromium() -> str | None:
    """Return the path of a Chromium: the named one, one on PATH, or Playwright's own."""
    named = os.environ.get(VARIABLE)
    if named:
        return named
    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    return on_path or _playwrights_own()


@contextmanager
def opened(profile: Path) -> Iterator[BrowserContext]:
    """Open a headless Chromium with one profile on disk: there Lab's code is kept compiled.

    A profile in memory compiles it again for every page, which is a third of all the work.
    """
    chromium = find_chromium()
    if chromium is None:
        unavailable(f"no Chromium: `make chromium` installs one, {VARIABLE} names another")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium, args=FLAGS
        )
        context.set_default_timeout(30_000)
        expect.set_options(timeout=20_000)  # on a busy machine a worker takes seconds to come up
        yield context
        context.close()


def _playwrights_own() -> str | None:
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def _install() -> None:
    if is_root_on_debian():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        wanted = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
        wanted += ["chromium", "fonts-liberation"]  # without any font, text has no size
        subprocess.run(wanted, check=True, env=environment)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


def main() -> int:
    """Install a Chromium unless there is one, and say where it is."""
    if find_chromium() is None:
        print("Installing Chromium for the browser tests …", flush=True)
        _install()
    found = find_chromium()
    print(f"Chromium: {found or f'none; name one in {VARIABLE}'}", flush=True)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
