"""A run returns why it ended: here, because nothing was left to do."""

from amltk_nb.scheduling import ExitCode, Scheduler

scheduler = Scheduler(...)

exit_code = scheduler.run()

print(exit_code, exit_code == ExitCode.EXHAUSTED, exit_code == Scheduler.ExitCode.EXHAUSTED)
print(exit_code == ExitCode.STOPPED)
