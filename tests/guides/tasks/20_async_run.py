"""Awaited, beside other coroutines of the same loop."""

import asyncio

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)


@scheduler.on_start
def begin() -> None:
    scheduler.submit(sum, [1, 2, 3])


@scheduler.on_future_result
def tell(result: int) -> None:
    print(result)


async def main() -> None:
    async def count() -> int:
        return 3

    outcome, n = await asyncio.gather(scheduler.async_run(), count())
    print(outcome, n)


asyncio.run(main())
