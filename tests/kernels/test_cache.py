"""Cached results outlive their kernel; an edited cell or a changed global finds none of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels.conftest import _environment
from tests.kernels.kernel import Kernel

START = """
import asyncio
from amltk_nb import Cache, Scheduler
scheduler = Scheduler.with_processes(1)
cache = Cache()
run = scheduler.start(display=False)
"""
WORK = """
def work(x):
    with open("marks", "a") as file:
        file.write("x")
    return Model().scaled(x)

class Model:
    def scaled(self, x):
        return x * RATE

task = scheduler.task(work, plugins=cache)
"""
ASK = "(await asyncio.wait_for(task.submit(7), 30), cache.n_hits, cache.n_misses)"
END = "scheduler.stop(); (await run).code.name"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel of the environment of the tests, which has joblib."""
    kernel = Kernel(Path(sys.executable), cwd=tmp_path, env=_environment(tmp_path))
    yield kernel
    assert kernel.close() == []


def test_results_outlive_the_kernel(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(START)
    kernel.run("RATE = 3")
    kernel.run(WORK, cell_id="work")
    assert kernel.run(ASK).result == "(21, 0, 1)"
    kernel.run(WORK, cell_id="work")  # again, unchanged
    assert kernel.run(ASK).result == "(21, 1, 1)"
    kernel.run(END)
    kernel.restart()
    kernel.run("1 + 1\n")  # cells have other numbers and files now
    kernel.run(START + "\nRATE = 3")
    kernel.run(WORK)
    assert kernel.run(ASK).result == "(21, 1, 0)"
    assert (tmp_path / "marks").read_text() == "x"
    kernel.run("RATE = 5")
    assert kernel.run(ASK).result == "(35, 1, 1)"
    kernel.run(WORK.replace("x * RATE", "x + RATE"))
    assert kernel.run(ASK).result == "(12, 1, 2)"
    kernel.run("RATE = 3")
    kernel.run(WORK)
    assert kernel.run(ASK).result == "(21, 2, 2)"
    assert (tmp_path / "marks").read_text() == "xxx"
    assert kernel.run(END).result == "'STOPPED'"
    assert (tmp_path / ".amltk_nb_cache" / ".gitignore").exists()
