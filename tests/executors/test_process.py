"""Processes as workers: real ones, with real signals and real deaths."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from amltk_nb.errors import NotPicklableError, WorkerDiedError, WorkerStartError
from amltk_nb.scheduling import wire
from amltk_nb.scheduling.executors import launch
from amltk_nb.scheduling.executors.process import ProcessBackend
from amltk_nb.scheduling.shipping import RemoteError, RemoteTraceback
from tests.executors import functions as f
from tests.executors.driver import Driver, survivors

METHODS = ("forkserver", "spawn", "fork")

# Forking a process with threads is what the user of `fork` asks for; Python 3.12 warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to:DeprecationWarning")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver(ProcessBackend(2)) as driver:
        yield driver


@pytest.fixture
def one() -> Iterator[Driver]:
    with Driver(ProcessBackend(1)) as driver:
        yield driver


@pytest.fixture
def fifo(tmp_path: Path) -> Callable[[str], str]:
    """Make a gate: a call waits there, and opening it for writing waits for that call."""

    def make(name: str = "gate") -> str:
        path = str(tmp_path / name)
        os.mkfifo(path)
        return path

    return make


def open_gate(path: str) -> None:
    with open(path, "w") as file:
        file.write("go")


def children() -> list[psutil.Process]:
    """Child processes of ours, without the two that serve all pools for as long as we live."""
    me = psutil.Process()
    kept = {child for child in me.children() if is_kept(" ".join(child.cmdline()))}
    return [child for child in me.children(recursive=True) if child not in kept]


def is_kept(command: str) -> bool:
    return "resource_tracker" in command or "multiprocessing.forkserver" in command


# --- results and errors ---------------------------------------------------------------------


def test_results_come_back_from_every_start_method(method: str) -> None:
    with Driver(ProcessBackend(2, mp_context=method)) as driver:
        calls = [driver.submit(f.add, i, b=10) for i in range(20)]
        assert [driver.value(call) for call in calls] == [i + 10 for i in range(20)]
        assert {call.worker for call in calls} <= {"worker-1", "worker-2"}
        assert os.getpid() not in {driver.run(f.pid)}


def test_an_outcome_says_when_how_long_and_where(one: Driver) -> None:
    before = time.time()
    outcome = one.outcome(one.submit(f.spin, 0.05))
    assert outcome.started_at is not None
    assert before < outcome.started_at < time.time()
    assert outcome.seconds is not None
    assert 0.05 <= outcome.seconds < 5
    assert outcome.worker == "worker-1"


def test_values_of_many_kinds_survive_the_way_there_and_back(one: Driver) -> None:
    for value in (None, 1 << 100, "ä" * 100_000, b"x" * 100_000, [1, [2, {"a": {3}}]], 1.5, f.add):
        assert one.run(f.echo, value) == value


def test_errors_keep_type_arguments_and_remote_traceback(method: str) -> None:
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        error = driver.error(driver.submit(f.fail, KeyError, "C", 3))
        assert type(error) is KeyError
        assert error.args == ("C", 3)
        cause = error.__cause__
        assert isinstance(cause, RemoteTraceback)
        assert "in fail" in str(cause)
        assert "raise kind(*args)" in str(cause)
        assert "worker.py" not in str(cause)


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
def test_what_would_end_a_process_is_only_its_calls_error(one: Driver, kind: type) -> None:
    first = one.run(f.pid)
    assert type(one.error(one.submit(f.fail, kind, 3))) is kind
    assert one.run(f.pid) == first


def test_stop_iteration_is_wrapped_and_kept_as_cause(one: Driver) -> None:
    error = one.error(one.submit(f.fail, StopIteration, 5))
    assert type(error) is RuntimeError
    assert isinstance(error.__cause__, StopIteration)
    assert error.__cause__.value == 5


def test_errors_that_cannot_travel_are_stood_in_for(one: Driver) -> None:
    error = one.error(one.submit(f.fail_with_lock))
    assert type(error) is RemoteError
    assert "HoldsLock: held" in str(error)
    assert "fail_with_lock" in str(error.__cause__)


def test_errors_keep_their_type_whatever_their_constructor_wants(one: Driver) -> None:
    error = one.error(one.submit(f.fail_with_two))
    assert type(error) is f.TwoArguments
    assert str(error) == "one and two"
    assert "fail_with_two" in str(error.__cause__)


def test_a_coroutine_function_is_run_to_its_end(one: Driver) -> None:
    assert one.run(f.add_soon, 1, 2) == 3


def test_a_result_that_cannot_travel_names_its_type_and_function(one: Driver) -> None:
    error = one.error(one.submit(f.make_lock))
    assert isinstance(error, NotPicklableError)
    assert "result of make_lock() (a _thread.lock)" in str(error)


def test_a_failing_call_leaves_its_batch_alone(one: Driver) -> None:
    calls = one.submit_batch(
        (f.add, (1,)), (f.fail, (ValueError, "no")), (f.make_lock, ()), (f.add, (2,))
    )
    assert one.value(calls[0]) == 2
    assert isinstance(one.error(calls[1]), ValueError)
    assert isinstance(one.error(calls[2]), NotPicklableError)
    assert one.value(calls[3]) == 3
    assert len(one.outcomes) == 4


def test_results_do_not_wait_for_a_long_call_behind_them(
    one: Driver, fifo: Callable[[str], str]
) -> None:
    gate = fifo("gate")
    quick, slow = one.submit_batch((f.add, (1,)), (f.pass_gate, (gate, "slow")))
    assert one.value(quick) == 2
    assert [outcome.call for outcome in one.outcomes] == [quick]
    open_gate(gate)
    assert one.value(slow) == "slow"


def test_the_listener_is_told_on_the_readers_thread_only(driver: Driver) -> None:
    calls = [driver.submit(f.add, i) for i in range(50)]
    for call in calls:
        driver.outcome(call)
    assert driver.threads == {"amltk-nb-reader"}


# --- functions and classes of __main__, globals ---------------------------------------------


def test_a_functions_globals_live_on_in_its_worker(one: Driver) -> None:
    namespace: dict[str, object] = {"__name__": "__main__", "n": 0}
    exec("def count():\n    global n\n    n += 1\n    return n", namespace)
    count = namespace["count"]
    assert callable(count)
    # Captured globals that are numbers do not change unless they are bound anew here.
    assert [one.run(count) for _ in range(3)] == [1, 2, 3]
    namespace["n"] = 10
    assert [one.run(count), one.run(count)] == [11, 12]


def test_redefined_functions_are_what_runs_next(one: Driver) -> None:
    results = []
    for version in (1, 2, 3):
        namespace: dict[str, object] = {"__name__": "__main__"}
        exec(f"def train():\n    return {version}", namespace)
        results.append(one.run(namespace["train"]))  # type: ignore[arg-type]
    assert results == [1, 2, 3]


def test_many_functions_pass_through_a_worker_that_keeps_some(one: Driver) -> None:
    fns = [(lambda i=i: i) for i in range(300)]
    for _ in range(2):
        calls = one.submit_batch(*((fn, ()) for fn in fns))
        assert [one.value(call) for call in calls] == list(range(300))


def test_workers_have_no_main_module_of_the_user(method: str) -> None:
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        assert (
            driver.run(lambda: __import__("sys").modules["__main__"].__dict__.get("METHODS"))
            is None
        )
        assert "METHODS" not in driver.run(f.has_main)


# --- large things ---------------------------------------------------------------------------


def test_large_arrays_go_there_and_back_writable(driver: Driver) -> None:
    array = np.arange(1_000_000, dtype=float)
    calls = [driver.submit(f.fill, array, float(i)) for i in range(4)]
    for i, call in enumerate(calls):
        result = driver.value(call)
        assert result.shape == (1_000_000,)
        assert (result == i).all()
        result[0] = -1
    assert array[1] == 1.0


def test_changes_after_submission_do_not_show(one: Driver, fifo: Callable[[str], str]) -> None:
    gate = fifo("gate")
    blocker = one.submit(f.pass_gate, gate)
    array = np.zeros(100_000)
    call = one.submit(f.first_element, array)
    array[:] = 7
    open_gate(gate)
    one.value(blocker)
    assert one.value(call) == 0.0


def test_a_result_is_as_it_was_when_returned(one: Driver) -> None:
    calls = one.submit_batch(*((f.shared_buffer, (float(i),)) for i in range(5)))
    assert [one.value(call)[0] for call in calls] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_starting_a_large_call_does_not_wait_for_its_worker(one: Driver) -> None:
    pid = one.run(f.pid)
    os.kill(pid, signal.SIGSTOP)
    call = one.submit(f.first_element, np.full(2_500_000, 3.0))  # would block: nobody reads
    os.kill(pid, signal.SIGCONT)
    assert one.value(call) == 3.0


# --- death ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "arg", "text"),
    [
        (f.die, 3, "exit code 3"),
        (f.die, 0, "exit code 0"),
        (f.die_by, signal.SIGKILL, "SIGKILL; often the machine or the container was out of memory"),
        (f.die_by, signal.SIGSEGV, "SIGSEGV, so compiled code that it called crashed"),
        (f.die_by, signal.SIGTERM, "killed by SIGTERM"),
    ],
)
def test_a_dying_call_says_how_and_others_go_on(
    driver: Driver, fn: Callable[..., None], arg: int, text: str
) -> None:
    others = [driver.submit(f.add, i) for i in range(10)]
    dying = driver.submit(fn, arg)
    others += [driver.submit(f.add, i) for i in range(10)]
    error = driver.error(dying)
    assert type(error) is WorkerDiedError
    assert text in str(error)
    assert f"{fn.__name__}()" in str(error)
    assert [driver.value(call) for call in others] == [*range(1, 11), *range(1, 11)]


def test_a_worker_killed_from_outside(method: str, fifo: Callable[[str], str]) -> None:
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        pid = driver.run(f.pid)
        gate = fifo("gate")
        call = driver.submit(f.pass_gate, gate)
        with open(gate, "w"):  # it runs
            os.kill(pid, signal.SIGKILL)
            assert "SIGKILL" in str(driver.error(call))
        assert driver.run(f.pid) != pid


def test_an_idle_worker_that_dies_is_replaced(one: Driver) -> None:
    pid = one.run(f.pid)
    os.kill(pid, signal.SIGKILL)
    one.wait_for(lambda: not one.backend.workers())
    assert one.run(f.pid) != pid
    assert one.returned_ids == []


def test_calls_behind_a_dying_one_run_elsewhere(one: Driver, tmp_path: Path) -> None:
    path = str(tmp_path / "notes")
    calls = one.submit_batch((f.die, (9,)), (f.note, (path, "a")), (f.note, (path, "b")))
    assert isinstance(one.error(calls[0]), WorkerDiedError)
    assert [one.value(call) for call in calls[1:]] == ["a", "b"]
    assert one.returned_ids == [calls[1].id, calls[2].id]
    assert Path(path).read_text() == "a\nb\n"
    assert len(one.outcomes) == 3


def test_unreported_calls_before_a_dying_one_end_once(one: Driver) -> None:
    calls = one.submit_batch((f.add, (1,)), (f.add, (2,)), (f.die, (9,)), (f.add, (3,)))
    assert isinstance(one.error(calls[2]), WorkerDiedError)
    assert [one.value(calls[i]) for i in (0, 1, 3)] == [2, 3, 4]
    assert Counter(outcome.call.id for outcome in one.outcomes) == {call.id: 1 for call in calls}


def test_a_call_after_which_workers_keep_dying_is_not_run_for_ever(one: Driver) -> None:
    # The thread ends the process when the call has finished and its batch goes on.
    def poison() -> None:
        import os
        import threading

        threading.Timer(0.0, os._exit, (7,)).start()

    calls = one.submit_batch((poison, ()), (f.spin, (0.5,)))
    for call in calls:
        one.outcome(call)
    assert len(one.outcomes) == 2


def test_a_call_that_workers_die_of_before_it_begins_is_not_handed_over_for_ever() -> None:
    backend = ProcessBackend(1, initializer=f.leave_memory, initargs=(300_000_000,))
    with Driver(backend) as one:
        one.run(f.add, 1)
        large = b"x" * 200_000_000
        calls = one.submit_batch((f.add, (1,)), (len, (large,)), (f.add, (2,)))
        error = one.error(calls[1])
        assert type(error) is WorkerDiedError
        assert "3 workers died before they began len()" in str(error)
        assert "MemoryError" in "".join(error.__notes__)
        assert [one.value(calls[i]) for i in (0, 2)] == [2, 3]
        assert Counter(one.returned_ids)[calls[1].id] >= 2
        assert len(one.outcomes) == 4


def test_a_call_that_closes_all_descriptors_fails_alone(one: Driver) -> None:
    assert isinstance(one.error(one.submit(f.close_everything)), WorkerDiedError)
    assert one.run(f.add, 1) == 2


def test_the_fork_servers_death_hurts_no_running_call(fifo: Callable[[str], str]) -> None:
    with Driver(ProcessBackend(2, mp_context="forkserver")) as driver:
        gate = fifo("gate")
        call = driver.submit(f.pass_gate, gate, "alive")
        with open(gate, "w"):
            ours = psutil.Process().children()  # its own children look like it
            # Other tests leave the standard library's own behind; ours preloads our worker.
            (server,) = (each for each in ours if "amltk_nb" in " ".join(each.cmdline()))
            server.kill()
            server.wait(10)
            assert driver.run(f.add, 1) == 2  # a new worker by a new server
        assert driver.value(call) == "alive"


def test_a_fork_server_that_cannot_be_reached_is_replaced() -> None:
    with Driver(ProcessBackend(2, mp_context="forkserver")) as driver:
        first = driver.run(f.pid)
        os.unlink(launch._SERVER._forkserver_address)  # as a cleaner of the temporary folder does
        driver.backend.restart()
        assert driver.run(f.pid) != first
        assert driver.returned_ids == []
        assert driver.log_texts("warning") == []


def test_every_call_ends_once_while_workers_are_killed(method: str) -> None:
    n_kills = 8
    with Driver(ProcessBackend(2, mp_context=method), batch=5) as driver:
        calls = [driver.submit(f.spin, 0.002) for _ in range(400)]
        for i in range(n_kills):
            driver.wait_for(lambda i=i: len(driver.outcomes) >= 40 * (i + 1))  # type: ignore[misc]
            # One that is starting would count as a failed start.
            ready = [each for each in driver.backend.workers() if each.state != "starting"]
            if ready and ready[0].pid is not None:
                os.kill(ready[0].pid, signal.SIGKILL)
        for call in calls:
            driver.outcome(call)
        assert len(driver.outcomes) == 400
        errors = [outcome.error for outcome in driver.outcomes if outcome.error is not None]
        assert len(errors) <= n_kills
        assert all(type(error) is WorkerDiedError for error in errors)


# --- ending calls ---------------------------------------------------------------------------


def test_one_running_call_is_ended_and_the_other_goes_on(
    method: str, fifo: Callable[[str], str]
) -> None:
    with Driver(ProcessBackend(2, mp_context=method)) as driver:
        first_gate, second_gate = fifo("first"), fifo("second")
        first, second = (
            driver.submit(f.pass_gate, first_gate),
            driver.submit(f.pass_gate, second_gate, 2),
        )
        with open(first_gate, "w"), open(second_gate, "w"):
            pids = {worker.name: worker.pid for worker in driver.backend.workers()}
            assert driver.end(first)
            assert driver.outcome(first).cancelled
            assert driver.end(first) is False
        assert driver.value(second) == 2
        assert driver.end(second) is False
        driver.wait_for(lambda: len(driver.backend.workers()) == 1)
        (left,) = driver.backend.workers()
        assert (left.name, left.pid) == (second.worker, pids[second.worker or ""])
        assert len(driver.outcomes) == 2


def test_ending_a_call_ends_what_it_started(
    one: Driver, fifo: Callable[[str], str], tmp_path: Path
) -> None:
    gate, notes = fifo("gate"), str(tmp_path / "notes")
    call = one.submit(f.start_child_and_pass_gate, gate, notes)
    with open(gate, "w"):
        child = int(Path(notes).read_text())
        assert one.end(call)
        assert one.outcome(call).cancelled
        assert survivors([child], 5) == []


def test_a_call_that_waits_in_a_batch_is_left_out_without_a_kill(
    one: Driver, fifo: Callable[[str], str], tmp_path: Path
) -> None:
    gate, notes = fifo("gate"), str(tmp_path / "notes")
    calls = one.submit_batch(
        (f.pass_gate_and_note, (gate, notes, "a")), (f.note, (notes, "b")), (f.note, (notes, "c"))
    )
    with open(gate, "w"):
        pid = one.backend.workers()[0].pid
        assert one.end(calls[1])
        assert one.outcome(calls[1]).cancelled
    assert [one.value(calls[0]), one.value(calls[2])] == ["a", "c"]
    assert one.run(f.pid) == pid
    assert Path(notes).read_text() == "a\nc\n"
    assert len(one.outcomes) == 4


def test_calls_around_an_ended_one_end_once_each(one: Driver, fifo: Callable[[str], str]) -> None:
    gate = fifo("gate")
    calls = one.submit_batch((f.add, (1,)), (f.pass_gate, (gate,)), (f.add, (2,)))
    with open(gate, "w"):
        assert one.end(calls[1])
        assert one.outcome(calls[1]).cancelled
    assert [one.value(calls[0]), one.value(calls[2])] == [2, 3]
    assert one.returned_ids == [calls[2].id]  # the first one's result was waited for
    assert len(one.outcomes) == 3


def test_what_is_taken_out_of_a_late_batch_runs_once_and_keeps_its_result(
    one: Driver, fifo: Callable[[str], str]
) -> None:
    # The worker says of its old batch what it left out, while the same calls are in its next one.
    for round_ in range(5):
        gate = fifo(f"gate {round_}")
        calls = one.submit_batch((f.pass_gate, (gate,)), *((f.add, (n,)) for n in range(20)))
        with open(gate, "w"):
            while not (taken := one.backend.reclaim()):
                pass  # it is not late yet
            assert taken == calls[1:]
        one.returned(taken)
        assert [one.value(call) for call in calls[1:]] == list(range(1, 21))
    assert len(one.outcomes) == 5 * 21


def test_many_calls_are_left_out_though_the_pipe_is_small(
    fifo: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_PIPE_BYTES", 4096)  # as for a user who has many pipes
    gate = fifo("gate")
    with Driver(ProcessBackend(1)) as one:
        one.run(f.add, 1)
        calls = one.submit_batch((f.pass_gate, (gate,)), *((f.add, (n,)) for n in range(300)))
        with open(gate, "w"):
            assert all(one.end(call) for call in calls[1:])
        assert all(one.outcome(call).cancelled for call in calls[1:])
        one.wait_for(lambda: one.backend.workers()[0].state == "idle")


def test_a_fault_in_an_errand_does_not_leave_workers_alone(
    one: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    one.run(f.add, 1)
    one.backend._pool._reader.errand(lambda _: 1 / 0)
    assert isinstance(one.error(one.submit(f.die, 9)), WorkerDiedError)  # somebody noticed
    assert one.run(f.add, 2) == 3
    assert "ZeroDivisionError" in caplog.text


def test_a_call_of_a_worker_that_never_gets_ready_can_be_ended(fifo: Callable[[str], str]) -> None:
    gate = fifo("gate")
    backend = ProcessBackend(1, initializer=f.pass_gate, initargs=(gate,))
    with Driver(backend) as driver:
        call = driver.submit(f.add, 1)
        with open(gate, "w"):
            assert driver.backend.workers()[0].state == "starting"
            assert driver.end(call)
            assert driver.outcome(call).cancelled
            driver.wait_for(lambda: not driver.backend.workers())
        assert driver.returned_ids == []


# --- starting -------------------------------------------------------------------------------


def test_no_process_without_calls() -> None:
    with Driver(ProcessBackend(2, mp_context="spawn")) as driver:
        assert driver.backend.slots() == 2
        assert driver.backend.workers() == ()
        assert children() == []


def test_workers_are_started_as_calls_come_and_are_described(fifo: Callable[[str], str]) -> None:
    with Driver(ProcessBackend(3)) as driver:
        gates = [fifo(name) for name in "ab"]
        calls = [driver.submit(f.pass_gate, gate) for gate in gates]
        assert driver.backend.slots() == 1
        with open(gates[0], "w"), open(gates[1], "w"):
            records = driver.backend.workers()
            assert [(r.name, r.state, r.call) for r in records] == [
                ("worker-1", "busy", calls[0].id),
                ("worker-2", "busy", calls[1].id),
            ]
        for call in calls:
            driver.value(call)
        assert [(r.state, r.call) for r in driver.backend.workers()] == [("idle", None)] * 2
        assert driver.backend.describe().options == {"max_workers": 3}
        assert driver.backend.name == "ProcessExecutor"


def test_a_worker_is_described_with_its_call_before_that_has_begun(
    one: Driver, fifo: Callable[[str], str]
) -> None:
    """Who looks in between is not told again before the call ends."""
    pid = one.run(os.getpid)
    gate = fifo("gate")
    os.kill(pid, signal.SIGSTOP)
    try:
        first, second = one.submit_batch((f.pass_gate, (gate,)), (f.pass_gate, (gate,)))
        assert [(r.state, r.call) for r in one.backend.workers()] == [("busy", first.id)]
    finally:
        os.kill(pid, signal.SIGCONT)
    with open(gate, "w"):
        assert one.backend.workers()[0].call == first.id
    one.outcome(first)
    with open(gate, "w"):
        assert one.backend.workers()[0].call == second.id
    one.outcome(second)


def test_the_initializer_runs_first_with_its_arguments(method: str) -> None:
    backend = ProcessBackend(
        1, mp_context=method, initializer=f.set_flag, initargs=("AMLTK_FLAG", "set")
    )
    with Driver(backend) as driver:
        assert driver.run(f.environment, "AMLTK_FLAG") == "set"


def test_an_initializer_may_be_a_closure(one: Driver) -> None:
    word = "closed over"
    backend = ProcessBackend(1, initializer=lambda: __import__("os").environ.update(WORD=word))
    with Driver(backend) as driver:
        assert driver.run(f.environment, "WORD") == word


def test_a_broken_initializer_fails_calls_after_three_tries_and_can_be_mended(
    method: str, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    backend = ProcessBackend(
        1, mp_context=method, initializer=f.fail_if_exists, initargs=(str(flag),)
    )
    with Driver(backend) as driver:
        first, second = driver.submit(f.add, 1), driver.submit(f.add, 2)
        for call in (first, second):
            error = driver.error(call)
            assert type(error) is WorkerStartError
            assert "3 in a row" in str(error)
            assert "ValueError" in str(error)
            assert "is in the way" in str(error)
        assert driver.returned_ids == [first.id] * 3
        assert driver.log_texts("print") == [f"looking for {flag}\n"] * 3
        assert backend.slots() > 0
        assert type(driver.error(driver.submit(f.add, 3))) is WorkerStartError
    flag.unlink()
    with Driver(backend) as driver:
        assert driver.run(f.add, 1) == 2


def test_an_initializer_that_ends_the_process_is_a_failed_start() -> None:
    with Driver(ProcessBackend(1, initializer=f.die, initargs=(5,))) as driver:
        error = driver.error(driver.submit(f.add, 1))
        assert type(error) is WorkerStartError
        assert "exit code 5" in str(error)


def test_workers_take_over_environment_folder_and_threads(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    with Driver(ProcessBackend(64, mp_context=method)) as driver:
        driver.run(f.add, 1)
    monkeypatch.setenv("AMLTK_WORD", "now")
    monkeypatch.chdir(tmp_path)
    with Driver(ProcessBackend(64, mp_context=method)) as driver:
        assert driver.run(f.environment, "AMLTK_WORD") == "now"
        assert driver.run(f.where) == str(tmp_path)
        assert driver.run(f.environment, "OMP_NUM_THREADS") == "1"
        assert driver.run(f.environment, "MKL_NUM_THREADS") == "7"


def test_restart_replaces_idle_workers_now_and_busy_ones_after_their_call(
    driver: Driver, fifo: Callable[[str], str]
) -> None:
    gate = fifo("gate")
    busy = driver.submit(f.pass_gate, gate, "done")
    with open(gate, "w"):
        idle_pid = driver.run(f.pid)
        driver.backend.restart()
        driver.wait_for(lambda: len(driver.backend.workers()) == 1)
        assert driver.run(f.pid) != idle_pid
        busy_pid = next(w.pid for w in driver.backend.workers() if w.call == busy.id)
    assert driver.value(busy) == "done"
    driver.wait_for(lambda: busy_pid not in {w.pid for w in driver.backend.workers()})
    assert busy_pid not in {driver.run(f.pid) for _ in range(4)}


# --- output ---------------------------------------------------------------------------------


def test_output_travels_with_its_call_c_code_and_children_included(method: str) -> None:
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        calls = [driver.submit(f.speak, name) for name in ("one", "two")]
        silent = driver.submit(f.add, 1)
        for call, name in zip(calls, ("one", "two"), strict=True):
            lines = driver.outcome(call).output.splitlines()
            assert lines == [f"print {name}", f"error {name}", f"puts {name}", f"child {name}"]
        assert driver.outcome(silent).output == ""


def test_much_output_loses_its_middle(one: Driver) -> None:
    output = one.outcome(one.submit(f.shout, 1_000_000)).output
    assert len(output) < 70_000
    assert output.startswith("a" * 32_000)
    assert output.endswith("z" * 32_000)
    assert "934,464 bytes left out" in output


def test_a_call_that_prints_without_end_does_not_fill_the_disk(one: Driver) -> None:
    def flood() -> int:
        import os
        import time

        patience, size, was_cut = time.monotonic() + 20, 0, False
        while not was_cut and time.monotonic() < patience:
            print("x" * 100_000)
            before, size = size, os.lseek(1, 0, os.SEEK_END)
            was_cut = size < before
        print("the end")
        return int(was_cut)

    outcome = one.outcome(one.submit(flood))
    assert outcome.value == 1
    assert outcome.output.startswith("xxx")
    assert outcome.output.endswith("the end\n")
    assert "bytes left out" in outcome.output


def test_log_records_and_warnings_arrive_with_their_level(method: str) -> None:
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        driver.run(f.complain)
        driver.wait_for(lambda: len(driver.logs) == 2)
        first, second = driver.logs
        assert first == ("worker-1", "warning", "lib: disk is full")
        assert second[:2] == ("worker-1", "warning")
        assert "UserWarning: old thing" in second[2]


def test_what_a_call_printed_survives_its_worker(one: Driver) -> None:
    assert one.run(f.speak, "the one before") is None
    outcome = one.outcome(one.submit(f.speak_and_die, signal.SIGKILL))
    assert isinstance(outcome.error, WorkerDiedError)
    assert outcome.output == "so far so good\n"
    assert outcome.error.__notes__ == ["It had printed:\nso far so good"]


def test_a_crash_says_where_it_happened(one: Driver) -> None:
    outcome = one.outcome(one.submit(f.crash))
    assert isinstance(outcome.error, WorkerDiedError)
    assert outcome.output.startswith("Fatal Python error: Segmentation fault")
    assert "in crash" in outcome.output


def test_what_an_ended_call_printed_is_kept(one: Driver, fifo: Callable[[str], str]) -> None:
    gate = fifo("gate")
    call = one.submit(f.speak_and_pass_gate, gate)
    with open(gate, "w"):
        assert one.end(call)
        outcome = one.outcome(call)
    assert outcome.cancelled
    assert outcome.output == "waiting\n"


def test_without_capture_output_goes_where_it_went(capfd: pytest.CaptureFixture[str]) -> None:
    with Driver(ProcessBackend(1, mp_context="spawn", capture_output=False)) as driver:
        assert driver.outcome(driver.submit(f.speak, "free")).output == ""
    assert "puts free" in capfd.readouterr().out


# --- closing --------------------------------------------------------------------------------


def resources() -> tuple[int, int, int]:
    gc.collect()
    return len(children()), threading.active_count(), psutil.Process().num_fds()


def test_closing_gives_everything_back(method: str) -> None:
    counts = []
    for _ in range(3):
        with Driver(ProcessBackend(2, mp_context=method)) as driver:
            calls = [driver.submit(f.add, i) for i in range(10)]
            for call in calls:
                driver.outcome(call)
            driver.backend.close(end_running=False)
        counts.append(resources())
    assert counts[0][0] == 0
    assert counts[1] == counts[0]  # the first round leaves the standard library's tracker
    assert counts[2] == counts[0]


def test_closing_waits_for_running_calls(fifo: Callable[[str], str]) -> None:
    gate = fifo("gate")
    backend = ProcessBackend(1)
    driver = Driver(backend)
    backend.open(driver)
    call = driver.submit(f.pass_gate, gate, "finished")
    closing = threading.Thread(target=backend.close, kwargs={"end_running": False})
    with open(gate, "w"):
        closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert driver.value(call) == "finished"
    assert backend.workers() == ()
    with pytest.raises(RuntimeError, match="open it"):
        backend.start([call])


def test_closing_can_end_running_calls_with_what_they_started(
    method: str, fifo: Callable[[str], str], tmp_path: Path
) -> None:
    gate, notes = fifo("gate"), str(tmp_path / "notes")
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        calls = driver.submit_batch((f.start_child_and_pass_gate, (gate, notes)), (f.add, (1,)))
        with open(gate, "w"):
            child = int(Path(notes).read_text())
            began = time.monotonic()
            driver.backend.close(end_running=True)
            assert time.monotonic() - began < 3
        assert [driver.outcome(call).cancelled for call in calls] == [True, True]
        assert survivors([child], 5) == []


def test_a_second_close_ends_what_the_first_one_waits_for(fifo: Callable[[str], str]) -> None:
    gate = fifo("gate")
    backend = ProcessBackend(1)
    driver = Driver(backend)
    backend.open(driver)
    call = driver.submit(f.pass_gate, gate)
    patient = threading.Thread(target=backend.close, kwargs={"end_running": False})
    with open(gate, "w"):
        patient.start()
        backend.close(end_running=True)
        patient.join(20)
    assert not patient.is_alive()
    assert driver.outcome(call).cancelled


def test_opening_twice_is_refused(one: Driver) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        one.backend.open(one)


# --- calls that use processes themselves ----------------------------------------------------


def test_joblib_and_multiprocessing_work_inside_a_call(method: str) -> None:
    with Driver(ProcessBackend(1, mp_context=method)) as driver:
        assert driver.run(f.pool_sum, 10) == 55
        assert driver.run(f.joblib_sum, 10) == 45
        driver.backend.close(end_running=False)
        assert survivors([child.pid for child in children()], 5) == []


# --- bad input ------------------------------------------------------------------------------


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ProcessBackend(0)
    with pytest.raises(TypeError, match="whole number"):
        ProcessBackend("2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no start method 'thread'"):
        ProcessBackend(1, mp_context="thread")
    with pytest.raises(TypeError, match="mp_context=3"):
        ProcessBackend(1, mp_context=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pass a function"):
        ProcessBackend(1, initializer="setup")  # type: ignore[arg-type]
    with pytest.raises(NotPicklableError, match=r"argument 1 \(a _thread.lock\) of echo"):
        ProcessBackend(1, initializer=f.echo, initargs=(threading.Lock(),))


def test_a_context_of_the_standard_library_is_taken_for_its_method() -> None:
    import multiprocessing

    backend = ProcessBackend(1, mp_context=multiprocessing.get_context("spawn"))
    with Driver(backend) as driver:
        assert driver.run(f.add, 1) == 2
