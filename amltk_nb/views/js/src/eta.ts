// What is left, as a range, from measured durations and the concurrency that is really there.

import { count, isEnded, type Page } from "./page";

export const N_NEEDED = 5;
const N_SAMPLE = 200;
const TINY_S = 0.05;
const SPREAD = 1.28; // standard deviations: eight of ten sums fall within

interface Range {
  lowS: number;
  highS: number;
}

/**
 * Seconds that the calls submitted so far still take, or undefined while nobody can know.
 *
 * A sum of n durations spreads with the root of n, and the mean itself is only known as well as
 * the number of measured calls allows; both go into the range. A call that outlasts what was
 * measured is one of another kind: of such it is only known that they may take as long again.
 *
 * @param now seconds since the epoch, by the kernel's clock
 */
export function remaining(page: Page, now: number, perSecond?: number): Range | undefined {
  const seconds = measured(page);
  // More than the workers can run at once have ended already; the loop has yet to hear of them.
  const nWorkers = page.model.backend.get("backend")?.n_workers || Infinity;
  const nRunning = Math.min(count(page.model, "running"), nWorkers);
  const nQueued = count(page.model, "queued");
  if (seconds.length < N_NEEDED || nRunning + nQueued === 0) return undefined;
  const mean = seconds.reduce((sum, s) => sum + s, 0) / seconds.length;
  const variance = seconds.reduce((sum, s) => sum + (s - mean) ** 2, 0) / (seconds.length - 1);
  const nLeft = nQueued + nRunning / 2; // what runs is half done, on average
  const spread = Math.sqrt(variance) * Math.sqrt(nLeft + (nLeft * nLeft) / seconds.length);
  const concurrency = Math.max(1, nRunning);
  const lowS = Math.max(0, nLeft * mean - SPREAD * spread) / concurrency;
  const age = longest(page, now);
  const again = age > mean + 2 * Math.sqrt(variance) ? age : 0;
  const highS = Math.max((nLeft * mean + SPREAD * spread) / concurrency, again);
  if (mean > TINY_S || !perSecond) return { lowS, highS };
  // Sending tiny calls takes longer than running them, which only the observed rate knows.
  const observed = nLeft / perSecond;
  return { lowS: Math.min(lowS, observed), highS: Math.max(highS, observed) };
}

/** For how long the call runs that has been running longest. */
function longest(page: Page, now: number): number {
  let most = 0;
  for (const call of page.model.calls.values()) {
    if (call.state === "running" && call.started_at !== undefined) most = Math.max(most, now - call.started_at);
  }
  return most;
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
