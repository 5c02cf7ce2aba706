"""A real Slurm of one node for the tests: its daemons on the loopback, its files in one folder.

Nothing of the machine's own configuration is read or changed. By hand, where root on Debian:

    python -m tests.clusters.slurm start /tmp/slurm     prints what to export
    python -m tests.clusters.slurm stop /tmp/slurm
"""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from tests.clusters.daemons import BatchSystem, by_hand, free_port
from tests.clusters.debian import why_not_here
from tests.clusters.waiting import until

__all__ = ["Slurm"]

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo")
PACKAGES = ("slurm-wlm", "munge")

# The daemons need no cgroups, no accounting and no systemd. Both of the last two
# CommunicationParameters are needed to keep everything on 127.0.0.1. The node claims more CPUs
# than there may be, because its jobs mostly wait.
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={n_cpus} RealMemory=8000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm(BatchSystem):
    """One Slurm in a folder."""

    key = "slurm"

    def __init__(self, folder: Path, *, n_slots: int = 6, outlives_us: bool = False) -> None:
        super().__init__(folder, n_slots=n_slots, outlives_us=outlives_us)
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    @staticmethod
    def missing() -> str | None:
        return why_not_here("Slurm", COMMANDS, PACKAGES)

    def start(self) -> None:
        self._write_configuration()
        self.spawn(
            "munged",
            "--foreground",
            f"--socket={self.folder}/munge.socket",
            f"--key-file={self.folder}/munge.key",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munge.seed",
            f"--log-file={self.folder}/munged.log",
        )
        until(lambda: (self.folder / "munge.socket").exists(), "munged listens", limit_s=10)
        self.spawn("slurmctld", "-D", "-i")
        self.spawn("slurmd", "-D", "-N", socket.gethostname())
        until(
            lambda: self.ask("sinfo", "-h", "-o", "%T").strip() == "idle",
            lambda: f"the node is idle\n{self.complaints()}",
            limit_s=30,
        )

    def jobs(self) -> dict[str, str]:
        lines = self.ask("squeue", "-h", "-t", "PD,CF,R", "-o", "%A %T").splitlines()
        return dict(line.lower().split() for line in lines)

    def cancel(self, job: str) -> None:
        self.ask("scancel", job)

    def clear(self) -> None:
        if self.jobs():
            self.ask("scancel", "--user=root", "--signal=KILL")
            self.ask("scancel", "--user=root")
        until(lambda: not self.ask("squeue", "-h"), "the queue is empty", limit_s=20)

    def _write_configuration(self) -> None:
        for name in ("controller", "node"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # munged refuses a folder that others may write to, and its clients must be able to enter.
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        text = CONFIGURATION.format(
            host=socket.gethostname(),
            folder=self.folder,
            n_cpus=self.n_slots,
            controller_port=free_port(),
            node_port=free_port(),
        )
        (self.folder / "slurm.conf").write_text(text)


if __name__ == "__main__":
    by_hand(Slurm)
