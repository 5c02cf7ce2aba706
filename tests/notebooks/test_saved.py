"""The saved files: nothing of one machine or one day, nothing hidden from the comparison."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebooks.saved import IGNORED, NOTEBOOKS, code_cells, kept, load

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)

# Durations as the views write them ("4 ms", "0.31 s"), clock times, processes, kinds of workers.
OF_ONE_RUN = re.compile(r"\d (?:ms|s|min|h)\b|\b\d\d:\d\d:\d\d|\bpid\b|\bworker-\d|\d/s\b")


def texts(notebook: dict[str, Any]) -> list[str]:
    """List all that the outputs say."""
    return [text for c in code_cells(notebook) for _, text in kept(c["outputs"], "output_type")]


def has_picture(cell: dict[str, Any]) -> bool:
    """Whether an output of a cell is a picture."""
    return any("image/png" in output.get("data", {}) for output in cell["outputs"])


@each
def test_it_is_written_in_one_way(path: Path) -> None:
    text, notebook = path.read_text("utf-8"), load(path)
    # As Jupyter writes it, so that saving it changes nothing.
    assert text == nbformat.writes(nbformat.reads(text, as_version=4)) + "\n"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}


@each
def test_cells_have_short_words_as_ids(path: Path) -> None:
    ids = [cell["id"] for cell in load(path)["cells"]]
    assert [name for name in ids if not re.fullmatch(r"[a-z][a-z-]{1,24}", name)] == []
    assert len(set(ids)) == len(ids)


@each
def test_only_pictures_are_left_out_of_the_comparison(path: Path) -> None:
    cells = code_cells(load(path))
    tagged = [cell["id"] for cell in cells if cell["metadata"] == {"tags": [IGNORED]}]
    assert tagged == [cell["id"] for cell in cells if has_picture(cell)]
    assert [cell["id"] for cell in cells if cell["metadata"] and cell["id"] not in tagged] == []
    # What such a cell says besides its picture would not be compared.
    said = [kept(cell["outputs"], "output_type") for cell in cells if cell["id"] in tagged]
    assert [text for texts in said for _, text in texts if not text.startswith("<Figure")] == []
    assert [cell["id"] for cell in cells if re.search("NBVAL_|PYTEST_", cell["source"])] == []


@each
def test_nothing_in_it_belongs_to_one_run(path: Path) -> None:
    found = [match[0] for text in texts(load(path)) for match in OF_ONE_RUN.finditer(text)]
    assert found == []


@each
def test_no_cell_failed_or_warned(path: Path) -> None:
    kinds = {kind for c in code_cells(load(path)) for kind, _ in kept(c["outputs"], "output_type")}
    assert kinds == {"stdout", "text/plain", "text/html"}


def test_the_quickstart_shows_a_failure_its_repair_and_an_end() -> None:
    [quickstart] = [path for path in NOTEBOOKS if path.stem == "01_quickstart"]
    cells = {cell["id"]: cell for cell in code_cells(load(quickstart))}
    first = kept(cells["first-round"]["outputs"], "output_type")
    assert first == [("stdout", "23 results, 1 failure\n")]
    outcome = dict(kept(cells["await"]["outputs"][:1], "output_type"))["text/plain"]
    assert "Scheduler: finished (stopped)" in outcome
    assert "24 done  1 failed" in outcome
    assert "24 results are enough" in outcome


def test_the_guide_has_an_example_of_each_ending() -> None:
    [guide] = [path for path in NOTEBOOKS if path.stem == "02_guide"]
    endings = re.findall(r"ExitState\((\w+)|^(timeout) True$", "\n".join(texts(load(guide))), re.M)
    assert {one or other for one, other in endings} == {
        "exhausted",
        "stopped",
        "timeout",
        "exception",
    }


def test_events_and_tasks_shows_batches_and_an_event_of_ones_own() -> None:
    [path] = [path for path in NOTEBOOKS if path.stem == "03_events_and_tasks"]
    cells = {cell["id"]: kept(cell["outputs"], "output_type") for cell in code_cells(load(path))}
    [(_, batch)] = cells["batch-run"]
    assert batch.endswith("(261, 6171)\n<Batch of Task-longest-1: 5 calls, done>\n")
    [(_, cancelled)] = cells["batch-cancel"]
    assert cancelled.startswith("0 results, 3 cancelled, [ValueError(")
    (_, records), *pictures = cells["record-task"]
    assert records.count("\n") == 11
    [picture] = [text for kind, text in pictures if kind == "text/plain" and "@record" in text]
    assert re.search(r"@record 11 .*\n.* def cheer\(best\) \(11\) ", picture)


def test_outgrow_one_machine_finds_the_same_on_each_engine_and_names_no_place() -> None:
    [path] = [path for path in NOTEBOOKS if path.stem == "05_outgrow_one_machine"]
    notebook = load(path)
    cells = {cell["id"]: kept(cell["outputs"], "output_type") for cell in code_cells(notebook)}
    assert cells["dask-best"][0] == ("stdout", "the same scores as on processes: True\n")
    assert [text for _, text in cells["slurm-best"]] == [
        "the same scores as on processes, if there is a Slurm: True\n"
    ]
    [outcome] = [text for kind, text in cells["dask-wait"] if "Scheduler" in text[:40]]
    assert "'tcp://127.0.0.1:…'" in outcome
    [(_, script)] = cells["job-script"]
    assert script.splitlines()[2:4] == ["#SBATCH -J dask-worker", "#SBATCH -p long"]
    assert "\npython -m distributed.cli.dask_worker tcp://scheduler-address:port " in script
    said = "\n".join(texts(notebook))
    assert re.findall(r"127\.0\.0\.1:\d|/(?:tmp|home|root|work|usr/lib)/\S*", said) == []
    # Only the line that makes the scheduler differs between the two searches.
    sources = {cell["id"]: cell["source"].splitlines() for cell in code_cells(notebook)}
    here, there = sources["processes"], sources["dask-search"]
    assert [n for n, pair in enumerate(zip(here, there, strict=True)) if len({*pair}) == 2] == [0]
