"""A real OAR of one node for the tests, in a Debian 13, with a PostgreSQL of its own.

All of it is real but one thing: OAR reaches its node by ssh, and here a script runs the command
instead. Jobs run as an ordinary user, who must be able to write where they are told to. By hand,
where root on Debian:

    python -m tests.clusters.oar start /tmp/oar     prints what to export
    python -m tests.clusters.oar stop /tmp/oar
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.clusters.chroot import DEBIAN_13
from tests.clusters.daemons import BatchSystem, by_hand, free_port
from tests.clusters.waiting import until

__all__ = ["OAR"]

COMMANDS = ("oarsub", "oardel", "oarstat", "oarnodes")
PACKAGES = (
    *("oar-server", "oar-server-pgsql", "oar-user", "oar-user-pgsql", "oar-node"),
    *("postgresql", "openssh-client", "openssh-server", "sudo"),
)
AS = "/usr/bin/setpriv --reuid={name} --regid={name} --clear-groups --"
# Of ssh's arguments only the command is wanted: the node is this machine.
NO_SSH = """\
#!/bin/bash
while [ $# -gt 0 ]; do
    case $1 in -[bceFilmop]) shift 2 ;; -*) shift ;; *) break ;; esac
done
shift
exec /bin/bash -c "$*"
"""


class OAR(BatchSystem):
    """One OAR in a folder."""

    key = "oar"
    lingers_s = 10.0

    def __init__(self, folder: Path, *, n_slots: int = 6, outlives_us: bool = False) -> None:
        super().__init__(folder, n_slots=n_slots, outlives_us=outlives_us)
        self.bin = folder / "bin"
        self.environment = {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    @staticmethod
    def missing() -> str | None:
        return DEBIAN_13.why_not("OAR", PACKAGES)

    def start(self) -> None:
        port = free_port()
        self._write_files(port)
        self._start_database(port)
        self._inside("oar-database", "--create", "--db-admin-user=postgres", "--db-admin-pass=-")
        # By itself and not by its command, which changes the user, and with that forgets that the
        # daemon is to end with this process.
        home = "/usr/lib/oar"
        path = f"/usr/sbin:/usr/bin:/sbin:/bin:{home}/oardodo"
        through = [str(self.bin / "enter"), *_as("oar"), "/usr/bin/env", f"PATH={path}"]
        settings = {"OARDIR": home, "OARUSER": "oar", "OARCONFFILE": "/etc/oar/oar.conf"}
        self.spawn(f"{home}/Almighty", environment=settings, through=through)
        for name in ("cpu", "core"):
            self._inside("oarproperty", "-a", name)
        for n in range(1, self.n_slots + 1):
            of_one = [word for name in ("cpuset", "cpu", "core") for word in ("-p", f"{name}={n}")]
            self._inside("oarnodesetting", "-a", "-h", "localhost", *of_one)
        self._inside("oarnodesetting", "-h", "localhost", "-s", "Alive")
        until(
            lambda: self.ask("oarnodes").count("state: Alive") == self.n_slots,
            lambda: f"the node is alive\n{self.ask('oarnodes')}\n{self.complaints()}",
            limit_s=60,
        )

    def jobs(self) -> dict[str, str]:
        states = {"W": "pending", "L": "pending", "R": "running", "H": "pending"}
        return {job: states[s] for job, s in self._listed().items() if s in states}

    def cancel(self, job: str) -> None:
        self.ask("oardel", job)

    def clear(self) -> None:
        if left := list(self._listed()):
            self.ask("oardel", *left)
        until(lambda: not self._listed(), lambda: f"the queue is empty: {self._listed()}")

    def _listed(self) -> dict[str, str]:
        """The state of each job by its number, as `oarstat` writes it."""
        return dict(re.findall(r"(?m)^(\d+) +(\w) ", self.ask("oarstat")))

    def _start_database(self, port: int) -> None:
        data = self.folder / "data"
        program = "/usr/lib/postgresql/17/bin/"
        self._inside(
            *_as("postgres"), f"{program}initdb", "-D", str(data), "-A", "trust", "--no-sync"
        )
        self.spawn(
            f"{program}postgres",
            *("-D", str(data), "-k", str(data), "-p", str(port), "-h", "127.0.0.1"),
            "-F",  # it need not outlast a crash of the machine
            through=[str(self.bin / "enter"), *_as("postgres")],
        )
        ask = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", "SELECT 1"]
        enter = str(self.bin / "enter")
        until(lambda: self.ask(enter, *ask), lambda: f"the database answers\n{self.complaints()}")

    def _inside(self, *command: str) -> None:
        done = subprocess.run(
            [str(self.bin / "enter"), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/tmp",
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-1500:]}{done.stderr[-1500:]}"

    def _write_files(self, port: int) -> None:
        root, folder = DEBIAN_13.root, self.folder
        for name in ("bin", "run"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copytree(root / "etc/oar", folder / "etc")
        shutil.copytree(root / "var/lib/oar", folder / "lib")
        (folder / "data").mkdir()
        folder.chmod(0o755)
        (self.bin / "no-ssh").write_text(NO_SSH)
        (self.bin / "no-ssh").chmod(0o755)
        (folder / "oar.log").touch()
        self._write_settings(folder / "etc" / "oar.conf", port)
        mounts = {folder / "etc": "/etc/oar", folder / "lib": "/var/lib/oar"}
        DEBIAN_13.write_enter(
            self.bin / "enter", variables={"HOME": "/tmp", "PGPORT": str(port)}, mounts=mounts
        )
        self._inside("chown", "-R", "oar:oar", *map(str, (folder / "lib", folder / "run")))
        self._inside("chown", "oar:oar", *map(str, (folder / "oar.log", folder / "etc/oar.conf")))
        self._inside("chown", "postgres:postgres", str(folder / "data"))
        as_user = " ".join(_as("tester"))
        for name in COMMANDS:
            command = self.bin / name
            command.write_text(
                f"#!/bin/sh\nexec {self.bin}/enter {as_user} env USER=tester LOGNAME=tester "
                f'SHELL=/bin/bash {name} "$@"\n'
            )
            command.chmod(0o755)

    def _write_settings(self, path: Path, port: int) -> None:
        settings = {
            "DB_PORT": port,
            "DB_BASE_PASSWD": "oar",
            "DB_BASE_PASSWD_RO": "oar_ro",
            "SERVER_PORT": free_port(),
            "LOG_FILE": self.folder / "oar.log",
            "OPENSSH_CMD": self.bin / "no-ssh",
            "PINGCHECKER_GENERIC_COMMAND": "/bin/true",
            # Between two jobs on the same core, and between now and the first: jobs start sooner.
            "SCHEDULER_JOB_SECURITY_TIME": 1,
            "SCHEDULER_GANTT_HOLE_MINIMUM_TIME": 1,
            "SCHEDULER_MIN_TIME_BETWEEN_2_CALLS": 1,
            "OARSTAT_DEFAULT_OUTPUT_FORMAT": 2,
        }
        # There are no cgroups to be had here, and the node answers always.
        unwanted = (
            "JOB_RESOURCE_MANAGER_PROPERTY_DB_FIELD",
            "JOB_RESOURCE_MANAGER_FILE",
            "CPUSET_PATH",
            "PINGCHECKER_SENTINELLE_SCRIPT_COMMAND",
        )
        lines = path.read_text().splitlines()
        kept = [x for x in lines if x.partition("=")[0] not in (*settings, *unwanted)]
        told = [f'{name}="{value}"' for name, value in settings.items()]
        path.write_text("\n".join([*kept, *told, ""]))


def _as(name: str) -> Sequence[str]:
    return AS.format(name=name).split()


if __name__ == "__main__":
    by_hand(OAR)
