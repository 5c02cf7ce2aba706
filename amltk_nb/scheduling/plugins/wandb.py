"""Each call as a run of Weights & Biases."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any, Final

from amltk_nb.errors import PluginError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.history import short_repr
from amltk_nb.scheduling.plugins.around import Around
from amltk_nb.scheduling.plugins.base import Plugin, Submission
from amltk_nb.scheduling.plugins.extras import require

if TYPE_CHECKING:
    from amltk_nb.scheduling.task import Task

__all__ = ["WandbPlugin"]

_MAX_TEXT = 200  # characters of one argument in a run's config
_PLAIN: Final = (bool, int, float, type(None))
_REPORTING = "WANDB_ERROR_REPORTING"
_SERVICE = "WANDB_SERVICE"  # set by wandb while it has a process running for this one


class WandbPlugin(Plugin):
    """Runs each call inside a run of **wandb**, where `wandb.log` and `wandb.run` work as ever.

    The run is named after the task and the call, grouped by the scheduler's run, and has the
    call's arguments by name as its config. It finishes with exit code 1 if the call raises.

    A worker process keeps wandb's own service running between its calls. wandb knows one current
    run per process: so calls on threads take turns, each begins and ends the service, and nothing
    of it stays in the kernel.

    With `mode="offline"` (or `WANDB_MODE=offline`) nothing is sent anywhere; `wandb sync` does
    that later, from the files in `dir`.
    """

    name = "wandb"

    def __init__(self, project: str, **options: Any) -> None:
        """Say where runs go.

        Args:
            project: the project's name.
            options: of `wandb.init`: entity, mode, dir, tags, notes, job_type, settings, … A
                config is added to each call's arguments; a name or group replaces the one made
                here.

        Raises:
            ValueError: no name, or an option that is decided here.
            TypeError: the project is no string, or the config no mapping.
            MissingExtraError: wandb is not installed.
        """
        require("wandb", extra="wandb", needed_by=type(self).__name__)
        if not isinstance(project, str):
            raise TypeError(f"project={project!r}: pass the name of the project.")
        if not project.strip():
            raise ValueError("project='': a run needs the name of a project.")
        for decided in ("reinit", "id", "resume"):
            if decided in options:
                raise ValueError(
                    f"{decided}={options[decided]!r}: each call is a new run of its own, so this "
                    "cannot be chosen; leave it out."
                )
        if not isinstance(options.get("config", {}), Mapping):
            raise TypeError(f"config={options['config']!r}: pass a mapping, or leave it out.")
        self.project = project
        self.options = options
        self.n_runs = 0  # that have begun and ended, one per attempt of a call

    def attach_task(self, task: Task[..., Any]) -> None:
        """Refuse a task that has one: a call cannot be inside of two runs."""
        if any(isinstance(plugin, WandbPlugin) for plugin in task.plugins):
            raise PluginError(
                f"{task.ref} has a WandbPlugin already, and wandb has one current run per process."
            )

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Put a run around the call."""
        config = {**self.options.get("config", {}), **_config(fn, args, kwargs)}
        init = {**self.options, "project": self.project, "config": config}
        return Around(fn, partial(_logged, _Init(init))), args, kwargs

    def accepted(self, call: Call) -> None:
        """Name the run after the call."""
        init = _find_init(call.work[0])
        if init is not None and call.task is not None:
            init.named = _names(call.task, call)

    def retried(self, former: Call, call: Call) -> None:
        """Count the run that failed, and name the next one."""
        self.n_runs += 1
        self.accepted(call)

    def release(self, call: Call | None) -> None:
        """Count the run, if the call has begun at all."""
        self.n_runs += call is not None and call.started_at is not None

    def state(self) -> Mapping[str, Any]:
        """Show where the runs go and how many there are."""
        shown: dict[str, Any] = {"Project": self.project, "Runs": self.n_runs}
        mode = self.options.get("mode")
        return {**shown, "Mode": str(mode)} if mode is not None else shown


def _names(task: Task[..., Any], call: Call) -> dict[str, str]:
    """Make the name and the group of a call's run."""
    scheduler = task.scheduler
    run = scheduler.last_run
    assert run is not None
    began = datetime.fromtimestamp(run.started_at, tz=UTC)
    return {
        "name": f"{task.name}-{call.id}",
        "group": f"{scheduler.name}-{scheduler.n_runs}-{began:%Y%m%d-%H%M%S}",
    }


class _Init:
    """The arguments of `wandb.init` for one call; its name is known when the call is made."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.named: dict[str, str] = {}

    def start(self) -> Any:
        import wandb

        if wandb.run is not None:
            raise PluginError(
                "a run of wandb's is active in this process already, and each call needs one of "
                "its own. Finish yours before (wandb.finish()), or use worker processes."
            )
        options = {**self.named, **self.options}
        own = {"console": "off", "silent": True}  # what a call prints is taken already
        settings = options.get("settings")
        if settings is None or isinstance(settings, Mapping):
            options["settings"] = wandb.Settings(**{**own, **(settings or {})})
        return wandb.init(**options)


def _find_init(fn: Any) -> _Init | None:
    """Find what was put around a function among what other plugins have put around it."""
    while fn is not None:
        context = getattr(fn, "_context", None)
        if isinstance(context, partial) and context.func is _logged:
            found: _Init = context.args[0]
            return found
        fn = getattr(fn, "__wrapped__", None)
    return None


def _config(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Show arguments by name, as short plain values."""
    try:
        given = inspect.signature(fn).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # builtins without one, or arguments that do not fit
        given = {**{f"argument {i}": value for i, value in enumerate(args, start=1)}, **kwargs}
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if type(value) is str:
        return value if len(value) <= _MAX_TEXT else value[: _MAX_TEXT - 1] + "…"
    return short_repr(value, _MAX_TEXT)


# --- in the worker --------------------------------------------------------------------------

_turn = threading.Lock()  # wandb has one current run per process


@contextmanager
def _logged(init: _Init) -> Iterator[None]:
    offline = init.options.get("mode") in ("offline", "disabled")
    with _turn, _nothing_left() if parent_process() is None else nullcontext():
        if offline:
            # Without this it tells its makers that it was started, whatever the mode of a run.
            os.environ.setdefault(_REPORTING, "false")
        run = init.start()
        try:
            yield
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish(exit_code=0)


@contextmanager
def _nothing_left() -> Iterator[None]:
    """Have wandb leave a kernel as it was; a worker process is there for nothing but calls."""
    reporting, hooks = os.environ.get(_REPORTING), (sys.exit, sys.excepthook)
    library = sys.modules.get("wandb")
    is_the_users = _SERVICE in os.environ or getattr(library, "run", None) is not None
    try:
        yield
    finally:
        if not is_the_users:
            import_module("wandb").teardown()
            sys.exit, sys.excepthook = hooks  # replaced for good by wandb
        if reporting is None:
            os.environ.pop(_REPORTING, None)
