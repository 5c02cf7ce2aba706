"""What tests install of Debian, by name, where they may."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from tests.clusters.daemons import lacking
from tests.required import is_root_on_debian

__all__ = ["install", "why_not_here"]

INSTALL_S = 300
# A package's own service must not be started: the tests start theirs. With the run level of a
# machine for one user, Debian's scripts start none.
QUIETLY = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}


def why_not_here(
    title: str, commands: Sequence[str], packages: Sequence[str], *, answers: str = ""
) -> str | None:
    """Install what is missing, and say why the batch system cannot run here; None: it can.

    Args:
        title: of the batch system.
        commands: all that are needed.
        packages: that have them.
        answers: to the packages' questions, one a line, as `debconf-set-selections` wants them.
    """
    missing = lacking(commands)
    if missing and is_root_on_debian():
        if error := install(packages, answers=answers):
            return f"{title} could not be installed: {error}"
        missing = lacking(commands)
    if missing:
        return f"{title} is not installed: {', '.join(missing)} not found"
    return None if os.geteuid() == 0 else f"{title}'s daemons are started as root only"


def install(packages: Sequence[str], *, answers: str = "") -> str | None:
    """Install packages; returns what went wrong, or None."""
    environment = os.environ | QUIETLY
    for command in (
        *([["debconf-set-selections"]] if answers else []),
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command,
            env=environment,
            input=answers,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
        if done.returncode != 0:
            return done.stderr.strip()[-500:]
    return None
