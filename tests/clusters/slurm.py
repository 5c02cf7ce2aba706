"""A real Slurm of one node for the tests: its daemons on the loopback, its files in one folder.

Nothing of the machine's own configuration is read or changed. By hand, where root on Debian:

    python -m tests.clusters.slurm start /tmp/slurm     prints what to export
    python -m tests.clusters.slurm stop /tmp/slurm
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.clusters.waiting import until
from tests.required import is_root_on_debian

__all__ = ["Slurm", "missing", "running_slurm"]

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo")
PACKAGES = ("slurm-wlm", "munge")
INSTALL_S = 240

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


class Slurm:
    """One Slurm in a folder; `start` it, use its commands with `environment`, `stop` it."""

    def __init__(self, folder: Path, *, n_cpus: int = 6, outlives_us: bool = False) -> None:
        self.folder = folder
        self.prefix = [] if outlives_us else ["setpriv", "--pdeathsig", "TERM"]
        self.n_cpus = n_cpus
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        self._write_configuration()
        self._spawn(
            "munged",
            "--foreground",
            f"--socket={self.folder}/munge.socket",
            f"--key-file={self.folder}/munge.key",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munge.seed",
            f"--log-file={self.folder}/munged.log",
        )
        until(lambda: (self.folder / "munge.socket").exists(), "munged listens", limit_s=10)
        self._spawn("slurmctld", "-D", "-i")
        self._spawn("slurmd", "-D", "-N", socket.gethostname())
        until(
            lambda: self.ask("sinfo", "-h", "-o", "%T").strip() == "idle",
            lambda: f"the node is idle\n{self.complaints()}",
            limit_s=30,
        )

    def stop(self) -> None:
        """Cancel every job, then end the daemons, the last one started first."""
        if self.pids():
            self.clear()
        for pid in reversed(self.pids()):
            _end(pid)
        (self.folder / "pids").unlink(missing_ok=True)

    def jobs(self) -> dict[str, str]:
        """The state of each job by its number: {"12": "RUNNING"}; without those that are ending."""
        lines = self.ask("squeue", "-h", "-t", "PD,CF,R", "-o", "%A %T").splitlines()
        return dict(line.split() for line in lines)

    def clear(self) -> None:
        """Cancel every job, and wait until nothing of them is left."""
        if self.jobs():
            self.ask("scancel", "--user=root", "--signal=KILL")
            self.ask("scancel", "--user=root")
        until(lambda: not self.ask("squeue", "-h"), "the queue is empty", limit_s=20)

    def ask(self, *command: str) -> str:
        """Run one of its commands; what it prints, or nothing if it failed."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=30
        )
        return done.stdout if done.returncode == 0 else ""

    def pids(self) -> list[int]:
        """Of its daemons, in the order they were started."""
        path = self.folder / "pids"
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def complaints(self) -> str:
        """What the daemons said last, for the message of a failure."""
        tails = [path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(tails)

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
            n_cpus=self.n_cpus,
            controller_port=_free_port(),
            node_port=_free_port(),
        )
        (self.folder / "slurm.conf").write_text(text)

    def _spawn(self, command: str, *arguments: str) -> None:
        """Start a daemon in a session of its own; what it says goes to a file."""
        path = shutil.which(command, path=_PATH)
        assert path is not None, command
        with (self.folder / f"{command}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.prefix, path, *arguments],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        _CHILDREN[process.pid] = process
        with (self.folder / "pids").open("a") as pids:
            pids.write(f"{process.pid}\n")


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # kept: else Python warns that they still run


def missing() -> str | None:
    """Say why no Slurm can run here, after an attempt to install it; None: it can."""
    lacking = [name for name in COMMANDS if shutil.which(name, path=_PATH) is None]
    if lacking and is_root_on_debian():
        error = _install()
        lacking = [name for name in COMMANDS if shutil.which(name, path=_PATH) is None]
        if error:
            return f"Slurm could not be installed: {error}"
    if lacking:
        return f"Slurm is not installed: {', '.join(lacking)} not found"
    return None if os.geteuid() == 0 else "Slurm's daemons are started as root only"


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """A Slurm that is stopped at the end."""
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


def _install() -> str | None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "-y", "--no-install-recommends", *PACKAGES)):
        done = subprocess.run(
            ["apt-get", "-qq", *command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
        if done.returncode != 0:
            return done.stderr.strip()[-500:]
    return None


def _end(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        process.send_signal(signal.SIGTERM)
        child = _CHILDREN.pop(pid, None)
        if child is not None:
            child.wait(20)
        else:
            process.wait(20)
    except psutil.NoSuchProcess:
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    verb, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    slurm = Slurm(folder, outlives_us=True)
    if verb == "stop":
        slurm.stop()
    elif reason := missing():
        sys.exit(reason)
    else:
        slurm.start()
        _CHILDREN.clear()
        print(*(f"export {name}={value}" for name, value in slurm.environment.items()), sep="\n")


if __name__ == "__main__":
    main()
