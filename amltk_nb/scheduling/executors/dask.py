"""Calls on Dask: a cluster of our own on this machine, one at an address, or the user's client."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from amltk_nb.errors import BackendStartError
from amltk_nb.scheduling.executors.cpus import available_cpus, checked_workers
from amltk_nb.scheduling.executors.dask_client import connected_client, distributed
from amltk_nb.scheduling.executors.dask_connection import DaskConnection
from amltk_nb.scheduling.executors.dask_local import LocalDask
from amltk_nb.scheduling.executors.reach import own_address_towards
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Handle,
    News,
    RemoteBackend,
    RemoteWorker,
    checked_ahead,
    checked_seconds,
)

__all__ = ["DaskBackend"]

_NOT_OURS = (
    "Dask can only end a running call with the worker that runs it, and these workers are not "
    "ours to end; Scheduler.with_dask() without an address starts some that are"
)
_SHARED = (
    "with threads_per_worker above 1 other calls share the process of each worker; "
    "1 lets single calls be ended"
)


class DaskBackend(RemoteBackend):
    """Runs calls on Dask."""

    name = "DaskExecutor"

    def __init__(
        self,
        address_or_client: Any = None,
        n_workers: int | None = None,
        *,
        threads_per_worker: int = 1,
        memory_limit: Any = 0,
        n_ahead: int | None = None,
        connect_timeout: float = 10.0,
        no_workers_after: float = 10.0,
    ) -> None:
        """Choose where calls run.

        Args:
            address_or_client: a scheduler's address, a cluster object or a client; None: a
                cluster of our own on this machine.
            n_workers: of our own cluster; None: as many as this process may use CPUs.
            threads_per_worker: of our own cluster.
            memory_limit: of each worker of our own cluster, as Dask takes it; 0: none.
            n_ahead: how many calls to hand over for each worker besides those that run; None: as
                many short ones as are worth it.
            connect_timeout: seconds after which nobody is expected at an address any more.
            no_workers_after: seconds without workers after which `on_no_workers` is emitted.

        Raises:
            ValueError, TypeError: an argument that makes no sense, such as an asynchronous client.
            MissingExtraError: dask.distributed is not installed.
        """
        distributed()
        self._theirs = _checked(address_or_client, n_workers)
        self._n_wanted = checked_workers(n_workers, "n_workers") or available_cpus()
        self._n_threads = checked_workers(threads_per_worker, "threads_per_worker") or 1
        self._memory_limit = _checked_memory(memory_limit)
        self._connect_timeout_s = checked_seconds(
            connect_timeout, "connect_timeout", "to knock at an address"
        )
        if self._theirs is not None:
            self.cannot_end = _NOT_OURS
        elif self._n_threads > 1:
            self.cannot_end = _SHARED
        self.n_ahead = checked_ahead(n_ahead)
        super().__init__(options=self._told(), no_workers_after_s=no_workers_after)

    def _told(self) -> dict[str, Any]:
        if self._theirs is None:
            return {"n_workers": self._n_wanted, "threads_per_worker": self._n_threads}
        if isinstance(self._theirs, str):
            return {"address": self._theirs}
        return {"client": type(self._theirs).__name__}

    def reach(self) -> str | None:
        """Find the address on the way to the cluster; one of our own is on this machine."""
        if self._theirs is None:
            return None
        scheduler = getattr(self._theirs, "scheduler", None)
        address = self._theirs if isinstance(self._theirs, str) else _address(scheduler)
        return None if address.startswith("inproc:") else own_address_towards(address)

    def connect(self, news: News) -> Connection:
        """Start a cluster or connect to one."""
        if self._theirs is None:
            return _LocalConnection(self._n_wanted, self._n_threads, self._memory_limit, news)
        if isinstance(self._theirs, str):
            _check_written(self._theirs)
        if not _is_client(self._theirs):
            client = connected_client(
                self._theirs, timeout_s=self._connect_timeout_s, closing=news.closing
            )
            return DaskConnection(client, news)
        if self._theirs.status != "running":
            raise BackendStartError(
                f"The Dask client passed to the scheduler is {self._theirs.status}, so nothing can "
                "run on it. Make a new Client and a new Scheduler with it, or pass the address "
                "itself, which is connected to anew for every run."
            )
        return DaskConnection(self._theirs, news, is_ours=False)


class _LocalConnection(DaskConnection):
    """A connection to a cluster that lives and dies with it."""

    def __init__(self, n_workers: int, n_threads: int, memory_limit: Any, news: News) -> None:
        self._local = LocalDask(n_workers, n_threads=n_threads, memory_limit=memory_limit)
        self._names: dict[str, str] = {}  # of workers, by address
        try:
            client = connected_client(self._local.cluster, timeout_s=10)
        except BaseException:
            self._local.close(at_once=True)
            raise
        scheduler = self._local.cluster.scheduler
        super().__init__(client, news, pid_of=self._pid_of_address, scheduler=scheduler)
        self._local.on_worker_change(news.changed)

    def _pid_of_address(self, address: str) -> int | None:
        return self._local.pid(self._names.get(address, ""))

    async def _asked(self) -> tuple[Any, Any]:
        info, having = await super()._asked()
        self._names = {address: worker["name"] for address, worker in info["workers"].items()}
        return info, having

    def workers(self) -> Sequence[RemoteWorker]:
        """Replace workers that have died, and say who is there."""
        self._local.heal()
        workers = super().workers()
        self._local.seen(set(self._names.values()))
        return workers

    def kill(self, handle: Handle) -> None:
        """Kill the worker that runs a call; another one takes its place."""
        super().kill(handle)
        self._news.changed()

    def disconnect(self, running: Collection[Handle]) -> None:
        """Close the client, then the cluster."""
        try:
            super().disconnect(running)
        finally:
            self._local.close(at_once=bool(running))


def _address(scheduler: Any) -> str:
    """Tell where a client's or a cluster's scheduler is."""
    return str(getattr(scheduler, "address", None) or "")


def _is_client(thing: Any) -> bool:
    return isinstance(thing, distributed().Client)


def _checked(theirs: Any, n_workers: int | None) -> Any:
    if theirs is None:
        return None
    if n_workers is not None:
        raise TypeError(
            f"with_dask({theirs!r}, n_workers={n_workers}): the number of workers is that of the "
            "cluster there. Scale it where it was started, or leave the address out for a cluster "
            "of its own."
        )
    if _is_client(theirs) and theirs._asynchronous:
        raise TypeError(
            "with_dask() got an asynchronous client: closing it and cancelling through it would "
            "wait for the very event loop they block. Pass a plain Client(address), which has a "
            "thread of its own and works in notebooks as well, or the address itself."
        )
    if isinstance(theirs, str) or _is_client(theirs) or hasattr(theirs, "scheduler_address"):
        return theirs
    raise TypeError(
        f"with_dask({theirs!r}): pass an address such as 'tcp://127.0.0.1:8786', a "
        "distributed.Client, a cluster object, or nothing for a cluster of its own."
    )


def _checked_memory(limit: Any) -> Any:
    """Check what Dask itself would look at in each worker only."""
    from dask.utils import parse_bytes

    try:
        if isinstance(limit, str) and limit != "auto":
            parse_bytes(limit)
    except ValueError as error:
        raise ValueError(
            f"with_dask(memory_limit={limit!r}): {error}. Write it as '6 GB', a number of bytes, "
            "or 0 for no limit."
        ) from None
    return limit


def _check_written(address: str) -> None:
    """Refuse what is no address before a client is made: one that fails holds up the end by 20 s.

    Raises:
        BackendStartError: nobody can be there.
    """
    from distributed.comm.registry import get_backend

    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    is_written = bool(host) and port.isdigit() if scheme in ("", "tcp", "tls") else True
    try:
        get_backend(scheme or "tcp")
    except ValueError:
        is_written = False
    if not is_written:
        raise BackendStartError(
            f"{address!r} is no address of a Dask scheduler: an address is written like "
            "tcp://127.0.0.1:8786, as `dask scheduler` prints it. (http:// leads to its pages.)"
        )
