"""What there is to be had, and the tests that show it: the source of `docs/capabilities.md`.

    python -m tests.capabilities     writes the page

`tests/test_capabilities.py` looks that every test named here exists and the page is up to date.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE", "SECTIONS", "Capability", "page"]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "capabilities.md"


@dataclass(frozen=True)
class Capability:
    """One thing that can be relied on: with tests, or with the reason why it is not there."""

    name: str  # as code where it is a name of the API, with backticks
    what: str
    tests: tuple[str, ...] = ()  # "scheduling/test_run.py::test_a_timeout", without parameters
    absent: str = ""


def _shown(name: str, what: str, *tests: str) -> Capability:
    return Capability(name, what, tests)


def _absent(name: str, why: str) -> Capability:
    return Capability(name, why, absent=why)


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


def _of_a_batch_system(suite: str) -> tuple[str, ...]:
    return tuple(
        f"{suite}::test_{name}"
        for name in (
            "calls_run_in_jobs_and_nothing_is_left",
            "a_refused_submission_says_what_was_answered",
            "a_worker_that_is_killed_costs_its_call_only",
            "a_job_that_is_cancelled_from_outside_is_replaced",
            "nobody_comes_in_time",
            "all_jobs_are_cancelled_and_come_again",
            "jobs_that_end_at_once_end_the_run_with_a_reason",
            "adaptive_workers_come_with_the_work",
        )
    )


EVENTS = "test_events.py"
SLURM = "clusters/test_slurm.py"
SAVED = "notebooks/test_saved.py"
ENGINES_PAGE = "guides/test_engines_page.py"
WORLD = "simulation/test_world.py"
JOB_SCRIPT = "clusters/test_job_script.py"
RUN = "scheduling/test_run.py"
GRACE = "scheduling/test_grace.py"
SCHEDULER = "scheduling/test_scheduler.py"
TASK = "scheduling/test_task.py"
BATCH = "scheduling/test_batch.py"
VERBS = "scheduling/test_verbs.py"
MONITOR = "scheduling/test_queue_monitor.py"
FORMER = "scheduling/test_former_defects.py"
MACHINE = "scheduling/test_machine.py"
STATES = "scheduling/test_states.py"
STARTS = "chaos/test_starts.py"
STOPS = "chaos/test_stops.py"
STORM = "chaos/test_storm.py"
JOURNAL = "scheduling/test_journal.py"
JOURNAL_INPUT = "scheduling/test_journal_input.py"
JOURNAL_MOMENTS = "scheduling/test_journal_moments.py"
HOSTILE = "views/test_hostile.py"
FORMS = "views/test_forms.py"
GUEST = "scheduling/test_guest.py"
READING = "scheduling/test_reading.py"
OPTIONS = "scheduling/test_options.py"
LIMITER = "plugins/test_limiter.py"
RETRY = "plugins/test_retry.py"
CACHE = "plugins/test_cache.py"
COMM = "plugins/test_comm.py"
PROGRESS = "plugins/test_progress.py"
OVER_DASK = "plugins/test_over_dask.py"
OVER_RAY = "plugins/test_over_ray.py"
TALK_OVER_DASK = f"{OVER_DASK}::TestTalkOverDask"
NETWORK = "plugins/test_network_lines.py"
OTHER_MACHINE = "plugins/test_other_machine.py"
OUTPUT = "scheduling/test_remote_output.py"
RESOURCES = "plugins/test_resources.py"
OWN = "plugins/test_own_plugins.py"
PROCESS = "executors/test_process.py"
CONTRACT = "executors/test_contract.py"
LOKY = "executors/test_loky.py"
RAY = "executors/test_ray.py"
IPYPARALLEL = "clusters/test_ipyparallel.py"
AIRFLOW = "clusters/test_airflow.py"
AIRFLOW_REST = "executors/test_airflow.py"
DASK = "executors/test_dask.py"
DASK_AHEAD = "executors/test_dask_ahead.py"
AHEAD = "executors/test_remote_ahead.py"
REMOTE = "executors/test_remote.py"
SCRIPTS = "guides/test_scripts.py"
TASK_SCRIPTS = "guides/test_task_scripts.py"

_EVENTS = (
    _shown(
        "`Event(name)`",
        "An event and the plain string of its name are one key: in counts, in `on`, in `emit`.",
        *_in(EVENTS, "an_event_and_its_name_are_one_key", "an_event_reads_as_its_name_and_travels"),
        *_in(EVENTS, "anything_hashable_is_an_event"),
    ),
    _shown(
        "`Event[int, str]`",
        "What callbacks are passed, in any spelling at run time, and checked by mypy and pyright.",
        *_in(EVENTS, "any_spelling_of_types_works_at_run_time"),
        *_in("test_typing.py", "mypy_infers_the_types_and_finds_the_mistakes"),
        *_in("test_typing.py", "pyright_infers_the_types_and_finds_the_mistakes"),
    ),
    _shown(
        "`EventManager`, `Emitter`",
        "One class under both names: `on`, `emit`, `subscriber`, `add_event`, `remove`, `events`.",
        *_in(EVENTS, "event_manager_is_the_emitter", "on_as_function_returns_the_callback"),
        *_in(EVENTS, "declared_events_come_in_order_and_only_once"),
    ),
    _shown(
        "`emit`",
        "Counts, then calls everything that is registered, in order of registration.",
        *_in(EVENTS, "all_callbacks_of_an_event_run_in_order_of_registration"),
        *_in(EVENTS, "emit_returns_nothing_and_ignores_what_callbacks_return"),
        *_in(EVENTS, "an_emission_from_a_callback_is_delivered_at_once"),
        *_in(EVENTS, "the_others_still_run_and_then_the_first_error_is_raised"),
    ),
    _shown(
        "A callback registered meanwhile",
        "waits for the next emission.",
        *_in(EVENTS, "a_callback_registered_during_an_emission_waits_for_the_next"),
    ),
    _shown(
        "`on(event, …)`, `register`",
        "As function and as decorator; unknown names are refused with the known ones.",
        *_in(EVENTS, "a_callback_reaches_its_event_under_name_and_object"),
        *_in(EVENTS, "a_name_that_is_not_known_is_refused_with_those_that_are"),
        *_in(EVENTS, "an_event_object_of_the_user_is_welcome_on_a_closed_set"),
    ),
    _shown(
        "`Subscriber`",
        "One event as a handle: to register with and without options, to emit, to remove.",
        *_in(EVENTS, "a_subscriber_is_a_handle_on_one_event"),
        *_in(EVENTS, "a_subscriber_is_open_to_any_options"),
    ),
    _shown(
        "Decorators",
        "return the function, so they can be stacked.",
        *_in(EVENTS, "decorators_return_the_function_so_they_stack"),
    ),
    _shown(
        "`name=`, `remove`",
        "Callbacks go by function or by name, and keep their order of registration.",
        *_in(EVENTS, "remove_by_function_takes_all_its_registrations", "remove_by_name"),
    ),
    _shown(
        "`when=`",
        "Asked before each round; a false answer uses nothing up.",
        *_in(EVENTS, "when_is_asked_after_every_and_before_the_limit"),
        *_in(EVENTS, "a_round_counts_once_and_a_false_when_not_at_all"),
    ),
    _shown(
        "`every=`",
        "The n-th emission since registration, and every n-th after it.",
        *_in(EVENTS, "five_emissions_with_every_second_make_two_calls"),
        *_in(EVENTS, "every_counts_from_registration"),
    ),
    _shown(
        "`repeat=`",
        "Calls per round; a round counts once.",
        *_in(EVENTS, "a_round_counts_once_and_a_false_when_not_at_all"),
    ),
    _shown(
        "`max_calls=`, `limit=`",
        "Rounds after which a callback is never called again; one that failed counts.",
        *_in(EVENTS, "a_failing_call_is_used_up_and_ends_its_round"),
        *_in(EVENTS, "a_callback_that_emits_its_own_event_is_held_by_its_limit"),
    ),
    _shown(
        "Options together",
        "What each combination does over eight emissions; what means nothing is refused.",
        *_in(EVENTS, "how_the_options_work_together_over_eight_emissions"),
        *_in(EVENTS, "wrong_options_are_refused_at_registration"),
    ),
    _shown(
        "`hidden=`",
        "Leaves a callback out of every view.",
        *_in(
            "views/test_text.py", "events_stand_in_declaration_order_and_hidden_callbacks_nowhere"
        ),
    ),
    _shown(
        "The same callback twice",
        "is called twice, unless a notebook's cell has run again.",
        *_in(EVENTS, "the_same_function_twice_is_called_twice"),
        *_in(EVENTS, "a_rerun_cell_replaces_its_callback_in_place"),
    ),
    _shown(
        "`event_counts`",
        "How often each event was emitted, by any spelling of it.",
        *_in(EVENTS, "counts_grow_with_every_emission_and_ignore_zeros"),
        *_in(EVENTS, "counts_can_be_read_by_any_spelling_and_asking_adds_nothing"),
    ),
    _absent(
        "`emit_many`, `forward`, `copy`",
        "Left out: nothing needed them that a callback of two lines does not do.",
    ),
)

_SCHEDULER = (
    _shown(
        "`Scheduler(executor)`",
        "Runs on any `concurrent.futures.Executor`, never more at a time than that one can run.",
        *_in(SCHEDULER, "an_executor_gets_no_more_than_it_can_run", "what_runs_nothing_is_refused"),
        *_in(SCHEDULER, "none_and_dots_mean_local_processes"),
        *_in(SCHEDULER, "a_terminate_function_is_given_the_executor"),
    ),
    _shown(
        "`with_processes`",
        "Workers of this machine; start method and initializer are yours to choose.",
        *_in(PROCESS, "results_come_back_from_every_start_method"),
        *_in(PROCESS, "the_initializer_runs_first_with_its_arguments"),
    ),
    _shown(
        "`with_threads`",
        "The same over threads.",
        "executors/test_contract.py::TestThreads::test_map_gather_and_as_completed",
    ),
    _shown(
        "`with_sequential`, `SequentialExecutor`",
        "One call at a time in this process, without recursion.",
        *_in("executors/test_local.py", "a_sequential_call_runs_when_the_loop_turns"),
        *_in("executors/test_local.py", "a_sequential_executor_by_itself"),
        *_in(SCHEDULER, "a_sequential_executor_is_known_as_such"),
    ),
    _shown(
        "`with_loky`",
        "Processes of loky, from an executor of its own that heals when a worker died.",
        *_in(LOKY, "it_is_an_executor_of_its_own", "its_options_and_what_it_says_of_itself"),
        f"{LOKY}::TestLoky::test_a_dead_worker_costs_the_calls_under_way_and_no_others",
    ),
    _shown(
        "`with_slurm`",
        "Workers are jobs of Slurm; refusals say why, lost jobs are replaced, none is left behind.",
        *_of_a_batch_system(f"{SLURM}::TestSlurm"),
        *_in(SLURM, "a_job_that_is_cancelled_in_the_queue_is_replaced"),
        *_in(SLURM, "no_job_outlives_a_notebook_that_is_killed"),
    ),
    _shown(
        "`with_pbs`, `with_lsf`, `with_moab`",
        "The same; shown with stand-ins for the commands of these systems, over a real Slurm.",
        *_in("clusters/test_standins.py", "submit_run_lose_one_and_close", "a_refusal_is_told"),
        *_in(JOB_SCRIPT, "the_script_of", "the_queue_of"),
    ),
    _shown(
        "`with_sge`, `with_htcondor`, `with_oar`",
        "The same, over a real Grid Engine, HTCondor and OAR: `make test-clusters`.",
        *_of_a_batch_system("clusters/test_sge.py::TestGridEngine")[:4],
        *_of_a_batch_system("clusters/test_htcondor.py::TestHTCondor")[:4],
        *_of_a_batch_system("clusters/test_oar.py::TestOAR")[:4],
        *_in(JOB_SCRIPT, "the_script_of_htcondor", "a_job_of_oar_writes_where_it_is_told_to"),
    ),
    _shown(
        "`job_script`",
        "The text that is submitted, before and during a run.",
        *_in(JOB_SCRIPT, "the_script_of", "what_is_forwarded_is_kept"),
        *_in(JOB_SCRIPT, "a_scheduler_without_jobs_has_no_script"),
    ),
    _shown(
        "`with_dask`",
        "A Dask cluster of its own, one at an address, or a client that stays yours.",
        f"{DASK}::TestDaskOfOurOwn::test_a_dead_worker_costs_its_call_and_is_replaced",
        f"{DASK}::TestDaskFromTheCommandLine::test_equal_calls_all_run",
        *_in(DASK, "a_client_of_yours_stays_open", "an_asynchronous_client_is_refused"),
        *_in(DASK, "a_worker_without_this_package_runs_calls", "nobody_at_the_address"),
    ),
    _shown(
        "Short calls ahead",
        "Calls of some milliseconds are handed over ahead, by measurement; what has not begun can "
        "be cancelled, is taken back from behind a long call, and outlives its worker.",
        *_in(AHEAD, "none_until_calls_are_known_to_be_short", "none_when_calls_take_long"),
        *_in(AHEAD, "what_waits_behind_a_long_call_runs_elsewhere"),
        *_in(DASK_AHEAD, "one_that_waits_at_a_worker_is_cancelled_and_never_runs"),
        *_in(DASK_AHEAD, "what_waits_at_a_worker_that_dies_runs_elsewhere_once"),
    ),
    _shown(
        "Nothing runs twice on a Dask cluster of its own",
        "Neither a call whose worker died, nor one that had ended there with its answer unseen.",
        f"{DASK}::TestDaskOfOurOwn::test_a_dead_worker_costs_its_call_and_is_replaced",
        *_in(DASK_AHEAD, "what_has_ended_on_a_worker_that_died_since_is_not_run_again"),
        *_in(DASK, "a_worker_of_another_version_is_an_error_that_says_so"),
    ),
    _shown(
        "`on_no_workers`",
        "Nobody is there to run calls: told with the seconds, again and again.",
        *_in(REMOTE, "nobody_there_is_told_again_and_again_with_the_time"),
        *_in(DASK, "all_workers_gone_and_the_scheduler_too"),
    ),
    _shown(
        "Executors of Dask's clients",
        "`Scheduler(client.get_executor())`: equal calls are run each for itself.",
        *_in("guides/test_engine_scripts.py", "on_dask"),
        *_in("clusters/test_guide_scripts.py", "in_jobs"),
    ),
    _shown(
        "One line from processes to a cluster",
        "The same search on processes, Dask and Slurm, with the same outcome; what each engine "
        "promises is on one page, which is checked against the engines.",
        *_in(SAVED, "outgrow_one_machine_finds_the_same_on_each_engine_and_names_no_place"),
        *_in(
            "clusters/test_notebook.py",
            "its_search_runs_in_jobs_and_shows_what_the_saved_file_shows",
        ),
        *_in(ENGINES_PAGE, "an_engine_says_the_same_of_itself"),
        *_in(ENGINES_PAGE, "giving_up_when_nobody_is_there"),
    ),
    _shown(
        "A thousand workers",
        "How far one scheduler goes: the engine itself in simulated time, `make simulation`.",
        *_in(WORLD, "how_long_it_takes", "batches_of_the_engine_spare_messages"),
        *_in(WORLD, "a_thousand_workers_are_busy_with_long_calls_and_idle_with_short_ones"),
    ),
    _absent("`with_dask_jobqueue`", "Left out: each cluster has a constructor of its own."),
    _shown(
        "`with_ray`",
        "Tasks of the Ray of this process, of one at an address, or of one of its own.",
        f"{RAY}::TestRay::test_a_dead_worker_costs_its_call_only_and_nothing_runs_twice",
        f"{RAY}::TestRay::test_what_is_ended_runs_no_more_with_what_it_started",
        *_in(RAY, "one_of_our_own_is_shared_and_shut_down_by_the_last"),
        *_in(RAY, "a_ray_that_is_gone_ends_the_run_and_not_the_kernel"),
        *_in(RAY, "a_wrong_address_is_an_error_within_seconds"),
    ),
    _shown(
        "`with_ipyparallel`",
        "Engines of a client or profile of yours, or engines of its own.",
        f"{IPYPARALLEL}::TestUsersEngines::test_a_dead_engine_is_an_error_and_not_waited_for",
        *_in(IPYPARALLEL, "engines_of_our_own_from_start_to_end"),
    ),
    _shown(
        "`with_airflow`, `AirflowExecutor`",
        "Runs of one DAG of Airflow 3, over its REST API; each started once, whatever requests do.",
        *_in(AIRFLOW, "what_waits_never_runs_and_what_runs_is_stopped"),
        *_in(AIRFLOW, "a_task_that_is_killed_is_an_error_and_not_run_again"),
        *_in(AIRFLOW_REST, "a_run_that_may_have_been_started_is_started_once"),
        *_in(AIRFLOW_REST, "an_airflow_that_is_gone_ends_the_run"),
        *_in(AIRFLOW_REST, "what_is_in_the_way_is_said_with_what_to_do"),
        *_in(AIRFLOW_REST, "the_verbs_of_concurrent_futures"),
    ),
    _shown(
        "Signed calls and answers on Airflow",
        "With a secret on both sides, neither opens what others have made or changed.",
        *_in(AIRFLOW, "a_call_without_the_secret_is_not_run"),
        *_in(AIRFLOW_REST, "an_answer_without_the_right_signature_is_not_opened"),
        *_in(AIRFLOW_REST, "a_signed_call_cannot_be_run_under_another_name"),
    ),
    _shown(
        "`python -m amltk_nb.airflow_dag`",
        "Puts the DAG there, or a newer one in its place; leaves other files alone.",
        *_in(AIRFLOW_REST, "the_command_puts_the_dag_there"),
        *_in(AIRFLOW_REST, "an_older_dag_of_ours_is_replaced_and_nothing_else"),
    ),
    _shown(
        "A whole scheduler in one task of Airflow",
        "The file of the documentation, run.",
        *_in(AIRFLOW, "a_whole_scheduler_in_one_task_as_documented"),
    ),
    _shown(
        "`run`",
        "Blocks until the end and says how it ended; in a notebook, too.",
        *_in(RUN, "a_run_without_work"),
        *_in("kernels/test_run_in_cell.py", "it_can_run_again_and_again"),
    ),
    _shown(
        "`async_run`",
        "The same, to be awaited.",
        *_in(RUN, "cancelling_async_run_ends_it_before_it_returns"),
        *_in("kernels/test_run_in_cell.py", "async_run_prints_into_its_cell"),
    ),
    _shown(
        "`on_exception=`",
        '"raise", "end", "continue" or a mapping by type, for calls and callbacks alike.',
        *_in(RUN, "raise_ends_the_run_and_is_raised", "a_mapping_decides_by_type"),
        *_in(RUN, "a_callback_that_raises", "what_a_mapping_does_not_list_is_raised"),
        *_in(RUN, "exits_out_of_calls_end_the_run_and_come_out_of_the_wait_only"),
        *_in(OPTIONS, "the_first_entry_that_fits_wins", "a_policy_that_means_nothing"),
    ),
    _shown(
        "`end_on_exception=`, `raises=`",
        "The older spellings.",
        *_in(SCHEDULER, "the_older_spellings_of_the_policy"),
    ),
    _shown(
        "`on_cancelled=`",
        "What to do about a cancellation that nobody here asked for.",
        *_in(RUN, "a_future_that_is_cancelled_elsewhere"),
        *_in(RUN, "what_was_asked_for_here_never_triggers_that_policy"),
    ),
    _shown(
        "`timeout=`",
        "Takes nothing more, cancels what is queued and lets running calls finish.",
        *_in(RUN, "a_timeout", "a_timeout_cancels_the_queue_and_lets_running_calls_finish"),
    ),
    _shown(
        "`wait=False`",
        "Ends running calls, and what they have started, at once.",
        *_in(RUN, "a_run_started_without_waiting_ends_so", "stop_now_ends_what_runs"),
        *_in(PROCESS, "closing_can_end_running_calls_with_what_they_started"),
    ),
    _shown(
        "`wait=5`",
        "Running calls get five seconds to finish and are ended then, however blocked the loop "
        "is; stopping again can only shorten that.",
        *_in(GRACE, "calls_that_end_within_it_are_left_alone", "calls_that_do_not_are_ended"),
        *_in(GRACE, "a_loop_that_is_blocked_does_not_stretch_it"),
        *_in(GRACE, "asking_again_can_only_make_it_quicker"),
        *_in(GRACE, "real_processes_are_ended_when_it_is_over"),
    ),
    _shown(
        "`end_on_empty=False`",
        "Runs until it is stopped.",
        *_in(FORMER, "the_second_run_is_as_long_as_the_first_though_its_loop_is_another"),
    ),
    _shown(
        "`ExitState`, `ExitCode`",
        "How a run ended; a state equals its code.",
        *_in(SCHEDULER, "an_exit_state_equals_its_code"),
    ),
    _shown(
        "`submit`",
        "A future, or an error that says how to start; from any thread.",
        *_in(SCHEDULER, "submitting_before_a_start_says_how_to_start"),
        "executors/test_contract.py::TestForkserverProcesses::test_eight_threads_submit_fifty_calls_each",
    ),
    _shown(
        "`map`, `gather`, `as_completed`, `wait`",
        "As users of the standard library expect: several iterables, order, time limits, errors in "
        "their places, ended futures, other threads.",
        *_in(VERBS, "map_takes_several_iterables_and_ends_with_the_shortest"),
        *_in(VERBS, "gather_returns_errors_and_cancelled_ones_in_their_places"),
        *_in(VERBS, "as_completed_yields_in_the_order_of_the_ends_and_each_once"),
        *_in(VERBS, "a_timeout_comes_after_what_has_ended_and_says_how_many_have_not"),
        *_in(VERBS, "a_wait_that_was_too_short_says_which_call"),
    ),
    _shown(
        "`queue`",
        "What was accepted and has not ended.",
        *_in(SCHEDULER, "the_queue_is_what_has_not_ended"),
    ),
    _shown(
        "`empty`, `running`",
        "Whether nothing is left to do, and whether calls are taken.",
        *_in(RUN, "stopping_takes_no_more_calls"),
        *_in(READING, "before_the_first_run"),
    ),
    _shown(
        "`stop`",
        "From any thread and any callback, any number of times, as a callback itself.",
        *_in(RUN, "stop_from_many_threads_at_once", "stop_from_a_callback"),
        *_in(RUN, "stop_with_an_exception_follows_the_policy"),
        *_in(SCHEDULER, "stop_takes_any_arguments_so_it_can_be_a_callback"),
        *_in(SCHEDULER, "stopping_what_does_not_run_is_harmless"),
    ),
    _shown(
        "Any order of everything",
        "Submitting, cancelling, retries, batches, dying workers, stops, callbacks that do any of "
        "it: each call ends once, with its events in their order; over processes that are killed "
        "as well.",
        *_in(MACHINE, "any_order_over_a_manual_backend", "any_order_over_real_threads"),
        "chaos/test_killed_machine.py::test_any_order_over_processes_that_are_killed",
    ),
    _shown(
        "A million calls",
        "Memory is flat once the history is full, large values and arguments go, and runs leave "
        "nothing behind, however often; a slow disk holds calls up instead of filling memory.",
        *_in("soak/test_memory.py", "memory_is_flat", "memory_is_flat_with_a_journal"),
        *_in("soak/test_arrays.py", "results_go_with_their_futures"),
        *_in("soak/test_arrays.py", "arguments_are_kept_up_to_a_bound"),
        *_in("soak/test_cycles.py", "a_run_leaves_nothing"),
        *_in("soak/test_journal_queue.py", "ends_that_wait_for_the_disk_are_bounded"),
    ),
    _shown(
        "A loop that goes on turning",
        "Ends, cancelled queues and large results are dealt with piece by piece.",
        *_in("soak/test_loop.py", "a_flood_of_ends_is_taken_in_by_slices"),
        *_in("soak/test_loop.py", "stopping_with_a_long_queue_is_done_by_slices"),
        *_in("soak/test_loop.py", "a_large_result_is_read_piece_by_piece"),
    ),
    _shown(
        "Workers killed all the time",
        "Every call ends once, and those that were not running when their worker died with their "
        "results; whole kernels as well, on one journal.",
        *_in(STORM, "every_call_ends_once_though_workers_die"),
        *_in(STORM, "every_effect_is_recorded_though_the_kernel_dies"),
        *_in(STARTS, "a_pool_whose_workers_all_die_heals"),
    ),
    _shown(
        "Workers that cannot start",
        "Three tries in a row, then calls end with the reason: initializers that fail, modules "
        "that are not there, no file descriptors.",
        *_in(STARTS, "workers_that_cannot_start_end_in_an_error_on_the_calls"),
        *_in(STARTS, "without_descriptors_a_run_ends_and_the_next_one_works"),
        *_in(STARTS, "a_start_without_descriptors_says_so_and_keeps_none"),
    ),
    _shown(
        "Stopping from everywhere",
        "From threads and callbacks at once, at any moment, with all that running calls have "
        "started; and a deadline is kept.",
        *_in(STOPS, "stop_from_eight_threads_and_every_callback_and_again"),
        *_in(STOPS, "what_calls_have_started_ends_with_them"),
        *_in(STOPS, "a_run_ends_when_its_time_is_over"),
    ),
    _shown(
        "States",
        "Of a run and of a call: every legal move stands in a table; an illegal one changes "
        "nothing and tells of the moves before it.",
        *_in(STATES, "moves_of_a_call", "moves_of_a_scheduler"),
        *_in(STATES, "nothing_sets_a_state_past_the_tables"),
        *_in(STATES, "a_refused_move_tells_of_the_moves_before_it_and_on_which_thread_they_were"),
    ),
    _shown(
        "`call_later`",
        "On the loop, while the run lives; it keeps no run alive.",
        *_in(RUN, "call_later_runs_on_the_loop_and_its_errors_count"),
        *_in(RUN, "call_later_neither_keeps_a_run_alive_nor_outlives_it"),
    ),
    _shown(
        "`task`",
        "Registers a function; as a decorator too, with and without arguments.",
        *_in(TASK, "a_task_is_made_by_hand_or_as_a_decorator", "a_task_of_nothing_is_refused"),
        *_in(VERBS, "a_decorator_may_take_arguments"),
    ),
    _shown(
        "`add_renderable`",
        "Shows something of yours below the scheduler.",
        *_in("views/test_text.py", "what_the_user_adds_stands_below"),
        *_in(MONITOR, "it_says_how_it_stands_wherever_it_is_shown"),
    ),
    _shown(
        "`display=`",
        "A dashboard under the cell, or none.",
        *_in("kernels/test_display.py", "start_shows_a_widget_with_static_forms_beside"),
        *_in("kernels/test_display.py", "display_false_shows_nothing"),
    ),
    _shown(
        "The scheduler's events",
        "Under each of their names, the older ones included, with what they carry.",
        *_in(EVENTS, "older_names_of_a_scheduler_still_work"),
        *_in(EVENTS, "the_documented_tables_are_those_of_the_code"),
    ),
    _shown(
        "Order of events",
        "A call's: the scheduler's before the task's. A run's: `on_finished` is the last of all.",
        *_in(RUN, "a_call_of_a_task_that_returns"),
        *_in(RUN, "a_call_of_a_task_that_raises_and_the_run_goes_on"),
        *_in(RUN, "a_cancelled_call_has_one_event_of_each", "stop_with_nothing_under_way"),
        *_in(RUN, "the_order_of_events_when_a_call_ends_the_run"),
        *_in(FORMER, "no_event_comes_after_finished"),
    ),
    _shown(
        "`records`, `to_frame`",
        "Every call as a row, as a DataFrame too.",
        *_in(READING, "records_have_plain_values", "records_as_a_frame"),
    ),
)

_TASKS = (
    _shown(
        "`scheduler.task(fn, plugins=…)`, `Task(fn, scheduler)`",
        "Two ways to the same; one plugin or several.",
        *_in(TASK, "a_task_is_made_by_hand_or_as_a_decorator"),
        *_in(TASK, "what_is_no_plugin_is_refused_and_no_task_is_left"),
    ),
    _shown(
        "`task.submit`, `task(…)`",
        "A future, None where a plugin refused; when nothing runs, the second is None as well.",
        *_in(TASK, "what_a_task_knows_of_its_calls", "a_refusal_unwinds_those_before_it"),
        *_in(RUN, "stopping_takes_no_more_calls"),
    ),
    _shown(
        "`futures`, `n_running`, `running`, `queue`, `n_called`",
        "What a task knows of its calls.",
        *_in(TASK, "what_a_task_knows_of_its_calls"),
    ),
    _shown(
        "`name`, `ref`",
        "Short, readable, the same in every run.",
        *_in(TASK, "refs_count_per_name_and_scheduler"),
    ),
    _shown(
        "`on_submitted`",
        "Gets the future first, and the arguments as they are after plugins if it wants them.",
        *_in(EVENTS, "keywords_of_a_submission_are_passed_if_wanted"),
        *_in(OWN, "a_changed_argument_reaches_the_function_and_the_callbacks"),
    ),
    _shown(
        "`on_done`, `on_result`, `on_exception`, `on_cancelled`",
        "A callback takes as much of what an event carries as it has parameters for.",
        *_in(EVENTS, "a_callback_gets_what_it_has_room_for"),
        *_in(EVENTS, "a_callback_that_needs_more_is_refused_at_registration"),
    ),
    _shown(
        "`on_returned`, `on_f_returned`, `on_f_exception`, `on_f_cancelled`",
        "Further names of an outcome; all callbacks of one outcome share one order.",
        *_in(TASK, "callbacks_of_one_outcome_run_in_order_of_registration"),
        *_in(EVENTS, "events_told_together_share_one_order_of_registration"),
    ),
    _shown(
        "Spellings of events",
        "`on_result`, `on-result` and `result` are one; so are older names.",
        *_in(TASK, "an_event_has_many_names", "an_unknown_event_lists_the_known_ones"),
        *_in(EVENTS, "older_names_still_work"),
    ),
    _shown(
        "Subclasses of `Task`",
        "With events of their own, emitted from callbacks.",
        *_in(TASK, "a_subclass_has_events_of_its_own"),
        *_in(TASK_SCRIPTS, "by_path"),
    ),
    _shown(
        "`attach_plugin`",
        "A plugin that refuses the task is not attached.",
        *_in(TASK, "a_plugin_that_refuses_the_task_is_not_attached"),
        *_in(TASK, "a_plugin_hangs_on_a_task_once"),
    ),
    _shown(
        "`task.batch`, `Task.Batch`",
        "Submitted together once, cancelled together; a refused call cancels the rest.",
        *_in(BATCH, "the_ways_to_make_one", "the_calls_are_the_tasks_own", "on_every_executor"),
        *_in(BATCH, "it_is_submitted_once", "a_refused_call_cancels_the_batch"),
        *_in(BATCH, "cancel_takes_back_what_waits_and_what_runs"),
    ),
    _shown(
        "Events of a batch",
        "In order, results in order of submission, None among them; always ended by one `done`.",
        *_in(BATCH, "all_return_in_an_order_of_their_own", "results_that_are_none_are_kept"),
        *_in(BATCH, "an_empty_batch_is_done_at_the_next_turn", "an_empty_batch_can_be_cancelled"),
        *_in(BATCH, "every_batch_ends_once_and_tells_the_truth"),
    ),
    _absent("`on_f_submitted`", "Left out: `on_submitted` carries the future and the arguments."),
    _absent("`copy`", "Left out: making another task of the function does it."),
    _absent(
        "`Trial.Task`", "Left out: it belongs to optimizers, which this package does not have."
    ),
)

_PLUGINS = (
    _shown(
        "`Plugin`",
        "Sees, changes and refuses submissions, in a chain that unwinds; adds events, shows its "
        "state.",
        *_in(TASK, "plugins_are_asked_in_order_and_released_in_reverse"),
        *_in(TASK, "plugins_are_released_however_a_call_ends"),
        *_in(TASK, "a_failing_plugin_unwinds_and_says_what_to_mend"),
        *_in(OWN, "a_veto_and_nothing_is_submitted"),
        *_in(OWN, "an_added_event_comes_on_the_loop_and_is_known_by_name"),
        *_in(OWN, "what_was_lent_comes_back_when_a_later_plugin_refuses"),
        *_in(OWN, "its_state_is_shown_as_it_changes"),
    ),
    _shown(
        "`Limiter`, `CallLimiter`",
        "Calls in all, calls at a time, not while another task runs.",
        *_in(LIMITER, "no_more_calls_than_the_limit", "no_more_at_a_time_than_the_limit"),
        *_in(LIMITER, "not_while_another_task_runs", "the_limit_of_calls_is_asked_first"),
        *_in(LIMITER, "a_limit_that_means_nothing", "the_older_name"),
    ),
    _shown(
        "Events of the limiter",
        "With the task and the refused arguments.",
        *_in(LIMITER, "one_limiter_on_two_tasks_counts_both"),
        *_in(EVENTS, "the_limiter_passes_the_arguments_last"),
    ),
    _shown(
        "`Comm.Plugin`",
        "A running call asks and tells, its task's callbacks answer and tell; in order, and before "
        "the call's end; nobody waits for ever.",
        *_in(COMM, "it_opens_sends_asks_and_closes_in_this_order"),
        *_in(COMM, "all_that_was_said_comes_in_order_and_before_the_end"),
        *_in(COMM, "the_scheduler_sends_as_well", "a_body_that_raises_closes"),
        *_in(COMM, "a_worker_killed_in_the_midst_of_a_request", "nobody_answers_in_time"),
        *_in(COMM, "the_place_of_the_comm_is_taken", "other_names_for_it"),
    ),
    _shown(
        "Plugins elsewhere",
        "All of them over a real Dask; talks, reports, limits and prints over Ray as well.",
        *_in(OVER_DASK, "a_limit_ends_its_call_and_the_worker_goes_on"),
        *_in(OVER_DASK, "a_stored_result_spares_the_call"),
        *_in(OVER_DASK, "a_call_whose_worker_died_is_tried_again"),
        *_in(OVER_DASK, "wandb_and_codecarbon_go_along"),
        *_in(OVER_DASK, "a_worker_without_this_package_says_what_the_plugin_needs"),
        *_in(TALK_OVER_DASK, "it_opens_sends_asks_and_closes_in_this_order"),
        *_in(TALK_OVER_DASK, "all_that_was_said_comes_in_order_and_before_the_end"),
        *_in(TALK_OVER_DASK, "a_worker_killed_in_the_midst_of_a_request"),
        *_in(TALK_OVER_DASK, "progress_comes_to_its_last_report_and_bars_report"),
        f"{OVER_RAY}::TestTalkOverRay::test_a_call_that_is_ended_while_it_asks",
    ),
    _shown(
        "Lines by network",
        "Calls on other machines talk over TCP; nobody else is heard, and only then one listens.",
        *_in(OTHER_MACHINE, "a_call_there_talks_and_all_it_says_comes_before_its_end"),
        *_in(OTHER_MACHINE, "its_worker_is_killed_in_the_midst_of_a_request"),
        *_in(NETWORK, "who_does_not_know_the_token_is_not_heard"),
        *_in(NETWORK, "what_was_overheard_cannot_be_said_again"),
        *_in(NETWORK, "what_was_changed_on_the_way_is_not_unpickled"),
        *_in(NETWORK, "nothing_listens_by_network_where_all_workers_are_here"),
        *_in(NETWORK, "the_user_may_name_the_way", "a_worker_out_of_reach_says_what_to_do"),
    ),
    _shown(
        "Output of calls elsewhere",
        "What a call prints on a worker comes with its answer: its own, bounded, or not at all.",
        *_in(OUTPUT, "two_at_a_time_do_not_mix", "a_call_that_fails_keeps_its_output"),
        *_in(OUTPUT, "too_much_is_shortened_in_the_middle"),
        *_in(OUTPUT, "it_is_in_the_record_of_the_call_unless_nobody_wants_it"),
        *_in(OVER_DASK, "two_threads_of_a_worker_do_not_mix_what_they_print"),
    ),
    _shown(
        "`Progress`, `report`",
        "How far each call is, by its own reports or its tqdm loops, in every view.",
        *_in(PROGRESS, "the_last_report_always_comes_and_comes_before_the_end"),
        *_in(PROGRESS, "a_tqdm_loop_reports_by_itself", "text_and_html_show_it_live"),
        *_in(PROGRESS, "the_state_is_over_all_calls_and_shows_what_goes_on"),
        *_in(PROGRESS, "ten_thousand_reports_cost_little"),
        *_in(PROGRESS, "calls_within_limits_report_from_their_own_process"),
    ),
    _shown(
        "`ResourceLimits`, `PynisherPlugin`",
        "Memory, CPU time and wall time of a call; typed errors, events, and workers that go on.",
        *_in(RESOURCES, "each_limit_ends_the_call_and_what_it_started_and_nothing_else"),
        *_in(RESOURCES, "a_policy_for_its_errors_only", "units", "what_the_system_supports"),
    ),
    _shown(
        "`Retry`",
        "Failed calls run again: one future and one end per call, each attempt a record.",
        *_in(RETRY, "one_future_and_one_end_whatever_it_took", "waits_of_tenacity"),
        *_in(RETRY, "what_was_tried_again_is_not_resubmitted_as_failed", "on_every_backend"),
        *_in(RETRY, "a_call_that_kills_three_workers_in_a_row_is_not_tried_again"),
    ),
    _shown(
        "`Cache`",
        "The same function with the same arguments is not run again; an edited one is.",
        *_in(CACHE, "the_second_time_it_is_not_run"),
        *_in(CACHE, "a_hit_has_the_events_of_any_call_and_its_own"),
        *_in(CACHE, "a_function_of_a_notebook_over_kernels_and_edits"),
    ),
    _shown(
        "`ThreadPoolCTLPlugin`",
        "The threads of numerical libraries, in the worker.",
        *_in("plugins/test_threadpools.py", "in_a_worker_process", "on_a_thread"),
    ),
    _shown(
        "`WarningFilter`",
        "Warnings filters, in the worker.",
        *_in("plugins/test_warning_filter.py", "the_filter_holds_inside_the_call_only"),
        *_in("plugins/test_warning_filter.py", "threads_do_not_share_their_filters"),
    ),
    _shown(
        "`WandbPlugin`",
        "Each call is a run of Weights & Biases, offline too.",
        *_in("plugins/test_wandb.py", "each_call_is_a_run_on_disk", "nothing_stays_in_the_kernel"),
    ),
    _shown(
        "`EmissionsTrackerPlugin`",
        "What each call used, measured by codecarbon offline, in the worker; without the network.",
        *_in("plugins/test_emissions.py", "what_calls_used_comes_back"),
        *_in("plugins/test_emissions.py", "no_network_and_nothing_left_in_the_kernel"),
    ),
    _shown(
        "`QueueMonitor`",
        "The queue and the workers at every change, as a frame and as a picture; workers are true.",
        *_in(MONITOR, "every_change_is_a_row", "the_workers_of_each_backend"),
        *_in(MONITOR, "areas_are_stacked", "a_flood_of_calls_fills_no_memory"),
    ),
    _shown(
        "`Requeue`",
        "An iterator that takes items back, any number of them, and can be used again.",
        *_in("test_types.py", "requeued_items_come_first_and_the_last_one_before_the_others"),
        *_in("test_types.py", "it_can_be_filled_again_after_it_ran_out"),
        *_in("test_types.py", "from_func_calls_as_often_as_told_and_only_when_asked"),
        *_in("test_types.py", "three_hundred_thousand_requeues_do_not_recurse"),
    ),
)

_JOURNAL = (
    _shown(
        '`Scheduler(journal="run.db")`',
        "Accepted calls, their ends, results and errors outlive the kernel, in one file.",
        *_in(JOURNAL, "it_tells_what_the_scheduler_tells", "results_and_errors_are_loaded_by_id"),
        *_in(JOURNAL, "a_large_result_is_told_when_it_is_written"),
        *_in(JOURNAL_MOMENTS, "a_result_is_recorded_as_it_was_when_told"),
        *_in(JOURNAL, "recording_never_blocks_the_loop"),
    ),
    _shown(
        "`recover()`",
        "What had no end runs again under its id, as it was recorded; what had one never does, "
        "however often the process is killed.",
        *_in(JOURNAL, "what_did_not_end_runs_again_under_its_id"),
        *_in(JOURNAL, "a_recovered_call_belongs_to_the_task_of_its_ref"),
        *_in(JOURNAL, "killed_again_and_again_no_recorded_call_runs_twice"),
        *_in(JOURNAL, "a_retry_that_waits_is_recovered", "stopping_ends_calls_for_good"),
        *_in(JOURNAL_MOMENTS, "two_threads_that_recover_run_nothing_twice"),
        *_in(JOURNAL_MOMENTS, "what_is_taken_back_is_recorded_though_the_loop_is_blocked"),
        *_in(JOURNAL_MOMENTS, "an_attempt_that_failed_and_the_one_after_it_are_recorded_together"),
    ),
    _shown(
        "Files that cannot be one",
        "Others' files, damage anywhere, another format, what is in use, pipes and devices, no "
        "rights: a typed error says what to do, and all is left as it was.",
        *_in(JOURNAL, "files_of_others_are_refused_and_left_alone"),
        *_in(JOURNAL_MOMENTS, "a_journal_that_its_own_process_copies_stays_locked"),
        *_in(JOURNAL, "another_format_is_refused_and_left_alone"),
        *_in(JOURNAL_INPUT, "damage_anywhere_is_refused_and_left_alone"),
        *_in(JOURNAL_INPUT, "what_is_there_and_no_file_is_refused"),
        *_in(JOURNAL_INPUT, "a_file_that_another_program_holds"),
        *_in(JOURNAL_INPUT, "a_file_without_the_right_to_write"),
        *_in(JOURNAL_INPUT, "what_is_no_path_is_refused_by_its_type"),
    ),
    _shown(
        "A file that fails while it is in use",
        "A full disk, a file that is deleted, moved or replaced: the run goes on, the log and "
        "`n_unwritten` say what is missing.",
        *_in(JOURNAL, "a_full_disk_stops_no_run_and_is_told_once"),
        *_in(JOURNAL_INPUT, "a_file_that_is_moved_away_and_back"),
        *_in(JOURNAL_INPUT, "a_file_that_is_deleted_or_replaced"),
        *_in(JOURNAL_INPUT, "closing_on_a_full_disk_gives_up_and_says_how_much_is_missing"),
    ),
    _shown(
        "Values and clocks",
        "What cannot be stored ends all the same and says so; a clock that jumps changes neither "
        "order nor durations.",
        *_in(JOURNAL, "arguments_that_cannot_be_stored", "lone_surrogates_do_no_harm"),
        *_in(JOURNAL_INPUT, "results_that_cannot_be_stored"),
        *_in(JOURNAL_INPUT, "a_clock_that_jumps"),
        *_in(JOURNAL_INPUT, "a_clock_of_the_system_that_jumps_while_calls_run"),
    ),
    _shown(
        "In every view",
        "Its name, and a warning when it lacks entries.",
        *_in("views/test_model.py", "the_journal_is_named_and_warns_only_when_it_lacks_something"),
        *_in("views/test_text.py", "golden"),
    ),
)

_VIEWS = (
    _shown(
        "Rich text",
        "Executor, queue, events with their counts and callbacks, tasks with theirs.",
        *_in("views/test_text.py", "golden", "a_task_alone"),
    ),
    _shown(
        "The queue",
        "Says which calls run, and how many calls are not shown.",
        *_in("views/test_html.py", "each_call_says_what_it_knows"),
        *_in("views/test_html.py", "a_crowd_is_bounded_and_says_what_is_left_out"),
    ),
    _shown(
        "Events and callbacks",
        "In order of declaration, as their authors wrote them.",
        *_in(
            "views/test_text.py", "events_stand_in_declaration_order_and_hidden_callbacks_nowhere"
        ),
        *_in(EVENTS, "a_callback_reads_as_it_was_written"),
        *_in(READING, "counts_of_callbacks_and_events"),
    ),
    _shown(
        "Workers",
        "What each runs, since when and where; of a crowd counts by machine and the first ones. "
        "They go and come while one looks.",
        *_in("views/test_html.py", "few_workers_say_what_they_run_where_and_since_when"),
        *_in("views/test_model.py", "a_thousand_workers_are_thirty_and_counts_by_machine"),
        *_in("browser/test_workers.py", "workers_show_their_calls_go_and_come"),
    ),
    _shown(
        "A countdown",
        "Of the seconds that running calls still have once it is stopped with a grace.",
        *_in("views/test_text.py", "what_becomes_of_running_calls"),
        *_in(GRACE, "a_snapshot_says_when_it_ends"),
    ),
    _shown(
        "Notify me",
        "A notification when the run is over and the page out of sight, the tab's title meanwhile; "
        "nothing in the page jumps when values change.",
        *_in("browser/test_notification.py", "a_reader_elsewhere_is_told_of_the_end"),
    ),
    _shown(
        "Waiting",
        "What calls wait for while nobody is there and for how long, jobs in the batch queue, and "
        "what to do when that is long.",
        *_in("views/test_html.py", "the_queue_says_that_nobody_is_there"),
        *_in("views/test_text.py", "advice_comes_when_a_wait_is_long_and_not_before"),
        *_in("browser/test_workers.py", "a_run_says_what_it_waits_for_until_its_workers_are_there"),
    ),
    _shown(
        "Handed over",
        "Running is said only of what has begun, where an engine does not say when calls begin.",
        *_in("views/test_text.py", "running_is_said_only_of_what_has_begun"),
    ),
    _shown(
        "A timeline",
        "Lanes of workers, bars of calls: live, in what is saved, in reports; of ten thousand "
        "short calls as well. A click leads to the call.",
        *_in(
            "views/test_timeline.py",
            "bars_are_as_long_as_the_worker_measured_and_running_ones_reach_now",
            "ten_thousand_short_calls_are_some_bars_that_miss_none",
        ),
        *_in("browser/test_every_control.py", "every_control_does_what_it_says"),
    ),
    _shown(
        "`scheduler.report`",
        "One file with all that is remembered: outcome, failures, log, calls.",
        *_in("views/test_report.py", "it_holds_all_calls_and_all_of_the_failures"),
        *_in("views/test_report.py", "an_older_one_is_left_where_no_new_one_can_be_written"),
    ),
    _shown(
        "`%amltk`, `%%task`",
        "What one does most, as magics; each is short for a line of Python.",
        *_in("kernels/test_magics.py", "the_dashboard_and_the_verbs"),
        *_in("kernels/test_magics.py", "a_cell_is_a_task_and_its_last_line_the_result"),
    ),
    _shown(
        "Every button",
        "does what it says, and Python sees the same; a control that no test uses fails the test.",
        *_in("browser/test_every_control.py", "every_control_does_what_it_says"),
    ),
    _shown(
        "The life of a page",
        "Reload, another tab, another view of the output, a cut line, a notebook closed and "
        "opened: the present state comes back, and the end stays in the file. A kernel that is "
        "gone is said to be gone.",
        *_in(
            "browser/test_pages.py",
            "a_reloaded_page_shows_and_steers_the_run",
            "two_tabs_show_the_same",
            "views_of_the_output_and_a_notebook_that_is_closed_and_opened",
            "a_line_that_was_cut_is_mended_and_nothing_is_missing",
            "a_kernel_that_is_killed_or_restarted_is_said_to_be_gone",
        ),
        *_in("kernels/test_display.py", "it_is_frozen_in_the_context_of_who_awaits"),
    ),
    _shown(
        "Page and kernel of different versions",
        "Each says its own; the page says which one is old and what to do.",
        *_in("views/test_widget.py", "a_page_of_another_version_gets_no_model_but_what_to_do"),
        *_in("views/test_commands.py", "a_hello_says_the_pages_version"),
    ),
    _shown(
        "Each view alone",
        "`scheduler.controls()`, `.progress()`, `.events()`, `.queue()`, `.timeline()`, "
        "`.plugins()`, `.log()`: in any number of cells, in step, before, during and after a run; "
        "each freezes to what it showed. `scheduler.queue` is still the mapping.",
        *_in("browser/test_alone.py", "all_views_alone_in_one_notebook"),
        *_in("kernels/test_alone.py", "each_view_stays_in_step_and_freezes_alone"),
        *_in("views/test_widget.py", "every_view_has_a_method_and_two_of_them_a_second_use"),
        *_in("views/test_alone.py", "golden"),
    ),
    _shown(
        "One task",
        "`task.panel()`: its own calls, counts, events and plugins; nothing else travels.",
        *_in("views/test_widget.py", "the_panel_of_a_task_reaches_only_its_calls"),
        *_in("kernels/test_alone.py", "a_panel_gets_the_calls_of_its_task_only"),
    ),
    _shown(
        "A future, a batch, a run, a task",
        "as the last line of a cell: a line that follows what it tells of, and ends with its "
        "result, error or outcome. A thousand of them cost little, and none is kept alive.",
        *_in("kernels/test_alone.py", "a_future_follows_its_call"),
        *_in("kernels/test_alone.py", "a_batch_a_task_and_a_run_follow"),
        *_in("kernels/test_alone.py", "a_line_follows_in_a_cell_that_blocks"),
        *_in("views/test_lines.py", "a_thousand_futures_cost_nothing_until_they_move"),
        *_in("views/test_lines.py", "what_is_shown_is_not_kept"),
    ),
    _shown(
        "A view whose scheduler was dropped",
        "does not keep it alive, and says what happened.",
        *_in("views/test_widget.py", "a_dropped_scheduler_is_let_go_and_told_of"),
        *_in("kernels/test_alone.py", "a_view_of_a_dropped_scheduler_says_so"),
        *_in("kernels/test_alone.py", "a_run_that_nobody_has_a_name_for_goes_on"),
    ),
    _shown(
        "Resubmit with changes",
        "The arguments of a call as a form; what is not touched stays the very object, arrays and "
        "models too, and the new call says what it was made from.",
        *_in(FORMS, "a_call_is_made_again_with_what_was_changed_and_the_rest_as_it_is"),
        *_in(FORMS, "arguments_that_were_changed_meanwhile_are_not_sent_unseen"),
        *_in("browser/test_forms.py", "forms_by_mouse_and_keyboard"),
    ),
    _shown(
        "`task.form()`",
        "A form of a task's parameters by hints, defaults and what you pass; its calls live below. "
        "Without a widget it is a table and the call to write.",
        *_in(FORMS, "hints_defaults_and_overrides_choose_the_field"),
        *_in(FORMS, "a_value_comes_back_through_its_field"),
        *_in("views/test_form_view.py", "a_form_outlives_runs_and_freezes_with_none"),
        *_in(
            "views/test_form_view.py",
            "without_a_widget_a_form_is_a_table_and_the_call_to_write",
        ),
        *_in("browser/test_forms.py", "forms_by_mouse_and_keyboard"),
    ),
    _shown(
        "Entries are never evaluated",
        "They are read as values of their kind or as bounded literals; a wrong one is named, and "
        "nothing is submitted.",
        *_in(FORMS, "what_is_no_literal_is_refused_in_one_sentence"),
        *_in(FORMS, "no_text_gets_past_but_values_of_literals"),
        *_in(FORMS, "every_field_that_is_wrong_is_named_and_nothing_is_submitted"),
        *_in(FORMS, "a_function_that_was_defined_anew_is_looked_at_again"),
    ),
    _shown(
        "Messages that no page should send",
        "Ten thousand of them: each is answered once, and none of the wrong ones does anything.",
        *_in(HOSTILE, "ten_thousand_messages_are_each_answered_once_and_wrong_ones_do_nothing"),
        *_in(HOSTILE, "a_page_cannot_change_what_others_are_shown"),
        *_in(HOSTILE, "from_many_threads_while_calls_flow"),
        *_in("kernels/test_hostile_page.py", "hundreds_of_messages_that_no_page_should_send"),
    ),
    _shown(
        "Strings that try to be more than text",
        "Markup, scripts, styles, control and direction characters, 10 MB, in every place: they "
        "are read and never obeyed, in the live view, in what is left and in the report.",
        *_in(
            "browser/test_hostile_page.py",
            "the_live_view_shows_them_as_text",
            "what_is_left_shows_them_as_text",
            "in_a_notebook_from_the_first_call_to_the_reload",
        ),
        *_in("views/test_bundle.py", "they_name_no_other_place_and_obey_no_text"),
    ),
    _shown(
        "A flood of calls",
        "Five messages and 50 kB a second at most, at 20 000 calls a second and with 100 000 "
        "queued; the page draws what is in sight.",
        *_in("views/test_flood.py", "five_patches_and_fifty_kilobytes_a_second"),
        *_in(
            "browser/test_flood.py",
            "a_flood_is_drawn",
            "ten_thousand_rows_scroll_and_stay_while_calls_end",
            "a_real_flood_is_small_on_the_wire",
        ),
    ),
    _shown(
        "For every reader",
        "By keyboard alone, with a screen reader, in high contrast, on 320 pixels and at 200 %; "
        "the focus stays while values change.",
        *_in(
            "browser/test_accessible.py",
            "axe_finds_nothing_grave",
            "every_control_is_reached_by_tab",
            "everything_works_by_keyboard",
        ),
        *_in(
            "browser/test_narrow.py",
            "nothing_is_lost_on_a_small_page",
            "focus_stays_through_hundreds_of_updates",
        ),
    ),
    _shown(
        "Plugins",
        "Each with its state, in every view.",
        "plugins/test_limiter.py::TestLimiter::test_its_state_is_plain_and_shown_everywhere",
    ),
    _shown(
        "Hosts",
        "Live in JupyterLab, Notebook 7, Voilà and marimo; static HTML in exports and where there "
        "are no widgets; rich text in terminals.",
        *_in("hosts/test_notebook.py", "it_lives_is_stopped_while_cells_run_and_freezes"),
        *_in("hosts/test_voila.py", "it_lives_and_its_outcome_stays"),
        *_in("hosts/test_marimo.py", "it_lives_and_its_outcome_stays"),
        *_in("hosts/test_export.py", "the_outcome_is_in_the_page_and_asks_for_nothing"),
        *_in("hosts/test_export.py", "a_saved_live_view_is_exported_as_html"),
        *_in("hosts/test_terminal.py", "ipython", "plain_python"),
    ),
    _shown(
        "Dark and light",
        "As the host says, each in its own way, else as the reader's system says.",
        *_in("hosts/test_themes.py", "the_hosts_flag_decides_against_the_readers_system"),
        *_in("hosts/test_themes.py", "without_a_flag_the_readers_system_decides"),
    ),
)

_MENDED = (
    _shown(
        "A decorated name stays bound",
        "Stacked registrations reach every event they name.",
        *_in(FORMER, "a_callback_can_be_registered_twice_by_stacking_decorators"),
        *_in(EVENTS, "decorators_return_the_function_so_they_stack"),
    ),
    _shown(
        "A scheduler runs again",
        "On each backend, with fresh workers.",
        "executors/test_contract.py::TestForkserverProcesses::test_the_same_scheduler_runs_three_times",
        "executors/test_contract.py::TestForkserverProcesses::test_it_runs_again_after_stop_now",
    ),
    _shown(
        "Nothing after `on_finished`",
        "However the run ended.",
        *_in(FORMER, "no_event_comes_after_finished"),
    ),
    _shown(
        "A second run on another loop",
        "is as long as the first.",
        *_in(FORMER, "the_second_run_is_as_long_as_the_first_though_its_loop_is_another"),
    ),
    _shown(
        "Refilling in `on_empty`",
        "keeps the run alive; runs leave no callbacks behind.",
        *_in(RUN, "refilling_in_on_empty_keeps_the_run_alive"),
        *_in(FORMER, "runs_leave_no_callbacks_behind"),
    ),
    _shown(
        "An error in `on_empty`",
        "counts like any other.",
        *_in(RUN, "an_error_in_on_empty_is_not_swallowed"),
    ),
    _shown(
        "Interrupts cut nothing in two",
        "At each line of submitting and cancelling, at many of starting; in a busy notebook.",
        *_in(
            "scheduling/test_interrupts.py",
            "submitting",
            "cancelling",
            "pausing_and_resuming",
            "starting_and_stopping",
        ),
        *_in("kernels/test_interrupt_storm.py", "at_random_moments_of_a_busy_notebook"),
    ),
    _shown(
        "Nothing outlives a kernel, a server or a script",
        "However it ends: workers, children, daemons and calls that let no Python run.",
        *_in(
            "chaos/test_orphans.py",
            "nothing_outlives_a_program",
            "a_call_that_lets_no_python_run_outlives_no_kernel",
            "what_a_call_has_started_does_not_outlive_its_killed_worker",
        ),
        *_in("kernels/test_killed_server.py", "nothing_outlives_a_killed_server"),
        *_in("kernels/test_processes.py", "none_outlives_a_killed_kernel"),
    ),
    _shown(
        "One policy for every callback",
        "The run ends properly whichever of them fails, and no timer outlives it.",
        *_in(RUN, "a_callback_that_raises"),
        *_in(FORMER, "a_failed_run_can_be_followed_by_a_good_one"),
        *_in(GUEST, "a_script_ends_with_its_run_and_prints_nothing_of_its_own"),
    ),
    _shown(
        "One meaning of what a mapping does not list",
        "It is raised, out of calls and callbacks alike.",
        *_in(RUN, "what_a_mapping_does_not_list_is_raised"),
    ),
    _shown(
        "The loop stays the user's",
        "Its exception handler is left alone, other people's errors are not the scheduler's.",
        *_in(GUEST, "nothing_is_left_on_the_loop"),
        *_in(GUEST, "an_error_of_somebody_else_on_the_loop_is_not_ours"),
    ),
    _shown(
        "The loop is never blocked",
        "Not at the end, nor while an interrupted wait is left.",
        *_in(GUEST, "the_loop_turns_while_a_stopped_run_waits_for_its_calls"),
        *_in("kernels/test_interrupt.py", "it_stops_the_wait_and_not_the_run"),
    ),
    _shown(
        "Any thread",
        "may submit and stop, and is heard at once.",
        *_in(RUN, "stop_from_a_thread_wakes_a_loop_that_waits"),
        "executors/test_contract.py::TestThreads::test_eight_threads_submit_fifty_calls_each",
    ),
    _shown(
        "`run()` in a cell",
        "works, and a background run goes on while a cell blocks.",
        *_in("kernels/test_run_in_cell.py", "callbacks_print_into_the_running_cell"),
        *_in("kernels/test_background.py", "a_blocking_cell_does_not_idle_the_workers"),
    ),
    _shown(
        "A scheduler as the last expression",
        "is shown once.",
        *_in("kernels/test_display.py", "the_parts_as_last_expression"),
    ),
    _shown(
        "The outcome stays in the file",
        "as plain HTML.",
        *_in("kernels/test_display.py", "it_is_frozen_from_the_background"),
        *_in("browser/test_pages.py", "the_end_leaves_static_html_in_the_page_and_in_the_file"),
    ),
    _shown(
        "Showing costs little",
        "Observers are told once until somebody looks; a thousand calls a second stay small.",
        *_in(READING, "an_observer_is_told_once_until_somebody_looks"),
        *_in("views/test_model.py", "a_thousand_calls_a_second_stay_below_fifty_kilobytes"),
    ),
    _shown(
        "Functions of a notebook",
        "run whatever the start method.",
        *_in("kernels/test_redefinition.py", "lambdas_and_closures_travel"),
        *_in("executors/test_process_scripts.py", "a_script_without_main_guard_runs_once"),
    ),
    _shown(
        "Sequential runs keep their time",
        "A timeout falls between two calls; chains need no deep stack.",
        *_in(FORMER, "a_timeout_falls_between_two_calls_of_a_sequential_scheduler"),
        *_in(FORMER, "five_thousand_chained_sequential_calls_need_no_deep_stack"),
    ),
    _shown(
        "Stop now means now",
        "Workers end, with what they have started, whatever they ignore.",
        *_in(PROCESS, "closing_can_end_running_calls_with_what_they_started"),
        *_in("kernels/test_processes.py", "stop_now_ends_calls_with_what_they_started"),
    ),
    _shown(
        "Nobody waits for ever",
        "A request without an answer, a listener that nobody tells, a full line: each ends with a "
        "typed error; what would deadlock is refused with the reason.",
        *_in(
            COMM, "what_would_wait_for_ever_says_why", "a_callback_that_fails_is_named_to_the_call"
        ),
        *_in(COMM, "a_run_that_stops_leaves_nobody_waiting", "nobody_listens"),
    ),
    _shown(
        "A worker that dies",
        "costs the call it was running, and no other.",
        *_in(PROCESS, "a_dying_call_says_how_and_others_go_on"),
        *_in(PROCESS, "calls_behind_a_dying_one_run_elsewhere"),
        *_in("kernels/test_processes.py", "a_killed_worker_fails_its_call_and_no_other"),
    ),
    _shown(
        "Coroutines",
        "Callbacks are awaited, functions run to their end.",
        *_in(FORMER, "a_coroutine_callback_is_awaited_and_a_coroutine_function_has_its_result"),
        *_in(RUN, "a_coroutine_callback_is_awaited_before_the_run_ends"),
    ),
    _shown(
        "Long queues cost no more per call",
        "Cancelling from behind, a thousand running calls, the monitor.",
        *_in(FORMER, "ending_eight_thousand_queued_calls_from_behind"),
        *_in("scheduling/test_dispatch.py", "eight_thousand_cancels_from_the_end_walk_nowhere"),
        *_in(MONITOR, "a_flood_of_calls_fills_no_memory"),
    ),
    _shown(
        "Small ones",
        "A stop with an error that may continue is a stop; no event is made by asking for it.",
        *_in(FORMER, "stop_with_an_error_that_may_continue_is_a_stop"),
        *_in(EVENTS, "looking_at_handlers_does_not_make_an_event"),
        *_in(RUN, "an_unguarded_submit_while_draining_is_no_error"),
    ),
)

SECTIONS: dict[str, tuple[Capability, ...]] = {
    "Events": _EVENTS,
    "The scheduler": _SCHEDULER,
    "Tasks": _TASKS,
    "Plugins and helpers": _PLUGINS,
    "The journal": _JOURNAL,
    "What is shown": _VIEWS,
    "What went wrong elsewhere": _MENDED,
}

_INTRO = """# What it can do, and the tests that show it

Every line names the tests that fail when it is no longer true; a name leads to a function of that
name below `tests/`. All tables but that of the journal are what one may know from **amltk**, whose
scheduling this package continues; the last one lists what went wrong there and must not here.
"""


def page() -> str:
    """Write the page."""
    tables = [f"## {title}\n\n{_table(rows)}" for title, rows in SECTIONS.items()]
    return _INTRO + "\n" + "\n\n".join(tables) + "\n"


def _table(rows: tuple[Capability, ...]) -> str:
    lines = ["| Capability | What | Shown by |", "|---|---|---|"]
    return "\n".join([*lines, *(_line(row) for row in rows)])


def _line(row: Capability) -> str:
    if row.absent:
        return f"| {row.name} | {row.absent} | – |"
    return f"| {row.name} | {row.what} | {'<br>'.join(f'`{test}`' for test in row.tests)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
