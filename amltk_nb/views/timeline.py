"""What each worker ran when, as a table with a row of bars per worker; no script draws it.

The bars are as wide as the page lets them be: they are placed by shares of the time. Where the
host takes the drawings away, workers, their calls and how busy they were still stand there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

from amltk_nb.scheduling.snapshot import CallRecord
from amltk_nb.scheduling.states import CallState
from amltk_nb.views import words
from amltk_nb.views.markup import Markup, el

__all__ = ["N_LANES", "Bar", "bars", "chart"]

N_LANES = 24
_GRAIN = 0.002  # of the whole time: shorter neighbours are drawn as one
_LEAST = 0.15  # percent: what is narrower is not seen
_LEAST_FAILED = 0.6  # a failure is seen on top of what was before it, however short
_DENSE = 0.016  # and what was drawn as one is at most so long
_HEIGHT, _BAR = 18, 12  # pixels
_NAME_CHARS = 60
_TOLD_CHARS = 80  # of a call under the pointer
# Outcomes differ without colour too. Each drawing has patterns of its own: ids are of the page.
_PATTERNS = Markup(
    '<pattern id="{0}-failed" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<path d="M0 0L6 6M6 0L0 6"/></pattern>'
    '<pattern id="{0}-running" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<path d="M-1 7L7 -1M-1 1L1 -1M5 7L7 5"/></pattern>'
    '<pattern id="{0}-cancelled" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<circle cx="3" cy="3" r="1.3"/></pattern>'
)


@dataclass
class Bar:
    """One call, or several of one outcome that are too short to be told apart."""

    state: CallState
    start: float  # seconds since the epoch, as `end`
    end: float
    calls: list[CallRecord]


def chart(calls: Iterable[CallRecord], now: float) -> Markup:
    """Draw who ran what when; nothing if nobody ran anything.

    Args:
        calls: in any order; those that never ran on a worker are left out.
        now: when a running call is cut off, in seconds since the epoch.
    """
    lanes: defaultdict[str, list[CallRecord]] = defaultdict(list)
    for call in calls:
        if call.worker is not None and call.started_at is not None:
            lanes[call.worker].append(call)
    if not lanes:
        return Markup("")
    names = sorted(lanes, key=words.natural)
    frame = _frame([call for lane in lanes.values() for call in lane], now)
    rows = [_row(name, lanes[name], frame) for name in names[:N_LANES]]
    heads = [("Worker", "name"), ("0 s", ""), ("Calls", "num"), ("Busy", "num")]
    cells = [el("th", text, scope="col", cls=cls) for text, cls in heads]
    cells[1] = el(
        "th", el("span", "0 s"), el("span", words.duration(frame.length)), scope="col", cls="axis"
    )
    table = el("table", el("thead", el("tr", *cells)), el("tbody", *rows), cls="lanes")
    n_more = len(names) - len(rows)
    more = el("p", f"… and {words.plural(n_more, 'more worker')}", cls="more") if n_more else ""
    patterns = el("defs", Markup(_PATTERNS.format(frame.key)))
    return Markup(el("svg", patterns, width=0, height=0, aria_hidden="true") + table + more)


class _Frame(NamedTuple):
    """What all lanes of a chart share."""

    begin: float
    length: float  # seconds
    now: float
    key: str  # of the patterns


def _frame(calls: list[CallRecord], now: float) -> _Frame:
    spans = [_span(call, now) for call in calls]
    begin, end = min(start for start, _ in spans), max(end for _, end in spans)
    # Drawings of one page must not share ids, and equal ones must be equal texts.
    key = crc32(repr((len(calls), begin, end)).encode())
    return _Frame(begin, max(end - begin, 1e-3), now, f"amltk-nb-{key:x}")


def bars(calls: Iterable[CallRecord], length: float, now: float) -> list[Bar]:
    """Return the bars of one worker, in order of time; see `chart`.

    Args:
        calls: of this worker, all of them begun.
        length: of the whole time that is drawn, in seconds.
        now: as for `chart`.
    """
    drawn: list[Bar] = []
    for call in sorted(calls, key=lambda call: (call.started_at or 0.0, call.id)):
        start, end = _span(call, now)
        last = drawn[-1] if drawn else None
        if (
            last is not None
            and last.state is call.state
            and max(end - start, start - last.end) < _GRAIN * length
            and last.end - last.start < _DENSE * length
        ):
            last.end = max(last.end, end)
            last.calls.append(call)
        else:
            drawn.append(Bar(call.state, start, end, [call]))
    return drawn


def _row(name: str, calls: list[CallRecord], frame: _Frame) -> Markup:
    lane = bars(calls, frame.length, frame.now)
    shapes = [shape for bar in lane for shape in _shapes(bar, frame)]
    busy_s = sum(end - start for start, end in (_span(call, frame.now) for call in calls))
    return el(
        "tr",
        el("th", words.visible(name, _NAME_CHARS), scope="row", cls="name"),
        el("td", el("svg", *shapes, width="100%", height=_HEIGHT, aria_hidden="true"), cls="lane"),
        el("td", words.number(len(calls)), cls="num"),
        el("td", f"{min(1.0, busy_s / frame.length):.0%}", cls="num"),
    )


def _shapes(bar: Bar, frame: _Frame) -> Iterable[Markup]:
    begin, end = (100 * (at - frame.begin) / frame.length for at in (bar.start, bar.end))
    width = max(end - begin, _LEAST)
    if bar.state is CallState.FAILED and width < _LEAST_FAILED:
        begin, width = max(0.0, end - _LEAST_FAILED), _LEAST_FAILED
    place: dict[str, Any] = {
        "x": f"{begin:.2f}%",
        "y": (_HEIGHT - _BAR) // 2,
        "width": f"{width:.2f}%",
        "height": _BAR,
    }
    yield el("rect", el("title", _sentence(bar)), cls=str(bar.state), **place)
    if bar.state is not CallState.DONE:
        fill = f"url(#{frame.key}-{bar.state})"
        yield el("rect", fill=fill, pointer_events="none", **place)


def _sentence(bar: Bar) -> str:
    took = words.duration(bar.end - bar.start)
    if len(bar.calls) > 1:
        return f"{words.plural(len(bar.calls), 'short call')}, {bar.state}, in {took}"
    (call,) = bar.calls
    what = words.visible(f"{call.function}({call.args})", _TOLD_CHARS)
    error = f": {words.visible(call.error, _TOLD_CHARS)}" if call.error else ""
    return f"Call {words.number(call.id)} {what}, {bar.state}, {took}{error}"


def _span(call: CallRecord, now: float) -> tuple[float, float]:
    """Say from when to when a call ran; a worker's own measure tells more than when news came."""
    start = call.started_at or 0.0
    if call.state is CallState.RUNNING:
        return start, max(start, now)
    end = start + call.seconds if call.seconds is not None else (call.ended_at or start)
    return start, max(start, end)
