"""Where a journal lies: which paths may be one, and whether the file is still there."""

from __future__ import annotations

import os
import stat
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from amltk_nb.errors import JournalError

__all__ = ["Identity", "identity_of", "place_of", "refuse_what_is_no_file"]

Identity: TypeAlias = tuple[int, int]  # of a file on this machine, whatever it is called

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_GOOD = 'the path of a file, such as "run.db"'


def place_of(path: str | PathLike[str]) -> Path:
    """Make an absolute path, with the home folder for "~"; the file need not be there.

    Raises:
        TypeError: it is neither a text nor a path of text.
        JournalError: no file can have that name.
    """
    given = path.__fspath__() if isinstance(path, PathLike) else path
    if not isinstance(given, str):
        raise TypeError(f"journal must be {_GOOD}, and not {path!r}.")
    try:
        if not given or "\0" in given:
            raise ValueError("it is empty" if not given else "it has a null character in it")
        os.fsencode(given)
        return Path(given).expanduser().absolute()
    except (ValueError, RuntimeError) as error:  # of the encoding, and of "~nobody"
        raise JournalError(
            f"{given!r} cannot be the path of a journal: {error}. Pass journal= {_GOOD}."
        ) from error


def refuse_what_is_no_file(path: Path) -> None:
    """See that a path leads to a plain file, or to nothing yet: a pipe would block whoever reads.

    Raises:
        JournalError: it is something else.
        OSError: it cannot be looked at.
    """
    if not path.exists():
        return
    kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    if kind is not None:
        raise JournalError(
            f"The journal {path} cannot be written: it is {kind}. Pass journal= {_GOOD}; a file "
            "that is not there yet is made."
        )


def identity_of(path: Path) -> Identity | None:
    """Say which file lies there now; None: none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
