"""What goes wrong in a cell says what to do next, by a typed error, and the kernel goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernels.cells import PRELUDE
from tests.kernels.kernel import Kernel

MAKE = PRELUDE + "\nscheduler = Scheduler.with_processes(2)\n"
START = MAKE + "run = scheduler.start(display=False)\n"


@pytest.fixture(autouse=True)
def the_kernel_still_answers(notebook: Kernel) -> Iterator[None]:
    yield
    assert notebook.run("1 + 1").result == "2"


def refused(kernel: Kernel, code: str, kind: str, *, standard: str) -> str:
    """Run a cell that must fail with a type, which is also a standard one; returns the message."""
    error = kernel.fail(code).error
    name, _, message = error.partition(": ")
    assert name == kind, error
    checked = kernel.run(
        "import amltk_nb.errors, builtins\nfrom concurrent.futures.process import *\n"
        f"kind = vars(amltk_nb.errors).get({kind!r}) or vars(builtins)[{kind!r}]\n"
        f"issubclass(kind, {standard})"
    )
    assert checked.result == "True"
    return message


def test_starting_twice(notebook: Kernel) -> None:
    notebook.run(START, cell_id="start")
    message = refused(
        notebook, "scheduler.start()", "SchedulerRunningError", standard="RuntimeError"
    )
    assert message == (
        "The scheduler 'scheduler' is running already. Submit to it as it is, or end this run "
        "first: `scheduler.stop()`, then `await run`."
    )
    assert notebook.run("run.done(), scheduler.n_runs").result == "(False, 1)"


@pytest.mark.parametrize("code", ["scheduler.run()", "await scheduler.async_run()"])
def test_running_while_running(notebook: Kernel, code: str) -> None:
    notebook.run(START)
    message = refused(notebook, code, "SchedulerRunningError", standard="RuntimeError")
    assert "end this run first: `scheduler.stop()`" in message
    assert notebook.run("await scheduler.submit(double, 2)").result == "4"


def test_submitting_before_a_start(notebook: Kernel) -> None:
    notebook.run(MAKE)
    for code in ("scheduler.submit(double, 1)", "scheduler.task(double).submit(1)"):
        message = refused(notebook, code, "SchedulerNotRunningError", standard="RuntimeError")
        assert "In a notebook start it with `run = scheduler.start()` and submit then" in message
    assert notebook.run("repr(scheduler.task(double)(1))").result == "'None'"


def test_submitting_after_the_end(notebook: Kernel) -> None:
    notebook.run(START + "scheduler.stop()\nawait run")
    message = refused(
        notebook, "scheduler.submit(double, 1)", "SchedulerNotRunningError", standard="RuntimeError"
    )
    assert "its run is finished. Start it again to submit more" in message


def test_starting_where_no_loop_runs(notebook: Kernel) -> None:
    notebook.run(MAKE)
    cell = notebook.run(
        "errors = []\ndef other():\n    try:\n        scheduler.start()\n"
        "    except Exception as error:\n        errors.append(error)\n"
        "thread = threading.Thread(target=other)\nthread.start()\nthread.join()\n"
        "print(type(errors[0]).__name__, errors[0])"
    )
    assert cell.stdout.startswith("NoRunningLoopError start() needs a running event loop")
    assert "scheduler.run()" in cell.stdout


def test_closing_the_users_executor_under_a_run(notebook: Kernel) -> None:
    notebook.run(
        PRELUDE
        + "\nfrom concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
        + "scheduler = Scheduler(pool)\nrun = scheduler.start(display=False)\n"
        + "first = await scheduler.submit(double, 1)\npool.shutdown()"
    )
    message = refused(
        notebook,
        "await scheduler.submit(double, 2)",
        "ExecutorClosedError",
        standard="RuntimeError",
    )
    assert "shut down" in message
    notebook.run("scheduler.stop()\nstate = await run")
    assert notebook.run("first, state").result == "(2, ExitState(stopped))"
    message = refused(notebook, "scheduler.start()", "ExecutorClosedError", standard="RuntimeError")
    assert "shut down" in message


def test_an_initializer_that_raises(notebook: Kernel) -> None:
    notebook.run(
        PRELUDE
        + "\ndef prepare(path):\n    raise FileNotFoundError(f'no {path} here')\n"
        + "scheduler = Scheduler.with_processes(2, initializer=prepare, initargs=('data',))\n"
        + "run = scheduler.start(display=False)\nfutures = scheduler.map(double, range(5))"
    )
    message = refused(
        notebook, "await futures[0]", "WorkerStartError", standard="BrokenProcessPool"
    )
    assert "FileNotFoundError: no data here" in message
    assert "initializer" in message
    notebook.run("await asyncio.wait(futures)")
    assert notebook.run("counts(scheduler)").result == "{'failed': 5}"
    assert notebook.run("scheduler.stop()\nawait run").result == "ExitState(stopped)"


@pytest.mark.parametrize("n_workers", [0, -1])
@pytest.mark.parametrize("make", ["with_processes", "with_threads"])
def test_too_few_workers(notebook: Kernel, make: str, n_workers: int) -> None:
    notebook.run(PRELUDE)
    message = refused(
        notebook, f"Scheduler.{make}({n_workers})", "ValueError", standard="ValueError"
    )
    assert message == (
        f"max_workers={n_workers} leaves nobody to run the calls; pass at least 1, or None for as "
        "many workers as this process may use CPUs."
    )


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("scheduler.start(timeout=-1)", "ValueError", "use 0 or more seconds"),
        ("scheduler.start(timeout='1')", "TypeError", "use a number of seconds"),
        ("scheduler.start(output='cel')", "ValueError", "use one of 'log', 'cell'"),
        ("scheduler.start(on_interrupt='go')", "ValueError", "use one of None, 'stop'"),
        ("scheduler.start(on_exception='rais')", "ValueError", "use 'raise' (end"),
        ("scheduler.on_start(print, every=0)", "ValueError", "use a whole number from 1 on"),
        ("scheduler.on('on_strat', print)", "EventNotKnownError", "on_start"),
        ("scheduler.submit(double(2))", "TypeError", "pass the function itself"),
        ("scheduler.task(7)", "TypeError", "pass the function itself"),
        ("Scheduler(3)", "TypeError", "Scheduler.with_processes(2)"),
        ("scheduler.find_call(9)", "CallNotFoundError", "No call 9 is known"),
        ("scheduler.pause()", "SchedulerNotRunningError", "scheduler.start()"),
    ],
)
def test_wrong_values(notebook: Kernel, code: str, kind: str, says: str) -> None:
    notebook.run(MAKE)
    failed = notebook.fail(code)
    assert failed.error.startswith(f"{kind}: ")
    assert says in failed.error
    assert notebook.run("str(scheduler.state)").result == "'idle'"


def test_an_exit_in_a_callback_leaves_the_kernel_alone(notebook: Kernel) -> None:
    notebook.run(
        START + "import sys\nheld = scheduler.on_future_result(lambda future, value: sys.exit(3))"
    )
    notebook.run("value = await scheduler.submit(double, 2)")
    failed = notebook.fail("await run")
    assert failed.error == "SystemExit: 3"
    assert notebook.run("value, run.exit_state.code").result == (
        "(4, <ExitCode.EXCEPTION: 'exception'>)"
    )


def test_an_exit_in_a_call_leaves_the_kernel_alone(notebook: Kernel) -> None:
    notebook.run(START + "import sys\nfuture = scheduler.submit(sys.exit, 3)")
    assert notebook.fail("await run").error == "SystemExit: 3"
    assert notebook.run("run.done(), future.done()").result == "(True, True)"
