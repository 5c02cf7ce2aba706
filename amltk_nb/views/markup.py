"""Elements of HTML: what this package wrote is markup, and every other string is text."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["Markup", "el", "joined"]


class Markup(str):
    """HTML that this package made; any other string is escaped when it is put into an element."""

    __slots__ = ()


def el(tag: str, *children: str, cls: str = "", **attributes: str | int) -> Markup:
    """Make an element. Children that are not markup are escaped; attributes always are.

    Args:
        tag: its name.
        children: markup or text.
        cls: classes, without the prefix they all have.
        attributes: underscores stand for dashes.
    """
    classes = " ".join(f"amltk-nb-{name}" for name in cls.split())
    named = {"class": classes} if cls else {}
    pairs = named | {key.replace("_", "-"): str(value) for key, value in attributes.items()}
    head = tag + "".join(f' {key}="{escape(value)}"' for key, value in pairs.items())
    inner = "".join(c if isinstance(c, Markup) else escape(c, quote=False) for c in children)
    return Markup(f"<{head}>{inner}</{tag}>")


def joined(parts: Iterable[str]) -> Markup:
    """Put inline parts in a row with separators that also stand where no style sheet does."""
    sep = el("span", " · ", cls="sep")
    shown = (p if isinstance(p, Markup) else Markup(escape(p, quote=False)) for p in parts)
    return Markup(sep.join(shown))
