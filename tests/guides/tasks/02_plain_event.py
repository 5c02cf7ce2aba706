"""An event manager: a name is an event, and its callbacks run in the order they came."""

from amltk_nb.events import EventManager


def unload(n: int, what: str, weight: float) -> None:
    print(f"unload {n} {what}")


def weigh(n: int, what: str, weight: float) -> None:
    print(f"weigh {n * weight}")


def sign(n: int, what: str, weight: float) -> None:
    print("sign")


depot = EventManager(name="depot")
depot.on("delivery", unload)
depot.on("delivery", weigh)
depot.on("delivery", sign)

event = "delivery"
depot.emit(event, 3, "crates", 1.5)
print(depot.event_counts["delivery"])
