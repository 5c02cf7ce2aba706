"""The environment that Binder builds, built here, with notebooks run in it to their ends."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.environments import ENVIRONMENTS, ROOT

# These two need the most: models and pictures, and the engines beside them.
NAMES = ("01_quickstart", "05_outgrow_one_machine")


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of Binder's environment."""
    return ENVIRONMENTS["binder"].ready()


def test_amltk_nb_is_installed_not_linked(python: Path) -> None:
    code = "import amltk_nb, pathlib; print(pathlib.Path(amltk_nb.__file__).parent)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    installed = Path(done.stdout.strip())
    assert installed.is_relative_to(python.parent.parent)
    bundle = [path.name for path in sorted((installed / "views" / "static").iterdir())]
    assert bundle == ["widget.css", "widget.js"]
    assert not (installed / "views" / "js").exists()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_in_it(name: str, python: Path, tmp_path: Path) -> None:
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    copy = tmp_path / notebook.name
    copy.write_bytes(notebook.read_bytes())
    command = [str(python.parent / "jupyter"), "execute", "--inplace", str(copy)]
    # The start script is part of what Binder does; a jupyter that is found only there is used.
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "AMLTK_NB_STATIC": "1", "PATH": path, "IPYTHONDIR": str(tmp_path / "ip")}
    start = str(ROOT / "binder" / "start")
    done = subprocess.run([start, *command], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [o for c in json.loads(copy.read_text())["cells"] for o in c.get("outputs", [])]
    assert [o["evalue"] for o in outputs if o["output_type"] == "error"] == []
    assert any("image/png" in o.get("data", {}) for o in outputs), "it ends with a plot"
