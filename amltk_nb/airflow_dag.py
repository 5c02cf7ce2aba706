"""Put the DAG that runs calls into a folder of Airflow: `python -m amltk_nb.airflow_dag FOLDER`."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

from amltk_nb.scheduling.executors import airflow_call

__all__ = ["DAG_ID", "FILE_NAME", "install", "main"]

DAG_ID = airflow_call.DAG_ID
FILE_NAME = "amltk_nb_call.py"
_SOURCE = Path(airflow_call.__file__)
_MARK = "The DAG of Airflow that runs calls of amltk_nb"  # in the first line of every version
_VERSION = re.compile(r"^VERSION = (\d+)", re.MULTILINE)


def install(folder: str | os.PathLike[str]) -> str:
    """Copy the DAG's file into a folder; the same file again changes nothing.

    Args:
        folder: where Airflow looks for DAGs.

    Returns:
        What was done, in a sentence.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        FileExistsError: a file of that name is there which is not ours, or is a newer one.
    """
    target = _checked_folder(Path(folder)) / FILE_NAME
    text = _SOURCE.read_text()
    if not target.exists():
        _write(target, text)
        return f"{target} is there now."
    old = _checked_own(target)
    if old == text:
        return f"{target} was up to date already."
    _write(target, text)
    return f"{target} has been brought up to date."


def _checked_folder(folder: Path) -> Path:
    if not folder.exists():
        raise FileNotFoundError(
            f"{folder} does not exist. Give the folder where your Airflow looks for DAGs; "
            "`airflow config get-value core dags_folder` prints it."
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file. Give the folder of DAGs that it lies in.")
    return folder


def _checked_own(target: Path) -> str:
    """Return the text of an earlier copy; refuse everything else."""
    old = target.read_text(errors="replace") if target.is_file() else ""
    if _MARK not in old.partition("\n")[0]:
        raise FileExistsError(
            f"{target} exists and is not from amltk_nb, so it was left alone. Move it away, or "
            "give another folder of DAGs."
        )
    version = _VERSION.search(old)
    if version is not None and int(version[1]) > airflow_call.VERSION:
        raise FileExistsError(
            f"{target} is of a newer amltk_nb (version {version[1]} of the file; this one has "
            f"{airflow_call.VERSION}), so it was left alone. Update amltk_nb here."
        )
    return old


def _write(target: Path, text: str) -> None:
    # Airflow may read the folder at any moment: it must never see half a file.
    handle, name = tempfile.mkstemp(prefix=".amltk_nb", dir=target.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m amltk_nb.airflow_dag", description=__doc__)
    parser.add_argument("folder", help="where Airflow looks for DAGs")
    options = parser.parse_args(arguments)
    try:
        done = install(options.folder)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{done}\nAirflow finds it by itself, at once or within minutes ([dag_processor] "
        f"refresh_interval); then `airflow dags list` shows {DAG_ID}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
