"""We are guests in the kernel: what was ours is gone after a run, and nothing else was touched.

Tests that share a kernel never call `run()`, which may patch the loop for good.
"""

from __future__ import annotations

from tests.kernels.cells import PRELUDE
from tests.kernels.kernel import Kernel

# What belongs to the user and to the kernel, compared by identity.
LOOK = """
import asyncio, builtins, gc, os, signal, sys, threading, warnings

def belongings():
    loop = asyncio.get_running_loop()
    names = ("run", "Task", "Future", "get_event_loop", "run_coroutine_threadsafe", "sleep")
    return [
        *(getattr(asyncio, name) for name in names),
        type(loop), *(type(loop).__dict__.items()), *(asyncio.BaseEventLoop.__dict__.items()),
        loop.get_exception_handler(), loop.get_task_factory(), loop.get_debug(),
        loop._default_executor, asyncio.get_event_loop_policy(),
        sys.stdout, sys.stderr, sys.excepthook, sys.displayhook, threading.excepthook,
        builtins.print, builtins.__import__, warnings.showwarning,
        signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGCHLD),
    ]

def changed(before):
    return [(a, b) for a, b in zip(before, belongings(), strict=True) if a is not b and a != b]

def n_channels():
    # Sockets and pipes, which a pool is made of. The kernel opens an eventfd for each thread that
    # flushes stdout, as starting a process does, and closes it up to ten seconds later.
    links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sum(os.path.basename(link).startswith(("socket:", "pipe:")) for link in links)

def ours():
    tasks = [t for t in asyncio.all_tasks() if "amltk" in repr(t)]
    threads = [t.name for t in threading.enumerate() if t.name.startswith("amltk-nb")]
    return tasks, threads
"""

BACKGROUND = """
scheduler = Scheduler.with_processes(2)
@scheduler.on_future_result
async def tell(future, value):
    await asyncio.sleep(0)
    print("got", value)
run = scheduler.start()
await scheduler.gather(scheduler.map(double, range(20)))
scheduler.stop()
await run
"""


def test_importing_patches_nothing(kernel: Kernel) -> None:
    kernel.run(LOOK)
    kernel.run("before, modules = belongings(), set(sys.modules)")
    kernel.run("import amltk_nb")
    assert kernel.run("changed(before)").result == "[]"
    heavy = "{'nest_asyncio2', 'ipywidgets', 'anywidget', 'rich', 'cloudpickle'}"
    assert kernel.run(f"sorted((set(sys.modules) - modules) & {heavy})").result == "[]"
    assert kernel.run("ours()").result == "([], [])"


def test_a_background_run_leaves_nothing(notebook: Kernel) -> None:
    notebook.run(LOOK + PRELUDE)
    notebook.run("before = belongings()")
    assert notebook.run(BACKGROUND).result == "ExitState(stopped)"
    assert notebook.run("changed(before)").result == "[]"
    assert notebook.run("ours()").result == "([], [])"
    assert notebook.run("'nest_asyncio2' in sys.modules").result == "False"
    # What a first run opens for good (the resource tracker's pipe), later ones do not open again.
    n_channels = notebook.run("n_channels()").result
    for _ in range(2):
        notebook.run(BACKGROUND)
    assert notebook.run("n_channels()").result == n_channels
    assert notebook.run("ours()").result == "([], [])"


def test_start_does_not_patch_the_loop_while_it_runs(notebook: Kernel) -> None:
    notebook.run(LOOK + PRELUDE)
    notebook.run("before = belongings()")
    notebook.run("scheduler = Scheduler.with_processes(1)\nrun = scheduler.start(output='cell')")
    notebook.run("await scheduler.submit(double, 1)")
    assert notebook.run("changed(before)").result == "[]"
    failed = notebook.fail("asyncio.run(asyncio.sleep(0))")
    assert failed.error.startswith("RuntimeError: asyncio.run() cannot be called")
    assert notebook.run("scheduler.stop()\nawait run").result == "ExitState(stopped)"


def test_a_blocking_run_leaves_only_what_it_must(kernel: Kernel) -> None:
    kernel.run(LOOK + PRELUDE)
    kernel.run("streams = sys.stdout, sys.stderr\nhandler = signal.getsignal(signal.SIGINT)")
    kernel.run("scheduler = Scheduler.with_processes(2)\nscheduler.run()")
    same = "(sys.stdout, sys.stderr) == streams, signal.getsignal(signal.SIGINT) is handler"
    assert kernel.run(same).result == "(True, True)"
    assert kernel.run("ours()").result == "([], [])"
    # The one exception, made at the first run() in a cell: loops of this kernel may be nested.
    assert kernel.run("'nest_asyncio2' in sys.modules").result == "True"
    assert kernel.run("await asyncio.sleep(0, 'awaits')").result == "'awaits'"


def test_streams_that_the_user_put_in_place_stay(notebook: Kernel) -> None:
    notebook.run(LOOK + PRELUDE + "import io\nfrom contextlib import redirect_stdout\n")
    notebook.run("original = sys.stdout\nscheduler = Scheduler.with_processes(1)")
    notebook.run("run = scheduler.start(display=False)")
    cell = notebook.run("mine = io.StringIO()\nwith redirect_stdout(mine):\n    print('caught')")
    assert cell.stdout == ""
    assert notebook.run("mine.getvalue()").result == repr("caught\n")
    notebook.run(
        "sys.stdout, proxy = mine, sys.stdout\nscheduler.stop()\nawait run\n"
        "kept, sys.stdout = sys.stdout is mine, proxy"
    )
    # Whatever stands there now, it still writes to the cell.
    assert notebook.run("print(kept)").stdout == "True\n"


def test_a_finished_run_is_not_kept_alive(notebook: Kernel) -> None:
    notebook.run(LOOK + PRELUDE + "import weakref")
    notebook.run(
        "scheduler = Scheduler.with_processes(1)\nrun = scheduler.start(display=False)\n"
        "big = await scheduler.submit(bytes, 8)\nscheduler.stop()\nstate = await run\n"
        "refs = weakref.ref(scheduler), weakref.ref(run)\ndel scheduler, run"
    )
    # The loop may hold the run's last timer for a quarter of a second.
    cell = notebook.run("await asyncio.sleep(0.3)\ngc.collect()\n[ref() for ref in refs]")
    assert cell.result == "[None, None]"
