"""The colours of the static HTML on the pages of each host: style sheets alone, no script."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page

from amltk_nb.views import html
from amltk_nb.views.style import DARK, LIGHT
from tests.views.snapshots import ALL

# Each flag of each host, in its two states, on the element that carries it.
FLAGS = {
    "JupyterLab, Notebook, Voila": ("body", "data-jp-theme-light", "false", "true"),
    "VS Code": ("body", "class", "vscode-dark", "vscode-light"),
    "VS Code, high contrast": (
        "body",
        "class",
        "vscode-high-contrast",
        "vscode-high-contrast vscode-high-contrast-light",
    ),
    "VS Code, high contrast, one class": (
        "body",
        "class",
        "vscode-high-contrast",
        "vscode-high-contrast-light",
    ),
    "Colab": ("html", "theme", "dark", "light"),
    "pydata": ("html", "data-theme", "dark", "light"),
    "marimo": ("body", "data-theme", "dark", "light"),
    "Material": ("body", "data-md-color-scheme", "slate", "default"),
}
CLEAR = "transparent"  # the host's own colour stands behind it
NOTEBOOKS = [name for name in FLAGS if name.startswith(("Jupyter", "VS Code"))]

READ = """() => {
    const el = document.querySelector(".amltk-nb-static");
    const failed = el.querySelector(".amltk-nb-failed");
    const style = getComputedStyle(el);
    return [style.color, style.backgroundColor, style.colorScheme, getComputedStyle(failed).color];
}"""


@pytest.fixture(scope="module")
def page(browser: BrowserContext) -> Iterator[Page]:
    """One page with one outcome on it, without any script."""
    page = browser.new_page()
    page.set_content(f"<!doctype html><html><body>{html.render(ALL['running'])}</body></html>")
    yield page
    page.close()


def flag(page: Page, element: str, name: str, value: str | None) -> None:
    page.evaluate(
        """([element, name, value]) => {
            const el = document.querySelector(element);
            value === null ? el.removeAttribute(name) : el.setAttribute(name, value);
        }""",
        [element, name, value],
    )


def colours(page: Page) -> list[str]:
    """The text's, the background's, the scheme, and that of failed calls, as in the tables."""
    return [as_hex(found) for found in page.evaluate(READ)]


def as_hex(colour: str) -> str:
    if colour == "rgba(0, 0, 0, 0)":
        return CLEAR
    parts = re.findall(r"\d+", colour) if colour.startswith("rgb") else []
    return "#" + "".join(f"{int(part):02x}" for part in parts) if parts else colour


def expected(dark: bool, *, clear: bool) -> list[str]:
    palette, scheme = (DARK, "dark") if dark else (LIGHT, "light")
    return [palette["fg"], CLEAR if clear else palette["bg"], scheme, palette["failed"]]


@pytest.mark.parametrize("host", FLAGS)
def test_the_hosts_flag_decides_against_the_readers_system(page: Page, host: str) -> None:
    element, name, dark, light = FLAGS[host]
    clear = host in NOTEBOOKS
    page.emulate_media(color_scheme="light")
    flag(page, element, name, dark)
    in_dark = colours(page)
    page.emulate_media(color_scheme="dark")
    flag(page, element, name, light)
    in_light = colours(page)
    flag(page, element, name, None)
    assert in_dark == expected(True, clear=clear)
    assert in_light == expected(False, clear=clear)


def test_without_a_flag_the_readers_system_decides(page: Page) -> None:
    for dark in (True, False):
        page.emulate_media(color_scheme="dark" if dark else "light")
        assert colours(page) == expected(dark, clear=False)
        flag(page, "body", "data-theme", "auto")
        assert colours(page) == expected(dark, clear=False)
        flag(page, "body", "data-theme", None)


def test_the_hosts_own_colour_of_text_is_taken(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    flag(page, "body", "class", "vscode-dark")
    flag(page, "body", "style", "--vscode-foreground: #c5c5c5")
    own = colours(page)
    flag(page, "body", "style", None)
    flag(page, "body", "class", None)
    assert own == ["#c5c5c5", *expected(True, clear=True)[1:]]
