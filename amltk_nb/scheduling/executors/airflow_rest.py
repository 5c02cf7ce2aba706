"""Airflow's REST API (version 2, of Airflow 3), as far as calls need it.

What no answer means is decided here, once for all who ask: an `Unreachable`, to be tried again,
until the same request has had none for `lost_after_s`; then Airflow is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

from amltk_nb.errors import (
    BackendError,
    BackendLostError,
    BackendStartError,
    MissingExtraError,
)
from amltk_nb.scheduling.executors.airflow_call import TASK_ID

if TYPE_CHECKING:
    import httpx

__all__ = ["AirflowApi", "Auth", "Site", "TaskState", "Unreachable", "require_httpx"]

Auth: TypeAlias = "str | tuple[str, str] | Callable[[], str] | None"

_BUSY = {429, 502, 503, 504}  # of a gateway, or of a server that starts anew
_FAULT = 500  # of its database too, which may be locked for the moment
_PAGE = 100  # Airflow's own bound of a page, unless its configuration says less
_ACTIVE = ("none", "scheduled", "queued", "running", "restarting", "deferred", "up_for_retry")


class Unreachable(BackendError):
    """There was no answer this time; there may be one soon."""


@dataclass(frozen=True)
class Site:
    """Which Airflow, and how to speak with it."""

    base_url: str
    dag_id: str
    auth: Auth = field(default=None, repr=False)
    timeout_s: float = 10.0  # of one request
    lost_after_s: float = 60.0  # without any answer
    verify: Any = True  # TLS certificates, as httpx takes it


class TaskState(NamedTuple):
    """What Airflow says of one call."""

    run_id: str
    state: str | None  # None, "scheduled", "queued", "running", "success", "failed", "skipped", …
    host: str | None
    pid: int | None

    @property
    def is_running(self) -> bool:
        """Whether the function has begun; else it waits, or has ended."""
        return self.state == "running"


class AirflowApi:
    """One Airflow; any thread may ask."""

    def __init__(self, site: Site) -> None:
        """Prepare; nothing is asked yet."""
        self._site = site
        import httpx

        self._transport_error = httpx.TransportError
        self._http = httpx.Client(
            base_url=site.base_url, timeout=site.timeout_s, verify=site.verify
        )
        self._token: str | None = None
        self._renewing = threading.Lock()
        self._silent_since: dict[tuple[str, str], float] = {}  # which requests have no answer

    def close(self) -> None:
        """Give its connections back."""
        self._http.close()

    # ---------------------------------------------------------------- what calls need

    def check(self) -> None:
        """See that there is an Airflow 3 with our DAG, and that we may use it.

        Raises:
            BackendStartError: no; the message says what to do.
        """
        try:
            self._check_version()
            dag = self.dag()
        except BackendStartError:
            raise
        except BackendError as error:
            raise BackendStartError(f"{error} Nothing has run.") from error
        if dag.get("is_stale"):
            raise BackendStartError(self._no_dag("its file is gone"))
        if dag["is_paused"]:
            raise BackendStartError(
                f"The DAG {self._site.dag_id} is paused on {self._site.base_url}, so calls would "
                f"wait for ever. Switch it on there, or: airflow dags unpause {self._site.dag_id}"
            )

    def _check_version(self) -> None:
        answer = self._send("GET", "/api/v2/version")
        told = _json(answer) if answer.status_code == 200 else None
        if not isinstance(told, dict) or "version" not in told:
            raise BackendStartError(
                f"What answers at {self._site.base_url} is not the REST API of Airflow 3 "
                f"(/api/v2/version gives {answer.status_code}). base_url is the address of its web "
                "page, such as 'http://localhost:8080'; Airflow 2 will not do."
            )

    def dag(self) -> Mapping[str, Any]:
        """Read what Airflow knows of the DAG: `is_paused` and more."""
        dag: Mapping[str, Any] = self._ask("read the DAG", "GET", self._dag())
        return dag

    def scheduler_state(self) -> str:
        """Say how Airflow's own scheduler is: "healthy", "unhealthy", or "unknown"."""
        health = self._ask("read its health", "GET", "/api/v2/monitor/health")
        return str((health.get("scheduler") or {}).get("status") or "unknown")

    def start_run(self, run_id: str, conf: Mapping[str, Any]) -> None:
        """Start a run of the DAG; to say the same twice starts one."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self._ask("start a run", "POST", f"{self._dag()}/dagRuns", body, fine=(409,))

    def fail_run(self, run_id: str) -> None:
        """Mark a run as failed: what has not begun never will, what runs ends at its heartbeat."""
        path = f"{self._dag()}/dagRuns/{quote(run_id, safe='')}"
        self._ask("end a run", "PATCH", path, {"state": "failed"}, fine=(404,))

    def active_tasks(self, prefix: str) -> list[TaskState]:
        """Tell of the tasks that wait or run, of runs whose names begin so, and maybe of others.

        By GET, though POST could name each run: Airflow notes every POST in its audit log.
        """
        asked = {"state": _ACTIVE, "run_id_prefix_pattern": prefix, "order_by": "id"}
        path, told = f"{self._dag()}/dagRuns/~/taskInstances", list[TaskState]()
        while True:
            query = urlencode({**asked, "limit": _PAGE, "offset": len(told)}, doseq=True)
            page = self._ask("see runs", "GET", f"{path}?{query}")
            told += map(_task_state, page["task_instances"])
            if len(told) >= page["total_entries"] or not page["task_instances"]:
                return told

    def task(self, run_id: str) -> TaskState | None:
        """Tell of the task of one run, ended or not; None: it is not there any more."""
        told = self._ask("see runs", "GET", self._task(run_id), fine=(404,))
        return _task_state(told) if "state" in told else None

    def answer(self, run_id: str) -> Any:
        """Return what a run's task left as XCom; None: nothing."""
        path = f"{self._task(run_id)}/xcomEntries/return_value"
        told = self._ask("read results", "GET", path, fine=(404,))
        return told.get("value")

    def log_url(self, run_id: str) -> str:
        """Say where a person finds the log of a run's task."""
        where = f"dags/{self._site.dag_id}/runs/{quote(run_id, safe='')}/tasks/{TASK_ID}"
        return f"{self._site.base_url}/{where}"

    def _dag(self) -> str:
        return f"/api/v2/dags/{quote(self._site.dag_id, safe='')}"

    def _task(self, run_id: str) -> str:
        return f"{self._dag()}/dagRuns/{quote(run_id, safe='')}/taskInstances/{TASK_ID}"

    # ---------------------------------------------------------------- asking

    def _ask(
        self, what: str, method: str, path: str, body: Any = None, fine: Collection[int] = ()
    ) -> Any:
        """Ask for JSON, with a token; a status of `fine` is as good as success."""
        if self._token is None:
            self._renew(None)
        token = self._token
        answer = self._send(method, path, body, token)
        if _is_stranger(answer):
            self._renew(token)
            answer = self._send(method, path, body, self._token)
        if answer.is_success or answer.status_code in fine:
            return _json(answer) if answer.content else {}
        raise self._refused(what, answer)

    def _send(
        self, method: str, path: str, body: Any = None, token: str | None = None
    ) -> httpx.Response:
        """Send one request; whatever is answered shows that somebody is there."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = self._http.request(method, path, json=body, headers=headers)
        except self._transport_error as error:
            silent_s = self._silent_s(method, path)
            raise self._silence(silent_s, f"{type(error).__name__}: {error}") from error
        if answer.status_code in _BUSY:
            raise self._silence(self._silent_s(method, path), f"it gives {answer.status_code}")
        if answer.status_code == _FAULT and self._silent_s(method, path) < self._site.lost_after_s:
            raise Unreachable(f"Airflow could not do it: {_detail(answer)}.")
        self._silent_since.pop((method, path), None)
        return answer

    def _silent_s(self, method: str, path: str) -> float:
        """Say for how long this request has had no answer, this time included."""
        now = time.monotonic()
        return now - self._silent_since.setdefault((method, path), now)

    def _silence(self, silent_s: float, why: str) -> BackendError:
        if silent_s < self._site.lost_after_s:
            return Unreachable(
                f"Airflow does not answer at {self._site.base_url}: {why}. Is the address right, "
                "and does its API server run?"
            )
        return BackendLostError(
            f"Airflow has not answered at {self._site.base_url} for {silent_s:.0f} s: {why}. "
            "Calls under way are lost to this notebook, though Airflow may go on running them."
        )

    def _refused(self, what: str, answer: httpx.Response) -> BackendError:
        status, site = answer.status_code, self._site
        detail = _detail(answer)
        if _is_stranger(answer):
            return BackendError(f"Airflow does not accept the token ({detail}). Check auth=.")
        if status == 403:
            return BackendError(
                f"Airflow does not let this user {what} ({detail}). It needs to see the DAG "
                f"{site.dag_id}, its runs, task instances and XComs, and to start and change runs."
            )
        if status == 404:
            return BackendError(self._no_dag(detail))
        return BackendError(f"Airflow would not {what}: {status}, {detail}.")

    def _no_dag(self, detail: str) -> str:
        return (
            f"Airflow at {self._site.base_url} has no DAG {self._site.dag_id} ({detail}). Put it "
            "there: python -m amltk_nb.airflow_dag DAGS_FOLDER; Airflow may need minutes to find "
            "it. If it is there, `airflow dags list-import-errors` says what is wrong with it."
        )

    # ---------------------------------------------------------------- tokens

    def _renew(self, former: str | None) -> None:
        """Get a token, unless another thread just did."""
        with self._renewing:
            if self._token == former:
                self._token = self._new_token()

    def _new_token(self) -> str:
        auth = self._site.auth
        if isinstance(auth, str):
            return auth
        if callable(auth):
            return _own_token(auth)
        body = None if auth is None else {"username": auth[0], "password": auth[1]}
        answer = self._send("GET" if auth is None else "POST", "/auth/token", body)
        told = _json(answer) if answer.is_success else {}
        if isinstance(told, dict) and told.get("access_token"):
            return str(told["access_token"])
        raise BackendError(_no_token(auth, answer))


def require_httpx() -> None:
    """See that what speaks HTTP is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("httpx") is None:  # to import it takes time; that is for the run's own thread
        raise MissingExtraError(
            "Calls on Airflow need httpx, which is not installed: pip install 'amltk-nb[airflow]'."
        )


def _task_state(told: Mapping[str, Any]) -> TaskState:
    return TaskState(told["dag_run_id"], told["state"], told.get("hostname"), told.get("pid"))


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise BackendError(
            f"What answers at {answer.url} does not speak as Airflow does "
            f"({answer.headers.get('content-type', 'no content type')}); a proxy or a login page "
            "may be in between."
        ) from error


def _is_stranger(answer: httpx.Response) -> bool:
    """Whether the token is at fault, and not what its user may do: of old ones and wrong ones."""
    return answer.status_code == 401 or (
        answer.status_code == 403 and "token" in _detail(answer).lower()
    )


def _detail(answer: httpx.Response) -> str:
    """Read why Airflow refused, in one short line."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text or answer.reason_phrase
    return " ".join(str(detail).split())[:300].rstrip(".")


def _own_token(auth: Callable[[], str]) -> str:
    try:
        token = auth()
    except Exception as error:
        raise BackendError(f"auth= could not get a token: {error!r}.") from error
    if not isinstance(token, str):
        raise BackendError(f"auth= returned {type(token).__name__}, and a token is a str.")
    return token


def _no_token(auth: Auth, answer: httpx.Response) -> str:
    said = f"/auth/token gives {answer.status_code}, {_detail(answer)}"
    if auth is None:
        return f"Airflow wants to know who asks ({said}). Pass auth=(user, password) or a token."
    return f"Airflow does not accept the user and password of auth= ({said})."
