"""Fixtures for tests in real kernels.

A test that takes `kernel` runs once for each version of the matrix, each in an environment of its
own::

    def test_start_returns_at_once(kernel):
        kernel.run("from amltk_nb import Scheduler; scheduler = Scheduler.with_processes(2)")
        cell = kernel.run("run = scheduler.start(); print('on')")
        assert cell.stdout == "on\\n"

`@pytest.mark.kernels("7.4")` narrows it to some versions. `kernel.execute` returns at once, for a
cell that is to be interrupted or clicked into; `kernel.send` is a click of the page. At the end
every process that the kernel left behind is ended, and makes the test fail.

A test that takes `notebook` instead shares its kernel with the other tests of its module, which
saves seconds. It finds the kernel without live schedulers and processes, and must leave it so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environments import ENVIRONMENTS
from tests.kernels.cells import AT_REST, Gate, left_over
from tests.kernels.kernel import Kernel

VERSIONS = ("6.31", "7.1", "7.4")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernel_version" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("kernels")
        versions = VERSIONS if marker is None else marker.args
        assert set(versions) <= set(VERSIONS), f"no such kernels: {versions}; there are {VERSIONS}"
        metafunc.parametrize("kernel_version", versions, scope="module")


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[Callable[[str], Kernel]]:
    """Start kernels of given versions: `start_kernel("7.4")`; all are closed at the end."""
    kernels: list[Kernel] = []

    def start(version: str, **env: str) -> Kernel:
        python = ENVIRONMENTS[f"ipykernel-{version}"].ready()
        kernels.append(Kernel(python, cwd=tmp_path, env=_environment(tmp_path) | env))
        return kernels[-1]

    yield start
    left = [line for kernel in kernels for line in kernel.close()]
    assert not left, f"{len(left)} processes outlived their kernel: {left}"


@pytest.fixture
def kernel(kernel_version: str, start_kernel: Callable[[str], Kernel]) -> Kernel:
    """A running kernel of each version of the matrix."""
    return start_kernel(kernel_version)


@pytest.fixture(scope="module")
def module_kernels(
    kernel_version: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Kernel]]:
    """The kernels of a module's tests on one version: one, unless a test broke it."""
    kernels: list[Kernel] = []
    yield kernels
    left = [line for kernel in kernels for line in kernel.close()]
    assert not left, f"{len(left)} processes outlived their kernel: {left}"


@pytest.fixture
def notebook(module_kernels: list[Kernel], kernel_version: str, tmp_path: Path) -> Iterator[Kernel]:
    """A running kernel that the tests of a module share; each must leave it at rest."""
    if not module_kernels:
        python = ENVIRONMENTS[f"ipykernel-{kernel_version}"].ready()
        module_kernels.append(Kernel(python, cwd=tmp_path, env=_environment(tmp_path)))
    kernel = module_kernels[-1]
    yield kernel
    try:
        kernel.run(AT_REST, timeout_s=15)
    except BaseException:  # the other tests shall not fail for this one
        module_kernels.pop().close()
        raise
    left = left_over(kernel)
    assert not left, f"{len(left)} processes outlived their run: {left}"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """What holds calls back until the test opens it."""
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()


def _environment(home: Path) -> dict[str, str]:
    # The tester's own IPython profile and Jupyter configuration must not change the outcome.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AMLTK_NB")}
    kept |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTER_CONFIG_DIR": str(home / "config")}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"}
