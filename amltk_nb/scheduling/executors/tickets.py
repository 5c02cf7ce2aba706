"""A file that says whether a call has begun, where workers are processes of this machine.

Engines that hand calls to processes ahead of their turn say of none whether it has begun, and drop
none for sure. So each call has a ticket, a file that is not there. The worker makes it to begin
the call, and who wants to drop the call makes it as well: only one of them can.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["DROPPED", "Tickets", "take"]

DROPPED = b""  # an answer: the call was left out


class Tickets:
    """The tickets of one run."""

    def __init__(self) -> None:
        """Make a folder for them."""
        self._folder = tempfile.mkdtemp(prefix="amltk-nb-calls-")
        self._n_made = 0

    def new(self) -> str:
        """Return a ticket for one call."""
        self._n_made += 1
        return f"{self._folder}/{self._n_made}"

    def gone(self, ticket: str) -> None:
        """Forget a ticket: nobody will ask for it again."""
        Path(ticket).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder. A worker that still comes for a ticket finds none to take."""
        shutil.rmtree(self._folder, ignore_errors=True)


def take(ticket: str) -> bool:
    """Take a ticket, in any process; returns whether it was still there to be taken."""
    with suppress(OSError):
        os.close(os.open(ticket, os.O_CREAT | os.O_EXCL))
        return True
    return False
