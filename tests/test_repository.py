"""What is in the repository besides code: notebooks that read well anywhere, links that lead on."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Built from parts, so that this file does not contain what it looks for.
HOMES = "|".join(("home", "root", "work", "tmp", "Users", "farm"))
MACHINE_PATH = re.compile(rf"(?<![\w./:-])(?:/(?:{HOMES})/|[A-Z]:\\)")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
TEXT = {".py", ".md", ".toml", ".ts", ".tsx", ".js", ".mjs", ".css", ".json", ".ipynb", ".yml", ""}
# Read by a person on a page of ours or a container's; not a path of the machine it was written on.
MAY_NAME_PATHS = re.compile(r"^tests/|^amltk_nb/views/static/")


def tracked() -> list[Path]:
    """Every file of the repository that is text."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("this is no git checkout")
    paths = [ROOT / name for name in listing.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix in TEXT]


def test_no_path_of_any_machine_stands_in_the_tree() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if not MAY_NAME_PATHS.match(str(path.relative_to(ROOT)))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


def test_lock_files_name_no_registry() -> None:
    locks = [path for path in tracked() if path.name == "package-lock.json"]
    assert [str(p) for p in locks if '"resolved"' in p.read_text()] == []


def test_the_numbered_notebooks_are_there() -> None:
    names = [path.name for path in NOTEBOOKS]
    assert names == [
        "01_quickstart.ipynb",
        "02_guide.ipynb",
        "03_events_and_tasks.ipynb",
        "05_outgrow_one_machine.ipynb",
    ]


def saved_text(notebook: dict[str, Any]) -> str:
    """What a notebook holds as text: sources and outputs, pictures left out."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for kind in [k for k in output.get("data", {}) if k.startswith("image/")]:
                del output["data"][kind]
    return json.dumps(notebook, ensure_ascii=False)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_reads_the_same_everywhere(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert "widgets" not in notebook["metadata"], "widget state: save it with AMLTK_NB_STATIC=1"
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    text = saved_text(notebook)
    assert ADDRESS.findall(text) == []
    assert MACHINE_PATH.findall(text) == []
    assert "application/vnd.jupyter.widget-view+json" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_was_run_from_top_to_bottom(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    first = json.loads(path.read_text())["cells"][0]
    assert first["cell_type"] == "markdown", "a notebook opens with what it shows"


LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)|<img [^>]*src=\"(?!https?:)([^\"]+)")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    targets = [one or other for one, other in LINK.findall((ROOT / name).read_text())]
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_one_version_everywhere() -> None:
    import amltk_nb

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == amltk_nb.__version__
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
