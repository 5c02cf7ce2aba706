"""Calls that run in processes of this machine: the default backend, and the engine's heart.

One process and one channel per worker, at most one batch outstanding on each, one thread that
reads for all. A message there and back takes some 40 µs, a quarter of what a
`ProcessPoolExecutor` takes; it is known exactly which worker runs which call, and one running
call can be ended while the others go on. The parts: `pool` (who is free, who runs what), `handle`
(one worker), `launch` (starting processes), `worker` (the other side), `wire` (what is between).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import BaseContext
from typing import Any

from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.executors.base import Backend, Listener
from amltk_nb.scheduling.executors.cpus import available_cpus, checked_workers
from amltk_nb.scheduling.executors.launch import worker_context
from amltk_nb.scheduling.executors.pool import Pool
from amltk_nb.scheduling.executors.reloads import ReloadWatch
from amltk_nb.scheduling.functions import ship_function
from amltk_nb.scheduling.shipping import ship_arguments
from amltk_nb.scheduling.snapshot import WorkerRecord
from amltk_nb.scheduling.worker import Setup
from amltk_nb.scheduling.worker_output import OutputFile

__all__ = ["ProcessBackend"]


class ProcessBackend(Backend):
    """Runs calls in worker processes that never import the user's main module."""

    name = "ProcessExecutor"
    batches = True

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: str | BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        capture_output: bool = True,
    ) -> None:
        """Choose how the workers will be.

        Args:
            max_workers: at least 1; None: as many as this process may use CPUs.
            mp_context: "forkserver" (also None), "spawn", "fork", or a context of one of these.
            initializer: called in each worker before any call; it travels as functions of calls do.
            initargs: its arguments.
            capture_output: take what calls print, to travel with their results.

        Raises:
            ValueError, TypeError: an argument that makes no sense.
            NotPicklableError: the initializer or an argument of it cannot travel.
        """
        n_cpus = available_cpus()
        self.n_workers = checked_workers(max_workers) or n_cpus
        self.options: Mapping[str, Any] = {"max_workers": self.n_workers}
        self._context = worker_context(mp_context)
        self._initializer = _packed_initializer(initializer, initargs)
        self._capture_output = capture_output
        self._n_threads = max(1, n_cpus // self.n_workers)
        self._reloads = ReloadWatch()
        self._pool: Pool | None = None

    def open(self, listener: Listener) -> None:
        """Get ready; processes are started when calls come.

        Raises:
            RuntimeError: it is open.
        """
        if self._pool is not None:
            raise RuntimeError("This process backend is open already; close it first.")
        self._pool = Pool(
            listener, self._context, self.n_workers, self._setup, captures=self._capture_output
        )

    def prepare(self, call: Call) -> None:
        """Pickle the function and the arguments as they are now.

        If the function's module was loaded again, the workers are replaced first: they
        would go on with what they imported before.

        Raises:
            NotPicklableError: naming what cannot travel.
        """
        fn, args, kwargs = call.work
        if self._reloads.reloaded(fn):
            self.restart()
        call.payload = ship_function(fn), ship_arguments(fn, args, kwargs)

    def packed(self, call: Call) -> tuple[Any, Any] | None:
        """Return what `prepare` made of a call."""
        payload: tuple[Any, Any] | None = call.payload
        return payload

    def slots(self) -> int:
        """Say how many more batches it takes; workers not started yet count."""
        return self._pool.slots() if self._pool is not None else 0

    def start(self, calls: Sequence[Call]) -> None:
        """Have one worker run a batch.

        Raises:
            RuntimeError: it is not open.
        """
        if self._pool is None:
            raise RuntimeError("This process backend is closed; open it before it gets calls.")
        self._pool.start(calls)

    def reclaim(self) -> list[Call]:
        """Give back what waits behind a long call; see `Backend.reclaim`."""
        return self._pool.reclaim() if self._pool is not None else []

    def end(self, call: Call) -> bool:
        """End one call: its worker is killed, with its children, unless it has not begun."""
        return self._pool is not None and self._pool.end(call)

    def restart(self) -> None:
        """Replace idle workers now and busy ones after their batch."""
        if self._pool is not None:
            self._pool.retire()

    def close(self, *, end_running: bool) -> None:
        """End all workers; see `Backend.close`. May be called again to end what still runs."""
        pool = self._pool
        if pool is not None:
            pool.close(end_running=end_running)
            self._pool = None

    def workers(self) -> tuple[WorkerRecord, ...]:
        """Say what each worker does now."""
        return self._pool.records() if self._pool is not None else ()

    def _setup(self, slot: int, output: OutputFile | None) -> Setup:
        return Setup(
            slot=slot,
            parent_pid=os.getpid(),
            environ=dict(os.environ),
            initializer=self._initializer,
            output=output,
            n_threads=self._n_threads,
        )


def _packed_initializer(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> tuple[bytes, tuple[bytes, list[bytes]]] | None:
    if initializer is None:
        return None
    if not callable(initializer):
        raise TypeError(
            f"initializer={initializer!r} is a {type(initializer).__name__}; pass a function."
        )
    packed, buffers = ship_arguments(initializer, tuple(initargs), {})
    # The standard library's pickling of process arguments knows no buffers beside the pickle.
    plain = bytes(packed), [bytearray(buffer) for buffer in buffers]
    return ship_function(initializer).packed, plain  # type: ignore[return-value]
