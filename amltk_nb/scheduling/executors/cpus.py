"""How many CPUs this process may really use, and checking a wish for workers.

A container with one CPU on a host of 64 reports 64 through `os.cpu_count()`. What counts is the
scheduler's affinity mask and the CPU bandwidth of the control groups the process lives in
(Linux: `cpu.max` of version 2, `cpu.cfs_quota_us` of version 1).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_cpus", "cgroup_cpus", "checked_workers"]


def available_cpus() -> int:
    """Return how many CPUs this process may use, at least 1."""
    return max(1, math.ceil(min(_affine_cpus(), _CGROUP_CPUS)))


def checked_workers(max_workers: int | None, name: str = "max_workers") -> int | None:
    """Return a number of workers as it is, if it makes sense; None means "as many as CPUs".

    Args:
        max_workers: the number.
        name: what the user knows it by.

    Raises:
        TypeError: not a whole number.
        ValueError: less than 1.
    """
    if max_workers is None:
        return None
    if not isinstance(max_workers, int) or isinstance(max_workers, bool):
        raise TypeError(
            f"{name}={max_workers!r} is a {type(max_workers).__name__}; pass a whole number "
            "such as 2, or None for as many workers as this process may use CPUs."
        )
    if max_workers < 1:
        raise ValueError(
            f"{name}={max_workers} leaves nobody to run the calls; pass at least 1, or None "
            "for as many workers as this process may use CPUs."
        )
    return max_workers


def cgroup_cpus(root: Path = Path("/")) -> float:
    """Return the CPU bandwidth that control groups leave to this process, in CPUs.

    Args:
        root: where `proc` and `sys` are found.

    Returns:
        The tightest quota among the process's group and those around it; infinity without one.
    """
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return min(quotas, default=math.inf)


def _affine_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas_v2(root: Path) -> Iterator[float]:
    mount = root / "sys/fs/cgroup"
    group = mount / _own_group(root).lstrip("/")
    # A group is also bound by every group it is nested in.
    for folder in (group, *group.parents):
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0] != "max":
            yield int(words[0]) / int(words[1])
        if folder == mount:
            return


def _quotas_v1(root: Path) -> Iterator[float]:
    folder = root / "sys/fs/cgroup/cpu"
    quota = _words(folder / "cpu.cfs_quota_us")
    period = _words(folder / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        yield int(quota[0]) / int(period[0])


def _own_group(root: Path) -> str:
    for word in _words(root / "proc/self/cgroup"):
        if word.startswith("0::"):
            return word[len("0::") :]
    return ""


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


# Read once and early: schedulers are made on event loops, which must not wait for files.
_CGROUP_CPUS = cgroup_cpus()
