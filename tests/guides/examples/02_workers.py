"""A scheduler is made and nothing else."""

from amltk_nb.scheduling import Scheduler

scheduler = Scheduler.with_processes(2)
