"""Forms, by mouse and by keyboard: a task's own, and Resubmit with changes in an open row."""

from __future__ import annotations

import re
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, expect

from tests.browser.board import Board
from tests.browser.lab import LabPage

TRAIN = """
from typing import Literal
from amltk_nb import Scheduler

class Model:
    def __repr__(self):
        return "Model(<b>3</b>)"

def train(
    n: int, kind: Literal["rbf", "linear"] = "rbf", scale: float = 1.0, *more, deep=False, **options
):
    "Train a model on n points."
    if n < 0:
        raise ValueError("no points")
    return n, kind, scale, more, deep, sorted(options)

scheduler = Scheduler.with_threads(1, name="school")
task = scheduler.task(train)
"""

MODEL = "model = Model(); first = task.submit(1, 'linear', model=model, depth=2)"

# What Python says of each call: its arguments, and what it was made from.
TOLD = """
for row in scheduler.records():
    call = scheduler.find_call(row["id"])
    kwargs = {k: "the model" if v is globals().get("model") else v for k, v in call.kwargs.items()}
    print(call.id, row["state"], call.args, kwargs, call.resubmitted_from, call.task is task)
"""


def test_forms_by_mouse_and_keyboard(page: LabPage) -> None:
    cells = (TRAIN, "task.form(scale=(0.0, 2.0, 0.5))", "scheduler.dashboard()", MODEL, TOLD)
    page.open(page.lab.add("forms.ipynb", *cells))
    page.run_cell(0), page.run_cell(1), page.run_cell(2)
    form = page.output(1).locator(".amltk-nb")
    fill_by_keyboard(page, form)
    # The same once more, by mouse: all that was entered is still there.
    form.get_by_label("n", exact=True).fill("5")
    form.get_by_role("button", name="Submit").click()
    rows = form.locator(".amltk-made tbody tr")
    result = "(5, 'linear', 1.5, (0.5, (1, None)), True, ['depth'])"
    expect(rows.first).to_have_text(re.compile(rf"^2.*✓done{re.escape(result)}$"))
    expect(rows.nth(1)).to_have_text(re.compile(r"^1.*✕failedValueError: no points$"))

    page.run_cell(3)
    board = Board.over(page, cell=2)
    change_by_keyboard(board)
    change_by_mouse(board)
    page.run_cell(4)
    given = "'linear', 1.5, 0.5, (1, None)) {'deep': True, 'depth': 3} None True"
    page.wait_text(
        4,
        f"1 failed (-5, {given}\n"
        f"2 done (5, {given}\n"
        "3 done (1, 'linear') {'model': 'the model', 'depth': 2} None True\n"
        "4 done (7, 'linear') {'model': 'the model', 'depth': 2} 3 True\n"
        "5 done (1, 'linear') {'deep': True, 'model': [3], 'depth': 2} 3 True",
    )


def fill_by_keyboard(page: LabPage, form: Locator) -> None:
    """Start the scheduler from the form, be refused, and submit a call that will fail."""
    keyboard = page.page.keyboard
    points, submit = form.get_by_label("n", exact=True), form.get_by_role("button", name="Submit")
    expect(submit).to_have_accessible_description("Start it first: nothing is running.")
    points.fill("many")
    form.get_by_role("button", name="Start the scheduler").press("Enter")
    expect(form.locator(".amltk-form-idle")).to_have_count(0)
    submit.press("Space")
    expect(points).to_be_focused()
    expect(points).to_have_accessible_description(
        "int required n needs a whole number, like 3; this is 'many'."
    )
    assert grave(page, ".amltk-form") == []
    keyboard.press("Control+a")
    keyboard.type("-5")
    keyboard.press("Tab")
    keyboard.press("ArrowDown")  # the choice
    keyboard.press("Tab")
    keyboard.press("ArrowRight")  # the slider
    expect(form.locator("output")).to_have_text("1.5")
    keyboard.press("Tab")
    keyboard.type("[0.5, (1, None)]")
    keyboard.press("Tab")
    keyboard.press("Space")  # the checkbox
    keyboard.press("Tab")
    keyboard.type("{'depth': 3}")
    keyboard.press("Enter")
    expect(form.locator(".amltk-form [role='status']")).to_have_text("Submitted as call 1.")


def change_by_keyboard(board: Board) -> None:
    """Have call 3 made again with another n; all else stays what it is."""
    board.wait_row(3, "done")
    keyboard = board.tab.keyboard
    board.button("Call 3, details").press("Enter")
    change = board.button("Resubmit with changes, call 3")
    change.press("Enter")
    points = board.root.get_by_label("n", exact=True)
    expect(points).to_be_focused()
    keyboard.press("Escape")
    expect(change).to_be_focused()
    keyboard.press("Enter")
    expect(points).to_be_focused()
    assert grave(board.page, ".amltk-edit") == []
    keyboard.press("Control+a")
    keyboard.type("7")
    keyboard.press("Enter")
    expect(board.button("Call 4, details")).to_be_focused()
    expect(board.row(4)).to_have_attribute("data-open", "true")
    board.wait_row(4, "done")


def change_by_mouse(board: Board) -> None:
    """Have call 3 made again with something in place of the model."""
    board.button("call 3").click()  # the one that the open row was resubmitted from
    board.button("Resubmit with changes, call 3").click()
    edit = board.root.locator(".amltk-edit")
    expect(edit.locator(".amltk-kept")).to_have_text("Model(<b>3</b>)")
    edit.get_by_role("button", name="Replace model").click()
    edit.get_by_label("model", exact=True).fill("[3")
    edit.get_by_label("deep", exact=True).check()
    edit.get_by_role("button", name="Submit").click()
    expect(edit.get_by_label("model", exact=True)).to_be_focused()
    board.tab.keyboard.type("]")
    edit.get_by_role("button", name="Submit").click()
    board.wait_row(5, "done")
    expect(board.row(5)).to_have_attribute("data-open", "true")


def grave(page: LabPage, within: str) -> list[str]:
    """What axe calls serious or critical."""
    found: dict[str, Any] = Axe().run(page.page, context=within).response
    assert len(found["passes"]) > 5, "it has looked at something"
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
