"""What the benchmarks have run: importable from every worker, and needing nothing."""

from __future__ import annotations

import time
from typing import Any


def nothing() -> None:
    """Cost nothing, so that only the machinery is measured."""


def sleep(seconds: float) -> None:
    """Occupy a worker without occupying a CPU: two workers then cannot slow each other."""
    time.sleep(seconds)


def same(value: Any) -> Any:
    """Send an argument back."""
    return value
