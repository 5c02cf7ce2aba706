"""The part of `Cache` that runs where calls run: looks a result up, or computes and stores it.

One folder per function and in it one per key, as joblib's Memory lays them out, so that its tools
for keeping a store small work on it. A result is written beside its place and then moved there:
whoever reads at the same time sees all of it or nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any, NamedTuple

from amltk_nb.scheduling.plugins.around import Around

__all__ = ["Answer", "Cached", "Store", "folder_of"]

logger = logging.getLogger("amltk_nb.cache")

_HIDDEN = "_amltk_nb_"  # how keywords begin that other plugins pass to their own wrappers
_NAME_LENGTH = 100
_PARTS_OF_LIMIT = 10  # a store is looked through when so large a part of its limit was added


class Store(NamedTuple):
    """Where results are kept, and of what."""

    location: str  # absolute: workers may have another working directory
    ignore: tuple[str, ...]  # parameters that do not change the result
    bytes_limit: int | None


class Answer:
    """What a call returns when there is more to say than its result."""

    __slots__ = ("is_hit", "note", "value")

    def __init__(self, value: Any, *, is_hit: bool, note: str = "") -> None:
        """Hold a result.

        Args:
            value: the result.
            is_hit: whether it was stored before.
            note: what went wrong, for the log.
        """
        self.value = value
        self.is_hit = is_hit
        self.note = note


class _Entry(NamedTuple):
    """The place of one result."""

    folder: str

    @property
    def path(self) -> str:
        return os.path.join(self.folder, "output.pkl")


class Cached(Around):
    """A function that remembers its results on disk."""

    def __init__(self, fn: Callable[..., Any], store: Store) -> None:
        """Put a store before a function.

        Args:
            fn: what to call when the store has no result.
            store: where to look.
        """
        self._store = store
        self._digest: str | None = None
        self._has_travelled = False
        update_wrapper(self, fn, updated=())

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._has_travelled = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return an `Answer`, or the result itself if it was computed and all went well."""
        fn: Callable[..., Any] = self.__wrapped__  # type: ignore[attr-defined]
        if inspect.iscoroutinefunction(_innermost(self)):
            return self._awaited_answer(args, kwargs)
        entry, answer, notes = self._look_up(args, kwargs)
        return answer or self._kept(entry, fn(*args, **kwargs), notes)

    async def _awaited_answer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fn: Callable[..., Any] = self.__wrapped__  # type: ignore[attr-defined]
        # Files are read beside the loop that the coroutine runs on.
        entry, answer, notes = await asyncio.to_thread(self._look_up, args, kwargs)
        if answer is not None:
            return answer
        return await asyncio.to_thread(self._kept, entry, await fn(*args, **kwargs), notes)

    def _look_up(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[_Entry | None, Answer | None, list[str]]:
        from amltk_nb.scheduling.plugins.fingerprint import UnkeyedError

        try:
            entry = self._entry(args, kwargs)
        except UnkeyedError as error:
            return None, None, [f"{self._name}() is not cached: {error}."]
        try:
            return entry, _found(entry, touch=self._store.bytes_limit is not None), []
        except Exception as error:  # whatever reading something broken may raise
            why = f"{type(error).__name__}: {error}"
            note = f"a stored result of {self._name}() cannot be read and is computed again: {why}"
            return entry, None, [note]

    def _entry(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Entry:
        from amltk_nb.scheduling.plugins.fingerprint import arguments_digest, function_digest

        fn = _innermost(self)
        if self._digest is None:  # a worker keeps this object for all calls of the same function
            self._digest = function_digest(fn)
        digest = arguments_digest({"": self._digest, **self._arguments(fn, args, kwargs)})
        return _Entry(os.path.join(folder_of(self._store.location), _folder_name(fn), digest))

    def _arguments(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Name the arguments as the function does, however they were passed."""
        given = {name: value for name, value in kwargs.items() if not name.startswith(_HIDDEN)}
        try:
            bound = inspect.signature(fn).bind(*args, **given)
        except (TypeError, ValueError):  # no signature, or a call that is about to fail
            return {"*": args, "**": given}
        bound.apply_defaults()
        ignored = self._store.ignore
        named = {name: value for name, value in bound.arguments.items() if name not in ignored}
        for parameter in bound.signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD and parameter.name in named:
                rest = named[parameter.name].items()
                named[parameter.name] = {name: v for name, v in rest if name not in ignored}
        return named

    def _kept(self, entry: _Entry | None, value: Any, notes: list[str]) -> Any:
        """Store a computed result, and return it or the answer that holds it."""
        if inspect.iscoroutine(value):  # of a plain function; who awaits it knows nothing of us
            return value
        try:
            if entry is not None:
                _write(entry, value, self._store)
        except OSError as error:
            notes.append(f"a result of {self._name}() was not stored: {error}")
        except Exception as error:  # whatever pickling a user's object may raise
            why = f"{type(error).__name__}: {error}"
            note = f"a result of {self._name}() cannot be stored, it cannot be pickled: {why}"
            if self._has_travelled:
                # It may not travel either; then the error shall name the result, not our answer.
                logger.warning(note)
                return value
            notes.append(note)
        return Answer(value, is_hit=False, note="; ".join(notes)) if notes else value

    @property
    def _name(self) -> str:
        return getattr(self, "__name__", None) or type(_innermost(self)).__name__


def folder_of(location: str) -> str:
    """Say where in a location joblib's Memory, and so this, keeps results."""
    return os.path.join(location, "joblib")


def _innermost(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Find the user's function within what plugins put around it."""
    while isinstance(fn, Around):
        fn = fn.__wrapped__  # type: ignore[attr-defined]
    return fn


def _folder_name(fn: Callable[..., Any]) -> str:
    """Name a function's folder; several may share one, the keys tell them apart."""
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    name = f"{named.__module__}.{named.__qualname__}"
    return re.sub(r"[^\w.]", "_", name)[-_NAME_LENGTH:]


def _found(entry: _Entry, *, touch: bool) -> Answer | None:
    import joblib  # type: ignore[import-untyped]

    try:
        file = open(entry.path, "rb")  # noqa: SIM115 - what is read may raise the same error
    except FileNotFoundError:
        return None
    with file:
        value = joblib.load(file)
    if touch:  # a store that is full forgets what was not used for the longest time
        try:
            os.utime(entry.path)
        except OSError:
            pass
    return Answer(value, is_hit=True)


def _write(entry: _Entry, value: Any, store: Store) -> None:
    import joblib

    _make_location(store.location)
    os.makedirs(entry.folder, exist_ok=True)
    beside = f"{entry.path}.{uuid.uuid4().hex}"
    try:
        joblib.dump(value, beside)
        n_bytes = os.path.getsize(beside)
        os.replace(beside, entry.path)
    except BaseException:
        _remove(beside)
        raise
    if store.bytes_limit is not None:
        _make_room(store.location, store.bytes_limit, n_bytes)


def _make_location(location: str) -> None:
    """Make the folder at first use, and have git leave it alone."""
    if not os.path.isdir(location):
        os.makedirs(location, exist_ok=True)
        Path(location, ".gitignore").write_text("*\n")


def _remove(path: str) -> None:
    try:
        os.remove(path)
    except OSError:
        pass


_n_added: Counter[str] = Counter()  # bytes by location, since this process last looked it through


def _make_room(location: str, bytes_limit: int, n_bytes: int) -> None:
    """Drop what was not used for long; only now and then, for it looks at every file."""
    import joblib

    is_first = location not in _n_added
    _n_added[location] += n_bytes
    if is_first or _n_added[location] > bytes_limit / _PARTS_OF_LIMIT:
        _n_added[location] = 0
        joblib.Memory(location, verbose=0).reduce_size(bytes_limit=bytes_limit)
