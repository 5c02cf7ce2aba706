"""Calls of 5 ms on engines elsewhere: through us, and through each engine's own client.

Both have two workers. In a round one runs right after the other, each in a process of its own that
starts an engine, warms it up and shuts it down: `python -m tests.bench.engines dask ours 400`. So a
ratio is what our promises cost, or save, at calls so short that nothing hides it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench.functions import sleep

__all__ = ["ENGINES", "EngineFinding", "measured", "section"]

ROOT = Path(__file__).resolve().parents[2]
N_WORKERS = 2
N_CALLS = 400
CALL_S = 0.005
MOST = 1.1  # of the time that the engine's own client takes
_WARM_S = 0.2
_N_WARM = 100
_N_ROUND_TRIPS = 41
_LIMIT_S = 180
_RAY = {"object_store_memory": 200 * 2**20}

ENGINES = {  # which library each needs, and what its own client is called
    "loky": ("loky", "loky.ProcessPoolExecutor"),
    "Dask": ("distributed", "distributed.Client"),
    "Ray": ("ray", "ray.remote"),
    "ipyparallel": ("ipyparallel", "a load-balanced view"),
}

Submit = Callable[[float], Any]
Gather = Callable[[list[Any]], Any]


@dataclass
class EngineFinding:
    """What the rounds of one engine came to; or why there were none."""

    engine: str
    ours: list[dict[str, float]] = field(default_factory=list)
    theirs: list[dict[str, float]] = field(default_factory=list)
    skipped: str | None = None

    def ratio(self, number: str) -> float:
        """Our time to theirs, the median of the rounds."""
        return statistics.median(
            ours[number] / theirs[number]
            for ours, theirs in zip(self.ours, self.theirs, strict=True)
        )

    def line(self) -> str:
        """Show it in one line of text."""
        if self.skipped is not None:
            return f"calls of 5 ms on {self.engine}: skipped, {self.skipped}"
        flow, trip = self.ratio("per_call_s"), self.ratio("round_trip_s")
        return f"calls of 5 ms on {self.engine}: time {flow:.3g} ×, round trip {trip:.3g} ×"

    def row(self) -> str:
        """Show it as a row of the table."""
        client = ENGINES[self.engine][1]
        if self.skipped is not None:
            return f"| {self.engine} | {client} | skipped: {self.skipped} | | | | | |"
        flow, trip = self.ratio("per_call_s"), self.ratio("round_trip_s")
        met = "yes" if max(flow, trip) <= MOST else "**no**"
        cells = [
            f"{1 / self._median(self.ours, 'per_call_s'):.0f} /s",
            f"{1 / self._median(self.theirs, 'per_call_s'):.0f} /s",
            f"{flow:.3g} ×",
            f"{1e3 * self._median(self.ours, 'round_trip_s'):.3g} ms",
            f"{1e3 * self._median(self.theirs, 'round_trip_s'):.3g} ms",
            f"{trip:.3g} ×",
        ]
        return f"| {self.engine} | {client} | {' | '.join(cells)} | {met} |"

    @staticmethod
    def _median(rounds: list[dict[str, float]], number: str) -> float:
        return statistics.median(numbers[number] for numbers in rounds)


def section(found: list[EngineFinding], *, n_rounds: int) -> str:
    """Make the part of the page that is about engines elsewhere."""
    return "\n".join(
        [
            "## Remote engines",
            "",
            f"{N_CALLS} calls of {1e3 * CALL_S:g} ms on {N_WORKERS} workers, all submitted at once,"
            " and one at a time (the median",
            f"of {_N_ROUND_TRIPS}): through us and through the engine's own client, in the same "
            f"round, {n_rounds} of them. Our time should be",
            f"≤ {MOST:g} × theirs in both.",
            "",
            "| engine | its own client | ours | theirs | time | round trip | theirs | time | met |",
            "|---|---|---|---|---|---|---|---|---|",
            *(finding.row() for finding in found),
            "",
        ]
    )


def measured(n_rounds: int) -> Iterator[EngineFinding]:
    """Measure all engines that are installed, one after another."""
    for engine, (library, _) in ENGINES.items():
        finding = EngineFinding(engine)
        if find_spec(library) is None:
            finding.skipped = f"{library} is not installed"
        else:
            try:
                for _ in range(n_rounds):
                    theirs = _measure(engine, "theirs")
                    finding.ours.append(_measure(engine, "ours"))
                    finding.theirs.append(theirs)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                finding.skipped = f"{type(error).__name__}: {str(error).splitlines()[-1][:200]}"
        yield finding


def _measure(engine: str, who: str) -> dict[str, float]:
    """Measure once, in a process of its own.

    Raises:
        RuntimeError: it failed; its last words are in the message.
    """
    command = [sys.executable, "-m", "tests.bench.engines", engine, who, str(N_CALLS)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT_S,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "RAY_USAGE_STATS_ENABLED": "0"},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.strip()[-2000:]}")
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


# --- in a process of its own ------------------------------------------------------------------


async def through_us(engine: str, n_calls: int) -> dict[str, float]:
    """Measure a scheduler over an engine."""
    from amltk_nb import Scheduler

    make: dict[str, Callable[[], Any]] = {
        "loky": lambda: Scheduler.with_loky(N_WORKERS),
        "Dask": lambda: Scheduler.with_dask(n_workers=N_WORKERS),
        "Ray": lambda: Scheduler.with_ray(num_cpus=N_WORKERS, init_options=_RAY),
        "ipyparallel": lambda: Scheduler.with_ipyparallel(n=N_WORKERS),
    }
    scheduler = make[engine]()
    run = scheduler.start()

    async def all_of(durations_s: list[float]) -> None:
        await scheduler.gather([scheduler.submit(sleep, s) for s in durations_s])

    await all_of([_WARM_S] * N_WORKERS)
    await all_of([CALL_S] * _N_WARM)
    trips_s = []
    for _ in range(_N_ROUND_TRIPS):
        began = perf_counter()
        await scheduler.submit(sleep, CALL_S)
        trips_s.append(perf_counter() - began)
    began = perf_counter()
    await all_of([CALL_S] * n_calls)
    seconds = perf_counter() - began
    run.stop()
    await run
    return _numbers(seconds, n_calls, trips_s)


def through_its_client(engine: str, n_calls: int) -> dict[str, float]:
    """Measure what an engine offers itself, used as its documentation does."""
    clients = {"loky": _loky, "Dask": _dask, "Ray": _ray, "ipyparallel": _ipyparallel}
    with clients[engine]() as (submit, gather):
        gather([submit(_WARM_S) for _ in range(N_WORKERS)])
        gather([submit(CALL_S) for _ in range(_N_WARM)])
        trips_s = []
        for _ in range(_N_ROUND_TRIPS):
            began = perf_counter()
            gather([submit(CALL_S)])
            trips_s.append(perf_counter() - began)
        began = perf_counter()
        gather([submit(CALL_S) for _ in range(n_calls)])
        return _numbers(perf_counter() - began, n_calls, trips_s)


def _numbers(seconds: float, n_calls: int, trips_s: list[float]) -> dict[str, float]:
    return {"per_call_s": seconds / n_calls, "round_trip_s": statistics.median(trips_s)}


@contextmanager
def _loky() -> Iterator[tuple[Submit, Gather]]:
    import loky

    with loky.ProcessPoolExecutor(N_WORKERS) as executor:
        yield (
            lambda s: executor.submit(sleep, s),
            lambda futures: [f.result() for f in futures],
        )


@contextmanager
def _dask() -> Iterator[tuple[Submit, Gather]]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(N_WORKERS)
        yield lambda s: client.submit(sleep, s, pure=False), client.gather


@contextmanager
def _ray() -> Iterator[tuple[Submit, Gather]]:
    import ray

    ray.init(num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False, **_RAY)
    try:
        yield ray.remote(sleep).remote, ray.get
    finally:
        ray.shutdown()


@contextmanager
def _ipyparallel() -> Iterator[tuple[Submit, Gather]]:
    import logging

    import ipyparallel

    cluster = ipyparallel.Cluster(n=N_WORKERS, log_level=logging.ERROR)
    cluster.start_cluster_sync()
    try:
        client = cluster.connect_client_sync()
        client.wait_for_engines(N_WORKERS, interactive=False)
        view = client.load_balanced_view()
        yield (
            lambda s: view.apply_async(sleep, s),
            lambda results: [r.get() for r in results],
        )
        client.close()
    finally:
        with suppress(Exception):
            cluster.stop_cluster_sync()


def main() -> None:
    """Measure what the command line says."""
    engine, who, n_calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if who == "ours":
        numbers = asyncio.run(through_us(engine, n_calls))
    else:
        numbers = through_its_client(engine, n_calls)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
