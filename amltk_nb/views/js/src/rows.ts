// Which calls the queue shows and in which order, and which of them are drawn: pure.

import { isEnded, type Page } from "./page";
import type { CallRecord, CallState } from "./wire";

export type Filter = CallState | "all";

/** All calls that this page knows, those that matter now first. */
export function known(page: Page): CallRecord[] {
  const calls = [...page.model.calls.values(), ...page.archive.values()];
  for (const call of page.glimpsed.values()) {
    if (!page.model.calls.has(String(call.id)) && !page.archive.has(call.id)) calls.push(call);
  }
  return calls.sort(byInterest);
}

/** Keep the calls of one state whose texts hold what was typed. */
export function chosen(calls: readonly CallRecord[], filter: Filter, text: string): CallRecord[] {
  const wanted = text.trim().toLowerCase();
  return calls.filter(
    (call) => (filter === "all" || call.state === filter) && (wanted === "" || holds(call, wanted)),
  );
}

/**
 * Keep rows where they are while somebody points at them: a row that jumps away under the pointer
 * makes the wrong call be ended. New rows come last until the pointer leaves.
 */
export function held(calls: readonly CallRecord[], order: readonly number[]): CallRecord[] {
  const byId = new Map(calls.map((call) => [call.id, call]));
  const kept: CallRecord[] = [];
  for (const id of order) {
    const call = byId.get(id);
    if (call) kept.push(call);
    byId.delete(id);
  }
  return [...kept, ...byId.values()];
}

export type Piece = { gap: number } | { index: number };

/**
 * Say what is drawn of n rows: those in the window and those that are pinned (open, or focused),
 * with gaps between them that stand for the rest.
 */
export function pieces(n: number, first: number, last: number, pinned: readonly number[]): Piece[] {
  const drawn = new Set(pinned.filter((index) => index >= 0 && index < n));
  for (let index = Math.max(0, first); index <= Math.min(n - 1, last); index++) drawn.add(index);
  const result: Piece[] = [];
  let next = 0;
  for (const index of [...drawn].sort((a, b) => a - b)) {
    if (index > next) result.push({ gap: index - next });
    result.push({ index });
    next = index + 1;
  }
  if (next < n) result.push({ gap: n - next });
  return result;
}

const RANK: Record<string, number> = { running: 0, queued: 1 };

function byInterest(a: CallRecord, b: CallRecord): number {
  const rank = (RANK[a.state] ?? 2) - (RANK[b.state] ?? 2);
  if (rank !== 0) return rank;
  if (!isEnded(a)) return a.id - b.id;
  return (b.ended_at ?? 0) - (a.ended_at ?? 0) || b.id - a.id;
}

function holds(call: CallRecord, wanted: string): boolean {
  const text = `${call.id} ${call.function}(${call.args}) ${call.task ?? ""} ${call.worker ?? ""} ${call.error ?? ""} ${call.progress?.text ?? ""}`;
  return text.toLowerCase().includes(wanted);
}
