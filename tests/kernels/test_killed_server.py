"""A Jupyter server that is killed takes its kernels with it, and these their workers."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.browser.lab import Lab
from tests.chaos.figures import report
from tests.environments import ENVIRONMENTS
from tests.executors.driver import survivors
from tests.kernels.cells import PRELUDE, Gate

MOST_S = 3.0

FAMILY = """
import subprocess

def with_family(gate):
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    subprocess.run(["sh", "-c", "setsid sleep 601 > /dev/null 2>&1 &"])
    through(gate)

scheduler = Scheduler.with_processes(2)
run = scheduler.start(display=False)
"""


@pytest.fixture
def lab(kernel_version: str, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "lab", ENVIRONMENTS[f"ipykernel-{kernel_version}"].ready())
    yield lab
    lab.close()


def started(lab: Lab) -> Any:
    """Ask for a kernel, again until the server listens: it says where before it does."""
    until = time.monotonic() + 20
    while True:
        try:
            return lab._rest("POST", "kernels")
        except URLError:
            assert time.monotonic() < until
            select.select([], [], [], 0.05)


def kernel_of(lab: Lab) -> BlockingKernelClient:
    """Have the server start a kernel, and connect to that directly."""
    kernel = started(lab)
    path = lab.home / "runtime" / f"kernel-{kernel['id']}.json"
    client = BlockingKernelClient(connection_file=str(path))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    return client


@pytest.mark.timeout(120)
def test_nothing_outlives_a_killed_server(lab: Lab, gate: Gate, kernel_version: str) -> None:
    client = kernel_of(lab)
    client.execute(f"{PRELUDE}{FAMILY}\nfor _ in range(2): scheduler.submit(with_family, {gate})")
    gate.arrived(2)
    client.stop_channels()
    family = [process.pid for process in lab.processes()]
    assert len(family) >= 8  # the kernel, its helpers, two workers and what each has started
    lab.process.kill()
    began = time.monotonic()
    assert survivors(family, MOST_S) == []
    took_s = time.monotonic() - began
    assert lab.processes() == []
    report("servers", ipykernel=kernel_version, processes=len(family), left=0, gone_after_s=took_s)
