"""One task hands its results to another; both share a callback for their failures."""

from amltk_nb import Scheduler


def longer(side: int) -> int:
    return side + 10


def area(side: int) -> int:
    return side * side


scheduler = Scheduler.with_processes(1)
first = scheduler.task(longer)
second = scheduler.task(area)

sides = iter([1, 2, 3])


@scheduler.on_start
def begin() -> None:
    first.submit(next(sides))


@first.on_result
def hand_on(_, side: int) -> None:
    second.submit(side)


@first.on_result
def next_side(_, side: int) -> None:
    following = next(sides, None)
    if following is not None:
        first.submit(following)
        return
    print("no side left")


@first.on_exception
@second.on_exception
def complain(_, error: BaseException) -> None:
    print(f"failed: {error}")


scheduler.run()
