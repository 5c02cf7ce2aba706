"""What the dashboard shows: calls by state and text, an open row, events, the log."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.board import SEARCH, Board, Gates, wait_call
from tests.browser.lab import LabPage

SEVERAL = (
    SEARCH
    + """
@task.on_result
def keep(future, result):
    print("kept", result["name"])

calls = [task.submit(name) for name in ('apple', 'odd pear', 'plum')]
calls += [task.submit(name, gate=name) for name in ('cherry', 'grape', 'odd plum')]
"""
)


def test_calls_are_chosen_by_state_and_by_text(page: LabPage, gates: Gates) -> None:
    cherry, grape, odd_plum = gates("cherry", "grape", "odd plum")
    board = Board(page, SEVERAL)
    wait_call(cherry), wait_call(grape)
    board.wait_counts(queued=1, running=2, done=2, failed=1)
    expect(board.chip("all")).to_have_text("all 6")
    assert board.shown_calls()[:3] == [4, 5, 6], "running ones first, then the queue"

    board.chip("failed").click()
    assert board.shown_calls() == [2]
    expect(board.chip("failed")).to_have_attribute("aria-pressed", "true")
    board.chip("cancelled").click()
    expect(board.root).to_contain_text("No call is cancelled.")
    assert board.shown_calls() == []
    board.chip("cancelled").click()
    assert sorted(board.shown_calls()) == [1, 2, 3, 4, 5, 6]

    search = board.root.get_by_role("searchbox", name="Filter the calls by text")
    search.fill("PLUM")
    assert sorted(board.shown_calls()) == [3, 6]
    board.chip("queued").click()
    assert board.shown_calls() == [6]
    cherry.open()
    wait_call(odd_plum)
    expect(board.root).to_contain_text("No call has this text.")
    assert board.shown_calls() == [], "it runs now, so the filter lets go of it"
    board.chip("running").click()
    assert board.shown_calls() == [6]
    search.fill("")
    assert sorted(board.shown_calls()) == [5, 6]
    assert board.python() == "running 1:done 2:failed 3:done 4:done 5:running 6:running"


def test_an_open_row_shows_all_of_a_call(page: LabPage, gates: Gates) -> None:
    cherry, grape, _ = gates("cherry", "grape", "odd plum")
    board = Board(page, SEVERAL)
    wait_call(cherry), wait_call(grape)
    board.wait_counts(queued=1, running=2, done=2, failed=1)

    failed = board.open_row(2)
    expect(failed.get_by_role("group", name="Error")).to_have_text(
        re.compile(
            r"^Traceback .*, in work\n.*\nValueError: cannot work on odd pear\s*$", re.DOTALL
        )
    )
    expect(failed).to_contain_text("name'odd pear'")
    expect(failed).to_contain_text("working on odd pear")
    expect(failed).not_to_contain_text("Result")

    done = board.open_row(1)
    expect(failed).to_have_count(0)
    expect(done).to_contain_text("Result{'name': 'apple', 'length': 5}")
    expect(done).to_contain_text("Outputworking on apple")
    expect(done).not_to_contain_text("Error")

    running = board.open_row(4)
    expect(running).to_contain_text("gate'cherry'")
    expect(running).not_to_contain_text("Result")
    cherry.open()
    expect(running).to_contain_text("Result{'name': 'cherry', 'length': 6}")
    assert board.python() == "running 1:done 2:failed 3:done 4:done 5:running 6:running"


def test_events_callbacks_and_what_they_print(page: LabPage, gates: Gates) -> None:
    cherry, grape, _ = gates("cherry", "grape", "odd plum")
    board = Board(page, SEVERAL)
    wait_call(cherry), wait_call(grape)
    board.wait_counts(queued=1, running=2, done=2, failed=1)
    events = board.root.get_by_role("group", name="Events")
    counted = events.locator(".amltk-emitter").nth(1).locator(".amltk-tree > li > .amltk-pair")
    shown = dict(text.split("\n") for text in counted.all_inner_texts())
    expected = {"submitted": 6, "done": 3, "result": 2, "returned": 2, "exception": 1}
    expected |= {"cancelled": 0, "f_returned": 2, "f_exception": 1, "f_cancelled": 0}
    assert shown == {f"@on_{name}": str(n) for name, n in expected.items()}
    callback = events.locator("li li")
    expect(callback).to_have_text("def keep(future, result)cell [2]2")

    log = board.root.get_by_role("group", name="Log entries")
    expect(log.locator(".amltk-text")).to_have_count(2)
    # They ran beside each other, so which one was kept first is not for us to say.
    assert sorted(log.locator(".amltk-text").all_inner_texts()) == ["kept apple", "kept plum"]
    assert page.output(1).get_by_text("kept apple").count() == 1, "in the log and nowhere else"
    board.root.get_by_role("searchbox", name="Filter the log").fill("plum")
    expect(log.locator(".amltk-text")).to_have_text(["kept plum"])


def test_the_programs_own_strings_are_text(page: LabPage) -> None:
    start = SEARCH + "task.submit('<img src=x onerror=alert(1)><b>odd</b>\\x1b[31m')"
    board = Board(page, start)
    board.wait_counts(done=1)
    row = board.row(1).locator(".amltk-col-args code")
    expect(row).to_have_text(r"'<img src=x onerror=alert(1)><b>odd</b>\x1b[31m'")
    detail = board.open_row(1)
    expect(detail).to_contain_text("working on <img src=x onerror=alert(1)><b>odd</b>")
    assert board.root.locator("img, b:text('odd')").count() == 0
