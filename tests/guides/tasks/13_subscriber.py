"""A subscriber: one event of one manager, to register for and to emit."""

from amltk_nb.events import Event, EventManager

GUEST_CAME: Event[str] = Event("guest-came")

hotel = EventManager(name="hotel")
on_guest_came = hotel.subscriber(GUEST_CAME)


@on_guest_came
def greet(name: str) -> None:
    print(f"good evening, {name}")


on_guest_came.emit("Ada")
hotel.emit(GUEST_CAME, "Emmy")
print(on_guest_came.event_counts, hotel.event_counts["guest-came"])
