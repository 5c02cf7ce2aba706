"""How much energy calls used, and what that means in carbon dioxide."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, Final, NamedTuple

from amltk_nb.events import Event, EventSpec
from amltk_nb.scheduling.call import Call, Future
from amltk_nb.scheduling.plugins.around import Around
from amltk_nb.scheduling.plugins.base import Plugin, Submission
from amltk_nb.scheduling.plugins.extras import require

__all__ = ["EmissionsTrackerPlugin"]

Data = dict[str, Any]

_EVENTS: Final = (
    EventSpec(
        "EMISSIONS",
        "on_emissions",
        "(future, data)",
        ("on-emissions", "emissions"),
    ),
)
_ISO_CODE = re.compile("[A-Z]{3}")
_ON_ERROR = "amltk_nb_emissions"  # the attribute of an error that brings its call's data back


class EmissionsTrackerPlugin(Plugin):
    """Measures each call with the offline tracker of **codecarbon**.

    What it finds comes back with the result: the task gets `on_emissions(future, data)` before
    its other events of the call, whether that returned or raised. `data` is a dict of
    codecarbon's own values, among them

        ====================  ===========================================
        emissions             kg of CO2 equivalent
        energy_consumed       kWh, the sum of `cpu_energy`, `gpu_energy` and `ram_energy`
        duration              seconds
        country_iso_code      whose mix of electricity was assumed
        ====================  ===========================================

    Unless told otherwise it measures the process that runs the call, not the whole machine,
    since calls run side by side; threads share a process, and each of their calls is charged with
    all of it. No file is written and nothing is sent or asked for. The first call of a process
    takes some seconds more, in which codecarbon gets to know the machine.
    """

    name = "emissions"

    EMISSIONS: ClassVar[Event[...]] = Event("on_emissions")

    def __init__(self, country_iso_code: str | None = None, **options: Any) -> None:
        """Say where the electricity comes from.

        Args:
            country_iso_code: three letters, as "DEU"; None: what codecarbon's configuration says,
                else the world's average.
            options: of codecarbon's `OfflineEmissionsTracker`: region, cloud_provider,
                cloud_region, tracking_mode, output_dir, output_methods, log_level, …

        Raises:
            ValueError: not the form of a country's code, or an option that is decided here.
            MissingExtraError: codecarbon is not installed.
        """
        require("codecarbon", extra="codecarbon", needed_by=type(self).__name__)
        if country_iso_code is not None:
            if not (isinstance(country_iso_code, str) and _ISO_CODE.fullmatch(country_iso_code)):
                raise ValueError(
                    f"country_iso_code={country_iso_code!r}: use the three capital letters of the "
                    "country, as 'DEU', or None for the world's average."
                )
            options["country_iso_code"] = country_iso_code
        if options.get("allow_multiple_runs") is False:
            raise ValueError(
                "allow_multiple_runs=False: calls run side by side, and each has a tracker of its "
                "own; leave it out."
            )
        self.options = options
        self.emissions_kg = 0.0  # of CO2 equivalent, of all calls
        self.energy_kwh = 0.0
        self.n_measured = 0
        self._pending: dict[int, tuple[Future[Any] | None, Data | None]] = {}  # by call id

    def pre_submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Submission | None:
        """Put a tracker around the call."""
        return _Tracked(fn, partial(_tracked, self.options)), args, kwargs

    def accepted(self, call: Call) -> None:
        """Keep its future for the event: when the event comes, the call has let go of it."""
        self._pending[call.id] = call.future, None

    def retried(self, former: Call, call: Call) -> None:
        """Count what the failed attempt used."""
        future, _ = self._pending.pop(former.id, (call.future, None))
        self._tell(former, future, _taken_from(former.error))
        self.accepted(call)

    def received(self, call: Call, value: Any) -> Any:
        """Part the data from the result."""
        if not isinstance(value, _Measured):
            return value
        self._pending[call.id] = call.future, value.data
        return value.value

    def release(self, call: Call | None) -> None:
        """Tell of what the call used."""
        if call is not None:
            future, data = self._pending.pop(call.id, (None, None))
            self._tell(call, future, data or _taken_from(call.error))

    def _tell(self, call: Call, future: Future[Any] | None, data: Data | None) -> None:
        if data is None:  # cancelled, or its worker died
            return
        self.n_measured += 1
        self.emissions_kg += data["emissions"]
        self.energy_kwh += data["energy_consumed"]
        if call.task is not None:
            call.task.emit(self.EMISSIONS, future, data)

    def events(self) -> Sequence[Event[...] | EventSpec]:
        """Return the event that brings the data."""
        return _EVENTS

    def state(self) -> Mapping[str, Any]:
        """Show the sums over all calls."""
        return {
            "Country": self.options.get("country_iso_code") or "average",
            "Measured calls": self.n_measured,
            "CO2eq": f"{self.emissions_kg * 1e3:.3g} g",
            "Energy": f"{self.energy_kwh * 1e3:.3g} Wh",
        }


def _taken_from(error: BaseException | None) -> Data | None:
    """Take the data that came with an error; only what is the user's own stays on it."""
    return error.__dict__.pop(_ON_ERROR, None) if error is not None else None


# --- in the worker --------------------------------------------------------------------------


class _Measured(NamedTuple):
    """A result and what it took, on their way back."""

    value: Any
    data: Data | None


class _Tracked(Around):
    """Returns what the tracker found together with the result."""

    def result(self, value: Any, entered: Any) -> _Measured:
        return _Measured(value, entered.get("data"))


@contextmanager
def _tracked(options: Mapping[str, Any]) -> Iterator[dict[str, Data]]:
    """Track what happens inside; yields a dict that holds the "data" afterwards."""
    tracker = _tracker(options)
    found: dict[str, Data] = {}
    tracker.start()
    try:
        yield found
    except BaseException as error:
        tracker.stop()
        if (data := _data(tracker)) is not None:
            error.__dict__[_ON_ERROR] = data
        raise
    tracker.stop()
    if (data := _data(tracker)) is not None:
        found["data"] = data


def _tracker(options: Mapping[str, Any]) -> Any:
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.emissions_tracker import BaseEmissionsTracker

    known = {
        *inspect.signature(BaseEmissionsTracker.__init__).parameters,
        *inspect.signature(OfflineEmissionsTracker.__init__).parameters,
    }
    # The tracker itself would log what is wrong with it, and then measure something else.
    if unknown := sorted(set(options) - known):
        raise TypeError(f"codecarbon's offline tracker has no option {', '.join(unknown)}.")
    country = options.get("country_iso_code")
    source = import_module("codecarbon.input").DataSource()
    if country is not None and country not in source.get_global_energy_mix_data():
        raise ValueError(f"country_iso_code={country!r}: codecarbon knows no such country.")
    level = options.get("log_level", "error")
    logging.getLogger("codecarbon").setLevel(level.upper() if isinstance(level, str) else level)
    return OfflineEmissionsTracker(**{**_quiet(options, known), **options})


def _quiet(options: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Make the options that keep it from writing, sending and asking, unless told otherwise."""
    chosen = {
        "tracking_mode": "process",
        "log_level": "error",
        "allow_multiple_runs": True,
        "electricitymaps_api_token": "",  # a configured one would have it ask the network
    }
    if "output_methods" in known and not any(name.startswith("save_to_") for name in options):
        chosen["output_methods"] = []
    elif "output_methods" not in known:
        chosen.update(save_to_file=False, save_to_api=False)
    return {name: value for name, value in chosen.items() if name in known}


def _data(tracker: Any) -> Data | None:
    final = getattr(tracker, "final_emissions_data", None)
    return dict(final.values) if final is not None else None
