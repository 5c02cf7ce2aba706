"""A Dask cluster of our own on this machine: a scheduler in this process, a process per worker."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from amltk_nb.errors import BackendLostError
from amltk_nb.scheduling.executors.dask_client import distributed

__all__ = ["LocalDask"]

_MODULE = "amltk_nb.scheduling.executors.dask_worker"
_LEAVE_S = 2.0  # for workers to go by themselves
_QUICK_DEATH_S = 10.0  # a worker that lives shorter than this may never get up
_MAX_QUICK_DEATHS = 5  # in a row, without one that got up


class LocalDask:
    """Starts the cluster, keeps its workers alive, and ends all of it."""

    def __init__(self, n_workers: int, *, n_threads: int = 1, memory_limit: Any = 0) -> None:
        """Start the scheduler and the workers; blocks until the scheduler is there.

        Args:
            n_workers: how many processes.
            n_threads: how many calls each runs at the same time.
            memory_limit: of each worker, as Dask takes it; 0: none.
        """
        self._n_workers = n_workers
        self._n_threads = n_threads
        self._memory_limit = memory_limit
        self._folder = tempfile.TemporaryDirectory(prefix="amltk-nb-dask-")
        self._processes: dict[str, _Worker] = {}  # by the worker's name
        self._n_started = 0
        self._n_quick_deaths = 0
        try:
            self.cluster = distributed().LocalCluster(
                n_workers=0,
                threads_per_worker=n_threads,
                silence_logs=logging.CRITICAL,
                scheduler_kwargs={
                    # A worker that dies is an error and no silent second run.
                    "allowed_failures": 0,
                    # A server of pages is started even so, by default on a port that may be taken.
                    "dashboard": False,
                    "dashboard_address": "127.0.0.1:0",
                },
            )
        except BaseException:
            self._folder.cleanup()
            raise
        try:
            self.heal()
        except BaseException:
            self.close(at_once=True)
            raise

    def heal(self) -> None:
        """Start workers where some have died.

        Raises:
            BackendLostError: they die again and again before they are of any use.
        """
        for name, worker in list(self._processes.items()):
            if worker.process.poll() is not None:
                self._bury(name, worker)
        while len(self._processes) < self._n_workers:
            self._n_started += 1
            name = f"worker-{self._n_started}"
            self._processes[name] = _Worker(name, self._folder.name, self._settings(name))

    def on_worker_change(self, tell: Callable[[], None]) -> None:
        """Have something called, in the scheduler's thread, when a worker has come or gone."""
        from distributed.diagnostics.plugin import SchedulerPlugin

        class Watcher(SchedulerPlugin):  # type: ignore[misc]  # its base is not looked into
            def add_worker(self, *_: Any, **__: Any) -> None:
                tell()

            def remove_worker(self, *_: Any, **__: Any) -> None:
                tell()

        self.cluster.scheduler.add_plugin(Watcher(), name="amltk_nb")

    def seen(self, names: set[str]) -> None:
        """Note which workers have made it to the cluster."""
        if names & set(self._processes):
            self._n_quick_deaths = 0

    def pid(self, name: str) -> int | None:
        """Find the process of a worker by its name."""
        worker = self._processes.get(name)
        return worker.process.pid if worker is not None else None

    def _bury(self, name: str, worker: _Worker) -> None:
        del self._processes[name]
        worker.release()
        if time.monotonic() - worker.started_at < _QUICK_DEATH_S:
            self._n_quick_deaths += 1
        if self._n_quick_deaths > _MAX_QUICK_DEATHS:
            raise BackendLostError(
                f"The workers of the local Dask cluster end as soon as they start (exit code "
                f"{worker.process.returncode}). The last one said: {worker.last_words()}"
            )

    def _settings(self, name: str) -> dict[str, Any]:
        return {
            "scheduler": self.cluster.scheduler_address,
            "path": sys.path,
            "parent": os.getpid(),
            "worker": {
                "name": name,
                "nthreads": self._n_threads,
                "memory_limit": self._memory_limit,
                "dashboard": False,
                "host": "127.0.0.1",
                "local_directory": self._folder.name,
                "death_timeout": 60,
            },
        }

    def close(self, *, at_once: bool) -> None:
        """End workers and scheduler.

        Args:
            at_once: kill the workers, with what they run and all that it started.
        """
        workers = list(self._processes.values())
        self._processes.clear()
        for worker in workers:
            worker.kill() if at_once else worker.leave()
        try:
            self.cluster.close(timeout=_LEAVE_S)
        finally:
            for worker in workers:
                worker.wait(_LEAVE_S)
            self._folder.cleanup()


class _Worker:
    """One worker's process; it ends when the pipe to it closes."""

    def __init__(self, name: str, folder: str, settings: dict[str, Any]) -> None:
        self._log = Path(folder, f"{name}.log")
        threads = str(settings["worker"]["nthreads"])
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads
        )
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**one_thread, **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,
            )
        self.started_at = time.monotonic()
        self._tell(json.dumps(settings).encode() + b"\n")

    def _tell(self, line: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except OSError:  # it is dead already, which is seen elsewhere
            pass

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-1_000:].strip() or "nothing"

    def leave(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        import psutil

        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self.process.kill()
        for child in children:
            with suppress(psutil.Error):  # it may have ended by itself just now
                child.kill()

    def wait(self, timeout_s: float) -> None:
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        self.release()

    def release(self) -> None:
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except OSError:
                pass
