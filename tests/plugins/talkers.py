"""Functions that talk and report while they run; imports little, since every worker imports it."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

from amltk_nb import report
from amltk_nb.errors import CommError, NotPicklableError
from amltk_nb.scheduling.transports.socket_end import GREETING, message_parts


class Unhappy(Exception):
    """What a call raises here."""


class Unloadable:
    """Can be pickled, and not be made again in the process that runs the tests."""

    def __reduce__(self) -> Any:
        return _only_elsewhere, (os.getpid(),)


def _only_elsewhere(pid: int) -> None:
    if pid != os.getpid():
        raise Unhappy("not here")


def ask_thrice(n: int, *, comm: Any) -> list[Any]:
    answers = []
    with comm.open("hello"):
        for i in range(n):
            comm.send(i)
            answers.append(comm.request(i + 0.5))
    return answers


def ask(data: Any, timeout: float | None = None, *, comm: Any) -> Any:
    """Ask once; what goes wrong is the result, with its type and text."""
    with comm.open():
        try:
            return comm.request(data, timeout=timeout)
        except CommError as error:
            return type(error).__name__, str(error)


def ask_and_raise(data: Any, *, comm: Any) -> Any:
    with comm.open():
        return comm.request(data, timeout=0.01)


def pour(first: int, n: int, *, comm: Any) -> int:
    """Send many messages and leave it to others to close."""
    comm.open()
    for i in range(first, first + n):
        comm.send(i)
    return first


def raise_within(*, comm: Any) -> None:
    with comm.open():
        comm.send("so far")
        raise Unhappy("no further")


def ask_with_pid(*, comm: Any) -> Any:
    with comm.open():
        return comm.request(os.getpid())


def send_a_lock(*, comm: Any) -> str:
    with comm.open():
        try:
            comm.send(threading.Lock())
        except NotPicklableError as error:
            comm.send("still talking")
            return str(error)
    return "it was sent"


def send_unloadable(*, comm: Any) -> Any:
    with comm.open():
        comm.send(Unloadable())
        try:
            return comm.request(Unloadable())
        except CommError as error:
            return type(error).__name__, str(error)


def listen(*, comm: Any) -> list[Any]:
    heard: list[Any] = []
    with comm.open():
        heard.append(comm.request("what comes first?"))
        heard += [comm.receive(), comm.receive(timeout=30)]
        try:
            comm.receive(timeout=0)
        except TimeoutError as error:
            heard.append(str(error))
    return heard


def listen_until_the_end(*, comm: Any) -> list[str]:
    """Listen until the run is ending, and ask what is then answered no more."""
    heard: list[str] = []
    with comm.open():
        while len(heard) < 3:
            try:
                heard.append(comm.receive())
            except CommError as error:
                heard.append(type(error).__name__)
        try:
            comm.request("?")
        except CommError:
            heard.append("last")
    return heard


def listen_until_closed(*, comm: Any) -> list[str]:
    with comm.open():
        try:
            comm.receive()
        except CommError as error:
            told = [type(error).__name__]
        try:
            comm.send("anybody there?")
        except CommError as error:
            told.append(type(error).__name__)
    return told


def open_with_ack(*, comm: Any) -> Any:
    try:
        comm.open("ready?", wait_for_ack=True)
    except CommError as error:
        return type(error).__name__, str(error)
    comm.close("bye")
    return "opened"


def open_often(n: int, *, comm: Any) -> list[Any]:
    with comm.open() as same:
        first = same is comm, comm.is_open
    for i in range(n - 1):
        with comm:
            comm.send(i)
    return [*first, comm.is_open]


def misuse(how: str, *, comm: Any) -> str:
    try:
        if how == "closed":
            comm.send(1)
        elif how == "closed request":
            comm.request(1)
        elif how == "twice":
            with comm.open():
                comm.open()
        else:
            with comm.open():
                comm.request(1, timeout=-1)
    except (CommError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing happened"


def echo(size: int, *, comm: Any) -> bool:
    data = bytes(size)
    with comm.open():
        return bool(comm.request(data) == data)


def fail_first(path: str, *, comm: Any) -> Any:
    """Ask, and fail the first time; `path` is where it leaves word that it was there."""
    with comm.open():
        answer = comm.request(os.path.exists(path))
        if not os.path.exists(path):
            with open(path, "w"):
                raise Unhappy("the first time")
        return answer


async def ask_in_a_coroutine(data: Any, *, comm: Any) -> Any:
    return ask(data, comm=comm)


def named_otherwise(x: int, talk: Any) -> Any:
    with talk.open():
        return talk.request(x)


def only_positional(comm: Any, /) -> None:
    """Cannot be given a keyword."""


def anything(**kwargs: Any) -> Any:
    with kwargs["comm"].open():
        return kwargs["comm"].request(1)


def knock_and_greet_later(*, comm: Any, other: Any) -> None:
    """Connect for `other` and say nothing before the connection has been taken in."""
    address, number, token = other.ticket.__reduce__()[1]
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        with comm.open():
            comm.request("taken in?")
        line.sendall(GREETING.pack(number, token))
        for head in (("open", None), ("message", None)):
            for part in message_parts(head, "at last"):
                line.sendall(part)


def write_to(fifo: str) -> None:
    with open(fifo, "w") as file:
        file.write("here")


_turns = threading.Barrier(2)  # of two calls in one process


def say_in_turns(name: str, n: int) -> None:
    for i in range(n):
        _turns.wait(30)
        print(name, i)


def hold(fifo: str, *, comm: Any) -> None:
    """Have a comm and say nothing, until the test writes."""
    with open(fifo) as file:
        file.read()


# --- progress


def count_up(n: int, **metrics: Any) -> int:
    for i in range(n):
        report(i + 1, total=n, **metrics)
    return n


def count_without_total(n: int) -> None:
    for i in range(n):
        report(i + 1)


def report_once(*args: Any, **kwargs: Any) -> None:
    report(*args, **kwargs)


def report_and_die(n: int) -> None:
    report(n, total=10)
    os._exit(3)


def report_and_fail(path: str) -> str:
    if os.path.exists(path):
        return "the second time"
    report(7, total=10)
    with open(path, "w"):
        raise Unhappy("the first time")


def count_with_tqdm(n: int) -> int:
    from tqdm import tqdm  # not before: in a fresh worker nobody has loaded it

    bar = tqdm(range(n), mininterval=0)
    for i in bar:
        bar.set_postfix(loss=f"{i / n:.1f}", refresh=False)
    return n


def nested_bars(n: int) -> str:
    from tqdm.auto import tqdm, trange

    for _ in tqdm(range(n), mininterval=0, desc="outer"):
        for _ in trange(100 * n, leave=False):
            pass
    with tqdm(total=5) as second:
        second.update(5)
    return "both"


async def count_with_tqdm_later(n: int) -> int:
    return count_with_tqdm(n)


def time_reports(n: int) -> tuple[float, float]:
    """Measure the seconds that a loop takes with reports, and without."""
    from time import perf_counter

    began = perf_counter()
    for i in range(n):
        report(i + 1, total=n, loss=0.5)
    with_reports = perf_counter() - began
    began = perf_counter()
    for _ in range(n):
        pass
    return with_reports, perf_counter() - began
