"""A scheduler's public face with a log of what was asked of it, and a comm that keeps messages."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from comm.base_comm import BaseComm

from amltk_nb.errors import CallNotFoundError, CannotEndError
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.snapshot import (
    BackendRecord,
    CallbackRecord,
    CallRecord,
    EventRecord,
    LogRecord,
    PluginRecord,
    RunRecord,
    Snapshot,
    TaskRecord,
    WorkerRecord,
)
from amltk_nb.scheduling.states import CallState, RunState


def call_record(id: int = 1, state: CallState = CallState.DONE, **fields: Any) -> CallRecord:
    known = {"task": "Task-f-1", "function": "f", "args": str(id), "submitted_at": 1000.0 + id}
    return CallRecord(id=id, state=state, **{**known, **fields})


def snapshot(**fields: Any) -> Snapshot:
    callback = CallbackRecord(
        text="def record(r: int) -> None", name="record", n_calls=2, cell="[3]"
    )
    events = (EventRecord(name="on_start", count=1), EventRecord(name="on_stop"))
    own = (EventRecord(name="on_result", count=2, callbacks=(callback,)),)
    plugin = PluginRecord(name="limiter", state={"calls": "3/10", "concurrent": "2/2"})
    known: dict[str, Any] = {
        "version": 1,
        "name": "demo",
        "run": RunRecord(state=RunState.RUNNING, n=1, started_at=1000.0),
        "backend": BackendRecord(name="ProcessExecutor", options={"max_workers": 2}, n_workers=2),
        "counts": dict.fromkeys(CallState, 0) | {CallState.DONE: 2, CallState.RUNNING: 1},
        "events": events,
        "tasks": (
            TaskRecord(
                ref="Task-f-1",
                function="f",
                signature="f(x: int) -> int",
                events=own,
                plugins=(plugin,),
                counts={CallState.DONE: 2},
            ),
        ),
        "calls": (
            call_record(3, CallState.RUNNING, started_at=1004.0, worker="worker-1"),
            call_record(2, ended_at=1003.0, seconds=0.5),
            call_record(1, ended_at=1002.0, seconds=0.25),
        ),
        "workers": (WorkerRecord(name="worker-1", state="busy", pid=41, call=3),),
        "log": (LogRecord(id=7, at=1001.0, source="scheduler", level="info", text="started"),),
        "now": 1005.0,
    }
    return Snapshot(**{**known, **fields})


class StandInScheduler:
    """Has the methods that a user would call, and writes down each call of them."""

    def __init__(self, *calls: Call, shown: Snapshot | None = None) -> None:
        self.name = "demo"
        self.asked: list[tuple[Any, ...]] = []
        self.threads: list[int] = []
        self.observers: list[Any] = []
        self.shown = shown or snapshot()
        self.n_snapshots = 0
        self.known = {call.id: call for call in calls}

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        self.threads.append(threading.get_ident())

    def snapshot(self) -> Snapshot:
        self.n_snapshots += 1
        return self.shown

    def show(self, **fields: Any) -> None:
        """Look different from now on, and tell the observers."""
        self.shown = replace(self.shown, **fields)
        for observer in self.observers:
            observer.changed()

    def observe(self, observer: Any) -> None:
        self.observers.append(observer)

    def unobserve(self, observer: Any) -> None:
        self.observers.remove(observer)

    def start(self, **options: Any) -> None:
        self._ask("start", options)

    def pause(self) -> None:
        self._ask("pause")

    def resume(self) -> None:
        self._ask("resume")

    def stop(self, wait: bool | None = None) -> None:
        self._ask("stop", wait)

    def restart_workers(self) -> None:
        self._ask("restart_workers")

    def cancel(self, call: Call) -> bool:
        self._ask("cancel", call.id)
        if call.worker == "a thread":
            raise CannotEndError("threads cannot be ended; wait for it.")
        return not call.ended

    def accept(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, task: Any, origin: Call
    ) -> Future[Any]:
        self._ask("accept", args, kwargs)
        future: Future[Any] = Future.__new__(Future)
        future.call = Call(100 + origin.id, fn, args, kwargs, task=task)
        return future

    def resubmit(self, call: Call) -> Future[Any]:
        self._ask("resubmit", call.id)
        future: Future[Any] = Future.__new__(Future)  # only its call is looked at, so no loop
        future.call = Call(100 + call.id, call.fn, call.args, call.kwargs)
        return future

    def find_call(self, id: int) -> Call:
        if id not in self.known:
            raise CallNotFoundError(f"There is no call {id}; it may have left the history.")
        return self.known[id]

    def failed_calls(self) -> list[Call]:
        return [call for call in self.known.values() if call.state == CallState.FAILED]

    def resubmit_failed(self) -> list[Any]:
        again = [self.resubmit(call) for call in self.failed_calls()]
        return [future for future in again if future is not None]

    def calls(
        self, state: CallState | None = None, before: int | None = None, limit: int = 200
    ) -> list[CallRecord]:
        self._ask("calls", state, before, limit)
        first = 10_000 if before is None else before
        return [call_record(id, state or CallState.DONE) for id in range(first - 1, 0, -1)][:limit]


class RecordingComm(BaseComm):
    """A comm as kernels make them, whose outgoing messages stay here."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.threads: list[int] = []
        self.arrived = threading.Condition()
        super().__init__(*args, **keys)

    def publish_msg(self, msg_type: str, data: Any = None, **rest: Any) -> None:
        with self.arrived:
            self.messages.append((msg_type, data))
            self.threads.append(threading.get_ident())
            self.arrived.notify_all()

    def custom(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages of ours of one kind, in order."""
        contents = [d["content"] for t, d in self.messages if t == "comm_msg" and "content" in d]
        return [content for content in contents if content.get("kind") == kind]

    def click(self, name: str, id: int = 1, **args: Any) -> None:
        """Deliver a command as a kernel would, on this thread."""
        content = {"kind": "command", "id": id, "name": name, "args": args}
        data = {"method": "custom", "content": content}
        self.handle_msg({"content": {"data": data}, "buffers": []})
