"""How a running call says how far it is: `report`, and any `tqdm` loop by itself.

This is the part that runs in the workers, so it loads little. Whom a report goes to is known by a
context variable: code below a call that has a `Progress` plugin finds it, and anywhere else a
report does nothing. Coroutines and `asyncio.to_thread` take it along; plain threads do not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from functools import partial, update_wrapper
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from numbers import Real
from time import monotonic
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from amltk_nb.scheduling.plugins.around import Around

if TYPE_CHECKING:
    from collections.abc import Callable

    from amltk_nb.scheduling.transports.base import End, Ticket

__all__ = ["TICKET_KEYWORD", "Addressee", "Reported", "report"]

TICKET_KEYWORD = "_amltk_nb_progress"  # by which a call gets its ticket, hidden from its function

_INTERVAL_S = 0.1  # between two reports that are sent
_LAST_S = 1.0  # how long a call waits with its last one for a scheduler that is far behind
_TEXT_CHARS = 200  # of a metric that is no number


def report(n: float, total: float | None = None, **metrics: Any) -> None:
    """Say how far the present call is; anywhere else do nothing.

    Some ten reports a second are sent, and always the last one, so it may be called in any loop.

    Args:
        n: how much is done, in whatever unit.
        total: how much there is to do in the same unit; None: unknown.
        metrics: what else to show, such as `loss=0.3`.

    Raises:
        TypeError: `n` or `total` is no number.
    """
    reporter = _reporter.get()
    if reporter is not None:
        reporter.report(n, total, metrics)


class Addressee:
    """Whom a call reports to: its ticket, and what takes the reports where that is."""

    __slots__ = ("reports", "ticket")

    def __init__(self, ticket: Ticket, reports: Any = None) -> None:
        """Describe it; `reports` stays behind when this travels."""
        self.ticket = ticket
        self.reports = reports

    def __reduce__(self) -> tuple[Any, ...]:
        return Addressee, (self.ticket,)


class Reported:
    """Calls a function so that what it reports is sent; it stands in for the function."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        """Wrap a function; the same bytes for all its calls, since the ticket is an argument."""
        update_wrapper(self, fn, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with its own arguments."""
        ticket = kwargs.pop(TICKET_KEYWORD).ticket
        fn: Callable[..., Any] = self.__wrapped__  # type: ignore[attr-defined]
        return Around(fn, partial(_Reporting, ticket))(*args, **kwargs)


class _Reporting:
    """The context of one call that may report."""

    def __init__(self, ticket: Ticket) -> None:
        self._reporter = _Reporter(ticket)
        self._token: Token[_Reporter | None] | None = None

    def __enter__(self) -> None:
        self._token = _reporter.set(self._reporter)
        _bars.hold()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._token is not None
        _bars.release()
        _reporter.reset(self._token)
        self._reporter.close()


class _Reporter:
    """Sends the reports of one call, not all of them."""

    __slots__ = ("_bar", "_end", "_is_over", "_latest", "_next_at", "_ticket")

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._end: End | None = None
        self._is_over = False  # nobody is there any more
        self._latest: tuple[Any, Any, Mapping[str, Any]] | None = None  # not sent yet
        self._next_at = 0.0
        self._bar: ReferenceType[Any] | None = None  # the outermost tqdm bar that is open

    def report(self, n: Any, total: Any, metrics: Mapping[str, Any]) -> None:
        """Take a report, and send it if it is time."""
        if type(n) is not int and type(n) is not float:
            n = _number("n", n)
        if total is not None and type(total) is not int and type(total) is not float:
            total = _number("total", total)
        self._latest = n, total, metrics
        now = monotonic()
        if now >= self._next_at:
            self._next_at = now + _INTERVAL_S
            self._send()

    def close(self) -> None:
        """Send what is left and hang up."""
        self._send(_LAST_S)
        if self._end is not None:
            self._end.close()
            self._end = None
        self._is_over = True

    def _send(self, timeout_s: float = 0.0) -> None:
        """Send the latest report, unless the scheduler's process is too far behind."""
        if self._latest is None or self._is_over:
            return
        from amltk_nb.errors import CommClosedError  # by now it is loaded, or soon will be

        n, total, metrics = self._latest
        try:
            self._end = self._end or self._ticket.connect(wait=False)
            plain = {name: _plain(value) for name, value in metrics.items()}
            if self._end is not None and self._end.send((), (n, total, plain), timeout_s=timeout_s):
                self._latest = None
        except CommClosedError:  # the run is over, and this call with it
            self._is_over = True

    # --- tqdm

    def bar_moved(self, bar: Any) -> bool:
        """Report for a bar if it is the outermost one; returns whether it is."""
        known = self._bar() if self._bar is not None else None
        if known is None:
            self._bar = ref(bar)
        elif known is not bar:
            return False
        self.report(bar.n, bar.total, _postfix(bar.postfix))
        return True

    def bar_closed(self, bar: Any) -> None:
        """Report where a bar ended."""
        if self.bar_moved(bar):
            self._bar = None


_reporter: ContextVar[_Reporter | None] = ContextVar("amltk_nb_reporter", default=None)


def _number(name: str, value: Any) -> float:
    """Return numbers of other libraries as plain ones."""
    if isinstance(value, Real) or hasattr(value, "__float__"):
        plain = float(value)
        return int(plain) if plain.is_integer() else plain
    raise TypeError(f"report({name}={value!r}): use a number, or for an unknown total None.")


def _plain(value: Any) -> Any:
    """Return a metric as a plain value that any view can show."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if not isinstance(value, str):
        try:
            return float(value)
        except Exception:  # whatever a value's own __float__ may raise
            value = _text(value)
    return value if len(value) <= _TEXT_CHARS else value[: _TEXT_CHARS - 1] + "…"


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose str() raised {type(error).__name__}>"


def _postfix(postfix: Any) -> dict[str, Any]:
    """Take a bar's "loss=0.3, acc=0.9" apart."""
    if not postfix:
        return {}
    parts = [part.partition("=") for part in str(postfix).split(", ")]
    if all(sep for _, sep, _ in parts):
        return {name.strip(): value.strip() for name, _, value in parts}
    return {"postfix": str(postfix)}


class _Bars(MetaPathFinder):
    """Has tqdm's bars report instead of drawing themselves, while calls that report run.

    `tqdm` is loaded by nobody but the call's own code. Where it comes later than the call's
    beginning, it is met on its way in. Only bars drawn within such a call are concerned: the
    context variable tells, so other threads' bars go on as ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_held = 0
        self._originals: dict[str, Any] = {}
        self._module: ModuleType | None = None

    def hold(self) -> None:
        with self._lock:
            self._n_held += 1
            if self._n_held == 1:
                sys.meta_path.insert(0, self)
                self._replace(sys.modules.get("tqdm.std"))

    def release(self) -> None:
        with self._lock:
            self._n_held -= 1
            if self._n_held == 0:
                sys.meta_path.remove(self)
                self._restore()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find `tqdm.std` as ever, and be there when it has been loaded."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname == "tqdm.std" else None
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            load = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                with self._lock:
                    if self._n_held:
                        self._replace(module)

            loader.exec_module = exec_module
        return spec

    def _replace(self, module: ModuleType | None) -> None:
        if module is None or self._module is not None or not hasattr(module, "tqdm"):
            return
        kind = module.tqdm
        refresh, close = kind.refresh, kind.close

        def refresh_or_report(bar: Any, *args: Any, **kwargs: Any) -> Any:
            reporter = _reporter.get()
            if reporter is None or bar.disable:
                return refresh(bar, *args, **kwargs)
            reporter.bar_moved(bar)
            return True

        def close_and_report(bar: Any) -> None:
            reporter = _reporter.get()
            if reporter is not None and not getattr(bar, "disable", True):
                reporter.bar_closed(bar)
            close(bar)

        self._module = module
        self._originals = {"refresh": refresh, "close": close}
        kind.refresh, kind.close = refresh_or_report, close_and_report

    def _restore(self) -> None:
        if self._module is not None:
            for name, original in self._originals.items():
                setattr(self._module.tqdm, name, original)
            self._module = None


_bars = _Bars()
