"""The harness itself, on what Jupyter is known to do; a change here means a change in Jupyter."""

from __future__ import annotations

import psutil
import pytest

from tests.kernels.kernel import Kernel

BUTTON = """
import asyncio, threading, ipywidgets
clicks = []
button = ipywidgets.Button(description="Press")
button.on_click(lambda _: clicks.append(threading.current_thread() is threading.main_thread()))
button
"""


def test_the_kernel_is_of_the_version_asked_for(kernel: Kernel, kernel_version: str) -> None:
    cell = kernel.run("import ipykernel; print(ipykernel.__version__)")
    assert cell.stdout.startswith(kernel_version + ".")


def test_outputs_and_errors_are_told_apart(kernel: Kernel) -> None:
    cell = kernel.run("import sys; print('out'); print('err', file=sys.stderr); 6 * 7")
    assert (cell.stdout, cell.stderr, cell.result) == ("out\n", "err\n", "42")
    assert kernel.fail("1 / 0").error == "ZeroDivisionError: division by zero"


def test_a_click_reaches_its_handler(kernel: Kernel) -> None:
    kernel.run(BUTTON)
    kernel.send(kernel.comm("ButtonModel"), {"event": "click"})
    assert kernel.run("clicks").result == "[True]"


def test_a_widgets_state_is_followed(kernel: Kernel) -> None:
    kernel.run(BUTTON)
    kernel.run("button.description = 'Pressed'; button.send({'n': 1})")
    button = kernel.comm("ButtonModel")
    assert button.state["description"] == "Pressed"
    assert button.custom == [{"n": 1}]


@pytest.mark.kernels("7.1", "7.4")
def test_a_subshell_handles_a_click_on_its_own_thread(kernel: Kernel, kernel_version: str) -> None:
    kernel.run(BUTTON)
    subshell = kernel.create_subshell()
    kernel.send(kernel.comm("ButtonModel"), {"event": "click"}, subshell=subshell)
    # 7.4 sends a comm's messages to the shell that last published on it: here the main one.
    assert kernel.run("clicks").result == str([kernel_version == "7.4"])


def test_subshells_are_announced(kernel: Kernel, kernel_version: str) -> None:
    assert kernel.has_subshells is (kernel_version != "6.31")


def test_an_interrupt_ends_a_blocking_cell(kernel: Kernel) -> None:
    cell = kernel.execute("import time; print('on', flush=True)\ntime.sleep(60)")
    kernel.wait_output(cell, "on")
    kernel.interrupt()
    assert kernel.wait_done(cell, timeout_s=10).error == "KeyboardInterrupt: "


def test_what_prints_later_still_counts_for_its_cell(kernel: Kernel) -> None:
    code = "asyncio.get_running_loop().call_later(0.05, print, 'late')"
    cell = kernel.run(f"import asyncio; timer = {code}")
    kernel.wait_output(cell, "late")
    assert cell.stdout == "late\n"


CHILD = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)"


@pytest.mark.kernels("7.4")
def test_children_are_found_even_without_their_parent(kernel: Kernel) -> None:
    # It waits on a pipe that another child holds open, so it outlives the kernel.
    kernel.run(CHILD + "\nq = subprocess.Popen(['sleep', '60'], start_new_session=True)\np.pid")
    assert len(kernel.processes()) == 2
    kernel.kill()
    left = kernel.survivors(within_s=0.5)
    assert [p.name() for p in left] == ["sleep"]
    for process in left:
        process.kill()
    assert psutil.wait_procs(left, timeout=5)[1] == []
