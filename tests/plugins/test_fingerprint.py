"""Fingerprints: what makes a function another one, what does not, and what has none.

A notebook is played by `Notebook`: a fresh `__main__` for each, as a kernel that was restarted has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amltk_nb.scheduling.plugins.fingerprint import (
    UnkeyedError,
    arguments_digest,
    function_digest,
)


class Notebook:
    """A `__main__` in which cells are run."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.n_cells = 0

    def run(self, source: str) -> Notebook:
        self.n_cells += 1
        file = f"/tmp/ipykernel_{id(self)}/{self.n_cells}.py"  # another one in every kernel
        exec(compile(textwrap.dedent(source), file, "exec"), self.names)
        return self

    def __getitem__(self, name: str) -> Any:
        return self.names[name]


CELL = """
    RATE = 3
    SIZES = {"small": [1, 2], "large": [10]}

    class Model:
        bias = 1

        def predict(self, x):
            return helper(x) + self.bias

    def helper(x):
        return x * RATE

    def work(x, mode="small"):
        if mode in {"small", "middle", "large"}:
            return Model().predict(x) + len(SIZES.get(mode, ())) + max([y for y in (x, 2)])
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 3", "RATE = 4"),  # a global of a function that is used
        ('"small": [1, 2]', '"small": [1, 2, 3]'),  # inside of a container
        ("bias = 1", "bias = 2"),  # of a class
        ("return helper(x) + self.bias", "return helper(x) - self.bias"),  # a method
        ("return x * RATE", "return x + RATE"),  # a function that is used
        ('mode="small"', 'mode="large"'),  # a default
        ("(x, 2)", "(x, 5)"),  # a constant within a comprehension
        ("len(SIZES", "id(SIZES"),  # a builtin
    ],
)
def test_what_changes_a_function(old: str, new: str):
    assert old in CELL
    before = Notebook().run(CELL)["work"]
    after = Notebook().run(CELL.replace(old, new))["work"]
    assert function_digest(before) != function_digest(after)


@pytest.mark.parametrize(
    "again",
    [
        lambda: Notebook().run(CELL),
        lambda: Notebook().run("import os").run("x = 1").run(CELL).run(CELL),
        lambda: Notebook().run("# a comment\n\n\n" + textwrap.dedent(CELL)),
        lambda: Notebook().run(CELL.replace("return x * RATE", "return x * RATE  # the rate")),
        lambda: Notebook().run(CELL).run("OTHER = 5"),
    ],
    ids=["another kernel", "run twice", "further down", "a comment", "a global it does not use"],
)
def test_what_does_not(again: Callable[[], Notebook]):
    assert function_digest(Notebook().run(CELL)["work"]) == function_digest(again()["work"])


def test_a_global_that_is_changed_in_place():
    notebook = Notebook().run(CELL)
    before = function_digest(notebook["work"])
    notebook.run('SIZES["small"].append(3)')
    assert function_digest(notebook["work"]) != before


def test_what_a_closure_holds():
    notebook = Notebook().run("""
        def scaled(by):
            def scale(x):
                return x * by
            return scale

        def unfinished():
            def inner():
                return later
            return inner
            later = 1
    """)
    two, again, three = (notebook["scaled"](by) for by in (2, 2, 3))
    assert function_digest(two) == function_digest(again) != function_digest(three)
    assert function_digest(notebook["unfinished"]()) == function_digest(notebook["unfinished"]())


def test_functions_that_name_each_other():
    cell = """
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        class Node:
            def child(self):
                return Node()

        def tree():
            return Node().child()
    """
    for name in ("even", "odd", "tree"):
        digests = {function_digest(Notebook().run(cell)[name]) for _ in range(2)}
        changed = function_digest(Notebook().run(cell.replace("n != 0", "n > 0"))[name])
        assert len(digests) == 1
        assert (changed in digests) is (name == "tree")


def test_functions_around_functions():
    cell = """
        import functools, dataclasses, enum

        def twice(fn):
            @functools.wraps(fn)
            def wrapped(*args):
                return 2 * fn(*args)
            return wrapped

        @twice
        def decorated(x):
            return x + 1

        @functools.lru_cache(maxsize=7)
        def remembered(x):
            return x + 1

        def plain(x, y):
            return x + y

        partial = functools.partial(plain, 1)

        class Color(enum.Enum):
            RED = 1
            BLUE = 2

        @dataclasses.dataclass
        class Point:
            x: int = 1
            tags: list = dataclasses.field(default_factory=list)

            @property
            def double(self):
                return 2 * self.x

            @functools.cached_property
            def half(self):
                return self.x + 1

            @classmethod
            def make(cls):
                return cls(1)

            @staticmethod
            def add(a):
                return a + 1

        class Slotted:
            __slots__ = ("a",)

        def uses(kind=Color.RED):
            return Point, Color, Slotted, functools.reduce(plain, [1])

        def with_lambda(key=lambda v: v + 1):
            return key(1)
    """
    names = ("decorated", "remembered", "partial", "uses", "with_lambda")
    first, second = Notebook().run(cell), Notebook().run(cell)
    edited = Notebook().run(cell.replace("+ 1", "+ 2").replace("x + y", "x - y"))
    for name in names:
        assert function_digest(first[name]) == function_digest(second[name]), name
        assert function_digest(first[name]) != function_digest(edited[name]), name
    for old, new in (
        ("2 * fn(", "3 * fn("),
        ("RED = 1", "RED = 3"),
        ("x: int = 1", "x: int = 2"),
        ("factory=list", "factory=set"),
        ('("a",)', '("b",)'),
        ("plain, 1", "plain, 2"),
        ("2 * self.x", "3 * self.x"),
    ):
        assert old in cell
        other = Notebook().run(cell.replace(old, new))
        same = {function_digest(first[name]) == function_digest(other[name]) for name in names}
        assert same == {True, False}, old


def test_bound_methods_know_their_instance():
    cell = """
        class Scaled:
            def __init__(self, by):
                self.by = by

            def scale(self, x):
                return self.by * x

            def __call__(self, x):
                return self.by * x
    """
    notebook = Notebook().run(cell)
    two, three = notebook["Scaled"](2), notebook["Scaled"](3)
    other = Notebook().run(cell.replace("self.by * x", "self.by + x"))["Scaled"](2)
    again = Notebook().run(cell)["Scaled"](2)
    for of in (lambda obj: obj.scale, lambda obj: obj):
        assert function_digest(of(two)) == function_digest(of(again))
        assert len({function_digest(of(each)) for each in (two, three, other)}) == 3


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Write a package of the user's and import it anew."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def drop() -> None:
        for name in [n for n in sys.modules if n.partition(".")[0] == "mine"]:
            del sys.modules[name]

    def make(**files: str) -> Any:
        drop()
        (tmp_path / "mine").mkdir(exist_ok=True)
        for name, source in {"__init__": "", **files}.items():
            path = tmp_path / "mine" / f"{name}.py"
            path.write_text(textwrap.dedent(source))
            # The interpreter takes bytecode of the same second and size for the same.
            os.utime(path, ns=(len(list(tmp_path.rglob("*"))), hash(source) % 2**31 * 10**9))
        return __import__("mine.tools").tools

    yield make
    drop()


TOOLS = "from mine import deep\ndef shallow(x):\n    return deep.work(x)\n"
DEEP = "STEP = 1\ndef work(x):\n    return x + STEP\ndef unused():\n    return 1\n"


def test_functions_of_modules_of_ones_own(package: Callable[..., Any]):
    def digests(tools: Any) -> tuple[str, str, str]:
        notebook = Notebook().run("import mine.tools\nfrom mine import deep")
        notebook.run("def by_module(x):\n    return mine.tools.shallow(x)")
        notebook.run("def by_other(x):\n    return deep.work(x)")
        fns = tools.shallow, notebook["by_module"], notebook["by_other"]
        return tuple(function_digest(fn) for fn in fns)

    first = digests(package(tools=TOOLS, deep=DEEP))
    assert digests(package(tools=TOOLS, deep=DEEP)) == first
    assert digests(package(tools=TOOLS, deep=DEEP.replace("return 1", "return 2"))) == first
    for changed in (DEEP.replace("STEP = 1", "STEP = 2"), DEEP.replace("x + S", "x - S")):
        assert not set(digests(package(tools=TOOLS, deep=changed))) & set(first)


def test_what_is_found_under_a_name_in_a_module_of_ones_own(package: Callable[..., Any]):
    """As what a compiled module defines: nobody can look into it, so its file's age counts."""
    reference = """
        class Reference:
            def __reduce__(self):
                return "REFERENCE"

        REFERENCE = Reference()
    """
    first = arguments_digest({"x": package(tools=reference).REFERENCE})
    assert arguments_digest({"x": package(tools=reference).REFERENCE}) == first
    assert (
        arguments_digest({"x": package(tools=reference + "\n        # built anew").REFERENCE})
        != first
    )


def test_two_functions_that_use_the_same_module(package: Callable[..., Any]):
    def digest(deep: str) -> str:
        package(tools=TOOLS, deep=deep)
        notebook = Notebook().run("from mine import deep")
        notebook.run(
            "def first():\n    return deep.work(1)\ndef second():\n    return deep.unused()"
        )
        return function_digest(notebook.run("def both():\n    return first(), second()")["both"])

    assert digest(DEEP) != digest(DEEP.replace("return 1", "return 2"))
    assert digest(DEEP) != digest(DEEP.replace("x + S", "x - S"))


def test_what_is_installed_goes_by_its_version(monkeypatch: pytest.MonkeyPatch):
    notebook = Notebook().run("import numpy as np\nimport json")
    fn = notebook.run("def f(x):\n    return np.linalg.norm(json.loads(x))")["f"]
    before = function_digest(fn)
    assert function_digest(np.linalg.norm) == function_digest(np.linalg.norm)
    with monkeypatch.context() as patch:
        patch.setattr(np, "__version__", "0.0.1")
        assert function_digest(fn) != before
    assert function_digest(fn) == before


def test_values_that_look_alike():
    alike: list[Any] = [1, 1.0, True, "1", b"1", [1], (1,), {1}, frozenset({1}), {"1": 1}, None]
    alike += [np.array([1]), np.array([1.0]), np.array([[1]]), "x" * 2_000, "x" * 2_001]
    digests = [arguments_digest({"x": value}) for value in alike]
    assert len(set(digests)) == len(alike)
    assert arguments_digest({"a": "bc"}) != arguments_digest({"ab": "c"})
    shared = [1]
    assert arguments_digest({"a": shared, "b": shared}) == arguments_digest({"a": [1], "b": [1]})


def test_the_hash_is_the_same_in_every_process():
    code = f"""
        from amltk_nb.scheduling.plugins.fingerprint import *
        names = {{"__name__": "__main__"}}
        exec({textwrap.dedent(CELL)!r}, names)
        words = frozenset(map(str, range(20)))
        print(function_digest(names["work"]), arguments_digest({{"a": words, "b": [set(words)]}}))
    """
    told = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_what_cannot_be_told_apart_is_named():
    notebook = Notebook().run("""
        import threading
        lock = threading.Lock()

        def helper():
            return lock

        def work():
            return helper()

        class Locked:
            lock = lock

        def with_class():
            return Locked

        def with_default(x, y=lock):
            return y

        class Odd:
            def __call__(self):
                return 1

            def __reduce__(self):
                raise RuntimeError("not me")
    """)
    for fn, message in (
        (notebook["work"], r"it uses `lock` \(a lock\), which cannot be hashed: TypeError"),
        (notebook["with_class"], r"its class Locked has `lock` \(a lock\)"),
        (notebook["with_default"], r"it has the default `1` \(a lock\)"),
        (notebook["Odd"](), r"it is itself something \(a Odd\), .*RuntimeError: not me"),
    ):
        with pytest.raises(UnkeyedError, match=message):
            function_digest(fn)
    with pytest.raises(UnkeyedError, match=r"it is given `x` \(a generator\)"):
        arguments_digest({"x": (n for n in ())})
