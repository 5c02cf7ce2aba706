"""What a page could send and should not: messages of all shapes, from a seed, and which are right.

Each is a value as it comes out of the kernel's JSON parser, so anything that JSON can hold.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["ANSWERED", "READING", "Forger", "as_received", "is_right", "number_of"]

ANSWERED = frozenset({"snapshot", "rows"})  # commands that nothing ever refuses
READING = ANSWERED | {"detail", "edit", "form"}  # commands that change nothing
STATES = ("queued", "running", "done", "failed", "cancelled")
MOST_ROWS = 200
MOST_FIELDS, MOST_TYPED = 100, 40_000  # of a form: entries, and characters of one
HEAVY_BYTES = 10_000_000
DEPTH = 150  # of nested lists; some kernels' parsers refuse more than some hundred

# What the page's own protocol says (js/src/wire.ts), written down once more: so that a check that
# gets lost on the Python side is noticed here.
_TAKES: Mapping[str, tuple[str, ...]] = {
    "snapshot": (),
    "start": (),
    "pause": (),
    "resume": (),
    "stop": (),
    "stop_now": (),
    "resubmit_failed": (),
    "restart_workers": (),
    "cancel": ("call",),
    "resubmit": ("call",),
    "resubmit_with": ("call", "entries", "stamp"),
    "edit": ("call",),
    "form": (),
    "submit": ("entries", "stamp"),
    "detail": ("call",),
    "rows": ("state", "before", "limit"),
}
_HOSTILE_NAMES = (
    "__class__", "__init__", "eval", "Stop", "stop ", "stop\0", "", "stop_now()", "recover",
    "submit", "journal.close", "os.system", "../stop", "s\u0301top", "\ud800", "args",
)  # fmt: skip
_TEXTS = (
    "", "1", "queued", "QUEUED", "\ud800", "\udfff\ud800", "\u202e\u2066", "\0", "💥", "\n" * 50,
    "'; DROP TABLE calls; --", "<script>alert(1)</script>", "{0.__class__}", "%s%n", "NaN",
    "a" * 5_000,
)  # fmt: skip
_TYPED: tuple[Any, ...] = (
    "3", "-1", "0x10", "'a'", "[1, {'b': (2,)}]", "{}", "", True, False, 0, 1, -1, 10**30,
    "a" * 5_000, "__import__('os').system('id')", "().__class__", "1+1+1+1+1", "lambda: 0",
    "[" * 300, "-" * 9_000, "f'{0}'", "9" * 9_000, "[x for x in y]", "\0", "\ud800", "'\ud800'",
    "x if 1 else y", "{**{}}", "10**10**10",
)  # fmt: skip
_NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 200, 201, 2**31, 2**63, 2**64, -(2**63), 10**40, 10**300, 10**4_000,
    0.0, -0.0, 1.0, 1.5, 1e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip


def as_received(value: Any) -> Any:
    """Return a value after its way through JSON, as the kernel hands it over."""
    return json.loads(json.dumps(value))


def number_of(message: Any) -> int | None:
    """Return the number under which a message wants its answer; None: it names none."""
    number = message.get("id") if isinstance(message, dict) else None
    return number if type(number) is int else None


def is_right(message: Any) -> bool:
    """Say whether a message is a known command with arguments of the right kinds."""
    if not isinstance(message, dict) or message.get("kind") != "command":
        return False
    name, args = message.get("name"), message.get("args", {})
    if not isinstance(name, str) or name not in _TAKES or not isinstance(args, dict):
        return False
    if name == "snapshot":  # pages of all versions are answered
        return args.get("schema") in (None, 1)
    if not set(args) <= set(_TAKES[name]):
        return False
    if "call" in _TAKES[name] and not _is_id(args.get("call")):
        return False
    if "stamp" in _TAKES[name] and not _is_filled(args):
        return False
    before, limit, state = (args.get(key) for key in ("before", "limit", "state"))
    return (
        (before is None or _is_id(before))
        and (limit is None or (_is_id(limit) and limit <= MOST_ROWS))
        and (state is None or (isinstance(state, str) and state in STATES))
    )


def _is_filled(args: Mapping[str, Any]) -> bool:
    entries, stamp = args.get("entries"), args.get("stamp")
    if not isinstance(entries, dict) or len(entries) > MOST_FIELDS:
        return False
    kinds = all(type(entry) in (bool, int, str) for entry in entries.values())
    short = all(len(entry) <= MOST_TYPED for entry in entries.values() if type(entry) is str)
    return kinds and short and isinstance(stamp, str) and len(stamp) <= 64


def _is_id(value: Any) -> bool:
    return type(value) is int and value >= 1


class Forger:
    """Makes messages from a seed: some right, most wrong, a few huge."""

    def __init__(self, seed: int, *, names: tuple[str, ...] = tuple(_TAKES), ids: int = 12) -> None:
        """Make it.

        Args:
            seed: equal seeds make equal messages.
            names: of the commands that it knows.
            ids: right ids of calls are from 1 to this.
        """
        self._random = random.Random(seed)
        self._names = names
        self._ids = ids
        self._number = 0
        self.stamps = ["", "0" * 16]  # of forms; put right ones in
        self.fields = ["n", "x", "y", "flag", "kwargs"]  # of those forms

    def messages(self, n: int, *, heavy_every: int | None = 500) -> Iterator[Any]:
        """Yield messages, as the kernel's parser hands them over.

        Args:
            n: how many.
            heavy_every: one in so many has a text of 10 MB in it; None: none has.
        """
        for i in range(1, n + 1):
            is_heavy = heavy_every is not None and i % heavy_every == 0
            yield as_received(self.heavy() if is_heavy else self.message())

    def message(self) -> Any:
        """Make one of any kind."""
        kinds: list[Callable[[], Any]] = [self.right, self.spoiled, self.any_dict, self.any_value]
        return self._random.choices(kinds, weights=(20, 55, 15, 10))[0]()

    def right(self) -> dict[str, Any]:
        """Make one that a page may send, though the call that it names may not be there."""
        name = self._random.choice(self._names)
        known: dict[str, Callable[[], Any]] = {
            "call": lambda: self._random.choice([*range(1, self._ids + 1), 99, 2**63, 10**300]),
            "before": lambda: self._random.choice([None, 1, 5, 2**70]),
            "limit": lambda: self._random.choice([None, 1, MOST_ROWS]),
            "state": lambda: self._random.choice([None, *STATES]),
            "entries": self._entries,
            "stamp": lambda: self._random.choice(self.stamps),
        }
        args = {key: known[key]() for key in _TAKES[name]}
        return {"kind": "command", "id": self._next(), "name": name, "args": args}

    def _entries(self) -> dict[str, Any]:
        if self._random.random() < 0.5:
            return {"n": "3"}
        names = self._random.sample(self.fields, self._random.randrange(3))
        return {name: self._random.choice(_TYPED) for name in names}

    def spoiled(self) -> dict[str, Any]:
        """Make a right one with one to three things wrong, or more than it needs."""
        message = self.right()
        for _ in range(self._random.randint(1, 3)):
            self._random.choice(
                [self._lose_key, self._spoil_key, self._spoil_args, self._hostile_name, self._more]
            )(message)
        return message

    def any_dict(self) -> dict[str, Any]:
        """Make one with the right keys and anything at all in them."""
        return {key: self.any_value() for key in ("kind", "id", "name", "args", "buffers")}

    def any_value(self, depth: int = 0) -> Any:
        """Make any value of JSON; one in fifty is nested deeply."""
        if depth == 0 and self._random.random() < 0.02:
            return self._nested()
        kind = self._random.randrange(8 if depth < 4 else 6)
        if kind == 6:
            return [self.any_value(depth + 1) for _ in range(self._random.randrange(5))]
        if kind == 7:
            return {
                self._text(): self.any_value(depth + 1) for _ in range(self._random.randrange(5))
            }
        return self._scalar(kind)

    def heavy(self) -> Any:
        """Make one with 10 MB in some place."""
        message = self.right()
        text = "x" * HEAVY_BYTES
        spoil = [{"name": text}, {"kind": text}, {"args": text}, {"args": {text: 1}}, {"id": text}]
        spoil += [{"args": {"call": text}}, {"args": {"state": text, "limit": 1}}, {"more": text}]
        spoil += [
            {"args": {"call": [0] * 1_000_000}},
            {"args": {str(n): n for n in range(100_000)}},
        ]
        return message | self._random.choice(spoil)

    # ---------------------------------------------------------------- its parts

    def _next(self) -> int:
        """Number the messages; one in ten has the number of an earlier one."""
        if self._number and self._random.random() < 0.1:
            return self._random.randint(1, self._number)
        self._number += 1
        return self._number

    def _scalar(self, kind: int) -> Any:
        scalars: list[Callable[[], Any]] = [
            lambda: None,
            lambda: self._random.choice((True, False)),
            lambda: self._random.choice(_NUMBERS),
            lambda: self._random.uniform(-1e9, 1e9),
            self._text,
            lambda: self._random.choice((*_TAKES, "command")),
        ]
        return scalars[kind]()

    def _text(self) -> str:
        if self._random.random() < 0.7:
            return self._random.choice(_TEXTS)
        return "".join(chr(self._random.randrange(0x11_0000)) for _ in range(8))

    def _nested(self) -> Any:
        value: Any = []
        for _ in range(DEPTH):
            value = [value] if self._random.random() < 0.5 else {"args": value}
        return value

    def _lose_key(self, message: dict[str, Any]) -> None:
        message.pop(self._random.choice(("kind", "id", "name", "args")), None)

    def _spoil_key(self, message: dict[str, Any]) -> None:
        message[self._random.choice(("kind", "id", "name", "args"))] = self.any_value()

    def _spoil_args(self, message: dict[str, Any]) -> None:
        known = ("call", "state", "before", "limit", "entries", "stamp", "wait")
        key = self._random.choice((*known, self._text()))
        args = message.get("args")
        message["args"] = (args if isinstance(args, dict) else {}) | {key: self.any_value()}

    def _hostile_name(self, message: dict[str, Any]) -> None:
        message["name"] = self._random.choice(_HOSTILE_NAMES)

    def _more(self, message: dict[str, Any]) -> None:
        message[self._text()] = self.any_value()
