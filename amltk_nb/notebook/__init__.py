"""The kernel's manners: background runs, nested runs, cells that run again, callbacks' output.

`enter` puts the notebook's `Host` in place; the engine goes on knowing nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["enter", "enter_marimo", "schedulers"]


def enter(shell: Any) -> None:
    """Make the kernel of this shell the engine's surroundings; again does nothing."""
    from amltk_nb import host
    from amltk_nb.notebook.kernel import KernelHost

    if not isinstance(host.current(), KernelHost):
        host.use(KernelHost(shell))


def enter_marimo() -> None:
    """Make marimo the engine's surroundings; again does nothing."""
    from amltk_nb import host
    from amltk_nb.notebook.marimo import MarimoHost

    if not isinstance(host.current(), MarimoHost):
        host.use(MarimoHost())


def schedulers() -> list[Scheduler]:
    """List the schedulers that run now, the one started last at the end."""
    from amltk_nb.notebook.living import living

    return living()
