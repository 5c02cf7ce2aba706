"""What a run may be asked for, and what it decides about exceptions; wrong values are errors."""

from __future__ import annotations

from typing import Any

import pytest

from amltk_nb import Scheduler
from amltk_nb.scheduling.options import RunOptions
from amltk_nb.scheduling.policy import Policy
from amltk_nb.testing import ManualBackend


def options(**given: Any) -> RunOptions:
    usual: dict[str, Any] = {
        "timeout": None,
        "end_on_empty": True,
        "wait": True,
        "on_exception": "raise",
        "on_cancelled": "raise",
        "display": False,
    }
    return RunOptions.checked(**(usual | given))


@pytest.mark.parametrize("mode", ["raise", "end", "continue"])
def test_one_mode_holds_for_every_exception(mode: Any):
    assert Policy(mode).decide(ValueError()) == mode
    assert Policy(mode).decide(Exception()) == mode


@pytest.mark.parametrize("mode", ["raise", "end", "continue"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
def test_what_is_no_ordinary_exception_is_always_raised(mode: Any, kind: type[BaseException]):
    assert Policy(mode).decide(kind()) == "raise"
    assert Policy({Exception: mode}).decide(kind()) == "raise"


def test_the_first_entry_that_fits_wins():
    policy = Policy({ZeroDivisionError: "end", ArithmeticError: "continue", OSError: "raise"})
    assert policy.decide(ZeroDivisionError()) == "end"
    assert policy.decide(OverflowError()) == "continue"
    assert policy.decide(FileNotFoundError()) == "raise"
    assert Policy({Exception: "continue", ValueError: "end"}).decide(ValueError()) == "continue"


@pytest.mark.parametrize("mapping", [{}, {ValueError: "continue"}])
def test_a_type_that_is_not_listed_is_raised(mapping: Any):
    assert Policy(mapping).decide(KeyError()) == "raise"


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ("ignore", ValueError, "'ignore' is not a mode; use 'raise' .*, 'end' .* or 'continue'"),
        (None, ValueError, "None is not a mode"),
        (True, ValueError, "True is not a mode"),
        ({ValueError: "stop"}, ValueError, "'stop' is not a mode"),
        ({ValueError: ["end"]}, ValueError, "is not a mode"),
        ({"ValueError": "end"}, TypeError, "the key 'ValueError' is not a type"),
        ({int: "end"}, ValueError, "int cannot be handled"),
        ({KeyboardInterrupt: "continue"}, ValueError, "KeyboardInterrupt cannot be handled"),
        ({BaseException: "continue"}, ValueError, "BaseException cannot be handled"),
    ],
)
def test_a_policy_that_means_nothing(option: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        options(on_exception=option)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"timeout": "3"}, TypeError, "timeout='3': use a number of seconds, or None"),
        ({"timeout": True}, TypeError, "use a number of seconds"),
        ({"timeout": -1}, ValueError, "use 0 or more seconds"),
        ({"timeout": float("nan")}, ValueError, "use 0 or more seconds"),
        ({"on_cancelled": "ignore"}, ValueError, "use one of 'raise', 'end', 'continue'"),
        ({"on_cancelled": None}, ValueError, "use one of 'raise'"),
        ({"output": "screen"}, ValueError, "use one of 'log', 'cell'"),
        ({"on_interrupt": "kill"}, ValueError, "use one of None, 'stop'"),
    ],
)
def test_an_option_that_means_nothing(given: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        options(**given)


def test_values_at_the_edge_are_taken():
    assert options(timeout=0).timeout == 0
    assert options(timeout=2.5).timeout == 2.5
    assert options(timeout=float("inf")).timeout == float("inf")


@pytest.mark.parametrize("call", ["run", "start", "async_run"])
async def test_a_wrong_option_starts_nothing(call: str):
    backend = ManualBackend()
    scheduler = Scheduler(backend)
    with pytest.raises(ValueError, match="is not a mode"):
        await getattr(scheduler, call)(on_exception="ignore")
    assert (scheduler.state, scheduler.n_runs, backend.n_opened) == ("idle", 0, 0)


# --- options of constructors ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "option", "says"),
    [
        ("with_processes", "n_workers", "Is it max_workers=?"),
        ("with_threads", "max_worker", "Is it max_workers=?"),
        ("with_sequential", "naem", "Is it name=?"),
        ("with_loky", "n_jobs", "Is it max_workers=?"),
        ("with_dask", "n_wokers", "Is it n_workers=?"),
        ("with_dask", "port", "It takes address_or_client, n_workers, "),
        ("with_ray", "n_workers", "Is it num_cpus=?"),
        ("with_ipyparallel", "workers", "Is it n=?"),
        ("with_airflow", "pasword", "It takes base_url, dag_id, "),
    ],
)
def test_an_option_that_no_constructor_has_is_named_with_the_nearest(
    verb: str, option: str, says: str
):
    with pytest.raises(TypeError) as refused:
        getattr(Scheduler, verb)(
            **{"base_url": "http://localhost"} if "air" in verb else {}, **{option: 2}
        )
    assert str(refused.value).startswith(f"Scheduler.{verb}() has no option {option}=. {says}")


def test_a_class_of_ones_own_may_have_more_options():
    class Mine(Scheduler):
        def __init__(self, executor: Any = None, *, colour: str = "", **options: Any) -> None:
            super().__init__(executor, **options)
            self.colour = colour

    assert Mine.with_threads(1, colour="red", name="mine").colour == "red"  # type: ignore[attr-defined]
