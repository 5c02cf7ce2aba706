"""Events: something happened, and whoever registered for it is called.

The events of this package. Each may be named by its constant (`Task.RESULT`), by its name, or by
that name with dashes or without its `on_` (`on-result`, `result`); older names still work.

Of a scheduler:

    ================  ===================  ===================  ==========================
    constant          name                 payload              older name
    ================  ===================  ===================  ==========================
    STARTED           on_start             ()                   scheduler-started
    FINISHING         on_finishing         ()                   scheduler-finishing
    FINISHED          on_finished          ()                   scheduler-finished
    STOP              on_stop              (message, error)     scheduler-stop
    TIMEOUT           on_timeout           ()                   scheduler-timeout
    EMPTY             on_empty             ()                   scheduler-empty
    FUTURE_SUBMITTED  on_future_submitted  (future)             scheduler-future-submitted
    FUTURE_DONE       on_future_done       (future)             scheduler-future-done
    FUTURE_CANCELLED  on_future_cancelled  (future)             scheduler-future-cancelled
    FUTURE_EXCEPTION  on_future_exception  (future, exception)
    FUTURE_RESULT     on_future_result     (future, result)
    NO_WORKERS        on_no_workers        (seconds)
    ================  ===================  ===================  ==========================

Of a task:

    ===========  ===============  =========================  =====================
    constant     name             payload                    older name
    ===========  ===============  =========================  =====================
    SUBMITTED    on_submitted     (future, *args, **kwargs)  task-submitted
    DONE         on_done          (future)                   task-done
    RESULT       on_result        (future, result)
    RETURNED     on_returned      (result)                   task-returned
    EXCEPTION    on_exception     (future, exception)        task-exception
    CANCELLED    on_cancelled     (future)                   task-cancelled
    F_RETURNED   on_f_returned    (future, result)           task-future-returned
    F_EXCEPTION  on_f_exception   (future, exception)        task-future-exception
    F_CANCELLED  on_f_cancelled   (future)                   task-future-cancelled
    ===========  ===============  =========================  =====================

Of a batch:

    ===============  ==================  =======================================
    constant         name                payload
    ===============  ==================  =======================================
    BATCH_SUBMITTED  on_batch_submitted  (batch, futures)
    BATCH_DONE       on_batch_done       (batch, results, exceptions, cancelled)
    BATCH_RETURNED   on_batch_returned   (batch, results)
    BATCH_FAILED     on_batch_failed     (batch)
    BATCH_CANCELLED  on_batch_cancelled  (batch)
    ANY_SUBMITTED    on_any_submitted    (batch, future)
    ANY_DONE         on_any_done         (batch, future)
    ANY_RETURNED     on_any_returned     (batch, result)
    ANY_EXCEPTION    on_any_exception    (batch, exception)
    ANY_CANCELLED    on_any_cancelled    (batch, future)
    ===============  ==================  =======================================

Of a limiter, on the task it limits:

    ============================  ============================  =======================
    constant                      name                          payload
    ============================  ============================  =======================
    CALL_LIMIT_REACHED            call-limit-reached            (task, *args, **kwargs)
    CONCURRENT_LIMIT_REACHED      concurrent-limit-reached      (task, *args, **kwargs)
    DISABLED_DUE_TO_RUNNING_TASK  disabled-due-to-running-task  (task, *args, **kwargs)
    ============================  ============================  =======================

A callback of these takes as much of the payload as it has parameters for: the last ones, for
`on_submitted` and `on_stop` the first ones. Parameters with a default count as well; a value that
a callback carries along is safe as a keyword-only one (`def f(result, *, i=i)`). Events that users
define are strict: what is emitted is what is passed.

Registering again from a re-run notebook cell replaces what that cell registered before, each
callback in its place. A callback that the cell no longer registers stays until it is removed: a
cell that registers under a condition would otherwise lose callbacks that nobody took back.

An emitter belongs to one thread; in a scheduler that is the one of its loop.
"""

from amltk_nb.events.callback import signature_text
from amltk_nb.events.channel import Channel, EventCounts
from amltk_nb.events.emitter import Emitter, EventManager
from amltk_nb.events.event import (
    BATCH_EVENTS,
    LIMITER_EVENTS,
    SCHEDULER_EVENTS,
    TASK_EVENTS,
    Event,
    EventSpec,
)
from amltk_nb.events.handler import Handler
from amltk_nb.events.subscriber import Subscriber

__all__ = [
    "BATCH_EVENTS",
    "LIMITER_EVENTS",
    "SCHEDULER_EVENTS",
    "TASK_EVENTS",
    "Channel",
    "Emitter",
    "Event",
    "EventCounts",
    "EventManager",
    "EventSpec",
    "Handler",
    "Subscriber",
    "signature_text",
]
