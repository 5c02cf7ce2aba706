"""One after the other in this process, for debugging: prints and breakpoints work."""

from amltk_nb.scheduling import Scheduler, SequentialExecutor

done = []


def note(word: str) -> None:
    done.append(word)


def run(scheduler: Scheduler) -> None:
    scheduler.on_start(lambda: [scheduler.submit(note, word) for word in ("one", "two")])
    scheduler.run()


run(Scheduler.with_sequential())

scheduler = Scheduler(executor=SequentialExecutor())
run(scheduler)
print(done)
