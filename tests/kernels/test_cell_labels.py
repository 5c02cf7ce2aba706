"""What a cell is called in the views: the number that the front end shows beside it."""

from __future__ import annotations

from tests.kernels.kernel import Kernel


def test_a_cell_is_called_as_the_front_end_numbers_it(kernel: Kernel) -> None:
    kernel.run("1 + 1")
    importing = kernel.run("from amltk_nb import host; print(host.current().cell().label)")
    cells = [kernel.run("print(host.current().cell().label)") for _ in range(3)]
    labels = [cell.stdout.strip() for cell in (importing, *cells)]
    assert labels == ["[2]", "[3]", "[4]", "[5]"]
    assert labels == [f"[{cell.reply['execution_count']}]" for cell in (importing, *cells)]  # type: ignore[index]
