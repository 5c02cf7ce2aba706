"""What running calls owe their scheduler, and it them, on engines that run calls elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import Comm, ExitCode, Plugin, Progress, ResourceLimits, Retry, Scheduler
from amltk_nb.errors import WorkerDiedError
from amltk_nb.scheduling.snapshot import ProgressRecord
from amltk_nb.scheduling.transports.remote import HOST_VARIABLE
from tests.plugins import talkers
from tests.plugins.contract import LONG_S

EVENTS = ("comm-open", "comm-message", "comm-request", "comm-close")


async def ended(future: Any) -> Any:
    return await asyncio.wait_for(future, LONG_S)


def talking(scheduler: Scheduler, fn: Any, *more: Plugin) -> tuple[Any, list[Any]]:
    """Make a task that talks, and a list that gets its events as (name, data)."""
    task = scheduler.task(fn, plugins=[Comm.Plugin(), *more])
    told: list[Any] = []
    for name in EVENTS:
        task.on(name, lambda msg, name=name: told.append((name, msg.data)), hidden=True)  # type: ignore[misc]
    task.on_f_returned(lambda _, value: told.append(("returned", value)))
    task.on_f_exception(lambda _, error: told.append(("failed", type(error))))
    return task, told


def count_and_mark(fifo: str) -> None:
    talkers.count_up(5_000)
    talkers.write_to(fifo)


def say_and_sleep() -> None:
    print("before")
    threading.Event().wait(LONG_S)


both_ways = pytest.mark.usefixtures("way")


class TalkContract:
    """Subclass it and say how to `open` a scheduler with two workers."""

    def open(self) -> Scheduler:
        raise NotImplementedError(f"{type(self).__name__} must say how to make its scheduler")

    def a_worker_is_gone(self) -> None:
        """Have another one, where the engine does not see to that."""

    @pytest.fixture
    async def scheduler(self) -> AsyncIterator[Scheduler]:
        scheduler = self.open()
        yield scheduler
        if scheduler.running():
            scheduler.stop(wait=False)
            await scheduler.last_run.over()

    @pytest.fixture(params=["on this machine", "by network"])
    def way(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """Have calls take the socket of this machine, or TCP as from another one."""
        if request.param == "by network":
            monkeypatch.setenv(HOST_VARIABLE, "127.0.0.1")
        return str(request.param)

    @both_ways
    async def test_it_opens_sends_asks_and_closes_in_this_order(self, scheduler: Scheduler):
        task, told = talking(scheduler, talkers.ask_thrice)
        task.on("comm-request", lambda msg: msg.respond(msg.data * 2))
        run = scheduler.start(end_on_empty=True)
        assert await ended(task.submit(2)) == [1.0, 3.0]
        assert await run == ExitCode.EXHAUSTED
        assert told == [
            ("comm-open", "hello"),
            ("comm-message", 0),
            ("comm-request", 0.5),
            ("comm-message", 1),
            ("comm-request", 1.5),
            ("comm-close", None),
            ("returned", [1.0, 3.0]),
        ]

    @both_ways
    @pytest.mark.parametrize(("n_calls", "n_messages"), [(4, 3_000), (100, 1)])
    async def test_all_that_was_said_comes_in_order_and_before_the_end(
        self, scheduler: Scheduler, n_calls: int, n_messages: int
    ):
        """Nobody closes here; more is sent than any buffer holds, or a call ends with its word."""
        task, _ = talking(scheduler, talkers.pour)
        heard: dict[int, list[int]] = defaultdict(list)
        at_end: dict[int, int] = {}
        task.on("comm-message", lambda msg: heard[msg.future.call.args[0]].append(msg.data))
        task.on_f_returned(lambda _, first: at_end.update({first: len(heard[first])}))
        run = scheduler.start(end_on_empty=True)
        firsts = range(0, n_calls * n_messages, n_messages)
        for first in firsts:
            task.submit(first, n_messages)
        assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
        assert at_end == dict.fromkeys(firsts, n_messages)
        assert heard == {first: list(range(first, first + n_messages)) for first in firsts}

    @both_ways
    async def test_a_call_within_limits_talks_as_well(self, scheduler: Scheduler):
        """Its function runs in a child of the worker, which is gone at once."""
        task, told = talking(scheduler, talkers.pour, Progress(), ResourceLimits(wall_time=60))
        run = scheduler.start(end_on_empty=True)
        assert await ended(task.submit(0, 500)) == 0
        await run
        assert [data for name, data in told if name == "comm-message"] == list(range(500))
        assert [name for name, _ in told[-2:]] == ["comm-close", "returned"]

    @both_ways
    async def test_the_scheduler_sends_as_well_and_much(self, scheduler: Scheduler):
        listening, _ = talking(scheduler, talkers.listen)
        echoing, _ = talking(scheduler, talkers.echo)
        echoing.on("comm-request", lambda msg: msg.respond(msg.data))

        @listening.on("comm-request")
        def tell(msg: Any) -> None:
            assert [msg.comm.send(text) for text in ("one", "two")] == [True, True]
            msg.respond("zero")

        run = scheduler.start(end_on_empty=True)
        futures = [listening.submit(), echoing.submit(5_000_000)]
        assert (await ended(futures[0]))[:3] == ["zero", "one", "two"]
        assert await ended(futures[1]) is True
        await run

    @both_ways
    async def test_a_worker_killed_in_the_midst_of_a_request(self, scheduler: Scheduler):
        task, told = talking(scheduler, talkers.ask_with_pid)
        asked: list[Any] = []
        task.on("comm-request", asked.append)
        task.on("comm-request", lambda msg: os.kill(msg.data, signal.SIGKILL))
        run = scheduler.start(end_on_empty=True)
        try:
            with pytest.raises(WorkerDiedError):
                await ended(task.submit())
            await run
        finally:
            self.a_worker_is_gone()
        assert told == [
            ("comm-open", None),
            ("comm-request", asked[0].data),
            ("comm-close", None),
            ("failed", WorkerDiedError),
        ]
        assert asked[0].respond("too late") is False
        assert task.plugins[0].state()["Open"] == 0

    @both_ways
    async def test_a_call_that_is_tried_again_talks_again(
        self, scheduler: Scheduler, tmp_path: Path
    ):
        task, _ = talking(scheduler, talkers.fail_first, Retry(2, wait=0))
        told: list[Any] = []
        for name in EVENTS:
            task.on(name, lambda msg: told.append((str(msg.kind), msg.future.call.attempt)))
        task.on("comm-request", lambda msg: msg.respond(f"been there: {msg.data}"))
        run = scheduler.start(end_on_empty=True)
        assert await ended(task.submit(str(tmp_path / "was here"))) == "been there: True"
        await run
        assert told == [(kind, n) for n in (1, 2) for kind in ("open", "request", "close")]

    @both_ways
    async def test_a_run_that_stops_leaves_nobody_waiting(self, scheduler: Scheduler):
        task, told = talking(scheduler, talkers.ask)
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        task.on("comm-request", asked.set_result)
        run = scheduler.start()
        future = task.submit("?")
        await ended(asked)
        run.stop()
        assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.STOPPED
        assert future.result()[0] == "CommClosedError"
        assert [name for name, _ in told] == ["comm-open", "comm-request", "comm-close", "returned"]

    @both_ways
    async def test_a_callback_may_close_it(self, scheduler: Scheduler):
        task, told = talking(scheduler, talkers.listen_until_closed)
        task.on("comm-open", lambda msg: msg.comm.close())
        run = scheduler.start(end_on_empty=True)
        assert await ended(task.submit()) == ["CommClosedError", "CommClosedError"]
        await run
        assert [name for name, _ in told] == ["comm-open", "comm-close", "returned"]

    @both_ways
    async def test_progress_comes_to_its_last_report_and_bars_report(self, scheduler: Scheduler):
        count = scheduler.task(talkers.count_up, plugins=Progress())
        bars = scheduler.task(talkers.count_with_tqdm, plugins=Progress())
        run = scheduler.start(end_on_empty=True)
        futures = [count.submit(1_000, loss=0.5), bars.submit(50)]
        assert await ended(scheduler.gather(futures)) == [1_000, 50]
        await run
        assert [future.call.progress for future in futures] == [
            ProgressRecord(n=1_000, total=1_000, metrics={"loss": 0.5}),
            ProgressRecord(n=50, total=50, metrics={"loss": "1.0"}),
        ]
        assert "50/50" in futures[1].call.output

    @both_ways
    async def test_a_blocked_loop_does_not_hold_up_what_only_reports(
        self, scheduler: Scheduler, tmp_path: Path
    ):
        fifo = str(tmp_path / "fifo")
        os.mkfifo(fifo)
        task = scheduler.task(talkers.count_up, plugins=Progress())
        last = scheduler.task(count_and_mark, plugins=Progress())
        run = scheduler.start(end_on_empty=True)
        futures = [task.submit(5_000), last.submit(fifo)]
        with open(fifo) as file:  # on the loop's thread, as a cell that computes for long
            assert file.read() == "here"
        await run
        assert [future.call.progress.n for future in futures] == [5_000, 5_000]

    async def test_what_a_call_prints_is_in_its_record(self, scheduler: Scheduler):
        def say(x: int) -> None:
            print("said", x)
            print("wrong", x, file=sys.stderr)
            if x == 2:
                raise KeyError(x)

        run = scheduler.start(end_on_empty=True)
        futures = [scheduler.submit(say, x) for x in (1, 2)]
        await run
        assert [future.call.output for future in futures] == [
            "said 1\nwrong 1\n",
            "said 2\nwrong 2\n",
        ]
        assert isinstance(futures[1].exception(), KeyError)

    async def test_a_limit_ends_its_call_whose_words_are_kept(self, scheduler: Scheduler):
        task = scheduler.task(say_and_sleep, plugins=ResourceLimits(wall_time=3))
        run = scheduler.start(end_on_empty=True)
        future = task.submit()
        with pytest.raises(
            ResourceLimits.WallTimeoutException, match="3 s, its limit of wall time"
        ):
            await ended(future)
        await run
        assert future.call.output == "before\n"
