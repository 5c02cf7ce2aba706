"""What the tests of this folder measured; `make chaos` collects it for docs/faults.md."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["COLLECTED_IN", "IS_LONG", "PAGE", "report", "shown"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
IS_LONG = bool(os.environ.get("AMLTK_NB_CHAOS"))
COLLECTED_IN = "AMLTK_NB_CHAOS_FIGURES"  # names the file; nothing is collected without it


def report(section: str, **figures: Any) -> None:
    """Note one row of a table.

    Args:
        section: the table, by the name in the page's `% figures: …` line.
        figures: its cells by the titles of their columns, with "_" for spaces.
    """
    if path := os.environ.get(COLLECTED_IN):
        with open(path, "a") as file:
            file.write(json.dumps([section, figures]) + "\n")


def shown(page: str, collected: Iterable[str]) -> str:
    """Return the page with new tables where rows were collected, and all else as it was."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for line in collected:
        section, figures = json.loads(line)
        sections.setdefault(section, []).append(figures)
    for section, rows in sections.items():
        begin, end = f"% figures: {section}\n", "% end\n"
        block = re.compile(re.escape(begin) + ".*?" + end, re.DOTALL)
        if not block.search(page):
            raise ValueError(f"the page has no lines {begin!r} and {end!r}; add them")
        table = f"{begin}\n{_table(rows)}\n\n{end}"
        page = block.sub(lambda _, table=table: table, page)  # type: ignore[misc]
    return page


def _table(rows: list[dict[str, Any]]) -> str:
    titles = list(dict.fromkeys(title for row in rows for title in row))
    lines = [[title.replace("_", " ") for title in titles], ["---"] * len(titles)]
    lines += [[_cell(row.get(title, "–")) for title in titles] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
