"""The notebooks as they are saved, and what of an output has to be the same in every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["IGNORED", "NOTEBOOKS", "code_cells", "kept", "load"]

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))

IGNORED = "nbval-ignore-output"  # the tag of cells whose outputs nbval does not compare

_COMPARED = ("text/plain", "text/html")


def load(path: Path) -> dict[str, Any]:
    """Read a notebook."""
    notebook: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """List the cells that run, each with its source as one string."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [cell | {"source": _joined(cell["source"])} for cell in cells]


def kept(outputs: list[dict[str, Any]], kind: str) -> list[tuple[str, str]]:
    """Reduce outputs to what is compared, as pairs of where it is and what it says.

    Args:
        outputs: of one cell, saved or from a kernel.
        kind: the key that holds an output's kind: "output_type" in files, "type" on the wire.
    """
    found: list[tuple[str, str]] = []
    for output in outputs:
        if output[kind] == "stream":
            name, text = output["name"], _joined(output["text"])
            # How a text is cut into messages says nothing.
            before = found.pop()[1] if found and found[-1][0] == name else ""
            found.append((name, before + text))
        elif output[kind] == "error":
            found.append(("error", f"{output['ename']}: {output['evalue']}"))
        else:
            data = output["data"]
            found += [(key, _joined(data[key])) for key in _COMPARED if key in data]
    return found


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
