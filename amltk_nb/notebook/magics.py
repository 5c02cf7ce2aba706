"""`%load_ext amltk_nb`: what one does most with a scheduler, and a cell as a task.

Each has a twin that is ordinary Python: `%amltk stop` is `scheduler.stop()`, `%%task` is
`@scheduler.task`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from amltk_nb import host
from amltk_nb.notebook.living import living
from amltk_nb.scheduling.scheduler import Scheduler
from amltk_nb.scheduling.states import RunState

__all__ = ["AmltkMagics"]

_VALUE = re.compile(r"(?:^|\s)([^\W\d]\w*)\s*=(?!=)")


@magics_class
class AmltkMagics(Magics):
    """The magics; registered by `%load_ext amltk_nb`."""

    @line_magic
    def amltk(self, line: str) -> None:
        """Show a scheduler, or tell it to do something.

        ::

            %amltk [NAME]              its dashboard
            %amltk stop [NAME]         no new calls; running ones finish
            %amltk kill [NAME]         running ones are ended, too
            %amltk pause [NAME]        and: resume
            %amltk resubmit [failed] [NAME]
            %amltk log [NAME]          what callbacks printed and workers logged

        NAME is a variable, or the name that a scheduler was given. Without it, it is the one that
        was started last, or the only one there is.
        """
        words = line.split()
        verb = _VERBS.get(words[0]) if words else None
        rest = words[1:] if verb else words
        if verb is _resubmit and rest[:1] == ["failed"]:
            rest = rest[1:]
        if len(rest) > 1:
            raise UsageError(f"%amltk {line}: there are {', '.join(_VERBS)}, and one name.")
        scheduler = self._find(rest[0] if rest else None)
        if verb is None:
            host.current().show(scheduler)
        else:
            print(verb(scheduler))

    @cell_magic
    def task(self, line: str, cell: str) -> None:
        """Make a task of the cell's body.

        ::

            %%task evaluate model C=1.0
            fit = train(model, C)
            fit.score

        is the same as ::

            @scheduler.task
            def evaluate(model, C=1.0):
                fit = train(model, C)
                return fit.score

        The first word is the task's name, `task` if there is none; then its parameters.
        """
        name, parameters = _signature(line)
        scheduler = self._find(None)
        shell = self._present_shell()
        source = shell.transform_cell(cell)  # type: ignore[no-untyped-call]
        tree = _function(name, parameters, ast.parse(source))
        file_name = shell.compile.cache(source, shell.execution_count)
        exec(compile(tree, file_name, "exec"), shell.user_ns)
        shell.user_ns[name] = scheduler.task(shell.user_ns[name])

    def _present_shell(self) -> InteractiveShell:
        assert self.shell is not None  # it registered these
        return self.shell

    def _find(self, name: str | None) -> Scheduler:
        """Find the scheduler that is meant.

        Raises:
            UsageError: there is none of this name, or no name and not just one.
        """
        variables = self._present_shell().user_ns.items()
        named = {k: v for k, v in variables if isinstance(v, Scheduler) and k[0] != "_"}
        known = list({id(s): s for s in [*named.values(), *living()]}.values())
        if name is not None:
            found = [named[name]] if name in named else [s for s in known if s.name == name]
        else:
            found = living()[-1:] or known
        if len(found) == 1:
            return found[0]
        names = ", ".join(named)
        if not known:
            raise UsageError("There is no scheduler yet: scheduler = Scheduler.with_processes()")
        which = "There are several schedulers" if name is None else f"No one scheduler {name!r}"
        raise UsageError(f"{which}; name one of {names}: %amltk {names.split(', ')[0]}")


_STOPPABLE = {RunState.RUNNING, RunState.PAUSED, RunState.STOPPING}


def _stop(scheduler: Scheduler) -> str:
    if scheduler.state not in _STOPPABLE:
        return f"{scheduler.name!r} is not running."
    scheduler.stop()
    return f"{scheduler.name!r} stops when its running calls have ended."


def _kill(scheduler: Scheduler) -> str:
    if scheduler.state not in _STOPPABLE:
        return f"{scheduler.name!r} is not running."
    scheduler.stop(wait=False)
    return f"{scheduler.name!r} stops and ends its running calls."


def _pause(scheduler: Scheduler) -> str:
    scheduler.pause()
    return f"{scheduler.name!r} starts no new calls; %amltk resume"


def _resume(scheduler: Scheduler) -> str:
    scheduler.resume()
    return f"{scheduler.name!r} goes on."


def _resubmit(scheduler: Scheduler) -> str:
    n = len(scheduler.resubmit_failed())
    return f"{n} failed {'call was' if n == 1 else 'calls were'} submitted again."


def _log(scheduler: Scheduler) -> str:
    told = [f"{record.source}: {record.text.rstrip()}" for record in scheduler.snapshot().log]
    return "\n".join(told) or "The log is empty."


_VERBS: dict[str, Callable[[Scheduler], str]] = {
    "stop": _stop,
    "kill": _kill,
    "pause": _pause,
    "resume": _resume,
    "resubmit": _resubmit,
    "log": _log,
}


def _signature(line: str) -> tuple[str, list[tuple[str, ast.expr | None]]]:
    """Read `evaluate model C=1.0` as a name and parameters with their default values.

    Raises:
        UsageError: it is none.
    """
    values = list(_VALUE.finditer(line))
    words = line[: values[0].start()].split() if values else line.split()
    name, *plain = words or ["task"]
    parameters: list[tuple[str, ast.expr | None]] = [(word, None) for word in plain]
    ends = [*(match.start() for match in values), len(line)][1:]
    for match, end in zip(values, ends, strict=True):
        parameters.append((match[1], _value(match[1], line[match.end() : end])))
    wrong = [word for word in [name, *dict(parameters)] if not word.isidentifier()]
    if wrong or len(dict(parameters)) < len(parameters):
        raise UsageError(
            f"%%task {line}: write a name, then parameters: %%task evaluate model C=1.0"
        )
    return name, parameters


def _value(name: str, text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise UsageError(f"%%task: {name}={text.strip()} is no Python value: {error.msg}") from None


def _function(
    name: str, parameters: list[tuple[str, ast.expr | None]], body: ast.Module
) -> ast.Module:
    """Wrap a cell into a function; the value of its last line, as in a cell, is the result."""
    if not body.body:
        raise UsageError("%%task: the cell has no code below its first line.")
    *first, last = body.body
    if isinstance(last, ast.Expr):
        last = ast.copy_location(ast.Return(last.value), last)
    text = f"def {name}({', '.join(word for word, _ in parameters)}): pass"
    module = ast.parse(text)
    made = module.body[0]
    assert isinstance(made, ast.FunctionDef)
    made.args.defaults = [value for _, value in parameters if value is not None]
    made.body = [*first, last]
    return ast.fix_missing_locations(module)
