"""Calls on Airflow, over a server that answers as Airflow does and runs the shipped DAG's function.

The real Airflow is in tests/clusters/test_airflow.py.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures as cf
import os
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import AirflowExecutor, ExitCode, ExitState, Scheduler, airflow_dag
from amltk_nb.errors import (
    BackendError,
    BackendLostError,
    BackendStartError,
    ExecutorClosedError,
    MissingExtraError,
    NotPicklableError,
    WorkerDiedError,
)
from amltk_nb.scheduling.executors import airflow_call
from amltk_nb.scheduling.executors.airflow_call import run_signed, signature
from tests.executors.airflow_server import PASSWORD, AirflowServer, Tasks, running_server
from tests.executors.contract import LONG_S, Contract, open_gate, own_threads, square, wait_at
from tests.executors.driver import Driver, survivors
from tests.executors.functions import add, die, echo, fail, note

ADA = ("ada", PASSWORD)
SECRET = "a secret of both sides"


def with_airflow(server: AirflowServer, **options: Any) -> Scheduler:
    settings: dict[str, Any] = {"auth": ADA, "poll": 0.01, "max_active": 2}
    return Scheduler.with_airflow(server.base_url, **(settings | options))


def driver(server: AirflowServer, **options: Any) -> Driver:
    return Driver(with_airflow(server, **options).backend)


@pytest.fixture(scope="module")
def tasks() -> Iterator[Tasks]:
    tasks = Tasks()
    yield tasks
    tasks.close()


@pytest.fixture
def server(tmp_path: Path, tasks: Tasks) -> Iterator[AirflowServer]:
    with running_server(tmp_path, tasks) as server:
        yield server


class TestContract(Contract):
    can_end = True

    # For engines of more than a call a second.
    test_500_calls_have_exactly_500_ends = None
    test_short_calls_do_not_wait_behind_a_long_one = None
    test_stop_waits_for_what_waits_behind_a_long_call = None

    @pytest.fixture(autouse=True)
    def take_server(self, server: AirflowServer) -> None:
        self.server = server

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield with_airflow(self.server)

    async def test_an_edited_global_counts_from_the_next_call_on(self, scheduler: Scheduler):
        space: dict[str, Any] = {"__name__": "__main__"}  # as a notebook's functions are
        exec("FACTOR = 2\ndef scaled(x):\n    return x * FACTOR", space)
        run = scheduler.start(end_on_empty=True)
        first = scheduler.submit(space["scaled"], 21)
        space["FACTOR"] = 3
        second = scheduler.submit(space["scaled"], 21)
        assert await scheduler.gather([first, second]) == [42, 63]
        assert await run == ExitCode.EXHAUSTED


# --- one call, one run, whatever happens to requests


@pytest.mark.parametrize("how", ["lose", "drop", 500, 503])
def test_a_run_that_may_have_been_started_is_started_once(
    server: AirflowServer, tmp_path: Path, how: int | str
):
    fault = server.fail("POST", "/dagRuns$", how, n=2)
    marks = tmp_path / "marks"
    with driver(server) as told:
        assert told.run(note, str(marks), "ran") == "ran"
    assert fault.n == 0
    assert marks.read_text() == "ran\n"
    assert server.states() == ["success"]


def test_no_call_is_lost_while_airflow_does_not_answer_for_some_time(server: AirflowServer):
    server.fail("GET", "taskInstances$", "drop", n=3)
    server.fail("GET", "taskInstances$", 500, n=3)
    server.fail("GET", "return_value$", 502, n=3)
    with driver(server) as told:
        assert told.run(add, 1, 2) == 3
        assert [fault.n for fault in server.faults] == [0, 0, 0]
        assert told.lost_errors == []


def test_an_answer_that_cannot_be_had_holds_up_no_other_call(server: AirflowServer):
    with driver(server) as told:
        first = told.submit(add, 1)
        server.wait_for(lambda: server.runs)
        (run_id,) = server.runs
        server.fail("GET", f"{run_id}/.*return_value$", 500, n=10**6)
        assert [told.run(add, n) for n in (1, 2, 3)] == [2, 3, 4]
        server.faults.clear()
        assert told.value(first) == 2


def test_an_answer_that_is_out_of_order_for_good_costs_its_call(server: AirflowServer):
    server.fail("GET", "return_value$", 500, n=10**6, detail="Database error")
    with driver(server, lost_after=0.2) as told:
        error = told.error(told.submit(add, 1))
        assert isinstance(error, BackendError)
        assert "would not read results: 500, Database error" in str(error)
        assert told.lost_errors == []


async def test_an_airflow_that_is_gone_ends_the_run(server: AirflowServer):
    scheduler = with_airflow(server, lost_after=0.3)
    run = scheduler.start()
    async with open_gate() as gate:
        under_way = scheduler.submit(wait_at, gate.path)
        await gate.arrived(1)
        waiting = [scheduler.submit(wait_at, gate.path) for _ in range(4)]
        server.is_gone = True
        state = await asyncio.wait_for(run.wait(), LONG_S)
    assert state.code is ExitCode.EXCEPTION
    assert isinstance(state.exception, BackendLostError)
    assert "has not answered" in str(state.exception)
    with pytest.raises(BackendLostError):
        under_way.result()
    assert all(future.done() for future in waiting)


# --- getting in


async def start_error(scheduler: Scheduler) -> str:
    """What is said when it cannot start."""
    state = await asyncio.wait_for(scheduler.start().wait(), LONG_S)
    assert isinstance(state.exception, BackendStartError)
    return str(state.exception)


async def test_nobody_at_the_address_is_an_error_within_seconds():
    with socket.socket() as listener:  # a port that is surely free once it is closed
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    said = await start_error(Scheduler.with_airflow(f"http://127.0.0.1:{port}"))
    assert f"does not answer at http://127.0.0.1:{port}" in said
    assert "Is the address right" in said


@pytest.mark.parametrize(
    ("flaws", "options", "message"),
    [
        ({"is_airflow_3": False}, {}, "is not the REST API of Airflow 3"),
        ({"has_dag": False}, {}, "python -m amltk_nb.airflow_dag DAGS_FOLDER"),
        ({"is_paused": True}, {}, "airflow dags unpause amltk_nb_call"),
        ({}, {"auth": None}, r"Pass auth=\(user, password\) or a token"),
        ({}, {"auth": ("ada", "wrong")}, "does not accept the user and password"),
        ({}, {"auth": "no token of its"}, "does not accept the token"),
        ({}, {"auth": lambda: 1 / 0}, "could not get a token: ZeroDivisionError"),
        ({}, {"auth": lambda: None}, "returned NoneType, and a token is a str"),
        ({}, {"dag_id": "other"}, "has no DAG other"),
    ],
)
async def test_what_is_in_the_way_is_said_with_what_to_do(
    server: AirflowServer, flaws: dict[str, Any], options: dict[str, Any], message: str
):
    for name, value in flaws.items():
        setattr(server, name, value)
    scheduler = with_airflow(server, **options)
    assert re.search(message, await start_error(scheduler))
    assert server.runs == {}


def test_all_ways_to_say_who_asks(server: AirflowServer):
    server.asks_nobody = True
    server.tokens.add("mine")
    for auth in (None, ADA, "mine", lambda: "mine"):
        with driver(server, auth=auth) as told:
            assert told.run(add, 1) == 2


def test_a_token_that_has_grown_old_is_renewed(server: AirflowServer):
    with driver(server) as told:
        assert told.run(add, 1) == 2
        server.tokens.clear()
        assert told.run(add, 2) == 3
    assert server.seen["POST /auth/token"] == 2


def test_a_token_that_cannot_be_renewed_ends_the_run(server: AirflowServer):
    server.tokens.add("mine")
    with driver(server, auth="mine") as told:
        assert told.run(add, 1) == 2
        server.is_paused = True  # so that the next one waits
        told.submit(add, 1)
        server.wait_for(lambda: len(server.runs) == 2)
        server.tokens.clear()
        told.wait_for(lambda: told.lost_errors)
        (error,) = told.lost_errors
        assert isinstance(error, BackendLostError)
        assert "does not accept the token (Invalid JWT token)" in str(error)


def test_an_answer_that_is_not_understood_ends_the_run(server: AirflowServer):
    with driver(server) as told:
        assert told.run(add, 1) == 2
        server.is_paused = True  # so that the next one waits
        told.submit(add, 1)
        server.wait_for(lambda: len(server.runs) == 2)
        server.fail("GET", "/taskInstances", 200, detail="a page of somebody in between")
        told.wait_for(lambda: told.lost_errors)
        assert "Its answer was not understood: KeyError('" in str(told.lost_errors[0])


def test_what_its_user_may_not_do_costs_the_call_only(server: AirflowServer):
    server.fail("POST", "/dagRuns$", 403, detail="Forbidden")
    with driver(server) as told:
        error = told.error(told.submit(add, 1))
        assert "does not let this user start a run (Forbidden)" in str(error)
        assert told.run(add, 1) == 2


def test_a_dag_that_is_paused_or_not_run_is_waited_for_and_said(
    server: AirflowServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("amltk_nb.scheduling.executors.airflow_connection._LOOK_S", 0.05)
    monkeypatch.setattr("amltk_nb.scheduling.executors.airflow.AirflowBackend.poll_s", 0.05)
    with driver(server, no_workers_after=0.1) as told:
        assert told.run(add, 1) == 2
        server.is_paused = True
        told.wait_for(lambda: told.no_workers_s)
        call = told.submit(add, 2)
        assert told.backend.describe().waiting_for == "workers of AirflowExecutor"
        server.is_paused, server.scheduler = False, "unhealthy"
        told.wait_for(lambda: len(told.log_texts("warning")) == 2)
        server.scheduler = "healthy"
        assert told.value(call) == 3
        paused, down = told.log_texts("warning")
        assert "amltk_nb_call was paused" in paused
        assert "Airflow's scheduler does not run" in down


# --- how many, where, and their ends


def test_no_more_than_max_active_are_given_to_airflow(server: AirflowServer, tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    server.n_slots = 1
    with driver(server, max_active=3) as told:
        calls = [told.submit(pass_and_note, str(fifo), str(tmp_path / "m"), n) for n in range(5)]
        told.wait_for(lambda: told.backend.describe().n_jobs_waiting == 2)
        assert server.states() == ["running", None, None]
        busy, room = told.backend.workers()
        assert (busy.name, busy.state, busy.call, busy.where) == (
            f"box:{busy.pid}",
            "busy",
            1,
            "box",
        )
        assert busy.pid == next(iter(server.runs.values())).pid
        assert (room.name, room.state, room.call) == ("airflow", "busy", 2)
        assert told.backend.describe().n_workers == 3
        # One that waits in Airflow never runs, and makes room for the next.
        assert told.end(calls[1]) is True
        assert told.outcome(calls[1]).cancelled
        server.wait_for(lambda: len(server.runs) == 4)
        assert server.states() == ["running", "skipped", None, None]
        for n in (0, 2, 3, 4):
            open(fifo, "w").close()
            assert told.value(calls[n]) == n
    assert sorted((tmp_path / "m").read_text().split()) == ["0", "2", "3", "4"]


def pass_and_note(fifo: str, marks: str, n: int) -> int:
    with open(fifo) as file:
        file.read()
    note(marks, str(n))
    return n


def begin_and_wait(marks: str, gate: str) -> None:
    """Leave the pids of this task and of a child, and wait at a gate."""
    child = subprocess.Popen(["sleep", "600"])
    note(marks, f"{os.getpid()} {child.pid}")
    wait_at(gate)
    note(marks, "went on")


@contextmanager
def at_a_gate(told: Driver, marks: Path) -> Iterator[Any]:
    """A call that runs and waits."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/tmp/amltk-nb-{os.getpid()}-{id(marks)}")
        path = listener.getsockname()
        listener.listen()
        call = told.submit(begin_and_wait, str(marks), path)
        listener.settimeout(LONG_S)
        line, _ = listener.accept()
        with line:
            yield call
    os.unlink(path)


def test_what_is_ended_runs_no_more_with_what_it_started(server: AirflowServer, tmp_path: Path):
    marks = tmp_path / "marks"
    with driver(server) as told, at_a_gate(told, marks) as call:
        assert told.end(call) is True
        assert told.outcome(call).cancelled
        assert survivors(map(int, marks.read_text().split()), 5.0) == []
    assert server.states() == ["failed"]
    assert "went on" not in marks.read_text()


def test_what_airflow_does_not_end_goes_on_and_says_so(server: AirflowServer, tmp_path: Path):
    marks = tmp_path / "marks"
    server.fail("PATCH", ".*", 403, detail="Forbidden")
    with driver(server) as told:
        with at_a_gate(told, marks) as call:
            assert told.end(call) is True
            told.wait_for(lambda: told.log_texts("warning"))
            (warning,) = told.log_texts("warning")
            assert "could not be ended and goes on" in warning
            assert "does not let this user end a run" in warning
        assert told.value(call) is None
        kill_child(marks)


def kill_child(marks: Path) -> None:
    os.kill(int(marks.read_text().split()[1]), 9)


def test_a_task_that_dies_is_an_error_and_not_tried_again(server: AirflowServer, tmp_path: Path):
    marks = tmp_path / "marks"
    with driver(server) as told:
        with at_a_gate(told, marks) as call:
            os.kill(int(marks.read_text().split()[0]), 9)
            error = told.error(call)
        kill_child(marks)
        (run_id,) = server.runs
        assert isinstance(error, WorkerDiedError)
        assert "the task on box ended without an answer" in str(error)
        assert f"/dags/amltk_nb_call/runs/{run_id}/tasks/run" in str(error)
        assert isinstance(told.error(told.submit(die, 3)), WorkerDiedError)
        assert told.run(add, 1) == 2
    assert server.states() == ["failed", "failed", "success"]


def test_what_others_do_to_runs_in_airflow_is_seen(server: AirflowServer):
    server.is_paused, server.scheduler = False, "healthy"
    with driver(server) as told:
        assert told.run(add, 1) == 2
        server.n_slots = 0
        marked, deleted = told.submit(add, 1), told.submit(add, 1)
        server.wait_for(lambda: len(server.runs) == 3)
        _, to_mark, to_delete = server.runs
        with server.changed:
            server._mark_failed(server.runs[to_mark])
            del server.runs[to_delete]
        assert told.outcome(marked).cancelled
        assert "somebody has deleted it there" in str(told.error(deleted))


def test_a_task_that_airflow_cannot_start_is_not_a_death(server: AirflowServer):
    server.n_slots = 0
    with driver(server) as told:
        call = told.submit(add, 1)
        server.wait_for(lambda: server.runs)
        with server.changed:
            next(iter(server.runs.values())).state = "failed"
        error = told.error(call)
        assert type(error) is BackendError
        assert "could not start the task" in str(error)


def test_pages_are_read_to_the_last(server: AirflowServer):
    server.max_page = 1
    with driver(server, max_active=4) as told:
        calls = [told.submit(add, n) for n in range(12)]
        assert [told.value(call) for call in calls] == list(range(1, 13))


# --- sizes and signatures


def test_what_is_too_large_is_refused_before_it_travels_and_before_it_comes(
    server: AirflowServer,
):
    with driver(server, max_bytes=100_000) as told:
        assert told.run(len, bytes(90_000)) == 90_000
        with pytest.raises(
            NotPicklableError, match=r"len\(\) have 100,\d+ bytes, and max_bytes is"
        ):
            told.submit(len, bytes(100_000))
        assert len(told.run(bytes, 90_000)) == 90_000
        error = told.error(told.submit(bytes, 100_000))
        assert "Write it to a file or an object store" in str(error)
    assert server.states() == ["success", "success", "failed"]


class Bomb:
    """What runs code where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return note, (self.path, "opened")


@pytest.mark.parametrize("signed", ["by nobody", "with another key", "for another run"])
def test_an_answer_without_the_right_signature_is_not_opened(
    server: AirflowServer, tmp_path: Path, signed: str
):
    server.n_slots = 0
    with driver(server) as told:
        call = told.submit(add, 1)
        server.wait_for(lambda: server.runs)
        with server.changed:
            (run,) = server.runs.values()
            bomb = pickle.dumps(Bomb(str(tmp_path / "opened")))
            forged = {"format": 1, "answer": base64.b64encode(bomb).decode()}
            if signed == "with another key":
                forged["signature"] = signature(b"mine", "answer", run.run_id, bomb)
            elif signed == "for another run":
                key = bytes.fromhex(run.conf["key"])
                forged["signature"] = signature(key, "answer", "another", bomb)
            run.state, run.told = "success", forged
        assert "does not carry the right signature" in str(told.error(call))
    assert not (tmp_path / "opened").exists()


def test_what_is_not_from_this_dag_says_so(server: AirflowServer):
    server.n_slots = 0
    with driver(server) as told:
        call = told.submit(add, 1)
        server.wait_for(lambda: server.runs)
        with server.changed:
            (run,) = server.runs.values()
            run.state, run.told = "success", "aGVsbG8="
        assert "is not from the DAG of this version" in str(told.error(call))


def test_with_a_secret_on_both_sides_no_key_travels(server: AirflowServer):
    server.secret = SECRET
    with driver(server, secret=SECRET) as told:
        assert told.run(add, 1) == 2
    (run,) = server.runs.values()
    assert set(run.conf) == {"format", "python", "call", "signature", "max_bytes"}
    assert SECRET not in str(run.conf)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (SECRET, None, "only runs calls that are signed with its secret"),
        (None, SECRET, "a secret that the workers of this Airflow do not have"),
        (SECRET, "quite another secret", "The signature of the call is wrong, so it was not run"),
    ],
)
def test_secrets_that_differ(
    server: AirflowServer, tmp_path: Path, theirs: str | None, ours: str | None, message: str
):
    server.secret = theirs
    with driver(server, secret=ours) as told:
        assert message in str(told.error(told.submit(note, str(tmp_path / "ran"), "ran")))
    assert not (tmp_path / "ran").exists()
    assert server.states() == ["failed"]


def test_a_signed_call_cannot_be_run_under_another_name(server: AirflowServer):
    with driver(server) as told:
        assert told.run(add, 1) == 2
    (run,) = server.runs.values()
    assert "answer" in run_signed(run.conf, run.run_id)
    assert "signature of the call is wrong" in run_signed(run.conf, "another")["refused"]
    assert "runs Python 2.7" in run_signed({**run.conf, "python": "2.7"}, run.run_id)["refused"]
    assert "the notebook sent 0" in run_signed({**run.conf, "format": 0}, run.run_id)["refused"]


def test_a_worker_that_cannot_read_the_call_says_what_it_needs():
    body, key = b"not a pickle", b"key"
    conf = {
        "format": 1,
        "python": "{}.{}".format(*sys.version_info[:2]),
        "call": base64.b64encode(body).decode(),
        "signature": signature(key, "call", "r", body),
        "key": key.hex(),
        "max_bytes": 1000,
    }
    assert "It needs cloudpickle" in run_signed(conf, "r")["refused"]


# --- the executor by itself


@pytest.fixture
def executor(server: AirflowServer) -> Iterator[AirflowExecutor]:
    threads = own_threads()
    with AirflowExecutor(server.base_url, auth=ADA, poll=0.01, max_active=2) as executor:
        yield executor
    assert own_threads() <= threads


def test_the_verbs_of_concurrent_futures(executor: AirflowExecutor):
    assert list(executor.map(add, [1, 2, 3])) == [2, 3, 4]
    good, bad = executor.submit(add, 1, b=5), executor.submit(fail, KeyError, "nope")
    assert good.result(LONG_S) == 6
    with pytest.raises(KeyError, match="nope"):
        bad.result(LONG_S)
    futures = [executor.submit(echo, n) for n in range(5)]
    assert {f.result() for f in cf.as_completed(futures, LONG_S)} == set(range(5))


def test_futures_that_wait_can_be_cancelled_and_running_ones_ended(
    executor: AirflowExecutor, server: AirflowServer, tmp_path: Path
):
    fifo, marks = tmp_path / "fifo", tmp_path / "marks"
    os.mkfifo(fifo)
    futures = [executor.submit(pass_and_note, str(fifo), str(marks), n) for n in range(4)]
    server.wait_for(lambda: server.states() == ["running", "running"])
    assert [future.cancel() for future in futures] == [False, False, True, True]
    done, _ = cf.wait(futures[2:], LONG_S)
    assert done == set(futures[2:])
    assert executor.end(futures[0]) is True
    with pytest.raises(cf.CancelledError):
        futures[0].result(LONG_S)
    open(fifo, "w").close()
    assert futures[1].result(LONG_S) == 1
    assert [executor.end(future) for future in futures] == [False, False, True, True]
    assert marks.read_text() == "1\n"
    assert len(server.runs) == 2


def test_shutdown_ends_in_good_order(server: AirflowServer, tmp_path: Path):
    executor = AirflowExecutor(server.base_url, auth=ADA, poll=0.01, max_active=1)
    futures = [executor.submit(echo, n) for n in range(4)]
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    n_run = sum(not future.cancelled() for future in futures)
    assert [f.result() for f in futures if not f.cancelled()] == list(range(n_run))
    assert len(server.runs) == n_run
    for use in (lambda: executor.submit(echo, 1), executor.scheduler_backend):
        with pytest.raises(ExecutorClosedError, match="has been shut down"):
            use()
    executor.shutdown()


def test_futures_of_an_airflow_that_cannot_be_had_fail(server: AirflowServer):
    server.has_dag = False
    with AirflowExecutor(server.base_url, auth=ADA) as executor:
        future = executor.submit(add, 1)
        with pytest.raises(BackendStartError, match=r"python -m amltk_nb\.airflow_dag"):
            future.result(LONG_S)
        with pytest.raises(ExecutorClosedError, match="runs nothing any more"):
            executor.submit(add, 1)


def test_a_scheduler_takes_it(server: AirflowServer):
    with AirflowExecutor(server.base_url, auth=ADA, poll=0.01, max_active=3) as executor:
        scheduler = Scheduler(executor)
        futures: list[Any] = []
        scheduler.on_start(lambda: futures.extend(scheduler.map(square, range(5))))
        assert scheduler.run() == ExitState(ExitCode.EXHAUSTED)
        assert [future.result() for future in futures] == [0, 1, 4, 9, 16]
        backend = scheduler.snapshot().backend
        assert (backend.name, backend.options["max_active"]) == ("AirflowExecutor", 3)
        assert ADA[1] not in str(scheduler.snapshot())


# --- before anything is asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": "localhost:8080"}, "such as 'http://localhost:8080'"),
        ({"base_url": "http://ada:x@localhost"}, r"auth=\(user, password\)"),
        ({"auth": ("ada",)}, r"pass a token, \(user, password\)"),
        ({"max_active": 0}, "max_active=0 must be a whole number"),
        ({"max_bytes": 1.5}, r"max_bytes=1\.5 must be a whole number"),
        ({"secret": "short"}, "16 at least"),
        ({"poll": 0}, "poll=0 must be positive"),
        ({"lost_after": -1.0}, r"lost_after=-1\.0 must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        Scheduler.with_airflow(**({"base_url": "http://localhost:8080"} | arguments))


def test_the_address_may_be_that_of_the_api():
    backend = Scheduler.with_airflow("https://host/air/api/v2/").backend
    assert backend.describe().options["base_url"] == "https://host/air"


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "amltk_nb.scheduling.executors.airflow_rest.find_spec",
        lambda name: None if name == "httpx" else 1,
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'amltk-nb\[airflow\]'"):
        Scheduler.with_airflow("http://localhost:8080")


# --- the command that puts the DAG there


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "amltk_nb.airflow_dag", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_command_puts_the_dag_there(tmp_path: Path):
    done = command(str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path}/amltk_nb_call.py is there now." in done.stdout
    assert (tmp_path / "amltk_nb_call.py").read_text() == Path(airflow_call.__file__).read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["amltk_nb_call.py"]
    gone = command(str(tmp_path / "nowhere"))
    assert gone.returncode == 1
    assert "does not exist. Give the folder where your Airflow looks for DAGs" in gone.stderr


def test_an_older_dag_of_ours_is_replaced_and_nothing_else(tmp_path: Path):
    target = tmp_path / airflow_dag.FILE_NAME
    assert airflow_dag.install(tmp_path).endswith("is there now.")
    assert airflow_dag.install(tmp_path).endswith("was up to date already.")
    ours = target.read_text()
    assert V in ours
    target.write_text(ours.replace(V, "\nVERSION = 0"))
    assert airflow_dag.install(tmp_path).endswith("has been brought up to date.")
    assert target.read_text() == ours
    refusals: list[tuple[str, Callable[[], object]]] = [
        (
            "is of a newer amltk_nb",
            lambda: target.write_text(f"{ours}\n".replace(V, "\nVERSION = 99")),
        ),
        ("is not from amltk_nb", lambda: target.write_text("print('mine')\n")),
    ]
    for message, change in refusals:
        change()
        before = target.read_text()
        with pytest.raises(FileExistsError, match=message):
            airflow_dag.install(tmp_path)
        assert target.read_text() == before
    with pytest.raises(NotADirectoryError, match="is a file"):
        airflow_dag.install(target)


V = f"\nVERSION = {airflow_call.VERSION}"
