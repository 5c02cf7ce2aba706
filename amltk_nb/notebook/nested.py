"""Running a coroutine to its end inside of a cell, on the loop that is running the cell."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from amltk_nb.scheduling.interrupts import wholly

__all__ = ["run_nested"]

T = TypeVar("T")


def run_nested(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end while the loop of the kernel goes on.

    Raises:
        KeyboardInterrupt: the kernel was interrupted; the coroutine was cancelled and has ended.
    """
    # nest_asyncio was the name asked for. It is archived, and on ipykernel 7 it loses the cell
    # that is queued behind a nested run; nest-asyncio2 is its maintained fork. It patches asyncio
    # for good and slows the loop, so it is applied here, at the first need, and never on import.
    import nest_asyncio2

    loop = asyncio.get_running_loop()
    with wholly:
        nest_asyncio2.apply(loop)
    tasks: list[asyncio.Task[T]] = []
    with _interrupts(lambda: _cancel(tasks, loop)) as was_interrupted:
        tasks.append(loop.create_task(main()))
        if was_interrupted():  # before there was anything to cancel
            _cancel(tasks, loop)
        try:
            result = loop.run_until_complete(tasks[0])
        except asyncio.CancelledError:
            if was_interrupted():
                raise KeyboardInterrupt("the run was stopped by an interrupt") from None
            raise
    if was_interrupted():
        raise KeyboardInterrupt("the run was over when the interrupt came")
    return result


def _cancel(tasks: list[asyncio.Task[T]], loop: asyncio.AbstractEventLoop) -> None:
    for task in tasks:
        loop.call_soon_threadsafe(task.cancel)


@contextmanager
def _interrupts(ask_to_stop: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Turn SIGINT into a request: raised as usual, it would land inside the engine's drain."""
    came = threading.Event()

    def on_sigint(_: int, __: Any) -> None:
        came.set()
        ask_to_stop()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    old = signal.signal(signal.SIGINT, on_sigint)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, old)
