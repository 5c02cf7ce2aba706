"""What a machine lacks: a reason to skip at home, a failure where everything has to run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["everything_must_run", "is_root_on_debian", "unavailable"]


def is_root_on_debian() -> bool:
    """Whether everything that is missing can be installed here."""
    return os.geteuid() == 0 and Path("/etc/debian_version").exists()


def everything_must_run() -> bool:
    """Whether nothing may be skipped: in CI, and where all can be installed."""
    return bool(os.environ.get("CI")) or is_root_on_debian()


def unavailable(what: str) -> NoReturn:
    """Skip the present test because the machine lacks something; fail where that must not be."""
    if everything_must_run():
        pytest.fail(f"{what} (and here nothing may be skipped)", pytrace=False)
    pytest.skip(what)
