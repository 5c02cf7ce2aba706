"""`%amltk` and `%%task`, in a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernels.cells import PRELUDE, Gate
from tests.kernels.kernel import Kernel

VIEW = "application/vnd.jupyter.widget-view+json"
MAKE = PRELUDE + "\nscheduler = Scheduler.with_processes(2, name='search')\n"


@pytest.fixture
def loaded(notebook: Kernel) -> Iterator[Kernel]:
    notebook.run("%load_ext amltk_nb")
    notebook.run(MAKE)
    yield notebook
    notebook.run("scheduler.stop(wait=False)")
    notebook.run("await run if 'run' in globals() else None")
    notebook.run("del scheduler; globals().pop('run', None)")


def test_a_cell_is_a_task_and_its_last_line_the_result(loaded: Kernel) -> None:
    loaded.run("%%task evaluate n factor=2\nbase = n * 10\nbase * factor")
    loaded.run("run = scheduler.start(display=False)")
    assert loaded.run("print(evaluate.ref, await evaluate.submit(4))").stdout == (
        "Task-evaluate-1 80\n"
    )
    loaded.run("%%task evaluate n factor=3\nn * factor")
    assert loaded.run("print(evaluate.ref, await evaluate.submit(4, factor=5))").stdout == (
        "Task-evaluate-2 20\n"
    )


def test_it_runs_again_like_any_cell(loaded: Kernel) -> None:
    cell = "%%task greet name='you' punctuation=['!', '?']\nreturn f'hello {name}{punctuation[0]}'"
    for _ in range(2):
        loaded.run(cell, cell_id="greeting")
    loaded.run("run = scheduler.start(display=False)")
    assert loaded.run("print(greet.ref, await greet.submit())").stdout == (
        "Task-greet-1 hello you!\n"
    )
    assert loaded.run("print(len(scheduler.tasks))").stdout == "1\n"


def test_an_error_points_at_the_line_of_the_cell(loaded: Kernel) -> None:
    loaded.run("%%task broken n\na = 1\nreturn a / n")
    loaded.run("run = scheduler.start(display=False)")
    cell = loaded.fail("await broken.submit(0)")
    assert "return a / n" in "\n".join((cell.reply or {})["traceback"])


def test_the_dashboard_and_the_verbs(loaded: Kernel, gate: Gate) -> None:
    loaded.run("run = scheduler.start(display=False)")
    (bundle,) = loaded.run("%amltk").displays
    assert VIEW in bundle
    (bundle,) = loaded.run("%amltk scheduler").displays
    assert VIEW in bundle
    assert "starts no new calls" in loaded.run("%amltk pause").stdout
    assert loaded.run("print(scheduler.state)").stdout == "paused\n"
    assert loaded.run("%amltk resume search").stdout == "'search' goes on.\n"
    loaded.run("scheduler.on_future_exception(lambda: print('oh'))")
    loaded.run("failed = scheduler.submit(int, 'x')")
    loaded.run("print(type((await scheduler.gather([failed], return_exceptions=True))[0]))")
    assert loaded.run("%amltk resubmit failed").stdout == "1 failed call was submitted again.\n"
    assert loaded.run("%amltk log").stdout.endswith(": oh\n")
    loaded.run(f"held = scheduler.submit(through, {gate}, 1)")
    assert loaded.run("%amltk kill").stdout == "'search' stops and ends its running calls.\n"
    assert loaded.run("print((await run).code)").stdout == "stopped\n"
    assert loaded.run("%amltk stop search").stdout == "'search' is not running.\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("%amltk nobody", "No one scheduler 'nobody'; name one of scheduler"),
        ("%amltk stop scheduler now", "there are stop, kill, pause, resume, resubmit, log"),
        ("%%task 1st n\n1", "write a name, then parameters"),
        ("%%task f n=)\n1", "n=) is no Python value"),
        ("%%task f n n=1\n1", "write a name, then parameters"),
        ("%%task f n\n\n", "no code below"),
        ("other = Scheduler.with_threads(1)\n%amltk", "There are several schedulers; name one"),
    ],
)
def test_what_is_wrong_is_said(loaded: Kernel, code: str, said: str) -> None:
    cell = loaded.wait_done(loaded.execute(code))
    loaded.run("globals().pop('other', None)")
    assert said in cell.stderr + cell.error


def test_without_a_scheduler_it_says_how_to_make_one(notebook: Kernel) -> None:
    notebook.run("%load_ext amltk_nb")
    cell = notebook.wait_done(notebook.execute("%amltk"))
    assert "There is no scheduler yet" in cell.stderr + cell.error
