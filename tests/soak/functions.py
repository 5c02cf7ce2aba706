"""What is called, by the hundred thousand."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

__all__ = ["array", "failing", "logging_", "nap", "printing", "short", "total"]


def short(n: int) -> int:
    return n + 1


def failing(n: int) -> None:
    raise ValueError(f"call {n} was to fail")


def printing(n: int) -> int:
    print(f"call {n} says {'x' * 200}")
    return n + 1


def logging_(n: int) -> int:
    logging.getLogger("soak").warning("call %d says %s", n, "x" * 200)
    return n + 1


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def array(n_bytes: int) -> Any:
    import numpy as np

    return np.ones(n_bytes // 8)


def total(values: Any) -> float:
    return float(values.sum())
