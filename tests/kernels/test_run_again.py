"""Cells that are run again: nothing piles up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amltk_nb.views.widget import N_FROZEN
from tests.kernels.cells import PRELUDE, servants
from tests.kernels.kernel import Execution, Kernel

CELLS = {
    "define": PRELUDE + "\ndef f(x):\n    return x * x",
    "make": "former, scheduler = globals().get('scheduler'), Scheduler.with_processes(2)",
    "task": """
task = scheduler.task(f)

@task.on_result
def tell(future, value):
    told.append(value)

@scheduler.on_future_done
def count(future):
    done.append(future)

@scheduler.on_future_done
def count_too(future):
    done.append(future)
""",
    "start": "told, done = [], []\nrun = scheduler.start()",
    "work": "await scheduler.gather(task.map(range(10)))",
}
VIEW = "application/vnd.jupyter.widget-view+json"
CALLBACKS = (
    "[(e.name, [c.n_calls for c in e.callbacks])"
    " for e in (*scheduler.snapshot().events, *scheduler.snapshot().tasks[0].events)"
    " if e.callbacks]"
)


def run_all(kernel: Kernel, *, with_ids: bool) -> list[Execution]:
    """Run all cells once, as "Run all" does; without ids, as nbval does."""
    return [kernel.run(code, cell_id=name if with_ids else None) for name, code in CELLS.items()]


def live_views(kernel: Kernel, since: int = 0) -> int:
    """How many live dashboards the page shows, updates by display id applied.

    Those of a cell that runs again are closed: its page has taken them away by then.

    Args:
        since: how many messages of the kernel to leave out.
    """
    shown = {}
    for message in kernel.iopub[since:]:
        if message["msg_type"] in ("display_data", "update_display_data"):
            content = message["content"]
            shown[content["transient"]["display_id"]] = content["data"].get(VIEW)
    views = [view["model_id"] for view in shown.values() if view is not None]
    return sum(not kernel.comms[view].closed for view in views)


def open_dashboards(kernel: Kernel) -> int:
    """How many dashboards could still answer, those that were frozen included."""
    return sum(c.model == "AnyModel" and not c.closed for c in kernel.comms.values())


@pytest.mark.parametrize("with_ids", [True, False], ids=["ids", "no-ids"])
def test_three_times_is_as_once(notebook: Kernel, with_ids: bool) -> None:
    since = len(notebook.iopub)
    n_processes = []
    for n_run in range(3):
        run_all(notebook, with_ids=with_ids)
        assert notebook.run("sum(told), len(done)").result == "(285, 20)"
        assert notebook.run(CALLBACKS).result == (
            "[('on_future_done', [10, 10]), ('on_result', [10])]"
        )
        assert notebook.run("[t.ref for t in scheduler.tasks]").result == "['Task-f-1']"
        assert notebook.run("amltk_nb.schedulers() == [scheduler]").result == "True"
        if n_run:
            ended = "await former.last_run.over(), former.last_run.reason"
            assert notebook.run(ended).result == (
                "(ExitState(stopped), 'the cell that made it was run again')"
            )
        assert live_views(notebook, since) == 1
        n_processes.append(len(servants(notebook)))
    assert n_processes == [2, 2, 2]


REUSED = {
    **CELLS,
    "make": PRELUDE
    + "\nif 'scheduler' not in globals():\n    scheduler = Scheduler.with_processes(2)",
}


def test_a_scheduler_that_is_kept_gets_nothing_twice(
    start_kernel: Callable[[str], Kernel], kernel_version: str
) -> None:
    kernel = start_kernel(kernel_version)
    for _ in range(3):
        for name, code in REUSED.items():
            kernel.run(code, cell_id=name)
        assert kernel.run("sum(told), len(done)").result == "(285, 20)"
    assert kernel.run("[len(h) for h in (told, done)], scheduler.n_runs").result == (
        "([10, 20], 3)"
    )
    assert kernel.run(CALLBACKS).result == "[('on_future_done', [10, 10]), ('on_result', [10])]"
    assert kernel.run("[(t.ref, t.n_called) for t in scheduler.tasks]").result == (
        "[('Task-f-1', 10)]"
    )
    assert live_views(kernel) == 1
    assert len(servants(kernel)) == 2


def test_one_cell_alone_run_again_replaces_its_callbacks_in_place(notebook: Kernel) -> None:
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)\norder = []", cell_id="make")
    first = "@scheduler.on_future_result\ndef first(future, value):\n    order.append('{}')"
    second = "@scheduler.on_future_result\ndef second(future, value):\n    order.append('second')"
    notebook.run(first.format("old"), cell_id="first")
    notebook.run(second, cell_id="second")
    notebook.run("run = scheduler.start(display=False)", cell_id="start")
    notebook.run("await scheduler.submit(double, 1)", cell_id="work")
    notebook.run(first.format("new"), cell_id="first")
    notebook.run("await scheduler.submit(double, 1)", cell_id="work")
    assert notebook.run("order").result == "['old', 'second', 'new', 'second']"


def test_functions_of_one_name_from_different_cells_both_stay(notebook: Kernel) -> None:
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)\nsaid = []", cell_id="make")
    code = "@scheduler.on_future_result\ndef say(future, value):\n    said.append('{}')"
    for cell in ("a", "b", "a"):
        notebook.run(code.format(cell), cell_id=cell)
    notebook.run("run = scheduler.start(display=False)\nawait scheduler.submit(double, 1)")
    assert notebook.run("said").result == "['a', 'b']"
    cells = "[c.cell for e in scheduler.snapshot().events for c in e.callbacks]"
    shown = notebook.run(f"*_, a, b = {cells}\na != b, a[0] + a[-1], b[0] + b[-1]")
    assert shown.result == "(True, '[]', '[]')"


def test_a_loop_in_one_cell_registers_each_time(notebook: Kernel) -> None:
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)\nsaid = []", cell_id="make")
    loop = (
        "for n in range(3):\n    @scheduler.on_future_result\n"
        "    def say(future, value, n=n):\n        said.append(n)"
    )
    for _ in range(2):
        notebook.run(loop, cell_id="loop")
    notebook.run("run = scheduler.start(display=False)\nawait scheduler.submit(double, 1)")
    assert notebook.run("said").result == "[0, 1, 2]"


def test_starting_again_from_the_same_cell_replaces_the_run(notebook: Kernel) -> None:
    since = len(notebook.iopub)
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)", cell_id="make")
    notebook.run("run = scheduler.start()", cell_id="start")
    notebook.run("first = run\nawait scheduler.submit(double, 1)")
    notebook.run("run = scheduler.start()", cell_id="start")
    assert notebook.run("first.exit_state, first.reason").result == (
        "(ExitState(stopped), 'the cell that started it was run again')"
    )
    assert notebook.run("await scheduler.submit(double, 2), scheduler.n_runs").result == "(4, 2)"
    assert live_views(notebook, since) == 1


def test_a_cell_that_starts_another_scheduler_leaves_calls_to_be_recovered(
    notebook: Kernel,
) -> None:
    make = "scheduler = Scheduler.with_threads(1{})"
    start = "run = scheduler.start(display=False)"
    notebook.run(PRELUDE + "\n" + make.format(', journal="left.db"'), cell_id="make")
    notebook.run(start, cell_id="start")
    notebook.run("first = scheduler\nfirst.pause()\nleft = first.submit(double, 1)")
    notebook.run(make.format(""), cell_id="make another")
    notebook.run(start, cell_id="start")
    notebook.run("state = await first.last_run")
    states = "[record['state'] for record in first.journal.records()]"
    assert notebook.run(f"state, left.cancelled(), {states}").result == (
        "(ExitState(stopped), True, ['unfinished'])"
    )
    notebook.run("first.journal.close()")


def test_frozen_dashboards_answer_reloaded_pages_but_only_the_latest(
    start_kernel: Callable[[str], Kernel],
) -> None:
    kernel = start_kernel("7.4")
    kernel.run(PRELUDE + "\nscheduler = Scheduler.with_sequential()")
    once = "run = scheduler.start()\nscheduler.stop()\nawait run"
    for n in range(N_FROZEN + 2):
        kernel.run(once, cell_id=f"start {n}")
    assert (live_views(kernel), open_dashboards(kernel)) == (0, N_FROZEN)
    kernel.run(once, cell_id=f"start {N_FROZEN}")
    assert open_dashboards(kernel) == N_FROZEN, "of a cell that runs again the former one is closed"
