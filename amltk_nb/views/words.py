"""The words that the text and the HTML rendering share, so that both say the same.

Two things matter here. Strings of the user's program become harmless and visible: control and
direction characters, lone surrogates and megabytes of text must not change what the rest of the
page or terminal looks like. And the *stable* form leaves out whatever differs between two equal
runs, because saved notebooks are compared with what a fresh run shows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from amltk_nb.scheduling.snapshot import (
    CallbackRecord,
    CallRecord,
    EventRecord,
    LogRecord,
    PluginRecord,
    ProgressRecord,
    RunRecord,
    Snapshot,
)
from amltk_nb.scheduling.states import ENDED, CallState, RunState

__all__ = [
    "ICONS",
    "LOG_CHARS",
    "ONE_LINE_CHARS",
    "REASON_CHARS",
    "cell_note",
    "counted",
    "duration",
    "journal_note",
    "journal_warning",
    "natural",
    "number",
    "options_text",
    "outcome",
    "plugin_rows",
    "plural",
    "progress_text",
    "reason_of",
    "run_icon",
    "run_notes",
    "said",
    "seconds_of",
    "stable_log",
    "steady",
    "stopping_note",
    "time_text",
    "title_of",
    "totals",
    "value_text",
    "visible",
    "visible_callbacks",
    "with_something",
]

ONE_LINE_CHARS = 200  # of a name, an argument list or an error shown in one line
REASON_CHARS = 500  # of why a run ended
LOG_CHARS = 2000  # of one log entry

ICONS: dict[str, str] = {
    "queued": "○",
    "running": "◐",
    "done": "✓",
    "failed": "✕",
    "cancelled": "⊘",
    "idle": "○",
    "paused": "‖",
    "stopping": "■",
}

# Joiners are part of ordinary words and emoji; every other format character only hides things.
_JOINERS = "\u200c\u200d"
_HIDING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]+")
_PID = re.compile(r"\b(pid[ =:]{1,2})\d+")
_SOURCE_FILE = re.compile(
    r"(?<![\w./\\])(?:[A-Za-z]:)?(?:[/\\][^/\\\s\"':]+)+[/\\]([\w.+-]+\.py)\b(?::\d+)?"
)
_FRAMES = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*", re.MULTILINE)
_WORKER = re.compile(r"\bworker-\d+\b")
_PORT = re.compile(r"(?<=://)([\w.-]+|\[[0-9a-fA-F:.]+\]):\d+")
# Keys of plugin states carry their unit, so what measures time says so by its name.
_TIMED_KEY = re.compile(r"(_s|_at|\bpid|_pid|\bworker|_worker)$")


def visible(text: str, limit: int | None = None, *, lines: bool = False) -> str:
    """Spell a string so that it can do nothing but be read.

    Args:
        text: any string, lone surrogates included.
        limit: how many of its characters to keep; the cut is noted. None: all.
        lines: keep line breaks and tabs; otherwise they are spelled as well.
    """
    n_chars = len(text)
    cut = limit is not None and n_chars > limit
    kept = text[:limit] if cut else text
    if not kept.isprintable():
        kept = kept.replace("\r\n", "\n") if lines else kept
        kept = "".join(map(_spelled_in_lines if lines else _spelled, kept))
    return f"{kept}… (cut, {number(n_chars)} characters)" if cut else kept


def _spelled(char: str) -> str:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) not in _HIDING:
        return char
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    # Unicode has pictures for control characters, but many fonts do not.
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _spelled_in_lines(char: str) -> str:
    return char if char in "\n\t" else _spelled(char)


def steady(text: str) -> str:
    """Leave out of a text what differs between equal runs on one machine or another.

    That is addresses, ports, process ids, workers, the frames of tracebacks and where source
    files lie.
    """
    text = _SOURCE_FILE.sub(r"\1", _ADDRESS.sub("0x…", _FRAMES.sub("", text)))
    return _PORT.sub(r"\1:…", _WORKER.sub("worker", _PID.sub(r"\1…", text)))


def said(
    text: str, limit: int = ONE_LINE_CHARS, *, stable: bool = False, lines: bool = False
) -> str:
    """Spell a string of the user's program for a view; see `visible` and `steady`."""
    if not stable:
        return visible(text, limit, lines=lines)
    # Only the beginning of a huge text is searched, and its length may differ between runs.
    head = steady(text[: 4 * limit])
    cut = len(head) > limit or len(text) > 4 * limit
    return visible(head[:limit], lines=lines) + "… (cut)" * cut


def number(n: int) -> str:
    """Write a count: 10,000."""
    return f"{n:,}"


def plural(n: int, noun: str) -> str:
    """Write a count with its noun: "1 call", "2 calls"."""
    return f"{number(n)} {noun}" if n == 1 else f"{number(n)} {noun}s"


def duration(seconds: float) -> str:
    """Write a duration with two or three telling digits: 4 ms, 0.31 s, 2 min 05 s, 1 h 02 min."""
    seconds = max(seconds, 0.0)
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def value_text(value: Any) -> str:
    """Write one value of a plugin's state or of a backend's options."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {value_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value))
    return value if isinstance(value, str) else _repr(value)


def _repr(value: object) -> str:
    """Not every repr works: that of an int of 5 000 digits raises, and so may any user's."""
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__} without a repr: {type(error).__name__}>"


def options_text(options: Mapping[str, Any]) -> str:
    """Write a backend's options as a dict is written: {'max_workers': 2}."""
    return "{" + ", ".join(f"{key!r}: {_repr(value)}" for key, value in options.items()) + "}"


def title_of(snapshot: Snapshot) -> str:
    """Name a scheduler: "Scheduler 'seeds'", or only "Scheduler" if its user gave no name."""
    named = snapshot.name not in ("", "scheduler")
    return f"Scheduler '{visible(snapshot.name, 40)}'" if named else "Scheduler"


def outcome(run: RunRecord) -> str:
    """Say the state, and once it is over how it ended: "running", "finished (exhausted)"."""
    over = run.state is RunState.FINISHED and run.code
    return f"{run.state} ({visible(str(run.code), 40)})" if over else str(run.state)


def run_icon(run: RunRecord) -> tuple[str, str]:
    """Return the icon of a run and the name of its colour, which is that of a call's state."""
    if run.state is RunState.FINISHED:
        tone = {"exception": "failed", "cancelled": "cancelled"}.get(run.code or "", "done")
        return ICONS[tone], tone
    tones = {RunState.RUNNING: "running", RunState.IDLE: "queued"}
    return ICONS[run.state], tones.get(run.state, "cancelled")


def reason_of(run: RunRecord, *, stable: bool) -> str:
    """Say why a run ended or is ending, if there is more to say than its exit code."""
    return said(run.reason or "", REASON_CHARS, stable=stable)


def run_notes(snapshot: Snapshot, *, stable: bool) -> list[str]:
    """Say where it is recorded, which run it is and, unless stable, how long it took."""
    run = snapshot.run
    notes = [journal_note(snapshot)] if snapshot.journal is not None else []
    notes += [f"run {number(run.n)}"] if run.n > 1 else []
    if not stable and run.state is RunState.STOPPING:
        notes.append(stopping_note(snapshot))
    if not stable and run.n:
        notes.append(duration(run.elapsed_s))
    return [note for note in notes if note]


def stopping_note(snapshot: Snapshot) -> str:
    """Say what becomes of the running calls of a run that is stopping, and when."""
    run, n_running = snapshot.run, snapshot.counts.get(CallState.RUNNING, 0)
    if n_running and run.grace_ends_at is not None:
        left_s = run.grace_ends_at - snapshot.now
        when = f"in {duration(left_s)}" if left_s > 0 else "now"
        # Behind, unseen: threads cannot be ended.
        verb = "ends" if snapshot.backend.cannot_end is None else "leaves"
        return f"stopping: {verb} {plural(n_running, 'running call')} {when}"
    if run.stopping_since is None:
        return ""
    return f"stopping for {duration(snapshot.now - run.stopping_since)}"


def journal_note(snapshot: Snapshot) -> str:
    """Say where calls are recorded: "journal run.db"; nothing if they are not."""
    journal = snapshot.journal
    if journal is None:
        return ""
    return f"journal {visible(journal.name, 60)}{' (closed)' if journal.is_closed else ''}"


def journal_warning(snapshot: Snapshot, *, stable: bool = False) -> str:
    """Say that the journal lacks something, if it does; how much depends on the moment."""
    journal = snapshot.journal
    if journal is None or not (journal.n_unwritten or (journal.is_failing and not stable)):
        return ""
    n = journal.n_unwritten
    if not n:
        return "The journal cannot be written for now, and it is tried again; the log says why."
    entries = "entries" if stable else "1 entry" if n == 1 else f"{number(n)} entries"
    return f"The journal lacks {entries}, so recover() may not find all calls; the log says why."


def counted(counts: Mapping[CallState, int]) -> list[tuple[CallState, int]]:
    """Return the count of each of the five states, in the order they are always shown."""
    return [(state, counts.get(state, 0)) for state in CallState]


def totals(counts: Mapping[CallState, int]) -> tuple[int, int]:
    """Return how many calls ended and how many were submitted."""
    return sum(counts.get(state, 0) for state in ENDED), sum(n for _, n in counted(counts))


def visible_callbacks(event: EventRecord) -> list[CallbackRecord]:
    """Return the callbacks that are meant to be seen."""
    return [callback for callback in event.callbacks if not callback.hidden]


def with_something(events: Iterable[EventRecord]) -> list[EventRecord]:
    """Keep the events that happened or that somebody listens to."""
    return [event for event in events if event.count or visible_callbacks(event)]


def cell_note(callback: CallbackRecord, *, stable: bool) -> str:
    """Say from which notebook cell a callback comes: "cell [3]", or nothing.

    The number counts executions, so it differs as soon as any cell is run twice, and clients
    that keep no history (nbval) never raise it: the stable form goes without.
    """
    return f"cell {visible(callback.cell, 20)}" if callback.cell and not stable else ""


def plugin_rows(plugin: PluginRecord, *, stable: bool) -> list[tuple[str, str]]:
    """Return a plugin's state as rows of (label, value); the stable form has no measured times."""
    rows = []
    for key, value in plugin.state.items():
        if not (stable and _TIMED_KEY.search(key)):
            timed = key.endswith("_s") and isinstance(value, int | float)
            text = duration(value) if timed else value_text(value)
            label = visible(key.removesuffix("_s" if timed else "").replace("_", " "), 60)
            rows.append((label, said(text, stable=stable)))
    return rows


def progress_text(progress: ProgressRecord) -> str:
    """Write how far a call is: "37/100, loss=0.1234"."""
    total = "" if progress.total is None else f"/{_amount(progress.total)}"
    metrics = (f"{name}={_amount(value)}" for name, value in progress.metrics.items())
    return visible(", ".join([f"{_amount(progress.n)}{total}", *metrics]), ONE_LINE_CHARS)


def _amount(value: Any) -> str:
    if not isinstance(value, float):
        return value_text(value)
    return number(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def seconds_of(call: CallRecord, now: float) -> float | None:
    """Return how long a call ran, or has been running until `now`; None: it never began."""
    if call.seconds is not None or call.started_at is None:
        return call.seconds
    return (call.ended_at if call.ended_at is not None else now) - call.started_at


def time_text(call: CallRecord, now: float) -> str:
    """Say how long a call ran or has been running, or when one that is held back will start."""
    if call.state is CallState.QUEUED and call.not_before is not None:
        return f"in {duration(call.not_before - now)}" if call.not_before > now else "now"
    seconds = seconds_of(call, now)
    return "" if seconds is None else duration(seconds)


def stable_log(log: Iterable[LogRecord]) -> list[LogRecord]:
    """Return a log in an order that does not depend on timing.

    What the engine remarks by the way is left out: it tells of durations and workers.
    """
    chatter = {"debug", "info"}
    told = [record for record in log if record.source != "scheduler" or record.level not in chatter]
    return sorted(told, key=_order_of)


def _order_of(record: LogRecord) -> list[Any]:
    texts = [said(text, LOG_CHARS, stable=True) for text in (record.source, record.level)]
    text = said(record.text, LOG_CHARS, stable=True)
    return [*texts, natural(text), text]


def natural(text: str) -> list[tuple[int, str]]:
    """Make "score 9" sort before "score 10"; digits and other parts alternate."""
    parts = re.split(r"([0-9]{1,18})", text)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]
