"""Runs tasks of the DAG that this package ships, each in a process of its own; see the server.

Lines of JSON come in (`conf`, `run_id`, `secret`, `told`: a path); a line "run_id pid" goes out for
each. A task leaves what it would leave as XCom in the file `told`, or nothing if it dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import tests.executors.contract
import tests.executors.functions  # noqa: F401
from amltk_nb.scheduling.executors.airflow_call import run_signed


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for them
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run(order)
        with suppress(OSError):  # it may have done so itself, or be gone
            os.setpgid(pid, pid)
        print(order["run_id"], pid, flush=True)


def run(order: dict[str, Any]) -> None:
    with suppress(OSError):
        os.setpgid(0, 0)  # with all that it starts, it can be killed at once
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    told = run_signed(order["conf"], order["run_id"], order["secret"])
    with open(order["told"] + ".part", "w") as file:
        json.dump(told, file)
    os.rename(order["told"] + ".part", order["told"])
    os._exit(0)


if __name__ == "__main__":
    main()
