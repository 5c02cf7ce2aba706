"""What a type checker makes of users' code: tasks, futures and runs keep their types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
from amltk_nb import Future, Scheduler

def double(x: int, *, times: int = 2) -> float:
    return float(x * times)

async def main(scheduler: Scheduler) -> None:
    task = scheduler.task(double)
    reveal_type(task.submit(1, times=3))
    reveal_type(scheduler.submit(double, 1))
    reveal_type(await scheduler.submit(double, 1))
    reveal_type(scheduler.map(double, [1, 2]))
    reveal_type(await scheduler.gather(scheduler.map(double, [1])))
    reveal_type(scheduler.wait(scheduler.submit(double, 1), timeout=3))
    async for future in scheduler.as_completed([scheduler.submit(double, 1)]):
        reveal_type(future)
    reveal_type(await scheduler.start())
    reveal_type(scheduler.start().exit_state)

def wrong(scheduler: Scheduler) -> None:
    scheduler.task(double).submit("1")
    scheduler.submit(double, 1, timse=3)
    scheduler.run(on_exception="ignore")
    Scheduler.with_threads("2")
"""

REVEALED = [
    "amltk_nb.scheduling.call.Future[float] | None",
    "amltk_nb.scheduling.call.Future[float]",
    "float",
    "list[amltk_nb.scheduling.call.Future[float]]",
    "list[float]",
    "float",
    "amltk_nb.scheduling.call.Future[float]",
    "amltk_nb.scheduling.exit_state.ExitState",
    "amltk_nb.scheduling.exit_state.ExitState | None",
]


def test_types_of_users_code(tmp_path: Path):
    file = tmp_path / "code_of_a_user.py"
    file.write_text(CODE)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", str(file)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        timeout=55,
        check=False,
    )
    mine = [line for line in checked.stdout.splitlines() if file.name in line]
    revealed = [line.split('"')[1] for line in mine if "Revealed type" in line]
    assert [text.replace("builtins.", "") for text in revealed] == REVEALED, (
        checked.stdout + checked.stderr
    )
    wrong_from = CODE.splitlines().index("def wrong(scheduler: Scheduler) -> None:") + 2
    errors = [int(line.split(":")[1]) for line in mine if ": error:" in line]
    assert errors == [wrong_from + n for n in range(4)], checked.stdout
