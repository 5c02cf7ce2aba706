"""What the views read of an engine elsewhere: its workers, what they have, why calls wait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling.executors.remote import Connection, News, RemoteWorker
from amltk_nb.scheduling.snapshot import WorkerRecord
from tests.executors.driver import Driver
from tests.executors.test_remote import HandBackend, add


@pytest.fixture
def backend() -> HandBackend:
    return HandBackend()


@pytest.fixture
def driver(backend: HandBackend) -> Iterator[Driver]:
    with Driver(backend) as driver:
        yield driver


def test_a_worker_with_several_calls_shows_the_first_of_them_and_their_number(
    backend: HandBackend, driver: Driver
) -> None:
    engine = backend.engine()
    calls = [driver.submit(add, n) for n in range(2)]
    engine.wait_for(lambda: len(engine.submitted) == 2)
    for running in ((1, 0), (0, 1), (1, "somebody else's", 0)):
        engine.there = [RemoteWorker("w1", n_slots=2, where="n7", pid=5, running=running)]
        engine.news.changed()
        shown = WorkerRecord(
            name="w1", state="busy", pid=5, call=calls[0].id, n_calls=2, where="n7"
        )
        driver.wait_for(lambda shown=shown: backend.workers() == (shown,))


def test_a_worker_that_is_yet_to_come_says_so(backend: HandBackend, driver: Driver) -> None:
    engine = backend.engine()
    engine.there = [RemoteWorker("w1"), RemoteWorker("w2", is_there=False)]
    engine.news.changed()
    driver.wait_for(lambda: [w.state for w in backend.workers()] == ["idle", "to come"])
    assert backend.n_workers == 2, "it takes calls"


def test_the_record_says_what_it_waits_for_and_when_that_is_long() -> None:
    backend = HandBackend(no_workers_after_s=0.5)
    backend.may_connect.clear()
    with Driver(backend) as driver:
        record = backend.describe()
        assert record.waiting_for == "HandExecutor to start"
        assert record.waiting_since is not None
        assert record.no_workers_after_s == 0.5
        assert record.cannot_restart is not None
        assert record.cannot_restart.startswith("workers of this engine are not replaced")
        backend.may_connect.set()
        driver.wait_for(lambda: backend.describe().waiting_for is None)
        backend.engine().there = []
        driver.wait_for(lambda: backend.describe().waiting_for == "workers of HandExecutor")


@pytest.mark.parametrize(
    ("scheduler", "why"),
    [
        (Scheduler.with_processes(1), None),
        (Scheduler.with_threads(1), "its calls run in this process"),
        (Scheduler.with_sequential(), "its calls run in this process"),
    ],
    ids=["processes", "threads", "sequential"],
)
def test_who_can_replace_workers(scheduler: Scheduler, why: str | None) -> None:
    said = scheduler.backend.describe().cannot_restart
    assert said is None if why is None else str(said).startswith(why)


class EmptyBackend(HandBackend):
    """Starts without any worker."""

    def connect(self, news: News) -> Connection:
        engine = super().connect(news)
        self.engines[0].there = []
        return engine


class Viewer(Driver):
    """Looks at the backend whenever it is told that something changed, as views do."""

    seen: tuple[str | None, ...] = ()

    def changed(self) -> None:
        self.seen += (self.backend.describe().waiting_for,)
        super().changed()


def test_views_are_told_when_it_has_started_and_waits_for_workers() -> None:
    with Viewer(EmptyBackend(no_workers_after_s=1_000.0)) as viewer:
        viewer.wait_for(lambda: "workers of HandExecutor" in viewer.seen)


class ClosingBackend(HandBackend):
    """Closed by another thread each time that it has been looked whether it is open."""

    _looked: object = None

    @property
    def _session(self) -> Any:
        looked, self._looked = self._looked, None
        return looked

    @_session.setter
    def _session(self, session: Any) -> None:
        self._looked = session


def test_views_may_look_while_another_thread_closes_it() -> None:
    backend = ClosingBackend()
    with Driver(HandBackend()) as driver:
        call = driver.submit(add, 1)
        for look in (
            lambda: backend.n_workers,
            backend.slots,
            backend.workers,
            backend.describe,
            backend.restart,
            lambda: backend.end(call),
            lambda: backend.start([]),
        ):
            backend._session = driver.backend._session  # type: ignore[attr-defined]
            look()
