"""The nineteen examples as cells of one kernel, one after the other."""

from __future__ import annotations

from tests.guides.expected import EXAMPLES, TELL, check
from tests.kernels.kernel import Kernel


def test_the_examples_as_cells_of_one_kernel(kernel: Kernel) -> None:
    for number, path in enumerate(EXAMPLES, 1):
        example = kernel.run(path.read_text(), cell_id=f"example-{number}")
        told = kernel.run(TELL, cell_id="tell")
        assert example.stderr + told.stderr == "", path.stem
        check(path.stem, example.stdout + told.stdout)
