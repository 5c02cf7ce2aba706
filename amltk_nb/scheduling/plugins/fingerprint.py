"""A function with its arguments as a hash that is the same in every process and kernel.

What the function does is hashed, not how it is written down: its bytecode and constants, its
defaults, and whatever it uses of its globals and its closure, functions and classes again by what
they do. What is installed (site-packages, the standard library) is hashed by name and version
instead. So a cell that is run again unchanged gives the same hash and an edited one, or a changed
global, another one.

Neither of the obvious ways does that. joblib's own Memory compares source text, which a worker
does not have for a notebook's function, and overlooks globals: it returns results of old ones.
The bytes of cloudpickle hold file names with the kernel's pid, line numbers and random class ids.

Imported only where calls run: it needs joblib.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from joblib import hashing  # type: ignore[import-untyped]

__all__ = ["UnkeyedError", "arguments_digest", "function_digest"]

_SITES = frozenset({"site-packages", "dist-packages"})
_STDLIB = tuple(os.path.realpath(sysconfig.get_path(k)) + os.sep for k in ("stdlib", "platstdlib"))

# Of a class: where it stands, what Python keeps for itself, and what says nothing that the
# methods do not say. The fields of a dataclass cannot be pickled; its __init__ holds the defaults.
_NOT_OF_A_CLASS = frozenset(
    """
    __module__ __qualname__ __doc__ __dict__ __weakref__ __firstlineno__ __static_attributes__
    __annotations__ __annotate__ __annotate_func__ __annotations_cache__ _abc_impl
    __dataclass_fields__ __dataclass_params__ __orig_bases__ __parameters__ __type_params__
    """.split()  # noqa: SIM905 - one word a line would be a page
)
_BY_NAME = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
)
_SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_SHORT = 1_000  # characters; what is longer is hashed quicker than shown
_LRU_CACHE = type(functools.lru_cache(abs))


class UnkeyedError(Exception):
    """Something has no hash that would mean anything in another process; says what and why."""


def function_digest(fn: Callable[..., Any]) -> str:
    """Hash a function as it is now, with all it uses.

    Raises:
        UnkeyedError: it uses something that cannot be hashed.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with _Blame("it is itself something", fn):
        return _joined((version, _Descriptions().digest(fn)))


def arguments_digest(arguments: Mapping[str, Any]) -> str:
    """Hash arguments by name.

    Raises:
        UnkeyedError: naming the one that cannot be hashed.
    """
    # Each by itself: within one pickle, whether two arguments are equal or the same object shows.
    described = []
    for name, value in sorted(arguments.items()):
        with _Blame(f"it is given `{name}`", value):
            described += [name, _Descriptions().digest(value)]
    return _joined(described)


class _Blame:
    """Turns whatever hashing a value raises into an `UnkeyedError` that says whose value it is."""

    def __init__(self, what: str, value: Any) -> None:
        self._what = what
        self._value = value

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, UnkeyedError):
            type_name = type(self._value).__qualname__
            raise UnkeyedError(
                f"{self._what} (a {type_name}), which cannot be hashed: "
                f"{type(error).__name__}: {error}"
            ) from error


_WithArrays = hashing.NumpyHasher if "numpy" in sys.modules else hashing.Hasher  # joblib loads it


class _Hasher(_WithArrays):  # type: ignore[misc, valid-type]
    """joblib's hash of values, which sorts sets and knows arrays; code goes by content."""

    def __init__(self, descriptions: _Descriptions) -> None:
        super().__init__()
        self._descriptions = descriptions

    def save(self, obj: Any) -> None:
        if type(obj) is types.BuiltinFunctionType and type(obj.__self__) is types.ModuleType:
            obj = _compiled(obj.__self__.__name__, obj.__name__)
        if type(obj) is frozenset:  # joblib sorts sets only, and strings have no order otherwise
            obj = ["frozenset", set(obj)]
        described = self._descriptions.of(obj)
        super().save(obj if described is None else described)

    def save_global(self, obj: Any, name: str | None = None, pack: Any = None) -> None:
        """Save what says of itself that it is found under a name; classes and functions do not."""
        name = name or obj.__qualname__
        home = pickle.whichmodule(obj, name)  # type: ignore[attr-defined]  # unknown to typeshed
        self.save(_compiled(home, name))


class _Descriptions:
    """What code does, in words that are the same everywhere; for the hash of one thing."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}
        self._kept: list[Any] = []  # what is known by its id must stay alive
        self._looked_into: set[tuple[int, frozenset[str]]] = set()  # modules, for names

    def digest(self, value: Any) -> str:
        """Hash any value."""
        if type(value) in _SCALARS and (value is None or len(repr(value)) <= _SHORT):
            return f"{type(value).__name__} {value!r}"
        described = self.of(value)
        return str(_Hasher(self).hash(value)) if described is None else described

    def of(self, obj: Any) -> str | None:
        """Describe code; None: it is a value, which can be pickled."""
        how = _KINDS.get(type(obj))
        if how is None and isinstance(obj, type):
            how = _Descriptions._class
        if how is None:
            return None
        known = self._known.get(id(obj))
        if known is None:
            self._kept.append(obj)
            # For what names itself, by any detour: the how-manieth of those seen.
            self._known[id(obj)] = f"number {len(self._known)}"
            known = self._known[id(obj)] = _joined(how(self, obj))
        return known

    def _function(self, fn: types.FunctionType) -> Iterator[str]:
        if (name := _installed_name(fn)) is not None:
            yield name
            return
        yield "function"
        yield self.digest(fn.__code__)
        defaults = {str(n): value for n, value in enumerate(fn.__defaults__ or (), start=1)}
        yield from self._named("it has the default", defaults)
        yield from self._named("it has the default", fn.__kwdefaults__ or {})
        yield from self._named("it has the attribute", _without(fn.__dict__, {"__wrapped__"}))
        yield from self._named("it uses", dict(_closure(fn)))
        names = dict.fromkeys(_names(fn.__code__))
        yield from self._used({n: fn.__globals__[n] for n in names if n in fn.__globals__}, names)

    def _used(self, found: Mapping[str, Any], names: Mapping[str, Any]) -> Iterator[str]:
        """Describe what code finds under the names it uses; in modules of the user's as well."""
        for name, value in found.items():
            yield name
            if type(value) is types.ModuleType and not _is_installed(value.__name__):
                yield from self._user_module(value, names)
            else:
                with _Blame(f"it uses `{name}`", value):
                    yield self.digest(value)

    def _user_module(self, module: types.ModuleType, names: Mapping[str, Any]) -> Iterator[str]:
        yield module.__name__
        question = id(module), frozenset(names)
        if question in self._looked_into:  # packages name each other
            return
        self._looked_into.add(question)
        inside = vars(module)
        yield from self._used({n: inside[n] for n in names if n in inside}, names)

    def _named(self, what: str, values: Mapping[str, Any]) -> Iterator[str]:
        for name, value in values.items():
            yield name
            with _Blame(f"{what} `{name}`", value):
                yield self.digest(value)

    def _class(self, cls: type) -> Iterator[str]:
        if (name := _installed_name(cls)) is not None:
            yield name
            return
        yield "class"
        yield cls.__qualname__
        for base in cls.__bases__:
            yield self.digest(base)
        body = _without(vars(cls), _NOT_OF_A_CLASS)
        yield from self._named(f"its class {cls.__qualname__} has", dict(sorted(body.items())))

    def _code(self, code: types.CodeType) -> Iterator[str]:
        # Without file and lines: they change when nothing else does.
        yield "code"
        yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount))
        yield repr((code.co_flags, code.co_code, code.co_exceptiontable))
        yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
        for constant in code.co_consts:
            yield self.digest(constant)

    def _module(self, module: types.ModuleType) -> Iterator[str]:
        yield "module"
        yield _with_version(module.__name__, "")
        if not _is_installed(module.__name__):
            public = {n: v for n, v in vars(module).items() if not n.startswith("__")}
            yield from self._used(public, public)

    def _wrapped(self, obj: Any) -> Iterator[str]:
        yield type(obj).__name__
        for name in ("__wrapped__", "__func__", "func", "fget", "fset", "fdel"):
            if (part := getattr(obj, name, None)) is not None:
                yield name
                yield self.digest(part)

    def _proxy(self, proxy: types.MappingProxyType[Any, Any]) -> Iterator[str]:
        yield "mappingproxy"
        yield self.digest(dict(proxy))

    def _by_name(self, obj: Any) -> Iterator[str]:
        yield type(obj).__name__
        yield f"{obj.__objclass__.__qualname__}.{obj.__name__}"


_KINDS: dict[type, Callable[[_Descriptions, Any], Iterator[str]]] = {
    types.FunctionType: _Descriptions._function,
    types.CodeType: _Descriptions._code,
    types.ModuleType: _Descriptions._module,
    types.MappingProxyType: _Descriptions._proxy,
    **dict.fromkeys(
        (property, classmethod, staticmethod, functools.cached_property, _LRU_CACHE),
        _Descriptions._wrapped,
    ),
    **dict.fromkeys(_BY_NAME, _Descriptions._by_name),
}


def _joined(parts: Iterable[str]) -> str:
    """Hash words, telling ("ab", "c") from ("a", "bc")."""
    hashed = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "little"))
        hashed.update(data)
    return hashed.hexdigest()


def _names(code: types.CodeType) -> Iterator[str]:
    # Attribute names are among them; a global of that name only makes us more careful.
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _closure(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # empty: assigned later, or never
            yield f"{name} (empty)", None


def _without(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    left_out = frozenset(names)
    return {name: value for name, value in values.items() if name not in left_out}


def _installed_name(obj: Any) -> str | None:
    """Name what can be found again in something installed; None: it is described by content."""
    module_name, qualified = obj.__module__, obj.__qualname__
    if not isinstance(module_name, str) or not _is_installed(module_name):
        return None
    found: Any = sys.modules[module_name]
    for name in qualified.split("."):
        found = getattr(found, name, None)
    return _with_version(module_name, qualified) if found is obj else None


def _with_version(module_name: str, qualified: str) -> str:
    package = sys.modules.get(module_name.partition(".")[0])
    return f"{module_name}:{qualified}=={getattr(package, '__version__', '')}"


def _compiled(module_name: str, qualified: str) -> str:
    """Name what nobody can look into; if it is one's own, with the time it was built."""
    named = _with_version(module_name, qualified)
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if _is_installed(module_name) or file is None:
        return named
    built = os.stat(file)
    return f"{named} {built.st_mtime_ns} {built.st_size}"


@functools.cache
def _is_installed(module_name: str) -> bool:
    """Whether a module is nobody's work in progress: its version says enough of it."""
    module = sys.modules.get(module_name)
    if module is None or module_name == "__main__":
        return False
    places = [file] if (file := getattr(module, "__file__", None)) else [*_path(module)]
    if not places:  # made by the interpreter, or by hand in a program
        return getattr(module, "__spec__", None) is not None
    return all(_is_of_installation(os.path.realpath(place)) for place in places)


def _path(module: types.ModuleType) -> Iterable[str]:
    return getattr(module, "__path__", ())


def _is_of_installation(place: str) -> bool:
    return not _SITES.isdisjoint(place.split(os.sep)) or place.startswith(_STDLIB)
