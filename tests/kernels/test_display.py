"""What stands under a cell: live while a run lives, static and comparable afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Execution, Kernel

VIEW = "application/vnd.jupyter.widget-view+json"
MAKE = PRELUDE + "\nscheduler = Scheduler.with_processes(2)\ntask = scheduler.task(double)\n"


def shown(kernel: Kernel, display_id: str) -> list[dict[str, Any]]:
    """The bundles that stood at one place, in order: the first, then each update of it."""
    return [
        m["content"]["data"]
        for m in kernel.iopub
        if m["msg_type"] in ("display_data", "update_display_data")
        and m["content"].get("transient", {}).get("display_id") == display_id
    ]


def place_of(cell: Execution) -> str:
    """The display id of the only thing that a cell displayed."""
    (output,) = [o for o in cell.outputs if o["type"] == "display_data"]
    return str(output["transient"]["display_id"])


def updates_in(cell: Execution) -> list[set[str]]:
    return [set(o["data"]) for o in cell.outputs if o["type"] == "update_display_data"]


# --- live


def test_start_shows_a_widget_with_static_forms_beside(notebook: Kernel) -> None:
    notebook.run(MAKE)
    cell = notebook.run("run = scheduler.start()")
    (bundle,) = cell.displays
    assert set(bundle) == {VIEW, "text/html", "text/plain"}
    comm = notebook.comms[bundle[VIEW]["model_id"]]
    assert (comm.model, comm.closed) == ("AnyModel", False)
    assert bundle["text/plain"].splitlines()[0].startswith("╭─ Scheduler: running ─")
    assert "<script" not in bundle["text/html"]
    assert cell.stdout == cell.stderr == cell.result == ""


def test_it_is_frozen_from_the_background(notebook: Kernel, gate: Gate) -> None:
    notebook.run(MAKE)
    cell = notebook.run(
        f"run = scheduler.start(end_on_empty=True)\nfuture = scheduler.submit(through, {gate}, 1)"
    )
    place = place_of(cell)
    assert [VIEW in bundle for bundle in shown(notebook, place)] == [True]
    gate.open()  # nothing runs in the kernel now but the scheduler
    notebook.wait(lambda: len(shown(notebook, place)) > 1, "the update of the display")
    frozen = shown(notebook, place)[-1]
    assert set(frozen) == {"text/html", "text/plain"}
    assert frozen["text/plain"].startswith("╭─ Scheduler: finished (exhausted) ─")
    assert "1 done" in frozen["text/plain"]


def test_it_is_frozen_in_the_context_of_who_awaits(notebook: Kernel) -> None:
    notebook.run(MAKE)
    start = notebook.run("run = scheduler.start()\nfutures = task.map([1, 2])")
    # nbclient drops updates that do not come from the cell that is running.
    cell = notebook.run("await scheduler.gather(futures)\nscheduler.stop()\nawait run")
    assert updates_in(cell) == [{"text/html", "text/plain"}]
    assert len(shown(notebook, place_of(start))) == 2, "live, then frozen, and that once"
    last = shown(notebook, place_of(start))[-1]
    assert last["text/plain"].startswith("╭─ Scheduler: finished (stopped) ─")
    kinds = [o["type"] for o in cell.outputs]
    assert kinds[-1] == "execute_result"
    assert "display_data" not in kinds


def test_a_blocking_run_shows_and_freezes_in_its_cell(notebook: Kernel) -> None:
    notebook.run(MAKE + "held = scheduler.on_start(lambda: task(1))")
    cell = notebook.run("scheduler.run()")
    place = place_of(cell)
    first, *_, last = shown(notebook, place)
    assert (VIEW in first, VIEW in last) == (True, False)
    assert last["text/plain"].startswith("╭─ Scheduler: finished (exhausted) ─")
    assert cell.result == "ExitState(exhausted)"


def test_display_false_shows_nothing(notebook: Kernel) -> None:
    notebook.run(MAKE)
    cell = notebook.run("run = scheduler.start(display=False)\nawait task.submit(1)")
    end = notebook.run("scheduler.stop()\nawait run")
    assert [o["type"] for o in cell.outputs + end.outputs] == ["execute_result", "execute_result"]
    assert (cell.result, end.result) == ("2", "ExitState(stopped)")


def test_the_parts_as_last_expression(notebook: Kernel) -> None:
    notebook.run(MAKE)
    before = notebook.run("scheduler")
    assert [set(bundle) for bundle in before.displays] == [{"text/html", "text/plain"}]
    assert before.displays[0]["text/plain"].startswith("╭─ Scheduler ─")
    task = notebook.run("task")
    assert task.displays[0]["text/plain"].startswith("╭─ Task double(n) ─")
    assert "Ref: Task-double-1" in task.displays[0]["text/plain"]
    notebook.run("run = scheduler.start(display=False)")
    during = notebook.run("scheduler")
    assert [VIEW in bundle for bundle in during.displays] == [True]
    state = notebook.run("run")
    assert state.displays[0]["text/plain"] == "<Run of 'scheduler': running>"
    notebook.run("scheduler.stop()\nawait run")
    notebook.wait(lambda: len(shown(notebook, place_of(state))) > 1, "the end of the run")
    assert shown(notebook, place_of(state))[-1]["text/plain"] == "<Run of 'scheduler': stopped>"
    assert [VIEW in bundle for bundle in shown(notebook, place_of(during))][-1] is False
    assert notebook.run("run").displays[0]["text/plain"] == "<Run of 'scheduler': stopped>"
    after = notebook.run("scheduler")
    assert [set(bundle) for bundle in after.displays] == [{"text/html", "text/plain"}]
    assert after.displays[0]["text/plain"].startswith("╭─ Scheduler: finished (stopped) ─")


def test_parts_of_the_dashboard_alone(notebook: Kernel) -> None:
    notebook.run(MAKE)
    cell = notebook.run("board = scheduler.dashboard('header', 'controls')\nboard")
    (bundle,) = cell.displays
    assert notebook.comms[bundle[VIEW]["model_id"]].state["views"] == ["header", "controls"]
    assert notebook.run("repr(board)").result == "\"Dashboard('scheduler')\""
    notebook.run("board.close()")
    failed = notebook.fail("scheduler.dashboard('hedder')")
    assert failed.error.startswith("ValueError: views must be some of header, progress")


# --- comparable

# Calls that end in an order of their own, one that fails, callbacks that print, a closure.
WORK = [
    PRELUDE + "\nimport random\ndef wander(n):\n    time.sleep(random.random() / 30)\n"
    "    if n == 7:\n        raise ValueError(f'bad {n}')\n    return object\n",
    "scheduler = Scheduler.with_processes(2, name='study')\ntask = scheduler.task(wander)\n"
    "@task.on_result\ndef tell(future, value):\n    print('got', future.call.id)\n"
    "held = scheduler.on_future_done(lambda future: None)\nscheduler",
    "task",
    "run = scheduler.start()\nfutures = [task.submit(n) for n in range(12)]",
    "done, _ = await asyncio.wait(futures)\nlen(done)",
    "scheduler.stop()\nawait run",
    "scheduler",
    "task",
    "run",
    "for line in scheduler.records()[:2]: print(line['id'], line['state'])",
]


def outputs(kernel: Kernel, *mimes: str) -> list[tuple[str, str]]:
    """Everything in all outputs that a comparison of notebooks looks at."""
    found: list[tuple[str, str]] = []
    for number, code in enumerate(WORK):
        cell = kernel.run(code)
        for output in cell.outputs:
            data = output.get("data", {})
            found += [(f"{number} {mime}", data[mime]) for mime in mimes if mime in data]
            if output["type"] == "stream":
                found.append((f"{number} {output['name']}", output["text"]))
    return found


def test_two_kernels_show_the_same(
    start_kernel: Callable[..., Kernel], kernel_version: str
) -> None:
    # They hash differently, so that what depends on it shows.
    twins = [start_kernel(kernel_version, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    for kernel in twins:
        kernel.run("import os\nos.environ['AMLTK_NB_STATIC'] = '1'")
    static, other = (outputs(k, "text/plain", "text/html") for k in twins)
    assert [what for what, _ in static].count("5 text/html") == 1
    assert len(static) == 15
    assert static == other
    for kernel in twins:
        kernel.run("del os.environ['AMLTK_NB_STATIC']")
    live, other = (outputs(k, "text/plain") for k in twins)
    assert len(live) >= 9
    assert live == other


# --- static mode


@pytest.fixture
def static(notebook: Kernel) -> Iterator[Kernel]:
    """The module's kernel, in static mode for one test."""
    notebook.run("import os\nos.environ['AMLTK_NB_STATIC'] = '1'")
    yield notebook
    notebook.run("del os.environ['AMLTK_NB_STATIC']")


def test_static_start_displays_nothing_and_await_once(static: Kernel) -> None:
    since = len(static.comms)
    static.run(MAKE)
    start = static.run("run = scheduler.start()\nfutures = task.map([1, 2])")
    assert start.outputs == []
    wait = static.run("await scheduler.gather(futures)\nscheduler.stop()\nawait run")
    assert [o["type"] for o in wait.outputs] == ["display_data", "execute_result"]
    assert [set(bundle) for bundle in wait.displays] == [{"text/html", "text/plain"}]
    assert wait.displays[0]["text/plain"].startswith("╭─ Scheduler: finished (stopped) ─")
    again = static.run("await run")
    assert [o["type"] for o in again.outputs] == ["execute_result"]
    assert len(static.comms) == since


def test_static_run_displays_once(static: Kernel) -> None:
    static.run(MAKE + "held = scheduler.on_start(lambda: task(1))")
    cell = static.run("scheduler.run()")
    assert [o["type"] for o in cell.outputs] == ["display_data", "execute_result"]
    assert [set(bundle) for bundle in cell.displays] == [{"text/html", "text/plain"}]
    assert cell.displays[0]["text/plain"].startswith("╭─ Scheduler: finished (exhausted) ─")


def test_static_parts_hold_no_widget(static: Kernel) -> None:
    static.run(MAKE + "run = scheduler.start()")
    for code in ("scheduler", "task", "scheduler.dashboard()"):
        (bundle,) = static.run(code).displays
        assert set(bundle) == {"text/html", "text/plain"}
