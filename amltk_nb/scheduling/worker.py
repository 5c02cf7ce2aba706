"""The worker's side: what runs in the processes that `with_processes` starts.

It must not import the engine, since a worker's start is a user's waiting time. The main thread
reads a batch, runs its calls in order and sends their results. A second thread watches the
parent; a third one sends results that would otherwise wait for a long call behind them.

Messages in: ("batch", items, new functions, forgotten keys), ("skip", call id), ("close",).
Messages out: ("ready", pid), ("failed", text), ("results", items), ("log", level, text).
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter, sleep, time
from types import CoroutineType, ModuleType
from typing import Any, NamedTuple

from amltk_nb.scheduling.process_life import (
    die,
    has_children,
    rss_bytes,
    stand_alone,
    while_alive,
)
from amltk_nb.scheduling.shipping import SCALARS, error_parts, pack, reason, type_name, unpack
from amltk_nb.scheduling.wire import ATTENTION, BEGAN, FINISHED, RSS_BYTES, Board, Channel
from amltk_nb.scheduling.worker_output import Output, OutputFile, forward_logs

__all__ = ["ERROR", "PACKED", "SKIPPED", "UNPICKLABLE", "VALUE", "Setup", "main"]

# What came of a call. VALUE: the result itself, of a type that any pickle can carry.
VALUE, PACKED, ERROR, UNPICKLABLE, SKIPPED = range(5)

# A result waits at most this long for others to travel with; a message costs some 20 µs.
_FLUSH_S = 0.005
_LARGE_BYTES = 1 << 14
_LEAVE_S = 1.0

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

Item = tuple[Any, ...]  # call id, kind, value, started at, seconds, output


class Setup(NamedTuple):
    """What a worker is told at its start."""

    slot: int  # its place on the board
    parent_pid: int
    environ: dict[str, str]
    initializer: Any  # its pickle and its packed arguments, or None
    output: OutputFile | None  # takes what calls print; None: that goes where it went
    n_threads: int  # for BLAS and OpenMP, unless the environment says otherwise


def main(
    setup: Setup, channel: Channel, board: Board, close_inherited: Callable[[], None] | None
) -> None:
    """Serve until told to close, or until the parent is gone.

    Args:
        setup: how to be.
        channel: this end of it.
        board: where to count calls.
        close_inherited: for a forked worker, which has copies of what belongs to its parent.
    """
    stand_alone()
    _ignore_interrupts()
    if close_inherited is not None:
        _forget_the_original(close_inherited)
    _take_environment(setup)
    worker = _Worker(setup, channel, board)
    faulthandler.enable()  # the last words of a crash are where the call's output goes
    threading.Thread(target=worker.watch, name="amltk-nb-watch", daemon=True).start()
    worker.serve()


def _ignore_interrupts() -> None:
    """The interrupt button signals the whole process group; it means the notebook's cell only."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _forget_the_original(close_inherited: Callable[[], None]) -> None:
    """Drop what a forked worker has only because its parent had it."""
    import atexit

    signal.set_wakeup_fd(-1)  # it belongs to the parent's event loop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    atexit._clear()
    close_inherited()
    # Whatever a call starts must not import the user's main module either.
    _forgotten_modules.append(sys.modules["__main__"])
    sys.modules["__main__"] = ModuleType("__main__")


_forgotten_modules: list[ModuleType] = []  # else their globals would be torn down


def _take_environment(setup: Setup) -> None:
    for name in set(os.environ) - set(setup.environ):
        del os.environ[name]
    os.environ.update(setup.environ)
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, str(setup.n_threads))


class _Function:
    """A function the parent sent, loaded when first called and kept with its globals."""

    __slots__ = ("_fn", "_packed", "_source", "name")

    def __init__(self, packed: Any, name: str, source: tuple[str, list[str]] | None) -> None:
        self._packed = packed
        self._source = source
        self._fn: Callable[..., Any] | None = None
        self.name = name

    def load(self) -> Callable[..., Any]:
        if self._fn is None:
            if self._source is not None:
                self._show_source(*self._source)
            try:
                self._fn = pickle.loads(self._packed)
            except Exception as error:
                error.add_note(f"This happened while the worker process loaded {self.name}().")
                raise
        return self._fn

    def _show_source(self, filename: str, lines: list[str]) -> None:
        import linecache

        linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


class _Worker:
    """Runs batches of calls."""

    def __init__(self, setup: Setup, channel: Channel, board: Board) -> None:
        self._setup = setup
        self._channel = channel
        self._numbers = board.slot(setup.slot)
        self._functions: dict[bytes, _Function] = {}
        self._inbox: deque[tuple[Any, ...]] = deque()
        self._n_control = 0  # messages about a batch that were read; the board has those sent
        self._skipped: set[int] = set()
        self._send_lock = threading.Lock()
        self._pending: list[Item] = []
        self._sent_at = 0.0
        self._in_batch = False
        self._parked = False  # whether the thread that sends late waits for a batch
        self._wake: SimpleQueue[None] | None = None
        self._gone = False  # in a forked child of ours, which must not speak in our name
        os.register_at_fork(after_in_child=self._fall_silent)
        self._output = Output(setup.output) if setup.output is not None else None

    # --- life -------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run batches until told to close."""
        forward_logs(lambda level, text: self._send(("log", level, text)))
        if not self._initialize():
            self._leave(1)
        self._send(("ready", os.getpid()))
        while True:
            # Not by a name: it would hold on to the arguments until the next one comes.
            self._obey(self._inbox.popleft() if self._inbox else self._receive())

    def _obey(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == "batch":
            self._run(*message[1:])
        elif kind == "close":
            self._leave(0)
        else:
            self._control(message)

    def watch(self) -> None:
        """End this process as soon as its parent is gone, whatever the main thread does."""
        for _ in while_alive(self._setup.parent_pid):
            self._numbers[RSS_BYTES] = rss_bytes()
            if self._output is not None:
                self._output.trim()
        die(1)

    def _initialize(self) -> bool:
        try:
            if self._setup.initializer is not None:
                function, arguments = self._setup.initializer
                args, kwargs = unpack(arguments)
                pickle.loads(function)(*args, **kwargs)
        except BaseException as error:  # reported, whatever it is
            self._send(("failed", error_parts(error, skip_frames=1)[3]))
            return False
        finally:
            if self._output is not None and (text := self._output.take()):
                self._send(("log", "print", text))
        return True

    def _leave(self, code: int) -> None:
        """Let libraries close what a call left open (joblib's workers, say), then end all."""
        import atexit

        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                continue
        if has_children():
            timer = threading.Timer(_LEAVE_S, die, (code,))
            timer.daemon = True
            timer.start()
            atexit._run_exitfuncs()
        die(code)

    def _fall_silent(self) -> None:
        # A grandchild that holds the channel open would hide the death of this worker.
        self._gone = True
        self._channel.close()

    # --- messages ---------------------------------------------------------------------------

    def _receive(self) -> tuple[Any, ...]:
        try:
            first, *more = self._channel.receive()
        except EOFError:
            die(1)
        self._inbox.extend(more)
        return first

    def _control(self, message: tuple[Any, ...]) -> None:
        self._n_control += 1
        if message[0] == "skip":
            self._skipped.add(message[1])

    def _attend(self) -> None:
        """Read what the parent has said about the running batch since it was sent."""
        kept = []
        while self._n_control < self._numbers[ATTENTION]:
            message = self._inbox.popleft() if self._inbox else self._receive()
            if message[0] in ("batch", "close"):
                kept.append(message)
            else:
                self._control(message)
        self._inbox.extendleft(reversed(kept))

    def _send(self, message: tuple[Any, ...]) -> None:
        if self._gone:
            return
        try:
            with self._send_lock:
                self._channel.send(message)
        except OSError:
            die(1)

    def _flush(self) -> None:
        """Send the results that wait."""
        pending = self._pending
        try:
            with self._send_lock:
                if n_items := len(pending):
                    items = pending[:n_items]
                    del pending[:n_items]
                    self._channel.send(("results", items))
        except OSError:
            die(1)
        self._sent_at = perf_counter()

    def _flush_late(self) -> None:
        """Send results that wait while the main thread is busy with a long call."""
        assert self._wake is not None
        while True:
            self._parked = True
            if not self._in_batch:
                self._wake.get()
            self._parked = False
            while self._in_batch:
                sleep(_FLUSH_S)
                if self._pending:
                    self._flush()

    def _begin_batch(self) -> None:
        self._in_batch = True
        if self._wake is None:
            self._wake = SimpleQueue()
            threading.Thread(target=self._flush_late, name="amltk-nb-flush", daemon=True).start()
        elif self._parked:
            self._parked = False
            self._wake.put(None)

    # --- calls ------------------------------------------------------------------------------

    def _run(
        self,
        items: list[tuple[int, bytes, Any]],
        new: dict[bytes, tuple[Any, str, tuple[str, list[str]] | None]],
        forgotten: list[bytes],
    ) -> None:
        """Run the calls of a batch in order."""
        functions, numbers = self._functions, self._numbers
        for key, sent in new.items():
            functions[key] = _Function(*sent)
        todo = [(call_id, functions[key], packed) for call_id, key, packed in items]
        for key in forgotten:
            del functions[key]
        if len(todo) > 1:
            self._begin_batch()
        self._sent_at = perf_counter()
        for call_id, function, packed in todo:
            numbers[BEGAN] += 1
            if numbers[ATTENTION] != self._n_control:
                self._attend()
            if call_id in self._skipped:
                self._skipped.discard(call_id)
                item: Item = (call_id, SKIPPED, None, None, None, "")
            else:
                item = self._call(call_id, function, packed)
            self._pending.append(item)
            numbers[FINISHED] += 1
            if perf_counter() - self._sent_at > _FLUSH_S or _has_buffers(item):
                self._flush()
        self._in_batch = False
        self._flush()

    def _call(self, call_id: int, function: _Function, packed: Any) -> Item:
        started_at, began = time(), perf_counter()
        try:
            args, kwargs = unpack(packed)
            fn = function.load()
            started_at, began = time(), perf_counter()
            value = fn(*args, **kwargs)
            if type(value) is CoroutineType:
                value = _run_coroutine(value)
        except BaseException as error:  # what ends the process elsewhere is this call's alone
            self._end_copy(error)
            seconds = perf_counter() - began
            kind, sent = ERROR, error_parts(error, skip_frames=1)
        else:
            self._end_copy(None)
            seconds = perf_counter() - began
            kind, sent = _sendable(value, function.name)
        output = self._output.take() if self._output is not None else ""
        return call_id, kind, sent, started_at, seconds, output

    def _end_copy(self, error: BaseException | None) -> None:
        """End this process here if a call has forked it and it has left the call as well.

        It shares the board: going on, it would count calls that the worker has not run.
        """
        if not self._gone:
            return
        if isinstance(error, SystemExit):
            die(error.code if isinstance(error.code, int) else int(error.code is not None))
        if error is not None:
            sys.excepthook(type(error), error, error.__traceback__)
        die(int(error is not None))


def _has_buffers(item: Item) -> bool:
    """Whether a result shares memory that the next call may write to."""
    return item[1] == PACKED and bool(item[2][1])


def _sendable(value: Any, name: str) -> tuple[int, Any]:
    kind = type(value)
    if kind in SCALARS and (kind not in (str, bytes) or len(value) < _LARGE_BYTES):
        return VALUE, value
    try:
        return PACKED, pack(value)
    except Exception as error:  # anything a value's own __reduce__ may raise
        return UNPICKLABLE, (
            f"the result of {name}() (a {type_name(value)}) cannot be pickled, so it cannot travel "
            f"back from its worker process: {reason(error)}. Return plain values, or write it to "
            "a file and return the file's name."
        )


def _run_coroutine(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine)
