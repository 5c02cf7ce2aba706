"""The dashboard's buttons as messages of the page: the reply, and what it did, on each kernel."""

from __future__ import annotations

from itertools import count
from typing import Any

import psutil
import pytest

from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Execution, Kernel

START = PRELUDE + "\nscheduler = Scheduler.with_processes(2)\nrun = scheduler.start()\n"


class Page:
    """What shows the one live dashboard of a kernel, and presses its buttons."""

    def __init__(self, kernel: Kernel, *, subshell: str | None = None) -> None:
        """Take the dashboard that was opened last.

        Args:
            kernel: where it lives.
            subshell: the one this page uses for widgets; None: it knows no subshells.
        """
        kernel.catch_up()
        self._kernel = kernel
        self._comm = [c for c in kernel.comms.values() if c.model == "AnyModel"][-1]
        self._subshell = subshell
        self._numbers = count(1)

    def click(self, name: str, **args: Any) -> int:
        """Press a button and return at once; gives the number of the command."""
        number = next(self._numbers)
        content = {"kind": "command", "id": number, "name": name, "args": args}
        self._kernel.send(self._comm, content, subshell=self._subshell, wait=False)
        return number

    def reply(self, number: int) -> dict[str, Any]:
        """Wait for the reply to a command."""
        self._kernel.wait(lambda: bool(self._replies(number)), f"the reply to command {number}")
        (reply,) = self._replies(number)
        return reply

    def press(self, name: str, **args: Any) -> Any:
        """Press a button, require that it worked, and return the value of the reply."""
        reply = self.reply(self.click(name, **args))
        assert (reply["ok"], reply["error"]) == (True, None)
        return reply["value"]

    def refused(self, name: str, **args: Any) -> str:
        """Press a button, require that it did not work, and return why."""
        reply = self.reply(self.click(name, **args))
        assert (reply["ok"], reply["value"]) == (False, None)
        return str(reply["error"])

    def answered(self, number: int) -> bool:
        """Whether a reply has come, as far as the messages that were handled tell."""
        self._kernel.catch_up()
        return bool(self._replies(number))

    def _replies(self, number: int) -> list[dict[str, Any]]:
        return [m for m in self._comm.custom if m.get("kind") == "reply" and m["id"] == number]


@pytest.fixture
def subshell(notebook: Kernel, kernel_version: str) -> str | None:
    """The subshell that a page uses for widgets, on kernels that have such a thing."""
    return None if kernel_version == "6.31" else notebook.create_subshell()


def awaiting(kernel: Kernel, code: str = "await run") -> Execution:
    """Have a cell await; returns once it does."""
    cell = kernel.execute(f"print('on', flush=True)\n{code}")
    kernel.wait_output(cell, "on\n")
    return cell


def require_counts(kernel: Kernel, expected: str) -> None:
    """Require certain counts, of the calls whose end has been dealt with."""
    assert kernel.run("counts(scheduler)").result == expected


# --- while the kernel is idle


def test_stop_while_idle(notebook: Kernel, subshell: str | None, gate: Gate) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 5, range(5))")
    gate.arrived(2)
    assert Page(notebook, subshell=subshell).press("stop") is None
    assert notebook.run("str(scheduler.state)").result == "'stopping'"
    gate.open()
    assert notebook.run("await run").result == "ExitState(stopped)"
    require_counts(notebook, "{'done': 2, 'cancelled': 3}")


def test_stop_now_while_idle(notebook: Kernel, subshell: str | None, gate: Gate) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 5, range(5))")
    workers = [psutil.Process(pid) for pid, _ in gate.arrived(2)]
    assert Page(notebook, subshell=subshell).press("stop_now") is None
    assert psutil.wait_procs(workers, timeout=3)[1] == []
    assert notebook.run("await run").result == "ExitState(stopped)"
    require_counts(notebook, "{'cancelled': 5}")


def test_pause_and_resume_while_idle(notebook: Kernel, subshell: str | None, gate: Gate) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 5, range(5))")
    gate.arrived(2)
    page = Page(notebook, subshell=subshell)
    assert page.press("pause") is None
    gate.open()
    notebook.run("await scheduler.gather(futures[:2])")
    assert notebook.run("str(scheduler.state)").result == "'paused'"
    require_counts(notebook, "{'queued': 3, 'done': 2}")
    assert page.press("resume") is None
    assert notebook.run("await scheduler.gather(futures)").result == "[0, 1, 2, 3, 4]"
    assert notebook.run("str(scheduler.state)").result == "'running'"


def test_cancel_and_resubmit_while_idle(notebook: Kernel, subshell: str | None, gate: Gate) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 3, range(3))")
    gate.arrived(2)
    page = Page(notebook, subshell=subshell)
    assert page.press("cancel", call=1) == {"cancelled": True}  # it runs
    assert page.press("cancel", call=3) == {"cancelled": True}  # it is queued
    notebook.run("await asyncio.wait([futures[0], futures[2]])")
    assert page.press("cancel", call=1) == {"cancelled": False}  # it has ended
    require_counts(notebook, "{'running': 1, 'cancelled': 2}")
    gate.open()
    assert page.press("resubmit", call=1) == {"call": 4}
    notebook.run("if scheduler.queue:\n    await asyncio.wait(scheduler.queue)")
    require_counts(notebook, "{'done': 2, 'cancelled': 2}")
    assert notebook.run("scheduler.find_call(4).resubmitted_from").result == "1"
    assert page.press("cancel", call=4) == {"cancelled": False}


FAILING = START + (
    "fails = True\n@scheduler.task\ndef shaky(n):\n    if fails:\n"
    "        raise ValueError(f'bad {n}')\n    return n\n"
    "futures = shaky.map(range(3))\nawait asyncio.wait(futures)\nfails = False"
)


def test_resubmit_failed_and_detail_while_idle(notebook: Kernel, subshell: str | None) -> None:
    notebook.run(FAILING)
    page = Page(notebook, subshell=subshell)
    detail = page.press("detail", call=2)
    error = detail.pop("error")
    assert error.startswith("amltk_nb") or "Traceback" in error
    assert error.rstrip().endswith("ValueError: bad 1")
    assert detail == {
        "call": 2,
        "state": "failed",
        "function": "shaky",
        "arguments": [{"name": "n", "text": "1"}],
        "result": None,
        "result_is_part": False,
        "output": None,
        "resubmitted_from": None,
    }
    assert page.press("resubmit_failed") == {"n": 3}
    assert page.press("resubmit_failed") == {"n": 0}
    notebook.run("await asyncio.gather(*shaky.futures())")
    require_counts(notebook, "{'done': 3, 'failed': 3}")
    detail = page.press("detail", call=6)
    assert (detail["state"], detail["error"]) == ("done", None)
    assert detail["resubmitted_from"] in (1, 2, 3)
    rows = page.press("rows", state="failed", limit=2)["rows"]
    assert [row["id"] for row in rows] == [3, 2]


def test_bad_messages_are_refused_and_change_nothing(
    notebook: Kernel, subshell: str | None
) -> None:
    notebook.run(START)
    page = Page(notebook, subshell=subshell)
    assert page.refused("explode").startswith("No command 'explode'; there are cancel, detail")
    assert "No call 99 is known" in page.refused("cancel", call=99)
    assert "call must be the id of a call" in page.refused("cancel", call="1; import os")
    assert page.refused("stop", wait=False) == "stop takes no arguments, not ['wait']."
    assert notebook.run("str(scheduler.state), counts(scheduler)").result == "('running', {})"


def test_buttons_after_the_end_are_refused(notebook: Kernel, subshell: str | None) -> None:
    notebook.run(START)
    page = Page(notebook, subshell=subshell)
    notebook.run("scheduler.stop()\nawait run")
    assert "Scheduler is not running" in page.refused("pause")
    assert page.press("stop") is None  # repeated stops are harmless


# --- while a cell awaits: after it on 6.31, at once on 7.1 and 7.4


def test_stop_while_a_cell_awaits(
    notebook: Kernel, subshell: str | None, kernel_version: str, gate: Gate
) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 5, range(5))")
    gate.arrived(2)
    page = Page(notebook, subshell=subshell)
    if kernel_version == "6.31":
        cell = awaiting(notebook, "await futures[0]\nstr(scheduler.state)")
        number = page.click("stop")
        gate.open()
        assert notebook.wait_done(cell).result == "'running'"
        assert page.reply(number)["ok"] is True
        assert notebook.run("await run").result == "ExitState(stopped)"
        return
    cell = awaiting(notebook)
    assert page.press("stop") is None
    assert not cell.done
    gate.open()
    assert notebook.wait_done(cell).result == "ExitState(stopped)"
    require_counts(notebook, "{'done': 2, 'cancelled': 3}")


@pytest.mark.kernels("7.1", "7.4")
def test_every_button_while_a_cell_awaits(
    notebook: Kernel, subshell: str | None, gate: Gate
) -> None:
    notebook.run(FAILING)
    notebook.run(f"held = scheduler.map(through, [{gate}] * 4, range(4))")
    gate.arrived(2)
    page = Page(notebook, subshell=subshell)
    cell = awaiting(notebook)
    assert page.press("pause") is None
    assert page.press("detail", call=1)["state"] == "failed"
    assert page.press("resubmit", call=1) == {"call": 8}
    assert page.press("resubmit_failed") == {"n": 2}
    assert page.press("cancel", call=4) == {"cancelled": True}  # runs
    assert page.press("cancel", call=7) == {"cancelled": True}  # queued
    assert page.press("resume") is None
    gate.open()
    assert not cell.done
    page.press("stop")
    assert notebook.wait_done(cell).result == "ExitState(stopped)"
    cell = notebook.run("[str(scheduler.find_call(n).state) for n in (4, 7)]")
    assert cell.result == "['cancelled', 'cancelled']"
    assert notebook.run("sum(scheduler.snapshot().counts.values())").result == "10"


# --- while a cell blocks: after it on 6.31, at once on 7.1 and 7.4 for a page with a subshell

BLOCK_UNTIL = (
    "print('on', flush=True)\nend = time.monotonic() + 20\n"
    "while not ({}) and time.monotonic() < end:\n    time.sleep(0.005)\n"
    "print('seen' if time.monotonic() < end else 'not seen')"
)


def blocking_until(kernel: Kernel, condition: str) -> Execution:
    """Have a cell block until it sees a change that a button makes."""
    cell = kernel.execute(BLOCK_UNTIL.format(condition))
    kernel.wait_output(cell, "on\n")
    return cell


@pytest.mark.kernels("7.1", "7.4")
@pytest.mark.parametrize(
    ("name", "ended"),
    [("stop", "{'done': 2, 'cancelled': 3}"), ("stop_now", "{'cancelled': 5}")],
)
def test_stopping_while_a_cell_blocks(
    notebook: Kernel, subshell: str | None, gate: Gate, name: str, ended: str
) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 5, range(5))")
    workers = [psutil.Process(pid) for pid, _ in gate.arrived(2)]
    page = Page(notebook, subshell=subshell)
    cell = blocking_until(notebook, "str(scheduler.state) == 'stopping'")
    assert page.press(name) is None
    if name == "stop_now":
        assert psutil.wait_procs(workers, timeout=3)[1] == []
    assert notebook.wait_done(cell).stdout == "on\nseen\n"
    gate.open()
    assert notebook.run("await run").result == "ExitState(stopped)"
    require_counts(notebook, ended)


@pytest.mark.kernels("7.1", "7.4")
def test_pause_holds_the_workers_while_a_cell_blocks(
    notebook: Kernel, subshell: str | None, gate: Gate
) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 4, range(4))")
    gate.arrived(2)
    page = Page(notebook, subshell=subshell)
    idle = "[w.state for w in scheduler.snapshot().workers] == ['idle', 'idle']"
    cell = blocking_until(notebook, idle)
    assert page.press("pause") is None
    gate.open()
    assert notebook.wait_done(cell).stdout == "on\nseen\n"
    waiting = "[str(scheduler.find_call(n).state) for n in (3, 4)]"
    assert notebook.run(waiting).result == "['queued', 'queued']"
    # Calls count as running until the loop hears of their end.
    cell = blocking_until(notebook, f"{waiting} == ['running', 'running']")
    assert page.press("resume") is None
    assert notebook.wait_done(cell).stdout == "on\nseen\n"
    assert notebook.run("await scheduler.gather(futures)").result == "[0, 1, 2, 3]"


@pytest.mark.kernels("7.1", "7.4")
def test_one_running_call_is_ended_while_a_cell_blocks(
    notebook: Kernel, subshell: str | None, gate: Gate
) -> None:
    notebook.run(START + f"futures = scheduler.map(through, [{gate}] * 3, range(3))")
    first, second = (
        psutil.Process(pid) for pid, value in sorted(gate.arrived(2), key=lambda a: a[1])
    )
    page = Page(notebook, subshell=subshell)
    cell = blocking_until(notebook, "str(scheduler.find_call(3).state) == 'running'")
    assert page.press("cancel", call=1) == {"cancelled": True}
    # The queued call takes the place of the ended one, while the cell goes on blocking.
    assert gate.arrived(3)[2][1] == "2"
    assert notebook.wait_done(cell).stdout == "on\nseen\n"
    assert not first.is_running()
    assert second.is_running()
    gate.open()
    assert notebook.run("await scheduler.gather(futures[1:])").result == "[1, 2]"
    require_counts(notebook, "{'done': 2, 'cancelled': 1}")


@pytest.mark.kernels("7.1", "7.4")
def test_work_for_the_loop_waits_for_a_blocking_cell(
    notebook: Kernel, subshell: str | None, gate: Gate
) -> None:
    notebook.run(FAILING)
    page = Page(notebook, subshell=subshell)
    cell = notebook.execute(f"through({gate})\nprint(sum(scheduler.snapshot().counts.values()))")
    gate.arrived(1)
    resubmit = page.click("resubmit_failed")
    pause = page.click("pause")
    assert page.reply(pause)["ok"] is True  # it was sent later, so the other one has arrived
    assert not page.answered(resubmit)
    gate.open()
    assert notebook.wait_done(cell).stdout == "3\n"
    assert page.reply(resubmit)["value"] == {"n": 3}
    page.press("resume")
    notebook.run("await asyncio.gather(*shaky.futures())")
    require_counts(notebook, "{'done': 3, 'failed': 3}")


@pytest.mark.kernels("6.31")
def test_without_subshells_a_blocking_cell_holds_back_every_button(
    notebook: Kernel, gate: Gate
) -> None:
    notebook.run(FAILING)
    page = Page(notebook)
    cell = notebook.execute(f"through({gate})\nstr(scheduler.state), counts(scheduler)")
    gate.arrived(1)
    clicks = [
        page.click("pause"),
        page.click("detail", call=1),
        page.click("resubmit", call=1),
        page.click("resubmit_failed"),
        page.click("cancel", call=5),
        page.click("resume"),
        page.click("stop_now"),
        page.click("stop"),
    ]
    assert not any(page.answered(number) for number in clicks)
    gate.open()
    assert notebook.wait_done(cell).result == "('running', {'failed': 3})"
    replies = [page.reply(number) for number in clicks]
    assert [reply["ok"] for reply in replies] == [True] * 8
    assert [replies[n]["value"] for n in (2, 3, 4)] == [
        {"call": 4},
        {"n": 2},
        {"cancelled": True},
    ]
    assert notebook.run("await run").result == "ExitState(stopped)"


@pytest.mark.kernels("7.1", "7.4")
def test_a_page_without_subshell_is_answered_after_a_blocking_cell(
    notebook: Kernel, gate: Gate
) -> None:
    notebook.run(START)
    page = Page(notebook)
    cell = notebook.execute(f"through({gate})\nstr(scheduler.state)")
    gate.arrived(1)
    stop = page.click("stop")
    gate.open()
    assert notebook.wait_done(cell).result == "'running'"
    assert page.reply(stop)["ok"] is True
    assert notebook.run("await run").result == "ExitState(stopped)"


@pytest.mark.kernels("7.1", "7.4")
def test_stop_during_a_blocking_run(notebook: Kernel, subshell: str | None, gate: Gate) -> None:
    notebook.run(
        PRELUDE
        + "\nscheduler = Scheduler.with_processes(2)\n"
        + f"held = scheduler.on_start(lambda: scheduler.map(through, [{gate}] * 5, range(5)))"
    )
    cell = notebook.execute(
        "scheduler.on_start(lambda: print('on', flush=True))\nprint(repr(scheduler.run()))"
    )
    notebook.wait_output(cell, "on\n")
    gate.arrived(2)
    page = Page(notebook, subshell=subshell)
    assert page.press("stop") is None
    gate.open()
    assert notebook.wait_done(cell).stdout == "on\nExitState(stopped)\n"
    require_counts(notebook, "{'done': 2, 'cancelled': 3}")
