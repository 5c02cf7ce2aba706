"""A small HTTP server that answers as Airflow's REST API does, and really runs what it is given.

Paths, status codes and what is in the answers are those of Airflow 3.3 (`tests/clusters` has the
real one). Each run of the DAG executes the function of the shipped DAG in a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from amltk_nb.scheduling.executors.airflow_call import DAG_ID, TASK_ID

__all__ = ["PASSWORD", "AirflowServer", "Fault", "Tasks", "running_server"]

PASSWORD = "open sesame"
WAIT_S = 20.0
_RUN = rf"/api/v2/dags/{DAG_ID}/dagRuns/(?P<run>[^/]+)"


@dataclass
class Run:
    """A run of the DAG and its only task."""

    run_id: str
    conf: dict[str, Any]
    state: str | None = None
    pid: int | None = None
    told: Any = None  # the XCom


@dataclass
class Fault:
    """What goes wrong with the next requests that match."""

    method: str
    pattern: str  # searched in the path
    how: int | str  # a status; "drop": no answer; "lose": it is done, and the answer gets lost
    n: int = 1
    detail: str = "out of order"


class Tasks:
    """The process that starts tasks, each in one of its own, for one server after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.executors.airflow_tasks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._lock = threading.Lock()

    def start(self, order: dict[str, Any]) -> int:
        """Start a task; returns its pid."""
        orders, begun = self._process.stdin, self._process.stdout
        assert orders is not None
        assert begun is not None
        with self._lock:
            orders.write(json.dumps(order) + "\n")
            orders.flush()
            run_id, pid = begun.readline().split()
        assert run_id == order["run_id"]
        return int(pid)

    def close(self) -> None:
        self._process.communicate(timeout=WAIT_S)


@dataclass
class AirflowServer:
    """An Airflow, as far as HTTP shows it."""

    folder: Path
    tasks: Tasks
    n_slots: int = 4
    max_page: int = 100
    secret: str | None = None
    is_paused: bool = False
    has_dag: bool = True
    scheduler: str = "healthy"
    is_airflow_3: bool = True
    is_gone: bool = False  # it answers nothing any more
    asks_nobody: bool = False  # as with simple_auth_manager_all_admins
    tokens: set[str] = field(default_factory=set)
    runs: dict[str, Run] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)  # "POST /auth/token": how often

    def __post_init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._queue: deque[Run] = deque()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.http.server_port}"
        self._serving = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self._serving.start()

    def close(self) -> None:
        self.http.shutdown()
        self._serving.join()
        self.http.server_close()
        with self.changed:
            self.n_slots = 0
            pids = [run.pid for run in self.runs.values() if run.state == "running"]
        for pid in pids:
            _kill(pid)

    def wait_for(self, condition: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, WAIT_S), "it never happened"

    def states(self) -> list[str | None]:
        return [run.state for run in self.runs.values()]

    def fail(self, method: str, pattern: str, how: int | str, n: int = 1, **more: Any) -> Fault:
        fault = Fault(method, pattern, how, n, **more)
        self.faults.append(fault)
        return fault

    # ---------------------------------------------------------------- running tasks

    def _fill(self) -> None:
        """Start what waits while there is room, as Airflow's scheduler would; under the lock."""
        n_running = sum(run.state == "running" for run in self.runs.values())
        while self._queue and n_running < self.n_slots and not self.is_paused:
            run = self._queue.popleft()
            if run.state is not None:  # it was marked as failed meanwhile
                continue
            told = self.folder / run.run_id
            order = {"conf": run.conf, "run_id": run.run_id, "secret": self.secret}
            pid = self.tasks.start({**order, "told": str(told)})
            run.state, run.pid, n_running = "running", pid, n_running + 1
            threading.Thread(target=self._watch, args=(run, told), daemon=True).start()
        self.changed.notify_all()

    def _watch(self, run: Run, told: Path) -> None:
        _wait(run.pid)
        with self.changed:
            if told.exists():
                run.told = json.loads(told.read_text())
            if run.state == "running":
                is_good = run.told is not None and "refused" not in run.told
                run.state = "success" if is_good else "failed"
            self._fill()

    def _mark_failed(self, run: Run) -> None:
        if run.state is None:
            run.state = "skipped"
        elif run.state == "running":
            run.state = "failed"
            _kill(run.pid)  # what the task's heartbeat brings about

    # ---------------------------------------------------------------- what is answered

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        """Return a status and a body."""
        if not self.is_airflow_3:
            return 404, {"error": "not found"}
        if path == "/api/v2/version":
            return 200, {"version": "3.3.2", "git_version": None}
        if path == "/auth/token":
            return self._token(method, body)
        if path == "/api/v2/monitor/health":
            return 200, {"scheduler": {"status": self.scheduler}}
        if not self.has_dag:
            return 404, {"detail": f"The Dag with ID: `{DAG_ID}` was not found"}
        if path == f"/api/v2/dags/{DAG_ID}":
            return 200, {"dag_id": DAG_ID, "is_paused": self.is_paused, "is_stale": False}
        if path == f"/api/v2/dags/{DAG_ID}/dagRuns" and method == "POST":
            return self._start(body)
        if path == f"/api/v2/dags/{DAG_ID}/dagRuns/~/taskInstances":
            return self._page(query)
        return self._of_run(method, path, body)

    def _token(self, method: str, body: Any) -> Any:
        if method == "GET" and not self.asks_nobody:
            return 403, {"detail": "This method is only allowed if all are admins"}
        if method == "POST" and (body["username"], body["password"]) != ("ada", PASSWORD):
            return 401, {"detail": "Invalid credentials"}
        token = f"token-{len(self.tokens) + 1}-{os.urandom(4).hex()}"
        self.tokens.add(token)
        return 201, {"access_token": token}

    def _start(self, body: Any) -> Any:
        if body["dag_run_id"] in self.runs:
            return 409, {"detail": {"reason": "Unique constraint violation"}}
        run = self.runs[body["dag_run_id"]] = Run(body["dag_run_id"], body["conf"])
        self._queue.append(run)
        self._fill()
        return 200, {"dag_run_id": run.run_id, "state": "queued"}

    def _page(self, query: dict[str, list[str]]) -> Any:
        prefix, states = query["run_id_prefix_pattern"][0], query["state"]
        first, n = int(query["offset"][0]), min(int(query["limit"][0]), self.max_page)
        found = [
            run
            for run in self.runs.values()
            if run.run_id.startswith(prefix) and (run.state or "none") in states
        ]
        page = [_task(run) for run in found[first : first + n]]
        return 200, {"task_instances": page, "total_entries": len(found)}

    def _of_run(self, method: str, path: str, body: Any) -> Any:
        match = re.fullmatch(rf"{_RUN}(?P<rest>/.*)?", path)
        run = self.runs.get(unquote(match["run"])) if match else None
        if match is None or run is None:
            return 404, {"detail": "The DagRun was not found"}
        if method == "PATCH" and match["rest"] is None:
            assert body == {"state": "failed"}
            self._mark_failed(run)
            self._fill()
            return 200, {"dag_run_id": run.run_id, "state": "failed"}
        if match["rest"] == f"/taskInstances/{TASK_ID}":
            return 200, _task(run)
        if match["rest"] == f"/taskInstances/{TASK_ID}/xcomEntries/return_value" and run.told:
            return 200, {"key": "return_value", "value": run.told}
        return 404, {"detail": "XCom entry with key: `return_value` not found"}

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one piece, and at once
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self.answer("GET")

            def do_POST(self) -> None:
                self.answer("POST")

            def do_PATCH(self) -> None:
                self.answer("PATCH")

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self, method: str) -> None:
                text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                with server.changed:
                    server.seen[f"{method} {parts.path}"] += 1
                    fault = server._fault(method, parts.path)
                    if server.is_gone or (fault is not None and fault.how == "drop"):
                        self.close_connection = True
                        return
                    if fault is not None and isinstance(fault.how, int):
                        return self.send(fault.how, {"detail": fault.detail})
                    if (refusal := self.refusal(parts.path)) is not None:
                        return self.send(*refusal)
                    body = json.loads(text) if text else None
                    answer = server.answer(method, parts.path, parse_qs(parts.query), body)
                    server.changed.notify_all()
                    if fault is not None:  # lost on its way
                        self.close_connection = True
                        return
                self.send(*answer)

            def refusal(self, path: str) -> Any:
                if not path.startswith("/api/v2/dags/"):
                    return None
                word, _, token = self.headers.get("Authorization", "").partition(" ")
                if not token:
                    return 401, {"detail": "Not authenticated"}
                if word != "Bearer" or token not in server.tokens:
                    return 403, {"detail": "Invalid JWT token"}
                return None

            def send(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.n > 0 and fault.method == method and re.search(fault.pattern, path):
                fault.n -= 1
                self.changed.notify_all()
                return fault
        return None


def _task(run: Run) -> dict[str, Any]:
    has_begun = run.pid is not None
    return {
        "dag_run_id": run.run_id,
        "task_id": TASK_ID,
        "state": run.state,
        "hostname": "box" if has_begun else "",
        "pid": run.pid,
    }


def _wait(pid: int | None) -> None:
    """Wait until a process that somebody else has started is gone."""
    assert pid is not None
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()
    os.close(fd)


def _kill(pid: int | None) -> None:
    assert pid is not None
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def running_server(folder: Path, tasks: Tasks) -> Iterator[AirflowServer]:
    """A server that is gone at the end, with all it runs."""
    server = AirflowServer(folder, tasks)
    try:
        yield server
    finally:
        server.close()
