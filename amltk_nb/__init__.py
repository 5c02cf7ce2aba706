"""Submit, watch and steer parallel work from a notebook cell.

How the package is laid out, from the inside out; imports go this way only:

    errors, types       every error by name; Requeue
    host                what surrounds the engine: a script, or a kernel
    events              Event, Emitter, Subscriber
    scheduling          the engine: Scheduler, Task, plugins, executors
    notebook            the kernel's manners: background runs, cells, output
    views               the dashboard, static HTML and rich text: readers of `snapshot()`
    testing             doubles for tests of your own

Names load on first use: importing the package costs about as much as importing asyncio.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amltk_nb.errors import AmltkError, SchedulerNotRunningError
    from amltk_nb.events import Emitter, Event, EventManager, Subscriber
    from amltk_nb.notebook import schedulers
    from amltk_nb.scheduling import (
        AirflowExecutor,
        Batch,
        Cache,
        Call,
        CallLimiter,
        Comm,
        EmissionsTrackerPlugin,
        ExitCode,
        ExitState,
        Future,
        Journal,
        Limiter,
        Plugin,
        Progress,
        PynisherPlugin,
        QueueMonitor,
        ResourceLimits,
        Retry,
        Run,
        Scheduler,
        SequentialExecutor,
        Task,
        ThreadPoolCTLPlugin,
        WandbPlugin,
        WarningFilter,
    )
    from amltk_nb.scheduling.reporting import report
    from amltk_nb.types import Requeue

__all__ = [
    "AirflowExecutor",
    "AmltkError",
    "Batch",
    "Cache",
    "Call",
    "CallLimiter",
    "Comm",
    "EmissionsTrackerPlugin",
    "Emitter",
    "Event",
    "EventManager",
    "ExitCode",
    "ExitState",
    "Future",
    "Journal",
    "Limiter",
    "Plugin",
    "Progress",
    "PynisherPlugin",
    "QueueMonitor",
    "Requeue",
    "ResourceLimits",
    "Retry",
    "Run",
    "Scheduler",
    "SchedulerNotRunningError",
    "SequentialExecutor",
    "Subscriber",
    "Task",
    "ThreadPoolCTLPlugin",
    "WandbPlugin",
    "WarningFilter",
    "report",
    "schedulers",
]

__version__ = "0.1.0"

_HOMES = {
    "AmltkError": "amltk_nb.errors",
    "Requeue": "amltk_nb.types",
    "report": "amltk_nb.scheduling.reporting",  # light: it is for the code of calls
    "schedulers": "amltk_nb.notebook",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name) or ("amltk_nb.scheduling" if name in __all__ else None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return __all__


def _enter_notebook() -> None:
    """In a notebook, put its host in place; neither IPython nor marimo is imported for that."""
    ipython = sys.modules.get("IPython")
    shell = (
        ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    )
    if shell is not None and hasattr(shell, "kernel"):
        import_module("amltk_nb.notebook").enter(shell)
    elif getattr(sys.modules.get("marimo"), "running_in_notebook", bool)():
        import_module("amltk_nb.notebook").enter_marimo()


def load_ipython_extension(shell: Any) -> None:
    """Register `%amltk` and `%%task`; IPython calls this for `%load_ext amltk_nb`."""
    shell.register_magics(import_module("amltk_nb.notebook.magics").AmltkMagics)


_enter_notebook()
