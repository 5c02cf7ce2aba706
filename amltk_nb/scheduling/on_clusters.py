"""Schedulers whose workers are jobs of a batch system: the constructors, and the job's script."""

from __future__ import annotations

import inspect
from typing import Any, Self

from amltk_nb.scheduling.core import SchedulerCore
from amltk_nb.scheduling.executors.base import open_backend

__all__ = ["OnClusters"]

_OF_A_SCHEDULER = frozenset(inspect.signature(SchedulerCore.__init__).parameters) - {
    "self",
    "executor",
}


class OnClusters(SchedulerCore):
    """The part of a scheduler that asks batch systems for workers, by dask-jobqueue.

    All constructors take the same arguments. A worker is one job, unless `processes=` says that
    a job holds several, and runs one call at a time with all of its cores.
    """

    @classmethod
    def with_slurm(cls, n_workers: int, **options: Any) -> Self:
        """Run calls in jobs of Slurm.

        Args:
            n_workers: how many workers; lost ones are replaced.
            options: of this package: `adaptive` (False; True: as many jobs as there is work for,
                `n_workers` at most), `submit_command` and `cancel_command` (with flags of your
                own: "sbatch --exclusive"), `start_timeout` (seconds until which the first worker
                must be there; None: as long as the queue takes), `n_ahead` (as in `with_dask`),
                `no_workers_after` (10.0 seconds without a worker, then `on_no_workers` is
                emitted), and those of `Scheduler`.
                All others go to dask_jobqueue's `SLURMCluster`: `cores` and `memory` of a job
                are needed, `queue`, `account`, `walltime`, `interface`, `log_directory`,
                `job_extra_directives` and `job_script_prologue` are usual.

        Raises:
            MissingExtraError: dask-jobqueue is not installed.
            TypeError: an option that is missing, or that does not exist.
            ValueError: an option that makes no sense.
        """
        return cls._in_jobs("slurm", n_workers, options)

    @classmethod
    def with_pbs(cls, n_workers: int, **options: Any) -> Self:
        """Run calls in jobs of PBS; as `with_slurm`, over `PBSCluster`."""
        return cls._in_jobs("pbs", n_workers, options)

    @classmethod
    def with_lsf(cls, n_workers: int, **options: Any) -> Self:
        """Run calls in jobs of LSF; as `with_slurm`, over `LSFCluster` (walltime as "HH:MM")."""
        return cls._in_jobs("lsf", n_workers, options)

    @classmethod
    def with_moab(cls, n_workers: int, **options: Any) -> Self:
        """Run calls in jobs of Moab; as `with_slurm`, over `MoabCluster`."""
        return cls._in_jobs("moab", n_workers, options)

    @classmethod
    def with_sge(cls, n_workers: int, **options: Any) -> Self:
        """Run calls in jobs of Grid Engine; as `with_slurm`, over `SGECluster`."""
        return cls._in_jobs("sge", n_workers, options)

    @classmethod
    def with_htcondor(cls, n_workers: int, **options: Any) -> Self:
        """Run calls in jobs of HTCondor; as `with_slurm`, over `HTCondorCluster` (needs `disk`)."""
        return cls._in_jobs("htcondor", n_workers, options)

    @classmethod
    def with_oar(cls, n_workers: int, **options: Any) -> Self:
        """Run calls in jobs of OAR; as `with_slurm`, over `OARCluster`."""
        return cls._in_jobs("oar", n_workers, options)

    def job_script(self) -> str:
        """Return the text that is submitted to the batch system for each job.

        Before the first run the address of the Dask scheduler in it is a placeholder.

        Raises:
            TypeError: this scheduler submits no jobs.
        """
        script = getattr(self.backend, "job_script", None)
        if script is None:
            raise TypeError(
                f"A {self.backend.name} submits no jobs, so there is no script to show. "
                "Scheduler.with_slurm() and its like do."
            )
        return str(script())

    @classmethod
    def _in_jobs(cls, key: str, n_workers: int, options: dict[str, Any]) -> Self:
        own = {name: options[name] for name in options if name in _OF_A_SCHEDULER}
        rest = {name: options[name] for name in options if name not in _OF_A_SCHEDULER}
        return cls(open_backend("jobqueue", key=key, n_workers=n_workers, **rest), **own)
