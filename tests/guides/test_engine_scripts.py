"""The examples about Dask as plain scripts; those about Slurm run in tests/clusters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.executors.dask_processes import DaskProcesses, dask_processes
from tests.guides.test_scripts import run

ENGINES = sorted((Path(__file__).parent / "engines").glob("*.py"))

PRINTED = {
    "01_dask_client": "20 20 running\n",  # twenty calls that look the same are twenty calls
    "02_dask": "[50, 25, 12, 6, 3, 1]\n",
}
IN_CLUSTERS = {"03_slurm", "04_slurm_cluster", "05_slurm_commands"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path_factory.mktemp("dask"), 2) as processes:
        yield processes


def test_every_example_is_run_somewhere() -> None:
    assert [path.stem for path in ENGINES] == sorted(PRINTED.keys() | IN_CLUSTERS)


@pytest.mark.parametrize("name", PRINTED)
def test_on_dask(
    name: str, cluster: DaskProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.address)
    [path] = [path for path in ENGINES if path.stem == name]
    assert run([sys.executable, "-W", "error", str(path)], cwd=tmp_path) == PRINTED[name]
