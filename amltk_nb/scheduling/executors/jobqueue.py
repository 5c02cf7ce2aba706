"""Calls in jobs of a batch system, by dask-jobqueue: Dask workers that Slurm and the like start.

Dask's scheduler runs in this process, so what it knows is read here and not asked for. It is
told to give up a call whose worker died: upstream would run it again without a word.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any

from amltk_nb.errors import BackendLostError, BackendStartError, CannotEndError, WorkerDiedError
from amltk_nb.scheduling.executors.batch_jobs import BatchJobs
from amltk_nb.scheduling.executors.batch_order import BatchOrder
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Done,
    Handle,
    News,
    RemoteBackend,
    RemoteWorker,
)
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["JobQueueBackend"]

_KILL_S = 10.0  # until the nanny beside a worker has ended it


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
        no_workers_after_s: float = 10.0,
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
        super().__init__(
            options=_shown(n_workers, adaptive, options), no_workers_after_s=no_workers_after_s
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
        cluster = self._jobs.cluster if self._jobs is not None else None
        return str(cluster.job_script()) if cluster is not None else self.order.job_script()

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
        return _JobQueueConnection(self._jobs, start_timeout_s=self.start_timeout_s)


class _JobQueueConnection(Connection):
    """The workers of the jobs, through Dask."""

    def __init__(self, jobs: BatchJobs, *, start_timeout_s: float | None) -> None:
        from distributed import Client

        self._jobs = jobs
        self._scheduler = jobs.cluster.scheduler
        self._client = Client(jobs.cluster, set_as_default=False)
        self._run = Portable(_run_on_dask)
        self._end_worker = Portable(_end_worker)
        self._futures: dict[Handle, Any] = {}  # kept: Dask forgets what nobody holds
        self._gives_up_at = None if start_timeout_s is None else time.monotonic() + start_timeout_s
        self._start_timeout_s = start_timeout_s

    def submit(self, packed: bytes, done: Done) -> Handle:
        future = self._client.submit(self._run, packed, pure=False, retries=0)
        key: str = future.key
        self._futures[key] = future
        future.add_done_callback(lambda ended: self._done(key, ended, done))
        return key

    def _done(self, key: str, future: Any, done: Done) -> None:
        self._futures.pop(key, None)
        done(_answer(future))

    def workers(self) -> Sequence[RemoteWorker]:
        there = [
            RemoteWorker(
                name=str(worker.name),
                n_slots=worker.nthreads,
                where=worker.address,
                running=tuple(worker.processing_keys()),
            )
            for worker in self._present()
        ]
        self._jobs.watch([worker.name for worker in there])
        self._mind_the_start(bool(there))
        return [*there, *self._to_come(len(there))]

    def _present(self) -> list[Any]:
        return [_Seen(worker) for worker in list(self._scheduler.workers.values())]

    def _to_come(self, n_there: int) -> list[RemoteWorker]:
        """Those an adaptive cluster would start: it does so only when it has been given calls."""
        order = self._jobs.order
        n_to_come = order.n_jobs * order.n_workers_per_job - n_there if order.adaptive else 0
        return [RemoteWorker(name=f"to-come-{n}") for n in range(n_to_come)]

    def _mind_the_start(self, anybody: bool) -> None:
        if anybody or self._jobs.order.adaptive:
            self._gives_up_at = None
        elif self._gives_up_at is not None and time.monotonic() >= self._gives_up_at:
            raise BackendLostError(self._jobs.why_nobody_came(self._start_timeout_s or 0.0))

    def n_jobs_waiting(self) -> int:
        return self._jobs.n_waiting()

    def drop(self, handle: Handle) -> None:
        future = self._futures.pop(handle, None)
        if future is not None:
            future.cancel()

    def kill(self, handle: Handle) -> None:
        """End the process of the worker that runs it; the nanny beside it starts another one.

        It runs one call at a time, so nobody else's ends. Cancelled first, the call would leave
        a worker that looks free, and the next call would be sent into its end.
        """
        worker = next((w for w in self._present() if handle in w.processing_keys()), None)
        if worker is None:
            self.drop(handle)  # not begun, or over
            return
        if worker.nthreads > 1:
            raise CannotEndError(
                f"the worker {worker.name} runs several calls at a time, and they would end too"
            )
        self._client.run(self._end_worker, workers=[worker.address], nanny=True)
        deadline, pause = time.monotonic() + _KILL_S, threading.Event()
        while worker.is_there(self._scheduler) and time.monotonic() < deadline:
            pause.wait(0.01)

    def disconnect(self, running: Collection[Handle]) -> None:
        busy = [w for w in self._present() if set(running) & set(w.processing_keys())]
        try:
            if busy:
                addresses = [worker.address for worker in busy]
                self._client.run(self._end_worker, workers=addresses, nanny=True, on_error="ignore")
            self._client.close(timeout=_KILL_S)
        finally:
            self._jobs.close()


class _Seen:
    """A worker as Dask's scheduler has it, which another thread changes meanwhile."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.name, self.address, self.nthreads = str(state.name), state.address, state.nthreads

    def processing_keys(self) -> list[str]:
        return [task.key for task in list(self._state.processing)]

    def is_there(self, scheduler: Any) -> bool:
        """Whether it is this very process; another one at the same address is a new worker."""
        return scheduler.workers.get(self.address) is self._state


def _run_on_dask(packed: bytes) -> bytes:
    from distributed import get_worker

    return run_call(packed, str(get_worker().name))


def _end_worker(dask_worker: Any) -> None:
    """End the worker of this nanny and all it started; the nanny then starts another one."""
    import psutil

    try:
        worker = psutil.Process(dask_worker.pid)
        for process in [worker, *worker.children(recursive=True)]:
            process.kill()
    except psutil.NoSuchProcess:
        pass


def _answer(future: Any) -> bytes | BaseException:
    from distributed.scheduler import KilledWorker

    if future.cancelled():
        return CancelledError()
    try:
        answer: bytes = future.result()
    except KilledWorker as error:
        died = WorkerDiedError(
            f"The worker {error.last_worker.name} died while it ran this call: its job was "
            "cancelled, its time or memory was over, or the call crashed it. Ask for more "
            "(walltime=, memory=), and see what the job said in its log (log_directory=)."
        )
        died.__cause__ = error
        return died
    except BaseException as error:
        return error
    return answer


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
