"""What is measured in long runs: memory, what a process has open, and how long its loop stands."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import comm
import psutil
from comm.base_comm import BaseComm

from amltk_nb import Scheduler
from amltk_nb.views.widget import Dashboard

__all__ = ["Belongings", "CountingComm", "Memory", "Watchdog", "open_dashboard"]


class CountingComm(BaseComm):
    """A comm as kernels make them, which counts what would go to the pages and keeps nothing."""

    n_bytes = 0
    n_messages = 0

    def publish_msg(self, msg_type: str, data: Any = None, **rest: Any) -> None:
        CountingComm.n_messages += 1
        CountingComm.n_bytes += len(json.dumps(data, default=str))

    def say_hello(self) -> None:
        """Do what a page does that begins to show the dashboard."""
        content = {"kind": "command", "id": 1, "name": "snapshot", "args": {}}
        data = {"method": "custom", "content": content}
        self.handle_msg({"content": {"data": data}, "buffers": []})


@contextmanager
def open_dashboard(scheduler: Scheduler) -> Iterator[Dashboard]:
    """Show a scheduler on a page, for as long as the block takes; on the loop's thread."""
    with patch.object(comm, "create_comm", CountingComm):
        dashboard = Dashboard(scheduler)
    dashboard.comm.say_hello()
    try:
        yield dashboard
    finally:
        dashboard.close()


@dataclass(frozen=True)
class Memory:
    """What this process and its workers hold."""

    n_blocks: int  # small objects and the like, by Python's own count
    rss_bytes: int
    worker_rss_bytes: tuple[int, ...] = ()

    @classmethod
    def now(cls, scheduler: Scheduler | None = None) -> Memory:
        """Look, with nothing left to collect."""
        gc.collect()
        pids = [w.pid for w in scheduler.backend.workers() if w.pid] if scheduler else []
        return cls(
            sys.getallocatedblocks(),
            psutil.Process().memory_info().rss,
            tuple(psutil.Process(pid).memory_info().rss for pid in pids),
        )


@dataclass(frozen=True)
class Belongings:
    """What a process has that a run could leave behind."""

    threads: tuple[str, ...]
    descriptors: tuple[str, ...]
    children: tuple[int, ...]
    tasks: tuple[str, ...]
    handlers: tuple[Any, ...]
    files: tuple[str, ...]
    loop: tuple[Any, ...]

    @classmethod
    def now(cls) -> Belongings:
        """Look; on the loop's thread."""
        loop = asyncio.get_running_loop()
        gc.collect()
        return cls(
            tuple(sorted(thread.name for thread in threading.enumerate())),
            tuple(sorted(_descriptors())),
            tuple(sorted(child.pid for child in psutil.Process().children(recursive=True))),
            tuple(sorted(task.get_name() for task in asyncio.all_tasks(loop))),
            tuple(signal.getsignal(number) for number in sorted(signal.valid_signals())),
            tuple(sorted(os.listdir(tempfile.gettempdir()))),
            (loop.get_exception_handler(), loop.get_task_factory(), loop.get_debug(), type(loop)),
        )


def _descriptors() -> Iterator[str]:
    """Name the kinds of all open descriptors; the numbers of pipes and sockets differ."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the one that listed them
            continue
        yield link.partition(":")[0] if not link.startswith("/") else Path(link).name


class Watchdog:
    """Measures for how long a loop does not turn, beside what a millisecond's sleep takes."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self.worst_collection_s = 0.0  # of CPython's garbage, which no loop can go on during
        self.n_turns = 0
        self._task: asyncio.Task[None] | None = None
        self._collecting_since = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="watchdog")
        gc.callbacks.append(self._collected)
        while self.n_turns < 3:
            await asyncio.sleep(0)
        self.worst_s = 0.0
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seen = self.n_turns
        while self.n_turns == seen:  # what stands still at the very end counts, too
            await asyncio.sleep(0)
        gc.callbacks.remove(self._collected)
        assert self._task is not None
        self._task.cancel()

    async def _watch(self) -> None:
        at = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.worst_s = max(self.worst_s, now - at - 0.001)
            self.n_turns += 1
            at = now

    def _collected(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            took_s = time.perf_counter() - self._collecting_since
            self.worst_collection_s = max(self.worst_collection_s, took_s)
