"""Processes as workers of whole programs: scripts without a main guard, interrupts, sudden ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.executors.driver import survivors

METHODS = ("forkserver", "spawn", "fork")
REPOSITORY = Path(__file__).parents[2]

PREAMBLE = """
import os, sys, threading
print("main runs", flush=True)
from amltk_nb.scheduling.executors.process import ProcessBackend
from tests.executors.driver import Driver
"""

CLASSES = """
class Config:
    def __init__(self, c): self.c = c
class Unfit(Exception):
    pass
def train(config, offset=3):
    if config.c < 0:
        raise Unfit(config)
    result = Config(config.c + offset + BONUS)
    return result
BONUS = 100
with Driver(ProcessBackend(2, mp_context=METHOD)) as driver:
    result = driver.run(train, Config(1))
    print(type(result) is Config, result.c)
    error = driver.error(driver.submit(train, Config(-1)))
    print(type(error) is Unfit, isinstance(error.args[0], Config), error.args[0].c)
    BONUS = 200
    print(driver.run(train, Config(1)).c)
    def train(config): return "redefined"
    print(driver.run(train, Config(1)))
    print(driver.run(lambda: (train(None), __name__)))
"""

PRINTED = """main runs
True 104
True True -1
204
redefined
('redefined', '__main__')
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program in a session of its own; what is left of it is killed in the end."""
    programs = []

    def start(*args: str, **options: object) -> subprocess.Popen[str]:
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
        program: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, *args],
            env=environ,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        programs.append(program)
        return program

    yield start
    for program in programs:
        try:
            os.killpg(program.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        program.communicate()


Run = Callable[..., "subprocess.Popen[str]"]


def finished(program: subprocess.Popen[str], text: str | None = None) -> str:
    out, err = program.communicate(text, timeout=50)
    assert (program.returncode, err) == (0, "")
    return out


@pytest.mark.parametrize("way", ["path", "module", "command", "stdin"])
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_script_without_main_guard_runs_once(
    run: Run, tmp_path: Path, way: str, method: str
) -> None:
    source = PREAMBLE + CLASSES.replace("METHOD", repr(method))
    (tmp_path / "script.py").write_text(source)
    ways = {
        "path": [str(tmp_path / "script.py")],
        "module": ["-m", "script"],
        "command": ["-c", source],
        "stdin": ["-"],
    }
    program = run(*ways[way], cwd=tmp_path)
    assert finished(program, source if way == "stdin" else None) == PRINTED


def test_a_script_without_main_guard_runs_once_with_fork_too(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(PREAMBLE + CLASSES.replace("METHOD", "'fork'"))
    assert finished(run(str(path))) == PRINTED


CELL = """
import linecache
source = "def broken(x):\\n    return 1 / x  # as in the cell\\n"
linecache.cache["<cell-7>"] = (len(source), None, source.splitlines(True), "<cell-7>")
exec(compile(source, "<cell-7>", "exec"))
with Driver(ProcessBackend(1)) as driver:
    print(driver.error(driver.submit(broken, 0)).__cause__)
"""


def test_a_workers_traceback_shows_the_lines_of_a_notebooks_cell(run: Run) -> None:
    out = finished(run("-c", PREAMBLE + CELL))
    assert 'File "<cell-7>", line 2, in broken' in out
    assert "return 1 / x  # as in the cell" in out


INTERRUPTED = """
import signal
from tests.executors import functions as f
hits = []
signal.signal(signal.SIGINT, lambda *_: hits.append(1))
def presses(n):
    for _ in range(n):
        os.killpg(0, signal.SIGINT)
with Driver(ProcessBackend(2, mp_context=METHOD)) as driver:
    starting = [driver.submit(f.spin, 0.1) for _ in range(4)]
    presses(5)                       # while the workers start
    first = {driver.value(call) for call in starting}
    busy = [driver.submit(f.spin, 0.2) for _ in range(4)]
    presses(5)                       # while they are busy
    second = {driver.value(call) for call in busy}
    presses(5)                       # while they are idle
    third = {driver.value(driver.submit(f.spin, 0.05)) for _ in range(4)}
    print(len(hits) > 0, driver.returned_ids, second <= first, third <= first)
"""


@pytest.mark.parametrize("method", METHODS)
def test_interrupts_of_the_process_group_leave_workers_alone(run: Run, method: str) -> None:
    program = run("-c", PREAMBLE + INTERRUPTED.replace("METHOD", repr(method)))
    assert finished(program) == "main runs\nTrue [] True True\n"


ORPHANS = """
from tests.executors import functions as f
backend = ProcessBackend(2, mp_context=METHOD)
driver = Driver(backend)
backend.open(driver)
pids = {driver.run(f.pid) for _ in range(4)}
def work(): # never lets go of the processor for long, nor willingly of the interpreter's lock
    import sys
    sys.setswitchinterval(0.5)
    while True: pass
def family():
    import subprocess
    return subprocess.Popen(["sleep", "600"]).pid
pids.add(driver.run(family))
busy = [driver.submit(work), driver.submit(f.pass_gate, GATE)]
open(GATE, "w")                      # the second one runs
import psutil
for child in psutil.Process().children(recursive=True):
    pids.add(child.pid)
print(*pids, flush=True)
"""


@pytest.mark.parametrize("method", METHODS)
def test_no_worker_outlives_a_killed_parent(run: Run, tmp_path: Path, method: str) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    source = ORPHANS.replace("METHOD", repr(method)).replace("GATE", repr(str(gate)))
    program = run("-c", PREAMBLE + source + "\ninput()\n")
    assert program.stdout is not None
    assert program.stdout.readline() == "main runs\n"
    pids = [int(word) for word in program.stdout.readline().split()]
    assert len(pids) >= 4
    program.kill()
    assert survivors(pids, 3.0) == []


@pytest.mark.parametrize("method", METHODS)
def test_an_unclosed_backend_does_not_keep_the_interpreter(
    run: Run, tmp_path: Path, method: str
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    source = ORPHANS.replace("METHOD", repr(method)).replace("GATE", repr(str(gate)))
    out = finished(run("-c", PREAMBLE + source))
    pids = [int(word) for word in out.splitlines()[1].split()]
    assert survivors(pids, 3.0) == []


NO_DESCRIPTORS = """
import resource
from tests.executors import functions as f
with Driver(ProcessBackend(1)) as driver:
    pid = driver.run(f.pid)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    hoard = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        while True: hoard.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    print(type(driver.error(driver.submit(f.die, 1))).__name__)
    for _ in range(3): os.close(hoard.pop())   # what dying freed may be in use again
    while True:
        try: hoard.append(os.open(os.devnull, os.O_RDONLY))
        except OSError: break
    error = driver.error(driver.submit(f.add, 1))
    print(type(error).__name__, "Too many open files" in str(error))
    for fd in hoard: os.close(fd)
with driver:
    print(driver.run(f.add, 1))
"""


def test_without_descriptors_calls_fail_with_the_reason(run: Run) -> None:
    out = finished(run("-c", PREAMBLE + NO_DESCRIPTORS))
    assert out == "main runs\nWorkerDiedError\nWorkerStartError True\n2\n"
