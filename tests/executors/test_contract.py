"""Every executor against the contract."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver

import pytest

from amltk_nb import Scheduler, SequentialExecutor
from tests.executors.contract import Contract, FullContract


class TestForkserverProcesses(FullContract):
    can_end = True

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_processes(2, mp_context="forkserver")


class TestSpawnedProcesses(Contract):
    can_end = True

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_processes(2, mp_context="spawn")


class TestThreads(FullContract):
    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_threads(2)


@pytest.mark.may_block  # the calls themselves run on the loop
class TestSequential(FullContract):
    is_parallel = False
    n_workers = 1

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler.with_sequential()


class TestSequentialExecutor(TestSequential):
    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        yield Scheduler(SequentialExecutor())


class TestForeignThreadPool(FullContract):
    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        with ThreadPoolExecutor(2) as executor:
            yield Scheduler(executor)
            assert not executor._shutdown  # it is the user's to close


@pytest.mark.may_block  # its submit() starts processes by itself, on the thread it is called on
class TestForeignProcessPool(Contract):
    survives_stop_now = False

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def no_fork_server_is_left(cls) -> Iterator[None]:
        yield
        forkserver._forkserver._stop()  # type: ignore[attr-defined]  # it would live as long as we do

    @contextmanager
    def open(self) -> Iterator[Scheduler]:
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            yield Scheduler(executor)
