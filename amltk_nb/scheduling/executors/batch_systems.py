"""The batch systems that dask-jobqueue knows, and a job of theirs that hides nothing.

Upstream's jobs keep quiet about a refused submission: the error goes to a log, and whoever waits
for a worker waits for ever. The jobs made here tell of every answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["SYSTEMS", "Answer", "BatchSystem", "Listed", "job_class"]

_COMMAND_S = 120  # sbatch itself gives up on a controller that is away after about as long
_QUEUE_S = 20  # for listing the queue


@dataclass(frozen=True, slots=True)
class Answer:
    """What a batch system said to one submission."""

    job_id: str | None  # None: it was refused
    text: str  # of a refusal: the command, and what it printed


@dataclass(frozen=True, slots=True)
class Listed:
    """One job in the queue of a batch system."""

    waits: bool  # to begin
    line: str  # as the batch system wrote it, which may say why


@dataclass(frozen=True, slots=True)
class BatchSystem:
    """One batch system: its names, and how to list its queue."""

    key: str  # as in with_slurm
    title: str  # as in messages
    cluster: str  # of dask_jobqueue
    queue_command: Sequence[str]  # lists the jobs of this user; empty: not known how
    id_column: int = 0
    state_column: int = 1
    waiting: frozenset[str] = frozenset()  # states of a job that has not begun
    over: frozenset[str] = frozenset()  # states of a job that will not run any more

    def queue(self) -> dict[str, Listed] | None:
        """List the jobs that are not over, by number; None: the system does not say."""
        if not self.queue_command:
            return None
        command = [part.format(user=_user()) for part in self.queue_command]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_QUEUE_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return self.read_queue(done.stdout) if done.returncode == 0 else None

    def read_queue(self, listing: str) -> dict[str, Listed]:
        """Read what the queue command printed; lines that are no job's are passed over."""
        jobs = {}
        for line in listing.splitlines():
            fields = line.split()
            if len(fields) > max(self.id_column, self.state_column):
                number = re.match(r"\d+", fields[self.id_column])
                state = fields[self.state_column]
                if number and state not in self.over:
                    jobs[number.group()] = Listed(state in self.waiting, " ".join(fields))
        return jobs


def _user() -> str:
    # The name that commands know this process by; $USER may be that of somebody else.
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


# What each lists by default where it can; flags only where the default hides or wraps something.
SYSTEMS: Mapping[str, BatchSystem] = {
    system.key: system
    for system in (
        BatchSystem(
            "slurm",
            "Slurm",
            "SLURMCluster",
            ("squeue", "--noheader", "--user={user}", "--format=%A %t %r"),
            waiting=frozenset({"PD", "CF"}),
            over=frozenset({"CG", "CA", "CD", "F", "TO", "NF", "OOM", "DL"}),
        ),
        BatchSystem(
            "pbs",
            "PBS",
            "PBSCluster",
            ("qstat",),
            state_column=4,
            waiting=frozenset("QHW"),
            over=frozenset("CEFX"),
        ),
        BatchSystem(
            "lsf",
            "LSF",
            "LSFCluster",
            ("bjobs", "-noheader", "-o", "jobid stat"),
            waiting=frozenset({"PEND", "PSUSP"}),
            over=frozenset({"DONE", "EXIT"}),
        ),
        BatchSystem("moab", "Moab", "MoabCluster", ()),
        BatchSystem(
            "sge",
            "Grid Engine",
            "SGECluster",
            ("qstat", "-u", "{user}"),
            state_column=4,
            waiting=frozenset({"qw", "hqw"}),
            over=frozenset({"dr", "Eqw"}),
        ),
        BatchSystem(
            "htcondor",
            "HTCondor",
            "HTCondorCluster",
            ("condor_q", "-af", "ClusterId", "JobStatus"),
            waiting=frozenset({"1", "5"}),  # idle, held
            over=frozenset({"3", "4"}),
        ),
        BatchSystem(
            "oar",
            "OAR",
            "OARCluster",
            ("oarstat", "--user", "--format=2"),  # one column less to the left than the older 1
            waiting=frozenset("WHL"),
            over=frozenset("FTE"),
        ),
    )
}


class _RefusedError(RuntimeError):
    """A submit command that failed; upstream treats it as any RuntimeError."""


def _ran(command: Sequence[str], shell: bool) -> str:
    """Run a command of the batch system; what it printed, or the reason why it failed."""
    # The script is a file of upstream's that is gone when anybody reads of it; OAR gets its text.
    words = [word if "\n" not in word else "SCRIPT" for word in command]
    said = re.sub(r"\S+\.sh$", "SCRIPT", words[0] if shell else shlex.join(words))
    try:
        done = subprocess.run(
            command[0] if shell else command,
            shell=shell,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_S,
            start_new_session=True,  # else the ■ button would interrupt it as well
        )
    except OSError as error:
        raise _RefusedError(f"`{said}` cannot be run: {error}") from error
    except subprocess.TimeoutExpired:
        raise _RefusedError(f"`{said}` did not answer within {_COMMAND_S} s") from None
    if done.returncode:
        printed = (done.stderr + done.stdout).decode(errors="replace").strip() or "nothing"
        raise _RefusedError(f"`{said}` failed ({done.returncode}) and printed: {printed}")
    return done.stdout.decode(errors="replace")


async def _call(command: Sequence[str], *, shell: bool = False) -> str:
    """Take the place of upstream's way to run a command, which knows no limit of time."""
    return await asyncio.to_thread(_ran, command, shell)


def _submitted(job: Any) -> str:
    """Write a job's script and submit it; what the submit command printed."""
    with job.job_file() as path:
        return str(asyncio.run(job._submit_job(path)))


def job_class(
    base: Any,
    *,
    submit_command: str | None,
    cancel_command: str | None,
    told: Callable[[Answer], None],
) -> Any:
    """Make a job class that tells how its submission was answered.

    Args:
        base: a job class of dask_jobqueue.
        submit_command: with its flags; None: upstream's.
        cancel_command: the same.
        told: called with each answer, on the cluster's thread.
    """
    from distributed.core import Status

    async def start(self: Any) -> None:
        # On the instance: HTCondor's puts its commands together when it is made.
        self.submit_command = submit_command or self.submit_command
        self.cancel_command = cancel_command or self.cancel_command
        try:
            # In a thread: files and commands would hold the loop that answers the workers.
            self.job_id = self._job_id_from_submit_output(await asyncio.to_thread(_submitted, self))
        except Exception as error:
            # Raised on, it would end in a log, and nobody would hear of this job any more.
            told(Answer(None, str(error)))
        else:
            told(Answer(self.job_id, ""))
        self.status = Status.running

    async def submit_from_stdin(self: Any, path: str) -> str:
        """Do without upstream's `2> /dev/null`, which hides why LSF refuses a job."""
        if not getattr(self, "use_stdin", False):
            return str(await base._submit_job(self, path))
        return await _call([f"{self.submit_command} < {shlex.quote(path)}"], shell=True)

    async def close(self: Any) -> None:
        try:
            await base.close(self)
        finally:
            self.status = Status.closed  # upstream leaves it, and asserts on it later

    own = {"start": start, "close": close, "_call": staticmethod(_call)}
    if base.config_name == "lsf":
        own["_submit_job"] = submit_from_stdin
    return type(base.__name__, (base,), own)
