"""The harness itself, on a plain ipywidgets button."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.lab import Lab, LabPage

BUTTON = """
import ipywidgets, ipykernel
button = ipywidgets.Button(description="Press")
label = ipywidgets.Label("not yet")
def pressed(_):
    label.value = "pressed on " + ipykernel.__version__
button.on_click(pressed)
ipywidgets.VBox([button, label])
"""


@pytest.mark.kernels("6.31", "7.4")
def test_a_button_is_clicked(lab: Lab, page: LabPage, kernel_version: str) -> None:
    page.open(lab.add("button.ipynb", BUTTON, "label.value"))
    page.run_cell(0)
    page.output(0).get_by_role("button", name="Press").click()
    page.wait_text(0, f"pressed on {kernel_version}.")
    page.run_cell(1)
    page.wait_text(1, f"pressed on {kernel_version}.")


def test_a_notebook_is_used_as_by_a_person(lab: Lab, page: LabPage, tmp_path: Path) -> None:
    page.open(lab.add("all.ipynb", "n = 1\nprint('one')", "n += 1; print('now', n)", "n"))
    page.run_all()
    page.wait_ended(2)
    assert page.save().cells[1].outputs[0].text == "now 2\n"
    page.reload()
    page.wait_text(2, "2")
    page.restart_kernel()
    page.run_cell(2)
    page.wait_text(2, "NameError")
    page.set_theme(dark=True)
    dark = page.screenshot(tmp_path / "dark.png").read_bytes()
    page.set_theme(dark=False)
    assert page.screenshot(tmp_path / "light.png").read_bytes() != dark


def test_a_cell_is_interrupted(lab: Lab, page: LabPage) -> None:
    page.open(lab.add("long.ipynb", "import time; print('on', flush=True)\ntime.sleep(60)"))
    page.run_cell(0, wait=False)
    page.wait_text(0, "on")
    page.interrupt_kernel()
    page.wait_text(0, "KeyboardInterrupt")


def test_errors_and_requests_to_elsewhere_are_noted(lab: Lab, page: LabPage) -> None:
    page.open(lab.add("empty.ipynb", "1"))
    page.page.route("http://elsewhere.invalid/**", lambda route: route.fulfill(status=204))
    page.page.evaluate("fetch('http://elsewhere.invalid/a', { mode: 'no-cors' })")
    page.page.evaluate("console.error('said')")
    with page.page.expect_event("pageerror"):
        page.page.evaluate("setTimeout(() => { throw new Error('thrown'); })")
    assert page.complaints == [
        "request to http://elsewhere.invalid/a",
        "console: said",
        "uncaught: thrown",
    ]
    page.complaints.clear()
