"""Values as the text of a Python literal and back: numbers, texts, True, None and what holds them.

What comes from a page is parsed by `ast.literal_eval`, which evaluates nothing. Its parser can
still be made to work hard or to run out of stack, so a text is looked through first: bounded in
length and depth, and made of the signs of literals only.
"""

from __future__ import annotations

import ast
import io
import math
import tokenize
import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias

__all__ = ["MAX_CHARS", "MAX_DEPTH", "literal_text", "read_literal"]

MAX_CHARS = 20_000
MAX_DEPTH = 20

_ACCEPTED = '3, 2.5, "a text", [1, 2], {"a": 1}, True, False and None are accepted'
_NAMES = {"True", "False", "None", "set"}
_OPEN, _CLOSE, _BETWEEN, _SIGNS = set("([{"), set(")]}"), {",", ":"}, {"+", "-"}
_MAX_SIGNS = 3  # between two commas: "-1+-2j"; each one more is a level of the parser's stack
_MAX_BITS = 14_000  # of an int: Python refuses to write more than 4 300 digits

_Found: TypeAlias = tokenize.TokenInfo
_ENDS = {tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT}


def read_literal(text: str) -> Any:
    """Read a value as Python writes it.

    Raises:
        ValueError: it is none; the message ends a sentence that begins with the field's name.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"takes at most {MAX_CHARS:,} characters, and this is {len(text):,}.")
    stripped = text.strip()
    try:
        _look_through(stripped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts, for the kernel's console
            return ast.literal_eval(stripped)
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except (
        ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError,
    ):  # fmt: skip
        raise ValueError(f"is not a value of Python yet: {_ACCEPTED}.") from None


def literal_text(value: object) -> str | None:
    """Write a value so that `read_literal` makes an equal one of the same types again.

    Returns:
        Its text; None if there is none, or if it is too long or too deep.
    """
    if not _Budget().allows(value, MAX_DEPTH):
        return None
    text = repr(value)
    return text if len(text) <= MAX_CHARS else None


class _RefusedError(Exception):
    """Says what of a text is not accepted."""


def _look_through(text: str) -> None:
    depth = n_signs = 0
    for token in _tokens(text):
        word = token.string
        depth += (word in _OPEN) - (word in _CLOSE)
        n_signs = n_signs + 1 if word in _SIGNS else 0 if word in _OPEN | _BETWEEN else n_signs
        if depth > MAX_DEPTH:
            raise _RefusedError(f"takes at most {MAX_DEPTH} brackets within each other.")
        _check(token, n_signs)


def _tokens(text: str) -> Iterator[_Found]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _check(token: _Found, n_signs: int) -> None:
    word, kind = token.string, token.type
    if kind == tokenize.NAME and word not in _NAMES:
        shown = word if len(word) <= 40 else f"{word[:40]}…"
        raise _RefusedError(
            f'takes no names, and {shown} is one: a text stands in quotes, like "{shown}".'
        )
    is_known = kind in _ENDS | {tokenize.NAME, tokenize.NUMBER, tokenize.COMMENT}
    is_text = kind == tokenize.STRING and "f" not in word.lower().partition(word[-1])[0]
    is_sign = kind == tokenize.OP and word in _OPEN | _CLOSE | _BETWEEN | _SIGNS
    if not (is_known or is_text or is_sign) or n_signs > _MAX_SIGNS:
        raise _RefusedError(f"takes values, not what computes them: {_ACCEPTED}.")


class _Budget:
    """How much of a value may still be looked at."""

    def __init__(self) -> None:
        self._left = MAX_CHARS

    def allows(self, value: object, depth: int) -> bool:
        """Say whether a value consists of what literals can be, and of no more than is left."""
        kind = type(value)  # exactly: a subclass would come back as its base
        self._left -= len(value) if isinstance(value, str | bytes) else 1
        is_wide = isinstance(value, list | tuple | dict | set) and len(value) > self._left
        if self._left < 0 or is_wide:
            return False
        if kind is dict:
            assert isinstance(value, dict)
            items = [item for pair in value.items() for item in pair]
        elif kind in (list, tuple, set):
            assert isinstance(value, list | tuple | set)
            items = list(value)
        else:
            return _is_plain(value)
        return depth > 0 and all(self.allows(item, depth - 1) for item in items)


def _is_plain(value: object) -> bool:
    kind = type(value)
    if kind is int:
        assert isinstance(value, int)
        return value.bit_length() <= _MAX_BITS
    if kind is float:
        assert isinstance(value, float)
        return math.isfinite(value)  # "inf" and "nan" are names
    if kind is complex:
        # The sign of a part that is zero gets lost: (-0+1j) is read as a sum.
        return repr(_read_back(repr(value))) == repr(value)
    return value is None or kind in (bool, str, bytes)


def _read_back(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return None
