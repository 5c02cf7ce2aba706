""" "Run all", twice, in one kernel: the second round shows what the first one did.

nbval starts a fresh kernel each time; this is what a reader does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels.kernel import Kernel
from tests.notebooks.saved import IGNORED, NOTEBOOKS, code_cells, kept, load


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel in static mode, in the environment of the tests."""
    env = {**os.environ, "AMLTK_NB_STATIC": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
    started = Kernel(Path(sys.executable), cwd=tmp_path, env=env, timeout_s=90)
    yield started
    assert started.close() == []


@pytest.mark.timeout(280)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_run_all_twice(path: Path, kernel: Kernel) -> None:
    cells = code_cells(load(path))
    for n_round in (1, 2):
        for cell in cells:
            done = kernel.run(cell["source"], cell_id=cell["id"])
            if cell["metadata"].get("tags") != [IGNORED]:
                where = f"{cell['id']}, round {n_round}"
                shown = kept(done.outputs, "type")
                assert (where, shown) == (where, kept(cell["outputs"], "output_type"))
    assert kernel.run("import amltk_nb; amltk_nb.schedulers()").result == "[]"
