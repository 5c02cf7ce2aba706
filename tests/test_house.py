"""The house rules that a machine can check: imports point one way, names are exact, parts small."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "amltk_nb"

# From the inside out; a name stands for the module or for all modules of the folder. What is not
# named here may be imported from anywhere, but does not hide what it imports itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("host",),
    ("events", "scheduling.states"),
    ("scheduling.call",),
    ("scheduling.snapshot",),
    ("scheduling.executors.base", "scheduling.plugins.base"),
    ("scheduling.task",),
    ("scheduling.scheduler",),
    ("notebook", "views", "testing"),
)
FAMILIES = (
    ("scheduling.executors", "Backend"),
    ("scheduling.executors", "RemoteBackend"),
    ("scheduling.plugins", "Plugin"),
)
# Modules that are a base themselves, of a family within the family.
INNER_BASES = {"scheduling.executors.remote"}
# The one place that may name members of a family, each inside the function that needs it.
CONSTRUCTOR_TABLES = {"scheduling.scheduler", "scheduling.executors.base"}
SLOW_TO_IMPORT = "IPython rich ipywidgets anywidget pandas psutil multiprocessing"


@dataclass(frozen=True)
class Import:
    """One import statement that runs, resolved to a module of the package."""

    module: str  # "scheduling.call", without the package's name
    line: int
    lazy: bool  # inside a function


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name; the package itself is ""."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if "node_modules" not in path.parts:
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(), str(path))
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def running_imports(
    node: ast.AST, *, lazy: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Find the imports under a node that are executed; those for type checkers are not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, lazy
        elif not is_type_checking(child):
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from running_imports(child, lazy=lazy or function)


def resolved(base: str, name: str) -> str:
    """Name the module that `from base import name` leads to, through names that load lazily."""
    inside = f"{base}.{name}".lstrip(".")
    if inside in sources():
        return inside
    for node in ast.walk(sources()[base]):
        if isinstance(node, ast.ImportFrom) and name in [a.asname or a.name for a in node.names]:
            home = (node.module or "").removeprefix("amltk_nb").lstrip(".")
            return home if home == base or home not in sources() else resolved(home, name)
    return base


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports of its own package."""
    found = []
    for node, lazy in running_imports(sources()[module]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative imports hide the direction"
            if (node.module or "").partition(".")[0] == "amltk_nb":
                base = node.module.removeprefix("amltk_nb").lstrip(".")  # type: ignore[union-attr]
                targets = [resolved(base, alias.name) for alias in node.names]
                found += [Import(target, node.lineno, lazy) for target in targets]
        else:
            names = [alias.name for alias in node.names if alias.name.startswith("amltk_nb")]
            found += [
                Import(n.removeprefix("amltk_nb").lstrip("."), node.lineno, lazy) for n in names
            ]
    return tuple(i for i in found if i.module != module)


def layer_of(module: str) -> int | None:
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return number
    return None


def reached(module: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """The layered modules that a module leads to, each with the way there."""
    for found in imports(module):
        if found.module in seen:
            continue
        way = f"{module}:{found.line}"
        if layer_of(found.module) is None:
            deeper = reached(found.module, seen | {module, found.module})
            yield from ((target, f"{way} → {more}") for target, more in deeper)
        else:
            yield found.module, way


def same_room(one: str, other: str) -> bool:
    """Whether two modules belong to one folder that counts as a whole, like `events`."""
    rooms = [name for names in LAYERS for name in names]
    return any(
        all(module == room or module.startswith(room + ".") for module in (one, other))
        for room in rooms
    )


@pytest.mark.parametrize("module", [m for m in sources() if layer_of(m) is not None])
def test_imports_point_inwards(module: str) -> None:
    own = layer_of(module)
    assert own is not None
    outwards = [
        f"{way} → {target}"
        for target, way in reached(module)
        if (layer_of(target) or 0) >= own
        and not same_room(module, target)
        # The notebook shows the views; the views know nothing of a notebook.
        and not (module.startswith("notebook") and target.startswith("views"))
    ]
    assert outwards == []


def test_no_module_imports_itself_by_a_detour() -> None:
    eager = {m: {i.module for i in imports(m) if not i.lazy} for m in sources()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(eager.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in eager:
        visit(module, ())
    assert done >= set(eager)


def test_nothing_but_the_notebook_imports_views_or_testing() -> None:
    rooms = ("views", "testing", "notebook")
    below = [m for m in sources() if m and m.partition(".")[0] not in rooms]
    found = [
        f"{m}:{i.line} imports {i.module}"
        for m in below
        for i in imports(m)
        if i.module.partition(".")[0] in ("views", "testing")
    ]
    assert found == []


def members(family: str, base: str) -> list[str]:
    """The modules of a family that define a class of its kind."""

    def defines(tree: ast.Module) -> bool:
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        return any(ast.unparse(b).split("[")[0] == base for c in classes for b in c.bases)

    inside = [m for m in sources() if m.startswith(family + ".") and not m.endswith(".base")]
    inside = [m for m in inside if m not in INNER_BASES]
    return [m for m in inside if defines(sources()[m])]


@pytest.mark.parametrize(("family", "base"), FAMILIES)
def test_a_family_is_known_by_its_base_only(family: str, base: str) -> None:
    known = members(family, base)
    assert known, f"no module of {family} defines a {base}"
    wrong = [
        f"{m}:{i.line} imports {i.module}"
        for m in sources()
        for i in imports(m)
        if i.module in known and not (i.lazy and m in CONSTRUCTOR_TABLES)
    ]
    assert wrong == []


def defined_names(tree: ast.Module) -> set[str]:
    """The public names a module defines: functions, classes and CONSTANTS."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            kind = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
            if kind not in ("TypeVar", "ParamSpec", "TypeVarTuple"):
                plain = [t.id for t in targets if isinstance(t, ast.Name)]
                names.update(n for n in plain if n.isupper())
    names.discard("load_ipython_extension")  # IPython's hook; nobody else calls it
    return {name for name in names if not name.startswith("_")}


def exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


@pytest.mark.parametrize("module", sources())
def test_all_names_exactly_what_is_public(module: str) -> None:
    tree = sources()[module]
    names = exported(tree)
    if names is None:
        assert defined_names(tree) == set(), "it defines public names and has no __all__"
        return
    constants_first = sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert names == constants_first
    assert defined_names(tree) <= set(names)
    assert [n for n in names if n.startswith("_")] == []


@pytest.mark.parametrize("module", [m for m in sources() if exported(sources()[m])])
def test_all_promises_nothing_that_is_not_there(module: str) -> None:
    full = f"amltk_nb.{module}".rstrip(".")
    code = f"import importlib; m = importlib.import_module({full!r}); print(*m.__all__)\n"
    code += "for name in m.__all__: getattr(m, name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == exported(sources()[module])


def test_the_package_loads_nothing_slow() -> None:
    code = f"import sys, amltk_nb; print([m for m in {SLOW_TO_IMPORT.split()} if m in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def functions() -> list[tuple[str, int]]:
    """Every function of the package with its length in lines."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (f"{module}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for module, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def test_functions_are_short() -> None:
    assert [f"{name}: {n} lines" for name, n in functions() if n > 60] == []
    assert statistics.median(n for _, n in functions()) < 10


def test_modules_are_small() -> None:
    paths = [p for p in PACKAGE.rglob("*.py") if "node_modules" not in p.parts]
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in paths}
    assert {name: n for name, n in lengths.items() if n > 500} == {}
