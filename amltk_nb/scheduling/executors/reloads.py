"""Noticing that a module was edited and loaded again, so that workers do the same.

Functions of modules travel by reference, and a worker would go on with what it imported. The
function at hand tells whether that is old: `importlib.reload` and `%autoreload` both give a
function of the same name a new code object. Files are not looked at: on a network drive that can
block the loop, and a file may have been edited without the notebook having loaded it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

__all__ = ["ReloadWatch"]


class ReloadWatch:
    """Remembers the code of the functions that travelled by reference."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._seen: dict[tuple[str, str], CodeType] = {}
        self._latest: CodeType | None = None

    def reloaded(self, fn: Callable[..., Any]) -> bool:
        """Say whether a function of a module is newer than the one seen under its name."""
        code = getattr(fn, "__code__", None)
        if code is self._latest:  # as for every call of a loop
            return False
        module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "<")
        if code is None or module in (None, "__main__") or "<" in name:
            return False  # no Python function, or one that travels by value
        self._latest = code
        before = self._seen.setdefault((module, name), code)
        if before is code:
            return False
        self._seen[module, name] = code
        return True
