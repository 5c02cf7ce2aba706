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

__all__ = ["AsCompleted", "futures_in", "gathered", "in_thread", "waited"]

R = TypeVar("R")


def futures_in(futures: Iterable[Future[R]], verb: str) -> list[Future[R]]:
    """List the futures that a verb was given.

    Raises:
        TypeError: a single future, or something else among them.
    """
    if asyncio.isfuture(futures):  # which can be iterated over, for `await`
        raise TypeError(f"{verb}() was given {futures!r}: pass a list of futures.")
    found = list(futures)
    for place, future in enumerate(found):
        if future is None:
            raise TypeError(
                f"{verb}() was given None in place {place}: a plugin refused that call. "
                "Leave those out: [future for future in futures if future is not None]."
            )
        if not asyncio.isfuture(future):  # a nested loop swaps the class
            raise TypeError(
                f"{verb}() was given {future!r} in place {place}: pass futures, as submit() "
                "returns them."
            )
    return found


async def gathered(futures: list[Future[R]], *, return_exceptions: bool) -> list[Any]:
    """Wait for all; each is shielded, so that an interrupted wait cancels no call.

    Those that have ended are only read: the loop of an earlier run may be closed.
    """
    waited_for = [future for future in futures if not future.done()]
    if not return_exceptions:
        for future in futures:
            if future.done():
                future.result()
    if waited_for:
        failed = await _ended(waited_for, or_failed=not return_exceptions)
        if failed is not None:
            failed.result()
    return [_outcome(future) if return_exceptions else future.result() for future in futures]


async def _ended(futures: list[Future[R]], *, or_failed: bool) -> Future[R] | None:
    """Wait until all have ended; returns the first that failed, if that is to be the end.

    One callback for each: `asyncio.gather` over `asyncio.shield` takes three, and a future more.
    """
    loop = asyncio.get_running_loop()
    over: asyncio.Future[Future[R] | None] = loop.create_future()
    n_left = len(futures)

    def one_less(future: Future[R]) -> None:
        nonlocal n_left
        n_left -= 1
        if over.done():
            return
        if or_failed and (future.cancelled() or future.exception() is not None):
            over.set_result(future)
        elif n_left == 0:
            over.set_result(None)

    for future in futures:
        if future.get_loop() is not loop:
            raise RuntimeError(
                f"{future!r} belongs to another event loop than this one, which cannot wait for "
                "it. Await it where its scheduler was started, or use scheduler.wait(future)."
            )
    for future in futures:
        future.add_done_callback(one_less)
    try:
        return await over
    finally:
        if n_left:
            for future in futures:
                future.remove_done_callback(one_less)


def _outcome(future: Future[R]) -> R | BaseException:
    try:
        return future.result()
    except BaseException as error:
        return error


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
    if not future.done():
        try:
            _await_end(future, timeout, loop)
        except TimeoutError:
            if not future.done():  # else it is the call's own
                told = f"call {future.call.id} of {future.call.describe()}"
                raise TimeoutError(f"{told} did not end within {timeout} s; it goes on.") from None
    return future.result()


def _await_end(
    future: Future[Any], timeout: float | None, loop: asyncio.AbstractEventLoop | None
) -> None:
    if loop is not None:
        loop.run_until_complete(asyncio.wait([future], timeout=timeout))
        if not future.done():
            raise TimeoutError
        return
    ended: cf.Future[None] = cf.Future()
    _watch(future, lambda _: ended.set_result(None))
    ended.result(timeout)


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
            futures: of any calls; one that is there twice is yielded once.
            timeout: seconds for all of them together.
            loop: one that rests, to be turned by `for` on this thread.
        """
        self._futures = list(dict.fromkeys(futures))
        self._timeout = timeout
        self._loop = loop

    async def __aiter__(self) -> AsyncIterator[Future[R]]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Queue[Future[R]] = asyncio.Queue()
        for future in self._futures:
            _follow(future, ended.put_nowait, loop)
        deadline = None if self._timeout is None else loop.time() + self._timeout
        for n in range(len(self._futures)):
            if ended.empty():
                try:
                    async with asyncio.timeout_at(deadline):  # not around the yield: it would
                        future = await ended.get()  # cancel whatever the loop's body awaits
                except TimeoutError:
                    raise self._timed_out(n) from None
            else:  # those that have ended come first, even if no time is left
                future = ended.get_nowait()
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
        for n in range(len(self._futures)):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                yield ended.get(timeout=left)
            except Empty:
                raise self._timed_out(n) from None

    def _timed_out(self, n_ended: int) -> TimeoutError:
        left, n = len(self._futures) - n_ended, len(self._futures)
        return TimeoutError(
            f"{left} of {n} calls did not end within {self._timeout} s; they go on."
        )


def _follow(
    future: Future[R], tell: Callable[[Any], object], loop: asyncio.AbstractEventLoop
) -> None:
    """Have `tell` called when a future ends; this is the thread of `loop`."""
    if future.done():
        tell(future)
    elif future.get_loop() is loop:
        future.add_done_callback(tell)
    else:
        raise RuntimeError(
            "the call belongs to another event loop, which this one would wait for for ever. Use "
            "`for future in scheduler.as_completed(futures)` in a plain thread."
        )


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

    thread = threading.Thread(target=main, name="amltk-nb-aside", daemon=True)
    thread.start()
    try:
        await done
    finally:
        # It has nothing left to do but end; whoever looks after this finds no thread.
        while thread.is_alive() and not done.cancelled():
            await asyncio.sleep(0)
