"""The same with types."""

import random

from amltk_nb.scheduling import Event, Scheduler, Subscriber, Task


def play(seed: int) -> tuple[int, int]:
    """Roll a die until a six comes; returns how often, and the seed."""
    die = random.Random(seed)
    n_rolls = 1
    while die.randint(1, 6) != 6:
        n_rolls += 1
    return n_rolls, seed


class Game(Task[[int], tuple[int, int]]):
    LONGEST_GAME: Event[tuple[int, int]] = Event("longest-game")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.longest: tuple[int, int] | None = None
        self.on_returned(self.look)
        self.on_longest_game: Subscriber[tuple[int, int]] = self.subscriber(self.LONGEST_GAME)

    def look(self, result: tuple[int, int]) -> None:
        if self.longest is None or result > self.longest:
            self.longest = result
            self.on_longest_game.emit(result)


scheduler = Scheduler.with_processes(1)
task = Game(play, scheduler)


@scheduler.on_start
def begin() -> None:
    for seed in range(5, 9):
        task(seed)


@task.on_returned
def tell(result: tuple[int, int]) -> None:
    print(*result)


@task.on_longest_game
def hurray(result: tuple[int, int]) -> None:
    print("longest so far:", *result)


scheduler.run()
