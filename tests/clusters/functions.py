"""What the calls of these tests run in jobs; imports little, since every worker imports it."""

from __future__ import annotations

import os
import re
import socket

__all__ = ["job_number", "mark", "mark_and_wait"]

VARIABLES = ("SLURM_JOB_ID", "OAR_JOB_ID", "JOB_ID")


def job_number(_: object = None) -> str:
    """The number of the job that this runs in."""
    if description := os.environ.get("_CONDOR_JOB_AD"):  # HTCondor tells it in a file only
        with open(description) as file:
            found = re.search(r"^ClusterId = (\d+)$", file.read(), re.MULTILINE)
        assert found is not None
        return found.group(1)
    return next(os.environ[name] for name in VARIABLES if name in os.environ)


def mark(marks: str, text: str) -> str:
    """Leave a line with the text, the job and the process; returns the text."""
    line = f"{text} {job_number()} {os.getpid()}\n".encode()
    file = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, line)  # in one go: others write there too
    os.close(file)
    return text


def mark_and_wait(marks: str, gate: str, text: str) -> str:
    """Leave a line, then wait at a gate to be let go."""
    mark(marks, text)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(gate)
        line.recv(1)
    return text
