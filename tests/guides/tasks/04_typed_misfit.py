"""The same with types, of which a type checker finds the misfit before it happens."""

from amltk_nb.events import Event, EventManager


def unload(n: int, what: str, weight: float) -> None:
    print(f"unload {n} {what}")


def shout(word: str) -> None:
    print(word.upper())


def sign(n: int, what: str, weight: float) -> None:
    print("sign")


depot = EventManager(name="depot")
delivery: Event[int, str, float] = Event(name="delivery")
depot.on(delivery, unload)
depot.on(delivery, shout)  # type: ignore
depot.on(delivery, sign)

try:
    depot.emit(delivery, 3, "crates", 1.5)
except TypeError as error:
    print(error)
