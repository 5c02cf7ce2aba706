"""The DAG of Airflow that runs calls of amltk_nb; a copy of this file lies in a folder of DAGs.

`python -m amltk_nb.airflow_dag DAGS_FOLDER` puts it there. Each run of the DAG is one call: the
run's configuration has the pickled function and arguments, the task's XCom has the answer. The
workers need the Python of the notebook and cloudpickle; they do not need amltk_nb.

Who can trigger this DAG runs code of their own on the workers. With AMLTK_NB_AIRFLOW_SECRET in
the workers' environment only calls are run that were signed with the same secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import pickle
import signal
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["DAG_ID", "FORMAT", "SECRET_NAME", "TASK_ID", "VERSION", "run_signed", "signature"]

DAG_ID = "amltk_nb_call"
TASK_ID = "run"
FORMAT = 1  # of what travels; both sides must have the same
VERSION = 1  # of this file, to know an older copy; count up with every change
SECRET_NAME = "AMLTK_NB_AIRFLOW_SECRET"


class _RefusedError(Exception):
    """The call is not run; the text says why, and goes to the notebook."""


def signature(key: bytes, kind: str, run_id: str, body: bytes) -> str:
    """Sign what travels: for this run of the DAG, and for one direction, only.

    Args:
        key: a secret of both sides.
        kind: "call" or "answer".
        run_id: of the DAG's run.
        body: what is signed.
    """
    said = b"\0".join((kind.encode(), run_id.encode(), body))
    return hmac.new(key, said, hashlib.sha256).hexdigest()


def run_signed(conf: Mapping[str, Any], run_id: str, secret: str | None = None) -> dict[str, Any]:
    """Run one call, if its signature is right.

    Args:
        conf: of the DAG's run: `format`, `python`, `call`, `signature`, `max_bytes`, and `key` if
            the notebook has no secret.
        run_id: of the DAG's run.
        secret: of the workers.

    Returns:
        What the task leaves as XCom: `format`, and either `answer` with its `signature`, or
        `refused`, a text.
    """
    try:
        _check_versions(conf)
        key = _key(conf, secret)
        answer = _answer(_checked_body(conf, run_id, key))
        _check_size(answer, conf)
    except _RefusedError as why:
        return {"format": FORMAT, "refused": str(why)}
    told = base64.b64encode(answer).decode()
    return {"format": FORMAT, "answer": told, "signature": signature(key, "answer", run_id, answer)}


def _check_versions(conf: Mapping[str, Any]) -> None:
    if conf.get("format") != FORMAT:
        raise _RefusedError(
            f"The DAG on this Airflow reads format {FORMAT}, and the notebook sent "
            f"{conf.get('format')!r}. Bring the older side up to date; for the DAG: "
            "python -m amltk_nb.airflow_dag DAGS_FOLDER."
        )
    here = "{}.{}".format(*sys.version_info[:2])
    if conf.get("python") != here:
        raise _RefusedError(
            f"The workers of this Airflow run Python {here}, and the notebook runs Python "
            f"{conf.get('python')}. Functions only travel between equal versions."
        )


def _key(conf: Mapping[str, Any], secret: str | None) -> bytes:
    if secret:
        if "key" in conf:
            raise _RefusedError(
                "This Airflow only runs calls that are signed with its secret. Pass it as "
                f"secret=, or set {SECRET_NAME} where the notebook runs."
            )
        return secret.encode()
    if "key" not in conf:
        raise _RefusedError(
            "The call is signed with a secret that the workers of this Airflow do not have: set "
            f"{SECRET_NAME} in their environment."
        )
    return bytes.fromhex(conf["key"])


def _checked_body(conf: Mapping[str, Any], run_id: str, key: bytes) -> bytes:
    body = base64.b64decode(conf["call"])
    if not hmac.compare_digest(signature(key, "call", run_id, body), str(conf["signature"])):
        raise _RefusedError(
            "The signature of the call is wrong, so it was not run. The secrets of the notebook "
            "and of the workers differ, or somebody has changed the call on its way."
        )
    return body


def _answer(body: bytes) -> bytes:
    try:
        run, packed = pickle.loads(body)
    except Exception as error:
        raise _RefusedError(
            f"A worker of Airflow could not begin the call: {type(error).__name__}: {error}. It "
            "needs cloudpickle, of a version near to the notebook's: pip install cloudpickle."
        ) from error
    return bytes(run(packed))


def _check_size(answer: bytes, conf: Mapping[str, Any]) -> None:
    if len(answer) > int(conf["max_bytes"]):
        raise _RefusedError(
            f"The result has {len(answer):,} bytes, and max_bytes is {int(conf['max_bytes']):,}: "
            "results are kept in Airflow's database. Write it to a file or an object store from "
            "within the function, and return its name."
        )


def _made_dag() -> Any:
    from airflow.sdk import dag, task

    def run(dag_run: Any = None, ti: Any = None) -> dict[str, Any]:
        # Else Airflow's own handler lets the call run on for another 5 s until it is killed.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        told = run_signed(dag_run.conf, dag_run.run_id, os.environ.get(SECRET_NAME))
        if "refused" in told:
            ti.xcom_push("return_value", told)
            raise RuntimeError(told["refused"])
        return told

    def amltk_nb_call() -> None:
        task(task_id=TASK_ID, retries=0)(run)()  # once; whether again is for the notebook

    return dag(
        DAG_ID,
        schedule=None,
        catchup=False,
        max_active_runs=1000,  # max_active of the notebook bounds them; 0 would start none
        is_paused_upon_creation=False,
        tags=["amltk_nb"],
        doc_md=__doc__,
    )(amltk_nb_call)()


if not __name__.startswith("amltk_nb."):  # the package has this file too, and needs no Airflow
    amltk_nb_call = _made_dag()
