"""What the page may ask for: a table of known names, checked arguments, public methods.

A message is ``{"kind": "command", "id": n, "name": ..., "args": {...}}``, its answer
``{"kind": "reply", "id": n, "ok": ..., "error": ..., "value": ...}``. Whatever a message holds,
nothing of it is evaluated or imported: it can only choose a row of this table.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amltk_nb.errors import AmltkError, CommandError, FormError
from amltk_nb.scheduling.states import CallState
from amltk_nb.views.detail import detail_of, said_of
from amltk_nb.views.forms import MAX_FIELDS, Entries, TaskForm, form_of_call, resubmit_with
from amltk_nb.views.literals import MAX_CHARS
from amltk_nb.views.model import SCHEMA, call_record, safe_text

if TYPE_CHECKING:
    from amltk_nb.scheduling.call import Future
    from amltk_nb.scheduling.scheduler import Scheduler

__all__ = [
    "COMMANDS",
    "MAX_ROWS",
    "Command",
    "command_of",
    "dispatch_command",
]

_log = logging.getLogger(__name__)

MAX_ROWS = 200

Args = Mapping[str, Any]
Check = Callable[[str, object], Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One thing the page may ask for."""

    # Given the scheduler, or the form if it is a form's; what it returns is the reply's value.
    handler: Callable[[Any, Args], Any]
    checks: Mapping[str, Check] = field(default_factory=dict)  # by argument; all others refused
    any_thread: bool = False  # its method promises to act at once on whatever thread
    of_form: bool = False
    takes_more: bool = False  # what it does not know is ignored, so that newer pages are answered


def dispatch_command(
    scheduler: Scheduler, message: object, form: TaskForm | None = None
) -> dict[str, Any]:
    """Do what a message asks for and return the reply; bad input never raises.

    Args:
        scheduler: only its public methods are called.
        message: whatever came from the page.
        form: the one that the page shows, if it does.
    """
    number = message.get("id") if isinstance(message, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        number = None
    try:
        value = _run(scheduler, message, form)
    except FormError as error:
        told = {name: safe_text(text, 1_000) for name, text in error.fields.items()}
        wrong = {"fields": told, "stale": error.is_stale}
        return _reply(number, error=safe_text(error, 1_000), value=wrong)
    except AmltkError as error:
        return _reply(number, error=safe_text(error, 1_000))
    except Exception as error:  # the page must hear of it; the kernel's handler would swallow it
        _log.exception("A command of the dashboard failed")
        return _reply(number, error=safe_text(f"{type(error).__name__}: {said_of(error)}", 1_000))
    return _reply(number, value=value)


def command_of(message: object) -> tuple[Command, dict[str, Any]]:
    """Return the row of the table that a message means, and its checked arguments.

    Raises:
        CommandError: no such command, or wrong arguments; the message says which are right.
    """
    if not isinstance(message, dict) or message.get("kind") != "command":
        raise CommandError("This is not a command: a dict with kind, id, name and args is needed.")
    name, args = message.get("name"), message.get("args", {})
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        known = ", ".join(sorted(COMMANDS))
        raise CommandError(f"No command {_short(name)}; there are {known}.")
    if not isinstance(args, dict):
        raise CommandError(f"The arguments of {name} must be a dict, not {_short(args)}.")
    unknown = [key for key in args if key not in command.checks]
    if unknown and not command.takes_more:
        takes = ", ".join(command.checks) or "no arguments"
        raise CommandError(f"{name} takes {takes}, not {_short(unknown)}.")
    return command, {key: check(key, args.get(key)) for key, check in command.checks.items()}


def _run(scheduler: Scheduler, message: object, form: TaskForm | None) -> Any:
    command, args = command_of(message)
    if not command.of_form:
        return command.handler(scheduler, args)
    if form is None:
        raise CommandError("This view has no form: task.form() makes one.")
    return command.handler(form, args)


def _reply(number: int | None, *, value: Any = None, error: str | None = None) -> dict[str, Any]:
    return {"kind": "reply", "id": number, "ok": error is None, "error": error, "value": value}


def _call_id(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CommandError(
            f"{name} must be the id of a call, an int from 1; it is {_short(value)}."
        )
    return value


def _optional_id(name: str, value: object) -> int | None:
    return None if value is None else _call_id(name, value)


def _optional_state(name: str, value: object) -> CallState | None:
    if value is None:
        return None
    if isinstance(value, str) and value in set(CallState):
        return CallState(value)
    states = ", ".join(CallState)
    raise CommandError(f"{name} must be None or one of {states}; it is {_short(value)}.")


def _stamp(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 64:
        raise CommandError(f"{name} must be the stamp of a form, a text; it is {_short(value)}.")
    return value


def _entries(name: str, value: object) -> Entries:
    """Look whether these can be entries of any form; which it is says more."""
    if not isinstance(value, dict) or len(value) > MAX_FIELDS:
        raise CommandError(f"{name} must be a dict of at most {MAX_FIELDS} entries by field.")
    for entry in value.values():
        if not isinstance(entry, bool | int | str):
            raise CommandError(f"An entry is a bool, an int or a text; this is {_short(entry)}.")
        if isinstance(entry, str) and len(entry) > 2 * MAX_CHARS:
            raise CommandError(f"An entry has at most {MAX_CHARS:,} characters.")
    return value


def _limit(name: str, value: object) -> int:
    if value is None:
        return MAX_ROWS
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_ROWS:
        raise CommandError(f"{name} must be an int from 1 to {MAX_ROWS}; it is {_short(value)}.")
    return value


def _schema(name: str, value: object) -> int:
    """Refuse a page of another version, and say which side is the old one."""
    if value is None or value == SCHEMA:
        return SCHEMA
    if isinstance(value, int) and not isinstance(value, bool) and value > SCHEMA:
        raise CommandError(
            f"The kernel's amltk_nb is older ({SCHEMA}) than this page's part ({_short(value)}): "
            "restart the kernel."
        )
    raise CommandError(
        f"This page's part of amltk_nb is older ({_short(value)}) than the kernel's ({SCHEMA}): "
        "reload the page."
    )


def _snapshot(scheduler: Scheduler, args: Args) -> None:
    """Do nothing here: whoever sends the messages answers it with a full model."""


def _start(scheduler: Scheduler, args: Args) -> None:
    # The page that asks is a display already; another one would land under some random cell.
    scheduler.start(display=False)


def _pause(scheduler: Scheduler, args: Args) -> None:
    scheduler.pause()


def _resume(scheduler: Scheduler, args: Args) -> None:
    scheduler.resume()


def _stop(scheduler: Scheduler, args: Args) -> None:
    scheduler.stop()


def _stop_now(scheduler: Scheduler, args: Args) -> None:
    scheduler.stop(wait=False)


def _cancel(scheduler: Scheduler, args: Args) -> dict[str, Any]:
    return {"cancelled": bool(scheduler.cancel(scheduler.find_call(args["call"])))}


def _resubmit(scheduler: Scheduler, args: Args) -> dict[str, Any]:
    return _new(scheduler.resubmit(scheduler.find_call(args["call"])))


def _resubmit_failed(scheduler: Scheduler, args: Args) -> dict[str, Any]:
    return {"n": len(scheduler.resubmit_failed())}


def _restart_workers(scheduler: Scheduler, args: Args) -> None:
    scheduler.restart_workers()


def _rows(scheduler: Scheduler, args: Args) -> dict[str, Any]:
    calls = scheduler.calls(state=args["state"], before=args["before"], limit=args["limit"])
    return {"rows": [call_record(call) for call in calls[:MAX_ROWS]]}


def _detail(scheduler: Scheduler, args: Args) -> dict[str, Any]:
    return detail_of(scheduler.find_call(args["call"]))


def _edit(scheduler: Scheduler, args: Args) -> dict[str, Any]:
    return form_of_call(scheduler.find_call(args["call"])).described()


def _resubmit_with(scheduler: Scheduler, args: Args) -> dict[str, Any]:
    call = scheduler.find_call(args["call"])
    return _new(resubmit_with(call, args["entries"], args["stamp"], scheduler.accept))


def _form(form: TaskForm, args: Args) -> dict[str, Any]:
    return form.now().described()


def _submit(form: TaskForm, args: Args) -> dict[str, Any]:
    return _new(form.submit(args["entries"], args["stamp"]))


def _new(future: Future[Any] | None) -> dict[str, Any]:
    return {"call": future.call.id if future is not None else None}


def _short(value: object) -> str:
    return safe_text(reprlib.repr(value), 200)


_CALL: Mapping[str, Check] = {"call": _call_id}
_FILLED: Mapping[str, Check] = {"entries": _entries, "stamp": _stamp}

COMMANDS: dict[str, Command] = {
    "snapshot": Command(_snapshot, {"schema": _schema}, takes_more=True),
    "start": Command(_start),
    "pause": Command(_pause, any_thread=True),
    "resume": Command(_resume, any_thread=True),
    "stop": Command(_stop, any_thread=True),
    "stop_now": Command(_stop_now, any_thread=True),
    "cancel": Command(_cancel, _CALL, any_thread=True),
    "resubmit": Command(_resubmit, _CALL),
    "resubmit_with": Command(_resubmit_with, {**_CALL, **_FILLED}),
    "resubmit_failed": Command(_resubmit_failed),
    "restart_workers": Command(_restart_workers),
    "edit": Command(_edit, _CALL),
    "form": Command(_form, of_form=True),
    "submit": Command(_submit, _FILLED, of_form=True),
    "detail": Command(_detail, _CALL),
    "rows": Command(_rows, {"state": _optional_state, "before": _optional_id, "limit": _limit}),
}
