"""The buttons of the dashboard: what each does to the run, and that Python says the same."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.board import SEARCH, WORK, Board, Gates, wait_call
from tests.browser.lab import LabPage

FOUR = SEARCH + "calls = [task.submit(name, gate=name) for name in ('a', 'b', 'c', 'd')]"

# The same function, mended: a task looks its function up whenever it submits.
MENDED = WORK.replace('if name.startswith("odd"):', "if False:")


def test_pause_starts_nothing_and_resume_goes_on(page: LabPage, gates: Gates) -> None:
    a, b, c, d = gates("a", "b", "c", "d")
    board = Board(page, FOUR)
    wait_call(a), wait_call(b)
    board.wait_counts(running=2, queued=2)

    board.button("Pause").click()
    board.wait_state("paused")
    a.open()
    board.wait_counts(done=1, running=1, queued=2)
    assert board.python() == "paused 1:done 2:running 3:queued 4:queued"
    b.open()
    board.wait_counts(done=2, queued=2)
    assert board.python() == "paused 1:done 2:done 3:queued 4:queued"

    board.button("Resume").click()
    board.wait_state("running")
    wait_call(c), wait_call(d)
    board.wait_counts(done=2, running=2)
    assert board.python() == "running 1:done 2:done 3:running 4:running"


def test_ending_one_running_call_leaves_the_others_alone(page: LabPage, gates: Gates) -> None:
    a, b, c, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR, "print([call.result()['name'] for call in calls[1:3]])")
    ended, other = wait_call(a), wait_call(b)
    board.wait_counts(running=2, queued=2)

    board.button("Cancel call 4").click()
    board.wait_row(4, "cancelled")
    board.button("End call 1").click()
    board.wait_row(1, "cancelled")
    assert wait_call(c) not in (ended, other), "the ended call's worker was replaced"
    board.wait_counts(running=2, cancelled=2)
    b.open(), c.open()
    board.wait_counts(done=2, cancelled=2)
    assert board.python() == "running 1:cancelled 2:done 3:done 4:cancelled"
    assert board.run(3) == "['b', 'c']"


def test_failed_calls_are_resubmitted_with_the_mended_function(page: LabPage) -> None:
    start = SEARCH + "calls = [task.submit(name) for name in ('odd 1', 'fine', 'odd 2', 'odd 3')]"
    board = Board(page, start, MENDED)
    board.wait_counts(done=1, failed=3)
    expect(board.button("Resubmit failed (3)")).to_have_attribute("aria-disabled", "false")

    board.run(3)
    board.button("Resubmit call 1").click()
    board.wait_row(5, "done")
    detail = board.open_row(5)
    expect(detail).to_contain_text("Attempt2")
    detail.get_by_role("button", name="call 1", exact=True).click()
    expect(board.row(1)).to_have_attribute("data-open", "true")

    board.button("Resubmit failed (2)").click()
    board.wait_counts(done=4, failed=3)
    rest = board.button("Resubmit failed (0)")
    expect(rest).to_have_attribute("aria-disabled", "true")
    expect(rest).to_have_accessible_description("All failed calls were resubmitted.")
    assert board.python() == "running 1:failed 2:done 3:failed 4:failed 5:done 6:done 7:done"


def test_a_failed_call_may_fail_again(page: LabPage) -> None:
    board = Board(page, SEARCH + "task.submit('odd')")
    board.wait_counts(failed=1)
    board.button("Resubmit failed (1)").click()
    board.wait_counts(failed=2)
    board.button("Resubmit failed (1)").click()
    board.wait_counts(failed=3)
    assert board.python() == "running 1:failed 2:failed 3:failed"


def test_stop_lets_running_calls_finish(page: LabPage, gates: Gates) -> None:
    a, b, _, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR, "print(await run, [call.cancelled() for call in calls])")
    wait_call(a), wait_call(b)
    board.button("Stop").click()
    board.wait_state("stopping")
    board.wait_counts(running=2, cancelled=2)
    assert board.python() == "stopping 1:running 2:running 3:cancelled 4:cancelled"
    a.open(), b.open()
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == "finished 1:done 2:done 3:cancelled 4:cancelled"
    assert board.run(3) == "stopped [False, False, True, True]"


def test_stop_now_ends_running_calls(page: LabPage, gates: Gates) -> None:
    a, b, _, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR, "print(await run, [call.cancelled() for call in calls])")
    wait_call(a), wait_call(b)
    board.button("Stop now").click()
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == "finished 1:cancelled 2:cancelled 3:cancelled 4:cancelled"
    assert board.run(3) == "stopped [True, True, True, True]"


def test_the_second_click_on_stop_ends_running_calls(page: LabPage, gates: Gates) -> None:
    a, b, _, _ = gates("a", "b", "c", "d")
    board = Board(page, FOUR)
    wait_call(a), wait_call(b)
    board.button("Stop").click()
    board.wait_state("stopping")
    board.button("Stop again: end the running calls now").click()
    expect(board.outcome()).to_contain_text("finished")
    assert board.python() == "finished 1:cancelled 2:cancelled 3:cancelled 4:cancelled"


def test_what_a_backend_cannot_do_is_disabled_and_says_why(page: LabPage, gates: Gates) -> None:
    (a,) = gates("a")
    start = SEARCH.replace("with_processes", "with_threads") + "task.submit('a', gate='a')"
    board = Board(page, start)
    wait_call(a)
    board.wait_counts(running=1)
    end = board.button("End call 1")
    expect(end).to_have_attribute("aria-disabled", "true")
    expect(end).to_have_accessible_description(
        "Python cannot end a running thread; use with_processes() for calls that you may end"
    )
    end.click(force=True)
    assert board.python() == "running 1:running"
    a.open()
    board.wait_counts(done=1)
