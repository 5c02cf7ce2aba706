"""The examples about events and tasks as plain scripts, and what a type checker says of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guides.expected_tasks import EXACTLY, EXAMPLES, PRINTED, TELL, UNCERTAIN, check
from tests.guides.test_scripts import PYTHON, run

# Those of which a worker that imported the main module would make something else.
TELLING = [path for path in EXAMPLES if path.stem[:2] in ("29", "32", "39")]
TYPED = [path for path in EXAMPLES if path.stem[:2] in ("04", "32", "35", "37", "39")]


def test_every_example_has_its_expectation() -> None:
    names = [path.stem for path in EXAMPLES]
    assert len(names) == 39
    assert sorted([*EXACTLY, *PRINTED, *UNCERTAIN]) == names
    assert [path.name for path in EXAMPLES if "__main__" in path.read_text()] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_by_path(path: Path, tmp_path: Path) -> None:
    script = tmp_path / path.name
    script.write_text(path.read_text() + TELL)
    check(path.stem, run([*PYTHON, str(script)], cwd=tmp_path))


@pytest.mark.parametrize("path", TELLING, ids=lambda p: p.stem)
def test_by_path_with_spawn(path: Path, tmp_path: Path) -> None:
    script = tmp_path / path.name
    source = re.sub(r"(with_processes\(\d)\)", r'\1, mp_context="spawn")', path.read_text())
    assert source.count('"spawn"') == 1
    script.write_text(source + TELL)
    check(path.stem, run([*PYTHON, str(script)], cwd=tmp_path))


def test_the_misfit_is_all_that_a_type_checker_finds() -> None:
    options = [
        "--config-file=",
        "--check-untyped-defs",
        "--warn-unused-ignores",
        "--no-error-summary",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, TYPED)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=50,
    )
    assert (done.returncode, done.stdout) == (0, "")
