"""Waiting for what another program does, where it offers nothing to be told by."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]


def until(
    is_so: Callable[[], object], what: str | Callable[[], str], *, limit_s: float = 30.0
) -> None:
    """Look again and again until something is so; a failure says what did not come about.

    A batch system and a worker on its node tell this process nothing, so there is only looking;
    the pause between two looks is no wait for the thing itself.
    """
    deadline = time.monotonic() + limit_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"not so after {limit_s:g} s: {what if isinstance(what, str) else what()}"
            )
        time.sleep(0.02)
