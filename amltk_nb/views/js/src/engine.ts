// What runs the calls, in words: the same as views/engine.py says in text and static HTML.

import { oneLine, plural, ticking, value } from "./format";
import type { BackendRecord, CallRecord, CallState } from "./wire";

const OPTIONS_CHARS = 160;

/** Name an engine as it was asked for: "DaskExecutor(n_workers=2)". */
export function engineText(backend: BackendRecord): string {
  const options = Object.entries(backend.options).map(([name, v]) => `${name}=${value(v)}`);
  const text = oneLine(options.join(", "));
  const shown = text.length > OPTIONS_CHARS ? `${text.slice(0, OPTIONS_CHARS - 1)}…` : text;
  return oneLine(backend.name) + (shown ? `(${shown})` : "");
}

/** Say what it waits for and for how long: "waiting 12 s for workers of DaskExecutor". */
export function waitingText(backend: BackendRecord, now: number): string | undefined {
  if (backend.waiting_for === undefined) return undefined;
  const since = backend.waiting_since;
  return `waiting ${since === undefined ? "" : `${ticking(now - since)} `}for ${oneLine(backend.waiting_for)}`;
}

/** Say what to do, once it has waited for so long that something may be wrong. */
export function advice(backend: BackendRecord, now: number): string | undefined {
  const { waiting_since: since, no_workers_after_s: patience } = backend;
  if (since === undefined || patience === undefined || now - since < patience) return undefined;
  return backend.hint;
}

/** Say that queued calls wait because nobody is there, if that is why. */
export function queueText(backend: BackendRecord | undefined, nQueued: number): string | undefined {
  if (backend?.waiting_for === undefined || nQueued === 0) return undefined;
  const verb = nQueued === 1 ? "waits" : "wait";
  return `${plural(nQueued, "call")} ${verb} for ${oneLine(backend.waiting_for)}`;
}

export function jobsText(backend: BackendRecord): string | undefined {
  const n = backend.n_jobs_waiting;
  return n === undefined ? undefined : `${plural(n, "job")} in the batch queue`;
}

/** Write the name of a worker where there is little room: the scheme of an address says nothing. */
export function shortName(worker: string): string {
  return oneLine(worker).replace(/^[a-z]+:\/\//, "");
}

/** Name a state as far as the engine knows: many do not say when a call begins. */
export function stateWord(state: CallState, backend: BackendRecord | undefined): string {
  return state === "running" && backend?.reports_start === false ? "handed over" : state;
}

/** The same for one call: what reports has begun. */
export function callWord(call: CallRecord, backend: BackendRecord | undefined): string {
  return call.progress ? call.state : stateWord(call.state, backend);
}
