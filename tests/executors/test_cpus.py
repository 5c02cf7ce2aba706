"""How many CPUs count as ours, with control group files as Linux writes them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from amltk_nb.scheduling.executors.cpus import available_cpus, cgroup_cpus, checked_workers


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, math.inf),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/pods/mine\n",
                "sys/fs/cgroup/pods/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/pods/mine/cpu.max": "400000 100000\n",
            },
            1.0,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
    ],
)
def test_the_tightest_quota_counts(tmp_path: Path, files: dict[str, str], cpus: float) -> None:
    assert cgroup_cpus(write(tmp_path, files)) == cpus


def test_available_cpus_follow_the_affinity_mask() -> None:
    mine = os.sched_getaffinity(0)
    one = {min(mine)}
    os.sched_setaffinity(0, one)
    try:
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, mine)


def test_a_number_of_workers_is_checked() -> None:
    assert checked_workers(3) == 3
    assert checked_workers(None) is None
    for wrong in (0, -2):
        with pytest.raises(ValueError, match="pass at least 1"):
            checked_workers(wrong)
    for not_whole in (True, 2.0, "2"):
        with pytest.raises(TypeError, match="pass a whole number"):
            checked_workers(not_whole)  # type: ignore[arg-type]
