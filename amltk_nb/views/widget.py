"""The live dashboard: an anywidget over one scheduler.

::

    engine ──changed() on any thread──▶ flag ──loop──▶ Feed: snapshot → model → patch ──▶ page
    page ──message on any thread──▶ command ──at once, or posted to the loop──▶ reply

Kernels run a message's handler on whatever thread they chose, and it changes from click to
click. So a handler only calls what promises to act on any thread, and posts everything else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import ref

import anywidget
import traitlets

from amltk_nb.errors import CommandError
from amltk_nb.scheduling.interrupts import gently
from amltk_nb.views.bundle import is_static, views_bundle
from amltk_nb.views.commands import command_of, dispatch_command
from amltk_nb.views.feed import QUIET_GAP_S, Feed
from amltk_nb.views.source import Source

if TYPE_CHECKING:
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = ["N_FROZEN", "OFFER_S", "PANEL", "VIEWS", "Dashboard", "make"]

_log = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"

VIEWS = (
    "header",
    "progress",
    "controls",
    "events",
    "queue",
    "timeline",
    "workers",
    "plugins",
    "log",
)
PANEL = ("progress", "queue", "events", "plugins")  # of one task

# A page that was reloaded knows no display id, so freezing cannot reach it: it is sent what is to
# stay and puts it there itself, if its host lets it, whenever it shows the widget. So the latest
# ones live on.
N_FROZEN = 16
OFFER_S = 1.0  # between two offers to a page that is not heard
_frozen: deque[Dashboard] = deque()


class Dashboard(anywidget.AnyWidget):
    """The live view of a scheduler or of one of its tasks, with buttons that steer it.

    It does not keep its scheduler alive; when that is gone, the pages say so.
    """

    _esm = _STATIC / "widget.js"
    _css = _STATIC / "widget.css"
    views = traitlets.List(traitlets.Unicode()).tag(sync=True)
    task = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    known_views: ClassVar[tuple[str, ...]] = VIEWS
    freezes = True  # at the end of a run
    _is_heard = False
    _made = False  # `__del__` closes what a ValueError left unmade, too

    def __init__(
        self, scheduler: Scheduler, views: Sequence[str] = VIEWS, *, task: str | None = None
    ) -> None:
        """Make a dashboard; it costs nothing until a page shows it.

        Args:
            scheduler: what is shown and steered.
            views: which parts to show, of `VIEWS`.
            task: the ref of the one task to show; None: all.

        Raises:
            ValueError: an unknown view, or none at all.
        """
        known = self.known_views
        unknown = [view for view in views if view not in known]
        if unknown or not views:
            raise ValueError(f"views must be some of {', '.join(known)}; got {list(views)}.")
        # Messages can come as soon as the comm opens, so all they need is there before.
        self._source = Source(scheduler, views, task, self._dropped)
        self._feed = Feed(self._source.needed, self._send_locked)
        self._send_lock = threading.RLock()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = _running_loop()
        self._handles: list[Any] = []
        super().__init__(views=list(views), task=task)
        self.on_msg(self._on_message)
        _keep_to_the_pages_subshell(self.comm)
        scheduler.observe(self)
        self._made = True

    def changed(self) -> None:
        """Be told by the scheduler, on any thread, that something moved."""
        if self._feed.mark():
            self._post(self._pump)

    def offer(self, may_be_late: Callable[[], bool]) -> None:
        """Send everything unasked, once a second, until a page is heard; on the loop's thread.

        Many kernels keep what a page says until the cell that runs has ended: one that starts a
        run and waits for it would show an empty view for as long.

        Args:
            may_be_late: says whether a page may be there that cannot be heard now.
        """
        if self._loop is not None:
            self._loop.call_later(OFFER_S, _offered, ref(self), may_be_late)

    def freeze(self) -> None:
        """Put static HTML of the present state where this dashboard is displayed.

        Saved notebooks, exports and reopened pages show that, where a live view would be lost.
        """
        bundle = self._static()
        is_first = not self._feed.ended  # whoever awaits a run freezes its dashboard once more
        # Before the pages are taken away: some have promised to tell their reader of the end.
        self._end({"model_id": self.model_id, "bundle": bundle})
        for handle in self._handles:
            handle.update(bundle, raw=True)
        if is_first:
            _frozen.append(self)
        if len(_frozen) > N_FROZEN:
            _frozen.popleft().close()

    def close(self) -> None:
        """Tell the pages the last state, stop following the scheduler, and end the connection."""
        if self._made:
            self._end()
            self.layout.close()
        if self in _frozen:
            _frozen.remove(self)
        super().close()

    def _end(self, frozen: dict[str, Any] | None = None) -> None:
        if not self._feed.ended:
            if (scheduler := self._source.scheduler) is not None:
                scheduler.unobserve(self)
            self._cancel_timer()
            self._feed.end(time.time(), frozen)

    def _dropped(self) -> None:
        """Learn, in a garbage collection, that the scheduler is gone."""
        # Nothing is sent from here: it may be any thread, in the midst of anything.
        if self._loop is not None:
            self._post(self._end)

    @property
    def is_displayed(self) -> bool:
        """Whether it stands in some output, which can be frozen."""
        return bool(self._handles)

    @property
    def ended(self) -> bool:
        """Whether it shows no more news: frozen, closed, or its scheduler is gone."""
        return self._feed.ended

    def _static(self) -> dict[str, Any]:
        return views_bundle(self._source.whole(), self.views, self.task)

    def __repr__(self) -> str:
        # Never the default: an address, or values that change, would differ from run to run.
        of = f", task={self.task!r}" if self.task is not None else ""
        return f"Dashboard({self._source.name!r}{of})"

    def _ipython_display_(self) -> None:
        # A display id, because an output shown by `_repr_mimebundle_` cannot be replaced later.
        from IPython.display import display

        data, _ = self._repr_mimebundle_()
        self._handles.append(display(data, raw=True, display_id=True))  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = self._static()
        if not is_static() and self.comm is not None:  # a closed one has no page any more
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle, {}

    def set_state(self, sync_data: object) -> None:
        """Leave everything as it is: the kernel says what is shown, and pages only send commands.

        ipywidgets would take over whatever a page claims, even the code that other pages run.
        """
        _log.debug("A page tried to change the state of %r", self)

    def _offer_now(self, may_be_late: Callable[[], bool]) -> None:
        if self._is_heard or self._feed.ended:
            return
        if may_be_late():
            self._feed.hello()
            self._pump()
        self.offer(may_be_late)

    def _on_message(self, _: object, content: object, buffers: object) -> None:
        """Take a message on whatever thread the kernel chose."""
        self._is_heard = True
        try:
            at_once = command_of(content)[0].any_thread
        except CommandError:
            at_once = True  # the answer is a refusal, which touches nothing
        # A loop that is gone runs nothing that could be disturbed, and leaves no click unanswered.
        if at_once or not self._post(self._answer, content):
            self._answer(content)

    def _answer(self, content: object) -> None:
        if self.comm is None:  # closed meanwhile: nothing is begun that nobody sees
            return
        if self._source.scheduler is None:
            self._end()
        reply = self._dispatch(content)
        if reply["ok"] and isinstance(content, Mapping) and content["name"] == "snapshot":
            self._feed.hello()
            self._pump()
        self._send_locked(reply)

    def _dispatch(self, content: object) -> dict[str, Any]:
        return dispatch_command(self._source.target(), content)

    def _post(self, fn: Callable[..., None], *args: object) -> bool:
        """Run `fn` on the loop's thread; at once where there was no loop to begin with.

        Returns:
            Whether it runs; not if the loop is closed.
        """
        if self._loop is None:
            fn(*args)
            return True
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:  # closed, maybe this moment
            return False
        return True

    def _pump(self) -> None:
        """Send what is due and come back when more is; on the loop's thread."""
        # An interrupt of a cell that ends just now would else end the loop, and the kernel with it.
        with gently:
            self._pump_on()

    def _pump_on(self) -> None:
        self._cancel_timer()
        try:
            delay = self._feed.step(time.monotonic(), time.time())
        except Exception:  # a broken view must not end up in the loop, which is the user's
            _log.exception("The dashboard could not be updated; trying again")
            delay = QUIET_GAP_S
        if delay is not None and self._loop is not None and not self._loop.is_closed():
            self._timer = self._loop.call_later(delay, self._pump)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_locked(self, message: dict[str, Any]) -> None:
        # Replies to Stop, Pause and Cancel leave from the handler's thread.
        with self._send_lock:
            if self.comm is not None:
                self.send(message)


def make(scheduler: Scheduler, views: Sequence[str], task: str | None) -> Dashboard:
    """Make a dashboard; with no views, of all that a scheduler or a task has."""
    return Dashboard(scheduler, views or (VIEWS if task is None else PANEL), task=task)


def _offered(dashboard: ref[Dashboard], may_be_late: Callable[[], bool]) -> None:
    if (made := dashboard()) is not None:
        made._offer_now(may_be_late)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _keep_to_the_pages_subshell(comm: Any) -> None:
    """Let a click be handled while a cell blocks, on ipykernel 7.4.

    From 7.4 on, a comm's messages go to the shell that last published on it. Our pump publishes
    from the main shell all the time, so a Stop click would wait behind a blocking cell; 7.0 to
    7.3 deliver it to the page's own subshell at once. This puts the page's choice back. The name
    is private to ipykernel, so nothing depends on it being there.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default
