"""Functions and classes of cells: what was defined last runs, and all of it travels."""

from __future__ import annotations

from tests.kernels.cells import PRELUDE
from tests.kernels.kernel import Kernel

START = (
    PRELUDE + "\nscheduler = Scheduler.with_processes(2)\nrun = scheduler.start(display=False)\n"
)

F_1 = "def f():\n    return 'first'"
F_2 = "def f():\n    return 'second'"


def test_a_function_defined_anew_is_what_runs_next(notebook: Kernel) -> None:
    notebook.run(START)
    notebook.run(F_1, cell_id="f")
    notebook.run("late = scheduler.task(f)\npinned = scheduler.task(f, late=False)")
    both = "await late.submit(), await pinned.submit(), await scheduler.submit(f)"
    assert notebook.run(both).result == "('first', 'first', 'first')"
    notebook.run(F_2, cell_id="f")
    assert notebook.run(both).result == "('second', 'first', 'second')"


def test_what_was_queued_before_runs_as_it_was(notebook: Kernel) -> None:
    notebook.run(START)
    notebook.run(F_1)
    notebook.run("scheduler.pause()\ntask = scheduler.task(f)\nfutures = [task.submit()]")
    notebook.run(F_2)
    cell = notebook.run(
        "futures.append(task.submit())\nscheduler.resume()\nawait scheduler.gather(futures)"
    )
    assert cell.result == "['first', 'second']"


def test_what_a_function_calls_may_be_defined_anew(notebook: Kernel) -> None:
    notebook.run(START + "task = scheduler.task(lambda: helper() + offset)")
    results = []
    for code in ("def helper(): return 1\noffset = 0", "def helper(): return 2", "offset = 10"):
        notebook.run(code)
        results.append(notebook.run("await task.submit()").result)
    assert results == ["1", "2", "12"]


def test_resubmitting_runs_the_fix(notebook: Kernel) -> None:
    notebook.run(START)
    notebook.run("@scheduler.task\ndef inverse(x):\n    return 1 / x", cell_id="one")
    notebook.run("def half(x):\n    return x / 0", cell_id="two")
    notebook.run(
        "task = scheduler.task(half)\nfutures = task.map([2, 4]) + [scheduler.submit(half, 6)]\n"
        "await asyncio.wait(futures)"
    )
    assert notebook.run("counts(scheduler)").result == "{'failed': 3}"
    notebook.run("def half(x):\n    return x / 2", cell_id="two")
    notebook.run("again = scheduler.resubmit_failed()\nresults = await scheduler.gather(again)")
    links = notebook.run(
        "sorted((f.call.resubmitted_from, f.call.attempt, f.result()) for f in again)"
    )
    assert links.result == "[(1, 2, 1.0), (2, 2, 2.0), (3, 2, 3.0)]"
    assert notebook.run("scheduler.resubmit_failed()").result == "[]"


def test_lambdas_and_closures_travel(notebook: Kernel) -> None:
    notebook.run(START + "def adder(n):\n    return lambda x: x + n\n")
    assert notebook.run("await scheduler.submit(lambda x: x * 3, 5)").result == "15"
    assert notebook.run("await scheduler.submit(adder(100), 5)").result == "105"
    cell = notebook.run("await scheduler.submit(lambda f, x: f(f(x)), adder(1), 5)")
    assert cell.result == "7"
    assert notebook.run("(await scheduler.submit(adder, 7))(1)").result == "8"


CLASSES = """
from dataclasses import dataclass

@dataclass
class Point:
    x: int
    def moved(self):
        return Point(self.x + 1)

class Broken(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.hint = "look here"

class Fussy(Exception):
    def __init__(self, *, code):
        super().__init__(f"fussy {code}")

def fail(code):
    raise Broken(code)

def fuss(code):
    raise Fussy(code=code)
"""


def test_instances_travel_both_ways(notebook: Kernel) -> None:
    notebook.run(START + CLASSES)
    cell = notebook.run("point = await scheduler.submit(Point.moved, Point(1))\npoint")
    assert cell.result == "Point(x=2)"
    assert notebook.run("type(point) is Point, point == Point(2)").result == "(True, True)"
    kept = notebook.run("(await scheduler.submit(lambda c: c, Point)) is Point")
    assert kept.result == "True"


def test_exceptions_keep_their_type(notebook: Kernel) -> None:
    notebook.run(START + CLASSES)
    cell = notebook.run(
        "try:\n    await scheduler.submit(fail, 3)\nexcept Broken as error:\n"
        "    print(type(error) is Broken, error.args, error.hint)"
    )
    assert cell.stdout == "True (3,) look here\n"
    failed = notebook.fail("await scheduler.submit(fail, 4)")
    assert failed.error == "Broken: 4"
    assert "raise Broken(code)" in "\n".join(failed.reply["traceback"])  # type: ignore[index]


def test_an_exception_keeps_its_type_whatever_its_constructor_wants(notebook: Kernel) -> None:
    notebook.run(START + CLASSES)
    failed = notebook.fail("await scheduler.submit(fuss, 4)")
    assert failed.error == "Fussy: fussy 4"
    assert "raise Fussy(code=code)" in "\n".join(failed.reply["traceback"])  # type: ignore[index]


def test_a_class_defined_anew_is_the_class_of_what_comes_back(notebook: Kernel) -> None:
    notebook.run(START + CLASSES)
    notebook.run("old = Point\nfirst = await scheduler.submit(Point.moved, Point(1))")
    notebook.run(CLASSES.replace("self.x + 1", "self.x + 10"))
    cell = notebook.run(
        "second = await scheduler.submit(Point.moved, Point(1))\n"
        "print(type(first) is old, type(second) is Point, second)"
    )
    assert cell.stdout == "True True Point(x=11)\n"


def test_a_lock_fails_its_call_and_is_named(notebook: Kernel) -> None:
    notebook.run(START)
    notebook.run(
        "locked = scheduler.submit(double, threading.Lock())\nfine = scheduler.submit(double, 3)"
    )
    failed = notebook.fail("await locked")
    assert failed.error.startswith("NotPicklableError: ")
    assert "_thread.lock" in failed.error
    assert "double" in failed.error
    assert notebook.run("await fine, counts(scheduler)").result == ("(6, {'done': 1, 'failed': 1})")


def test_a_lock_that_a_function_uses_is_named(notebook: Kernel) -> None:
    notebook.run(
        START + "lock = threading.Lock()\ndef locked():\n    with lock:\n        return 1\n"
    )
    failed = notebook.fail("await scheduler.submit(locked)")
    assert failed.error.startswith("NotPicklableError: locked() cannot travel")
    assert "it uses `lock` (a _thread.lock)" in failed.error


def test_a_lock_as_result_fails_its_call(notebook: Kernel) -> None:
    notebook.run(START + "def make():\n    import threading\n    return threading.Lock()")
    failed = notebook.fail("await scheduler.submit(make)")
    assert failed.error.startswith("NotPicklableError: the result of make() (a _thread.lock)")
    assert notebook.run("await scheduler.submit(double, 3)").result == "6"


def test_a_future_as_argument_is_told_to_be_awaited(notebook: Kernel) -> None:
    notebook.run(START + "first = scheduler.submit(double, 3)")
    failed = notebook.fail("await scheduler.submit(double, first)")
    assert failed.error.startswith("NotPicklableError: ")
    assert "await" in failed.error
    assert notebook.run("await scheduler.submit(double, await first)").result == "12"
