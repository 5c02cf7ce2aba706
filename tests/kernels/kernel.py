"""A real kernel in its own process, driven over the wire as a front end drives it."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

__all__ = ["Comm", "Execution", "Kernel"]

Message = dict[str, Any]

MARK = "AMLTK_NB_TEST_KERNEL"  # inherited by all that the kernel starts, so nothing can hide


@dataclass
class Comm:
    """One comm as the page sees it; a widget's state is kept up to date."""

    id: str
    target: str  # "jupyter.widget"
    state: dict[str, Any] = field(default_factory=dict)
    custom: list[Any] = field(default_factory=list)  # contents of custom messages, in order
    closed: bool = False

    @property
    def model(self) -> str:
        """The name of a widget's model: "ButtonModel", "AnyModel"."""
        return str(self.state.get("_model_name", ""))

    def receive(self, data: dict[str, Any]) -> None:
        """Take in the data of one comm_msg from the kernel."""
        if data.get("method") in ("update", "echo_update"):
            self.state.update(data.get("state", {}))
        elif data.get("method") == "custom":
            self.custom.append(data.get("content"))


@dataclass
class Execution:
    """One executed cell; `outputs` keeps growing when something prints into it later."""

    msg_id: str
    reply: dict[str, Any] | None = None  # the content of the reply, once it is there
    outputs: list[dict[str, Any]] = field(default_factory=list)  # type and content, in order
    idle: bool = False

    @property
    def done(self) -> bool:
        """Whether the kernel has replied and says that it is idle again."""
        return self.reply is not None and self.idle

    @property
    def status(self) -> str:
        """ "ok", "error", "aborted", or "" while it runs."""
        return "" if self.reply is None else str(self.reply["status"])

    @property
    def error(self) -> str:
        """The error in one line, "ValueError: bad C"; empty if there is none."""
        if self.status != "error" or self.reply is None:
            return ""
        return f"{self.reply['ename']}: {self.reply['evalue']}"

    @property
    def stdout(self) -> str:
        """All that was printed into this cell."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """All that was written to stderr in this cell."""
        return self._stream("stderr")

    @property
    def result(self) -> str:
        """The `text/plain` of the cell's value; empty if it has none."""
        texts = [o["data"].get("text/plain", "") for o in self._of("execute_result")]
        return texts[-1] if texts else ""

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The mime bundles displayed in this cell, updates by display id not applied."""
        return [o["data"] for o in self._of("display_data")]

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [o for o in self.outputs if o["type"] == kind]

    def _stream(self, name: str) -> str:
        return "".join(o["text"] for o in self._of("stream") if o["name"] == name)


class Kernel:
    """A kernel process and the connection to it.

    All waiting is done in `wait`, which handles messages until a condition holds. So comms,
    outputs and replies are seen in the order in which the kernel sent them.
    """

    def __init__(self, python: Path, *, cwd: Path, env: dict[str, str], timeout_s: float = 30):
        """Start a kernel and wait until it answers.

        Args:
            python: the interpreter of the environment that has ipykernel.
            cwd: where it runs.
            env: its whole environment.
            timeout_s: how long any single wait may take.
        """
        self.timeout_s = timeout_s
        self.mark = uuid.uuid4().hex
        self.comms: dict[str, Comm] = {}
        self.executions: dict[str, Execution] = {}
        self.iopub: list[Message] = []  # everything, for what has no shortcut here
        self._replies: dict[str, Message] = {}
        self._idle: set[str] = set()
        argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager = KernelManager()
        self.manager._kernel_spec = KernelSpec(argv=argv, display_name="test", language="python")
        self.manager.start_kernel(cwd=str(cwd), env={**env, MARK: self.mark})
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=timeout_s)

    # --- cells

    def run(
        self, code: str, *, cell_id: str | None = None, timeout_s: float | None = None
    ) -> Execution:
        """Execute a cell, wait until it is done, and require that it raised nothing."""
        execution = self.execute(code, cell_id=cell_id)
        self.wait_done(execution, timeout_s=timeout_s)
        assert execution.status == "ok", f"{execution.error}\n{execution.reply}"
        return execution

    def fail(self, code: str, *, cell_id: str | None = None) -> Execution:
        """Execute a cell, wait until it is done, and require that it raised something."""
        execution = self.wait_done(self.execute(code, cell_id=cell_id))
        assert execution.status == "error", execution.reply
        return execution

    def execute(
        self, code: str, *, cell_id: str | None = None, subshell: str | None = None
    ) -> Execution:
        """Send a cell and return at once; `wait_done` waits for it.

        Args:
            code: the source of the cell.
            cell_id: the id that JupyterLab sends; None sends none, like nbclient.
            subshell: run it in this subshell instead of the main shell.
        """
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": False}
        metadata = {} if cell_id is None else {"cellId": cell_id}
        msg_id = self._send("execute_request", content, metadata=metadata, subshell=subshell)
        self.executions[msg_id] = execution = Execution(msg_id)
        return execution

    def wait_done(self, execution: Execution, *, timeout_s: float | None = None) -> Execution:
        """Wait until a cell is done, well or badly."""
        self.wait(lambda: execution.done, "the cell to end", timeout_s=timeout_s)
        return execution

    def wait_output(self, execution: Execution, text: str) -> None:
        """Wait until a text was printed into a cell, while it runs or later."""
        self.wait(lambda: text in execution.stdout, f"{text!r} under the cell")

    def interrupt(self) -> None:
        """Press ■: SIGINT to the kernel's whole process group."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        """Restart as the menu does; the page's comms and cells are gone."""
        self.manager.restart_kernel()
        self.client.wait_for_ready(timeout=self.timeout_s)
        self.comms.clear()
        self.executions.clear()

    # --- the page's side of widgets

    def comm(self, model: str) -> Comm:
        """Return the one open widget whose model has this name."""
        found = [c for c in self.comms.values() if c.model == model and not c.closed]
        models = sorted(c.model for c in self.comms.values())
        assert len(found) == 1, f"{len(found)} open comms of {model}; all comms: {models}"
        return found[0]

    def send(
        self, comm: Comm, content: Any, *, subshell: str | None = None, wait: bool = True
    ) -> str:
        """Send a custom message to a widget, as its page does with `model.send(content)`.

        Args:
            comm: the widget's comm.
            content: what the page sends; a Button's click is `{"event": "click"}`.
            subshell: the subshell the page uses; JupyterLab has one per kernel for widgets.
            wait: until the kernel has handled it. A busy kernel may do so much later.

        Returns:
            The message's id, for `wait_handled`.
        """
        data = {"method": "custom", "content": content}
        body = {"comm_id": comm.id, "data": data}
        msg_id = self._send("comm_msg", body, subshell=subshell)
        if wait:
            self.wait_handled(msg_id)
        return msg_id

    def wait_handled(self, msg_id: str, *, timeout_s: float | None = None) -> None:
        """Wait until the kernel has handled a message of the page."""
        self.wait(lambda: msg_id in self._idle, "a message to be handled", timeout_s=timeout_s)

    def handled(self, msg_id: str) -> bool:
        """Whether the kernel has handled a message, as far as it has told us."""
        return msg_id in self._idle

    def create_subshell(self) -> str:
        """Make a subshell, a thread that handles messages beside the main one (ipykernel ≥ 7)."""
        msg_id = self._send("create_subshell_request", {}, channel="control")
        self.wait(lambda: msg_id in self._replies, "the subshell")
        return str(self._replies[msg_id]["content"]["subshell_id"])

    @property
    def has_subshells(self) -> bool:
        """Whether this kernel says that it supports subshells."""
        msg_id = self._send("kernel_info_request", {})
        self.wait(lambda: msg_id in self._replies, "the kernel's description")
        return "kernel subshells" in self._replies[msg_id]["content"].get("supported_features", [])

    # --- messages

    def wait(
        self, condition: Callable[[], bool], what: str, *, timeout_s: float | None = None
    ) -> None:
        """Handle messages until a condition holds.

        Raises:
            TimeoutError: it did not within `timeout_s` seconds (the kernel's, if None).
        """
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        end = time.monotonic() + limit_s
        while not condition():
            left_s = end - time.monotonic()
            if left_s <= 0 or not self.manager.is_alive():
                state = "is alive" if self.manager.is_alive() else "is dead"
                raise TimeoutError(f"waited {limit_s} s for {what}; the kernel {state}")
            self._receive(min(left_s, 0.5))

    def catch_up(self) -> None:
        """Handle all that has arrived already, and wait for nothing."""
        while self._receive(0):
            pass

    def _send(
        self,
        kind: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        metadata: dict[str, Any] | None = None,
        subshell: str | None = None,
    ) -> str:
        message = self.client.session.msg(kind, content, metadata=metadata)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        getattr(self.client, f"{channel}_channel").send(message)
        return str(message["header"]["msg_id"])

    def _receive(self, timeout_s: float) -> bool:
        channels = (
            self.client.iopub_channel,
            self.client.shell_channel,
            self.client.control_channel,
        )
        poller = zmq.Poller()
        for channel in channels:
            poller.register(channel.socket, zmq.POLLIN)
        ready = dict(poller.poll(int(timeout_s * 1000)))
        for channel in channels:
            if channel.socket in ready:
                self._handle(channel.get_msg(timeout=0), is_iopub=channel is channels[0])
        return bool(ready)

    def _handle(self, message: Message, *, is_iopub: bool) -> None:
        parent = message["parent_header"].get("msg_id", "")
        content = message["content"]
        if is_iopub:
            self.iopub.append(message)
            self._handle_iopub(message["msg_type"], parent, content)
            return
        self._replies[parent] = message
        if parent in self.executions:
            self.executions[parent].reply = content

    def _handle_iopub(self, kind: str, parent: str, content: dict[str, Any]) -> None:
        execution = self.executions.get(parent)
        if kind == "status" and content["execution_state"] == "idle":
            self._idle.add(parent)
            if execution is not None:
                execution.idle = True
        elif kind == "comm_open":
            comm = Comm(content["comm_id"], content["target_name"])
            comm.state.update(content["data"].get("state", {}))
            self.comms[comm.id] = comm
        elif kind == "comm_msg" and content["comm_id"] in self.comms:
            self.comms[content["comm_id"]].receive(content["data"])
        elif kind == "comm_close" and content["comm_id"] in self.comms:
            self.comms[content["comm_id"]].closed = True
        elif execution is not None and kind not in ("status", "execute_input"):
            execution.outputs.append({"type": kind, **content})

    # --- processes

    @property
    def pid(self) -> int:
        """The kernel's process id."""
        return int(self.manager.provisioner.pid)  # type: ignore[union-attr]

    def processes(self) -> list[psutil.Process]:
        """Every live process that descends from this kernel, the kernel itself left out.

        They are found by a mark in their environment, so those whose parent is gone count too.
        """
        return [p for p in psutil.process_iter() if p.pid != self.pid and self._owns(p)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get(MARK) == self.mark
        except psutil.Error:
            return False

    def kill(self) -> None:
        """End the kernel with SIGKILL, as the out-of-memory killer does; nothing restarts it."""
        self.manager.signal_kernel(signal.SIGKILL)
        psutil.wait_procs([psutil.Process(self.pid)], timeout=5)

    def survivors(self, within_s: float = 3) -> list[psutil.Process]:
        """Wait for the kernel's processes to end and return those that have not."""
        _, alive = psutil.wait_procs(self.processes(), timeout=within_s)
        return [p for p in alive if self._owns(p)]

    def close(self) -> list[str]:
        """Shut the kernel down, end whatever outlives it, and say what that was."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=not self.manager.is_alive())
        self.manager.cleanup_resources()
        left = self.survivors()
        described = [f"{p.pid}: {' '.join(p.cmdline())[:200]}" for p in left]
        for process in left:
            process.kill()
        return described
