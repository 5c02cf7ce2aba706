"""Runs in the background of a kernel: cells go on, workers go on, callbacks print into the log."""

from __future__ import annotations

from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Kernel

START = PRELUDE + "\nscheduler = Scheduler.with_processes(2)\nrun = scheduler.start()\n"


def test_start_returns_at_once(notebook: Kernel) -> None:
    # The first start in a kernel loads the widget library, which is not what is promised here.
    notebook.run(
        PRELUDE
        + "\nother = Scheduler.with_sequential()\nother_run = other.start()\nother.stop()\n"
        + "await other_run\nscheduler = Scheduler.with_processes(2)"
    )
    cell = notebook.run("""
        began = time.perf_counter()
        run = scheduler.start()
        futures = scheduler.map(double, range(3))
        seconds = time.perf_counter() - began
        print(seconds < 1 or seconds, run.done(), counts(scheduler))
    """)
    assert cell.stdout == "True False {'queued': 1, 'running': 2}\n"
    assert notebook.run("await scheduler.gather(futures)").result == "[0, 2, 4]"


def test_other_cells_run_while_200_calls_are_in_flight(notebook: Kernel, gate: Gate) -> None:
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)")
    notebook.run(
        "run = scheduler.start(end_on_empty=True)\n"
        f"futures = [scheduler.submit(through, {gate}, n) for n in range(200)]"
    )
    in_flight = "{'queued': 198, 'running': 2}"
    assert notebook.run("1 + 1").result == "2"
    assert notebook.run("await asyncio.sleep(0)\ncounts(scheduler)").result == in_flight
    gate.open()
    assert notebook.run("await run").result == "ExitState(exhausted)"
    assert notebook.run("counts(scheduler), sum(f.result() for f in futures)").result == (
        "({'done': 200}, 19900)"
    )


def test_a_blocking_cell_does_not_idle_the_workers(notebook: Kernel) -> None:
    notebook.run(
        START
        + """
told = []
scheduler.on_future_result(lambda future, value: told.append(value))
def nap(path, n):
    time.sleep(0.1)
    with open(path, "a") as file:
        file.write(".")
    return n
path = os.path.abspath("naps")
await scheduler.gather(scheduler.map(nap, [path] * 2, range(2)))
"""
    )
    block = """
futures = scheduler.map(nap, [path] * 120, range(120))
before = os.path.getsize(path), len(told)
time.sleep(5)
n_finished = os.path.getsize(path) - before[0]
print(n_finished, len(told) - before[1], counts(scheduler)["done"])
"""
    n_finished, n_told, n_counted = map(int, notebook.run(block).stdout.split())
    # Two workers that take 0.1 s per call can finish 100 in 5 s.
    assert 90 <= n_finished <= 102
    assert (n_told, n_counted) == (0, 2)
    after = "await scheduler.gather(futures)\nsorted(told[2:]) == list(range(120)), len(told)"
    assert notebook.run(after).result == "(True, 122)"


TALKERS = """
import sys
@scheduler.on_future_result
def say(future, value):
    print("got", value)

@scheduler.on_future_result
async def say_later(future, value):
    await asyncio.sleep(0)
    print("later", value)

@scheduler.on_future_result
def complain(future, value):
    print("alas", value, file=sys.stderr)
"""

WORK = """
print("before")
for n in range(3):
    await scheduler.submit(double, n)
    print("foreground", n)
await asyncio.sleep(0)
"""

SHOWN = "before\nforeground 0\nforeground 1\nforeground 2\n"


def test_prints_of_callbacks_go_to_the_log(notebook: Kernel) -> None:
    start = notebook.run(START)
    talkers = notebook.run(TALKERS)
    work = notebook.run(WORK)
    end = notebook.run("print('still here')\nscheduler.stop()\nawait run\nprint('and here')")
    lines = notebook.run("print(*sorted(texts(scheduler)), sep='\\n')").stdout.splitlines()
    assert lines == [f"{word} {n}" for word in ("alas", "got", "later") for n in (0, 2, 4)]
    assert [cell.stdout for cell in (start, talkers, work)] == ["", "", SHOWN]
    assert end.stdout == "still here\nand here\n"
    assert "".join(cell.stderr for cell in notebook.executions.values()) == ""


def test_the_log_says_which_callback_printed(notebook: Kernel) -> None:
    notebook.run(START + TALKERS)
    notebook.run("await scheduler.submit(double, 4)\nscheduler.stop()\nawait run")
    lines = notebook.run(
        "for r in scheduler.snapshot().log: print(r.source, r.level, r.text, sep=' | ')"
    ).stdout.splitlines()
    assert sorted(lines) == [
        "on_future_result · complain | print | alas 8",
        "on_future_result · say | print | got 8",
        "on_future_result · say_later | print | later 8",
    ]


def test_prints_of_callbacks_go_to_the_cell_that_registered_them(notebook: Kernel) -> None:
    notebook.run(PRELUDE + "\nscheduler = Scheduler.with_processes(2)")
    talkers = notebook.run(TALKERS)
    start = notebook.run("run = scheduler.start(output='cell')")
    work = notebook.run(WORK)
    notebook.run("scheduler.stop()\nawait run")
    notebook.wait_output(talkers, "later 4")
    assert sorted(talkers.stdout.splitlines()) == [
        f"{word} {n}" for word in ("got", "later") for n in (0, 2, 4)
    ]
    assert talkers.stderr == "alas 0\nalas 2\nalas 4\n"
    assert (start.stdout, work.stdout, work.stderr) == ("", SHOWN, "")
    assert notebook.run("texts(scheduler)").result == "[]"


def test_a_blocking_cell_prints_into_itself(notebook: Kernel) -> None:
    notebook.run(START + TALKERS)
    cell = notebook.run(
        "future = scheduler.submit(double, 1)\n"
        "for n in range(3):\n    print('mine', n)\n    time.sleep(0.05)"
    )
    assert cell.stdout == "mine 0\nmine 1\nmine 2\n"
    assert notebook.run("await future").result == "2"


def test_a_callback_that_fails_is_logged_and_the_run_goes_on(notebook: Kernel) -> None:
    notebook.run(START + "\n@scheduler.on_future_result\ndef bad(future, value):\n    1 / value")
    assert notebook.run("await scheduler.gather(scheduler.map(double, [0, 1]))").result == "[0, 2]"
    cell = notebook.run("scheduler.stop()\nstate = await run\nprint(state.code, state.exception)")
    assert (cell.stdout, cell.stderr) == ("stopped None\n", "")
    (line,) = notebook.run(
        "for r in scheduler.snapshot().log: print(r.source, r.level, *r.text.splitlines(), sep='|')"
    ).stdout.splitlines()
    source, level, *text = line.split("|")
    assert (source, level) == ("bad() on on_future_result", "error")
    assert "ZeroDivisionError: division by zero" in text
