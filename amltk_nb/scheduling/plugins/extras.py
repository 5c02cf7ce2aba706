"""Optional libraries: asked for when a plugin is made, loaded where they are used."""

from __future__ import annotations

from importlib.util import find_spec

from amltk_nb.errors import MissingExtraError

__all__ = ["require"]


def require(library: str, *, extra: str, needed_by: str) -> None:
    """Check that a library is installed, without the seconds that importing some of them takes.

    Args:
        library: the name it is imported by.
        extra: what of this package brings it.
        needed_by: the class that needs it.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec(library) is None:
        raise MissingExtraError(
            f"{needed_by} needs {library}, which is not installed: pip install 'amltk-nb[{extra}]'."
        )
