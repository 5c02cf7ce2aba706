"""The interrupt button: it stops a wait or a blocking run, and nothing else."""

from __future__ import annotations

import time

import pytest

from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Execution, Kernel

START = PRELUDE + "\nscheduler = Scheduler.with_processes(2)\n"


def interrupted(kernel: Kernel, code: str) -> Execution:
    """Run a cell, press ■ once it has said "on", and wait until it has ended."""
    cell = kernel.execute("print('on', flush=True)\n" + code)
    kernel.wait_output(cell, "on\n")
    kernel.interrupt()
    return kernel.wait_done(cell, timeout_s=10)


# In short steps: a signal that comes in the instant between Python's last look and one long sleep
# would be seen only after that sleep.
BLOCK = "for _ in range(6000): time.sleep(0.01)"

# The one line that a stopped wait says.
GOES_ON = (
    "on\nStopped waiting; 'scheduler' runs on in the background. "
    "End it with its Stop button or .stop().\n"
)


def test_it_stops_the_wait_and_not_the_run(notebook: Kernel, gate: Gate) -> None:
    notebook.run(
        START
        + "run = scheduler.start(end_on_empty=True)\n"
        + f"futures = [scheduler.submit(through, {gate}, n) for n in range(5)]"
    )
    cell = interrupted(notebook, "await run")
    assert cell.status == "error"
    assert cell.stdout == GOES_ON
    assert notebook.run("run.done(), counts(scheduler)").result == (
        "(False, {'queued': 3, 'running': 2})"
    )
    gate.open()
    assert notebook.run("await run").result == "ExitState(exhausted)"
    assert notebook.run("[f.result() for f in futures]").result == "[0, 1, 2, 3, 4]"


def test_it_stops_the_wait_for_a_call_and_not_the_call(notebook: Kernel, gate: Gate) -> None:
    notebook.run(START + f"run = scheduler.start()\nfuture = scheduler.submit(through, {gate}, 7)")
    assert interrupted(notebook, "await future").status == "error"
    assert interrupted(notebook, "await scheduler.gather([future])").status == "error"
    gate.open()
    assert notebook.run("await future").result == "7"
    assert notebook.run("counts(scheduler)").result == "{'done': 1}"


def test_it_ends_a_run_that_asked_for_it(notebook: Kernel, gate: Gate) -> None:
    notebook.run(
        START
        + "run = scheduler.start(on_interrupt='stop')\n"
        + f"futures = [scheduler.submit(through, {gate}, n) for n in range(5)]"
    )
    cell = interrupted(notebook, "await run")
    assert (cell.status, cell.stdout) == ("error", "on\n")
    assert notebook.run("run.done(), run.exit_state").result == "(True, ExitState(stopped))"
    assert notebook.run("counts(scheduler)").result == "{'cancelled': 5}"


def test_it_ends_a_blocking_run(notebook: Kernel, gate: Gate) -> None:
    notebook.run(
        START
        + "ends = []\nscheduler.on_finished(lambda: ends.append('finished'))\n"
        + f"held = scheduler.on_start(lambda: scheduler.map(through, [{gate}] * 5, range(5)))\n"
        + "scheduler.on_start(lambda: print('started', flush=True))"
    )
    cell = notebook.execute("scheduler.run()")
    notebook.wait_output(cell, "started\n")
    pressed = time.monotonic()
    notebook.interrupt()
    notebook.wait_done(cell, timeout_s=10)
    assert cell.error.startswith("KeyboardInterrupt")
    assert time.monotonic() - pressed < 3
    assert notebook.run("scheduler.last_run.exit_state, counts(scheduler), ends").result == (
        "(ExitState(stopped), {'cancelled': 5}, ['finished'])"
    )
    gate.open()
    assert notebook.run("repr(scheduler.run())").stdout == "started\n"
    assert notebook.run("scheduler.last_run.exit_state, counts(scheduler)").result == (
        "(ExitState(exhausted), {'done': 5, 'cancelled': 5})"
    )


def test_it_leaves_the_handler_as_it_was(notebook: Kernel) -> None:
    notebook.run(START + "import signal\nbefore = signal.getsignal(signal.SIGINT)\nscheduler.run()")
    cell = notebook.run("signal.getsignal(signal.SIGINT) is before")
    assert cell.result == "True"
    assert interrupted(notebook, BLOCK).error == "KeyboardInterrupt: "


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_ten_times_idle_and_busy_lose_nothing(
    notebook: Kernel, gate: Gate, start_method: str
) -> None:
    notebook.run(
        PRELUDE
        + f"\nscheduler = Scheduler.with_processes(2, mp_context={start_method!r})\n"
        + "told = []\nscheduler.on_future_result(lambda future, value: told.append(value))\n"
        + "run = scheduler.start(display=False)\n"
        + "await scheduler.gather(scheduler.map(double, range(2)))\n"
        + "pids = [w.pid for w in scheduler.snapshot().workers]\nprint(len(pids))"
    )
    for _ in range(2):  # nothing runs, anywhere
        notebook.interrupt()
    notebook.run(f"futures = scheduler.map(through, [{gate}] * 40, range(40))")
    for _ in range(2):  # calls run, no cell does
        notebook.interrupt()
    for _ in range(3):  # a cell blocks
        assert interrupted(notebook, BLOCK).error == "KeyboardInterrupt: "
    for _ in range(3):  # a cell awaits
        assert interrupted(notebook, "await run").stdout == GOES_ON
    assert notebook.run("counts(scheduler)").result == "{'queued': 38, 'running': 2, 'done': 2}"
    gate.open()
    assert notebook.run("sum(await scheduler.gather(futures))").result == "780"
    assert notebook.run("counts(scheduler), len(told), sum(told)").result == (
        "({'done': 42}, 42, 782)"
    )
    assert notebook.run("pids == [w.pid for w in scheduler.snapshot().workers]").result == "True"


def test_it_reaches_no_worker_that_is_starting(notebook: Kernel) -> None:
    # Between its start and its first own instruction a worker has no say in what signals do.
    notebook.run(
        PRELUDE
        + "import signal\nfrom contextlib import suppress\n"
        + "scheduler = Scheduler.with_processes(2)\nrun = scheduler.start(display=False)"
    )
    cell = notebook.run(
        """
futures = scheduler.map(double, range(20))
old = signal.signal(signal.SIGINT, signal.SIG_IGN)  # only for the kernel itself
end = time.monotonic() + 0.3
while time.monotonic() < end:
    os.killpg(0, signal.SIGINT)
    time.sleep(0.002)
signal.signal(signal.SIGINT, old)
print(sum(await scheduler.gather(futures)), counts(scheduler))
"""
    )
    assert cell.stdout == "380 {'done': 20}\n"
