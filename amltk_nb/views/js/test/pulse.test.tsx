// How often events happen, as the page finds out from the counts that come.

import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { clockTime } from "../src/format";
import { N_SLOTS, Pulse } from "../src/pulse";
import type { EventRecord } from "../src/wire";
import { AT, closeAll, Kernel, model } from "./kernel";

const T = 1_000;

function counted(count: number): ReadonlyMap<string, EventRecord> {
  return new Map([["e", { emitter: "scheduler", name: "e", count, order: 0 }]]);
}

function took(...looks: [at: number, count: number][]): Pulse {
  const pulse = new Pulse();
  for (const [at, count] of looks) pulse.take(counted(count), at);
  return pulse;
}

describe("a pulse", () => {
  test("knows nothing at the first look, however high the count is", () => {
    const pulse = took([T, 500]);
    expect([pulse.rate("e", T), pulse.lastAt("e"), pulse.minute("e", T)]).toEqual([0, undefined, undefined]);
    expect(pulse.isAlive(T)).toBe(false);
  });

  test("counts what is new, over five seconds", () => {
    const pulse = took([T, 0], [T + 1, 4], [T + 2, 6], [T + 4.999, 6]);
    expect(pulse.rate("e", T + 4)).toBeCloseTo(6 / 4);
    expect(pulse.rate("e", T + 5)).toBeCloseTo(6 / 4); // seconds 1 to 5, of which the last has just begun
    expect(pulse.rate("e", T + 6)).toBeCloseTo(2 / 4);
    expect(pulse.rate("e", T + 7)).toBe(0);
    expect(pulse.lastAt("e")).toBe(T + 2);
  });

  test("spreads what comes after a silence over it, and loses none", () => {
    const pulse = took([T, 0], [T + 10, 50]);
    expect(pulse.minute("e", T + 10)?.slice(-11)).toEqual([0, ...Array(10).fill(5)]);
    const late = took([T, 0], [T + 500, 600]);
    expect(late.minute("e", T + 500)).toEqual(Array(N_SLOTS).fill(10));
  });

  test("takes an event that turns up later for one that has just begun", () => {
    const pulse = new Pulse();
    pulse.take(new Map(), T);
    pulse.take(counted(3), T + 1);
    expect(pulse.minute("e", T + 1)?.at(-1)).toBe(3);
  });

  test("starts anew when counts fall: it is another scheduler", () => {
    const pulse = took([T, 9], [T + 1, 12], [T + 2, 1]);
    expect([pulse.rate("e", T + 2), pulse.minute("e", T + 2)]).toEqual([0, undefined]);
    pulse.take(counted(2), T + 3);
    expect(pulse.minute("e", T + 3)?.at(-1)).toBe(1);
  });

  test("forgets what is older than a minute, and is quiet then", () => {
    const pulse = took([T, 0], [T + 1, 1]);
    expect([pulse.isAlive(T + 61), pulse.isAlive(T + 61.1)]).toEqual([true, false]);
    expect(pulse.minute("e", T + 60)?.[0]).toBe(1);
    expect(pulse.minute("e", T + 61)).toBeUndefined();
  });
});

describe("in the tree of events", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: AT * 1000, toFake: ["Date", "setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
  });

  afterEach(async () => {
    await closeAll();
    vi.useRealTimers();
  });

  async function seconds(n: number): Promise<void> {
    for (let i = 0; i < n; i++) await act(() => void vi.advanceTimersByTime(1000));
  }

  const ID = "Task-f-1/on_result";
  const result = (count: number) => ({ events: { upsert: { [ID]: { emitter: "Task-f-1", name: "on_result", count, order: 1 } } } });

  test("an event shows its rate while it happens, then when it last did", async () => {
    const kernel = await new Kernel(["events"]).open();
    const shown = () => [...kernel.el.querySelectorAll(".amltk-when")].map((e) => e.textContent);
    expect(shown()).toEqual(["", ""]);
    await seconds(1);
    await kernel.patch(result(15));
    expect(shown()).toEqual(["", "2.0/s"]);
    expect(kernel.el.querySelectorAll(".amltk-minute path[d^='M59']").length).toBe(1);
    await seconds(5);
    expect(shown()).toEqual(["", clockTime(AT + 1)]);
    expect(kernel.el.querySelectorAll(".amltk-minute path[d^='M54']").length).toBe(1);
    await seconds(60);
    expect(kernel.el.querySelectorAll(".amltk-minute path[d^='M']").length).toBe(0);
  });

  test("who listens has a count of its own, errors marked, and who is hidden is not shown", async () => {
    const kernel = await new Kernel(["events"]).open();
    const listeners = [...kernel.el.querySelectorAll(".amltk-tree ul li")].map((e) => e.textContent);
    expect(listeners).toEqual(["def record(r) -> Nonecell [3]✕ 2 errors5"]);
  });

  test("with tasks and nobody who listens it says how to", async () => {
    const kernel = await new Kernel(["events"]).open(model({ callbacks: {} }));
    expect(kernel.text(".amltk-empty")).toBe("Nobody listens yet: put @task.on_result above a function, and it is told of each result.");
  });
});
