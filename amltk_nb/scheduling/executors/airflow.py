"""Calls as runs of one DAG of Airflow, which `python -m amltk_nb.airflow_dag` puts there.

For calls of minutes: Airflow takes about a second to begin one.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from amltk_nb.errors import NotPicklableError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.executors.airflow_call import DAG_ID, SECRET_NAME
from amltk_nb.scheduling.executors.airflow_connection import AirflowConnection, Post
from amltk_nb.scheduling.executors.airflow_rest import AirflowApi, Auth, Site, require_httpx
from amltk_nb.scheduling.executors.remote import Connection, News, RemoteBackend

__all__ = ["AirflowBackend"]

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
        for name, n in {"max_active": max_active, "max_bytes": max_bytes}.items():
            if type(n) is not int or n < 1:
                raise ValueError(f"{name}={n!r} must be a whole number, 1 at least.")
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
        self._n_most = max_active
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
        post = Post(self._secret, self._max_bytes)
        return AirflowConnection(api, post, news, self._n_most, self._ask_every_s)


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
