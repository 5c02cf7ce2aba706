"""Measurements in a real kernel, with a client that plays the page."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from tests.environments import ENVIRONMENTS
from tests.kernels.kernel import Comm, Kernel

__all__ = ["answering", "flowing"]

_N_FIRST = 2_000  # calls under way

# As many calls as wanted, paced or flat out; a paced one never runs ahead of its time.
_FLOW = """
import asyncio, time
from amltk_nb import Scheduler

scheduler = Scheduler.with_processes(2)

@scheduler.task
def nothing():
    pass

n_submitted = n_ended = 0
began = ended = None

def submit_to(n):
    global n_submitted
    for _ in range(n - n_submitted):
        nothing.submit()
        n_submitted += 1

@nothing.on_result
def go_on(future, result):
    global n_ended, ended
    n_ended += 1
    if n_ended == n_calls:
        ended = time.perf_counter()
    if rate is None and n_submitted < n_calls:
        submit_to(n_submitted + 1)

def pace():
    submit_to(min(n_calls, int((time.perf_counter() - began) * rate)))
    if n_submitted < n_calls:
        scheduler.call_later(0.01, pace)

def begin():
    global began
    began = time.perf_counter()
    if rate is None:
        submit_to(min(n_calls, n_first))
    else:
        pace()
"""


def answering(version: str, n_samples: int) -> dict[str, float]:
    """Measure how soon `1+1` is answered while calls flow flat out and the dashboard is open.

    Args:
        version: of ipykernel.
        n_samples: how often it is asked.
    """
    with _kernel(version) as kernel:
        kernel.run(f"n_calls, n_first, rate = 10**9, {_N_FIRST}, None")
        kernel.run(_FLOW)
        kernel.run("run = scheduler.start(); begin()")
        _open_page(kernel)
        n_before, at = _n_ended(kernel), perf_counter()
        took_s = sorted(_asked(kernel) for _ in range(n_samples))
        rate = (_n_ended(kernel) - n_before) / (perf_counter() - at)
        kernel.run("run.stop(wait=False); await run", timeout_s=60)
    return {
        "seconds": sum(took_s),
        "p50_ms": 1e3 * took_s[n_samples // 2],
        "p99_ms": 1e3 * took_s[int(0.99 * n_samples)],
        "calls_per_s": rate,
    }


def flowing(n_calls: int, *, rate: float | None, is_open: bool) -> dict[str, float]:
    """Measure a flow of calls in a kernel, with its dashboard open or without.

    Args:
        n_calls: how many.
        rate: calls per second; None: as many as it takes.
        is_open: whether a page shows the dashboard.
    """
    with _kernel("7.4") as kernel:
        kernel.run(f"n_calls, n_first, rate = {n_calls}, {_N_FIRST}, {rate}")
        kernel.run(_FLOW)
        kernel.run(f"run = scheduler.start(display={is_open}); await nothing.submit()")
        kernel.run("n_ended = n_submitted = 0")
        comm = _open_page(kernel) if is_open else None
        kernel.catch_up()
        n_seen = len(kernel.iopub)
        kernel.run("begin()")
        kernel.run("while ended is None: await asyncio.sleep(0.05)", timeout_s=120)
        seconds = float(kernel.run("print(ended - began)").stdout)
        messages = kernel.iopub[n_seen:]
        kernel.run("run.stop(); await run")
    sent = [m for m in messages if comm and m["content"].get("comm_id") == comm.id]
    n_bytes = sum(len(json.dumps(m["content"])) for m in sent)
    return {
        "seconds": seconds,
        "messages_per_s": (len(sent) - 1) / seconds,  # one more than there are gaps between
        "kilobytes_per_s": n_bytes / 1e3 / seconds,
    }


@contextmanager
def _kernel(version: str) -> Iterator[Kernel]:
    python = ENVIRONMENTS[f"ipykernel-{version}"].ready()
    with tempfile.TemporaryDirectory() as home:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("AMLTK_NB")}
        kernel = Kernel(python, cwd=Path(home), env=kept | {"IPYTHONDIR": home})
        try:
            yield kernel
        finally:
            kernel.close()


def _open_page(kernel: Kernel) -> Comm:
    """Ask for the whole state, as a page does that begins to show the dashboard."""
    comm = [c for c in kernel.comms.values() if c.model == "AnyModel"][-1]
    kernel.send(comm, {"kind": "command", "id": 1, "name": "snapshot", "args": {}}, wait=False)
    kernel.wait(lambda: any(m.get("kind") == "full" for m in comm.custom), "the whole state")
    return comm


def _asked(kernel: Kernel) -> float:
    began = perf_counter()
    execution = kernel.execute("1+1")
    kernel.wait(lambda: execution.reply is not None, "an answer")
    return perf_counter() - began


def _n_ended(kernel: Kernel) -> int:
    return int(kernel.run("print(n_ended)").stdout)
