"""Strings that a page must show and never obey, and a scheduler that is made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amltk_nb import Plugin, Scheduler
from amltk_nb.scheduling.snapshot import WorkerRecord
from amltk_nb.testing import ManualBackend
from amltk_nb.views.bundle import static_bundle
from amltk_nb.views.detail import detail_of
from amltk_nb.views.feed import Feed
from amltk_nb.views.report import render_report
from tests.scheduling.conftest import settled, turn_until

__all__ = ["CODE", "FILE_NAME", "HUGE_CHARS", "TEXTS", "Gathered", "gather"]

# What each of them tries: a page that has run one has this global and has opened a dialog.
CODE = "window.pwned=(window.pwned||0)+1;alert(`pwned`)"
ELSEWHERE = "http://elsewhere.invalid"
HUGE_CHARS = 10_000_000
FILE_NAME = "<img src=x onerror=alert(1)> & 'journal'.db"

TEXTS: dict[str, str] = {
    "script": f"<script>{CODE}</script>",
    "image": f'<img src=x onerror="{CODE}">',
    "drawing": f'<svg onload="{CODE}"><animate onbegin="{CODE}" attributeName=x dur=1s></svg>',
    "frame": f'<iframe srcdoc="<script>parent.{CODE}</script>"></iframe>',
    "attribute end": f'"><img src=x onerror="{CODE}">',
    "attribute end, single": f"' onmouseover='{CODE}' autofocus onfocus='{CODE}' x='",
    "table end": f"</code></td></tr></table></details></div><script>{CODE}</script>",
    "pre end": f"</pre></li></ol><img src=x onerror='{CODE}'>",
    "script end": f"</script><script>{CODE}</script>",
    "title end": f"</title></style></textarea></noscript><script>{CODE}</script>",
    "comment": f"<!-- --!><img src=x onerror='{CODE}'> <![CDATA[ ]]>",
    "unclosed": f"<b><i><a href='javascript:{CODE}' <div",
    "link": f"<a href=\"javascript:{CODE}\">click</a> javascript:{CODE}//",
    "data link": f"data:text/html,<script>{CODE}</script>",
    "form": f"<form action='javascript:{CODE}'><button autofocus>go</button></form>",
    "object": f"<object data='javascript:{CODE}'><embed src='javascript:{CODE}'></object>",
    "base": f"<base href='{ELSEWHERE}'><meta http-equiv=refresh content='0;url={ELSEWHERE}'>",
    "styles": f"</style><style>*{{background:url({ELSEWHERE}/x);display:none}}</style>",
    "style": f"}} * {{ background: url({ELSEWHERE}/y); }} ;color:red;width:expression({CODE})",
    "import": f"@import '{ELSEWHERE}/z.css';",
    "mutation": f"<math><mtext><table><mglyph><style><!--</style><img src onerror={CODE}>",
    "entities": f"&lt;script&gt; &#60;img src=x onerror={CODE}&#62; &amp;lt; &nbsp;",
    "template": f"{{{{constructor.constructor('{CODE}')()}}}} ${{{CODE}}} <%= 1 %> {{0.__class__}}",
    "markdown": f"[x](javascript:{CODE}) ![y]({ELSEWHERE}/p.png) ``` $\\href{{javascript:1}}{{z}}$",
    "colours": "\x1b[31;1mred\x1b[0m \x1b[2J\x1b[H cleared \x1b]0;title\x07",
    "terminal link": f"\x1b]8;;{ELSEWHERE}\x1b\\here\x1b]8;;\x1b\\ \x9b31m",
    "controls": "a\x00b\x07c\x08d\x7fe\x85f\x0bg\x0ch",
    "carriage": "seen\rhidden\r\nnext\tcolumn",
    "bidi": "user\u202egnp.exe\u202c \u2066isolated\u2069 \u200fmark\u061c",
    "right to left": "שלום עולם, مرحبا بالعالم",
    "zero width": "ad\u200bmin\u200d\u2060\ufeff soft\u00adhyphen",
    "separators": "line\u2028paragraph\u2029end",
    "lone surrogates": "high \ud800 low \udfff both \udc00\ud83d",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 💥",
    "combining": "Z" + "\u0301\u0316" * 40 + "algo",
    "prototype": "__proto__ constructor hasOwnProperty toString",
    "format": "%s %n %d {} {{}} {0} {name!r} \\x41 \\u0041 \\",
    "quotes": "'\"`´‘’“”«»'\"",
    "blank": " \t ",
    "long word": "w" * 3_000,
}  # fmt: skip


class Spoken:
    """Has a text for its repr, as a user's class may."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


class Loud(Plugin):
    """Has any text for its name and its state."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.name = text  # type: ignore[misc]
        self.text = text

    def state(self) -> dict[str, Any]:
        return {self.text: self.text, "value": Spoken(self.text), "list": [self.text]}


class NamedWorkers(ManualBackend):
    """Has any texts for the names of its workers and their machines."""

    def workers(self) -> tuple[WorkerRecord, ...]:
        shown = super().workers()
        return tuple(
            replace(worker, name=text, where=text)
            for worker, text in zip(shown, TEXTS.values(), strict=True)
        )


@dataclass(frozen=True)
class Gathered:
    """What the views make of it."""

    full: dict[str, Any]
    details: dict[int, dict[str, Any]]
    html: str
    report: str


def speaker(text: str) -> Callable[..., str]:
    """Make a function with any text for its name, its default and its annotation."""

    spoken = Spoken(text)

    def said(what: str = text, *more: Any, default: Any = spoken, **options: Any) -> str:
        raise AssertionError("nobody runs it")

    said.__name__ = said.__qualname__ = text
    said.__annotations__["what"] = text
    return said


def deep(levels: int) -> list[Any]:
    """Nest lists so deeply that a careless repr ends the process."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


async def gather(folder: Path) -> Gathered:
    """Have calls end with every text in every place, and show the scheduler in every way.

    Args:
        folder: for the journal.
    """
    texts = list(TEXTS.values())
    backend = NamedWorkers(len(texts))
    scheduler = Scheduler(backend, name=TEXTS["script"], journal=folder / FILE_NAME)
    scheduler.start(display=False)
    for text in texts:
        _call_with(scheduler, text)
    await turn_until(lambda: len(backend.calls) == len(texts))
    for call, text in zip(backend.calls, texts, strict=True):
        measured = {"output": text, "started_at": 1_000.0 + call.id, "seconds": 0.5}
        if call.id % 3 == 0:
            backend.finish(call, Spoken(text), **measured)
        elif call.id % 3 == 1:
            backend.fail(call, ValueError(text), **measured)
        scheduler.log(text, "print", text)
        scheduler.log("level", text, text)
    huge = scheduler.task(speaker("huge"))
    for value in ("h" * HUGE_CHARS, deep(5_000)):
        future = huge.submit(value)
        assert future is not None
        await turn_until(lambda: future.call in backend.calls)  # noqa: B023
        backend.finish(future, value, output="o" * HUGE_CHARS)
        await asyncio.wait([future], timeout=20)
    scheduler.log("huge", "print", "l" * HUGE_CHARS)
    await settled()
    taken = {call: call.worker for call in backend.calls}
    for record, text in zip(scheduler.calls()[::-1], texts, strict=False):
        scheduler.find_call(record.id).worker = text
    gathered = _gathered(scheduler)
    for call, worker in taken.items():
        call.worker = worker
    scheduler.stop(wait=False)
    for call in backend.calls:
        backend.cancel(call)
    assert scheduler.last_run is not None
    await asyncio.wait_for(scheduler.last_run.over(), 20)
    return gathered


def _call_with(scheduler: Scheduler, text: str) -> None:
    task = scheduler.task(speaker(text), plugins=Loud(text))

    def heard(*_: Any) -> None:
        """Be called."""

    heard.__name__ = heard.__qualname__ = text
    task.on_result(heard)
    task.submit(text, Spoken(text), **{text: text})


def _gathered(scheduler: Scheduler) -> Gathered:
    sent: list[dict[str, Any]] = []
    feed = Feed(scheduler.snapshot, sent.append)
    feed.hello()
    feed.step(0.0, 2_000.0)
    details = {call.id: detail_of(scheduler.find_call(call.id)) for call in scheduler.calls()}
    html = static_bundle(scheduler)["text/html"]
    return Gathered(sent[0], details, html, render_report(scheduler))
