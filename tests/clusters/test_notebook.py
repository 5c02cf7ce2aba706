"""The notebook about engines, where a Slurm answers: jobs run, and outputs stay the same."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.clusters.slurm import Slurm
from tests.kernels.kernel import Kernel
from tests.notebooks.saved import IGNORED, NOTEBOOKS, code_cells, kept, load

[NOTEBOOK] = [path for path in NOTEBOOKS if path.stem == "05_outgrow_one_machine"]


@pytest.mark.skipif(
    not os.environ.get("AMLTK_NB_WHOLE_CONTRACT"),
    reason="it takes as long as all other tests over Slurm: make test-clusters",
)
@pytest.mark.timeout(280)
def test_its_search_runs_in_jobs_and_shows_what_the_saved_file_shows(
    slurm: Slurm, tmp_path: Path
) -> None:
    env = {**os.environ, "AMLTK_NB_STATIC": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
    kernel = Kernel(Path(sys.executable), cwd=tmp_path, env=env, timeout_s=120)
    try:
        for cell in code_cells(load(NOTEBOOK)):
            done = kernel.run(cell["source"], cell_id=cell["id"])
            if cell["metadata"].get("tags") != [IGNORED]:
                shown = (cell["id"], kept(done.outputs, "type"))
                assert shown == (cell["id"], kept(cell["outputs"], "output_type"))
        assert kernel.run("skipped, scheduler.backend.name").result == "({}, 'SLURMCluster')"
        assert kernel.run("len(results), len(timetables['Slurm'])").result == "(24, 24)"
    finally:
        assert kernel.close() == []
    # Two jobs, the first ones of this Slurm or not; the fixture sees that none is left.
    log = (slurm.folder / "slurmctld.log").read_text()
    assert len(re.findall(r"_slurm_rpc_submit_batch_job", log)) >= 2
