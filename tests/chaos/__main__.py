"""Run the tests of this folder in full and renew the tables of docs/faults.md.

python -m tests.chaos [what pytest takes]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.figures import COLLECTED_IN, PAGE, shown

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parent / "kernels"
IN_KERNELS = [str(KERNELS / "test_interrupt_storm.py"), str(KERNELS / "test_killed_server.py")]


def main(arguments: list[str]) -> int:
    """Take some minutes; returns what pytest did."""
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "figures"
        collected.touch()
        environ = {**os.environ, "AMLTK_NB_CHAOS": "1", COLLECTED_IN: str(collected)}
        command = [sys.executable, "-m", "pytest", *(arguments or [str(HERE), *IN_KERNELS])]
        code = subprocess.run(command, env=environ, check=False).returncode
        PAGE.write_text(shown(PAGE.read_text(), collected.read_text().splitlines()))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
