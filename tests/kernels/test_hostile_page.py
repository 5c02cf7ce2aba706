"""Messages that no page should send, to a real kernel: each is answered once, none does harm."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.kernels.cells import PRELUDE
from tests.kernels.kernel import Kernel
from tests.views.hostile import READING, Forger, is_right, number_of

N_MESSAGES = 400

START = (
    PRELUDE
    + """
from dataclasses import replace

def seen():
    snapshot = scheduler.snapshot()
    return replace(snapshot, now=0.0, run=replace(snapshot.run, elapsed_s=0.0))

scheduler = Scheduler.with_threads(2)
run = scheduler.start()
futures = scheduler.map(double, range(12))
failed = scheduler.submit(double)
await asyncio.wait([*futures, failed])
before = seen()
"""
)


def harmless(message: Any) -> bool:
    return not is_right(message) or message["name"] in READING


def packed(message: Any) -> bytes:
    """Pack as a browser does: lone surrogates are written as escapes. NaN is for good measure."""
    return json.dumps(message, default=str).encode("ascii")


def test_hundreds_of_messages_that_no_page_should_send(
    notebook: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = notebook.run(START)
    notebook.catch_up()
    comm = [c for c in notebook.comms.values() if c.model == "AnyModel"][-1]
    forged = Forger(7).messages(2 * N_MESSAGES, heavy_every=200)
    messages = [message for message in forged if harmless(message)][:N_MESSAGES]
    assert len(messages) == N_MESSAGES
    monkeypatch.setattr(notebook.client.session, "pack", packed)
    n_outputs, n_iopub = len(cell.outputs), len(notebook.iopub)
    sent = [notebook.send(comm, message, wait=False) for message in messages]
    notebook.wait_handled(sent[-1])
    expected = Counter(number_of(message) for message in messages)
    notebook.wait(lambda: len(_replies(comm.custom)) >= N_MESSAGES, "an answer to each")
    assert notebook.run("seen() == before").result == "True"
    answered: Counter[Any] = Counter()
    for reply in _replies(comm.custom):
        answered[reply["id"]] += 1
        assert reply["ok"] is (reply["error"] is None)
    assert answered == expected
    kinds = Counter(message["msg_type"] for message in notebook.iopub[n_iopub:])
    assert kinds["error"] == kinds["stream"] == 0  # no traceback anywhere
    assert len(cell.outputs) == n_outputs
    assert notebook.run("await scheduler.submit(double, 21)").result == "42"


def _replies(custom: list[Any]) -> list[dict[str, Any]]:
    return [content for content in custom if content.get("kind") == "reply"]
