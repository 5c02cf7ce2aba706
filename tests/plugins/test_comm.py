"""Calls and callbacks that talk: on every kind of worker, in order, and when one side is gone."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from amltk_nb import Comm, ExitCode, Scheduler
from amltk_nb.errors import (
    CommClosedError,
    CommError,
    NotPicklableError,
    PluginError,
    WorkerDiedError,
)
from amltk_nb.scheduling.plugins.retry import Retry
from amltk_nb.scheduling.states import CallState
from amltk_nb.scheduling.transports import sockets
from amltk_nb.scheduling.transports.socket_end import GREETING
from tests.plugins import talkers
from tests.plugins.contract import LONG_S, PluginContract

KINDS = ("forkserver", "spawn", "threads", "pool", "sequential")
EVENTS = ("comm-open", "comm-message", "comm-request", "comm-close")

# Sequential calls run on the loop, and a pool of the user's starts its processes there.
pytestmark = pytest.mark.may_block


class TestComm(PluginContract):
    def make(self) -> Any:
        return Comm.Plugin()

    async def test_a_call_that_says_nothing_makes_no_events(self, scheduler: Scheduler):
        plugin = self.make()
        task = scheduler.task(anything_silent, plugins=plugin)
        run = scheduler.start(end_on_empty=True)
        assert await asyncio.wait_for(task.submit(), LONG_S) is None
        await run
        assert [task.event_counts[name] for name in EVENTS] == [0, 0, 0, 0]
        assert dict(plugin.state()) == {"Open": 0, "Messages": 0, "Requests": 0}


def anything_silent(**_: Any) -> None:
    """Has a comm and does not use it."""


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """An executor of a user's, for all tests: its workers take long to start."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        yield executor
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # it would live as long as we do


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Callable[[str], Scheduler]:
    def made(kind: str) -> Scheduler:
        if kind == "threads":
            return Scheduler.with_threads(2)
        if kind == "sequential":
            return Scheduler.with_sequential()
        if kind == "pool":
            return Scheduler(request.getfixturevalue("pool"))
        return Scheduler.with_processes(2, mp_context=kind)

    return made


@pytest.fixture(params=KINDS)
async def scheduler(
    request: pytest.FixtureRequest, make: Callable[[str], Scheduler]
) -> AsyncIterator[Scheduler]:
    """One of each kind; a test asks for some of them by `kinds`."""
    scheduler = make(request.param)
    yield scheduler
    if scheduler.running():
        scheduler.stop(wait=False)
        await scheduler.last_run.over()


def kinds(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("scheduler", names, indirect=True)


parallel = kinds("forkserver", "spawn", "threads", "pool")
own_processes = kinds("forkserver", "spawn")
one_of_each = kinds("forkserver", "threads")


def talking(scheduler: Scheduler, fn: Callable[..., Any], **options: Any) -> tuple[Any, list[Any]]:
    """Make a task that talks, and a list that gets its events as (name, data)."""
    task = scheduler.task(fn, plugins=Comm.Plugin(**options))
    told: list[Any] = []
    for name in EVENTS:
        task.on(name, lambda msg, name=name: told.append((name, msg.data)), hidden=True)  # type: ignore[misc]
    task.on_f_returned(lambda _, value: told.append(("returned", value)))
    task.on_f_exception(lambda _, error: told.append(("failed", type(error))))
    task.on_cancelled(lambda: told.append(("cancelled", None)))
    return task, told


async def outcome(future: Any) -> Any:
    return await asyncio.wait_for(future, LONG_S)


def answering(task: Any, answer: Callable[[Any], Any]) -> None:
    task.on("comm-request", lambda msg: msg.respond(answer(msg.data)))


# --- the talk


async def test_it_opens_sends_asks_and_closes_in_this_order(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.ask_thrice)
    msgs: list[Any] = []
    for name in EVENTS:
        task.on(name, msgs.append)
    answering(task, lambda x: x * 2)
    run = scheduler.start(end_on_empty=True)
    future = task.submit(3)
    assert await outcome(future) == [1.0, 3.0, 5.0]
    assert await run == ExitCode.EXHAUSTED
    exchanges = [(f"comm-{kind}", i + half) for i in range(3) for kind, half in WORDS]
    assert told == [
        ("comm-open", "hello"),
        *exchanges,
        ("comm-close", None),
        ("returned", [1.0, 3.0, 5.0]),
    ]
    assert [msg.kind for msg in msgs] == [name.removeprefix("comm-") for name, _ in told[:-1]]
    assert {msg.future for msg in msgs} == {future}
    assert {msg.task for msg in msgs} == {task}
    assert task.plugins[0].state() == {"Open": 0, "Messages": 3, "Requests": 3}
    assert [task.event_counts[name] for name in EVENTS] == [1, 3, 3, 1]


WORDS = (("message", 0), ("request", 0.5))


@kinds("forkserver", "threads", "pool")
async def test_all_that_was_said_comes_in_order_and_before_the_end(scheduler: Scheduler):
    """Nobody closes here, and more is sent than any buffer holds."""
    n_calls, n_messages = 6, 3_000
    task, _ = talking(scheduler, talkers.pour)
    heard: dict[int, list[int]] = defaultdict(list)
    at_end: dict[int, tuple[int, bool]] = {}
    closed: set[Any] = set()
    task.on("comm-message", lambda msg: heard[msg.future.call.args[0]].append(msg.data))
    task.on("comm-close", lambda msg: closed.add(msg.future))
    task.on_f_returned(lambda f, first: at_end.update({first: (len(heard[first]), f in closed)}))
    run = scheduler.start(end_on_empty=True)
    for i in range(n_calls):
        task.submit(i * n_messages, n_messages)
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
    firsts = range(0, n_calls * n_messages, n_messages)
    assert at_end == dict.fromkeys(firsts, (n_messages, True))
    assert heard == {first: list(range(first, first + n_messages)) for first in firsts}
    assert task.plugins[0].state()["Messages"] == n_calls * n_messages


@parallel
async def test_the_scheduler_sends_as_well(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.listen)

    @task.on("comm-request")
    def tell(msg: Any) -> None:
        assert [msg.comm.send(text) for text in ("one", "two")] == [True, True]
        msg.respond("zero")

    scheduler.start(end_on_empty=True)
    heard = await outcome(task.submit())
    assert heard[:3] == ["zero", "one", "two"]
    assert heard[3].startswith("nothing was sent to this call within 0 s.")


@one_of_each
async def test_an_answer_may_come_later_and_from_another_thread(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.ask)
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task.on("comm-request", asked.set_result)
    run = scheduler.start(end_on_empty=True)
    future = task.submit("slowly")
    msg = await outcome(asked)
    assert await asyncio.to_thread(msg.respond, "at last") is True
    with pytest.raises(CommError, match="answered only once"):
        msg.respond("again")
    assert await outcome(future) == "at last"
    await run
    assert told[-2:] == [("comm-close", None), ("returned", "at last")]
    assert msg.comm.send("too late") is False


@one_of_each
async def test_a_coroutine_callback_answers(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.ask)

    @task.on("comm-request")
    async def answer(msg: Any) -> None:
        await asyncio.sleep(0)
        msg.respond(msg.data + 1)

    scheduler.start(end_on_empty=True)
    assert await outcome(task.submit(1)) == 2


@one_of_each
async def test_only_a_request_is_answered(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.pour)
    raised: list[str] = []

    @task.on("comm-message")
    def answer(msg: Any) -> None:
        with pytest.raises(CommError) as caught:
            msg.respond(1)
        raised.append(str(caught.value))

    run = scheduler.start(end_on_empty=True)
    task.submit(0, 1)
    await run
    assert raised[0].startswith("only a request can be answered, and this is kind 'message'")


@kinds("forkserver", "threads", "sequential")
async def test_opening_can_wait_for_its_callbacks(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.open_with_ack)
    scheduler.start(end_on_empty=True)
    assert await outcome(task.submit()) == "opened"
    assert told[:2] == [("comm-open", "ready?"), ("comm-close", "bye")]
    task.on("comm-open", lambda msg: 1 / 0, name="divide")
    run = scheduler.last_run
    await run
    scheduler.start(end_on_empty=True)
    kind, text = await outcome(task.submit())
    assert kind == "CommRequestError"
    assert "the callback divide() of comm-open failed: ZeroDivisionError" in text


@one_of_each
async def test_it_may_be_opened_again(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.open_often)
    run = scheduler.start(end_on_empty=True)
    assert await outcome(task.submit(50)) == [True, True, False]
    await run
    assert told[:2] == [("comm-open", None), ("comm-close", None)]
    assert [told[i : i + 3] for i in range(2, 149, 3)] == [
        [("comm-open", None), ("comm-message", i), ("comm-close", None)] for i in range(49)
    ]
    assert told[149:] == [("returned", [True, True, False])]


@one_of_each
async def test_several_megabytes_travel_both_ways(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.echo)
    answering(task, lambda data: data)
    scheduler.start(end_on_empty=True)
    assert await outcome(task.submit(5_000_000)) is True


@one_of_each
async def test_a_call_that_is_tried_again_talks_again(scheduler: Scheduler, tmp_path: Path):
    path = str(tmp_path / "was here")
    task = scheduler.task(talkers.fail_first, plugins=[Comm.Plugin(), Retry(max_attempts=2)])
    told: list[Any] = []
    for name in EVENTS:
        task.on(name, lambda msg: told.append((str(msg.kind), msg.future.call.attempt)))
    asked: list[Any] = []
    task.on("comm-request", asked.append)
    answering(task, lambda been_there: f"been there: {been_there}")
    run = scheduler.start(end_on_empty=True)
    assert await outcome(task.submit(path)) == "been there: True"
    await run
    assert told == [(kind, n) for n in (1, 2) for kind in ("open", "request", "close")]
    assert len(asked) == 2


# --- one side is gone


@own_processes
async def test_a_worker_killed_in_the_midst_of_a_request(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.ask_with_pid)
    asked: list[Any] = []
    task.on("comm-request", asked.append)
    task.on("comm-request", lambda msg: os.kill(msg.data, signal.SIGKILL))
    run = scheduler.start(end_on_empty=True)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        await outcome(task.submit())
    await run
    pid = asked[0].data
    assert told == [
        ("comm-open", None),
        ("comm-request", pid),
        ("comm-close", None),
        ("failed", WorkerDiedError),
    ]
    assert asked[0].respond("too late") is False
    assert task.plugins[0].state()["Open"] == 0


@parallel
async def test_a_body_that_raises_closes(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.raise_within)
    run = scheduler.start(end_on_empty=True)
    with pytest.raises(talkers.Unhappy, match="no further"):
        await outcome(task.submit())
    await run
    assert told == [
        ("comm-open", None),
        ("comm-message", "so far"),
        ("comm-close", None),
        ("failed", talkers.Unhappy),
    ]


@kinds("forkserver", "spawn")
async def test_a_call_that_is_ended_while_it_asks(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.ask)
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task.on("comm-request", asked.set_result)
    run = scheduler.start(end_on_empty=True)
    future = task.submit("?")
    await outcome(asked)
    assert scheduler.cancel(future) is True
    assert await run == ExitCode.EXHAUSTED
    assert told[-2:] == [("comm-close", None), ("cancelled", None)]


@parallel
async def test_a_run_that_stops_leaves_nobody_waiting(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.ask)
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task.on("comm-request", asked.set_result)
    run = scheduler.start()
    future = task.submit("?")
    msg = await outcome(asked)
    run.stop()
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.STOPPED
    kind, text = future.result()
    assert kind == "CommClosedError"
    assert text.startswith("the run is ending and nobody has answered this request.")
    assert [name for name, _ in told] == ["comm-open", "comm-request", "comm-close", "returned"]
    assert msg.respond("too late") is False


@one_of_each
async def test_what_a_stopping_run_is_asked_is_still_answered(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.ask_thrice)

    @task.on("comm-request")
    async def stop_and_answer(msg: Any) -> None:
        scheduler.stop()
        await asyncio.sleep(0)
        msg.respond(msg.data)

    run = scheduler.start()
    future = task.submit(3)
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.STOPPED
    assert future.result() == [0.5, 1.5, 2.5]


@parallel
async def test_who_listens_to_a_run_that_stops_is_told(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.listen_until_the_end)
    task.on("comm-open", lambda msg: msg.comm.send("one thing more"))
    task.on("comm-open", lambda: scheduler.stop())
    run = scheduler.start()
    future = task.submit()
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.STOPPED
    assert future.result() == ["one thing more", "CommClosedError", "CommClosedError", "last"]
    assert [name for name, _ in told] == ["comm-open", "comm-request", "comm-close", "returned"]


async def test_a_thread_that_a_run_abandons_is_told():
    scheduler = Scheduler.with_threads(1)
    came_to_an_end, told = threading.Event(), list[Any]()

    def wait_for_ever(*, comm: Any) -> None:
        end = comm.ticket.connect()
        end.send(("open", None))
        try:
            while True:
                end.receive()
        except CommClosedError as error:
            told.append(error)
        came_to_an_end.set()

    task = scheduler.task(wait_for_ever, plugins=Comm.Plugin())
    task.on("comm-open", lambda: scheduler.stop(wait=False))
    run = scheduler.start()
    future = task.submit()
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.STOPPED
    assert future.cancelled()
    assert await asyncio.to_thread(came_to_an_end.wait, LONG_S)
    assert len(told) == 1


@one_of_each
async def test_a_callback_may_close_it(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.listen_until_closed)
    task.on("comm-open", lambda msg: msg.comm.close())
    run = scheduler.start(end_on_empty=True)
    assert await outcome(task.submit()) == ["CommClosedError", "CommClosedError"]
    await run
    assert [name for name, _ in told] == ["comm-open", "comm-close", "returned"]


# --- nobody answers


@parallel
async def test_nobody_answers_in_time(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.ask_and_raise)
    scheduler.start(end_on_empty=True)
    with pytest.raises(
        TimeoutError, match=r"nobody answered this request within 0\.01 s"
    ) as caught:
        await outcome(task.submit("?"))
    assert type(caught.value).__name__ == "CommTimeoutError"


@kinds("forkserver", "threads", "sequential")
async def test_nobody_listens(scheduler: Scheduler):
    task = scheduler.task(talkers.ask, plugins=Comm.Plugin())
    scheduler.start(end_on_empty=True)
    kind, text = await outcome(task.submit("?"))
    assert kind == "CommRequestError"
    assert text.startswith("nobody listens to comm-request of Task-ask-1: register a callback")


@parallel
async def test_a_callback_that_fails_is_named_to_the_call(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.ask)

    @task.on("comm-request")
    def choose(msg: Any) -> None:
        raise LookupError("no points left")

    run = scheduler.start(end_on_empty=True)
    kind, text = await outcome(task.submit("?"))
    assert await run == ExitCode.EXHAUSTED
    told = "the callback choose() of comm-request failed: LookupError: no points left."
    assert (kind, text) == ("CommRequestError", f"{told} The scheduler's log has its traceback.")
    assert "no points left" in scheduler.snapshot().log[-1].text


@one_of_each
async def test_a_coroutine_callback_that_fails_is_named_too(scheduler: Scheduler):
    task, _ = talking(scheduler, talkers.ask)

    @task.on("comm-request")
    async def choose(msg: Any) -> None:
        await asyncio.sleep(0)
        raise LookupError("none")

    scheduler.start(end_on_empty=True)
    kind, text = await outcome(task.submit("?"))
    assert kind == "CommRequestError"
    assert text.startswith("the callback choose() of comm-request failed: LookupError: none.")


async def test_a_callback_that_answered_before_another_one_failed():
    scheduler = Scheduler.with_threads(1)
    task, _ = talking(scheduler, talkers.ask)
    answering(task, lambda x: x)
    task.on("comm-request", lambda: 1 / 0)
    scheduler.start(end_on_empty=True)
    assert await outcome(task.submit("answered")) == "answered"


@kinds("sequential")
async def test_what_would_wait_for_ever_says_why(scheduler: Scheduler):
    task = scheduler.task(talkers.ask, plugins=Comm.Plugin())
    later = scheduler.task(talkers.ask_in_a_coroutine, plugins=Comm.Plugin())
    for each in (task, later):
        each.on("comm-request", lambda _: None)
    scheduler.start(end_on_empty=True)
    for future in [task.submit("?"), later.submit("?")]:
        kind, text = await outcome(future)
        assert kind == "CommError"
        assert text.startswith("nothing can come in while this call runs: the sequential executor")


# --- what cannot travel


@kinds("forkserver", "pool")
async def test_what_cannot_be_pickled_fails_where_it_is_sent(scheduler: Scheduler):
    task, told = talking(scheduler, talkers.send_a_lock)
    run = scheduler.start(end_on_empty=True)
    text = await outcome(task.submit())
    assert text.startswith("the message (a _thread.lock) cannot be pickled")
    await run
    assert told[1] == ("comm-message", "still talking")


async def test_an_answer_that_cannot_be_pickled_is_a_callback_that_fails():
    scheduler = Scheduler.with_processes(1)
    task, _ = talking(scheduler, talkers.ask)
    msgs: list[Any] = []
    task.on("comm-request", msgs.append)

    @task.on("comm-request")
    def answer(msg: Any) -> None:
        if msg.data == "twice":
            with pytest.raises(NotPicklableError):
                msg.respond(threading.Lock())
            msg.respond("in words")  # it still waits
        else:
            msg.respond(threading.Lock())

    run = scheduler.start(end_on_empty=True)
    kind, text = await outcome(task.submit("once"))
    assert kind == "CommRequestError"
    assert "answer() of comm-request failed: NotPicklableError: the message (a _thread" in text
    assert msgs[0].respond("in words") is False  # the call has been told
    await run
    scheduler.start(end_on_empty=True)
    assert await outcome(task.submit("twice")) == "in words"


async def test_what_cannot_be_made_again_here_is_logged_and_refused():
    scheduler = Scheduler.with_processes(1)
    task, told = talking(scheduler, talkers.send_unloadable)
    run = scheduler.start(end_on_empty=True)
    kind, text = await outcome(task.submit())
    await run
    assert kind == "CommRequestError"
    assert text.startswith("a request of call 1 could not be made again in the scheduler's process")
    assert [name for name, _ in told] == ["comm-open", "comm-close", "returned"]
    logged = [line.text for line in scheduler.snapshot().log if line.source.startswith("comm of")]
    assert [text.split(" could")[0] for text in logged] == [
        "a message of call 1",
        "a request of call 1",
    ]


# --- mistakes


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("closed", "CommError: this comm is not open: use it within `with comm.open():`."),
        ("closed request", "CommError: this comm is not open"),
        ("twice", "CommError: this comm is open already"),
        ("negative", "ValueError: timeout=-1: use seconds, 0 or more, or None"),
    ],
)
async def test_misuse_in_the_call(how: str, told: str):
    scheduler = Scheduler.with_threads(1)
    task, _ = talking(scheduler, talkers.misuse)
    run = scheduler.start(end_on_empty=True)
    assert (await outcome(task.submit(how))).startswith(told)
    await run


@pytest.mark.parametrize("given", [{"comm": 1}, {"args": (1, None, 2)}])
async def test_the_place_of_the_comm_is_taken(given: dict[str, Any]):
    scheduler = Scheduler.with_threads(1)

    def asks(x: int, y: Any = None, comm: Any = None) -> None: ...

    task = scheduler.task(asks, plugins=Comm.Plugin())
    run = scheduler.start()
    with pytest.raises(PluginError, match=r"'comm' of asks.* is filled in by its comm plugin"):
        task.submit(*given.get("args", (1,)), **{k: given[k] for k in given if k == "comm"})
    assert (task.n_called, task.event_counts["on_submitted"]) == (0, 0)
    run.stop()
    await run


@pytest.mark.parametrize("fn", [talkers.named_otherwise, talkers.only_positional, len])
def test_a_function_without_a_place_for_it(fn: Any):
    scheduler = Scheduler.with_threads(1)
    with pytest.raises(PluginError, match=r"has no parameter 'comm' for its comm\. Add one, as in"):
        scheduler.task(fn, plugins=Comm.Plugin())
    assert scheduler.tasks == []


async def test_other_names_for_it():
    scheduler = Scheduler.with_threads(1)
    named = scheduler.task(talkers.named_otherwise, plugins=Comm.Plugin("talk"))
    any_name = scheduler.task(talkers.anything, plugins=Comm.Plugin())
    for task in (named, any_name):
        answering(task, lambda x: x + 1)
    run = scheduler.start(end_on_empty=True)
    futures = [named.submit(2), any_name.submit()]
    assert await asyncio.wait_for(scheduler.gather(futures), LONG_S) == [3, 2]
    await run


@pytest.mark.parametrize("name", ["", "two words", 3])
def test_a_name_that_no_parameter_has(name: Any):
    with pytest.raises(ValueError, match="use the name of the function's parameter"):
        Comm.Plugin(parameter_name=name)


def test_two_of_them_for_one_parameter():
    scheduler = Scheduler.with_threads(1)
    with pytest.raises(PluginError, match="gets its 'comm' from another comm plugin already"):
        scheduler.task(talkers.ask, plugins=[Comm.Plugin(), Comm.Plugin()])


async def test_what_the_task_is_told_of_a_submission_names_it():
    scheduler = Scheduler.with_threads(1)
    task, _ = talking(scheduler, talkers.open_often)
    seen: list[Any] = []
    task.on_submitted(lambda future, n, **kwargs: seen.append(kwargs))
    run = scheduler.start(end_on_empty=True)
    future = task.submit(1)
    await run
    assert [list(kwargs) for kwargs in seen] == [["comm"]]
    assert future.call.kwargs == {}  # as its user gave it, so that it can be submitted again


# --- the socket


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("is_number_known", [True, False])
async def test_who_has_no_token_is_not_heard(tmp_path: Path, is_number_known: bool):
    scheduler = Scheduler.with_processes(1)
    task, told = talking(scheduler, talkers.ask)
    asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task.on("comm-request", asked.set_result)
    run = scheduler.start(end_on_empty=True)
    future = task.submit("?")
    msg = await outcome(asked)
    address, number, token = future.call.work[2]["comm"].ticket.__reduce__()[1]
    assert len(token) == 16
    greeting = (number, bytes(16)) if is_number_known else (number + 1, token)
    evil = GREETING.pack(*greeting) + pickle.dumps(Bomb(tmp_path / "evil"))
    with closing(socket.socket(socket.AF_UNIX)) as line:
        line.connect(address)
        line.sendall(evil)
        line.setblocking(False)
        with pytest.raises(ConnectionResetError):  # hung up on, and the rest of it unread
            await asyncio.get_running_loop().sock_recv(line, 1)
    assert list(tmp_path.iterdir()) == []
    msg.respond("all the same")
    assert await outcome(future) == "all the same"
    await run
    assert [name for name, _ in told] == ["comm-open", "comm-request", "comm-close", "returned"]
    with closing(socket.socket(socket.AF_UNIX)) as line, pytest.raises(ConnectionRefusedError):
        line.connect(address)


async def test_a_late_greeting_is_heard_before_the_end(tmp_path: Path):
    """What a call said last is in the socket when the loop learns that it has ended."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    scheduler = Scheduler.with_processes(1, batching=False)
    plugins = [Comm.Plugin(), Comm.Plugin("other")]
    task = scheduler.task(talkers.knock_and_greet_later, plugins=plugins)
    told: list[Any] = []
    task.on("comm-message", lambda msg: told.append(msg.data))
    task.on_done(lambda: told.append("done"))

    @task.on("comm-request")
    def hold_the_loop(msg: Any) -> None:
        msg.respond()
        with open(fifo) as file:  # until the next call runs, so that this one has ended
            file.read()

    run = scheduler.start(end_on_empty=True)
    task.submit()
    scheduler.submit(talkers.write_to, fifo)
    assert await asyncio.wait_for(run.over(), LONG_S) == ExitCode.EXHAUSTED
    assert told == ["at last", "done"]


async def test_a_fault_in_reading_ends_the_run(monkeypatch: pytest.MonkeyPatch):
    serve, faults = sockets.Door._serve, [LookupError("a fault of ours")]

    def break_down_once(door: Any) -> None:
        if faults:
            raise faults.pop()
        serve(door)

    monkeypatch.setattr(sockets.Door, "_serve", break_down_once)
    scheduler = Scheduler.with_processes(1)
    task, _ = talking(scheduler, talkers.ask)
    run = scheduler.start()
    task.submit("?")
    with pytest.raises(LookupError, match="a fault of ours"):
        await asyncio.wait_for(run.wait(), LONG_S)


def n_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_nothing_is_left_of_the_sockets():
    scheduler = Scheduler.with_processes(2)
    task, _ = talking(scheduler, talkers.ask_thrice)
    answering(task, lambda x: x)
    counts = []
    for _ in range(3):
        run = scheduler.start(end_on_empty=True)
        futures = [task.submit(2) for _ in range(20)]
        await run
        assert [future.call.state for future in futures] == [CallState.DONE] * 20
        counts.append(n_descriptors())
    assert counts[1:] == counts[:1] * 2  # the first run may have opened what all share


async def test_on_systems_without_abstract_names_it_is_a_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets.sys, "platform", "darwin")
    scheduler = Scheduler.with_processes(1)
    task, _ = talking(scheduler, talkers.ask)
    answering(task, lambda x: x)
    run = scheduler.start(end_on_empty=True)
    future = task.submit("by file")
    address = Path(future.call.work[2]["comm"].ticket.__reduce__()[1][0])
    assert address.is_socket()
    assert address.parent.stat().st_mode & 0o777 == 0o700
    assert await outcome(future) == "by file"
    await run
    assert not address.parent.exists()


async def test_a_comm_that_an_attempt_left_open_is_closed_for_the_next_one():
    scheduler = Scheduler.with_threads(1)
    attempts: list[int] = []

    def careless(*, comm: Comm) -> int:
        attempts.append(len(attempts) + 1)
        comm.open()
        comm.send(attempts[-1])
        if len(attempts) < 3:
            raise ValueError("not yet")
        comm.close()
        return attempts[-1]

    task = scheduler.task(careless, plugins=[Comm.Plugin(), Retry(5, wait=0)])
    heard: list[int] = []
    task.on(Comm.MESSAGE, lambda msg: heard.append(msg.data))
    run = scheduler.start(end_on_empty=True)
    assert await asyncio.wait_for(task.submit(), LONG_S) == 3
    await run
    assert heard == [1, 2, 3]
