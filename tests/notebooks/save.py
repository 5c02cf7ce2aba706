"""Run all notebooks and save them with what they show: `make notebooks`.

Their outputs hold the style of the static HTML, so they are renewed when that changes.
"""

from __future__ import annotations

import os
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.notebooks.saved import NOTEBOOKS


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join what was printed in pieces, as long as nothing else came between."""
    joined: list[dict[str, Any]] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and "name" in output and output["name"] == last.get("name"):
            last["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def main() -> None:
    """Run each in a kernel of its own, in static mode, and write it in the one way."""
    os.environ["AMLTK_NB_STATIC"] = "1"
    for path in NOTEBOOKS:
        print(f"Running {path.name} …", flush=True)
        notebook = nbformat.read(path, as_version=4)
        place = {"metadata": {"path": str(path.parent)}}
        NotebookClient(notebook, timeout=120, resources=place, record_timing=False).execute()
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"] = _joined(cell["outputs"])
        notebook["metadata"]["language_info"] = {"name": "python"}
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
