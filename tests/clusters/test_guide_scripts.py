"""The examples about Slurm as plain scripts, over the real one; no job of theirs is left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.clusters.slurm import Slurm
from tests.guides.test_engine_scripts import ENGINES, IN_CLUSTERS
from tests.guides.test_scripts import run

PRINTED = {
    "03_slurm": "6 True\n",
    "04_slurm_cluster": "6 True\n",
    "05_slurm_commands": "True True\n",
}


def test_every_example_has_its_expectation() -> None:
    assert set(PRINTED) == IN_CLUSTERS


@pytest.mark.timeout(300)  # the first one may have to install Slurm
@pytest.mark.parametrize("name", PRINTED)
def test_in_jobs(name: str, slurm: Slurm, tmp_path: Path) -> None:
    [path] = [path for path in ENGINES if path.stem == name]
    assert run([sys.executable, str(path)], cwd=tmp_path) == PRINTED[name]
    said = "\n".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert "Start worker at" in said  # they ran in jobs
