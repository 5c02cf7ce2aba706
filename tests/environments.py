"""Virtual environments beside `.venv`: kernels, other Pythons, hosts, peers, Airflow, Binder's.

They live under `.venvs/`, are made by the first that needs them and made again when what they hold
has changed. By hand: `python -m tests.environments ipykernel-7.4 python-3.12 binder`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENTS", "Environment", "PythonNotFoundError"]

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venvs"


class PythonNotFoundError(LookupError):
    """This machine has no Python of the wanted version."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment and what is installed in it."""

    name: str
    install: tuple[str, ...]  # arguments of `pip install`
    version: str | None = None  # of Python, "3.12"; None: the one that runs this
    after: str | None = None  # a script of this repository to run in it, as Binder does
    with_pip: bool = False  # pip costs seconds and is wanted only by `after`

    @property
    def python(self) -> Path:
        """Its interpreter, whether it exists yet or not."""
        return HOME / self.name / "bin" / "python"

    def ready(self) -> Path:
        """Make it unless it is up to date, and return its interpreter.

        Raises:
            PythonNotFoundError: no Python of that version is on this machine.
            subprocess.CalledProcessError: pip failed; its own words are on stderr.
        """
        base = _this_python() if self.version is None else find_python(self.version)
        stamp, wanted = HOME / self.name / "stamp", self._fingerprint(base)
        with _locked(self.name):
            if not stamp.exists() or stamp.read_text() != wanted:
                self._make(base)
                stamp.write_text(wanted)
            if self.after:
                self._run_after(HOME / self.name / "after")
        return self.python

    def _fingerprint(self, base: str) -> str:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        parts = [self.install, base, project["project"]]
        if "--group" in self.install:
            parts.append(project["dependency-groups"])
        parts += [Path(ROOT, name).read_text() for name in self.install if name.endswith(".txt")]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _make(self, base: str) -> None:
        print(f"Making .venvs/{self.name} …", flush=True)
        target = HOME / self.name
        shutil.rmtree(target, ignore_errors=True)
        flags = [] if self.with_pip else ["--without-pip"]
        subprocess.run([base, "-m", "venv", *flags, str(target)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "-qq"]
        subprocess.run([*pip, *self.install], check=True, cwd=ROOT)

    def _run_after(self, stamp: Path) -> None:
        """Run the script again when it or the package has changed: it installs a copy."""
        wanted = _digest_of([ROOT / str(self.after), *(ROOT / "amltk_nb").rglob("*.*")])
        if not stamp.exists() or stamp.read_text() != wanted:
            path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
            script = [str(ROOT / str(self.after))]
            subprocess.run(script, check=True, cwd=ROOT, env={**os.environ, "PATH": path})
            stamp.write_text(wanted)


def _this_python() -> str:
    """Return one name of the interpreter, whichever it was called by.

    `pytest` calls it python3 and `python -m pytest` python; with a name each, an environment was
    made anew at every change from one to the other, also while somebody used it.
    """
    plain = Path(sys.executable).with_name("python")
    return str(plain) if plain.exists() else sys.executable


def _digest_of(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in paths if p.is_file() and "node_modules" not in p.parts):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Let one process at a time make an environment; two test runs may want the same one."""
    HOME.mkdir(exist_ok=True)
    with (HOME / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_python(version: str) -> str:
    """Find an interpreter of a version: on PATH, or among pyenv's.

    Raises:
        PythonNotFoundError: there is none.
    """
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [*root.glob(f"versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    for candidate in candidates:
        if candidate and _runs_as(str(candidate), version):
            return str(candidate)
    raise PythonNotFoundError(
        f"No Python {version} was found on PATH or under pyenv; install one to test on it."
    )


def _runs_as(python: str, version: str) -> bool:
    # pyenv puts a `python3.12` on PATH that only complains unless that version is selected.
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == version


def _kernel(version: str) -> Environment:
    install = (f"ipykernel=={version}.*", "anywidget", "ipywidgets", "--editable", ".")
    return Environment(f"ipykernel-{version}", install)


def _python(version: str) -> Environment:
    return Environment(f"python-{version}", ("--editable", ".", "--group", "test"), version)


# Airflow as its users have it, in its own environment, with this package for whole schedulers.
# pytest is what the modules of the tests import whose functions run there.
_AIRFLOW = Environment("airflow", ("apache-airflow==3.3.*", "pytest", "--editable", "."))
# Hosts of notebooks, apart from `.venv`: there they would add themselves to its JupyterLab.
_HOSTS = Environment("hosts", ("notebook>=7.2", "voila>=0.5", "marimo>=0.20", "--editable", "."))
_BENCH = Environment("bench", ("--editable", ".", "--group", "bench"))
_BINDER = Environment(
    "binder", ("-r", "binder/requirements.txt"), after="binder/postBuild", with_pip=True
)

ENVIRONMENTS: dict[str, Environment] = {
    environment.name: environment
    for environment in (
        *map(_kernel, ("6.31", "7.1", "7.4")),
        *map(_python, ("3.12", "3.13")),
        _AIRFLOW,
        _BENCH,
        _BINDER,
        _HOSTS,
    )
}


def main() -> int:
    """Make the environments named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(ENVIRONMENTS), metavar="NAME")
    parser.add_argument("--if-found", action="store_true", help="skip a Python that is not here")
    options = parser.parse_args()
    for name in options.names:
        try:
            ENVIRONMENTS[name].ready()
        except PythonNotFoundError as error:
            print(f"{name}: {error}", flush=True)
            if not options.if_found:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
