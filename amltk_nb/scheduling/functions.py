"""Functions as bytes: pickled once, as long as nothing the bytes hold can have changed.

What can be imported goes by reference; functions of `__main__`, lambdas and closures go by value
(cloudpickle). Their bytes are used again while the code, the defaults, the closure and every
global they name are the same objects, and of kinds that cannot be changed in place. A function
that captures a list, an array or an instance is pickled anew at each submit, some 20 µs, since
nobody could tell whether its content is still the same.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary, ref

import cloudpickle

from amltk_nb.scheduling.shipping import (
    SCALARS,
    Fn,
    function_name,
    not_picklable,
    reason,
    type_name,
    unpicklable,
)

__all__ = ["ShippedFunction", "ship_function"]

Source = tuple[str, list[str]]  # the name of a file that is none (a notebook's cell), its lines

_HEAVY_BYTES = 10_000_000
_MAX_CACHED = 1_000
_MISSING = object()


class ShippedFunction:
    """A function as bytes, one object for all calls that send the same bytes."""

    __slots__ = ("__weakref__", "key", "name", "packed", "source")

    def __init__(self, key: bytes, packed: bytes, name: str, source: Source | None) -> None:
        """Describe it.

        Args:
            key: a hash of the bytes: a worker keeps functions by content.
            packed: the pickle.
            name: for messages.
            source: where the worker finds the lines for its tracebacks.
        """
        self.key = key
        self.packed = packed
        self.name = name
        self.source = source


_by_key: WeakValueDictionary[bytes, ShippedFunction] = WeakValueDictionary()
_warned: WeakSet[CodeType] = WeakSet()


def ship_function(fn: Fn) -> ShippedFunction:
    """Pickle a function as it is now, or return what an earlier call made of it.

    Raises:
        NotPicklableError: naming what it captured.
    """
    global _latest
    latest, captured = _latest
    if latest() is fn and captured.unchanged(fn):  # as for every call of a loop
        return captured.shipped
    if type(fn) is not FunctionType and type(fn) is not BuiltinFunctionType:
        return _shipped(fn)
    known = _cache.get(fn)
    if known is not None and known.unchanged(fn):
        _latest = ref(fn), known
        return known.shipped
    captured = _Captured()
    constant = captured.add(fn)
    captured.shipped = _shipped(fn)
    if constant:
        if len(_cache) >= _MAX_CACHED:  # functions that name each other keep each other alive
            _cache.clear()
        _cache[fn] = captured
    return captured.shipped


def _shipped(fn: Fn) -> ShippedFunction:
    try:
        packed: bytes = cloudpickle.dumps(fn, 5)
    except Exception as error:
        raise _blame(fn, error) from error
    if len(packed) > _HEAVY_BYTES:
        _warn_heavy(fn, len(packed))
    key = blake2b(packed, digest_size=16).digest()
    shipped = _by_key.get(key)
    if shipped is None:
        shipped = ShippedFunction(key, packed, function_name(fn), _source(fn))
        _by_key[key] = shipped
    return shipped


def _source(fn: Fn) -> Source | None:
    """Find the lines of a function that stand in no file: a worker's traceback can show them."""
    while not hasattr(fn, "__code__") and hasattr(fn, "__wrapped__"):  # what a plugin put around it
        fn = fn.__wrapped__
    code = getattr(fn, "__code__", None)
    if not isinstance(code, CodeType):
        return None
    entry: Any = linecache.cache.get(code.co_filename)
    # Lines of a real file have a time of change; those a notebook registers have none.
    if entry is None or len(entry) != 4 or entry[1] is not None:
        return None
    return code.co_filename, entry[2]


class _Captured:
    """All that a function's bytes hold beside its code, to be looked at again later."""

    __slots__ = ("cells", "functions", "items", "lengths", "shipped")

    shipped: ShippedFunction

    def __init__(self) -> None:
        # None stands for the function itself: holding it here would keep it alive for ever.
        self.functions: list[tuple[FunctionType | None, Any, Any, Any]] = []
        self.items: list[tuple[Mapping[str, Any], str, Any]] = []
        self.cells: list[tuple[CellType, Any]] = []
        self.lengths: list[tuple[Mapping[str, Any], int]] = []

    def unchanged(self, fn: Any) -> bool:
        for other, code, defaults, keyword_defaults in self.functions:
            if other is None:
                other = fn
            if (
                other.__code__ is not code
                or other.__defaults__ is not defaults
                or other.__kwdefaults__ is not keyword_defaults
            ):
                return False
        for mapping, name, value in self.items:
            if mapping.get(name, _MISSING) is not (fn if value is _SELF else value):
                return False
        for cell, value in self.cells:
            if _contents(cell) is not (fn if value is _SELF else value):
                return False
        for mapping, n_items in self.lengths:  # noqa: SIM110 - a generator costs a microsecond
            if len(mapping) != n_items:
                return False
        return True

    def add(self, fn: Fn) -> bool:
        """Note what a function captures; returns whether all of it can be told unchanged."""
        names = _importable(fn)
        if names is not None:
            self.items.append((names, fn.__qualname__, _SELF))
            return True
        return isinstance(fn, FunctionType) and self._add_function(fn, {id(fn)}, itself=True)

    def _add_function(self, fn: FunctionType, seen: set[int], *, itself: bool = False) -> bool:
        parts = fn.__code__, fn.__defaults__, fn.__kwdefaults__
        self.functions.append((None if itself else fn, *parts))
        me = fn if itself else None
        for mapping, name in _named(fn):
            value = mapping.get(name, _MISSING)
            self.items.append((mapping, name, _SELF if value is me else value))
            if not self._constant(value, seen):
                return False
        for cell in fn.__closure__ or ():
            value = _contents(cell)
            self.cells.append((cell, _SELF if value is me else value))
            if not self._constant(value, seen):
                return False
        self.lengths.append((fn.__dict__, len(fn.__dict__)))
        return all(self._constant(value, seen) for value in fn.__defaults__ or ())

    def _constant(self, value: Any, seen: set[int]) -> bool:
        """Whether a value stays what it is as long as it is the same object."""
        kind = type(value)
        if kind in SCALARS or value is _MISSING or id(value) in seen:
            return True
        if kind in (tuple, frozenset):
            return all(self._constant(item, seen) for item in value)
        if kind is ModuleType:
            return value.__name__ != "__main__" and sys.modules.get(value.__name__) is value
        if _importable(value) is not None:
            return True
        seen.add(id(value))
        return kind is FunctionType and self._add_function(value, seen)


_SELF = object()
_cache: WeakKeyDictionary[Fn, _Captured] = WeakKeyDictionary()
# Asking the dictionary costs as much as all else; held weakly, so that what it captured can go.
_latest: tuple[Callable[[], Fn | None], _Captured] = (lambda: None), _Captured()


def _named(fn: FunctionType) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield where a function finds what it names, and the name."""
    # Attribute names are among them; a global of that name only makes us more careful.
    yield from ((fn.__globals__, name) for name in _names(fn.__code__))
    for mapping in (fn.__kwdefaults__ or {}, fn.__dict__):
        yield from ((mapping, name) for name in mapping)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty: assigned later, or never
        return _MISSING


def _importable(value: Any) -> Mapping[str, Any] | None:
    """Return the module's names if a function or class is found there; None: it goes by value."""
    name = getattr(value, "__module__", None)
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or name == "__main__" or not isinstance(module, ModuleType):
        return None
    packages = {each.split(".")[0] for each in cloudpickle.list_registry_pickle_by_value()}
    names = vars(module)
    found = names.get(getattr(value, "__qualname__", "")) is value
    return names if found and module.__name__.split(".")[0] not in packages else None


def _uses(fn: Fn) -> list[tuple[str, Any]]:
    """List what a function takes along, by name."""
    if not isinstance(fn, FunctionType):
        return []
    cells = zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=False)
    named = [(name, mapping.get(name, _MISSING)) for mapping, name in _named(fn)]
    named += [(name, _contents(cell)) for name, cell in cells]
    named += [("a default", value) for value in fn.__defaults__ or ()]
    return [(name, value) for name, value in named if value is not _MISSING]


def _blame(fn: Fn, error: Exception) -> Exception:
    culprits = unpicklable(_uses(fn))
    if culprits:
        name, value, why = culprits[0]
        because = f"it uses `{name}` (a {type_name(value)}), which cannot be pickled: {reason(why)}"
    else:
        because = reason(error)
    return not_picklable(
        f"{function_name(fn)}() cannot travel to a worker process: {because}. Make such things "
        "inside the function, or pass what they are made from as an argument."
    )


def _warn_heavy(fn: Fn, n_bytes: int) -> None:
    code = getattr(fn, "__code__", None)
    if not isinstance(code, CodeType) or code in _warned:
        return
    _warned.add(code)
    sizes = [(len(cloudpickle.dumps(value, 5)), name) for name, value in _uses(fn)]
    heavy = [f"`{name}` ({size / 1e6:.0f} MB)" for size, name in sizes if size > n_bytes / 10]
    warnings.warn(
        f"{function_name(fn)}() takes {n_bytes / 1e6:.0f} MB along to its worker, because it "
        f"uses {', '.join(heavy) or 'large values'}. Load that inside the function, or pass as "
        "an argument only the part that a call needs.",
        stacklevel=2,
    )
