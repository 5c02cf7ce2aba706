"""Calls as runs of one DAG of Airflow, which `python -m amltk_nb.airflow_dag` puts there.

For calls of minutes: Airflow takes about a second to begin one. All that is known of calls under
way is asked for in one request, again and again. What travels is signed both ways, because a
pickle is code: with a secret that the notebook and Airflow's workers have, or else with a key that
travels along, which only shows that an answer belongs to its call.
"""

from __future__ import annotations

import base64
import os
import pickle
import secrets
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from amltk_nb.errors import (
    BackendError,
    BackendLostError,
    CannotEndError,
    NotPicklableError,
    WorkerDiedError,
)
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.executors.airflow_call import DAG_ID, FORMAT, SECRET_NAME, signature
from amltk_nb.scheduling.executors.airflow_rest import (
    AirflowApi,
    Auth,
    Site,
    TaskState,
    Unreachable,
    require_httpx,
)
from amltk_nb.scheduling.executors.cpus import checked_workers
from amltk_nb.scheduling.executors.remote import (
    Connection,
    Done,
    Handle,
    News,
    RemoteBackend,
    RemoteWorker,
)
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["AirflowBackend"]

_ENDED = {"success", "failed", "skipped", "removed", "upstream_failed"}
_LOOK_S = 1.0  # how long what is known of the DAG counts
_JOIN_S = 20.0  # more than a request may take, usually
_MIN_SECRET = 16  # characters


class AirflowBackend(RemoteBackend):
    """Runs calls on an Airflow that somebody has started."""

    name = "AirflowExecutor"
    poll_s = 2.0  # how often to ask whether the DAG is on and Airflow's scheduler lives

    def __init__(
        self,
        base_url: str,
        dag_id: str = DAG_ID,
        auth: Auth = None,
        *,
        secret: str | None = None,
        max_active: int = 16,
        max_bytes: int = 4 * 2**20,
        poll: float = 0.5,
        request_timeout: float = 10.0,
        lost_after: float = 60.0,
        no_workers_after: float = 30.0,
        verify: Any = True,
    ) -> None:
        """Choose an Airflow; nothing is asked yet. See `Scheduler.with_airflow`.

        Raises:
            ValueError, TypeError: an argument that makes no sense.
            MissingExtraError: httpx is not installed.
        """
        require_httpx()
        times = {"poll": poll, "request_timeout": request_timeout, "lost_after": lost_after}
        for name, seconds in times.items():
            if not seconds > 0:
                raise ValueError(f"{name}={seconds!r} must be positive: seconds, such as 0.5.")
        self._site = Site(
            _checked_url(base_url),
            dag_id,
            _checked_auth(auth),
            timeout_s=request_timeout,
            lost_after_s=lost_after,
            verify=verify,
        )
        self._secret = _checked_secret(secret)
        self._n_most = checked_workers(max_active) or 1
        self._max_bytes = max_bytes
        self._ask_every_s = poll
        super().__init__(
            options={
                "base_url": self._site.base_url,
                "dag_id": dag_id,
                "max_active": self._n_most,
            },
            no_workers_after_s=no_workers_after,
        )

    def prepare(self, call: Call) -> None:
        """Pickle the function and the arguments, and see that they fit.

        Raises:
            NotPicklableError: they cannot travel, or are too large.
        """
        super().prepare(call)
        if len(call.payload) > self._max_bytes:
            raise NotPicklableError(
                f"the arguments of {call.describe()}() have {len(call.payload):,} bytes, and "
                f"max_bytes is {self._max_bytes:,}: Airflow keeps them in its database. Put them "
                "into a file or an object store that its workers can read, and pass the name."
            )

    def connect(self, news: News) -> Connection:
        """See that Airflow and the DAG are there.

        Raises:
            BackendStartError: they are not, or may not be used.
        """
        api = AirflowApi(self._site)
        try:
            api.check()
        except BaseException:
            api.close()
            raise
        post = _Post(self._secret, self._max_bytes)
        return _AirflowConnection(api, post, news, self._n_most, self._ask_every_s)


class _Post:
    """What goes to Airflow and comes from there, signed."""

    def __init__(self, secret: str | None, max_bytes: int) -> None:
        self._own_key = secrets.token_bytes(32) if secret is None else None
        self._key = self._own_key or str(secret).encode()
        self._max_bytes = max_bytes
        self._run = Portable(run_call)

    def conf(self, run_id: str, packed: bytes) -> dict[str, Any]:
        """Make the configuration of a run of the DAG."""
        body = pickle.dumps((self._run, packed))
        conf = {
            "format": FORMAT,
            "python": "{}.{}".format(*sys.version_info[:2]),
            "call": base64.b64encode(body).decode(),
            "signature": signature(self._key, "call", run_id, body),
            "max_bytes": self._max_bytes,
        }
        return conf if self._own_key is None else {**conf, "key": self._own_key.hex()}

    def opened(self, run_id: str, told: Any) -> bytes | BackendError:
        """Take out the answer; nothing is unpickled that is not signed."""
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            return BackendError(
                "What Airflow has as the result of the call is not from the DAG of this version. "
                "Bring the DAG up to date: python -m amltk_nb.airflow_dag DAGS_FOLDER."
            )
        if "refused" in told:
            return BackendError(str(told["refused"]))
        try:
            answer = base64.b64decode(told["answer"])
            is_signed = compare_digest(
                signature(self._key, "answer", run_id, answer), told["signature"]
            )
        except (KeyError, TypeError, ValueError):
            is_signed = False
        if not is_signed:
            return BackendError(
                "The result of the call does not carry the right signature, so it was not opened: "
                "somebody has changed it in Airflow. Look who may write XComs of this DAG."
            )
        return answer


@dataclass(slots=True)
class _Given:
    """A call that Airflow has."""

    done: Done
    state: TaskState | None = None  # as told last


class _AirflowConnection(Connection):
    """One run's calls on Airflow; a thread of its own asks how they are."""

    def __init__(
        self, api: AirflowApi, post: _Post, news: News, n_most: int, ask_every_s: float
    ) -> None:
        self._api = api
        self._post = post
        self._news = news
        self._n_most = n_most
        self._ask_every_s = ask_every_s
        self._prefix = f"amltk_nb__{secrets.token_hex(8)}"
        self._n_submitted = 0
        self._given: dict[str, _Given] = {}
        self._in_doubt: set[str] = set()  # runs of which it is not known whether Airflow has them
        self._trouble: str | None = None  # why nothing would be run now
        self._looked_at = -_LOOK_S
        self._is_over = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._ask_on, name="amltk-nb-AirflowExecutor polls", daemon=True
        )
        self._thread.start()

    # ---------------------------------------------------------------- a connection's part

    def submit(self, packed: bytes, done: Done) -> Handle:
        self._n_submitted += 1
        run_id = f"{self._prefix}__{self._n_submitted}"
        conf = self._post.conf(run_id, packed)
        self._in_doubt.add(run_id)
        # The name of the run is ours, so that a request whose answer was lost can be repeated.
        try:
            self._insist(lambda: self._api.start_run(run_id, conf))
        except (Unreachable, BackendLostError):
            raise
        except BackendError:
            self._in_doubt.discard(run_id)
            raise
        with self._changed:
            self._in_doubt.discard(run_id)
            self._given[run_id] = _Given(done)
            self._changed.notify_all()
        return run_id

    def workers(self) -> Sequence[RemoteWorker]:
        with suppress(Unreachable):  # as before then; whoever asks next may find it lost
            self._look()
        with self._changed:
            states = [given.state for given in self._given.values()]
        running = [_worker(state) for state in states if state is not None and state.is_running]
        n_free = self._n_most - len(running)
        if self._trouble is not None or n_free <= 0:
            return running
        return [*running, RemoteWorker("airflow", n_free, running=self._waiting())]

    def _waiting(self) -> tuple[str, ...]:
        with self._changed:
            given = tuple(self._given.items())
        return tuple(run for run, each in given if not (each.state and each.state.is_running))

    def n_jobs_waiting(self) -> int:
        return len(self._waiting())

    def kill(self, handle: Handle) -> None:
        try:
            self._insist(lambda: self._api.fail_run(str(handle)))
        except BackendError as error:
            raise CannotEndError(f"Airflow does not end it: {error}") from error
        self._forget(str(handle))

    def disconnect(self, running: Collection[Handle]) -> None:
        with self._changed:
            given_up = {*map(str, running), *self._given, *self._in_doubt}
            self._given.clear()
            self._is_over = True
            self._changed.notify_all()
        try:
            self._fail_all(given_up)
        finally:
            self._thread.join(_JOIN_S)
            self._api.close()

    def _fail_all(self, run_ids: Collection[str]) -> None:
        """End runs, several at a time; after an error no more are tried."""
        if not run_ids:
            return
        threads = ThreadPoolExecutor(4, thread_name_prefix="amltk-nb-AirflowExecutor ends")
        try:
            for ended in [threads.submit(self._api.fail_run, run_id) for run_id in run_ids]:
                ended.result()
        finally:
            threads.shutdown(cancel_futures=True)

    # ---------------------------------------------------------------- asking

    def _insist(self, ask: Callable[[], None]) -> None:
        """Ask until there is an answer, Airflow counts as lost, or the run ends."""
        while True:
            try:
                return ask()
            except Unreachable:
                if self._news.closing.wait(self._ask_every_s):
                    raise

    def _look(self) -> None:
        """See whether calls would be run now, and say once why not."""
        if time.monotonic() - self._looked_at < _LOOK_S:
            return
        trouble = self._found_trouble()
        self._looked_at = time.monotonic()
        if trouble is not None and trouble != self._trouble:
            self._news.log("warning", trouble)
        self._trouble = trouble

    def _found_trouble(self) -> str | None:
        dag = self._api.dag()
        if dag["is_paused"]:
            return f"the DAG {dag['dag_id']} was paused in Airflow; calls wait until it is on again"
        if self._api.scheduler_state() == "unhealthy":
            return "Airflow's scheduler does not run (`airflow scheduler`); calls wait for it"
        return None

    def _ask_on(self) -> None:
        """Ask how calls are, as long as there are any and the run goes on."""
        while not (self._is_over or self._news.closing.is_set()):
            with self._changed:
                ids = list(self._given)
                if not ids:
                    self._changed.wait(self._ask_every_s)
                    continue
            try:
                self._take_in(ids, self._api.task_states(ids))
            except Unreachable:
                pass  # it may be back at the next turn
            except BackendError as error:
                self._news.lost(_lost(error))
                return
            self._news.closing.wait(self._ask_every_s)

    def _take_in(self, asked: Collection[str], states: Collection[TaskState]) -> None:
        with self._changed:
            known = {run_id: given for run_id in asked if (given := self._given.get(run_id))}
            before = [given.state for given in known.values()]
            for state in states:
                if state.run_id in known:
                    known[state.run_id].state = state
            changed = before != [given.state for given in known.values()]
        gone = known.keys() - {state.run_id for state in states}
        for run_id in gone:
            self._end(run_id, BackendError(_GONE))
        for state in states:
            if state.state in _ENDED and state.run_id in known:
                self._end(state.run_id, self._outcome(state))
        if changed:
            self._news.changed()

    def _outcome(self, state: TaskState) -> bytes | BaseException:
        """Make of the end of a run's task what the family understands."""
        if state.state in ("skipped", "upstream_failed", "removed"):
            return CancelledError()  # it was marked as failed in Airflow before it began
        try:
            told = self._api.answer(state.run_id)
        except (Unreachable, BackendLostError):
            raise
        except BackendError as error:
            return error
        if told is not None:
            return self._post.opened(state.run_id, told)
        log = f"Its log: {self._api.log_url(state.run_id)}"
        if not state.host:
            return BackendError(f"Airflow could not start the task of this call. {log}")
        return WorkerDiedError(
            f"Airflow: the task on {state.host} ended without an answer. Its process was killed, "
            "often for want of memory, or crashed in compiled code, or somebody marked it as "
            f"failed in Airflow. The call was not tried again; the Retry plugin does that. {log}"
        )

    def _end(self, run_id: str, answer: bytes | BaseException) -> None:
        given = self._forget(run_id)
        if given is not None:
            given.done(answer)

    def _forget(self, run_id: str) -> _Given | None:
        with self._changed:
            return self._given.pop(run_id, None)


_GONE = "The run of this call is not in Airflow any more: somebody has deleted it there."


def _worker(state: TaskState) -> RemoteWorker:
    host = state.host or "unknown"
    name = f"{host}:{state.pid}" if state.pid else host
    return RemoteWorker(name, where=host, pid=state.pid, running=(state.run_id,))


def _lost(error: BackendError) -> BackendError:
    if isinstance(error, BackendLostError):
        return error
    lost = BackendLostError(f"Airflow does not tell any more how the calls are. {error}")
    lost.__cause__ = error
    return lost


# --- what was asked for -----------------------------------------------------------------------


def _checked_url(base_url: str) -> str:
    parts = urlsplit(base_url) if isinstance(base_url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"base_url={base_url!r} must be the address of Airflow's web page, such as "
            "'http://localhost:8080'."
        )
    if parts.username or parts.query or parts.fragment:
        raise ValueError(
            "base_url= is shown in the views, so it must be an address only: pass the user and "
            "the password as auth=(user, password), and leave out what follows ? and #."
        )
    return base_url.rstrip("/").removesuffix("/api/v2")


def _checked_auth(auth: Auth) -> Auth:
    is_pair = isinstance(auth, tuple) and [type(part) for part in auth] == [str, str]
    if auth is None or isinstance(auth, str) or is_pair or callable(auth):
        return auth
    raise TypeError(
        f"auth= is a {type(auth).__name__}; pass a token, (user, password), or a function without "
        "arguments that returns a token."
    )


def _checked_secret(secret: str | None) -> str | None:
    secret = secret or os.environ.get(SECRET_NAME) or None
    if secret is not None and len(secret) < _MIN_SECRET:
        raise ValueError(
            f"secret= has {len(secret)} characters; {_MIN_SECRET} at least make it hard to guess: "
            "python -c 'import secrets; print(secrets.token_hex(32))'."
        )
    return secret
