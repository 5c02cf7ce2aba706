"""The form of a task as a widget, and what stands where no widget can be."""

from __future__ import annotations

import enum
import gc
from typing import Any, Literal
from weakref import ref

import comm
import pytest

from amltk_nb import Scheduler
from amltk_nb.notebook.places import Places
from amltk_nb.testing import ManualBackend
from amltk_nb.views.form_bundle import form_bundle
from amltk_nb.views.form_widget import N_CALLS
from tests.scheduling.conftest import settled, turn_until
from tests.views.standin import RecordingComm

pytestmark = pytest.mark.may_block  # ipywidgets reads the bundle's files


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Model:
    pass


MODEL = Model()


def fit(
    n: int,
    kind: Literal["rbf", "linear"] = "rbf",
    color: Color = Color.RED,
    model: Any = MODEL,
    *more: float,
    title: str = "<b>first</b>",
    **options: Any,
) -> int:
    """Fit a model.

    What follows is not shown.
    """
    return n


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[RecordingComm]:
    made: list[RecordingComm] = []

    def create(*args: Any, **keys: Any) -> RecordingComm:
        line = RecordingComm(*args, **keys)
        if keys["data"]["state"]["_model_name"] == "AnyModel":  # the layout has one as well
            made.append(line)
        return line

    monkeypatch.setattr(comm, "create_comm", create)
    return made


async def answer(line: RecordingComm, name: str, **args: Any) -> dict[str, Any]:
    n = len(line.custom("reply"))
    line.click(name, id=n + 1, **args)
    await turn_until(lambda: len(line.custom("reply")) > n)
    return line.custom("reply")[n]


async def test_a_form_submits_and_tells_every_page_which_calls_it_made(
    lines: list[RecordingComm],
) -> None:
    scheduler = Scheduler(ManualBackend(2))
    task = scheduler.task(fit)
    form = task.form(n=(1, 9))
    (line,) = lines
    record = (await answer(line, "form"))["value"]
    assert (record["title"], record["about"]) == ("fit", "Fit a model.")
    refused = await answer(line, "submit", entries={}, stamp=record["stamp"])
    assert "start it with `run = scheduler.start()`" in refused["error"]
    run = scheduler.start(display=False)
    for n in range(1, N_CALLS + 3):
        done = await answer(line, "submit", entries={"n": "7"}, stamp=record["stamp"])
        assert done["value"] == {"call": n}
    assert form.calls == [*range(N_CALLS + 2, 2, -1)]
    told = [d["state"]["calls"] for kind, d in line.messages if "calls" in d.get("state", {})]
    assert told[-1] == form.calls
    wrong = await answer(line, "submit", entries={"n": "10"}, stamp=record["stamp"])
    assert wrong["value"]["fields"] == {"n": "n takes a number from 1 to 9; this is '10'."}
    assert form.calls[0] == len(scheduler.calls()) == N_CALLS + 2
    assert {scheduler.find_call(call).args for call in form.calls} == {(7,)}
    run.stop(wait=False)
    await settled()
    form.close()


async def test_a_form_outlives_runs_and_freezes_with_none(lines: list[RecordingComm]) -> None:
    scheduler = Scheduler(ManualBackend(2))
    form = scheduler.task(fit).form()
    form._handles.append(object())  # as if it stood in an output
    places = Places()
    places.note(form, scheduler, None)
    assert form.is_displayed
    assert places.displayed(scheduler) == []
    stamp = (await answer(lines[0], "form"))["value"]["stamp"]
    for n in (1, 2):
        run = scheduler.start(display=False)
        done = await answer(lines[0], "submit", entries={"n": str(n)}, stamp=stamp)
        assert done["value"] == {"call": n}
        run.stop(wait=False)
        await run
    assert not form.ended
    form.close()
    assert scheduler._observers == ()


async def test_a_form_keeps_neither_its_task_nor_its_scheduler(lines: list[RecordingComm]) -> None:
    scheduler = Scheduler(ManualBackend(2))
    form = scheduler.task(fit).form()
    gone = ref(scheduler)
    del scheduler
    gc.collect()
    assert gone() is None
    reply = await answer(lines[0], "form")
    assert "is gone: nothing in the notebook refers to it any more" in reply["error"]
    assert "is gone" in form._repr_mimebundle_()[0]["text/plain"]
    form.close()


def test_overrides_that_fit_nothing_are_refused_at_once() -> None:
    task = Scheduler(ManualBackend(2)).task(lambda n: n)
    with pytest.raises(TypeError, match="got 'm', which the function does not take"):
        task.form(m=1)
    with pytest.raises(ValueError, match="a slider goes from a lower to a higher number"):
        task.form(n=(3, 1))


PLAIN = """\
Form of train
Train it.
  n          int, 0 to 10                  5
  kind       one of 2                      'rbf'           rbf, linear
  color      one of 2                      <Color.RED: 1>  RED, BLUE
  *more      more values, as a list
  title      str                           '<b>first</b>'
  size       float                         required
  **options  more named values, as a dict
In a cell: task.submit(n=5, size=…)"""


def train(
    n: int,
    kind: Literal["rbf", "linear"] = "rbf",
    color: Color = Color.RED,
    *more: float,
    title: str = "<b>first</b>",
    size: float,
    **options: Any,
) -> None:
    """Train it."""


def test_without_a_widget_a_form_is_a_table_and_the_call_to_write() -> None:
    task = Scheduler(ManualBackend(2)).task(train)
    bundle = task.form(n=(0, 10))._repr_mimebundle_()[0]
    assert bundle["text/plain"] == PLAIN
    html = bundle["text/html"]
    for shown in ("Parameters of train", "Train it.", "task.submit(n=5, size=…)", "rbf, linear"):
        assert shown in html
    assert "&lt;b&gt;first&lt;/b&gt;" in html
    assert "<b>" not in html


def test_the_static_form_is_the_same_in_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMLTK_NB_STATIC", "1")
    scheduler = Scheduler(ManualBackend(2))
    bundle = scheduler.task(fit).form()._repr_mimebundle_()[0]
    assert set(bundle) == {"text/html", "text/plain"}
    assert hex(id(MODEL)) not in bundle["text/html"] + bundle["text/plain"]
    assert "test_form_view.Model object at 0x…" in bundle["text/plain"]
    nothing = scheduler.task(gc.collect, name="nothing")
    assert form_bundle(nothing.form()._form)["text/plain"].startswith("Form of nothing")
    empty = scheduler.task(lambda: None, name="empty")
    assert form_bundle(empty.form()._form)["text/plain"] == (
        "Form of empty\nIt takes no arguments.\nIn a cell: task.submit()"
    )
