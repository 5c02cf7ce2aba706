"""Results of earlier calls instead of the same calls again, kept on disk."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from amltk_nb.errors import PluginError
from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.plugins.base import Plugin, Submission
from amltk_nb.scheduling.plugins.cached import Answer, Cached, Store, folder_of
from amltk_nb.scheduling.plugins.extras import require
from amltk_nb.scheduling.states import CallState

if TYPE_CHECKING:
    from amltk_nb.scheduling.task import Task

__all__ = ["Cache"]

_EVENTS = (
    EventSpec("HIT", "cache-hit", "(future, result)", ("cache_hit",)),
    EventSpec("MISS", "cache-miss", "(future, result)", ("cache_miss",)),
)
_SHOWN_LENGTH = 40
_MOST_NOTES = 1_000


class Cache(Plugin):
    """Returns what a function returned before for the same arguments, also in another kernel.

    What counts is what the function does: its code, its defaults, the globals and the closure it
    uses, down through functions and classes of one's own; of installed packages their version. So
    an edited cell or a changed global computes anew, and going back finds the old results. It is
    for functions whose result depends on nothing else: not on files, time or chance.

    The look-up happens where the call would run. A hit resolves the future as ever, and the task
    gets `cache-hit(future, result)` before its other events, else `cache-miss(future, result)`.
    Errors are not stored. Results are kept as pickles, so put them only where those may write
    whose code you would run.
    """

    name = "cache"

    HIT: ClassVar[Event[...]] = Event("cache-hit")
    MISS: ClassVar[Event[...]] = Event("cache-miss")

    def __init__(
        self,
        location: str | os.PathLike[str] = ".amltk_nb_cache",
        *,
        ignore: Iterable[str] = (),
        bytes_limit: int | None = None,
    ) -> None:
        """Say where results are kept.

        Args:
            location: a folder, made at first use; relative to the present working directory.
            ignore: names of parameters that do not change the result ("verbose").
            bytes_limit: about how large the folder may become; what was not used for the longest
                time goes first. None: as large as it likes.

        Raises:
            TypeError, ValueError, NotADirectoryError: something that means nothing of the kind.
            MissingExtraError: joblib is not installed.
        """
        require("joblib", extra="cache", needed_by="Cache")
        given = os.fspath(location)
        if not isinstance(given, str) or not given:
            raise ValueError(f"location={location!r}: use the path of a folder.")
        self.location = os.path.abspath(os.path.expanduser(given))
        if os.path.exists(self.location) and not os.path.isdir(self.location):
            raise NotADirectoryError(
                f"location={given!r} is a file; use the path of a folder, which need not exist."
            )
        self._store = Store(self.location, _checked_names(ignore), _checked_limit(bytes_limit))
        self._shown = given if len(given) <= _SHOWN_LENGTH else "…" + given[1 - _SHOWN_LENGTH :]
        self.n_hits = 0
        self.n_misses = 0
        self._answered: dict[int, tuple[Future[Any] | None, Any, bool]] = {}  # by call id
        self._noted: set[str] = set()

    def attach_task(self, task: Task[..., Any]) -> None:
        """Check that the function has what shall be ignored.

        Raises:
            PluginError: it has not, or the task has a cache already.
        """
        if any(isinstance(plugin, Cache) for plugin in task.plugins):
            raise PluginError(f"{task.ref} has a Cache already, and one result has one place.")
        try:
            parameters = inspect.signature(task.function).parameters
        except (TypeError, ValueError):
            return
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        unknown = [name for name in self._store.ignore if name not in parameters]
        if unknown and not takes_any:
            raise PluginError(
                f"Cache(ignore={self._store.ignore!r}): {task.signature} has no parameter "
                f"{unknown[0]!r}; name those that it has."
            )

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Put the store before the function."""
        return Cached(fn, self._store), args, kwargs

    def received(self, call: Call, value: Any) -> Any:
        """Take the result out of its answer."""
        is_hit = False
        if isinstance(value, Answer):
            if value.note:
                self._note(call, value.note)
            is_hit, value = value.is_hit, value.value
        self._answered[call.id] = call.future, value, is_hit
        return value

    def release(self, call: Call | None) -> None:
        """Count and tell whether a call that returned was spared."""
        future, value, is_hit = self._answered.pop(call.id if call else 0, (None, None, False))
        if future is None or call is None or call.state is not CallState.DONE:
            return
        self.n_hits += is_hit
        self.n_misses += not is_hit
        if call.task is not None:
            call.task.emit(self.HIT if is_hit else self.MISS, future, value)

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Return the two events."""
        return _EVENTS

    def state(self) -> Mapping[str, Any]:
        """Show what the cache was good for; its size would take a walk through its files."""
        return {"Hits": self.n_hits, "Misses": self.n_misses, "Location": self._shown}

    def clear(self) -> None:
        """Forget all results at this location, of all functions; blocks while files are removed."""
        if os.path.isdir(folder_of(self.location)):
            self._memory().clear(warn=False)

    def reduce_size(
        self,
        *,
        bytes_limit: int | None = None,
        items_limit: int | None = None,
        age_limit: timedelta | None = None,
    ) -> None:
        """Forget what was not used for long, now; blocks while it looks at every file.

        Args:
            bytes_limit: how much may stay; None: as this cache was made with.
            items_limit: how many results may stay.
            age_limit: forget what was not used for longer.
        """
        if os.path.isdir(folder_of(self.location)):
            self._memory().reduce_size(
                bytes_limit=self._store.bytes_limit if bytes_limit is None else bytes_limit,
                items_limit=items_limit,
                age_limit=age_limit,
            )

    def _memory(self) -> Any:
        import joblib  # type: ignore[import-untyped]

        return joblib.Memory(self.location, verbose=0)

    def _note(self, call: Call, note: str) -> None:
        """Log what went wrong, once: the next thousand calls would say the same."""
        if call.task is not None and note not in self._noted and len(self._noted) < _MOST_NOTES:
            self._noted.add(note)
            call.task.scheduler.log(self.name, "warning", note)


def _checked_names(ignore: Iterable[str]) -> tuple[str, ...]:
    if isinstance(ignore, str):
        raise TypeError(f"ignore={ignore!r}: use a tuple of names, as in ignore=({ignore!r},).")
    names = tuple(ignore)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"ignore={names!r}: use the names of parameters.")
    return names


def _checked_limit(n_bytes: int | None) -> int | None:
    if n_bytes is None:
        return None
    if isinstance(n_bytes, bool) or not isinstance(n_bytes, int) or n_bytes < 1:
        raise ValueError(
            f"bytes_limit={n_bytes!r}: use a whole number of bytes, as in 500_000_000, or None."
        )
    return n_bytes
