"""Which cell is running."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

from amltk_nb.host import Cell

__all__ = ["CellWatch", "Cells"]


class Cells(Protocol):
    """Whatever knows which cell is running."""

    @property
    def now(self) -> Cell | None:
        """The cell that runs, None between cells."""


class CellWatch:
    """Follows the executions of a shell's cells.

    A cell is known by the id that its front end sends; clients that send none (nbval,
    jupyter_client) are served by the hash of the source.
    """

    def __init__(self, shell: Any, begun: Callable[[Cell], None]) -> None:
        """Follow a shell from the cell on that is running now.

        Args:
            shell: of IPython.
            begun: called when a cell begins.
        """
        self._shell = shell
        self._begun = begun
        self._n = 0
        self.now: Cell | None = self._running_now()
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)

    def _begin(self, info: Any) -> None:
        self._n += 1
        sent = getattr(info, "cell_id", None)
        cell_id = sent or _hashed(info.raw_cell)
        self.now = Cell(cell_id, self._n, f"[{len(self._inputs())}]", is_hash=not sent)
        self._begun(self.now)

    def _end(self, _: Any) -> None:
        self.now = None

    def _running_now(self) -> Cell | None:
        """Make up for the `pre_run_cell` of the cell that imported us."""
        inputs = self._inputs()
        parent = self._shell.get_parent() if hasattr(self._shell, "get_parent") else {}
        if (parent or {}).get("header", {}).get("msg_type") != "execute_request":
            return None
        sent = (parent.get("metadata") or {}).get("cellId")
        label = f"[{len(inputs) - 1}]"
        return Cell(sent or _hashed(inputs[-1]), 0, label, is_hash=not sent)

    def _inputs(self) -> list[str]:
        """List the sources run so far, the first one empty; an entry's index is its `In [n]`.

        The shell's own counter is not used: IPython versions differ in whether it has been raised
        already when a cell begins.
        """
        inputs: list[str] = self._shell.user_ns.get("_ih") or [""]
        return inputs


def _hashed(source: str) -> str:
    return hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
