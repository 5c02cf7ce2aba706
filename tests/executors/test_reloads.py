"""Workers notice that a module was edited and loaded again."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling.executors.reloads import ReloadWatch


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that can be edited; it is importable as `edited_module`."""
    path = tmp_path / "edited_module.py"
    write(path, 1)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "edited_module", raising=False)
    return path


def write(path: Path, version: int) -> None:
    path.write_text(f"def answer():\n    return {version}\n", encoding="utf-8")


def test_a_reload_is_told_once(module: Path) -> None:
    edited_module, watch = importlib.import_module("edited_module"), ReloadWatch()
    assert [watch.reloaded(edited_module.answer) for _ in range(2)] == [False, False]
    importlib.reload(edited_module)
    assert [watch.reloaded(edited_module.answer) for _ in range(2)] == [True, False]


def test_code_put_into_the_old_function_is_noticed_as_autoreload_does_it(module: Path) -> None:
    edited_module, watch = importlib.import_module("edited_module"), ReloadWatch()
    answer = edited_module.answer
    assert watch.reloaded(answer) is False
    answer.__code__ = importlib.reload(edited_module).answer.__code__
    assert watch.reloaded(answer) is True


def test_what_travels_by_value_or_has_no_code_is_never_reloaded() -> None:
    watch = ReloadWatch()
    several = [len, "".join, lambda: 1, lambda: 2]
    assert [watch.reloaded(fn) for fn in several] == [False] * 4


@pytest.mark.may_block  # the test itself reads and writes files
async def test_after_a_reload_the_workers_run_the_new_code(module: Path) -> None:
    edited_module = importlib.import_module("edited_module")
    async with Scheduler.with_processes(1) as scheduler:
        assert await scheduler.submit(edited_module.answer) == 1
        write(module, 2)
        importlib.reload(edited_module)
        assert await scheduler.submit(edited_module.answer) == 2


async def test_restart_workers_replaces_them_on_request() -> None:
    async with Scheduler.with_processes(1) as scheduler:
        before = await scheduler.submit(os.getpid)
        assert await scheduler.submit(os.getpid) == before
        scheduler.restart_workers()
        assert await scheduler.submit(os.getpid) != before
