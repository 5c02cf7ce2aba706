"""Ten thousand messages that no page should send, to a real scheduler over the widget's own path.

Each is answered once and nothing of a refused one is done.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import comm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amltk_nb import Scheduler
from amltk_nb.scheduling.snapshot import Snapshot
from amltk_nb.scheduling.states import RunState
from amltk_nb.testing import FakeClock, ManualBackend
from amltk_nb.views.commands import COMMANDS
from amltk_nb.views.widget import Dashboard
from tests.scheduling.conftest import settled, turn_until
from tests.views.hostile import ANSWERED, READING, Forger, as_received, is_right, number_of
from tests.views.standin import RecordingComm

N_ROUNDS, N_IN_A_ROUND = 40, 250
DEAD_S = 20

pytestmark = pytest.mark.may_block  # ipywidgets reads the bundle's files; the tests' own waits


class Line(RecordingComm):
    """The connection to a page, that keeps what was answered since it was last asked."""

    def deliver(self, content: Any, buffers: tuple[bytes, ...] = ()) -> None:
        """Hand over a message of the page as a kernel does, on this thread."""
        data = {"method": "custom", "content": content}
        self.handle_msg({"content": {"data": data}, "buffers": list(buffers)})

    def answers(self) -> list[dict[str, Any]]:
        with self.arrived:
            found = self.custom("reply")
            self.messages.clear()
        return found


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Line]]:
    """Show a scheduler's dashboard, or a task's form, on a page; return the connection to it."""
    lines: list[Line] = []
    dashboards: list[Dashboard] = []

    def create(*args: Any, **keys: Any) -> Line:
        line = Line(*args, **keys)
        if keys["data"]["state"]["_model_name"] == "AnyModel":  # the layout has one as well
            lines.append(line)
        return line

    def open_page(scheduler: Scheduler, *, form_of: Any = None) -> Line:
        dashboards.append(Dashboard(scheduler) if form_of is None else form_of.form())
        return lines[-1]

    monkeypatch.setattr(comm, "create_comm", create)
    yield open_page
    for dashboard in dashboards:
        dashboard.close()


@pytest.fixture
async def nothing_escapes(caplog: pytest.LogCaptureFixture) -> AsyncIterator[list[str]]:
    """Fail if anything is raised or logged outside of a reply: into the loop, ipywidgets, logs."""
    raised: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(str(context)))
    yield raised
    loop.set_exception_handler(None)
    loud = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert raised + loud == []


def often(n: int, flag: bool = False, **kwargs: Any) -> int:
    return n


class World:
    """A scheduler with calls in every state, whose calls end by hand."""

    def __init__(self, *, cannot_end: str | None = None) -> None:
        self.backend = ManualBackend(2, cannot_end=cannot_end)
        self.scheduler = Scheduler(self.backend, clock=FakeClock(1_000.0))
        self.task = self.scheduler.task(often)
        self.ends = 0

    async def begin(self) -> None:
        self.scheduler.start(display=False)
        for n in range(9):
            self.task.submit(n) if n % 3 == 2 else self.scheduler.submit(divmod, n, 3)
        for end in (self.backend.finish, self.backend.fail):
            end(self.backend.calls[0], *([ValueError("bad")] if end == self.backend.fail else []))
            await settled()

    async def go_on(self) -> None:
        """Let life go on, so that the next messages meet another moment."""
        self.ends += 1
        if not self.scheduler.last_run or self.scheduler.last_run.done():
            await self.begin()
        elif self.backend.calls:
            call = self.backend.calls[0]
            if self.ends % 3:
                self.backend.finish(call, self.ends)
            else:
                self.backend.fail(call, ValueError(str(self.ends)))
        elif self.scheduler.running():
            self.scheduler.submit(divmod, self.ends, 2)
        await self.quiet()

    async def quiet(self, *, asked: str = "") -> None:
        """Let come to its end what was begun, so that nothing changes by itself after this.

        Args:
            asked: the command that began it.
        """
        await settled()
        run = self.scheduler.last_run
        is_ending = run is not None and self.scheduler.state == RunState.STOPPING
        if run is not None and is_ending and (asked == "stop_now" or not self.backend.calls):
            await asyncio.wait_for(run.over(), DEAD_S)

    def seen(self) -> Snapshot:
        """What can be seen of it, without what the passing of time alone changes."""
        snapshot = self.scheduler.snapshot()
        return replace(snapshot, now=0.0, run=replace(snapshot.run, elapsed_s=0.0))

    async def end(self) -> None:
        run = self.scheduler.last_run
        if run is not None and not run.done():
            self.scheduler.stop(wait=False)
            for call in self.backend.calls:
                self.backend.cancel(call)
            await run.over()


async def sent(line: Line, message: Any, buffers: tuple[bytes, ...] = ()) -> dict[str, Any]:
    """Deliver a message and return its answer, which must be one and such as a page can read."""
    line.deliver(message, buffers)
    answers: list[dict[str, Any]] = []
    await turn_until(lambda: answers.extend(line.answers()) or answers)
    await settled()
    (reply,) = [*answers, *line.answers()]
    assert (reply["kind"], reply["id"]) == ("reply", number_of(message))
    json.dumps(reply, ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert isinstance(reply["ok"], bool)
    assert reply["ok"] == (reply["error"] is None)
    if not reply["ok"]:
        assert reply["error"]
        assert len(reply["error"]) < 2_000
    return reply


async def check(world: World, line: Line, message: Any, buffers: tuple[bytes, ...] = ()) -> str:
    """Deliver a message and require that nothing wrong had an effect; returns what it was."""
    before = world.seen()
    reply = await sent(line, message, buffers)
    right = is_right(message)
    if reply["ok"]:
        assert right, message
    if not reply["ok"] or message["name"] in READING:
        assert world.seen() == before, message
    else:
        await world.quiet(asked=message["name"])
    return ("wrong", "right, refused", "right, done")[right + reply["ok"]]


async def stamps(line: Line) -> list[str]:
    """Ask for the forms there are, as a page does before it sends what was entered."""
    asked: list[dict[str, Any]] = [{"name": "form", "args": {}}] * 9
    asked += [{"name": "edit", "args": {"call": call}} for call in range(1, 10)]
    replies = [
        await sent(line, {"kind": "command", "id": n, **what}) for n, what in enumerate(asked)
    ]
    return [reply["value"]["stamp"] for reply in replies if reply["ok"]]


@pytest.mark.timeout(120)
async def test_ten_thousand_messages_are_each_answered_once_and_wrong_ones_do_nothing(
    open_page: Callable[..., Line], nothing_escapes: list[str]
) -> None:
    kinds: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for seed in range(N_ROUNDS):
        world = World(cannot_end="nobody can" if seed % 4 == 3 else None)
        line = open_page(world.scheduler, form_of=world.task if seed % 4 == 2 else None)
        forger = Forger(seed)
        await world.begin()
        forger.stamps += await stamps(line)
        for n, message in enumerate(forger.messages(N_IN_A_ROUND, heavy_every=125)):
            if n % 10 == 0:
                await world.go_on()
            buffers = (b"\0" * 1_000, b"") if n % 7 == 0 else ()
            what = await check(world, line, message, buffers)
            kinds[what] += 1
            if what == "right, done":
                done[message["name"]] += 1
        await world.end()
    assert kinds.total() == N_ROUNDS * N_IN_A_ROUND == 10_000
    assert kinds["wrong"] > 6_000  # the rest is not idle either
    assert kinds["right, done"] > 500
    assert kinds["right, refused"] > 300
    assert set(done) == COMMANDS.keys(), "each of them was also done"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def no_command(message: Any) -> bool:
    return not is_right(message)


def test_no_value_of_json_gets_through(open_page: Callable[..., Line]) -> None:
    world = World()
    line = open_page(world.scheduler)  # where no loop runs: all is answered at once

    @given(JSON.filter(no_command))
    @settings(max_examples=300)
    def refused(message: Any) -> None:
        before = world.seen()
        line.deliver(as_received(message))
        (reply,) = line.answers()
        assert (reply["ok"], reply["id"]) == (False, number_of(message))
        assert world.seen() == before

    refused()


# ------------------------------------------------------------ right messages at bad moments


def right_ones(seed: int, n: int) -> list[Any]:
    forger = Forger(seed)
    return [as_received(forger.right()) for _ in range(n)]


async def test_when_the_run_is_over(
    open_page: Callable[..., Line], nothing_escapes: list[str]
) -> None:
    world = World()
    line = open_page(world.scheduler)
    await world.begin()
    await world.end()
    for message in right_ones(1, 200):
        reply = await sent(line, message)
        if message["name"] in ANSWERED:
            assert reply["ok"]
        if message["name"] == "start":
            assert reply["ok"]
            await world.end()
        assert reply["ok"] or message["name"] not in ANSWERED | {"stop", "stop_now", "start"}
        assert world.scheduler.last_run.done()


async def test_while_it_is_stopping(
    open_page: Callable[..., Line], nothing_escapes: list[str]
) -> None:
    world = World(cannot_end="nobody can")
    line = open_page(world.scheduler)
    await world.begin()
    assert (await sent(line, {"kind": "command", "id": 1, "name": "stop", "args": {}}))["ok"]
    running = [call.id for call in world.backend.calls]
    assert len(running) == 2
    for message in right_ones(2, 200):
        if message["name"] == "stop_now":
            continue
        reply = await sent(line, message)
        assert reply["ok"] or message["name"] not in ANSWERED | {"stop"}
        assert world.scheduler.state == RunState.STOPPING
        assert [call.id for call in world.backend.calls] == running
    for call in world.backend.calls:
        world.backend.finish(call)
    assert str(await asyncio.wait_for(world.scheduler.last_run, DEAD_S)) == "stopped"


def test_when_its_loop_is_gone(open_page: Callable[..., Line]) -> None:
    """A script's loop ends with `asyncio.run`, and its page may stay."""
    lines: list[Line] = []
    schedulers: list[Scheduler] = []

    async def main() -> None:
        schedulers.append(Scheduler.with_sequential())
        lines.append(open_page(schedulers[0]))
        schedulers[0].start(display=False)
        await schedulers[0].submit(divmod, 7, 3)
        schedulers[0].stop()
        await schedulers[0].last_run

    asyncio.run(main())
    (line,) = lines
    line.answers()
    for message in right_ones(3, 200):
        line.deliver(message)
        (reply,) = line.answers()
        assert reply["id"] == message["id"]
        if message["name"] in ("snapshot", "rows"):
            assert reply["ok"]
        if message["name"] == "start":
            assert "running event loop" in reply["error"]
    assert schedulers[0].n_runs == 1


async def test_when_the_dashboard_is_frozen_or_closed(
    open_page: Callable[..., Line], nothing_escapes: list[str]
) -> None:
    scheduler = Scheduler(ManualBackend(2))
    line = open_page(scheduler)
    (dashboard,) = scheduler._observers
    dashboard.freeze()
    for message in right_ones(4, 50):
        if message["name"] != "start":
            await sent(line, message)
    dashboard.close()
    line.answers()
    for message in right_ones(5, 50):
        line.deliver(message)
    await settled()
    assert line.answers() == []  # nobody is there to be answered
    assert scheduler.n_runs == 0  # and nothing is begun for nobody


@pytest.mark.parametrize(
    "state",
    [
        {"views": ["log"]}, {"views": 3}, {"_esm": "alert(1)"}, {"layout": "IPY_MODEL_gone"},
        {"comm": None}, {}, [], 3, None, "views", {"views": {"nested": [[]]}},
    ],
)  # fmt: skip
async def test_a_page_cannot_change_what_others_are_shown(
    open_page: Callable[..., Line], nothing_escapes: list[str], state: Any
) -> None:
    scheduler = Scheduler(ManualBackend(2))
    line = open_page(scheduler)
    (dashboard,) = scheduler._observers
    before = dashboard.get_state()
    data = {"method": "update", "state": state, "buffer_paths": []}
    line.handle_msg({"content": {"data": data}, "buffers": []})
    assert dashboard.get_state() == before
    assert [kind for kind, sent in line.messages if sent.get("method") == "update"] == []
    assert (await sent(line, {"kind": "command", "id": 1, "name": "snapshot", "args": {}}))["ok"]


@pytest.mark.timeout(60)
async def test_from_many_threads_while_calls_flow(
    open_page: Callable[..., Line], nothing_escapes: list[str]
) -> None:
    """A kernel may hand each message over on another thread; calls end on a third."""
    scheduler = Scheduler.with_threads(2)
    line = open_page(scheduler)
    line.answers()
    run = scheduler.start(display=False)
    futures = scheduler.map(divmod, range(1, 2_000), range(1, 2_000))
    names = ("pause", "resume", "cancel", "detail", "rows", "snapshot")
    plenty = [list(Forger(seed, names=names, ids=2_000).messages(300)) for seed in range(4)]

    def page(messages: list[Any]) -> None:
        for message in messages:
            line.deliver(message)

    await asyncio.gather(*(asyncio.to_thread(page, messages) for messages in plenty))
    if scheduler.state == RunState.PAUSED:
        scheduler.resume()
    await asyncio.wait(futures)
    answered: Counter[Any] = Counter(reply["id"] for reply in line.answers())
    assert answered == Counter(number_of(m) for messages in plenty for m in messages)
    assert all(f.cancelled() or f.result() == (1, 0) for f in futures)
    run.stop()
    await run
