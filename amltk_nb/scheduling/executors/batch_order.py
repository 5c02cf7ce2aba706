"""What is asked of a batch system: checked before anything is started, and shown as a script."""

from __future__ import annotations

import math
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from amltk_nb.errors import BackendStartError, MissingExtraError
from amltk_nb.scheduling.executors.batch_systems import SYSTEMS, Answer, job_class

__all__ = ["BatchOrder"]

# Of dask_jobqueue's clusters; all other options describe a job.
_OF_THE_CLUSTER = {"security", "shared_temp_directory", "silence_logs", "scheduler_options"}
_OURS = {"asynchronous", "loop", "job_cls", "scheduler_cls", "name"}
_OF_THE_SCHEDULER = ("dashboard_address", "host")  # of Dask's, where upstream wants them nested
_NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
# Upstream forgets where OAR's jobs are to write what they say; OAR would do so where the
# notebook runs.
_OAR_LOGS = ("-O {folder}/dask-worker.%jobid%.out", "-E {folder}/dask-worker.%jobid%.err")
_NOWHERE = "tcp://scheduler-address:port"  # stands in the script until there is a scheduler


class BatchOrder:
    """Workers that a user wants of a batch system."""

    def __init__(
        self,
        key: str,
        *,
        n_workers: int,
        adaptive: bool,
        submit_command: str | None,
        cancel_command: str | None,
        options: Mapping[str, Any],
    ) -> None:
        """Check an order.

        Args:
            key: of the batch system: "slurm".
            n_workers: how many workers.
            adaptive: whether their number follows the work.
            submit_command: with its flags; None: the system's own.
            cancel_command: the same.
            options: for dask_jobqueue's cluster class; what is not given is taken from Dask's
                configuration files, as always with dask_jobqueue.

        Raises:
            MissingExtraError: dask_jobqueue is not installed.
            TypeError: an option that this batch system does not have, or one that is missing.
            ValueError: an option that makes no sense.
        """
        self.system = SYSTEMS[key]
        self.verb = f"Scheduler.with_{key}"
        self.n_workers = _counted(n_workers, self.verb)
        self.adaptive = adaptive
        _check_command("submit_command", submit_command, self.verb)
        _check_command("cancel_command", cancel_command, self.verb)
        self.submit_command = submit_command
        self.cancel_command = cancel_command
        _check_sizes(options, self.verb)
        self.cluster_class = _cluster_class(self.system.cluster, self.verb)
        self.options = self._completed(options)
        job = self._sample()
        n_threads = int(job.worker_process_threads)
        if n_threads > 1:
            self.options["job_script_prologue"] = [_threads(n_threads), *job._job_script_prologue]
            job = self._sample()
        if self.system.key == "oar" and job.log_directory:
            logs = [line.format(folder=job.log_directory) for line in _OAR_LOGS]
            self.options["job_extra_directives"] = [*logs, *job.job_extra_directives]
            job = self._sample()
        self._script = str(job.job_script())
        self.n_workers_per_job = int(job.worker_processes)
        self.n_jobs = math.ceil(self.n_workers / self.n_workers_per_job)
        self.log_directory: str | None = job.log_directory
        self.cancel_command_used = cancel_command or str(job.cancel_command)
        self.submit_command_used = submit_command or str(job.submit_command)

    def job_script(self, address: str | None = None) -> str:
        """Return the text that is submitted for each job.

        Args:
            address: of Dask's scheduler; None: there is none yet.
        """
        return self._script if address is None else self._script.replace(_NOWHERE, address)

    def open_cluster(self, told: Callable[[Answer], None]) -> Any:
        """Start the cluster's own part, which runs here; no job is submitted yet.

        Args:
            told: called with the answer to each submission, on the cluster's thread.
        """
        return self.cluster_class(job_cls=self._job_class(told), **self.options)

    def _completed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add what suits calls that run one at a time on each worker, with all of its cores."""
        for name, value in given.items():
            if value is ...:
                raise ValueError(
                    f"{self.verb}({name}=...): the dots stand for a value of your site; write it "
                    f"there, or leave {name}= out for the default."
                )
            if name in _OURS:
                raise TypeError(f"{self.verb}() sets {name}= itself; leave it out.")
        options = dict(given)
        options.setdefault("processes", 1)
        wanted = dict(options.get("scheduler_options") or {})
        wanted |= {name: options.pop(name) for name in _OF_THE_SCHEDULER if name in options}
        # Dask's scheduler always serves some pages; 8787 may be anybody's, and Dask warns then.
        quiet = {} if "dashboard_address" in wanted else _NO_DASHBOARD
        options["scheduler_options"] = {"allowed_failures": 0, **quiet, **wanted}
        extra = options.get("worker_extra_args") or []
        options["worker_extra_args"] = ["--nthreads", "1", "--no-dashboard", *extra]
        return options

    def _sample(self) -> Any:
        """Make a job as it will be submitted, without submitting it."""
        options = {k: v for k, v in self.options.items() if k not in _OF_THE_CLUSTER}
        try:
            return self._job_class(lambda _: None)(_NOWHERE, name="worker", **options)
        except (TypeError, ValueError, KeyError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", text):
            return TypeError(
                f"{self.verb}() has no option {unknown.group(1)}=, and neither has "
                f"dask_jobqueue's {self.system.cluster}, which takes all others; its "
                "documentation lists them."
            )
        missing = [name for name in ("cores", "memory") if self.options.get(name) is None]
        if text.startswith("You must specify how much cores") and missing:
            return TypeError(
                f"{self.verb}() needs {' and '.join(f'{name}=' for name in missing)}: what one "
                f"job asks {self.system.title} for, such as {self.verb}(n_workers=10, cores=4, "
                "memory='6 GB', walltime='00:10:00')."
            )
        if "how much disk" in text:
            return TypeError(f"{self.verb}() needs disk=: what one job asks for, such as '1 GB'.")
        return ValueError(f"{self.verb}(): {text}")

    def _job_class(self, told: Callable[[Answer], None]) -> Any:
        return job_class(
            self.cluster_class.job_cls,
            submit_command=self.submit_command,
            cancel_command=self.cancel_command,
            told=told,
        )


def _threads(n: int) -> str:
    """Give a call's numerical libraries the cores of its worker; Dask would give them one."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return "export " + " ".join(f"{name}={n}" for name in names)


def _counted(n_workers: Any, verb: str) -> int:
    if isinstance(n_workers, bool) or not isinstance(n_workers, int):
        raise TypeError(f"{verb}(n_workers={n_workers!r}): use a whole number, such as 10.")
    if n_workers < 1:
        raise ValueError(f"{verb}(n_workers={n_workers!r}): ask for at least 1 worker.")
    return n_workers


def _check_command(name: str, command: str | None, verb: str) -> None:
    try:
        words = shlex.split(command) if command is not None else ["default"]
    except ValueError as error:
        raise ValueError(f"{verb}({name}={command!r}) is no command line: {error}.") from None
    if not words:
        raise ValueError(f"{verb}({name}={command!r}) is empty; leave it out for the default.")


def _check_sizes(options: Mapping[str, Any], verb: str) -> None:
    for name in ("cores", "processes"):
        n = options.get(name)
        if n is not None and (type(n) is not int or n < 1):
            raise ValueError(f"{verb}({name}={n!r}): use a whole number of 1 or more.")
    for name in ("memory", "disk"):
        size = options.get(name)
        if size not in (None, ...) and not isinstance(size, str):
            raise ValueError(f"{verb}({name}={size!r}): write the size with its unit: '6 GB'.")


def _cluster_class(name: str, verb: str) -> Any:
    try:
        with _interrupts_kept(verb):
            import dask_jobqueue
    except ImportError:
        raise MissingExtraError(
            f"{verb}() needs dask-jobqueue, which is not installed: "
            "pip install 'amltk-nb[jobqueue]'."
        ) from None
    return getattr(dask_jobqueue, name)


@contextmanager
def _interrupts_kept(verb: str) -> Iterator[None]:
    """Undo what importing dask_jobqueue does: from then on, the ■ button would end the kernel.

    It sets a handler of SIGINT that exits, for programs that it runs itself (its `runner`).
    """
    if "dask_jobqueue.runner" in sys.modules:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise BackendStartError(
            f"{verb}() loads dask_jobqueue, which can be loaded on the main thread only. Call "
            f"{verb}() there, or once before you start this thread."
        )
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
