"""Short programs, each about one thing that a scheduler does, and what they must show.

They stand as a user would write them, without a main guard: nineteen about schedulers in
`examples/`, and thirty-nine about events, tasks and batches in `tasks/`. `test_scripts.py` and
`test_task_scripts.py` run them as scripts, `tests/kernels/test_guides.py` and
`test_task_guides.py` as cells of one kernel; `expected.py` and `expected_tasks.py` say what both
must see.
"""
