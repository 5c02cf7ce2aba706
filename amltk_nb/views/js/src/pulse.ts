// How often each event happens, from the counts that come: the kernel sends no times for them.

import type { EventRecord } from "./wire";

export const N_SLOTS = 60; // seconds that are remembered
const RATE_S = 5;

interface Beats {
  count: number;
  lastAt: number | undefined; // undefined: not since this page looks
  slots: Map<number, number>; // second → how often
}

export class Pulse {
  private readonly seen = new Map<string, Beats>();
  private takenAt = -Infinity;

  /** Take the counts of this moment, in seconds since the epoch. */
  take(events: ReadonlyMap<string, EventRecord>, at: number): void {
    for (const [id, { count }] of events) {
      let beats = this.seen.get(id);
      if (!beats || count < beats.count) {
        // At the first look nobody knows when they happened; what is new later has just begun.
        const known = this.takenAt === -Infinity || beats ? count : 0;
        this.seen.set(id, (beats = { count: known, lastAt: undefined, slots: new Map() }));
      }
      if (count > beats.count) this.spread(beats, count - beats.count, at);
      beats.count = count;
    }
    this.takenAt = at;
  }

  /** How often a second, over the last seconds; 0: not at all, or nobody knows. */
  rate(id: string, at: number): number {
    let n = 0;
    for (const [second, some] of this.seen.get(id)?.slots ?? []) {
      if (second > Math.floor(at) - RATE_S) n += some;
    }
    return n / (at - Math.floor(at) + RATE_S - 1);
  }

  /** Whether anything is left to be seen of the last minute. */
  isAlive(at: number): boolean {
    return [...this.seen.values()].some(({ lastAt }) => lastAt !== undefined && at - lastAt <= N_SLOTS);
  }

  lastAt(id: string): number | undefined {
    return this.seen.get(id)?.lastAt;
  }

  /** How often in each second of the last minute, the oldest first; undefined: never. */
  minute(id: string, at: number): number[] | undefined {
    const slots = this.seen.get(id)?.slots;
    const last = Math.floor(at);
    if (!slots || ![...slots.keys()].some((second) => second > last - N_SLOTS)) return undefined;
    return Array.from({ length: N_SLOTS }, (_, i) => slots.get(last - N_SLOTS + 1 + i) ?? 0);
  }

  /** What comes after a silence happened during all of it, as far as anybody knows. */
  private spread(beats: Beats, n: number, at: number): void {
    const last = Math.floor(at);
    const first = Math.max(Math.min(last, Math.floor(this.takenAt) + 1), last - N_SLOTS + 1);
    for (let second = first; second <= last; second++) {
      beats.slots.set(second, (beats.slots.get(second) ?? 0) + n / (last - first + 1));
    }
    for (const second of beats.slots.keys()) if (second <= last - N_SLOTS) beats.slots.delete(second);
    beats.lastAt = at;
  }
}
