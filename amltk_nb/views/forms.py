"""Calls as forms: the parameters of a function as fields, and what was entered as arguments.

Only what somebody changed travels back. All else stays the very object that the call, the default
or the override has, whether or not a text could stand for it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

from amltk_nb import host
from amltk_nb.errors import CommandError, FormError
from amltk_nb.events import signature_text
from amltk_nb.views.fields import MISSING, Entry, Field, entry_of, read_entry, shown_text
from amltk_nb.views.model import safe_text
from amltk_nb.views.parameters import (
    ANYTHING,
    STARS,
    Arguments,
    arguments_of,
    call_fields,
    signature_of,
    task_fields,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from amltk_nb.scheduling.call import Call, Future
    from amltk_nb.scheduling.task import Task

__all__ = ["MAX_FIELDS", "Entries", "Form", "TaskForm", "form_of_call", "resubmit_with"]

MAX_FIELDS = 100

Entries: TypeAlias = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of one function."""

    title: str  # the function's name
    about: str  # the first line of what its author says of it
    signature: inspect.Signature
    fields: tuple[Field, ...]
    is_open: bool = False  # plugins may add arguments, so some may be missing here
    note: str = ""  # what else one should know before submitting

    def described(self) -> dict[str, Any]:
        """Return what a page shows, as values of JSON; `stamp` differs when anything else does."""
        told = {
            "title": safe_text(self.title, 200),
            "about": safe_text(self.about, 1_000),
            "note": safe_text(self.note, 1_000),
            "fields": [_described(field, self.label(field)) for field in self.fields],
        }
        packed = json.dumps(told, ensure_ascii=True).encode("ascii")
        return {**told, "stamp": blake2b(packed, digest_size=8).hexdigest()}

    def filled(self, entries: Entries) -> Arguments:
        """Return the arguments of the call that was entered.

        Args:
            entries: by the names of fields; those left out stay what they are.

        Raises:
            FormError: some field has no value, or one that it does not accept.
            CommandError: entries that no page sends.
        """
        self._check_names(entries)
        values: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for field in self.fields:
            try:
                value = self._value(field, entries)
            except ValueError as error:
                if isinstance(error, CommandError):
                    raise
                wrong[field.name] = f"{self.label(field)} {error}"
            else:
                if value is not MISSING:
                    values[field.name] = value
        if wrong:
            raise FormError(" ".join(wrong.values()), fields=wrong)
        return self._bound(values)

    def label(self, field: Field) -> str:
        """Name a field as its author would: "n", "*args"."""
        return safe_text(self._stars(field) + field.name, 200)

    def check_stamp(self, stamp: str) -> None:
        """See that what a page showed is what there is.

        Raises:
            FormError: it is not.
        """
        if stamp != self.described()["stamp"]:
            raise FormError(
                f"{self.title} is not what it was when this form was made, so nothing was "
                "submitted. The form shows what there is now: look at it and submit again.",
                is_stale=True,
            )

    def _check_names(self, entries: Entries) -> None:
        known = [field.name for field in self.fields]
        unknown = [name for name in entries if name not in known]
        if unknown:
            names = ", ".join(known) or "none"
            raise CommandError(
                f"The form of {self.title} has no field {safe_text(unknown[0], 100)!r}; there are "
                f"{safe_text(names, 500)}."
            )

    def _value(self, field: Field, entries: Entries) -> Any:
        entry = entries.get(field.name)
        is_blank = isinstance(entry, str) and not entry.strip()
        if is_blank and self._stars(field):
            return () if self._stars(field) == "*" else {}
        if field.is_required and (entry is None or (is_blank and not field.is_nullable)):
            raise ValueError("is required: the function has no default for it.")
        if entry is None:
            return field.sent
        value = read_entry(field, entry)
        if self._stars(field) == "**":
            _check_keywords(value, {other.name for other in self.fields})
        return value

    def _stars(self, field: Field) -> str:
        parameter = self.signature.parameters.get(field.name)
        return "" if parameter is None or field.is_extra else STARS.get(parameter.kind, "")

    def _bound(self, values: dict[str, Any]) -> Arguments:
        extras = {field.name: values.pop(field.name) for field in self.fields
                  if field.is_extra and field.name in values}  # fmt: skip
        args, named = arguments_of(self.signature, values)
        kwargs = {**named, **extras}
        fits = self.signature.bind_partial if self.is_open else self.signature.bind
        try:
            fits(*args, **kwargs)
        except TypeError as error:
            raise FormError(f"These do not make a call of {self.title}: {error}.") from None
        return args, kwargs


class TaskForm:
    """The form of a task, made anew from its function whenever it is looked at."""

    def __init__(self, task: Task[..., Any], overrides: Mapping[str, Any]) -> None:
        """Make it.

        Args:
            task: whose calls it makes.
            overrides: by parameter: a default, a range, or options; see `field_for`.

        Raises:
            TypeError: the function has no such parameter.
            ValueError: an override that makes no sense.
        """
        self._task = ref(task)  # which holds its scheduler, and a view keeps none alive
        self._overrides = dict(overrides)
        self._made(task)

    def now(self) -> Form:
        """Return the fields of the function as it is defined now.

        Raises:
            FormError: the task was replaced, or what was asked for does not fit it any more.
        """
        task = self.task()
        if not any(other is task for other in task.scheduler.tasks):
            raise FormError(
                f"{task.name} was defined anew, and this form is of the former task. Run the cell "
                "with task.form() again."
            )
        try:
            return self._made(task)
        except (TypeError, ValueError) as error:
            raise FormError(f"{error} Run the cell with task.form() again.") from None

    def task(self) -> Task[..., Any]:
        """Return the task.

        Raises:
            FormError: nothing refers to it any more.
        """
        task = self._task()
        if task is None:
            raise FormError(
                "The task of this form is gone: nothing in the notebook refers to it any more. "
                "Run the cell that makes it, and then the one with task.form()."
            )
        return task

    def _made(self, task: Task[..., Any]) -> Form:
        given = [getattr(plugin, "parameter_name", None) for plugin in task.plugins]
        signature = without(signature_of(task.function), given)
        fields = _checked(tuple(task_fields(signature, self._overrides)), task.name)
        about = _about(task.function)
        return Form(task.name, about, signature, fields, is_open=bool(task.plugins))

    def submit(self, entries: Entries, stamp: str) -> Future[Any] | None:
        """Submit the call that was entered.

        Returns:
            Its future; None if a plugin refused.

        Raises:
            FormError: see `Form.filled` and `Form.check_stamp`.
            SchedulerNotRunningError: the scheduler takes no calls now.
        """
        task = self.task()
        task.scheduler.live_run()  # said first: the entries are kept, whatever they are
        form = self.now()
        form.check_stamp(stamp)
        args, kwargs = form.filled(entries)
        return task.submit(*args, **kwargs)


def form_of_call(call: Call) -> Form:
    """Make the form of a call's arguments, for the function that would run now.

    Raises:
        FormError: there are too many.
    """
    fn, task = _runs_now(call), call.task
    given = [getattr(plugin, "parameter_name", None) for plugin in task.plugins] if task else []
    signature, note = without(signature_of(fn), given), ""
    if call.arguments_gone:
        note = "The arguments of this call were too large to be kept so long. Enter them once more."
    try:
        passed = signature.bind_partial(*call.args, **call.kwargs).arguments
    except TypeError:  # the function takes something else by now, or never took these
        note = f"The arguments of this call do not fit {call.describe()}{signature_text(fn)}."
        signature, passed = ANYTHING, {"args": call.args, "kwargs": call.kwargs}
    is_open = bool(task and task.plugins)
    fields = tuple(call_fields(signature, passed, is_open=is_open))
    name = call.describe()
    form = Form(name, _about(fn), signature, _checked(fields, name), is_open=is_open)
    return replace(form, note=note)


def resubmit_with(call: Call, entries: Entries, stamp: str, accept: Any) -> Future[Any] | None:
    """Run a call again with what was entered.

    Args:
        call: the former one.
        entries: see `Form.filled`.
        stamp: of the form that was shown.
        accept: the scheduler's; its `resubmit` has no way to say "without any argument".

    Returns:
        The new call's future; None if a plugin refused.

    Raises:
        FormError: see `Form.filled` and `Form.check_stamp`.
        SchedulerNotRunningError: the scheduler takes no calls now.
    """
    form = form_of_call(call)
    form.check_stamp(stamp)
    args, kwargs = form.filled(entries)
    future: Future[Any] | None = accept(_runs_now(call), args, kwargs, task=call.task, origin=call)
    return future


def _runs_now(call: Call) -> Callable[..., Any]:
    return call.task.function if call.task is not None else host.current().latest(call.fn)


def _about(fn: Callable[..., Any]) -> str:
    doc = getattr(fn, "__doc__", None)
    return doc.strip().partition("\n")[0] if isinstance(doc, str) else ""


def _checked(fields: tuple[Field, ...], name: str) -> tuple[Field, ...]:
    if len(fields) > MAX_FIELDS:
        raise FormError(
            f"{name} has {len(fields)} parameters; a form has at most {MAX_FIELDS}. Submit it in "
            "a cell: task.submit(…)."
        )
    return fields


def _described(field: Field, label: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": field.name,
        "label": label,
        "kind": field.kind,
        "hint": field.hint,
        "entry": entry_of(field, field.value),
    }
    if field.kind == "kept":
        told["text"] = shown_text(field.value)
    if field.is_required:
        told["required"] = True
    if field.options:
        told["options"] = [option.label for option in field.options]
    if field.limits:
        told["limits"] = list(map(repr, field.limits))
    return told


def _check_keywords(value: dict[Any, Any], taken: set[str]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"needs texts as names; {shown_text(key, 80)} is none.")
        if key in taken:
            raise ValueError(f"cannot have {key!r}: that has a field of its own.")
