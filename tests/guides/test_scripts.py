"""The examples as plain scripts without a main guard: by path, by `-c` and from stdin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guides.expected import EXACTLY, EXAMPLES, TELL, UNCERTAIN, check

# A warning is an error here, and one that is only printed makes stderr not empty.
PYTHON = [sys.executable, "-W", "error"]
# Those of which a worker that imported the main module would make something else.
TELLING = [path for path in EXAMPLES if path.stem[:2] in ("01", "06", "11", "17", "19")]


def run(command: list[str], *, cwd: Path, stdin: str = "") -> str:
    """Run a script and return what it printed; it must end well and with a clean stderr."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AMLTK_NB")}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=50, cwd=cwd, env=env
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_has_its_expectation() -> None:
    names = [path.stem for path in EXAMPLES]
    assert len(names) == 19
    assert sorted([*EXACTLY, *UNCERTAIN]) == names
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


@pytest.mark.parametrize("path", TELLING, ids=lambda p: p.stem)
def test_by_c(path: Path, tmp_path: Path) -> None:
    check(path.stem, run([*PYTHON, "-c", path.read_text() + TELL], cwd=tmp_path))


@pytest.mark.parametrize("path", TELLING, ids=lambda p: p.stem)
def test_from_stdin(path: Path, tmp_path: Path) -> None:
    check(path.stem, run([*PYTHON, "-"], cwd=tmp_path, stdin=path.read_text() + TELL))
