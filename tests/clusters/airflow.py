"""A real Airflow for the tests: all of it in one folder, on loopback ports that were free.

By hand:

    python -m tests.clusters.airflow start /tmp/airflow     prints what to use
    python -m tests.clusters.airflow stop /tmp/airflow
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from amltk_nb import airflow_dag
from tests.clusters.waiting import until
from tests.environments import ENVIRONMENTS, ROOT

__all__ = ["ROOT", "Airflow", "missing", "running_airflow"]

START_S = 280  # 13 s on a quiet machine; minutes on one that runs all other tests besides
STOP_S = 10
USERS = {"ada": "admin", "vic": "viewer"}  # by their roles


class Airflow:
    """One Airflow in a folder: `start` it, use it at `base_url`, `stop` it."""

    def __init__(self, folder: Path, *, secret: str | None = None, outlives_us: bool = False):
        self.folder = folder
        self.dags = folder / "dags"
        self.prefix = [] if outlives_us else ["setpriv", "--pdeathsig", "TERM"]
        self.secret = secret
        self.password = secrets.token_hex(8)
        self.base_url = f"http://127.0.0.1:{_free_port()}"

    def start(self) -> None:
        """Start all of it, and wait until calls could run."""
        self.dags.mkdir(parents=True)
        airflow_dag.install(self.dags)
        passwords = dict.fromkeys(USERS, self.password)
        (self.folder / "passwords.json").write_text(json.dumps(passwords))
        (self.folder / "use").write_text(f"{self.base_url} ada {self.password}\n")
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self.prefix, _PYTHON, "-m", "airflow", "standalone"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        until(self._is_ready, lambda: f"Airflow is ready\n{self.complaints()}", limit_s=START_S)

    def stop(self) -> list[int]:
        """End everything it has started; returns what had to be killed."""
        path = self.folder / "pid"
        if not path.exists():
            return []
        session = int(path.read_text())
        path.unlink()
        all_of_it = _session(session)
        for process in all_of_it:
            _signal(process, signal.SIGTERM)
        _, left = psutil.wait_procs(all_of_it, STOP_S)
        for process in left:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(left, STOP_S)
        if hasattr(self, "_process"):
            self._process.wait(STOP_S)
        return [process.pid for process in left]

    def admin(self) -> httpx.Client:
        """Somebody who may do everything, to look at what the tests have done."""
        body = {"username": "ada", "password": self.password}
        token = httpx.post(f"{self.base_url}/auth/token", json=body).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"{self.base_url}/api/v2", headers=headers, timeout=20)

    def complaints(self) -> str:
        """What it said last, for the message of a failure."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def task_log(self, dag_id: str) -> str:
        """What tasks of a DAG have said, for the message of a failure."""
        paths = sorted(self.folder.glob(f"logs/dag_id={dag_id}/**/*.log"))
        return "\n".join(path.read_text()[-3000:] for path in paths[-2:])

    def _is_ready(self) -> bool:
        """Whether its scheduler lives and it has found our DAG."""
        assert self._process.poll() is None, f"Airflow ended at once:\n{self.complaints()}"
        try:
            with self.admin() as admin:
                health = admin.get("/monitor/health").json()
                dag = admin.get(f"/dags/{airflow_dag.DAG_ID}")
        except (httpx.HTTPError, KeyError, ValueError):
            return False
        return health["scheduler"]["status"] == "healthy" and dag.status_code == 200

    def _environment(self) -> dict[str, str]:
        port = self.base_url.rpartition(":")[2]
        settings = {
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "2",
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{r}" for u, r in USERS.items()),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.folder / "passwords.json"),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.base_url}/execution/",
            "API__HOST": "127.0.0.1",
            "API__PORT": port,
            "API__WORKERS": "1",
            "API__BASE_URL": self.base_url,
            "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "WORKERS__EXECUTION_API_TIMEOUT": "60",  # the machine may be busy with other tests
            "DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            "LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        named = {f"AIRFLOW__{name}": value for name, value in settings.items()}
        path = f"{Path(_PYTHON).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
        own = {"AIRFLOW_HOME": str(self.folder), "PATH": path, "NO_PROXY": "127.0.0.1,localhost"}
        if self.secret is not None:
            own["AMLTK_NB_AIRFLOW_SECRET"] = self.secret
        return {**inherited, **own, **named}


_PYTHON = str(ENVIRONMENTS["airflow"].python)


def missing() -> str | None:
    """Say why no Airflow can run here, after an attempt to install it; None: it can."""
    try:
        ENVIRONMENTS["airflow"].ready()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"Airflow could not be installed: {error}"
    return None


@contextmanager
def running_airflow(folder: Path, *, secret: str | None = None) -> Iterator[Airflow]:
    """An Airflow that is stopped at the end, with all it has started."""
    airflow = Airflow(folder, secret=secret)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.stop()


def _session(leader: int) -> list[psutil.Process]:
    """The processes of a session; Airflow starts groups of its own in it."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    verb, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    airflow = Airflow(folder, outlives_us=True)
    if verb == "stop":
        print("killed:", airflow.stop())
    elif reason := missing():
        sys.exit(reason)
    else:
        airflow.start()
        print(f"{airflow.base_url} ada {airflow.password}")


if __name__ == "__main__":
    main()
