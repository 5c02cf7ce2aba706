"""The jobs of one run: submitted, watched, made anew when they are lost, taken back at the end.

Upstream submits a job once. What becomes of it (refused, cancelled by somebody, over its time)
shows in nothing but a worker that never comes, or is gone. So every job is followed here, from
three sources: the answer to its submission, the workers that the Dask scheduler sees, and the
queue of the batch system, which is asked only while some job has no worker, and ever less often.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from amltk_nb.errors import BackendLostError, BackendStartError
from amltk_nb.scheduling.executors.batch_order import BatchOrder
from amltk_nb.scheduling.executors.batch_systems import Answer, Listed

__all__ = ["BatchJobs", "Told"]

# Where the queue cannot be listed, a job whose workers left is taken for lost after this; a
# worker that is started again within its job is back sooner.
_GRACE_S = 15.0
_SETTLE_S = 0.5  # a queue may take a moment to list what it has just taken
_ASK_FIRST_S, _ASK_LAST_S = 1.0, 30.0  # between two looks into the queue: grows while all is quiet
_RETRY_FIRST_S, _RETRY_LAST_S = 1.0, 60.0  # between two attempts after a failed job
_N_FAILURES = 3  # so many jobs in a row without a worker: it is no accident
_CLOSE_S = 30.0
_ANSWER_S = 150.0  # to the first submission; commands themselves are bounded more closely


class Told(Protocol):
    """Who hears of what happens to jobs."""

    closing: threading.Event

    def changed(self) -> None:
        """Jobs came or went."""

    def log(self, level: str, text: str) -> None:
        """What the user should read."""


@dataclass(slots=True)
class _Job:
    name: str  # its key in the cluster, and what its workers' names begin with
    job_id: str | None
    since: float  # since when it has no worker, by the monotonic clock
    had_worker: bool = False
    is_there: bool = False  # whether it has a worker now
    waits: bool = True  # in the queue, as far as is known
    line: str = ""  # what the queue said of it last

    def told(self) -> str:
        known = f"{self.job_id} {'waits' if self.waits else 'runs'}"
        return f"{known} (`{self.line}`)" if self.line else known


@dataclass(slots=True)
class _Pace:
    """When to do something again that costs others: at first soon, then ever later."""

    first_s: float
    last_s: float
    at: float = 0.0
    every_s: float = field(default=0.0)

    def is_due(self, now: float) -> bool:
        return now >= self.at

    def slow_down(self, now: float) -> None:
        self.every_s = min(self.last_s, max(self.first_s, 2 * self.every_s))
        self.at = now + self.every_s

    def reset(self) -> None:
        self.at = self.every_s = 0.0


class BatchJobs:
    """The jobs behind one connection; every method but `told` is called by one thread."""

    def __init__(self, order: BatchOrder, news: Told) -> None:
        """Prepare; `submit` does the rest.

        Args:
            order: what is wanted.
            news: hears of lost and refused jobs.
        """
        self.order = order
        self._news = news
        self._jobs: dict[str, _Job] = {}
        self._answers: list[Answer] = []
        self._heard = threading.Event()  # an answer came, or the run is closing
        self._job_ids: set[str] = set()  # of all jobs ever submitted, to be sure at the end
        self._n_failed = 0  # jobs in a row that ended without a worker
        self._last_failure = ""
        self._asking = _Pace(_ASK_FIRST_S, _ASK_LAST_S)
        self._retrying = _Pace(_RETRY_FIRST_S, _RETRY_LAST_S)
        self.cluster: Any = None

    # ---------------------------------------------------------------- beginning

    def submit(self) -> None:
        """Start the cluster, submit its jobs and wait until the batch system has taken one.

        Raises:
            BackendStartError: the first job was refused; with what the batch system answered.
        """
        self.cluster = self.order.open_cluster(self.told)
        if self.order.adaptive:
            self.cluster.adapt(minimum_jobs=0, maximum_jobs=self.order.n_jobs)
            return
        self.cluster.scale(jobs=self.order.n_jobs)
        deadline = time.monotonic() + _ANSWER_S
        while not self._may_go_on() and not self._news.closing.is_set():
            self._heard.wait(0.1)
            if time.monotonic() > deadline:
                self.told(Answer(None, f"no answer within {_ANSWER_S:g} s"))
                break
        if self._answers and not self._job_ids:
            self.close()
            raise BackendStartError(self._refusal(self._answers[0]))

    def _may_go_on(self) -> bool:
        """Whether a job was taken, or all were refused: a site may limit how many one may have."""
        return bool(self._job_ids) or len(self._answers) >= self.order.n_jobs

    def told(self, answer: Answer) -> None:
        """Take the answer to a submission, on the cluster's thread."""
        self._answers.append(answer)
        if answer.job_id is not None:
            self._job_ids.add(answer.job_id)
        self._heard.set()
        self._news.changed()

    def _refusal(self, answer: Answer) -> str:
        system = self.order.system.title
        command = shlex.split(self.order.submit_command_used)[0]
        if shutil.which(command) is None:
            return (
                f"The command {command!r} is not on this machine, so no job can be submitted to "
                f"{system}. Run this where jobs are submitted, a login node as a rule, or name "
                f"the command: {self.order.verb}(submit_command=...)."
            )
        return (
            f"{system} refused the job: {answer.text}. See what would be submitted with "
            f"scheduler.job_script(), and change it by the options of {self.order.verb}(): "
            "queue=, account=, walltime=, job_extra_directives=, submit_command=."
        )

    # ---------------------------------------------------------------- watching

    def watch(self, workers: Collection[str]) -> None:
        """See what became of the jobs, and replace the lost ones.

        Args:
            workers: the names of those that are there.

        Raises:
            BackendLostError: nobody is there, and job after job ends without a worker.
        """
        now = time.monotonic()
        self._follow(now)
        self._see_workers(workers, now)
        told = [self._bury(job) for job in self._lost(now)]
        for text in dict.fromkeys(told):  # many may be refused for one reason
            self._news.log("warning", f"{text}; another one is submitted")
        if self._n_failed >= _N_FAILURES and not self._jobs and not workers:
            raise BackendLostError(self._hopeless())
        self._fill_up(now)

    def _follow(self, now: float) -> None:
        """Take over what the cluster has; it adds and drops jobs by itself when adaptive."""
        present = {
            str(name): job.job_id
            for name, job in list(self.cluster.workers.items())
            if name in self.cluster.worker_spec
        }
        self._jobs = {name: job for name, job in self._jobs.items() if name in present}
        for name, job_id in present.items():
            if name not in self._jobs or self._jobs[name].job_id != job_id:
                self._jobs[name] = _Job(name, job_id, since=now)
                self._asking.reset()

    def _see_workers(self, workers: Collection[str], now: float) -> None:
        for job in self._jobs.values():
            was_there = job.is_there
            job.is_there = any(w == job.name or w.startswith(f"{job.name}-") for w in workers)
            if job.is_there:
                job.had_worker, job.waits, self._n_failed = True, False, 0
                self._retrying.reset()
            elif was_there:
                job.since = now
                self._asking.reset()

    def _lost(self, now: float) -> list[_Job]:
        """Find the jobs that will bring no worker any more."""
        absent = [job for job in self._jobs.values() if not job.is_there]
        refused = [job for job in absent if job.job_id is None]
        if not absent or not self._asking.is_due(now):
            return refused
        self._asking.slow_down(now)
        if (queue := self.order.system.queue()) is None:
            late = (job for job in absent if job.had_worker and now - job.since >= _GRACE_S)
            return [*refused, *(job for job in late if job not in refused)]
        return [*refused, *(job for job in absent if self._is_over(job, queue, now))]

    def _is_over(self, job: _Job, queue: Mapping[str, Listed], now: float) -> bool:
        if job.job_id is None:
            return False
        listed = queue.get(_number(job.job_id))
        job.waits, job.line = (listed.waits, listed.line) if listed else (False, "")
        is_new = not job.had_worker and now - job.since < _SETTLE_S
        return listed is None and not is_new

    def _bury(self, job: _Job) -> str:
        """Have the cluster forget a job, so that it makes room for another; returns why."""
        what = f"job {job.job_id}" if job.job_id else "a job"
        if job.had_worker:
            told = f"{what} of {self.order.system.title} is gone, with its worker"
        elif job.job_id is None:
            refusals = [answer for answer in self._answers if answer.job_id is None]
            told = f"{self.order.system.title} refused {what}: {refusals[-1].text}"
        else:
            told = f"{what} of {self.order.system.title} ended before its worker came"
        if not job.had_worker:
            self._n_failed += 1
            self._last_failure = told
        self.cluster.sync(self._forget, job.name)
        self._jobs.pop(job.name, None)
        return told

    async def _forget(self, name: str) -> None:
        self.cluster.worker_spec.pop(name, None)
        job = self.cluster.workers.pop(name, None)
        if job is not None:
            await job.close()

    def _fill_up(self, now: float) -> None:
        """Submit as many jobs as are missing; an adaptive cluster does so by itself."""
        missing = self.order.n_jobs - len(self.cluster.worker_spec)
        gone = set(self.cluster.worker_spec) - set(self.cluster.workers)  # upstream's own burial
        if self.order.adaptive or not (missing or gone):
            return
        if self._n_failed:
            if not self._retrying.is_due(now):
                return
            self._retrying.slow_down(now)
        # Asking for what is being submitted already does nothing.
        self.cluster.scale(jobs=self.order.n_jobs)

    def _hopeless(self) -> str:
        logs = self.order.log_directory
        where = f"in {logs}" if logs else "where the jobs write their output (set log_directory=)"
        return (
            f"{self._n_failed} jobs in a row came to nothing; the last: {self._last_failure}. "
            f"If they began, what they said is {where}: a Python that is not on the nodes "
            "(python=), a network on which they do not find this machine (interface=), or too "
            "little memory are the usual reasons."
        )

    def address(self) -> str | None:
        """Where the workers find Dask's scheduler; None: not started yet."""
        scheduler = getattr(self.cluster, "scheduler", None)
        return None if scheduler is None else str(scheduler.contact_address or scheduler.address)

    def why_nobody_came(self, after_s: float) -> str:
        """Say what is known of the jobs when the time for the first worker is over."""
        system = self.order.system.title
        known = ", ".join([job.told() for job in self._jobs.values() if job.job_id][:5])
        answered = f"{system} has the jobs: {known}" if known else self._last_failure
        return (
            f"No worker came within start_timeout={after_s:g} s. {answered or 'No job is there'}. "
            "If they wait, the queue is long, or they ask for too much; if they run, their workers "
            "do not find this machine (interface=). Without start_timeout= the run waits."
        )

    def n_waiting(self) -> int:
        """Count the jobs that wait in the batch queue, as far as is known."""
        return sum(job.waits for job in self._jobs.values() if job.job_id is not None)

    # ---------------------------------------------------------------- the end

    def close(self) -> None:
        """Take every job back and end the cluster's own part."""
        if self.cluster is None:
            return
        try:
            self.cluster.close(timeout=_CLOSE_S)
        finally:
            self._take_back_what_is_left()

    def _take_back_what_is_left(self) -> None:
        """Cancel jobs that the cluster forgot: one that was being submitted, or could not close."""
        queue = self.order.system.queue() if self._job_ids else None
        for job_id in sorted(self._job_ids):
            if queue and _number(job_id) in queue:
                command = [*shlex.split(self.order.cancel_command_used), job_id]
                subprocess.run(command, capture_output=True, timeout=_CLOSE_S)


def _number(job_id: str | None) -> str:
    """The part of a job's id that a queue's listing has too: "12.0" is 12 for HTCondor."""
    return (job_id or "").split(".")[0]
