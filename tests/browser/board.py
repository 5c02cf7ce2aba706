"""The dashboard as a person meets it, and the notebook that most of these tests put it in."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PageTimeoutError

from tests.browser.lab import LabPage
from tests.kernels.cells import PRELUDE, Gate

__all__ = ["SEARCH", "STATES", "WORK", "Board", "Gates", "wait_call"]

Gates = Callable[..., list[Gate]]

STATES = ("queued", "running", "done", "failed", "cancelled")

# A call prints, waits for its gate if it has one, and fails if what it is given is odd.
WORK = (
    PRELUDE
    + """
def work(name, gate=None):
    print("working on", name)
    if gate is not None:
        through(gate, name)
    if name.startswith("odd"):
        raise ValueError(f"cannot work on {name}")
    return {"name": name, "length": len(name)}
"""
)

SEARCH = """
scheduler = Scheduler.with_processes(2, name="search")
task = scheduler.task(work)
run = scheduler.start()
"""

# What Python says of the run and of every call, in the order of submission.
_LOOK = """
states = {row["id"]: row["state"] for row in scheduler.records()}
print(scheduler.state, *(f"{id}:{state}" for id, state in sorted(states.items())))
"""


class Board:
    """The dashboard under cell 1 of a notebook whose cell 2 says how Python sees the same."""

    cell = 1  # the one it stands under

    def __init__(self, page: LabPage, start: str, *more: str, work: str = WORK) -> None:
        """Open a notebook and run it up to the dashboard.

        Args:
            page: an empty tab.
            start: the cell that starts the run, see `SEARCH`.
            more: sources of the cells from the third on.
            work: the cell before.
        """
        self.page = page
        page.open(page.lab.add("board.ipynb", work, start, _LOOK, *more))
        page.run_cell(0)
        page.run_cell(1)
        self.wait_live()

    @classmethod
    def over(cls, page: LabPage, *, cell: int = 1) -> Board:
        """Take what a page shows already."""
        board = cls.__new__(cls)
        board.page, board.cell = page, cell
        board.wait_live()
        return board

    @property
    def tab(self) -> Page:
        """The browser's tab."""
        return self.page.page

    @property
    def area(self) -> Locator:
        """Where it is: the output of its cell."""
        return self.page.output(self.cell)

    @property
    def root(self) -> Locator:
        """The live dashboard."""
        return self.area.locator(".amltk-nb .amltk-all")

    def wait_live(self) -> None:
        """Wait until the dashboard shows something of the run."""
        self.root.locator(".amltk-title .amltk-state").wait_for()

    def python(self) -> str:
        """Run cell 2 and return what it says: "running 1:done 2:failed"."""
        return self.run(2)

    def run(self, n: int) -> str:
        """Run a cell, again or for the first time, and return the text under it."""
        self.page.cell(n).locator(".jp-InputArea-editor").click()
        self.page.command("notebook:run-cell")  # resolves when the cell has ended
        return self.page.output(n).inner_text().strip()

    # --- what it shows

    def wait_state(self, word: str) -> None:
        """Wait until the run is in a state."""
        shown = self.root.locator(".amltk-title .amltk-state")
        expect(shown).to_have_text(re.compile(rf"{word}$"))

    def wait_counts(self, **counts: int) -> None:
        """Wait until exactly so many calls are in these states, and none in the others."""
        for state in STATES:
            expect(self.chip(state).locator("b")).to_have_text(str(counts.get(state, 0)))

    def wait_row(self, call: int, state: str) -> Locator:
        """Wait until a call's row shows a state, and return the row."""
        row = self.row(call)
        expect(row.locator(".amltk-state")).to_have_text(re.compile(rf"{state}$"))
        return row

    def listen(self) -> None:
        """Note from now on what the status line says, as a screen reader does."""
        self.root.locator('[role="status"]').evaluate(
            """status => {
                window.heard = [status.textContent];
                const note = () => window.heard.push(status.textContent);
                const texts = {childList: true, subtree: true, characterData: true};
                new MutationObserver(note).observe(status, texts);
            }"""
        )

    def wait_heard(self, pattern: str) -> None:
        """Wait until the status line says something, or has said it since `listen`."""
        heard = "pattern => window.heard.some(text => new RegExp(pattern).test(text))"
        try:
            self.tab.wait_for_function(heard, arg=pattern)
        except PageTimeoutError:
            raise AssertionError(f"{pattern!r} is not in {self.tab.evaluate('heard')}") from None

    def row(self, call: int) -> Locator:
        """The row of a call."""
        return self.root.locator(f'tr.amltk-row[data-call="{call}"]')

    def shown_calls(self) -> list[int]:
        """The ids of the calls that the table shows, from the top."""
        rows = self.root.locator("tr.amltk-row")
        return rows.evaluate_all("rows => rows.map((row) => Number(row.dataset.call))")

    def outcome(self) -> Locator:
        """The static HTML that a finished run leaves."""
        return self.area.locator(".amltk-nb-static")

    def workers(self) -> list[list[str]]:
        """What the table of workers says, a list for each line."""
        lines = self.root.locator(".amltk-workers tbody tr")
        return lines.evaluate_all(
            "lines => lines.map((line) => [...line.cells].map((cell) => cell.textContent))"
        )

    # --- what can be pressed

    def button(self, name: str) -> Locator:
        """A button of the controls or of a row, by what a screen reader says of it."""
        return self.root.get_by_role("button", name=name, exact=True)

    def chip(self, state: str) -> Locator:
        """A chip that filters the calls by state; "all" for all."""
        group = self.root.get_by_role("group", name="Show calls by state")
        return group.get_by_role("button", name=re.compile(rf"^{state}\b"))

    def open_row(self, call: int) -> Locator:
        """Open a call's row and wait for its detail."""
        self.row(call).get_by_role("button", name=f"Call {call}, details").click()
        detail = self.root.locator(f'tr.amltk-detail[data-call="{call}"]')
        detail.get_by_role("heading", name="Arguments").wait_for()
        return detail


def wait_call(gate: Gate) -> int:
    """Wait until a call has come to a gate, and return the id of its process."""
    [(pid, _)] = gate.arrived(1)
    return pid
