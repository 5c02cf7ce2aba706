"""The interrupt button at random moments of a busy notebook: nothing of the run is lost.

Short here; `make chaos` presses it 50 times in each kernel (AMLTK_NB_CHAOS=1). Cells that end just
then are left out: ipykernel itself may lose its answer for such a one, without this package too.
"""

from __future__ import annotations

import ast
import random
import time
from dataclasses import dataclass

import pytest

from tests.chaos.figures import IS_LONG, report
from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Execution, Kernel

N_ROUNDS = 5 if IS_LONG else 1  # through all situations
PATIENCE_S = 3.0  # then somebody at a notebook presses again
MOST_PRESSES = 4  # for one cell
MOST_S = 30.0

# Eight short calls are under way all the time: each result submits the next call.
BUSY = """
from IPython.display import display

def tick(n):
    time.sleep(0.002)
    return n

scheduler = Scheduler.with_processes(2, name="busy")
told, going = [], True

@scheduler.on_future_result
def again(future, value):
    told.append(future.call.id)
    if going and future.call.fn is tick:
        scheduler.submit(tick, value + 1)

async def used(other):
    # The interrupt may have come before the start, in the middle of it or after it.
    if other.last_run is not None and not other.last_run.done():
        other.stop(wait=False)
        await other.last_run.over()
    run = other.start(display=False, end_on_empty=True)
    future = other.submit(double, 21)
    return str(await run), future.result()

def pids():
    return sorted(w.pid for w in scheduler.snapshot().workers)

run = scheduler.start(display=False, end_on_empty=True)
held = scheduler.submit(through, gate, "held")
for n in range(8):
    scheduler.submit(tick, n)
while len(told) < 50 or len(pids()) < 2:
    await asyncio.sleep(0.01)
workers = pids()
many, others = [], []
"""

NESTED = """
nested = Scheduler.with_processes(1, name="nested")
others.append(nested)
is_first = True
@nested.on_start
def once():
    global is_first
    if is_first:
        is_first = False
        nested.submit(time.sleep, 60)
nested.run(display=False)
"""

START = """
other = Scheduler.with_processes(1)
others.append(other)
other.start()
for _ in range(6000): time.sleep(0.01)
"""


@dataclass(frozen=True)
class Situation:
    """How a cell is busy when it is interrupted."""

    cell: str  # "": there is none
    most_s: float  # at most so long after its first word


SITUATIONS = {
    "no cell": Situation("", 0.05),
    "a blocking cell": Situation("for _ in range(6000): time.sleep(0.01)", 0.1),
    "a computing cell": Situation("n = 0\nwhile True: n += 1", 0.1),
    "awaiting the run": Situation("await run", 0.1),
    "awaiting a call": Situation("await held", 0.1),
    "gathering": Situation("await scheduler.gather([held])", 0.1),
    "a run() inside of the cell": Situation(NESTED, 0.15),
    "start()": Situation(START, 0.02),
    "submitting": Situation(
        "for _ in range(20000): many.append(scheduler.submit(double, 1))", 0.15
    ),
    "displaying": Situation("for _ in range(20): display(scheduler)\nawait held", 0.1),
}


# Those whose cell is over by itself, should Python drop the interrupt.
MAY_END = ("no cell", "submitting")


def pressed(kernel: Kernel, situation: Situation, seeded: random.Random) -> tuple[str, int]:
    """Press ■ at some moment of a cell that says when it begins, and wait until it has ended.

    Returns:
        The name of its error, and how often ■ was pressed.
    """
    cell: Execution | None = None
    if situation.cell:
        cell = kernel.execute("print('on', flush=True)\n" + situation.cell)
        kernel.wait_output(cell, "on\n")
    time.sleep(seeded.uniform(0, situation.most_s))
    kernel.interrupt()
    if cell is None:
        return "", 1
    for n_presses in range(1, MOST_PRESSES + 1):
        try:
            kernel.wait_done(cell, timeout_s=PATIENCE_S)
            return cell.error.partition(":")[0], n_presses
        except TimeoutError:
            # Python drops an interrupt that comes in a callback of its garbage collector, and
            # ipykernel has one there.
            kernel.interrupt()
    raise AssertionError(f"■ was pressed {MOST_PRESSES} times, and the cell goes on: {cell}")


@pytest.mark.timeout(300)
def test_at_random_moments_of_a_busy_notebook(
    notebook: Kernel, gate: Gate, kernel_version: str
) -> None:
    notebook.run(f"{PRELUDE}\ngate = {gate}\n{BUSY}")
    seeded = random.Random(kernel_version)
    order = list(SITUATIONS) * N_ROUNDS
    seeded.shuffle(order)
    n_presses = 0
    for name in order:
        error, n = pressed(notebook, SITUATIONS[name], seeded)
        n_presses += n
        assert error in ("KeyboardInterrupt", "CancelledError") or name in MAY_END, (name, error)
        # What ran in the background runs on, and takes new calls.
        n_told = int(notebook.run("len(told)").result)
        cell = notebook.run(f"while len(told) <= {n_told}: await asyncio.sleep(0.002)\nrun.done()")
        assert (cell.result, name) == ("False", name)
        assert notebook.run("await scheduler.submit(double, 21)").result == "42"
    assert notebook.run("pids() == workers").result == "True"
    gate.open()
    started_again = ast.literal_eval(notebook.run("[await used(other) for other in others]").result)
    assert set(started_again) <= {("exhausted", 42)}
    n_calls = finished(notebook)
    report(
        "interrupts",
        ipykernel=kernel_version,
        situations=len(order),
        presses=n_presses,
        calls=n_calls,
        done=n_calls,
        failed_or_cancelled=0,
        without_end=0,
        workers_lost=0,
        schedulers_started_again=len(started_again),
    )


def finished(notebook: Kernel) -> int:
    """Let the run end and see that every call that it took is done; returns how many that were."""
    notebook.run("going = False\nstate = await run", timeout_s=60)
    assert notebook.run("state").result == "ExitState(exhausted)"
    n_calls = int(notebook.run("run.traffic.n_accepted").result)
    assert n_calls > 100
    assert notebook.run("counts(scheduler)").result == str({"done": n_calls})
    assert notebook.run("len(told), len(set(told))").result == str((n_calls, n_calls))
    assert notebook.run("{future.result() for future in many} <= {2}").result == "True"
    assert notebook.run("texts(scheduler)").result == "[]"
    return n_calls
