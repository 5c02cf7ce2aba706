"""The examples about events and tasks as cells of one kernel, one after the other."""

from __future__ import annotations

import pytest

from tests.guides.expected_tasks import EXAMPLES, TELL, check
from tests.kernels.kernel import Kernel


@pytest.mark.kernels("6.31", "7.4")
def test_the_examples_as_cells_of_one_kernel(kernel: Kernel) -> None:
    for number, path in enumerate(EXAMPLES, 1):
        kernel.run("globals().pop('scheduler', None);", cell_id="clear")
        # What a script needs asyncio.run for, a cell just awaits.
        source = path.read_text().replace("asyncio.run(main())", "await main()")
        example = kernel.run(source, cell_id=f"example-{number}")
        told = kernel.run(TELL, cell_id="tell")
        assert example.stderr + told.stderr == "", path.stem
        check(path.stem, example.stdout + told.stdout)
