"""A run as one file: complete, self-contained, harmless."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amltk_nb import Scheduler


def work(n: int) -> int:
    print("working on", n)
    if n == 3:
        raise ValueError("</pre><script>alert(1)</script>")
    return n


@pytest.fixture
def finished() -> Scheduler:
    scheduler = Scheduler.with_processes(2, name="search")
    task = scheduler.task(work)
    scheduler.on_start(lambda: task.map(range(60)))
    scheduler.run(on_exception="continue", display=False)
    return scheduler


def test_it_holds_all_calls_and_all_of_the_failures(finished: Scheduler, tmp_path: Path):
    path = finished.report(tmp_path / "run.html")
    assert path == tmp_path / "run.html"
    page = path.read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "<title>Scheduler &#x27;search&#x27;</title>" in page
    assert len(re.findall(r"<td[^>]*><code>work</code></td><td[^>]*><code>\d+</code>", page)) == 60
    assert "n=3" in page
    assert "in work" in page
    assert "working on 3" in page
    assert re.search(r"<code>work</code></td><td[^>]*>59</td><td[^>]*>1</td>", page)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert re.findall(r"https?://|src=|href=|@import", page) == []
    assert list(tmp_path.iterdir()) == [path]


def test_another_title_and_a_file_that_is_replaced(finished: Scheduler, tmp_path: Path):
    target = tmp_path / "run.html"
    target.write_text("old")
    finished.report(str(target), title="Night <run>")
    assert "<title>Night &lt;run&gt;</title>" in target.read_text("utf-8")


def test_an_older_one_is_left_where_no_new_one_can_be_written(finished: Scheduler, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        finished.report(tmp_path / "nowhere" / "run.html")
    folder = tmp_path / "run.html"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        finished.report(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_of_a_scheduler_that_never_ran(tmp_path: Path):
    page = Scheduler.with_threads(1).report(tmp_path / "run.html").read_text("utf-8")
    assert "No calls yet" in page
