"""The README's example gives what the README says, in every kernel and as a script."""

from __future__ import annotations

import re
from pathlib import Path

from tests.kernels.kernel import Kernel

README = Path(__file__).resolve().parent.parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_readmes_example(kernel: Kernel) -> None:
    first, second = blocks("python")
    [expected] = blocks("text")
    kernel.run(first)
    assert kernel.run(second).stdout == expected
