// Which bars the timeline draws: per worker, what it ran when; pure, so that it is tested as such.

import type { Page } from "./page";
import type { CallRecord, CallState } from "./wire";

/** One call, or several that are too short to be told apart. */
export interface Bar {
  readonly state: CallState;
  readonly from: number; // seconds since the epoch, as `to`
  readonly to: number;
  readonly calls: readonly number[]; // their ids, in order of time
}

export interface Lane {
  readonly worker: string;
  readonly bars: readonly Bar[];
}

export const N_LANES = 24;
const N_GRAINS = 8; // the most that are drawn together

/**
 * The lanes of all workers that ran something between two moments.
 *
 * What is shorter than a grain is drawn together with its neighbours of the same state, so that a
 * million short calls are some hundred bars. Who is drawn together depends on the clock and not on
 * `from`, or each bar of a moving window would be made anew.
 */
export function lanes(page: Page, from: number, to: number, grainS: number): Lane[] {
  const byWorker = new Map<string, CallRecord[]>();
  for (const call of ran(page)) {
    const [began, ended] = span(call, to);
    if (ended < from || began > to) continue;
    const worker = call.worker as string;
    const known = byWorker.get(worker);
    if (known) known.push(call);
    else byWorker.set(worker, [call]);
  }
  return [...byWorker]
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .map(([worker, calls]) => ({ worker, bars: bars(calls, from, to, grainS) }));
}

/** When the first call that a page knows of began; undefined: none has. */
export function firstBegan(page: Page): number | undefined {
  let first: number | undefined;
  for (const call of ran(page)) {
    const [began] = span(call, Infinity);
    if (first === undefined || began < first) first = began;
  }
  return first;
}

/** When the last call that a page knows of ended. */
export function lastEnded(page: Page): number | undefined {
  let last: number | undefined;
  for (const call of ran(page)) {
    if (call.ended_at !== undefined && (last === undefined || call.ended_at > last)) last = call.ended_at;
  }
  return last;
}

function* ran(page: Page): Generator<CallRecord> {
  for (const calls of [page.archive.values(), page.model.calls.values()]) {
    for (const call of calls) if (call.worker !== undefined && call.started_at !== undefined) yield call;
  }
}

/** From when to when a call ran; a worker's own measure says more than when the news came. */
function span(call: CallRecord, now: number): [number, number] {
  const began = call.started_at as number;
  if (call.state === "running") return [began, Math.max(began, now)];
  const ended = call.seconds !== undefined ? began + call.seconds : (call.ended_at ?? began);
  return [began, Math.max(began, ended)];
}

function bars(calls: CallRecord[], from: number, to: number, grainS: number): Bar[] {
  const drawn: { state: CallState; from: number; to: number; calls: number[] }[] = [];
  // A power of two, so that a window that grows keeps its bars for a while.
  const grain = 2 ** Math.ceil(Math.log2(grainS));
  const stretch = (at: number) => Math.floor(at / (N_GRAINS * grain));
  const began = (call: CallRecord) => call.started_at as number;
  for (const call of calls.sort((a, b) => began(a) - began(b) || a.id - b.id)) {
    const [start, end] = span(call, to);
    const last = drawn.at(-1);
    const isNear = end - start < grain && last !== undefined && start - last.to < grain;
    if (last && isNear && last.state === call.state && stretch(last.from) === stretch(start)) {
      last.to = Math.max(last.to, Math.min(end, to));
      last.calls.push(call.id);
    } else {
      drawn.push({ state: call.state, from: Math.max(start, from), to: Math.min(end, to), calls: [call.id] });
    }
  }
  return drawn;
}
