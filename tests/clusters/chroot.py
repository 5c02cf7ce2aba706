"""Debian 13 in a folder, for batch systems that the machine's own Debian does not have.

Nothing is mounted on the machine itself: each program gets a mount namespace of its own, in which
the folder has the machine's /tmp, its Python and this repository at the same places. So the
mounts end with the programs, and the folder can be deleted at any time (`make clean` does).
"""

from __future__ import annotations

import fcntl
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.clusters.daemons import lacking
from tests.clusters.debian import INSTALL_S, QUIETLY, install
from tests.environments import HOME
from tests.environments import ROOT as REPOSITORY
from tests.required import is_root_on_debian

__all__ = ["DEBIAN_13", "Chroot"]

SOURCES = Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
MIRROR = "http://deb.debian.org/debian"
SHARED = (Path("/tmp"), Path(sys.base_prefix), REPOSITORY)
_ENTER = """\
#!/bin/sh
# Runs a command in {root}.
exec unshare --mount --propagation private /bin/sh -ec '
for folder in /proc /sys /dev; do mount --rbind $folder {root}$folder; done
for folder in {shared}; do mount --bind $folder {root}$folder; done
{mounts}
exec {disguise} /usr/bin/env -C "$PWD" {variables} "$@"' enter "$@"
"""


class Chroot:
    """A Debian in a folder, made and filled when it is wanted first."""

    def __init__(self, suite: str, root: Path) -> None:
        self.suite = suite
        self.root = root

    def why_not(self, title: str, packages: Sequence[str]) -> str | None:
        """Have it ready with these packages, and say why it cannot be; None: it is."""
        if not is_root_on_debian():
            return f"{title} runs in a Debian of its own, which only root makes, on Debian"
        if lacking(["debootstrap"]) and (error := install(["debootstrap"])):
            return f"{title} needs debootstrap, which could not be installed: {error}"
        try:
            with self._locked():
                self._make()
                self._add(packages)
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", None) or b""
            return f"{title} could not be installed: {error}\n{said[-500:].decode()}"
        return None

    def write_enter(
        self,
        path: Path,
        *,
        variables: Mapping[str, str],
        disguise: str = "chroot {root}",
        mounts: Mapping[Path, str] | None = None,
    ) -> None:
        """Write a command that runs its arguments in here.

        Args:
            path: of the command.
            variables: of the environment in there, besides those out here.
            disguise: a command line that changes into `{root}`, perhaps as somebody else.
            mounts: folders out here, and what they take the place of in there.
        """
        told = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **variables}
        text = _ENTER.format(
            root=self.root,
            shared=shlex.join(map(str, SHARED)),
            mounts="\n".join(
                f"mount --bind {shlex.quote(str(folder))} {self.root}{place}"
                for folder, place in (mounts or {}).items()
            ),
            disguise=disguise.format(root=self.root),
            variables=" ".join(f"{name}={value}" for name, value in told.items()),
        )
        path.write_text(text)
        path.chmod(0o755)

    def _make(self) -> None:
        ready = self.root / ".ready"
        if not ready.exists():
            where = str(self.root)
            _run("debootstrap", "--variant=minbase", self.suite, where, mirror())
            policy = self.root / "usr/sbin/policy-rc.d"  # no package starts a service in here
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
            # For batch systems that do not run root's jobs; 1000 is the first user of any Debian.
            _run("chroot", where, "useradd", "--uid=1000", "--home-dir=/tmp", "tester")
            ready.touch()
        for folder in SHARED:
            place = self.root / folder.relative_to("/")
            place.mkdir(parents=True, exist_ok=True)
            for above in place.relative_to(self.root).parents:  # not all of root's are for others
                (self.root / above).chmod(0o755)
        (self.root / "tmp").chmod(0o1777)
        self.write_enter(self.root / "enter", variables=QUIETLY)

    def _add(self, packages: Sequence[str]) -> None:
        have = set((self.root / "have").read_text().split()) if self._has_list() else set()
        if not set(packages) <= have:
            for name in ("resolv.conf", "hosts"):
                (self.root / "etc" / name).write_text(Path("/etc", name).read_text())
            apt = (str(self.root / "enter"), "apt-get", "-qq")
            _run(*apt, "install", "-y", "--no-install-recommends", *packages)
            (self.root / "have").write_text(" ".join(sorted(have | set(packages))))

    def _has_list(self) -> bool:
        return (self.root / "have").exists()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time fill it."""
        self.root.parent.mkdir(exist_ok=True)
        with self.root.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def mirror() -> str:
    """Where this machine has its packages from."""
    for path in SOURCES:
        for line in path.read_text().splitlines() if path.exists() else ():
            words = line.split()
            if words and words[0] in ("URIs:", "deb"):
                return next(word for word in words if "://" in word)
    return MIRROR


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=2 * INSTALL_S, cwd="/")


DEBIAN_13 = Chroot("trixie", HOME / "debian-13")
