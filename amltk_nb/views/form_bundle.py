"""A form where no page can show it: a plain table of the parameters, and how to submit instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amltk_nb.errors import FormError
from amltk_nb.views import html, words
from amltk_nb.views.bundle import is_static
from amltk_nb.views.fields import MISSING, Field, shown_text
from amltk_nb.views.forms import Form, TaskForm
from amltk_nb.views.markup import el

__all__ = ["form_bundle"]

_N_OPTIONS = 12
_CHARS = 160  # of a value


def form_bundle(form: TaskForm) -> dict[str, Any]:
    """Render a form as `text/html` and `text/plain`, of which the latter never differs."""
    try:
        now = form.now()
    except FormError as error:
        said = words.visible(str(error))
        return {"text/html": html.root("Form", [el("p", said)]), "text/plain": said}
    return {"text/html": _html(now, stable=is_static()), "text/plain": _plain(now)}


def _html(form: Form, *, stable: bool) -> str:
    name = words.said(form.title, stable=stable)
    parts = [el("p", el("strong", "Form of ", el("code", name), cls="title"))]
    if form.about:
        parts.append(el("p", words.said(form.about, stable=stable), cls="muted"))
    rows = [_row(field, form, stable=stable) for field in form.fields]
    parts.append(html.table(f"Parameters of {name}", rows) if rows else el("p", _NONE, cls="muted"))
    parts.append(el("p", "In a cell: ", el("code", words.said(_call(form), stable=stable))))
    return html.root(f"Form of {name}", parts)


def _plain(form: Form) -> str:
    rows = [tuple(_row(field, form, stable=True).values()) for field in form.fields]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    about = [words.said(form.about, stable=True)] if form.about else []
    title = f"Form of {words.said(form.title, stable=True)}"
    call = f"In a cell: {words.said(_call(form), stable=True)}"
    return "\n".join([title, *about, *(lines or [_NONE]), call])


_NONE = "It takes no arguments."


def _row(field: Field, form: Form, *, stable: bool) -> dict[str, str]:
    return {
        "Parameter": words.said(form.label(field), stable=stable),
        "Type": words.said(field.hint, stable=stable),
        "Value": words.said(_value(field), _CHARS, stable=stable),
        "Accepts": words.said(_accepts(field), _CHARS, stable=stable),
    }


def _value(field: Field) -> str:
    if field.is_required:
        return "required"
    return "" if field.value is MISSING else shown_text(field.value, _CHARS)


def _accepts(field: Field) -> str:
    if field.kind != "choice":
        return ""
    labels = [option.label for option in field.options]
    more = ["…"] if len(labels) > _N_OPTIONS else []
    return ", ".join(labels[:_N_OPTIONS] + more)


def _call(form: Form) -> str:
    return f"task.submit({', '.join(_arguments(form))})"


def _arguments(form: Form) -> Iterator[str]:
    for field in form.fields:
        if field.is_required or field.sent is not MISSING:
            yield f"{field.name}={'…' if field.is_required else shown_text(field.sent, _CHARS)}"
