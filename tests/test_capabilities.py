"""The table of capabilities is whole: its tests exist, its page is up to date."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.capabilities import PAGE, SECTIONS, Capability, page

HERE = Path(__file__).resolve().parent
ROWS = [row for rows in SECTIONS.values() for row in rows]


@pytest.fixture(scope="module")
def collected() -> frozenset[str]:
    """Every test that pytest finds in the named files, without parameters."""
    files = sorted({str(HERE / test.split("::")[0]) for row in ROWS for test in row.tests})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        timeout=55,
        check=False,
    )
    found = [line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line]
    assert done.returncode == 0, done.stdout[-2000:]
    return frozenset(found)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_test_that_is_named_exists(row: Capability, collected: frozenset[str]) -> None:
    assert [test for test in row.tests if f"tests/{test}" not in collected] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_capability_has_tests_or_a_reason(row: Capability) -> None:
    assert bool(row.tests) != bool(row.absent)
    assert max(Counter(row.tests).values(), default=1) == 1


def test_no_capability_is_missing() -> None:
    assert {title: len(rows) for title, rows in SECTIONS.items()} == {
        "Events": 18,
        "The scheduler": 52,
        "Tasks": 15,
        "Plugins and helpers": 17,
        "The journal": 6,
        "What is shown": 28,
        "What went wrong elsewhere": 25,
    }


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.capabilities"
