// A line to the kernel that loses, doubles and reorders messages, and one whose other end is newer.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Connection } from "../src/connection";
import { EMPTY, reduce, whichIsOld, type Page } from "../src/page";
import type { AnyModel, Collections, CollectionName, Patch, WireModel } from "../src/wire";
import { AT, byId, call, counts, model } from "./kernel";

type Sent = { id: number; name: string; args: Record<string, unknown> };
type Told = Record<string, unknown>;

beforeEach(() => void vi.useFakeTimers({ now: AT * 1000 }));
afterEach(() => void vi.useRealTimers());

/** Mulberry32: the same numbers for the same seed, from 0 up to 1. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The kernel's side: what views/feed.py does, over messages that wait to be delivered. */
class Feed {
  readonly onTheWay: Told[] = [];
  readonly helloAt: number[] = [];
  sent: WireModel;
  now: WireModel;
  version = 0;
  private heard: (message: unknown) => void = () => undefined;

  constructor(first: WireModel) {
    this.sent = this.now = first;
  }

  readonly line: AnyModel = {
    get: () => undefined,
    on: (event, callback) => {
      if (event === "msg:custom") this.heard = callback as (message: unknown) => void;
    },
    off: () => undefined,
    send: (content) => this.take(content as Sent),
  };

  private take({ id, name }: Sent): void {
    if (name !== "snapshot") throw new Error(`no such command here: ${name}`);
    this.helloAt.push(Date.now());
    this.sent = this.now;
    this.tell({ kind: "full", schema: 1, version: ++this.version, model: this.sent });
    this.tell({ kind: "reply", id, ok: true, error: null, value: null });
  }

  patch(): void {
    const patch: Patch = diff(this.sent, this.now);
    this.sent = this.now;
    const base = this.version++;
    this.tell({ kind: "patch", base, version: this.version, patch });
  }

  beat(): void {
    this.tell({ kind: "beat", version: this.version });
  }

  deliver(i: number): void {
    const [message] = this.onTheWay.splice(i, 1);
    this.heard(structuredClone(message));
  }

  tell(message: Told): void {
    this.onTheWay.push({ at: Date.now() / 1000, ...message });
  }
}

function diff(old: WireModel, now: WireModel): Patch {
  const patch: Record<string, unknown> = {};
  for (const name of Object.keys(now) as CollectionName[]) {
    const [before, after] = [old[name], now[name]] as Record<string, unknown>[];
    const upsert = Object.fromEntries(
      Object.entries(after ?? {}).filter(([key, record]) => JSON.stringify(before?.[key]) !== JSON.stringify(record)),
    );
    const remove = Object.keys(before ?? {}).filter((key) => !(key in (after ?? {})));
    patch[name] = { upsert, remove };
  }
  return patch as Patch;
}

function plain(page: Page): WireModel {
  const all = Object.entries(page.model).map(([name, records]) => [
    name,
    Object.fromEntries(records as ReadonlyMap<string, Collections[CollectionName]>),
  ]);
  return Object.fromEntries(all) as WireModel;
}

function changed(old: WireModel, roll: () => number): WireModel {
  const first = Math.floor(roll() * 30) + 1;
  const states = ["queued", "running", "done", "failed", "cancelled"] as const;
  const calls = Array.from({ length: 6 }, (_, i) => call(first + i, states[Math.floor(roll() * 5)] ?? "done"));
  return { ...old, calls: byId(calls), counts: counts({ done: Math.floor(roll() * 1000) }) };
}

function trouble(feed: Feed, roll: () => number): void {
  const kind = roll();
  const n = feed.onTheWay.length;
  const any = Math.floor(roll() * n);
  if (kind < 0.3) {
    feed.now = changed(feed.now, roll);
    feed.patch();
  } else if (kind < 0.35) feed.beat();
  else if (n === 0) vi.advanceTimersByTime(Math.floor(roll() * 400));
  else if (kind < 0.6) feed.deliver(0);
  else if (kind < 0.75) feed.deliver(any); // out of order
  else if (kind < 0.85) feed.onTheWay.splice(any, 1); // lost
  else if (kind < 0.9) feed.tell({ ...feed.onTheWay[any] }); // twice
  else vi.advanceTimersByTime(Math.floor(roll() * 400));
}

async function deliverAll(feed: Feed): Promise<void> {
  while (feed.onTheWay.length > 0) {
    feed.deliver(0);
    await Promise.resolve();
    await Promise.resolve();
  }
}

describe("over a line that loses, doubles and reorders", () => {
  test.each(Array.from({ length: 150 }, (_, seed) => seed))("the page ends with what the kernel has (%i)", async (seed) => {
    const roll = random(seed);
    const feed = new Feed(model());
    const controller = new AbortController();
    const connection = new Connection(feed.line, undefined, controller.signal);
    for (let step = 0; step < 200; step++) {
      trouble(feed, roll);
      await Promise.resolve();
    }
    // From here on nothing is lost any more, and the kernel has nothing new but its heartbeat.
    for (let second = 0; second < 3; second++) {
      await deliverAll(feed);
      vi.advanceTimersByTime(1000);
      await deliverAll(feed);
      feed.beat();
    }
    await deliverAll(feed);
    expect(plain(connection.page)).toEqual(feed.now);
    expect(connection.page.version).toBe(feed.version);
    const gaps = feed.helloAt.slice(1).map((at, i) => at - (feed.helloAt[i] ?? 0));
    expect(gaps.filter((ms) => ms < 1000)).toEqual([]);
    expect(feed.helloAt.length).toBeGreaterThan(0);
    controller.abort();
    vi.advanceTimersByTime(5000);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("a model that was promised and lost is asked for again, a second later", async () => {
    const feed = new Feed(model());
    const connection = new Connection(feed.line);
    feed.onTheWay.shift();
    await deliverAll(feed);
    expect(connection.page.phase).toBe("waiting");
    vi.advanceTimersByTime(999);
    expect(feed.helloAt.length).toBe(1);
    vi.advanceTimersByTime(1);
    expect(feed.helloAt.length).toBe(2);
    await deliverAll(feed);
    expect(connection.page.phase).toBe("live");
    vi.advanceTimersByTime(10_000);
    expect(feed.helloAt.length).toBe(2);
  });

  test("the last patch of all is missed by the next heartbeat", async () => {
    const feed = new Feed(model());
    const connection = new Connection(feed.line);
    await deliverAll(feed);
    feed.now = { ...feed.now, counts: counts({ done: 7 }) };
    feed.patch();
    feed.onTheWay.length = 0;
    vi.advanceTimersByTime(1000);
    feed.beat();
    await deliverAll(feed);
    expect(connection.page.model.counts.get("done")).toEqual({ n: 7 });
  });

  test("a model that is older than the page, or the same, changes nothing", () => {
    const full = (version: number) => ({ kind: "full" as const, schema: 1, at: 0, version, model: model() });
    const { page } = reduce(EMPTY, full(5));
    expect(reduce(page, full(4)).page).toBe(page);
    expect(reduce(page, full(5)).page).toBe(page);
    expect(reduce(page, full(6)).page.version).toBe(6);
  });
});

describe("what a page does not know", () => {
  const STRANGE: unknown[] = [
    null, 7, "full", [], {},
    { kind: "news", at: AT, text: "of a later version" },
    { kind: "constructor", at: AT },
    { kind: "__proto__", at: AT },
    { kind: "beat" },
    { kind: "beat", at: "now" },
    { kind: "patch", at: AT, base: 1, version: 2 },
    { kind: "patch", at: AT, base: 1, version: NaN, patch: {} },
    { kind: "full", at: AT, schema: 1, version: 9 },
    { kind: "reply" },
    { kind: "reply", id: 12345, ok: true },
  ];

  test.each(STRANGE)("is passed over: %j", async (message) => {
    const feed = new Feed(model());
    const connection = new Connection(feed.line);
    await deliverAll(feed);
    const [before, now] = [connection.page, connection.now()];
    feed.onTheWay.push(message as Told);
    await deliverAll(feed);
    expect(connection.page).toBe(before);
    expect(connection.now()).toBe(now);
    expect(feed.helloAt.length).toBe(1);
  });

  test("fields and collections of a later version leave the rest as it is", async () => {
    const feed = new Feed(model());
    const connection = new Connection(feed.line);
    await deliverAll(feed);
    const patch = { oracles: { upsert: { a: { says: "?" } } }, calls: { upsert: byId([call(9, "done", { mood: "fine" } as object)]), sorted: [] } };
    feed.tell({ kind: "patch", base: 1, version: 2, patch, signature: "?" });
    await deliverAll(feed);
    expect(Object.keys(connection.page.model)).not.toContain("oracles");
    expect(connection.page.model.calls.get("9")?.state).toBe("done");
  });
});

test("which side is old, and what to do", () => {
  expect(whichIsOld(2)).toBe("This page's part of amltk_nb is older (1) than the kernel's (2): reload the page.");
  expect(whichIsOld(0)).toBe("The kernel's amltk_nb is older (0) than this page's part (1): restart the kernel.");
  expect(whichIsOld(undefined)).toContain("restart the kernel");
});
