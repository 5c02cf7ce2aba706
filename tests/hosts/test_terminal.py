"""Terminals: IPython, plain `python -i`, and asyncio's own prompt, typed into as by a person."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import psutil
import pytest

from tests.browser.server import MARK
from tests.kernels.cells import Gate

IPYTHON = ("-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor")
IN = r"(?m)^In \[\d+\]: "
PLAIN = r"(?m)^>>> "

SETUP = (
    "from amltk_nb import Scheduler",
    "scheduler = Scheduler.with_processes(2, name='search')",
    "task = scheduler.task(abs)",
    "futures = []",
    "_ = scheduler.on_start(lambda: futures.append(task.submit(-3)))",
)
NO_LOOP = (
    "NoRunningLoopError: start() needs a running event loop, as every notebook has one. In a "
    "script use scheduler.run(), or call start() inside of a coroutine."
)
BOX = "─ Scheduler 'search': finished (exhausted) ─"


class Terminal:
    """A program that answers at a prompt."""

    def __init__(self, home: Path, *arguments: str, prompt: str) -> None:
        """Start Python with arguments and wait for its first prompt."""
        self.mark = uuid.uuid4().hex
        env = {**os.environ, "TERM": "dumb", "IPYTHONDIR": str(home), MARK: self.mark}
        self._child = pexpect.spawn(
            sys.executable,
            list(arguments),
            env=env,
            cwd=str(home),
            encoding="utf-8",
            timeout=30,
            dimensions=(60, 100),
        )
        self._prompt = prompt
        self._child.expect(prompt)

    def type(self, line: str) -> str:
        """Enter a line and return what is printed until the next prompt."""
        self.begin(line)
        return self.answer()

    def begin(self, line: str) -> None:
        """Enter a line that takes a while."""
        self._child.sendline(line)
        self._child.expect_exact(line)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._child.sendintr()

    def answer(self) -> str:
        """Wait for the next prompt, and return what was printed before."""
        self._child.expect(self._prompt)
        return self._child.before.replace("\r", "").strip()

    def close(self) -> list[str]:
        """Leave it, and return what outlived it, which is then ended."""
        self._child.sendline("exit()")
        self._child.expect(pexpect.EOF)
        self._child.close()
        _, left = psutil.wait_procs(self._descendants(), timeout=5)
        for process in left:
            process.kill()
        return [str(process) for process in left]

    def _descendants(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start a terminal; it must leave in peace and leave nothing behind."""
    started: list[Terminal] = []

    def start(*arguments: str, prompt: str) -> Terminal:
        started.append(Terminal(tmp_path, *arguments, prompt=prompt))
        return started[-1]

    yield start
    assert [line for one in started for line in one.close()] == []


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """What holds a call back."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()


def test_ipython(terminal: Callable[..., Terminal], tmp_path: Path, gate: Gate) -> None:
    shell = terminal(*IPYTHON, prompt=IN)
    for line in SETUP:
        assert shell.type(line) == ""
    assert shell.type("run = scheduler.start()").endswith(NO_LOOP)
    assert shell.type("print(scheduler.state)") == "idle"

    # Rich text: of the scheduler, of its parts, by the magics.
    assert shell.type("scheduler.run()") == "Out[8]: ExitState(exhausted)"
    shown = shell.type("scheduler")
    assert BOX in shown
    assert "DONE abs(-3)" in shown
    assert "@on_start 1" in shown
    assert "<style" not in shown
    assert BOX in shell.type("scheduler.dashboard()")
    assert "─ Task abs(x, /) ─" in shell.type("task")
    assert shell.type("%load_ext amltk_nb") == ""
    assert BOX in shell.type("%amltk")
    assert shell.type("%amltk log") == "The log is empty."

    # A line that awaits has a loop, as long as it runs.
    start = "run = scheduler.start(end_on_empty=True); future = task.submit(-4); "
    assert shell.type(f"{start}print(await run, future.result())") == "exhausted 4"

    # Ctrl-C stops a run that blocks.
    for line in (
        f"import fcntl; gate = {str(gate.path)!r}",
        "ring = lambda: open(gate + '.in', 'w').write('1 x\\n')",
        "slow = scheduler.task(lambda: (ring(), fcntl.flock(open(gate), fcntl.LOCK_SH)))",
        "_ = scheduler.on_start(slow.submit)",
    ):
        assert shell.type(line) == ""
    shell.begin("scheduler.run()")
    gate.arrived(1)
    shell.interrupt()
    assert "KeyboardInterrupt" in shell.answer()
    assert shell.type("print(scheduler.state)") == "finished"


def test_plain_python(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("-q", "-i", prompt=PLAIN)
    for line in SETUP:
        assert shell.type(line) == ""
    assert shell.type("run = scheduler.start()").endswith(f"amltk_nb.errors.{NO_LOOP}")
    assert shell.type("scheduler.run()") == "ExitState(exhausted)"
    line = "<Scheduler 'search': finished, ProcessExecutor(2), 1 done>"
    assert shell.type("scheduler") == line
    assert shell.type("scheduler.dashboard()") == "Dashboard('search')"
    assert shell.type("futures[0].result()") == "3"
    assert BOX in shell.type("import rich; rich.print(scheduler)")


def test_the_prompt_of_asyncio_has_a_background(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("-m", "asyncio", prompt=PLAIN)
    for line in SETUP:
        assert shell.type(line) == ""
    assert shell.type("run = scheduler.start()") == ""
    assert re.fullmatch(r"<Run .*running.*>", shell.type("run"))
    assert shell.type("await task.submit(-5)") == "5"
    assert shell.type("scheduler.stop()") == ""
    assert shell.type("await run") == "ExitState(stopped)"
