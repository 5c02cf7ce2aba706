"""What every test gets: a loop that must not be blocked, and hypothesis without a stopwatch."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

# Shared cores make single examples slow now and then; a deadline would report the machine.
# CI repeats the same examples, so that a red run can be run again.
settings.register_profile("house", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "house")


@pytest.fixture(autouse=True)
def a_blocked_loop_fails(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make a coroutine test fail when code of ours blocks the event loop it runs on.

    The loop belongs to the user's notebook. `@pytest.mark.may_block` lifts it for one test.
    """
    wanted = inspect.iscoroutinefunction(getattr(request, "function", None))
    if not wanted or request.node.get_closest_marker("may_block"):
        yield
        return
    # Loaded on first use, which is a user's own choice of moment; it reads how many CPUs there are.
    importlib.import_module("amltk_nb.scheduling.executors.local")
    with blockbuster_ctx("amltk_nb"):
        yield
