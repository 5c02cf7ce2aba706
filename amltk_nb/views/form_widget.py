"""The form of a task as a widget: fields, a Submit button, and the calls that it made, live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import traitlets

from amltk_nb.views.commands import dispatch_command
from amltk_nb.views.form_bundle import form_bundle
from amltk_nb.views.forms import TaskForm
from amltk_nb.views.widget import Dashboard

if TYPE_CHECKING:
    from amltk_nb.scheduling.task import Task

__all__ = ["N_CALLS", "FormView", "make_form"]

N_CALLS = 10  # of its own that a form shows


class FormView(Dashboard):
    """The live form of one task. It outlives the runs of its scheduler, so it does not freeze."""

    known_views: ClassVar[tuple[str, ...]] = ("form",)
    freezes = False

    # The ids of the calls it made, the latest first: other pages and a reloaded one show them too.
    calls = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, task: Task[..., Any], overrides: Mapping[str, Any]) -> None:
        """Make it.

        Args:
            task: whose calls it makes.
            overrides: see `TaskForm`.

        Raises:
            TypeError: the function has no such parameter.
            ValueError: an override that makes no sense.
        """
        self._form = TaskForm(task, overrides)
        super().__init__(task.scheduler, ("form",), task=task.ref)

    def __repr__(self) -> str:
        return f"Form({self.task!r})"

    def _static(self) -> dict[str, Any]:
        return form_bundle(self._form)

    def _dispatch(self, content: object) -> dict[str, Any]:
        reply = dispatch_command(self._source.target(), content, self._form)
        if reply["ok"] and isinstance(content, Mapping) and content["name"] == "submit":
            self._note(reply["value"]["call"])
        return reply

    def _note(self, call: int | None) -> None:
        if call is not None:
            self.calls = [call, *self.calls][:N_CALLS]


def make_form(task: Task[..., Any], overrides: Mapping[str, Any]) -> FormView:
    """Make the form of a task."""
    return FormView(task, overrides)
