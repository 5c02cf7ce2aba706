"""Schedulers over engines that people use by themselves as well: Ray, ipyparallel, Airflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from amltk_nb.scheduling.core import SchedulerCore
from amltk_nb.scheduling.executors.base import open_backend
from amltk_nb.scheduling.options import check_names

__all__ = ["OnEngines"]


class OnEngines(SchedulerCore):
    """The part of a scheduler that uses the user's engine, or starts one for each run."""

    @classmethod
    def with_ray(
        cls,
        address: str | None = None,
        num_cpus: int | None = None,
        *,
        cpus_per_call: float = 1,
        call_options: Mapping[str, Any] | None = None,
        start_timeout: float = 120.0,
        no_workers_after: float = 10.0,
        init_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Run calls as tasks of Ray, each exactly once.

        A Ray that this process has initialised is used and left as it is. One of the scheduler's
        own is started in the background of each run, which takes some seconds, and shut down with
        it. Ending a running call ends its worker process, and no other call.

        Args:
            address: of a running cluster ("10.0.0.1:6379"), "auto" for the one of this machine;
                None: the one that this process uses, or RAY_ADDRESS names, or a new one.
            num_cpus: how many calls a new one runs at a time; None: as many as there are CPUs.
            cpus_per_call: what one call takes of the cluster's CPUs.
            call_options: more for the tasks, as in `ray.remote`: num_gpus, resources, runtime_env.
            start_timeout: seconds that starting or joining may take.
            no_workers_after: seconds without any worker after which `on_no_workers` is emitted.
            init_options: more for `ray.init`.
            options: see `Scheduler`.

        Raises:
            MissingExtraError: Ray is not installed.
            ValueError, TypeError: an argument that makes no sense.
        """
        check_names(cls.with_ray, options)
        backend = open_backend(
            "ray",
            address=address,
            num_cpus=num_cpus,
            cpus_per_call=cpus_per_call,
            call_options=call_options,
            start_timeout=start_timeout,
            no_workers_after=no_workers_after,
            init_options=init_options,
        )
        return cls(backend, **options)

    @classmethod
    def with_ipyparallel(
        cls,
        client_or_profile: Any = None,
        n: int | None = None,
        *,
        connect_timeout: float = 10.0,
        no_workers_after: float = 30.0,
        **options: Any,
    ) -> Self:
        """Run calls on engines of ipyparallel, one at a time on each.

        Engines of its own are started for each run; a running call can be ended there, and an
        engine that is gone is replaced. Yours are used and left as they are.

        Args:
            client_or_profile: an `ipyparallel.Client` of yours, or the profile of a running
                cluster; None: engines of its own on this machine.
            n: how many engines of its own; None: the CPUs this process may use.
            connect_timeout: seconds to wait for the controller of a profile.
            no_workers_after: seconds without any engine after which `on_no_workers` is emitted.
            options: see `Scheduler`.

        Raises:
            MissingExtraError: ipyparallel is not installed.
            ValueError, TypeError: an argument that makes no sense.
        """
        check_names(cls.with_ipyparallel, options)
        backend = open_backend(
            "ipyparallel",
            client_or_profile=client_or_profile,
            n=n,
            connect_timeout=connect_timeout,
            no_workers_after=no_workers_after,
        )
        return cls(backend, **options)

    @classmethod
    def with_airflow(
        cls,
        base_url: str,
        dag_id: str = "amltk_nb_call",
        auth: str | tuple[str, str] | Callable[[], str] | None = None,
        *,
        secret: str | None = None,
        max_active: int = 16,
        max_bytes: int = 4 * 2**20,
        poll: float = 0.5,
        request_timeout: float = 10.0,
        lost_after: float = 60.0,
        no_workers_after: float = 30.0,
        verify: Any = True,
        **options: Any,
    ) -> Self:
        """Run calls as runs of one DAG of Airflow 3: for calls of minutes, it begins one a second.

        The DAG is put there by `python -m amltk_nb.airflow_dag DAGS_FOLDER`. Who may trigger it
        runs code of their own on Airflow's workers, unless these have a secret. A running call
        that is ended stops at its task's next heartbeat, some seconds later.

        Args:
            base_url: of Airflow's web page: "http://localhost:8080".
            dag_id: of the DAG.
            auth: a token, (user, password), or a function that returns a token and is called
                again when that has grown old; None: Airflow asks nobody who they are.
            secret: the AMLTK_NB_AIRFLOW_SECRET of the workers: both sides then only open what is
                signed with it. None: AMLTK_NB_AIRFLOW_SECRET of here, if it is set.
            max_active: how many calls Airflow is given at a time; how many of them run is up to
                its configuration.
            max_bytes: of a call's arguments, and of its result, pickled: they are in its database.
            poll: seconds between two looks at the calls under way.
            request_timeout: seconds for one request to be answered.
            lost_after: seconds without any answer after which the run ends.
            no_workers_after: seconds of a paused DAG, or without Airflow's scheduler, after which
                `on_no_workers` is emitted.
            verify: of TLS: True, False or an `ssl.SSLContext`.
            options: see `Scheduler`.

        Raises:
            MissingExtraError: httpx is not installed.
            ValueError, TypeError: an argument that makes no sense.
        """
        check_names(cls.with_airflow, options)
        backend = open_backend(
            "airflow",
            base_url=base_url,
            dag_id=dag_id,
            auth=auth,
            secret=secret,
            max_active=max_active,
            max_bytes=max_bytes,
            poll=poll,
            request_timeout=request_timeout,
            lost_after=lost_after,
            no_workers_after=no_workers_after,
            verify=verify,
        )
        return cls(backend, **options)
