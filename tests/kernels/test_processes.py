"""Worker processes: they outlive no kernel, and one that dies takes one call with it."""

from __future__ import annotations

import ast
import os
import signal

import psutil
import pytest

from tests.kernels.cells import PRELUDE, Gate, left_over
from tests.kernels.kernel import Kernel

METHODS = ("forkserver", "spawn", "fork")

# Two workers of each start method, so as to have them all in one kernel.
ALL_METHODS = f"""
schedulers = [Scheduler.with_processes(2, mp_context=m) for m in {METHODS}]
runs = [s.start(display=False) for s in schedulers]
futures = [f for s in schedulers for f in s.map(through, [gate] * 2)]
"""
PIDS = "sorted(w.pid for s in schedulers for w in s.snapshot().workers)"


def working(kernel: Kernel, gate: Gate) -> list[int]:
    """Have two workers of every start method come to a gate; returns their pids."""
    kernel.run(f"{PRELUDE}\ngate = {gate}\n{ALL_METHODS}")
    gate.arrived(6)
    return [int(pid) for pid in ast.literal_eval(kernel.run(PIDS).result)]


def test_none_outlives_a_killed_kernel(kernel: Kernel, gate: Gate) -> None:
    workers = working(kernel, gate)
    assert len(workers) == 6
    assert set(workers) < {p.pid for p in kernel.processes()}
    kernel.kill()
    assert kernel.survivors(within_s=3) == []


def test_none_outlives_a_restart(kernel: Kernel, gate: Gate) -> None:
    before = [psutil.Process(pid) for pid in working(kernel, gate)]
    assert len(before) == 6
    kernel.restart()
    assert psutil.wait_procs(before, timeout=3)[1] == []
    assert left_over(kernel) == []
    assert kernel.run("1 + 1").result == "2"


def test_idle_workers_do_not_outlive_a_killed_kernel(kernel: Kernel, gate: Gate) -> None:
    workers = working(kernel, gate)
    gate.open()
    assert len(ast.literal_eval(kernel.run("await asyncio.gather(*futures)").result)) == 6
    assert kernel.run(PIDS).result == str(workers)
    kernel.kill()
    assert kernel.survivors(within_s=3) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_worker_fails_its_call_and_no_other(
    notebook: Kernel, gate: Gate, method: str
) -> None:
    notebook.run(
        PRELUDE
        + f"\nscheduler = Scheduler.with_processes(2, mp_context={method!r})\n"
        + "run = scheduler.start(display=False)\n"
        + f"futures = [scheduler.submit(through, {gate}, n) for n in range(10)]"
    )
    (pid, lost), _ = gate.arrived(2)
    os.kill(pid, signal.SIGKILL)
    gate.open()
    notebook.run("results = await scheduler.gather(futures, return_exceptions=True)")
    cell = notebook.run(f"error = results.pop({lost})\nprint(type(error).__name__)\nresults")
    assert cell.stdout == "WorkerDiedError\n"
    assert cell.result == str([n for n in range(10) if n != int(lost)])
    assert "SIGKILL" in notebook.run("print(error)").stdout
    assert notebook.run("counts(scheduler)").result == "{'done': 9, 'failed': 1}"
    assert notebook.run("await scheduler.submit(double, 21)").result == "42"


def test_a_worker_that_exits_says_with_which_code(notebook: Kernel) -> None:
    notebook.run(
        PRELUDE + "\nscheduler = Scheduler.with_processes(1)\nrun = scheduler.start(display=False)"
    )
    failed = notebook.fail("await scheduler.submit(os._exit, 7)")
    assert failed.error.startswith("WorkerDiedError: ")
    assert "exit code 7" in failed.error
    assert notebook.run("await scheduler.submit(double, 1)").result == "2"


def test_one_running_call_is_ended_while_the_other_goes_on(notebook: Kernel, gate: Gate) -> None:
    notebook.run(
        PRELUDE
        + "\nscheduler = Scheduler.with_processes(2)\nrun = scheduler.start(display=False)\n"
        + f"futures = [scheduler.submit(through, {gate}, n) for n in range(2)]"
    )
    workers = {int(value): psutil.Process(pid) for pid, value in gate.arrived(2)}
    assert notebook.run("scheduler.cancel(futures[0])").result == "True"
    assert psutil.wait_procs([workers[0]], timeout=3)[1] == []
    cell = notebook.run("await asyncio.wait([futures[0]])\ncounts(scheduler)")
    assert cell.result == "{'running': 1, 'cancelled': 1}"
    assert workers[1].is_running()
    gate.open()
    assert notebook.run("await futures[1], futures[0].cancelled()").result == "(1, True)"
    assert notebook.run("counts(scheduler)").result == "{'done': 1, 'cancelled': 1}"


def test_stop_now_ends_calls_with_what_they_started(notebook: Kernel, gate: Gate) -> None:
    notebook.run(
        PRELUDE
        + """
import subprocess
def with_child(gate):
    with subprocess.Popen(["sleep", "60"]) as child:
        through(gate, child.pid)
scheduler = Scheduler.with_processes(1)
run = scheduler.start(display=False)
"""
        + f"future = scheduler.submit(with_child, {gate})"
    )
    ((pid, child),) = gate.arrived(1)
    family = [psutil.Process(pid), psutil.Process(int(child))]
    cell = notebook.run("scheduler.stop(wait=False)\nawait run\ncounts(scheduler)")
    assert cell.result == "{'cancelled': 1}"
    assert psutil.wait_procs(family, timeout=3)[1] == []
