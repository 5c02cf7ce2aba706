"""A real HTCondor of one machine for the tests, in a Debian 13: the machine's own may have none.

HTCondor runs no job of root's. So its daemons live in a user namespace in which root looks like
an ordinary user, and jobs can read what root can. By hand, where root on Debian:

    python -m tests.clusters.htcondor start /tmp/condor     prints what to export
    python -m tests.clusters.htcondor stop /tmp/condor
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.clusters.chroot import DEBIAN_13
from tests.clusters.daemons import BatchSystem, by_hand, free_port
from tests.clusters.waiting import until

__all__ = ["HTCondor"]

COMMANDS = ("condor_submit", "condor_rm", "condor_q", "condor_status")
DISGUISE = "unshare --user --map-user=1000 --map-group=1000 --root={root}"
CONFIGURATION = """\
LOCAL_DIR = {folder}
LOG = $(LOCAL_DIR)/log
LOCK = $(LOCAL_DIR)/lock
SPOOL = $(LOCAL_DIR)/spool
RUN = $(LOCAL_DIR)/run
EXECUTE = $(LOCAL_DIR)/execute
CRED_STORE_DIR = $(LOCAL_DIR)/credentials
RELEASE_DIR = /usr
SBIN = /usr/sbin
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:{port}
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
use ROLE: CentralManager
use ROLE: Submit
use ROLE: Execute
use SECURITY: HOST_BASED
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_ADMINISTRATOR = *
ALLOW_NEGOTIATOR = *
SEC_DEFAULT_AUTHENTICATION = OPTIONAL
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, CLAIMTOBE
# The machine is often busy with other things, and that is no reason not to run a job.
START = True
SUSPEND = False
PREEMPT = False
KILL = False
NUM_CPUS = {n_slots}
MEMORY = 8000
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
# Jobs are looked after within a second or two; a site's defaults are minutes.
SCHEDD_INTERVAL = 2
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
UPDATE_INTERVAL = 5
RUNBENCHMARKS = 0
BASE_CGROUP =
MAIL = /bin/true
"""


class HTCondor(BatchSystem):
    """One HTCondor in a folder."""

    key = "htcondor"

    def __init__(self, folder: Path, *, n_slots: int = 6, outlives_us: bool = False) -> None:
        super().__init__(folder, n_slots=n_slots, outlives_us=outlives_us)
        self.bin = folder / "bin"
        self.environment = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    @staticmethod
    def missing() -> str | None:
        return DEBIAN_13.why_not("HTCondor", ["condor"])

    def start(self) -> None:
        self._write_files()
        self.spawn("condor_master", "-f", through=[str(self.bin / "enter")])
        until(
            lambda: "slot1@" in self.ask("condor_status", "-af", "Name"),
            lambda: f"there is a slot\n{self.complaints()}",
            limit_s=60,
        )
        until(lambda: self.ask("condor_q", "-totals"), lambda: f"it answers\n{self.complaints()}")

    def jobs(self) -> dict[str, str]:
        states = {"1": "pending", "2": "running", "5": "pending"}  # 5: it is held
        return {job: states[s] for job, s in self._listed().items() if s in states}

    def cancel(self, job: str) -> None:
        self.ask("condor_rm", job)

    def clear(self) -> None:
        if self._listed():
            self.ask("condor_rm", "-all")
        until(lambda: not self._listed(), lambda: f"the queue is empty: {self._listed()}")

    def end(self, pid: int, *, signal_number: int = signal.SIGQUIT) -> None:
        super().end(pid, signal_number=signal_number)  # this one ends all daemons at once

    def logs(self) -> Sequence[Path]:
        return [*super().logs(), *sorted((self.folder / "log").glob("*Log"))]

    def _listed(self) -> dict[str, str]:
        lines = self.ask("condor_q", "-allusers", "-af", "ClusterId", "JobStatus").splitlines()
        return dict(line.split() for line in lines)

    def _write_files(self) -> None:
        for name in ("bin", "log", "lock", "spool", "run", "execute", "credentials"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        configuration = self.folder / "condor_config"
        configuration.write_text(
            CONFIGURATION.format(folder=self.folder, port=free_port(), n_slots=self.n_slots)
        )
        DEBIAN_13.write_enter(
            self.bin / "enter",
            variables={"CONDOR_CONFIG": str(configuration)},
            disguise=DISGUISE,
        )
        for name in COMMANDS:
            command = self.bin / name
            command.write_text(f'#!/bin/sh\nexec {self.bin}/enter {name} "$@"\n')
            command.chmod(0o755)


if __name__ == "__main__":
    by_hand(HTCondor)
