"""Calls as tasks of Ray.

Ray has no `Executor` of its own. Each call is one task that is never tried again by itself: what
ran half and was killed is an error here, and whether it may run once more is for `Retry` to say.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from importlib.util import find_spec
from typing import Any

from amltk_nb.errors import (
    BackendError,
    BackendStartError,
    CannotEndError,
    MissingExtraError,
    WorkerDiedError,
)
from amltk_nb.scheduling.executors.cpus import checked_workers
from amltk_nb.scheduling.executors.ray_process import (
    RayProcess,
    Settings,
    is_of_this_process,
    join_ray,
)
from amltk_nb.scheduling.executors.reach import own_address, own_address_towards
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Done,
    Handle,
    News,
    RemoteBackend,
    RemoteWorker,
)
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["RayBackend"]

_KILL_S = 20.0  # far more than Ray takes to end a worker
_GIVE_UP_S = 2.0  # for all calls that were given up
_OURS = {"max_retries", "num_returns", "num_cpus", "retry_exceptions"}  # options not to be changed


class RayBackend(RemoteBackend):
    """Runs calls on the Ray of this process, on another one, or on one of its own."""

    name = "RayExecutor"
    n_ahead = None  # they wait in this process, and go to whoever is free first

    def __init__(
        self,
        address: str | None = None,
        num_cpus: int | None = None,
        *,
        cpus_per_call: float = 1,
        call_options: Mapping[str, Any] | None = None,
        start_timeout: float = 120.0,
        no_workers_after: float = 10.0,
        init_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Choose a Ray; nothing is started.

        Args:
            address: of a running cluster, "auto" for the one of this machine; None: the one that
                RAY_ADDRESS names, or the one that this process has initialised, or a new one.
            num_cpus: how many CPUs a new one has; None: all of this machine.
            cpus_per_call: what one call takes of them; more than 0.
            call_options: more for the tasks, as in `ray.remote`: num_gpus, resources,
                runtime_env, scheduling_strategy.
            start_timeout: seconds that it may take to start or join it.
            no_workers_after: see `RemoteBackend`.
            init_options: more for `ray.init`.

        Raises:
            ValueError, TypeError: an argument that makes no sense.
            MissingExtraError: Ray is not installed.
        """
        _require_ray()
        if address is not None and not isinstance(address, str):
            raise TypeError(
                f"with_ray({address!r}): the first argument is the address of a running Ray, such "
                "as '10.0.0.1:6379' or 'auto'. How many calls one of its own runs at a time is "
                "num_cpus=2."
            )
        address = address or os.environ.get("RAY_ADDRESS") or None
        if address is not None and num_cpus is not None:
            raise ValueError(
                f"with_ray({address!r}, num_cpus={num_cpus!r}): the CPUs are those of the cluster "
                "there; num_cpus= is for a new one. Leave one of the two out."
            )
        self._settings = Settings(
            address,
            checked_workers(num_cpus, "num_cpus"),
            start_timeout,
            dict(init_options or {}),
        )
        self._call_options = _checked_options(call_options, cpus_per_call)
        shown = {"address": address, "num_cpus": num_cpus}
        super().__init__(
            options={name: value for name, value in shown.items() if value is not None},
            no_workers_after_s=no_workers_after,
        )

    def reach(self) -> str | None:
        """Find the address on the way to the cluster; one of this process is on this machine."""
        if is_of_this_process(self._settings):
            return None
        address = self._settings.address or ""
        return own_address_towards(address) if ":" in address else own_address()

    def connect(self, news: News) -> Connection:
        """Start Ray or join it.

        Raises:
            BackendStartError: it cannot be had.
        """
        process = join_ray(self._settings, news)

        try:
            return _RayConnection(self._call_options, process, news)
        except BaseException as error:
            process.leave(news)
            raise BackendStartError(f"Ray takes no such call_options=: {error}") from error


class _RayConnection(Connection):
    """Ray, and the calls that it has of one run."""

    def __init__(self, call_options: Mapping[str, Any], process: RayProcess, news: News) -> None:
        import ray

        self._ray = ray
        self._process = process
        self._news = news
        self._needs = _needs(call_options)
        self._task = ray.remote(**call_options)(_portable_task(Portable(_run_in_worker).packed))
        self._live: set[Any] = set()  # references of tasks without an answer

    def submit(self, packed: bytes, done: Done) -> Handle:
        reference = self._task.remote(packed)
        self._live.add(reference)

        def ended(future: Future[bytes]) -> None:
            self._live.discard(reference)
            done(_answer(future))

        reference.future().add_done_callback(ended)
        handle: Handle = reference
        return handle

    def workers(self) -> Sequence[RemoteWorker]:
        nodes = self._process.nodes()
        counted = [(node, _n_slots(node["Resources"], self._needs)) for node in nodes]
        running = tuple(self._live) if len(nodes) == 1 else ()  # else Ray does not say where
        return [
            RemoteWorker(
                name=_node_name(node["NodeManagerHostname"], node["NodeID"]),
                n_slots=n_slots,
                where=node["NodeManagerAddress"],
                running=running,
            )
            for node, n_slots in counted
            if n_slots
        ]

    def kill(self, handle: Handle) -> None:
        # Only forced: what Ray raises in the worker otherwise may be caught there, and does not
        # reach what its functions have started. With the worker, its children are ended as well.
        self._ray.cancel(handle, force=True)
        ended, _ = self._ray.wait([handle], timeout=_KILL_S, fetch_local=False)
        if not ended:
            raise CannotEndError(f"Ray has not ended the call within {_KILL_S:.0f} s.")

    def disconnect(self, running: Collection[Handle]) -> None:
        try:
            if running and self._ray.is_initialized():
                for handle in running:
                    self._ray.cancel(handle, force=True)
                self._ray.wait(
                    list(running),
                    num_returns=len(running),
                    timeout=_GIVE_UP_S,
                    fetch_local=False,
                )
        finally:
            self._process.leave(self._news)


# --- on the worker ----------------------------------------------------------------------------


def _portable_task(packed_run: bytes) -> Callable[[bytes], bytes]:
    """Make the function that Ray is given: it takes real functions only, and sends this by value.

    A worker makes the real one again when it runs its first call.
    """
    made: list[Callable[[bytes], bytes]] = []

    def amltk_nb_call(packed: bytes) -> bytes:
        import pickle

        if not made:
            made.append(pickle.loads(packed_run))
        return made[0](packed)

    amltk_nb_call.__module__ = "__main__"  # what is of no module of a name is sent by value
    return amltk_nb_call


_names: list[str] = []  # of the worker's node


def _run_in_worker(packed: bytes) -> bytes:
    import ray

    if not _names:  # a tenth of a millisecond, for each call
        node_id = ray.get_runtime_context().get_node_id()
        _names.append(_node_name(socket.gethostname(), node_id))
    return run_call(packed, _names[0])


def _node_name(host: str, node_id: str) -> str:
    return f"{host}-{node_id[:6]}"


# --- what Ray says ----------------------------------------------------------------------------


def _answer(future: Future[bytes]) -> bytes | BaseException:
    """Make of a task's end what the family understands."""
    from ray import exceptions

    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, exceptions.TaskCancelledError):  # some are a RayTaskError as well
        return CancelledError()
    if isinstance(error, exceptions.RayTaskError):
        return _told(BackendError, error, _first_line(error.cause), _NO_TRAMPOLINE)
    died = (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError)
    if isinstance(error, died):
        return _told(WorkerDiedError, error, _first_line(error), _DIED)
    return _told(BackendError, error, _first_line(error), "Other calls are not affected.")


_NO_TRAMPOLINE = (
    "A worker could not begin the call. It needs the Python and the cloudpickle of here; "
    "call_options={'runtime_env': {'pip': ['cloudpickle']}} brings the latter."
)
_DIED = (
    "It was killed, often for want of memory, or crashed in compiled code. The call was not "
    "tried again; the Retry plugin does that."
)


def _told(kind: type[Exception], error: BaseException, what: str, advice: str) -> Exception:
    told = kind(f"Ray: {what} {advice}")
    told.__cause__ = error
    return told


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".") if lines else ""
    return f"{type(error).__name__}: {text}." if text else f"{type(error).__name__}."


# --- what a call needs ------------------------------------------------------------------------


def _require_ray() -> None:
    if find_spec("ray") is None:  # to import it takes seconds; that is for the run's own thread
        raise MissingExtraError(
            "Scheduler.with_ray() needs ray, which is not installed: pip install 'amltk-nb[ray]'."
        )


def _checked_options(given: Mapping[str, Any] | None, cpus_per_call: float) -> dict[str, Any]:
    if isinstance(cpus_per_call, bool) or not isinstance(cpus_per_call, (int, float)):
        raise TypeError(f"cpus_per_call={cpus_per_call!r} must be a number, such as 1 or 0.5.")
    if not cpus_per_call > 0:
        raise ValueError(
            f"cpus_per_call={cpus_per_call!r} must be more than 0: it says how many calls run at "
            "the same time."
        )
    options = dict(given or {})
    if wrong := sorted(_OURS & options.keys()):
        raise ValueError(
            f"call_options= cannot set {', '.join(wrong)}: the scheduler needs each call to run "
            "once and to have one answer. For CPUs use cpus_per_call=, for retries the Retry "
            "plugin."
        )
    return {**options, "max_retries": 0, "num_cpus": cpus_per_call}


def _needs(call_options: Mapping[str, Any]) -> dict[str, float]:
    """Say what of a node's resources one call takes, by Ray's names of them."""
    named = {
        "CPU": call_options["num_cpus"],
        "GPU": call_options.get("num_gpus") or 0,
        "memory": call_options.get("memory") or 0,
        **(call_options.get("resources") or {}),
    }
    return {name: amount for name, amount in named.items() if amount}


def _n_slots(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Count the calls that a node can run at the same time."""
    # Ray counts in ten thousandths, and so must we: 0.3 / 0.1 is less than 3.
    return min(
        round(resources.get(name, 0.0) * 1e4) // max(1, round(amount * 1e4))
        for name, amount in needs.items()
    )
