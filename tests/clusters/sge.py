"""A real Grid Engine of one host for the tests: its root, its daemons and its files in one folder.

The machine's own one, if there is any, is neither read nor changed. Its daemons listen on all
interfaces; they know no option for that. By hand, where root on Debian:

    python -m tests.clusters.sge start /tmp/sge     prints what to export
    python -m tests.clusters.sge stop /tmp/sge
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.clusters.daemons import BatchSystem, by_hand, free_port
from tests.clusters.debian import why_not_here
from tests.clusters.waiting import until

__all__ = ["GridEngine"]

PROGRAMS = Path("/usr/lib/gridengine")  # the programs themselves: others are wrappers that guess
SHARED = Path("/usr/share/gridengine")
COMMANDS = ("qsub", "qdel", "qstat", "qconf", str(PROGRAMS / "sge_qmaster"))
PACKAGES = ("gridengine-master", "gridengine-exec", "gridengine-client")
# Without this, the packages make a cluster of their own that nobody wants.
ANSWERS = "".join(
    f"{package} shared/gridengineconfig boolean false\n"
    for package in ("gridengine-common", "gridengine-client")
)
BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {root}/default/common;{root}/master
binary_path {root}/bin
qmaster_spool_dir {root}/master
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""


class GridEngine(BatchSystem):
    """One Grid Engine in a folder."""

    key = "sge"

    def __init__(self, folder: Path, *, n_slots: int = 6, outlives_us: bool = False) -> None:
        super().__init__(folder, n_slots=n_slots, outlives_us=outlives_us)
        self.root = folder / "root"
        # Kept for `stop` by hand, which is another process than `start`.
        ports = folder / "ports"
        if not ports.exists():
            folder.mkdir(parents=True, exist_ok=True)
            ports.write_text(f"{free_port()} {free_port()}")
        master, execution = ports.read_text().split()
        self.environment = {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": master,
            "SGE_EXECD_PORT": execution,
        }

    @staticmethod
    def missing() -> str | None:
        return why_not_here("Grid Engine", COMMANDS, PACKAGES, answers=ANSWERS)

    def start(self) -> None:
        host = socket.gethostname()
        self._write_root(host)
        self._daemon("sge_qmaster")
        until(lambda: self.ask("qconf", "-sh"), lambda: f"the master answers\n{self.complaints()}")
        self._configure(host)
        self._daemon("sge_execd")
        ready = re.compile(r"^all\.q@\S+ +BI? +\S+ +[\d.]+ +lx-\S+ *$", re.MULTILINE)
        until(
            lambda: ready.search(self.ask("qstat", "-f")),
            lambda: f"the queue is ready:\n{self.ask('qstat', '-f')}\n{self.complaints()}",
        )

    def jobs(self) -> dict[str, str]:
        states = {"r": "running", "t": "running", "qw": "pending", "hqw": "pending"}
        return {job: states[s] for job, s in self._listed().items() if s in states}

    def cancel(self, job: str) -> None:
        self.ask("qdel", job)

    def clear(self) -> None:
        if left := list(self._listed()):
            self.ask("qdel", *left)
        until(lambda: not self._listed(), lambda: f"the queue is empty: {self._listed()}")

    def logs(self) -> Sequence[Path]:
        return [*super().logs(), *sorted(self.root.glob("**/messages"))]

    def _listed(self) -> dict[str, str]:
        """The state of each job by its number, as `qstat` writes it."""
        lines = [line.split() for line in self.ask("qstat", "-u", "*").splitlines()[2:]]
        return {fields[0]: fields[4] for fields in lines}

    def _daemon(self, name: str) -> None:
        # SGE_ND: stay in the foreground, so that it is a child that can be waited for.
        libraries = {"LD_LIBRARY_PATH": str(PROGRAMS), "SGE_ND": "1"}
        self.spawn(str(PROGRAMS / name), environment=libraries)

    def _write_root(self, host: str) -> None:
        """Make what an administrator would be asked for at the installation."""
        root, common = self.root, self.root / "default" / "common"
        for folder in (common, root / "master", root / "execution"):
            folder.mkdir(parents=True)
        for name in ("bin", "lib", "utilbin"):
            (root / name).mkdir()
            (root / name / "lx-amd64").symlink_to(PROGRAMS)
        (root / "util").symlink_to(SHARED / "util")
        (common / "act_qmaster").write_text(f"{host}\n")
        # The loopback's first name is localhost, whatever the host is called.
        (common / "host_aliases").write_text(f"{host} localhost\n")
        (common / "bootstrap").write_text(BOOTSTRAP.format(root=root))
        defaults = (SHARED / "default-configuration").read_text()
        settings = {
            "execd_spool_dir": str(root / "execution"),
            "mailer": "/bin/true",
            "administrator_mail": "none",
            "min_uid": "0",
            "min_gid": "0",
        }
        (root / "configuration").write_text(_with(defaults, settings))
        self._spool("spoolinit", "classic", "libspoolc", f"{common};{root}/master", "init")
        self._spool("spooldefaults", "configuration", str(root / "configuration"))
        for name, folder in (("complexes", "centry"), ("usersets", "usersets")):
            self._spool("spooldefaults", name, str(SHARED / "util/resources" / folder))
        self._spool("spooldefaults", "managers", "root")

    def _spool(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, **self.environment, "LD_LIBRARY_PATH": str(PROGRAMS)}
        subprocess.run(
            [str(PROGRAMS / program), *arguments],
            env=environment,
            check=True,
            capture_output=True,
            timeout=30,
        )

    def _configure(self, host: str) -> None:
        """Have jobs taken from this host, run on it, and started within a second."""
        queue = {
            "qname": "all.q",
            "hostlist": host,
            "load_thresholds": "NONE",  # the tests' machine is often busy
            "slots": str(self.n_slots),
            "pe_list": "NONE",
            "shell": "/bin/bash",
            "shell_start_mode": "unix_behavior",
        }
        pace = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self.ask("qconf", "-as", host)
        for name, show, change, settings in (
            ("queue", "-sq", "-Aq", queue),
            ("scheduler", "-ssconf", "-Msconf", pace),
        ):
            path = self.root / name
            path.write_text(_with(self.ask("qconf", show), settings))
            self.ask("qconf", change, str(path))


def _with(text: str, settings: dict[str, str]) -> str:
    """Replace the values of some settings, one a line after its name."""
    for name, value in settings.items():
        text, n_found = re.subn(rf"(?m)^{name}\s.*$", f"{name} {value}", text)
        assert n_found == 1, name
    return text


if __name__ == "__main__":
    by_hand(GridEngine)
