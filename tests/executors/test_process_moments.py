"""What happens to worker processes at the worst moment; each test forces one interleaving."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amltk_nb.errors import NotPicklableError, WorkerDiedError
from amltk_nb.scheduling.executors.pool import Pool
from amltk_nb.scheduling.executors.process import ProcessBackend
from amltk_nb.scheduling.shipping import RemoteError
from tests.executors import functions as f
from tests.executors.driver import Driver


def note_and_die(path: str) -> None:
    with open(path, "a") as notes:
        notes.write("ran\n")
    os.kill(os.getpid(), signal.SIGKILL)


def leave_twice(how: str) -> int:
    """Fork, and have the copy leave the call as well."""
    child = os.fork()
    if child == 0 and how == "exit":
        raise SystemExit(7)
    if child == 0 and how == "raise":
        raise ValueError("nobody hears this")
    if child == 0:
        return -1
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


class Panic(BaseException):
    """As Rust code raises it: no `Exception`."""


def panic_outside(pid: int) -> int:
    if os.getpid() != pid:
        raise Panic("only its worker can load it")
    return pid


class PanicsWhenLoaded:
    def __reduce__(self) -> Any:
        return panic_outside, (os.getpid(),)


class PanicsWhenLoadedError(Exception):
    def __reduce__(self) -> Any:
        return panic_outside, (os.getpid(),)


def give_one() -> PanicsWhenLoaded:
    return PanicsWhenLoaded()


def raise_one() -> None:
    raise PanicsWhenLoadedError("no way home")


@pytest.fixture
def one() -> Iterator[Driver]:
    with Driver(ProcessBackend(1)) as driver:
        yield driver


def test_a_new_worker_in_the_place_of_a_dead_one_does_not_hide_whose_call_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    more: list[Any] = []
    part_calls = Pool._part_calls

    def meanwhile(self: Pool, worker: Any, left: list[Any], *about: Any) -> None:
        if left and not more:
            more.extend(driver.submit(f.add, n) for n in range(2))  # wants all free places
        part_calls(self, worker, left, *about)

    monkeypatch.setattr(Pool, "_part_calls", meanwhile)
    with Driver(ProcessBackend(2)) as driver:
        call = driver.submit(note_and_die, str(notes))
        assert isinstance(driver.error(call), WorkerDiedError)
        assert [driver.value(each) for each in more] == [1, 2]
        assert len(driver.outcomes) == 3
    assert notes.read_text() == "ran\n"


@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 7), ("raise", 1)])
def test_a_forked_copy_that_leaves_its_call_ends_there(
    one: Driver, how: str, code: int, tmp_path: Path
) -> None:
    assert one.run(leave_twice, how) == code
    # The worker's counts are right: what runs now can be ended.
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)
    call = one.submit(f.pass_gate, gate)
    with open(gate, "w"):
        assert one.end(call)
        assert one.outcome(call).cancelled
    assert len(one.outcomes) == 2


def test_what_panics_on_its_way_home_costs_no_other_call_its_end(one: Driver) -> None:
    """The loop of the driver reads on the reader's thread, on which all depend."""
    calls = one.submit_batch((f.add, (1,)), (give_one, ()), (raise_one, ()), (f.add, (2,)))
    assert [one.value(calls[0]), one.value(calls[3])] == [2, 3]
    with pytest.raises(NotPicklableError, match="cannot be made again here: Panic"):
        raise one.error(calls[1])
    with pytest.raises(RemoteError, match="no way home"):
        raise one.error(calls[2])
    assert one.run(f.add, 3) == 4
    assert len(one.outcomes) == 5
