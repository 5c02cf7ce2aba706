"""What calls print on workers elsewhere: each its own, bounded, and nothing is left changed."""

from __future__ import annotations

import asyncio
import io
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from amltk_nb import Scheduler
from amltk_nb.errors import PluginError
from amltk_nb.scheduling.call import Call
from amltk_nb.scheduling.remote_call import Answer, Portable, pack_call, read_answer, run_call
from amltk_nb.scheduling.reporting import report

LONG_S = 30.0


def ran(fn: Callable[..., Any], *args: Any, captures_output: bool = True) -> Answer:
    """Run a call here as a worker would."""
    packed = pack_call(Call(1, fn, args, {}), captures_output=captures_output)
    return read_answer(run_call(packed), fn.__name__)


def say(text: str) -> None:
    print(text)
    print("wrong:", text, file=sys.stderr)
    sys.stdout.writelines(["a", "b\n"])


def test_both_streams_are_taken_in_their_order():
    before = sys.stdout, sys.stderr
    assert ran(say, "x").output == "x\nwrong: x\nab\n"
    assert (sys.stdout, sys.stderr) == before


def test_a_call_that_fails_keeps_its_output():
    def fail() -> None:
        print("so far")
        raise KeyError("no further")

    answer = ran(fail)
    assert (answer.output, repr(answer.error)) == ("so far\n", "KeyError('no further')")


def test_a_result_that_cannot_travel_keeps_it_as_well():
    def lock() -> Any:
        print("made")
        return threading.Lock()

    assert ran(lock).output == "made\n"


def test_when_it_is_not_wanted_it_goes_where_it_went(capsys: pytest.CaptureFixture[str]):
    assert ran(say, "x", captures_output=False).output == ""
    assert capsys.readouterr() == ("x\nab\n", "wrong: x\n")


def together(fns: list[Callable[[], Any]], run: list[Callable[[bytes], bytes]]) -> list[str]:
    """Run calls at the same time on threads of this process; returns what each printed."""
    answers: dict[int, bytes] = {}

    def work(n: int) -> None:
        answers[n] = run[n](b"\1" + pickle.dumps((fns[n], (), {})))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(fns))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    return [read_answer(answers[n], "f").output for n in range(len(fns))]


class TwoTalk:
    """Two calls that print in turns, so that each has begun before the other has ended."""

    barrier: threading.Barrier

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> None:
        for n in range(200):
            self.barrier.wait(LONG_S)
            print(self.name, n)


@pytest.mark.parametrize("copies", [1, 2])
def test_two_at_a_time_do_not_mix(copies: int, capsys: pytest.CaptureFixture[str]):
    """As many copies of the code, too: each function that travels to a worker is one."""
    TwoTalk.barrier = threading.Barrier(2)
    before = sys.stdout, sys.stderr
    runs = [pickle.loads(Portable(run_call).packed) for _ in range(copies)]
    assert len({id(run.__globals__) for run in runs}) == copies
    outputs = together([TwoTalk("left"), TwoTalk("right")], [runs[0], runs[-1]])
    expected = [[f"{name} {n}" for n in range(200)] for name in ("left", "right")]
    assert [output.splitlines() for output in outputs] == expected
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("", "")


def test_what_comes_with_every_call_is_made_once_in_a_process():
    first, again = (pickle.loads(pickle.dumps(Portable(run_call))) for _ in range(2))
    assert first is again
    assert first is not run_call
    assert pickle.loads(pickle.dumps(Portable(read_answer))) is not first


def test_threads_of_the_only_call_print_for_it():
    def with_threads() -> None:
        thread = threading.Thread(target=print, args=("in a thread",))
        thread.start()
        thread.join()

    assert ran(with_threads).output == "in a thread\n"


@pytest.mark.may_block  # as an engine's own thread with a loop does
async def test_a_coroutine_prints_for_its_call_where_the_thread_has_a_loop_already():
    async def later() -> str:
        await asyncio.sleep(0)
        print("later")
        return "ended"

    answer = ran(later)
    assert (answer.error, answer.value, answer.output) == (None, "ended", "later\n")


def test_too_much_is_shortened_in_the_middle():
    def count(n: int) -> None:
        for i in range(n):
            print(f"{i:09}")

    output = ran(count, 100_000).output
    assert output.startswith("000000000\n000000001\n")
    assert output.endswith("000099998\n000099999\n")
    assert "… 934,464 characters left out …" in output
    assert len(output) == 2 * 32_768 + len("\n… 934,464 characters left out …\n")
    assert len(ran(count, 6_553).output) == 65_530  # all of it


class Puts:
    """Puts a stream of its own in place and leaves it there."""

    own = io.StringIO()

    def __call__(self) -> None:
        print("taken")
        sys.stdout = self.own
        print("kept")


def test_a_stream_that_the_call_has_put_there_is_left_to_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which is put back after the test
    former = sys.stderr
    assert together([Puts()], [run_call]) == ["taken\n"]
    assert sys.stdout is Puts.own
    assert sys.stderr is former
    assert Puts.own.getvalue() == "kept\n"


def reports() -> None:
    report(1)


def test_a_worker_without_the_package_says_that_the_call_needs_it():
    packed = pack_call(Call(1, reports, (), {}))
    code = (
        "import pickle, sys; sys.modules['amltk_nb'] = None\n"
        "run, packed = pickle.load(sys.stdin.buffer)\n"
        "sys.stdout.buffer.write(run(packed, 'w1'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps((Portable(run_call), packed)),
        capture_output=True,
        check=True,
        timeout=LONG_S,
    )
    error = read_answer(done.stdout, "reports").error
    assert isinstance(error, PluginError)
    assert str(error).startswith(
        "reports() could not begin on the worker w1: ModuleNotFoundError: import of amltk_nb halted"
    )
    assert "install it there (pip install amltk-nb), or leave these plugins out" in str(error)


def warn_and_say(text: str) -> None:
    warnings.warn("old", stacklevel=1)
    say(text)


@pytest.mark.may_block  # loky's start
async def test_it_is_in_the_record_of_the_call_unless_nobody_wants_it():
    for wanted in (True, False):
        scheduler = Scheduler.with_loky(1, capture_output=wanted)
        run = scheduler.start(end_on_empty=True)
        future = scheduler.submit(warn_and_say, "there")
        await asyncio.wait_for(run.over(), LONG_S)
        lines = future.call.output.splitlines()
        assert ["UserWarning: old" in line for line in lines[:1]] == [True] * wanted
        assert lines[-3:] == (["there", "wrong: there", "ab"] if wanted else [])
