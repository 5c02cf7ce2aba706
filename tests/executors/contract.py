"""What every executor owes a scheduler; a subclass per executor says how to make one."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, ClassVar

import psutil
import pytest

from amltk_nb import ExitCode, ExitState, Future, Scheduler
from amltk_nb.errors import CannotEndError
from amltk_nb.scheduling.states import CallState
from amltk_nb.testing import EventRecorder

LONG_S = 30  # far more than anything here takes; a wait of this length is a failure


class OutOfLuck(Exception):
    """An error with a state of its own."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.n = n


def square(x: int, *, plus: int = 0) -> int:
    return x * x + plus


def bad_luck(n: int) -> None:
    raise OutOfLuck(n)


def even_only(n: int) -> int:
    if n % 2:
        raise OutOfLuck(n)
    return n


async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


async def later_bad(n: int) -> None:
    await asyncio.sleep(0)
    raise OutOfLuck(n)


def wait_at(gate: str, value: Any = None) -> Any:
    """Say at a gate that this call has begun, and go on when it opens; in any process."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(gate)
        line.recv(1)
    return value


def wait_or_not(gate: str | None) -> str:
    return "did not wait" if gate is None else wait_at(gate, "waited")


class Gate:
    """Where calls wait until a test lets them go."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.n_arrived = 0
        self._changed = asyncio.Condition()
        self._is_open = asyncio.Event()

    async def came(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._changed:
            self.n_arrived += 1
            self._changed.notify_all()
        await self._is_open.wait()
        writer.close()

    async def arrived(self, n: int) -> None:
        async with asyncio.timeout(LONG_S), self._changed:
            await self._changed.wait_for(lambda: self.n_arrived >= n)

    def open(self) -> None:
        self._is_open.set()


@asynccontextmanager
async def open_gate() -> AsyncIterator[Gate]:
    # A socket's path may have some hundred characters only, and pytest's are long.
    with tempfile.TemporaryDirectory(prefix="amltk-nb-gate-", dir="/tmp") as folder:
        gate = Gate(f"{folder}/gate")
        server = await asyncio.start_unix_server(gate.came, gate.path)
        yield gate
        gate.open()
        server.close()
        await server.wait_closed()


def own_threads() -> set[threading.Thread]:
    """The threads of ours that live; what ends beside the loop is joined first."""
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("amltk")]
    for thread in ours:
        if "aside" in thread.name:
            thread.join(LONG_S)
    return {thread for thread in ours if thread.is_alive()}


def child_pids() -> set[int]:
    alive = psutil.Process().children(recursive=True)
    return {p.pid for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE}


class Contract:
    """What depends on the executor; subclasses are named `Test…` and override what comes first."""

    can_end: ClassVar[bool] = False  # one running call, and no other
    is_parallel: ClassVar[bool] = True  # calls run beside the loop
    n_workers: ClassVar[int] = 2
    # Whether a run that ends at once also ends an executor of the user's for good.
    survives_stop_now: ClassVar[bool] = True

    def open(self) -> AbstractContextManager[Scheduler]:
        """Make a scheduler; leaving the context closes what the scheduler itself does not."""
        raise NotImplementedError(f"{type(self).__name__} must say how to make its scheduler")

    @pytest.fixture
    def scheduler(self) -> Iterator[Scheduler]:
        with self.open() as scheduler:
            yield scheduler

    @pytest.fixture
    async def gate(self) -> AsyncIterator[Gate]:
        if not self.is_parallel:
            pytest.skip("its calls run on the loop itself, so nothing can happen meanwhile")
        async with open_gate() as gate:
            yield gate

    async def test_results_with_all_kinds_of_arguments(self, scheduler: Scheduler):
        run = scheduler.start(end_on_empty=True)
        futures = [scheduler.submit(square, 3), scheduler.submit(square, x=4, plus=1)]
        assert await scheduler.gather(futures) == [9, 17]
        assert await run == ExitCode.EXHAUSTED

    async def test_errors_keep_their_type_and_state(self, scheduler: Scheduler):
        run = scheduler.start(end_on_empty=True)
        future = scheduler.submit(bad_luck, 7)
        with pytest.raises(OutOfLuck) as caught:
            await future
        assert (type(caught.value), caught.value.n) == (OutOfLuck, 7)
        assert await run == ExitCode.EXHAUSTED
        (record,) = scheduler.records()
        assert (record["state"], record["error"]) == ("failed", "OutOfLuck: 7")

    async def test_a_closure_and_a_local_class_travel(self, scheduler: Scheduler):
        class Local:
            def __init__(self, x: int) -> None:
                self.x = x

        captured = 5
        scheduler.start(end_on_empty=True)
        answer = await scheduler.submit(lambda thing: Local(thing.x + captured), Local(2))
        assert (type(answer).__name__, answer.x) == ("Local", 7)
        await scheduler.last_run

    async def test_coroutine_functions_run_to_their_end(self, scheduler: Scheduler):
        run = scheduler.start(end_on_empty=True)
        good, bad = scheduler.submit(later, 1), scheduler.submit(later_bad, 2)
        assert await good == 2
        with pytest.raises(OutOfLuck):
            await bad
        assert await run == ExitCode.EXHAUSTED

    async def test_500_calls_have_exactly_500_ends(self, scheduler: Scheduler):
        task = scheduler.task(even_only)
        recorder = EventRecorder(scheduler)
        run = scheduler.start(end_on_empty=True)
        futures = task.map(range(500))
        assert await run == ExitCode.EXHAUSTED
        outcomes = await scheduler.gather(futures, return_exceptions=True)
        assert [o if isinstance(o, int) else o.n for o in outcomes] == list(range(500))
        assert recorder.counts == {
            "on_start": 1,
            "on_future_submitted": 500,
            "on_future_done": 500,
            "on_future_result": 250,
            "on_future_exception": 250,
            "Task-even_only-1.on_submitted": 500,
            "Task-even_only-1.on_done": 500,
            "Task-even_only-1.on_result": 250,
            "Task-even_only-1.on_returned": 250,
            "Task-even_only-1.on_f_returned": 250,
            "Task-even_only-1.on_exception": 250,
            "Task-even_only-1.on_f_exception": 250,
            "on_empty": 1,
            "on_finishing": 1,
            "on_finished": 1,
        }
        told: dict[Any, list[str]] = {future: [] for future in futures}
        for recorded in recorder.events:
            if recorded.args and recorded.args[0] in told:
                told[recorded.args[0]].append(recorded.name)
        for n, future in enumerate(futures):
            assert told[future][:4] == [
                "on_future_submitted",
                "Task-even_only-1.on_submitted",
                "on_future_done",
                "on_future_exception" if n % 2 else "on_future_result",
            ]
        records = scheduler.records()
        assert Counter(record["state"] for record in records) == {"done": 250, "failed": 250}
        assert all(r["submitted"] and r["started"] <= r["ended"] for r in records)
        assert {record["attempt"] for record in records} == {1}

    async def test_one_running_call_is_ended_or_the_reason_why_not(
        self, scheduler: Scheduler, gate: Gate
    ):
        recorder = EventRecorder(scheduler)
        run = scheduler.start(end_on_empty=True, on_cancelled="raise")
        victim, other = (scheduler.submit(wait_at, gate.path, n) for n in (1, 2))
        await gate.arrived(2)
        if self.can_end:
            assert scheduler.cancel(victim) is True
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(victim, LONG_S)
        else:
            with pytest.raises(CannotEndError, match=r"Call 1 is running: "):
                scheduler.cancel(victim)
            assert victim.cancel() is False
            assert victim.call.state is CallState.RUNNING
        gate.open()
        assert await other == 2
        assert await run == ExitCode.EXHAUSTED
        assert victim.cancelled() is self.can_end
        assert recorder.counts["on_future_cancelled"] == int(self.can_end)
        assert recorder.counts["on_future_result"] == 2 - int(self.can_end)

    async def test_short_calls_do_not_wait_behind_a_long_one(
        self, scheduler: Scheduler, gate: Gate
    ):
        run = scheduler.start()
        task = scheduler.task(wait_or_not)
        await scheduler.gather([task.submit(None) for _ in range(50)])  # known to be short now
        scheduler.pause()
        futures = [task.submit(gate.path if n == 3 else None) for n in range(100)]
        scheduler.resume()
        others = [future for n, future in enumerate(futures) if n != 3]
        await asyncio.wait_for(scheduler.gather(others), LONG_S)
        assert not futures[3].done()
        gate.open()
        assert await futures[3] == "waited"
        assert gate.n_arrived == 1
        run.stop()
        await run

    async def test_stop_waits_for_what_waits_behind_a_long_call(
        self, scheduler: Scheduler, gate: Gate
    ):
        run = scheduler.start()
        task = scheduler.task(wait_or_not)
        await scheduler.gather([task.submit(None) for _ in range(50)])  # known to be short now
        scheduler.pause()
        futures = [task.submit(gate.path if n == 2 else None) for n in range(100)]
        scheduler.resume()
        await gate.arrived(1)
        scheduler.stop()
        asyncio.get_running_loop().call_later(0.2, gate.open)  # late, for one of a short kind
        assert await asyncio.wait_for(run, LONG_S) == ExitCode.STOPPED
        assert all(future.done() for future in futures)
        assert futures[2].result() == "waited"

    async def test_stop_lets_running_calls_finish(self, scheduler: Scheduler, gate: Gate):
        recorder = EventRecorder(scheduler)
        run = scheduler.start()
        n = self.n_workers
        running = [scheduler.submit(wait_at, gate.path, k) for k in range(n)]
        queued = scheduler.map(square, range(3))
        await gate.arrived(n)
        scheduler.on_future_cancelled(gate.open, max_calls=1)
        scheduler.stop(stop_msg="enough")
        assert not scheduler.running()
        assert await run == ExitState(ExitCode.STOPPED)
        assert [future.result() for future in running] == list(range(n))
        assert all(future.cancelled() for future in queued)
        assert recorder.names == [
            "on_start",
            *["on_future_submitted"] * (n + 3),
            "on_stop",
            "on_finishing",
            *["on_future_cancelled"] * 3,
            *["on_future_done", "on_future_result"] * n,
            "on_finished",
        ]

    async def test_stop_now_ends_or_abandons_running_calls(self, scheduler: Scheduler, gate: Gate):
        recorder = EventRecorder(scheduler)
        run = scheduler.start(wait=False)
        n = self.n_workers
        futures = [scheduler.submit(wait_at, gate.path) for _ in range(n + 3)]
        await gate.arrived(n)
        scheduler.stop()
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.STOPPED
        assert all(future.cancelled() for future in futures)
        assert recorder.counts == {
            "on_start": 1,
            "on_future_submitted": n + 3,
            "on_stop": 1,
            "on_finishing": 1,
            "on_future_cancelled": n + 3,
            "on_finished": 1,
        }
        assert recorder.names[-1] == "on_finished"

    async def test_the_same_scheduler_runs_three_times(self, scheduler: Scheduler):
        recorder = EventRecorder(scheduler)
        for n in (1, 2, 3):
            run = scheduler.start(end_on_empty=True)
            futures = scheduler.map(square, range(20))
            assert await run == ExitCode.EXHAUSTED
            assert [future.result() for future in futures] == [k * k for k in range(20)]
            assert recorder.counts["on_future_result"] == 20 * n
            assert recorder.names.count("on_finished") == n
            assert scheduler.n_runs == n
        assert [record["id"] for record in scheduler.records()] == list(range(1, 61))

    async def test_it_runs_again_after_stop_now(self, scheduler: Scheduler, gate: Gate):
        if not self.survives_stop_now:
            pytest.skip("ending its calls ends this executor, which is the user's")
        run = scheduler.start()
        scheduler.submit(wait_at, gate.path)
        await gate.arrived(1)
        scheduler.stop(wait=False)
        await run
        run = scheduler.start(end_on_empty=True)
        future = scheduler.submit(square, 6)
        assert await run == ExitCode.EXHAUSTED
        assert future.result() == 36

    def test_nothing_is_left_behind(self):
        threads, children = own_threads(), set[int]()
        for n in range(3):
            with self.open() as scheduler:
                scheduler.on_start(partial(scheduler.map, square, range(20)))
                assert scheduler.run() == ExitCode.EXHAUSTED
            if n == 0:
                children = child_pids()  # helpers of multiprocessing live on, and are shared
        assert own_threads() <= threads  # an earlier test's abandoned call may have ended since
        assert child_pids() <= children


class FullContract(Contract):
    """Besides, what the scheduler does over it: waiting, steering, every way to end."""

    async def test_chained_calls(self, scheduler: Scheduler):
        reached: list[int] = []

        @scheduler.on_future_result
        def again(result: int) -> None:
            reached.append(result)
            if result < 50:
                scheduler.submit(later, result)

        run = scheduler.start(end_on_empty=True)
        scheduler.submit(later, 0)
        assert await run == ExitCode.EXHAUSTED
        assert reached == list(range(1, 51))

    async def test_map_gather_and_as_completed(self, scheduler: Scheduler):
        run = scheduler.start()
        futures = scheduler.map(square, range(5))
        assert await scheduler.gather(futures) == [0, 1, 4, 9, 16]
        more = scheduler.map(square, [5, 6, 7])
        ended = [future async for future in scheduler.as_completed(more, timeout=LONG_S)]
        assert sorted(future.result() for future in ended) == [25, 36, 49]
        bad = scheduler.map(bad_luck, [1, 2])
        with pytest.raises(OutOfLuck):
            await scheduler.gather(bad)
        errors = await scheduler.gather(bad, return_exceptions=True)
        assert [error.n for error in errors] == [1, 2]
        scheduler.stop()
        assert await run == ExitCode.STOPPED

    async def test_another_thread_can_submit_wait_and_iterate(self, scheduler: Scheduler):
        def elsewhere() -> tuple[int, list[int]]:
            one = scheduler.wait(scheduler.submit(square, 9), timeout=LONG_S)
            futures = scheduler.map(square, range(4))
            ended = scheduler.as_completed(futures, timeout=LONG_S)
            return one, sorted(future.result() for future in ended)

        run = scheduler.start()
        assert await asyncio.to_thread(elsewhere) == (81, [0, 1, 4, 9])
        scheduler.stop()
        await run

    async def test_eight_threads_submit_fifty_calls_each(self, scheduler: Scheduler):
        recorder = EventRecorder(scheduler)
        begin = threading.Barrier(8)
        seen: dict[int, list[int]] = {}
        loop_thread = threading.get_ident()
        told_on: set[int] = set()
        scheduler.on_future_submitted(lambda: told_on.add(threading.get_ident()))

        def submit(k: int) -> None:
            begin.wait()
            futures = [scheduler.submit(square, k, plus=n) for n in range(50)]
            seen[k] = [scheduler.wait(future, timeout=LONG_S) for future in futures]

        run = scheduler.start()
        with ThreadPoolExecutor(8) as threads:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(threads, submit, k) for k in range(8)))
        scheduler.stop()
        assert await run == ExitCode.STOPPED
        assert seen == {k: [k * k + n for n in range(50)] for k in range(8)}
        for event in ("on_future_submitted", "on_future_done", "on_future_result"):
            assert recorder.counts[event] == 400
        assert told_on == {loop_thread}

    async def test_paused_calls_wait_and_can_always_be_cancelled(self, scheduler: Scheduler):
        recorder = EventRecorder(scheduler)
        run = scheduler.start(end_on_empty=True)
        scheduler.pause()
        futures = scheduler.map(square, range(10))
        assert scheduler.snapshot().run.state == "paused"
        cancelled = [futures[n].cancel() for n in (0, 3, 4)] + [scheduler.cancel(futures[9])]
        assert cancelled == [True] * 4
        counts = scheduler.snapshot().counts
        assert (counts[CallState.QUEUED], counts[CallState.RUNNING]) == (6, 0)
        assert counts[CallState.CANCELLED] == 4
        scheduler.resume()
        assert await run == ExitCode.EXHAUSTED
        assert [f.cancelled() for f in futures] == [n in (0, 3, 4, 9) for n in range(10)]
        assert [f.result() for f in futures if not f.cancelled()] == [1, 4, 25, 36, 49, 64]
        assert recorder.counts["on_future_cancelled"] == 4
        assert recorder.counts["on_future_result"] == 6

    async def test_what_runs_goes_on_while_paused(self, scheduler: Scheduler, gate: Gate):
        run = scheduler.start(end_on_empty=True)
        running = [scheduler.submit(wait_at, gate.path, n) for n in range(self.n_workers)]
        await gate.arrived(self.n_workers)
        scheduler.pause()
        waiting = scheduler.submit(square, 5)
        gate.open()
        assert await scheduler.gather(running) == list(range(self.n_workers))
        assert waiting.call.state is CallState.QUEUED
        scheduler.resume()
        assert await waiting == 25
        assert await run == ExitCode.EXHAUSTED

    async def test_an_ended_call_cannot_be_cancelled(self, scheduler: Scheduler):
        run = scheduler.start(end_on_empty=True)
        future = scheduler.submit(square, 2)
        await run
        assert (future.cancel(), scheduler.cancel(future)) == (False, False)
        assert future.result() == 4

    async def test_resubmitting_done_failed_and_cancelled_calls(self, scheduler: Scheduler):
        task = scheduler.task(even_only)
        run = scheduler.start()
        done, failed = task.submit(2), task.submit(3)
        await scheduler.gather([done, failed], return_exceptions=True)
        scheduler.pause()
        cancelled = task.submit(4)
        assert cancelled.cancel()
        scheduler.resume()
        again = [scheduler.resubmit(f) for f in (done, failed.call, cancelled)]
        edited = [scheduler.resubmit(failed, 6), scheduler.resubmit(failed, n=8)]
        outcomes = await scheduler.gather([*again, *edited], return_exceptions=True)
        assert [outcomes[0], type(outcomes[1]), *outcomes[2:]] == [2, OutOfLuck, 4, 6, 8]
        scheduler.stop()
        await run
        told = [
            (r["id"], r["args"], r["resubmitted_from"], r["attempt"], r["state"])
            for r in scheduler.records()
        ]
        assert told == [
            (1, "2", None, 1, "done"),
            (2, "3", None, 1, "failed"),
            (3, "4", None, 1, "cancelled"),
            (4, "2", 1, 2, "done"),
            (5, "3", 2, 2, "failed"),
            (6, "4", 3, 2, "done"),
            (7, "6", 2, 2, "done"),
            (8, "n=8", 2, 2, "done"),
        ]
        assert task.n_called == 8

    async def test_a_timeout_lets_running_calls_finish(self, scheduler: Scheduler, gate: Gate):
        recorder = EventRecorder(scheduler)
        run = scheduler.start(timeout=LONG_S)
        future = scheduler.submit(wait_at, gate.path, "kept")
        await gate.arrived(1)
        scheduler.on_finishing(gate.open)
        run._time_over()  # what its timer calls, without the wait for it
        assert await run == ExitCode.TIMEOUT
        assert future.result() == "kept"
        assert recorder.names == [
            "on_start",
            "on_future_submitted",
            "on_timeout",
            "on_finishing",
            "on_future_done",
            "on_future_result",
            "on_finished",
        ]

    async def test_a_timeout_ends_a_chain_of_calls(self, scheduler: Scheduler):
        @scheduler.on_future_result
        def again() -> None:
            if scheduler.running():
                scheduler.submit(square, 1)

        run = scheduler.start(timeout=0.05)
        scheduler.submit(square, 1)
        assert await asyncio.wait_for(run.wait(), LONG_S) == ExitCode.TIMEOUT

    @pytest.mark.parametrize("mode", ["raise", "end", "continue"])
    async def test_a_call_that_raises_under_each_policy(self, scheduler: Scheduler, mode: Any):
        recorder = EventRecorder(scheduler)
        run = scheduler.start(on_exception=mode, end_on_empty=True)
        future = scheduler.submit(bad_luck, 1)
        if mode == "raise":
            with pytest.raises(OutOfLuck):
                await run
        else:
            await run
        error = future.exception()
        assert run.exit_state == (
            ExitState(ExitCode.EXHAUSTED)
            if mode == "continue"
            else ExitState(ExitCode.EXCEPTION, error)
        )
        assert recorder.names == [
            "on_start",
            "on_future_submitted",
            "on_future_done",
            "on_future_exception",
            "on_empty" if mode == "continue" else "on_stop",
            "on_finishing",
            "on_finished",
        ]

    def test_run_from_a_script_three_times(self, scheduler: Scheduler):
        futures: list[Future[int]] = []
        scheduler.on_start(lambda: futures.extend(scheduler.map(square, range(5))))
        for n in (1, 2, 3):
            assert scheduler.run() == ExitCode.EXHAUSTED
            assert [f.result() for f in futures] == [0, 1, 4, 9, 16] * n

    def test_a_with_block_runs_until_nothing_is_left(self, scheduler: Scheduler):
        with scheduler:
            futures = scheduler.map(square, range(5))
        assert [future.result() for future in futures] == [0, 1, 4, 9, 16]
        assert scheduler.last_run.exit_state == ExitCode.EXHAUSTED

    async def test_an_async_with_block_runs_until_nothing_is_left(self, scheduler: Scheduler):
        async with scheduler:
            future = scheduler.submit(square, 3)
            assert await future == 9
            rest = scheduler.map(square, range(5))
        assert [future.result() for future in rest] == [0, 1, 4, 9, 16]
        assert scheduler.last_run.exit_state == ExitCode.EXHAUSTED
