"""Views alone in a cell, and how the parts of a run display: live, frozen, and gone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Comm, Execution, Kernel
from tests.kernels.test_display import VIEW, place_of, shown

pytestmark = pytest.mark.kernels("7.4")

ALONE = ("controls", "progress", "events", "queue", "timeline", "plugins", "log")
MAKE = (
    PRELUDE
    + "\nscheduler = Scheduler.with_processes(2, name='study')\n"
    + "task = scheduler.task(double)\nwait = scheduler.task(through)\n"
)
START = "run = scheduler.start(display=False)\n"
N_MANY = 300


def comm_of(kernel: Kernel, cell: Execution) -> Comm:
    (bundle,) = cell.displays
    return kernel.comms[bundle[VIEW]["model_id"]]


def hello(kernel: Kernel, comm: Comm) -> dict[str, Any]:
    """Show a view on a page, and return the model that it is sent."""
    kernel.send(comm, {"kind": "command", "id": 1, "name": "snapshot", "args": {}})
    kernel.wait(lambda: bool(of_kind(comm, "full", "final")), "the model")
    model: dict[str, Any] = of_kind(comm, "full", "final")[-1]["model"]
    return model


def asked(kernel: Kernel, comm: Comm, name: str, id: int) -> dict[str, Any]:
    """Have a page ask for something, and return the answer."""
    kernel.send(comm, {"kind": "command", "id": id, "name": name, "args": {}})
    kernel.wait(lambda: any(r["id"] == id for r in of_kind(comm, "reply")), f"an answer to {name}")
    return next(r for r in of_kind(comm, "reply") if r["id"] == id)


def of_kind(comm: Comm, *kinds: str) -> list[dict[str, Any]]:
    return [m for m in comm.custom if m.get("kind") in kinds]


def state_of(comm: Comm) -> str:
    """The state of the run as the last message to a page says it."""
    for message in reversed(of_kind(comm, "full", "patch", "final")):
        if "model" in message:
            return str(message["model"]["run"]["run"]["state"])
        if "run" in message["patch"]:
            return str(message["patch"]["run"]["upsert"]["run"]["state"])
    return ""


def wait_said(kernel: Kernel, cell: Execution, text: str) -> dict[str, Any]:
    """Wait until what stands under a cell says something, and return its forms."""
    place = place_of(cell)
    kernel.wait(
        lambda: text in shown(kernel, place)[-1]["text/plain"],
        f"{text!r} under a cell",
    )
    return shown(kernel, place)[-1]


# --- views alone


def test_each_view_stays_in_step_and_freezes_alone(notebook: Kernel) -> None:
    notebook.run(MAKE)
    cells = {name: notebook.run(f"scheduler.{name}()") for name in ALONE}
    comms = {name: comm_of(notebook, cell) for name, cell in cells.items()}
    for name, comm in comms.items():
        assert comm.state["views"] == [name]
        assert hello(notebook, comm)["run"]["run"]["state"] == "idle"
    sent = {name: of_kind(comm, "full")[0]["model"] for name, comm in comms.items()}
    # What a view does not show does not travel.
    assert {name for name, model in sent.items() if model["events"]} == {"events"}
    notebook.run(START + "assert await task.submit(4) == 8\nscheduler.pause()")
    for comm in comms.values():
        notebook.wait(lambda comm=comm: state_of(comm) == "paused", "every view to say paused")
    notebook.run("scheduler.log('test', 'info', 'a line')\nscheduler.stop()\nawait run")
    for name, cell in cells.items():
        frozen = shown(notebook, place_of(cell))[-1]
        assert set(frozen) == {"text/html", "text/plain"}, name
        assert frozen["text/plain"].startswith("Scheduler 'study': finished (stopped)"), name
        assert state_of(comms[name]) == "finished"
    html = {name: shown(notebook, place_of(cell))[-1]["text/html"] for name, cell in cells.items()}
    assert [n for n in ALONE if "<strong>Calls</strong>" in html[n]] == ["queue"]
    assert [n for n in ALONE if "on_start</code>" in html[n]] == ["events"]
    assert [n for n in ALONE if "a line</pre>" in html[n]] == ["log"]
    assert [n for n in ALONE if 'role="progressbar"' in html[n]] == ["progress"]
    after = notebook.run("scheduler.queue()")
    assert hello(notebook, comm_of(notebook, after))["counts"]["done"] == {"n": 1}
    notebook.run("assert scheduler.queue == {}")


def test_a_panel_gets_the_calls_of_its_task_only(notebook: Kernel, gate: Gate) -> None:
    notebook.run(MAKE + START + f"held = wait.submit({gate})\ndone = task.map([1, 2])")
    notebook.run("await scheduler.gather(done)")
    panel = comm_of(notebook, notebook.run("task.panel()"))
    model = hello(notebook, panel)
    assert sorted(model["calls"]) == ["2", "3"]
    assert {e["emitter"] for e in model["events"].values()} == {"Task-double-1"}
    assert (model["counts"]["done"], model["counts"]["running"]) == ({"n": 2}, {"n": 0})
    rows = asked(notebook, panel, "rows", 2)["value"]["rows"]
    assert [row["id"] for row in rows] == [3, 2]
    gate.open()
    notebook.run("await held\nscheduler.tasks.remove(task)\nscheduler.stop()\nawait run")
    left = notebook.run("task.panel()")
    assert hello(notebook, comm_of(notebook, left))["tasks"] == {}
    assert "no task of it any more" in left.displays[0]["text/plain"]


def test_a_cell_that_runs_again_closes_the_view_it_made(notebook: Kernel) -> None:
    notebook.run(MAKE)
    comms = [comm_of(notebook, notebook.run("scheduler.queue()", cell_id="view")) for _ in range(3)]
    assert [comm.closed for comm in comms] == [True, True, False]


def test_a_view_of_a_dropped_scheduler_says_so(notebook: Kernel) -> None:
    notebook.run(PRELUDE + "import gc, weakref\ngone = Scheduler.with_threads(1, name='gone')")
    cell = notebook.run("gone.dashboard()")
    comm = comm_of(notebook, cell)
    hello(notebook, comm)
    notebook.run("dead = weakref.ref(gone)\ndel gone\n_ = gc.collect()\nassert dead() is None")
    notebook.wait(lambda: bool(of_kind(comm, "final")), "the last word of the view")
    last = of_kind(comm, "final")[-1]["model"]["run"]["run"]
    assert last["name"] == "gone"
    assert last["cannot_start"].startswith("The scheduler is gone: nothing in the notebook")
    refused = asked(notebook, comm, "start", 2)
    assert (refused["ok"], refused["error"]) == (False, last["cannot_start"])


def test_a_run_that_nobody_has_a_name_for_goes_on(notebook: Kernel, gate: Gate) -> None:
    notebook.run(MAKE + START + f"held = wait.submit({gate}, 1)")
    notebook.run("del scheduler, task, wait, run\nimport gc\n_ = gc.collect()")
    gate.open()
    assert notebook.run("await held").result == "1"
    assert notebook.run("[s.name for s in amltk_nb.schedulers()]").result == "['study']"


# --- lines


def test_a_future_follows_its_call(notebook: Kernel, gate: Gate) -> None:
    notebook.run(MAKE + START + f"first = wait.submit({gate}, 'value')\nbad = wait.submit(0)")
    good, bad = notebook.run("first"), notebook.run("bad")
    assert good.displays[0]["text/plain"].endswith(", 'value'): under way")
    gate.open()
    told = wait_said(notebook, good, "done")
    assert told["text/plain"].endswith(", 'value'): done: 'value'")
    told = wait_said(notebook, bad, "failed")
    assert told["text/plain"] == (
        "Future of call 2, through(0): failed: TypeError: unsupported operand type(s) for +: "
        "'int' and 'str'"
    )
    assert notebook.run("[first]").result == "[<Future of call 1, through: done>]"


def test_a_batch_a_task_and_a_run_follow(notebook: Kernel, gate: Gate) -> None:
    notebook.run(MAKE + f"batch = wait.batch([({gate}, n) for n in range(3)])")
    cells = {name: notebook.run(name) for name in ("batch", "wait")}
    plain = cells["batch"].displays[0]["text/plain"]
    assert plain == "Batch of through(gate, value=None): 3 calls, not submitted"
    notebook.run(START + "_ = batch.submit()")
    cells["run"] = notebook.run("run")
    wait_said(notebook, cells["batch"], "3 calls, submitted")
    gate.open()
    told = wait_said(notebook, cells["batch"], "3 calls, done: 3 done")
    assert "3 of 3 calls ended" in told["text/html"]
    wait_said(notebook, cells["wait"], "3 done")
    notebook.run("scheduler.stop()\nawait run")
    told = wait_said(notebook, cells["run"], "<Run of 'study': stopped>")
    assert "finished (stopped)" in told["text/html"]
    assert "took" in told["text/html"]


def test_a_line_follows_in_a_cell_that_blocks(notebook: Kernel) -> None:
    notebook.run(MAKE)
    code = "shown = []\n@scheduler.on_start\ndef begin():\n    shown.append(task.submit(21))\n"
    cell = notebook.run(code + "    display(shown[0])\nscheduler.run(display=False)")
    assert wait_said(notebook, cell, "done")["text/plain"].endswith("double(21): done: 42")


def test_many_lines_cost_little_and_are_not_kept(notebook: Kernel, gate: Gate) -> None:
    """Futures shown by the hundred all end right, and what is cleared is not kept."""
    notebook.run(MAKE + START + f"held = wait.submit({gate})\nimport gc, weakref")
    cell = notebook.run(
        f"for n in range({N_MANY}):\n    display(task.submit(n))\nscheduler.pause()", cell_id="many"
    )
    places = [o["transient"]["display_id"] for o in cell.outputs]
    assert len(set(places)) == N_MANY
    sizes = [len(o["data"]["text/html"]) for o in cell.outputs]
    assert sum(sizes) < 4_000 + N_MANY * 500  # one style sheet for all of them
    notebook.run("scheduler.resume()")
    last: dict[str, str] = {}
    n_seen = 0

    def all_told() -> bool:
        nonlocal n_seen
        for message in notebook.iopub[n_seen:]:
            if message["msg_type"] == "update_display_data":
                content = message["content"]
                last[content["transient"]["display_id"]] = content["data"]["text/plain"]
        n_seen = len(notebook.iopub)
        return all(": done: " in last.get(place, "") for place in places)

    notebook.wait(all_told, "all futures to say done")
    said = [last[place].rpartition(" ")[2] for place in places]
    assert said == [str(2 * n) for n in range(N_MANY)]
    notebook.run("late = weakref.ref(wait.submit(0))\ndisplay(late())", cell_id="late")
    notebook.run("pass", cell_id="late")
    notebook.run("_ = gc.collect()\nassert late() is None or not late().done()")
    gate.open()
    notebook.run("await held\nscheduler.stop()\nawait run\n_ = gc.collect()\nassert late() is None")


def test_static_lines_say_nothing_of_the_moment(notebook: Kernel, gate: Gate) -> None:
    notebook.run("import os\nos.environ['AMLTK_NB_STATIC'] = '1'")
    try:
        notebook.run(MAKE + START + f"held = wait.submit({gate})\nsoon = wait.batch([({gate},)])")
        under_way = [notebook.run(code) for code in ("held", "soon", "scheduler.queue()")]
        gate.open()
        notebook.run("await held\nscheduler.stop()\nawait run")
        for cell in under_way:
            assert [set(o) for o in cell.displays] == [{"text/html", "text/plain"}]
        assert [len(shown(notebook, place_of(cell))) for cell in under_way[:2]] == [1, 1]
        assert "under way" in under_way[0].displays[0]["text/html"]
    finally:
        notebook.run("del os.environ['AMLTK_NB_STATIC']")
