"""Waiting: for several calls, on another thread, and for something slow beside the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent import futures as cf
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from amltk_nb.scheduling.call import Future

__all__ = ["AsCompleted", "gathered", "in_thread", "waited"]

R = TypeVar("R")


async def gathered(futures: Iterable[Future[R]], *, return_exceptions: bool) -> list[R]:
    """Wait for all; each is shielded, so that an interrupted wait cancels no call."""
    waits = [asyncio.shield(future) for future in futures]
    results = await asyncio.gather(*waits, return_exceptions=return_exceptions)
    return list(results)  # type: ignore[arg-type]


def waited(
    future: Future[R], timeout: float | None, *, loop: asyncio.AbstractEventLoop | None = None
) -> R:
    """Wait on another thread than the loop's, or turn the loop meanwhile.

    Args:
        future: of any call.
        timeout: seconds.
        loop: one that rests, to be turned on this thread.

    Raises:
        TimeoutError: the call took longer than `timeout` seconds.
        RuntimeError: this is the loop's own thread.
    """
    if loop is not None:
        return loop.run_until_complete(asyncio.wait_for(asyncio.shield(future), timeout))
    if not future.done():
        ended: cf.Future[None] = cf.Future()
        _watch(future, lambda _: ended.set_result(None))
        ended.result(timeout)
    return future.result()


class AsCompleted(Generic[R]):
    """Yields futures in the order they end."""

    def __init__(
        self,
        futures: Iterable[Future[R]],
        *,
        timeout: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take the futures.

        Args:
            futures: of any calls.
            timeout: seconds for all of them together.
            loop: one that rests, to be turned by `for` on this thread.
        """
        self._futures = list(futures)
        self._timeout = timeout
        self._loop = loop

    async def __aiter__(self) -> AsyncIterator[Future[R]]:
        ended: asyncio.Queue[Future[R]] = asyncio.Queue()
        for future in self._futures:
            future.add_done_callback(ended.put_nowait)
        loop = asyncio.get_running_loop()
        deadline = None if self._timeout is None else loop.time() + self._timeout
        for _ in self._futures:
            async with asyncio.timeout_at(deadline):  # not around the yield: it would cancel
                future = await ended.get()  # whatever the loop's body awaits
            yield future

    def __iter__(self) -> Iterator[Future[R]]:
        return self._blocking() if self._loop is None else self._turning(self._loop)

    def _turning(self, loop: asyncio.AbstractEventLoop) -> Iterator[Future[R]]:
        ended = aiter(self)

        async def following() -> Future[R] | None:
            return await anext(ended, None)

        while (future := loop.run_until_complete(following())) is not None:
            yield future

    def _blocking(self) -> Iterator[Future[R]]:
        ended: SimpleQueue[Future[R]] = SimpleQueue()
        for future in self._futures:
            _watch(future, ended.put)
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        for _ in self._futures:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                yield ended.get(timeout=left)
            except Empty:
                raise TimeoutError(f"not all calls ended within {self._timeout} s") from None


def _watch(future: Future[R], tell: Callable[[Any], object]) -> None:
    """Have `tell` called when a future ends, from a thread that is not its loop's."""
    if future.done():
        tell(future)
        return
    loop = future.get_loop()
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is loop:
        raise RuntimeError(
            "this would block the event loop that the call needs to end. Use `await future`, or "
            "`async for future in scheduler.as_completed(futures)`."
        )
    loop.call_soon_threadsafe(future.add_done_callback, tell)


async def in_thread(fn: Callable[[], None]) -> None:
    """Run something slow beside the loop; not in the loop's own pool, which is the user's."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():  # nobody waits any more
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def main() -> None:
        failure: BaseException | None = None
        try:
            fn()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, failure)
        except RuntimeError:  # the loop was closed meanwhile
            pass

    threading.Thread(target=main, name="amltk-nb-aside", daemon=True).start()
    await done
