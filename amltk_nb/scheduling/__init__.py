"""The engine: knows no notebook, no widget, no rich.

    errors < host < events, states < call < snapshot < executors.base, plugins.base
           < dispatch, inbox, history < task < run < scheduler

Names load on first use, so that a worker process that needs one module does not load the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amltk_nb.errors import SchedulerNotRunningError
    from amltk_nb.events import Emitter, Event, EventManager, Subscriber
    from amltk_nb.scheduling.batch import Batch
    from amltk_nb.scheduling.call import Call, Future
    from amltk_nb.scheduling.executors.airflow_executor import AirflowExecutor
    from amltk_nb.scheduling.executors.local import SequentialExecutor
    from amltk_nb.scheduling.exit_state import ExitCode, ExitState
    from amltk_nb.scheduling.journal import Journal
    from amltk_nb.scheduling.plugins.base import Plugin
    from amltk_nb.scheduling.plugins.cache import Cache
    from amltk_nb.scheduling.plugins.comm import Comm
    from amltk_nb.scheduling.plugins.emissions import EmissionsTrackerPlugin
    from amltk_nb.scheduling.plugins.limiter import CallLimiter, Limiter
    from amltk_nb.scheduling.plugins.progress import Progress
    from amltk_nb.scheduling.plugins.resources import PynisherPlugin, ResourceLimits
    from amltk_nb.scheduling.plugins.retry import Retry
    from amltk_nb.scheduling.plugins.threadpools import ThreadPoolCTLPlugin
    from amltk_nb.scheduling.plugins.wandb import WandbPlugin
    from amltk_nb.scheduling.plugins.warning_filter import WarningFilter
    from amltk_nb.scheduling.queue_monitor import QueueMonitor
    from amltk_nb.scheduling.run import Run
    from amltk_nb.scheduling.scheduler import Scheduler
    from amltk_nb.scheduling.snapshot import Snapshot
    from amltk_nb.scheduling.task import Task

__all__ = [
    "AirflowExecutor",
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
    "ResourceLimits",
    "Retry",
    "Run",
    "Scheduler",
    "SchedulerNotRunningError",
    "SequentialExecutor",
    "Snapshot",
    "Subscriber",
    "Task",
    "ThreadPoolCTLPlugin",
    "WandbPlugin",
    "WarningFilter",
]

_HOMES = {
    "AirflowExecutor": "amltk_nb.scheduling.executors.airflow_executor",
    "Batch": "amltk_nb.scheduling.batch",
    "Cache": "amltk_nb.scheduling.plugins.cache",
    "Call": "amltk_nb.scheduling.call",
    "CallLimiter": "amltk_nb.scheduling.plugins.limiter",
    "Comm": "amltk_nb.scheduling.plugins.comm",
    "EmissionsTrackerPlugin": "amltk_nb.scheduling.plugins.emissions",
    "Emitter": "amltk_nb.events",
    "Event": "amltk_nb.events",
    "EventManager": "amltk_nb.events",
    "ExitCode": "amltk_nb.scheduling.exit_state",
    "ExitState": "amltk_nb.scheduling.exit_state",
    "Future": "amltk_nb.scheduling.call",
    "Journal": "amltk_nb.scheduling.journal",
    "Limiter": "amltk_nb.scheduling.plugins.limiter",
    "Plugin": "amltk_nb.scheduling.plugins.base",
    "Progress": "amltk_nb.scheduling.plugins.progress",
    "PynisherPlugin": "amltk_nb.scheduling.plugins.resources",
    "QueueMonitor": "amltk_nb.scheduling.queue_monitor",
    "ResourceLimits": "amltk_nb.scheduling.plugins.resources",
    "Retry": "amltk_nb.scheduling.plugins.retry",
    "Run": "amltk_nb.scheduling.run",
    "Scheduler": "amltk_nb.scheduling.scheduler",
    "SchedulerNotRunningError": "amltk_nb.errors",
    "SequentialExecutor": "amltk_nb.scheduling.executors.local",
    "Snapshot": "amltk_nb.scheduling.snapshot",
    "Subscriber": "amltk_nb.events",
    "Task": "amltk_nb.scheduling.task",
    "ThreadPoolCTLPlugin": "amltk_nb.scheduling.plugins.threadpools",
    "WandbPlugin": "amltk_nb.scheduling.plugins.wandb",
    "WarningFilter": "amltk_nb.scheduling.plugins.warning_filter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
