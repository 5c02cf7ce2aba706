"""Calls in jobs of a batch system, by dask-jobqueue: Dask workers that Slurm and the like start.

Dask's scheduler runs in this process, so what it knows is read here and not asked for. It is
told to give up a call whose worker died: upstream would run it again without a word.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from amltk_nb.errors import BackendLostError, BackendStartError
from amltk_nb.scheduling.executors.batch_jobs import BatchJobs
from amltk_nb.scheduling.executors.batch_order import BatchOrder
from amltk_nb.scheduling.executors.dask_client import connected_client
from amltk_nb.scheduling.executors.dask_connection import DaskConnection
from amltk_nb.scheduling.executors.reach import address_of_interface, own_address
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Handle,
    News,
    RemoteBackend,
    RemoteWorker,
    checked_ahead,
)
from amltk_nb.scheduling.remote_call import Portable

__all__ = ["JobQueueBackend"]

_SEEN_S = 5.0  # for Dask's scheduler to notice that a worker was killed


class JobQueueBackend(RemoteBackend):
    """Runs calls on workers that are submitted as jobs, anew for each run."""

    def __init__(
        self,
        key: str,
        n_workers: int,
        *,
        adaptive: bool = False,
        submit_command: str | None = None,
        cancel_command: str | None = None,
        start_timeout: float | None = None,
        n_ahead: int | None = None,
        no_workers_after: float = 10.0,
        **options: Any,
    ) -> None:
        """Check what is wanted; see `Scheduler.with_slurm`."""
        self.order = BatchOrder(
            key,
            n_workers=n_workers,
            adaptive=adaptive,
            submit_command=submit_command,
            cancel_command=cancel_command,
            options=options,
        )
        self.start_timeout_s = _checked_timeout(start_timeout, self.order.verb)
        self.n_ahead = checked_ahead(n_ahead)
        super().__init__(
            options=_shown(n_workers, adaptive, options), no_workers_after_s=no_workers_after
        )
        self.name = self.order.system.cluster
        self.cannot_end = None
        if options.get("nanny") is False:
            self.cannot_end = (
                "a worker without its nanny (nanny=False) cannot be started again, so none of its "
                "calls is ended; leave nanny= out for that"
            )
        self._jobs: BatchJobs | None = None

    def job_script(self) -> str:
        """Return the text that is submitted for each job."""
        address = self._jobs.address() if self._jobs is not None else None
        return self.order.job_script(address)

    def reach(self) -> str | None:
        """Find the address of the interface that jobs use, else the one of this machine."""
        interface = self.order.options.get("interface")
        return own_address() if interface is None else address_of_interface(interface)

    def connect(self, news: News) -> Connection:
        """Submit the jobs; their workers come when the batch system lets them."""
        self._jobs = BatchJobs(self.order, news)
        try:
            self._jobs.submit()
        except BackendStartError:
            raise
        except Exception as error:
            self._jobs.close()
            raise BackendStartError(
                f"{self.order.verb}() could not start Dask's scheduler on this machine: {error}. "
                "Check interface= and scheduler_options= (host, port)."
            ) from error
        return _JobQueueConnection(self._jobs, news, start_timeout_s=self.start_timeout_s)


class _JobQueueConnection(DaskConnection):
    """The workers of the jobs; Dask's scheduler is in this process, and so can be looked at."""

    def __init__(self, jobs: BatchJobs, news: News, *, start_timeout_s: float | None) -> None:
        try:
            client = connected_client(jobs.cluster, timeout_s=10)
        except BaseException:
            jobs.close()  # else nobody takes them back
            raise
        super().__init__(client, news, scheduler=jobs.cluster.scheduler)
        self._jobs = jobs
        self._end_worker = Portable(_end_worker)
        self._start_timeout_s = start_timeout_s
        self._began_at = time.monotonic()
        self._scheduler.add_plugin(_bell(news), name="amltk_nb")
        client.register_plugin(_leave_at_once(), name="amltk_nb")

    def workers(self) -> Sequence[RemoteWorker]:
        """Replace jobs that are lost, and say who is there."""
        there = super().workers()
        names = [str(worker.name) for worker in list(self._scheduler.workers.values())]
        self._jobs.watch(names)
        self._mind_the_start(bool(there))
        return [*there, *self._to_come(len(there))]

    def _to_come(self, n_there: int) -> list[RemoteWorker]:
        """Those an adaptive cluster would start: it does so only when it has been given calls."""
        order = self._jobs.order
        n_to_come = order.n_jobs * order.n_workers_per_job - n_there if order.adaptive else 0
        return [RemoteWorker(name=f"to-come-{n}", is_there=False) for n in range(n_to_come)]

    def _mind_the_start(self, anybody: bool) -> None:
        limit_s = self._start_timeout_s
        if anybody or self._jobs.order.adaptive:
            self._start_timeout_s = None
        elif limit_s is not None and time.monotonic() >= self._began_at + limit_s:
            raise BackendLostError(self._jobs.why_nobody_came(limit_s))

    def n_jobs_waiting(self) -> int:
        """Count the jobs in the batch queue."""
        return self._jobs.n_waiting()

    def _kill_by_itself(self, worker: str, handle: Handle) -> bool:
        """Wait besides until Dask has seen it, so that no other call is sent into this end."""
        state = self._scheduler.workers.get(worker)
        killed = super()._kill_by_itself(worker, handle)
        if killed and state is not None:
            deadline, pause = time.monotonic() + _SEEN_S, threading.Event()
            while self._scheduler.workers.get(worker) is state and time.monotonic() < deadline:
                pause.wait(0.01)
        return killed

    def _kill_from_outside(self, worker: str) -> bool:
        """Have the nanny do it: a process of its own beside each worker, on the same machine."""
        self.client.run(self._end_worker, workers=[worker], nanny=True)
        return True

    def disconnect(self, running: Collection[Handle]) -> None:
        """End what runs, then take the jobs back: the batch system itself may let them linger."""
        try:
            for handle in running:
                with suppress(Exception):  # its job is taken back all the same
                    self.kill(handle)
            super().disconnect(running)
        finally:
            self._jobs.close()


def _bell(news: News) -> Any:
    """Make a plugin of Dask's scheduler that rings when a worker comes or goes."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    def ring(*_: Any, **__: Any) -> None:
        news.changed()

    return type("Bell", (SchedulerPlugin,), {"add_worker": ring, "remove_worker": ring})()


def _leave_at_once() -> Any:
    """Make a plugin of Dask's workers that ends what runs there when its worker closes.

    A worker closes when this process is gone, or its job's time is over. Upstream then waits half
    a minute for running calls, whose answers nobody takes any more: so long a job would stay.
    """
    from distributed.diagnostics.plugin import WorkerPlugin

    class LeaveAtOnce(WorkerPlugin):  # type: ignore[misc]  # a local class travels by value
        def teardown(self, worker: Any) -> None:
            import os
            import signal

            import psutil  # Dask itself needs it

            if worker.active_threads:
                for child in psutil.Process().children(recursive=True):
                    with suppress(psutil.Error):  # it may have ended by itself just now
                        child.kill()
                os.kill(os.getpid(), signal.SIGKILL)

    return LeaveAtOnce()


def _end_worker(dask_worker: Any) -> None:
    """End the worker of this nanny and all it started; the nanny then starts another one."""
    import psutil

    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        worker = psutil.Process(dask_worker.pid)
        family = [*worker.children(recursive=True), worker]
    for process in family:
        with suppress(psutil.Error):  # it may have ended by itself just now
            process.kill()


def _shown(n_workers: int, adaptive: bool, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of the views wants to know of an order."""
    names = ("queue", "cores", "memory", "walltime", "processes")
    told = {name: options[name] for name in names if options.get(name) is not None}
    return {"n_workers": n_workers, **({"adaptive": True} if adaptive else {}), **told}


def _checked_timeout(timeout: Any, verb: str) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(
            f"{verb}(start_timeout={timeout!r}): use a number of seconds until which a worker "
            "must be there, or None to wait as long as the queue takes."
        )
    if not timeout > 0 or math.isnan(timeout):
        raise ValueError(
            f"{verb}(start_timeout={timeout!r}): use more than 0 seconds, or None to wait as "
            "long as the queue takes."
        )
    return float(timeout)
