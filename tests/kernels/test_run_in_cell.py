"""`run()` inside of a cell: it blocks the cell, prints into it, and loses no other cell."""

from __future__ import annotations

from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Kernel

GUIDE = (
    PRELUDE
    + """
scheduler = Scheduler.with_processes(2)

@scheduler.on_start
def begin():
    print("begin")
    for n in range(3):
        scheduler.submit(double, n)

@scheduler.on_future_result
def tell(future, value):
    results.append(value)
    print("got a result")

@scheduler.on_empty
def empty():
    print("empty")

@scheduler.on_finished
def end():
    print("end")

results = []
"""
)
PRINTED = "begin\n" + 3 * "got a result\n" + "empty\nend\n"


def test_callbacks_print_into_the_running_cell(notebook: Kernel) -> None:
    define = notebook.run(GUIDE)
    cell = notebook.run("state = scheduler.run()\nprint(repr(state))")
    assert cell.stdout == PRINTED + "ExitState(exhausted)\n"
    assert (define.stdout, cell.stderr) == ("", "")
    assert notebook.run("sorted(results), texts(scheduler)").result == "([0, 2, 4], [])"


def test_it_can_run_again_and_again(notebook: Kernel) -> None:
    notebook.run(GUIDE)
    outputs = [notebook.run("state = scheduler.run()").stdout for _ in range(3)]
    assert outputs == [PRINTED] * 3
    assert notebook.run("state, sorted(results)").result == (
        "(ExitState(exhausted), [0, 0, 0, 2, 2, 2, 4, 4, 4])"
    )


def test_cells_queued_behind_it_are_not_lost(notebook: Kernel, gate: Gate) -> None:
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)\norder = []")
    running = notebook.execute(
        f"scheduler.on_start(lambda: scheduler.submit(through, {gate}))\n"
        "scheduler.on_start(lambda: print('on', flush=True))\n"
        "order.append('run')\nscheduler.run()\norder.append('ran')"
    )
    notebook.wait_output(running, "on\n")
    queued = [
        notebook.execute("order.append('a')"),
        notebook.execute("order.append('b')\nawait asyncio.sleep(0)\norder.append('c')"),
        notebook.execute("order.append('d')\norder"),
    ]
    gate.open()
    for cell in queued:
        notebook.wait_done(cell)
    assert [cell.status for cell in (running, *queued)] == ["ok"] * 4
    assert queued[-1].result == "['run', 'ran', 'a', 'b', 'c', 'd']"


def test_a_run_inside_of_a_run(notebook: Kernel) -> None:
    notebook.run(
        PRELUDE + "\nouter, inner = Scheduler.with_processes(1), Scheduler.with_processes(1)"
    )
    notebook.run(
        """
states = []
@outer.on_start
def _():
    outer.submit(double, 1)

@outer.on_future_result
def _(future, value):
    states.append(inner.run())
    print("outer", value)

@inner.on_start
def _():
    inner.submit(double, 2)

@inner.on_future_result
def _(future, value):
    print("inner", value)
"""
    )
    cell = notebook.run("states.append(outer.run())")
    assert cell.stdout == "inner 4\nouter 2\n"
    assert notebook.run("states").result == "[ExitState(exhausted), ExitState(exhausted)]"


def test_what_else_runs_on_the_loop_goes_on(notebook: Kernel, gate: Gate) -> None:
    notebook.run(
        PRELUDE
        + "\nscheduler = Scheduler.with_processes(1)\n"
        + "background = Scheduler.with_processes(1)\nother = background.start(display=False)"
    )
    # The call in the blocking run waits for what only happens if the other run is served.
    cell = notebook.run(
        f"""
held = scheduler.on_start(lambda: scheduler.submit(through, {gate}))
background.on_future_result(lambda future, value: told.append(value))
told = []
@scheduler.on_start
def _():
    future = background.submit(double, 21)
    future.add_done_callback(lambda _: scheduler.stop(wait=False))
state = scheduler.run(on_cancelled="raise")
print(repr(state), told)
"""
    )
    assert cell.stdout == "ExitState(stopped) [42]\n"


def test_async_run_prints_into_its_cell(notebook: Kernel) -> None:
    notebook.run(GUIDE)
    cell = notebook.run("repr(await scheduler.async_run())")
    assert (cell.stdout, cell.result) == (PRINTED, "'ExitState(exhausted)'")


def test_a_with_block_ends_when_nothing_is_left(notebook: Kernel) -> None:
    notebook.run(PRELUDE)
    cell = notebook.run(
        "with Scheduler.with_processes(2) as scheduler:\n"
        "    futures = scheduler.map(double, range(4))\n"
        "print([f.result() for f in futures], repr(scheduler.last_run.exit_state))"
    )
    assert cell.stdout == "[0, 2, 4, 6] ExitState(exhausted)\n"


def test_an_error_of_a_call_is_raised_in_the_cell(notebook: Kernel) -> None:
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)")
    failed = notebook.fail(
        "scheduler.on_start(lambda: scheduler.submit(int, 'x'))\nscheduler.run()"
    )
    assert failed.error == "ValueError: invalid literal for int() with base 10: 'x'"
    assert notebook.run("1 + 1").result == "2"
    assert notebook.run("scheduler.last_run.exit_state.code, scheduler.running()").result == (
        "(<ExitCode.EXCEPTION: 'exception'>, False)"
    )


def test_results_can_be_gathered_after_a_blocking_run(notebook: Kernel) -> None:
    # Nesting the loop puts another class in the place of asyncio.Future.
    notebook.run(PRELUDE + "\nScheduler.with_sequential().run()")
    cell = notebook.run(
        "scheduler = Scheduler.with_processes(2)\n"
        "run = scheduler.start()\n"
        "results = await scheduler.gather(scheduler.map(double, range(3)))\n"
        "async for future in scheduler.as_completed([scheduler.submit(double, 5)]):\n"
        "    results.append(await future)\n"
        "scheduler.stop()\n"
        "print(results, repr(await run))"
    )
    assert cell.stdout == "[0, 2, 4, 10] ExitState(stopped)\n"
