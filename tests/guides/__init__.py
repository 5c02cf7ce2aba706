"""Nineteen short programs, each about one thing that a scheduler does, and what they must show.

They stand in `examples/` as a user would write them, without a main guard. `test_scripts.py` runs
them as scripts, `tests/kernels/test_guides.py` as cells of one kernel; `expected.py` says what
both must see.
"""
