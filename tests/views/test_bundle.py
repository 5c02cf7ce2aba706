"""What a page loads: small, whole, and asking nobody for more."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import amltk_nb.views

VIEWS = Path(amltk_nb.views.__file__).parent
SCRIPT, STYLE = VIEWS / "static" / "widget.js", VIEWS / "static" / "widget.css"
MOST_BYTES = 40 * 1024

ASKING = r"\bimport\s*[({*\"']|\bfetch\s*\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon"
OBEYING = r"\beval\s*\(|new Function|insertAdjacentHTML|document\.write|outerHTML"


def test_script_and_style_sheet_are_small() -> None:
    sizes = [len(gzip.compress(path.read_bytes(), 9)) for path in (SCRIPT, STYLE)]
    assert min(sizes) > 1_000
    assert sum(sizes) <= MOST_BYTES


def test_they_name_no_other_place_and_obey_no_text() -> None:
    script, style = SCRIPT.read_text("utf-8"), STYLE.read_text("utf-8")
    places = re.findall(r"https?://([^\"'`) ]+)", script + style)
    assert [place for place in places if not place.startswith("www.w3.org/")] == []
    assert re.findall(f"{ASKING}|{OBEYING}", script) == []
    assert re.findall(r"url\(|@import|@font-face", style) == []


def test_no_view_sets_markup() -> None:
    """The framework can; none of our sources asks it to."""
    sources = sorted((VIEWS / "js" / "src").glob("*.ts*"))
    assert len(sources) > 15
    setting = re.compile(f"dangerouslySetInnerHTML|innerHTML|{OBEYING}")
    assert [path.name for path in sources if setting.search(path.read_text("utf-8"))] == []
