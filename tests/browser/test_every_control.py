"""Every control of the dashboard is used once, and Python says what came of it.

`Hands` notes each control that is shown while a test goes on, and each that it uses. A control
that is in the page and not in `CONTROLS`, or that no test uses, makes the test fail: so a new one
is not forgotten.
"""

from __future__ import annotations

import re

from playwright.sync_api import Locator, expect

from tests.browser.board import Board, Gates, wait_call
from tests.browser.lab import LabPage
from tests.kernels.cells import Gate

# By what they are and what they are called; N stands for any number.
CONTROLS = {
    "button Pause",
    "button Resume",
    "button Start",
    "button Stop",
    "button Stop again: end the running calls now",
    "button Stop now",
    "button Resubmit failed (N)",
    "button Dismiss",
    "button Notify me",
    "input Filter the calls by text",
    *(f"button {state} N" for state in ("all", "queued", "running", "done", "failed", "cancelled")),
    "button Call N, details",
    "button Cancel call N",
    "button End call N",
    "button Resubmit call N",
    "button Resubmit with changes, call N",
    "button Submit",
    "button Cancel",
    "button call N",
    "button Show all N characters",
    "button Show less",
    "button Load older",
    "bar of the timeline",
    *(f"button {span}" for span in ("Last minute", "Last N minutes", "All")),
    "button Restart workers",
    "summary of Events",
    "input Filter the log",
    "button Copy",
}

_KEYS = """all => all.map((element) => {
    if (element.matches("[data-bar]")) return "bar of the timeline";
    if (element.localName === "summary") {
        const title = element.closest(".amltk-section")?.querySelector("h3")?.textContent;
        return `summary of ${title}`;
    }
    if (element.closest(".amltk-copy")) return "button Copy";  // it says "Copied" for a while
    const shown = element.querySelector(".amltk-stack > span") ?? element;
    const icon = shown.querySelector(".amltk-icon")?.textContent ?? "";
    const name = element.getAttribute("aria-label") ?? shown.textContent.replace(icon, "");
    return `${element.localName} ${name.trim().replace(/\\d+([,.]\\d+)*/g, "N")}`;
})"""
# But the fields of a form: there is one for each parameter, and `test_forms` fills them in.
_ALL = (
    ":is(button, input, select, textarea, summary, a, [role='button'], [contenteditable])"
    ":not(.amltk-field *)"
)

START = """
from amltk_nb import Limiter
scheduler = Scheduler.with_processes(2, name="search", history=1000)
task = scheduler.task(work, plugins=Limiter(max_calls=200))

@task.on_result
def keep(future, result):
    if len(result["name"]) < 6:
        print("kept", result["name"])

run = scheduler.start(display=False)
calls = [task.submit("fig") for _ in range(70)]
await scheduler.gather(calls)
calls += [task.submit(name) for name in ("odd", "n" * 700)]
scheduler.dashboard()  # it has not seen the first ones end
"""

HELD = "calls += [task.submit(name, gate=name) for name in ('a', 'b', 'c', 'd')]"

SAY = """
states = {row["id"]: row["state"] for row in scheduler.records()}
print(scheduler.state, *(f"{id}:{state}" for id, state in sorted(states.items()) if id > 70))
print(*sorted(worker.pid for worker in scheduler.snapshot().workers))
"""

# What the page is told is the time; its own clock follows it.
AHEAD = """
import time, types
import amltk_nb.views.widget
ahead = types.SimpleNamespace(time=lambda: time.time() + 700, monotonic=time.monotonic)
amltk_nb.views.widget.time = ahead
scheduler.log("me", "info", "the clock is ahead")
"""

NOT_STARTED = """
amltk_nb.views.widget.time = time
second = Scheduler.with_processes(1, name="second")
waiting = second.task(work)
begun = []
second.on_start(lambda: begun.append(waiting.submit("e", gate="e")))
second.dashboard()
"""

SAY_SECOND = "print(second.state, [str(future.call.state) for future in begun])"
AGAIN = "second.dashboard()"
CLOSED = "pool.shutdown()"

# Somebody else closes its pool while nobody looks: it cannot start any more.
BROKEN = """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)
broken = Scheduler(pool, name="broken")
broken.dashboard()
"""


class Hands:
    """Uses controls and remembers which, and which others were there."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.seen: set[str] = set()
        self.used: set[str] = set()

    def look(self, at: Locator) -> None:
        """Note what is there now."""
        self.seen.update(at.locator(_ALL).evaluate_all(_KEYS))

    def press(self, control: Locator) -> None:
        """Click on something and leave it: rows stay where they are while one points at them."""
        expect(control).to_be_visible()
        self._note(control)
        control.click()
        control.page.mouse.move(0, 0)

    def type(self, field: Locator, text: str) -> None:
        """Write into a field, in place of what it holds."""
        self._note(field)
        field.fill(text)

    def _note(self, control: Locator) -> None:
        keys = control.evaluate_all(_KEYS)
        self.used.update(keys)
        self.seen.update(keys)


def test_every_control_does_what_it_says(page: LabPage, gates: Gates) -> None:
    a, b, c, d, e = gates("a", "b", "c", "d", "e")
    hands = Hands()
    cells = (SAY, AHEAD, NOT_STARTED, SAY_SECOND, BROKEN, HELD, AGAIN, CLOSED)
    board = Board(page, START, *cells)
    board.wait_counts(done=71, failed=1)
    hands.look(board.root)
    # Before anything scrolls there, which loads them as well.
    expect(board.root.locator(".amltk-more")).to_contain_text(" of 72 calls loaded.")
    hands.press(board.button("Load older"))
    expect(board.root.locator(".amltk-more")).to_have_count(0)
    in_an_open_row(board, hands)

    board.run(8)
    wait_call(a), wait_call(b)
    board.wait_counts(queued=2, running=2, done=71, failed=4)
    in_the_queue(board, hands)
    with_running_calls(board, hands, a, c, d)
    in_other_views(board, hands)
    hands.look(board.root)
    to_the_end(board, hands)
    on_one_that_was_not_started(page, hands, e)

    assert hands.seen - CONTROLS == set(), "new ones: use them here and add them to CONTROLS"
    assert CONTROLS - hands.used == set(), "not used, or not there any more"


def in_the_queue(board: Board, hands: Hands) -> None:
    """Filter and search."""
    for state, expected in (
        ("queued", [78, 79]),
        ("running", [76, 77]),
        ("failed", [71, 73, 74, 75]),
    ):
        hands.press(board.chip(state))
        assert sorted(board.shown_calls()) == expected
    hands.press(board.chip("cancelled"))
    expect(board.root).to_contain_text("No call is cancelled.")
    hands.press(board.chip("done"))
    hands.press(board.chip("all"))
    search = board.root.get_by_role("searchbox", name="Filter the calls by text")
    hands.type(search, "ODD")
    assert sorted(board.shown_calls()) == [71, 73, 74, 75]
    hands.type(search, "")


def in_an_open_row(board: Board, hands: Hands) -> None:
    """Read a long result, resubmit a failure, follow the link to what it was resubmitted from."""
    hands.press(board.button("Call 72, details"))
    detail = board.root.locator('tr.amltk-detail[data-call="72"]')
    result = detail.locator("pre", has_text="length")
    hands.press(detail.get_by_role("button", name=re.compile("Show all 7.. characters")))
    expect(result).to_have_text("{'name': '" + "n" * 700 + "', 'length': 700}")
    hands.look(board.root)
    hands.press(detail.get_by_role("button", name="Show less"))
    expect(detail.get_by_text("n" * 500 + "…")).to_be_visible()

    hands.press(board.chip("failed"))
    hands.press(board.button("Resubmit call 71"))
    board.wait_row(73, "failed")
    board.open_row(73)
    hands.look(board.root)
    hands.press(board.button("call 71"))
    expect(board.row(71)).to_have_attribute("data-open", "true")
    hands.press(board.button("Resubmit failed (1)"))
    board.wait_counts(done=71, failed=3)

    changes = board.root.get_by_role("button", name="Resubmit with changes, call 71")
    for name, n_failed in (("Cancel", 3), ("Submit", 4)):
        hands.press(changes)
        form = board.root.get_by_role("group", name="New arguments of call 71")
        expect(form).to_be_visible()
        hands.look(board.root)
        hands.press(form.get_by_role("button", name=name, exact=True))
        expect(form).to_have_count(0)
        board.wait_counts(done=71, failed=n_failed)
    assert say(board) == "running 71:failed 72:done 73:failed 74:failed 75:failed"


def say(board: Board) -> str:
    """Have Python say the state of the run and of the calls from the 71st on."""
    return board.run(3).splitlines()[0]


def with_running_calls(board: Board, hands: Hands, a: Gate, c: Gate, d: Gate) -> None:
    """Pause and resume, end one, cancel one; look at the others by the workers and the timeline."""
    hands.press(board.button("Pause"))
    board.wait_state("paused")
    hands.press(board.button("End call 77"))
    board.wait_row(77, "cancelled")
    hands.press(board.button("Cancel call 79"))
    board.wait_row(79, "cancelled")
    expected = "71:failed 72:done 73:failed 74:failed 75:failed 76:running 77:cancelled 78:queued"
    assert say(board) == f"paused {expected} 79:cancelled"
    hands.press(board.button("Resume"))
    wait_call(c)
    board.wait_counts(running=2, done=71, failed=4, cancelled=2)

    hands.press(workers(board).get_by_role("button", name="call 78", exact=True))
    expect(board.button("Call 78, details")).to_be_focused()
    expect(board.row(78)).to_have_attribute("data-open", "true")
    hands.press(board.root.locator('[data-bar$="/76"]'))
    expect(board.button("Call 76, details")).to_be_focused()
    expect(board.row(76)).to_have_attribute("data-open", "true")

    before = board.run(3).splitlines()[1].split()
    assert len(before) == 2
    hands.press(board.button("Restart workers"))
    a.open(), c.open()
    board.wait_counts(done=73, failed=4, cancelled=2)
    board.button("Resubmit call 79").click()
    assert wait_call(d) not in map(int, before)
    board.wait_counts(running=1, done=73, failed=4, cancelled=2)


def workers(board: Board) -> Locator:
    """The view of the workers."""
    return board.root.get_by_role("group", name="Workers")


def in_other_views(board: Board, hands: Hands) -> None:
    """Fold the events, filter and copy the log, choose how much of the timeline is shown."""
    events = board.root.get_by_role("group", name="Events")
    emitter = events.locator("details").first
    was_open = emitter.evaluate("details => details.open")
    hands.press(emitter.locator("summary"))
    assert emitter.evaluate("details => details.open") is not was_open

    log = board.root.get_by_role("group", name="Log entries").locator("li")
    expect(log).to_have_count(72)
    hands.type(board.root.get_by_role("searchbox", name="Filter the log"), "kept a")
    expect(log).to_have_count(1)
    origin = board.tab.url.split("/lab")[0]
    board.tab.context.grant_permissions(
        ["clipboard-read", "clipboard-write", "notifications"], origin=origin
    )
    copy = board.root.locator(".amltk-copy")
    hands.press(copy)
    expect(copy).to_have_text("Copied")
    copied = board.tab.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"\S+Z on_result · keep print: kept a", copied)

    board.run(4)
    timeline = board.root.get_by_role("group", name="Timeline")
    first = timeline.locator("text").first
    for span, bars in (("Last minute", 1), ("Last 10 minutes", 1), ("All", None)):
        chip = timeline.get_by_role("button", name=span, exact=True)
        hands.press(chip)
        expect(chip).to_have_attribute("aria-pressed", "true")
        if bars is not None:
            expect(timeline.locator("[data-bar]")).to_have_count(bars)
    expect(first).to_have_text("0 s")
    assert timeline.locator("[data-bar]").count() > 1


def to_the_end(board: Board, hands: Hands) -> None:
    """Ask to be told of the end; stop, and then not wait for what runs."""
    notify = board.button("Notify me")
    hands.press(notify)
    expect(notify).to_have_attribute("aria-pressed", "true")
    expect(board.tab).to_have_title(re.compile("search"))
    hands.press(board.button("Stop"))
    board.wait_state("stopping")
    hands.look(board.root)
    hands.press(board.button("Stop again: end the running calls now"))
    expect(board.outcome()).to_contain_text("73 done")
    assert say(board).startswith("finished 71:failed 72:done 73:failed 74:failed 75:failed 76:done")


def on_one_that_was_not_started(page: LabPage, hands: Hands, e: Gate) -> None:
    """Start one, end it with its calls, and start it again; dismiss what another one refuses."""
    page.run_cell(5)
    board = Board.over(page, cell=5)
    board.wait_state("idle")
    hands.look(board.root)
    hands.press(board.button("Start"))
    wait_call(e)
    board.wait_counts(running=1)
    assert board.run(6) == "running ['running']"
    hands.press(board.button("Stop now"))
    expect(board.outcome()).to_contain_text("1 cancelled")
    assert board.run(6) == "finished ['cancelled']"

    page.run_cell(9)
    board = Board.over(page, cell=9)
    board.wait_state("finished")
    hands.press(board.button("Start"))
    e.arrived(2)
    board.wait_counts(running=1, cancelled=1)
    expect(board.root).to_contain_text("run 2")
    assert board.run(6) == "running ['cancelled', 'running']"

    page.run_cell(7)
    board = Board.over(page, cell=7)
    board.wait_state("idle")
    board.run(10)
    hands.press(board.button("Start"))
    notice = board.root.locator(".amltk-notice")
    expect(notice).to_contain_text("has been shut down or is broken")
    hands.press(board.button("Dismiss"))
    expect(notice).to_have_count(0)
