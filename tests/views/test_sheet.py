"""The page's style sheet: nothing leaks out, little moves, and nothing for who asks for that."""

from __future__ import annotations

import re
from pathlib import Path

SHEET = Path(__file__).parents[2] / "amltk_nb" / "views" / "js" / "src" / "style.css"


def rules() -> str:
    return re.sub(r"/\*.*?\*/", "", SHEET.read_text("utf-8"), flags=re.DOTALL)


def without_parentheses(text: str) -> str:
    while (inner := re.sub(r"\([^()]*\)", "", text)) != text:
        text = inner
    return text


def test_every_rule_is_about_the_dashboard() -> None:
    heads = [head.strip() for head in re.findall(r"([^{}]+)\{", rules())]
    assert len(heads) > 150
    styles = [without_parentheses(head) for head in heads if not head.startswith("@")]
    selectors = [selector.strip() for style in styles for selector in style.split(",")]
    assert [selector for selector in selectors if not selector.startswith(".amltk-nb")] == []


def test_what_moves_does_so_for_less_than_200_ms() -> None:
    declared = " ".join(re.findall(r"transition:([^;}]+)", rules()))
    times = re.findall(r"([\d.]+)(ms|s)\b", declared)
    assert times
    assert max(float(n) * (1000 if unit == "s" else 1) for n, unit in times) < 200
    assert re.search(r"animation|@keyframes|scroll-behavior:\s*smooth", rules()) is None


def test_nothing_moves_for_who_asks_for_that() -> None:
    still = (
        r"prefers-reduced-motion: reduce\) \{\s*\.amltk-nb \* \{ transition: none !important; \}"
    )
    assert re.search(still, rules())


def test_figures_are_equally_wide() -> None:
    assert re.search(r"\.amltk-nb \{[^}]*font-variant-numeric: tabular-nums", rules())
