"""Calls on a real Airflow of this machine: its API server, its scheduler, its task processes.

It begins about one call a second, so each test makes few. What goes wrong with requests is in
tests/executors/test_airflow.py, over a server that answers as this one does.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import AirflowExecutor, ExitCode, Scheduler, airflow_dag
from amltk_nb.errors import BackendError, BackendStartError, WorkerDiedError
from tests.clusters.airflow import ROOT, Airflow, missing, running_airflow
from tests.clusters.waiting import until
from tests.executors.contract import Contract, open_gate, square, wait_at
from tests.executors.driver import survivors

pytestmark = [
    pytest.mark.timeout(400),  # the first one installs Airflow, and all wait for its start
    pytest.mark.skipif(
        not os.environ.get("AMLTK_NB_WHOLE_CONTRACT"), reason="a part of make test-clusters"
    ),
]

SECRET = "of the notebook and of the workers"
MINUTE_S = 60  # for what takes Airflow seconds; the machine may be busy
HEARTBEAT_S = 30  # a task looks every 5 s whether it should still run


@pytest.fixture(scope="module")
def airflow() -> Iterator[Airflow]:
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="amltk-nb-airflow-") as folder:
        with running_airflow(Path(folder) / "home", secret=SECRET) as airflow:
            yield airflow
            with airflow.admin() as admin:  # what a test leaves running would be a leak of ours
                left = admin.get("/dags/~/dagRuns", params={"state": ["queued", "running"]}).json()
            assert [run["dag_run_id"] for run in left["dag_runs"]] == []


def with_airflow(airflow: Airflow, **options: Any) -> Scheduler:
    settings: dict[str, Any] = {
        "auth": ("ada", airflow.password),
        "secret": SECRET,
        "poll": 0.2,
        "max_active": 4,  # of which two run
    }
    return Scheduler.with_airflow(airflow.base_url, **(settings | options))


class TestContract(Contract):
    can_end = True
    n_workers = 2

    # For engines of more than a call a second.
    test_500_calls_have_exactly_500_ends = None
    test_short_calls_do_not_wait_behind_a_long_one = None
    test_stop_waits_for_what_waits_behind_a_long_call = None
    test_the_same_scheduler_runs_three_times = None
    test_nothing_is_left_behind = None

    @pytest.fixture(autouse=True)
    def take_airflow(self, airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
        self.airflow = airflow
        monkeypatch.setattr("tests.executors.contract.LONG_S", 2 * MINUTE_S)

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield with_airflow(self.airflow, max_active=2)

    async def test_an_edited_global_counts_from_the_next_call_on(self, scheduler: Scheduler):
        space: dict[str, Any] = {"__name__": "__main__"}  # as a notebook's functions are
        exec("FACTOR = 2\ndef scaled(x):\n    return x * FACTOR", space)
        run = scheduler.start(end_on_empty=True)
        first = scheduler.submit(space["scaled"], 21)
        space["FACTOR"] = 3
        second = scheduler.submit(space["scaled"], 21)
        assert await scheduler.gather([first, second]) == [42, 63]
        assert await run == ExitCode.EXHAUSTED


def begin_and_wait(marks: str, gate: str, text: str) -> str:
    """Leave the pids of this task and of a child, wait at a gate, and leave a mark again."""
    child = subprocess.Popen(["sleep", "600"])
    note(marks, f"{text} {os.getpid()} {child.pid}")
    wait_at(gate)
    child.kill()
    child.wait()
    note(marks, f"{text} went on")
    return text


def wait_alone(marks: str, gate: str) -> None:
    note(marks, f"alone {os.getpid()}")
    wait_at(gate)


def note(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(line + "\n")


def begun(marks: Path) -> dict[str, list[int]]:
    lines = [line.split() for line in marks.read_text().splitlines()]
    return {text: [int(pid) for pid in pids] for text, *pids in lines if pids != ["went", "on"]}


async def test_what_waits_never_runs_and_what_runs_is_stopped(airflow: Airflow, tmp_path: Path):
    marks = tmp_path / "marks"
    scheduler = with_airflow(airflow)
    async with open_gate() as gate:
        run = scheduler.start(end_on_empty=True)
        a, b, c, d = (
            scheduler.submit(begin_and_wait, str(marks), gate.path, name) for name in "abcd"
        )
        await gate.arrived(2)
        await asyncio.to_thread(until, lambda: waits(scheduler) == 2, "two wait", limit_s=MINUTE_S)
        busy = [w for w in scheduler.backend.workers() if w.name != "airflow"]
        first, second = sorted(begun(marks))  # Airflow chooses which two
        assert {w.pid for w in busy} == {begun(marks)[first][0], begun(marks)[second][0]}
        assert {w.state for w in busy} == {"busy"}
        futures = dict(zip("abcd", (a, b, c, d), strict=True))
        in_queue = [future for name, future in futures.items() if name not in (first, second)]
        assert [future.cancel() for future in in_queue] == [True, True]
        assert futures[first].cancel() is True
        cancelled = [*in_queue, futures[first]]
        await asyncio.wait_for(asyncio.gather(*cancelled, return_exceptions=True), MINUTE_S)
        assert all(future.cancelled() for future in cancelled)
        pids = begun(marks)[first]
        assert await asyncio.to_thread(survivors, pids, HEARTBEAT_S) == []
        gate.open()
        assert await asyncio.wait_for(futures[second], MINUTE_S) == second
        assert await run == ExitCode.EXHAUSTED
    assert set(begun(marks)) == {first, second}
    assert marks.read_text().splitlines()[-1] == f"{second} went on"
    assert len(marks.read_text().splitlines()) == 3


def waits(scheduler: Scheduler) -> int | None:
    return scheduler.snapshot().backend.n_jobs_waiting


async def test_a_task_that_is_killed_is_an_error_and_not_run_again(
    airflow: Airflow, tmp_path: Path
):
    marks = tmp_path / "marks"
    scheduler = with_airflow(airflow)
    async with open_gate() as gate:
        run = scheduler.start()
        victim = scheduler.submit(wait_alone, str(marks), gate.path)
        await gate.arrived(1)
        os.kill(begun(marks)["alone"][0], signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="ended without an answer") as caught:
            await asyncio.wait_for(victim, MINUTE_S)
        assert airflow.base_url in str(caught.value)
        assert await asyncio.wait_for(scheduler.submit(square, 3), MINUTE_S) == 9
        assert len(marks.read_text().splitlines()) == 1
        scheduler.stop()
        await run


async def test_megabytes_travel_both_ways(airflow: Airflow):
    scheduler = with_airflow(airflow)
    run = scheduler.start(end_on_empty=True)
    futures = [scheduler.submit(len, os.urandom(3 * 2**20)), scheduler.submit(bytes, 3 * 2**20)]
    n, zeros = await asyncio.wait_for(scheduler.gather(futures), MINUTE_S)
    assert (n, len(zeros)) == (3 * 2**20, 3 * 2**20)
    assert await run == ExitCode.EXHAUSTED


async def test_a_call_without_the_secret_is_not_run(airflow: Airflow, tmp_path: Path):
    scheduler = with_airflow(airflow, secret=None)
    run = scheduler.start()
    with pytest.raises(BackendError, match="only runs calls that are signed with its secret"):
        await asyncio.wait_for(scheduler.submit(note, str(tmp_path / "ran"), "ran"), MINUTE_S)
    assert not (tmp_path / "ran").exists()
    scheduler.stop()
    await run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auth": "nonsense"}, r"does not accept the token \(Invalid JWT token\)"),
        ({"auth": ("ada", "wrong")}, r"does not accept the user and password .* 401"),
        ({"auth": None}, r"Pass auth=\(user, password\) or a token"),
        ({"dag_id": "nobody_has_this"}, "has no DAG nobody_has_this"),
    ],
)
async def test_what_is_in_the_way_is_said(airflow: Airflow, options: dict[str, Any], message: str):
    run = with_airflow(airflow, **options).start()
    state = await asyncio.wait_for(run.wait(), MINUTE_S)
    assert isinstance(state.exception, BackendStartError)
    assert re.search(message, str(state.exception))


async def test_a_user_who_may_only_look_is_told_so(airflow: Airflow):
    scheduler = with_airflow(airflow, auth=("vic", airflow.password))
    run = scheduler.start()
    with pytest.raises(BackendError, match="does not let this user start a run"):
        await asyncio.wait_for(scheduler.submit(square, 1), MINUTE_S)
    scheduler.stop()
    await run


async def test_a_paused_dag_is_refused_at_the_start(airflow: Airflow):
    with airflow.admin() as admin:
        dag = f"/dags/{airflow_dag.DAG_ID}"
        assert admin.patch(dag, json={"is_paused": True}).json()["is_paused"] is True
        run = with_airflow(airflow).start()
        state = await asyncio.wait_for(run.wait(), MINUTE_S)
        assert admin.patch(dag, json={"is_paused": False}).json()["is_paused"] is False
    assert "airflow dags unpause amltk_nb_call" in str(state.exception)


def test_the_executor_by_itself(airflow: Airflow):
    auth = ("ada", airflow.password)
    with AirflowExecutor(airflow.base_url, auth=auth, secret=SECRET, poll=0.2) as executor:
        assert list(executor.map(square, range(3), timeout=MINUTE_S)) == [0, 1, 4]


def documented_dag() -> str:
    """The file of a whole scheduler in one task, as the documentation shows it."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/airflow.md").read_text(), re.DOTALL)
    (dag,) = (block for block in blocks if "airflow.sdk" in block)
    return str(dag)


def test_a_whole_scheduler_in_one_task_as_documented(airflow: Airflow):
    (airflow.dags / "search.py").write_text(documented_dag())
    with airflow.admin() as admin:
        until(
            lambda: admin.get("/dags/search").status_code == 200,
            lambda: f"it is found\n{admin.get('/importErrors').text}",
            limit_s=MINUTE_S,
        )
        assert admin.get("/importErrors").json()["total_entries"] == 0
        admin.patch("/dags/search", json={"is_paused": False})
        body = {"logical_date": None, "conf": {"n_trials": 6}}
        run = admin.post("/dags/search/dagRuns", json=body).json()["dag_run_id"]
        path = f"/dags/search/dagRuns/{run}"
        until(
            lambda: admin.get(path).json()["state"] in ("success", "failed"),
            airflow.complaints,
            limit_s=MINUTE_S,
        )
        assert admin.get(path).json()["state"] == "success", airflow.task_log("search")
        best = admin.get(f"{path}/taskInstances/best/xcomEntries/return_value").json()["value"]
    assert best == {"n_trials": 6, "n_failed": 0, "limit": 6000, "n_primes": 783}


async def test_how_fast_it_is(airflow: Airflow, record_property: Any):
    """Measured for the documentation; nothing is asserted of a time."""
    scheduler = with_airflow(airflow)
    run = scheduler.start()
    alone_s = []
    for n in range(4):
        began = time.perf_counter()
        assert await asyncio.wait_for(scheduler.submit(square, n), MINUTE_S) == n * n
        alone_s.append(time.perf_counter() - began)
    began = time.perf_counter()
    futures = scheduler.map(square, range(12))
    results = await asyncio.wait_for(scheduler.gather(futures), 2 * MINUTE_S)
    assert results == [n * n for n in range(12)]
    per_s = 12 / (time.perf_counter() - began)
    record_property("figures", f"{sorted(alone_s)} s alone, {per_s:.1f} calls/s")
    print(f"\nAirflow: one call {min(alone_s):.1f}-{max(alone_s):.1f} s, {per_s:.1f} calls/s")
    scheduler.stop()
    await run
