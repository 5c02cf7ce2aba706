"""One run's calls on Airflow: what travels, and the thread that asks how they are.

All that is known of calls under way is asked for in one request, again and again. What travels is
signed both ways, because a pickle is code: with a secret that the notebook and Airflow's workers
have, or else with a key that travels along, which only shows that an answer belongs to its call.
"""

from __future__ import annotations

import base64
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

from amltk_nb.errors import BackendError, BackendLostError, CannotEndError, WorkerDiedError
from amltk_nb.scheduling.executors.airflow_call import FORMAT, signature
from amltk_nb.scheduling.executors.airflow_rest import AirflowApi, TaskState, Unreachable
from amltk_nb.scheduling.executors.remote import Connection, Done, Handle, News, RemoteWorker
from amltk_nb.scheduling.remote_call import Portable, run_call

__all__ = ["AirflowConnection", "Post"]

_NEVER_BEGAN = {"skipped", "removed", "upstream_failed"}
_LOOK_S = 1.0  # how long what is known of the DAG counts
_JOIN_S = 20.0  # more than a request may take, usually


class Post:
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


class AirflowConnection(Connection):
    """One run's calls on Airflow; a thread of its own asks how they are."""

    def __init__(
        self, api: AirflowApi, post: Post, news: News, n_most: int, ask_every_s: float
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
        """Start a run of the DAG; see `Connection.submit`."""
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
        """Show each running task as a worker, and the room that is left; see `Connection`."""
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
        """Count the calls that Airflow has and has not begun."""
        return len(self._waiting())

    def kill(self, handle: Handle) -> None:
        """Have a run fail: one that waits never begins, one that runs ends at its heartbeat.

        Airflow does not tell when that was, so this returns before.
        """
        try:
            self._insist(lambda: self._api.fail_run(str(handle)))
        except BackendError as error:
            raise CannotEndError(f"Airflow does not end it: {error}") from error
        self._forget(str(handle))

    def disconnect(self, running: Collection[Handle]) -> None:
        """End what was given up, and what may be in Airflow unknown to anybody."""
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
                self._take_in(ids, self._api.active_tasks(self._prefix))
            except Unreachable:
                pass  # it may be back at the next turn
            except Exception as error:  # of an answer unlike any of Airflow's, as well
                self._news.lost(_lost(error))
                return
            self._news.closing.wait(self._ask_every_s)

    def _take_in(self, asked: Collection[str], active: Collection[TaskState]) -> None:
        """Note what waits and what runs; of the rest, take in what became of it."""
        told = {state.run_id: state for state in active}
        with self._changed:
            known = {run_id: given for run_id in asked if (given := self._given.get(run_id))}
            changed = {r: told[r] for r in known if r in told and told[r] != known[r].state}
            for run_id, state in changed.items():
                known[run_id].state = state
        for run_id in known.keys() - told.keys():
            with suppress(Unreachable):  # it is asked for again at the next turn
                self._take_end(run_id)
        if changed:
            self._news.changed()

    def _take_end(self, run_id: str) -> None:
        answer = self._answer(run_id)
        given = self._forget(run_id) if answer is not None else None
        if given is not None and answer is not None:
            given.done(answer)

    def _answer(self, run_id: str) -> bytes | BaseException | None:
        """Find out what became of a call; None: it has not ended after all."""
        try:
            told = self._api.answer(run_id)
            task = self._api.task(run_id) if told is None else None
        except (Unreachable, BackendLostError):
            raise
        except BackendError as error:
            return error
        if told is not None:
            return self._post.opened(run_id, told)
        if task is None:
            return BackendError(_GONE)
        return self._failure(task)

    def _failure(self, task: TaskState) -> BaseException | None:
        """Say why a task left no answer; None: it may still."""
        log = f"Its log: {self._api.log_url(task.run_id)}"
        if task.state in _NEVER_BEGAN:
            return CancelledError()  # it was marked as failed in Airflow while it waited
        if task.state not in ("success", "failed"):
            return None
        if not task.host:
            return BackendError(f"Airflow could not start the task of this call. {log}")
        return WorkerDiedError(
            f"Airflow: the task on {task.host} ended without an answer. Its process was killed, "
            "often for want of memory, or crashed in compiled code, or somebody marked it as "
            f"failed in Airflow. The call was not tried again; the Retry plugin does that. {log}"
        )

    def _forget(self, run_id: str) -> _Given | None:
        with self._changed:
            return self._given.pop(run_id, None)


_GONE = "The run of this call is not in Airflow any more: somebody has deleted it there."


def _worker(state: TaskState) -> RemoteWorker:
    host = state.host or "unknown"
    name = f"{host}:{state.pid}" if state.pid else host
    return RemoteWorker(name, where=host, pid=state.pid, running=(state.run_id,))


def _lost(error: Exception) -> BackendLostError:
    if isinstance(error, BackendLostError):
        return error
    why = error if isinstance(error, BackendError) else f"Its answer was not understood: {error!r}."
    lost = BackendLostError(f"Airflow does not tell any more how the calls are. {why}")
    lost.__cause__ = error
    return lost
