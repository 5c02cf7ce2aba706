"""Readers of `Scheduler.snapshot()`: text, static HTML and the live widget.

Nothing is imported here: each view loads when it is first used, so that a script that never
displays anything pays for none of them.
"""

__all__: list[str] = []
