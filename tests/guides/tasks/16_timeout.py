"""It waits for work until its time is over."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler(...)

exit_code = scheduler.run(timeout=0.2, end_on_empty=False)
print(exit_code)
