"""What a machine lacks: a reason to skip at home, a failure where everything has to run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["everything_must_run", "unavailable"]


def everything_must_run() -> bool:
    """Whether nothing may be skipped: in CI, and as root on Debian, where all can be installed."""
    root_on_debian = os.geteuid() == 0 and Path("/etc/debian_version").exists()
    return bool(os.environ.get("CI")) or root_on_debian


def unavailable(what: str) -> NoReturn:
    """Skip the present test because the machine lacks something; fail where that must not be."""
    if everything_must_run():
        pytest.fail(f"{what} (and here nothing may be skipped)", pytrace=False)
    pytest.skip(what)
