// What is left, as a range, from measured durations and the concurrency that is really there.

import { count, isEnded, type Page } from "./page";

export const N_NEEDED = 5;
const N_SAMPLE = 200;
const SPREAD = 1.28; // standard deviations: eight of ten sums fall within

/**
 * Seconds that the calls submitted so far still take, or undefined while nobody can know.
 *
 * A sum of n durations spreads with the root of n, and the mean itself is only known as well as
 * the number of measured calls allows; both go into the range.
 */
export function remaining(page: Page): { lowS: number; highS: number } | undefined {
  const seconds = measured(page);
  const nRunning = count(page.model, "running");
  const nQueued = count(page.model, "queued");
  if (seconds.length < N_NEEDED || nRunning + nQueued === 0) return undefined;
  const mean = seconds.reduce((sum, s) => sum + s, 0) / seconds.length;
  const variance = seconds.reduce((sum, s) => sum + (s - mean) ** 2, 0) / (seconds.length - 1);
  const nLeft = nQueued + nRunning / 2; // what runs is half done, on average
  const spread = Math.sqrt(variance) * Math.sqrt(nLeft + (nLeft * nLeft) / seconds.length);
  const concurrency = Math.max(1, nRunning);
  const low = Math.max(0, nLeft * mean - SPREAD * spread) / concurrency;
  return { lowS: low, highS: (nLeft * mean + SPREAD * spread) / concurrency };
}

function measured(page: Page): number[] {
  const found: { at: number; s: number }[] = [];
  for (const calls of [page.model.calls.values(), page.archive.values()]) {
    for (const call of calls) {
      if (!isEnded(call) || call.state === "cancelled" || call.seconds === undefined) continue;
      found.push({ at: call.ended_at ?? 0, s: call.seconds });
    }
  }
  return found.sort((a, b) => b.at - a.at).slice(0, N_SAMPLE).map((call) => call.s);
}
